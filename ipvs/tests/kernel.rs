//! Against a kernel's own IPVS, with ipvsadm as the second opinion. These need a kernel with
//! IPVS and root; `ISOPATH_TEST_IPVS=1` says that both are there, as in the test VM.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isopath_ipvs::{
    Cause, Change, Destination, DestinationEntry, DestinationSpec, Error, Family, Fingerprint,
    Forwarding, Ipvs, Scheduler, Service, ServiceEntry, ServiceFlags, ServiceKey, ServiceSpec,
    Timeouts,
};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use tokio::sync::mpsc;

use self::support::{Namespace, run};

/// The rules as ipvsadm saves them, one a line.
fn saved() -> Vec<String> {
    let lines = run("ipvsadm", &["-Sn"]);
    lines.lines().map(|line| line.trim().to_owned()).collect()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn cause<T: std::fmt::Debug>(result: Result<T, Error>) -> Cause {
    result.unwrap_err().cause
}

#[tokio::test]
async fn ipvsadm_sees_what_was_added_changed_and_deleted() {
    let Some(_namespace) = Namespace::enter("write") else {
        return;
    };
    let ipvs = Ipvs::connect().await.unwrap();
    assert_eq!(ipvs.info().await.unwrap().version, (1, 2, 1));

    let mh = ServiceKey::tcp(address("10.99.0.1:80"));
    let flags = ServiceFlags::MH_FALLBACK | ServiceFlags::MH_PORT;
    let mut spec = ServiceSpec {
        flags,
        ..ServiceSpec::new(mh, "mh")
    };
    ipvs.add_service(&spec).await.unwrap();
    let wlc = ServiceKey::tcp(address("10.99.0.2:443"));
    ipvs.add_service(&ServiceSpec::new(wlc, "wlc"))
        .await
        .unwrap();
    let rr = ServiceKey::udp(address("10.99.0.3:53"));
    ipvs.add_service(&ServiceSpec::new(rr, "rr")).await.unwrap();
    for (service, forwarding) in [
        (mh, Forwarding::DirectRoute),
        (wlc, Forwarding::Masquerade),
        (rr, Forwarding::Tunnel),
    ] {
        for (server, weight) in [("10.1.0.11:80", 3), ("10.1.0.12:8080", 0)] {
            let server = DestinationSpec::new(address(server), forwarding, weight);
            ipvs.add_destination(&service, &server).await.unwrap();
        }
    }
    let mut lines = saved();
    lines.sort();
    assert_eq!(
        lines,
        [
            "-A -t 10.99.0.1:80 -s mh -b mh-fallback,mh-port",
            "-A -t 10.99.0.2:443 -s wlc",
            "-A -u 10.99.0.3:53 -s rr",
            "-a -t 10.99.0.1:80 -r 10.1.0.11:80 -g -w 3",
            "-a -t 10.99.0.1:80 -r 10.1.0.12:8080 -g -w 0",
            "-a -t 10.99.0.2:443 -r 10.1.0.11:80 -m -w 3",
            "-a -t 10.99.0.2:443 -r 10.1.0.12:8080 -m -w 0",
            "-a -u 10.99.0.3:53 -r 10.1.0.11:80 -i -w 3 --tun-type ipip",
            "-a -u 10.99.0.3:53 -r 10.1.0.12:8080 -i -w 0 --tun-type ipip",
        ]
    );

    spec.flags = ServiceFlags::MH_PORT;
    ipvs.set_service(&spec).await.unwrap();
    let changed = DestinationSpec::new(address("10.1.0.12:8080"), Forwarding::Tunnel, 7);
    ipvs.set_destination(&mh, &changed).await.unwrap();
    ipvs.delete_destination(&mh, address("10.1.0.11:80"))
        .await
        .unwrap();
    ipvs.delete_service(&wlc).await.unwrap();
    ipvs.delete_service(&rr).await.unwrap();
    assert_eq!(
        saved(),
        [
            "-A -t 10.99.0.1:80 -s mh -b mh-port",
            "-a -t 10.99.0.1:80 -r 10.1.0.12:8080 -i -w 7 --tun-type ipip",
        ],
        "a flag that was taken away must be gone"
    );
}

#[tokio::test]
async fn what_ipvsadm_made_is_read_as_it_is() {
    let Some(_namespace) = Namespace::enter("read") else {
        return;
    };
    run(
        "ipvsadm",
        &["-A", "-t", "10.99.0.1:80", "-s", "mh", "-b", "mh-fallback"],
    );
    for server in ["10.1.0.12", "10.1.0.11", "10.1.0.13"] {
        let options = [
            "-a",
            "-t",
            "10.99.0.1:80",
            "-g",
            "-w",
            "4",
            "-x",
            "9",
            "-y",
            "5",
            "-r",
        ];
        run("ipvsadm", &[options.as_slice(), &[server]].concat());
    }
    run("ipvsadm", &["-A", "-f", "7", "-s", "rr", "-p", "50"]);
    run("ipvsadm", &["-A", "-t", "[2001:db8::1]:80", "-s", "wlc"]);
    run(
        "ipvsadm",
        &[
            "-a",
            "-t",
            "[2001:db8::1]:80",
            "-r",
            "[2001:db8::2]:80",
            "-m",
        ],
    );

    let ipvs = Ipvs::connect().await.unwrap();
    let web = ServiceKey::tcp(address("10.99.0.1:80"));
    let six = ServiceKey::tcp(address("[2001:db8::1]:80"));
    let mark = ServiceKey::Mark {
        family: Family::V4,
        mark: 7,
    };
    let mut services = ipvs.services().await.unwrap();
    services.sort_by_key(|service| service.spec.key);
    let keys: Vec<_> = services.iter().map(|service| service.spec.key).collect();
    assert_eq!(keys, [web, six, mark]);
    assert_eq!(services[0].spec.scheduler, Scheduler::Mh);
    assert_eq!(services[0].spec.flags, ServiceFlags::MH_FALLBACK);
    assert_eq!(services[2].spec.flags, ServiceFlags::PERSISTENT);
    assert_eq!(services[2].spec.persistence.timeout, 50);
    assert_eq!(ipvs.service(&mark).await.unwrap(), services[2]);

    let servers = ipvs.destinations(&web).await.unwrap();
    let expected = ["10.1.0.13:80", "10.1.0.11:80", "10.1.0.12:80"].map(|server| DestinationSpec {
        upper_threshold: 9,
        lower_threshold: 5,
        ..DestinationSpec::new(address(server), Forwarding::DirectRoute, 4)
    });
    let specs: Vec<_> = servers.into_iter().map(|server| server.spec).collect();
    assert_eq!(specs, expected, "the kernel's order is last added first");
    let servers = ipvs.destinations(&six).await.unwrap();
    assert_eq!(servers[0].spec.address, address("[2001:db8::2]:80"));
    assert_eq!(ipvs.destinations(&mark).await.unwrap(), []);
}

#[tokio::test]
async fn each_refusal_has_its_own_cause() {
    let Some(_namespace) = Namespace::enter("refuse") else {
        return;
    };
    let ipvs = Ipvs::connect().await.unwrap();
    let key = ServiceKey::tcp(address("10.99.0.1:80"));
    let spec = ServiceSpec::new(key, "rr");
    let server = DestinationSpec::new(address("10.1.0.11:80"), Forwarding::Masquerade, 1);

    let error = ipvs.set_service(&spec).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot change service tcp 10.99.0.1:80 to scheduler rr"
    );
    assert!(matches!(error.cause, Cause::NoService), "{:?}", error.cause);
    let cases = [
        cause(ipvs.service(&key).await),
        cause(ipvs.delete_service(&key).await),
        cause(ipvs.add_destination(&key, &server).await),
    ];
    for cause in cases {
        assert!(matches!(cause, Cause::NoService), "{cause:?}");
    }

    ipvs.add_service(&spec).await.unwrap();
    ipvs.add_destination(&key, &server).await.unwrap();
    let cases = [
        cause(ipvs.add_service(&spec).await),
        cause(ipvs.add_destination(&key, &server).await),
    ];
    for cause in cases {
        assert!(matches!(cause, Cause::Exists), "{cause:?}");
    }

    let nobody = DestinationSpec::new(address("10.1.0.99:80"), Forwarding::Masquerade, 1);
    let cases = [
        cause(ipvs.set_destination(&key, &nobody).await),
        cause(ipvs.delete_destination(&key, nobody.address).await),
    ];
    for cause in cases {
        assert!(matches!(cause, Cause::NoDestination), "{cause:?}");
    }

    let odd = ServiceSpec::new(key, "nosuch");
    match cause(ipvs.set_service(&odd).await) {
        Cause::UnknownScheduler(scheduler) => assert_eq!(scheduler.name(), "nosuch"),
        other => panic!("{other:?}"),
    }
    let multicast = DestinationSpec::new(address("224.0.0.1:80"), Forwarding::Masquerade, 1);
    let refused = cause(ipvs.add_destination(&key, &multicast).await);
    assert!(matches!(refused, Cause::BadAddress), "{refused:?}");
}

/// A service for each number, with a few real servers.
fn many(count: u8) -> Vec<Change> {
    let mut changes = Vec::new();
    for number in 0..count {
        let key = ServiceKey::udp(SocketAddr::from(([10, 99, 1, number], 53)));
        changes.push(Change::AddService(ServiceSpec::new(key, "rr")));
        for server in 1..=3 {
            let server = SocketAddr::from(([10, 1, 0, server], 53));
            let server = DestinationSpec::new(server, Forwarding::DirectRoute, 1);
            changes.push(Change::AddDestination(key, server));
        }
    }
    changes
}

#[tokio::test]
async fn each_of_many_changes_has_its_own_result() {
    let Some(_namespace) = Namespace::enter("batch") else {
        return;
    };
    let ipvs = Ipvs::connect().await.unwrap();
    let changes = many(100);
    for result in ipvs.apply(&changes).await {
        result.unwrap();
    }
    // All are refused at once: more than a window of refusals, each with its request in it.
    let refused = ipvs.apply(&changes).await;
    assert_eq!(refused.len(), changes.len());
    for (result, change) in refused.into_iter().zip(&changes) {
        let error = result.unwrap_err();
        assert_eq!(error.operation, change.operation());
        assert!(matches!(error.cause, Cause::Exists), "{error:?}");
    }
    // Refused first, in the midst and last.
    let key = ServiceKey::udp(address("10.99.1.7:53"));
    let gone = ServiceKey::udp(address("10.99.1.8:53"));
    let server = address("10.1.0.1:53");
    let weight = |weight| DestinationSpec::new(server, Forwarding::DirectRoute, weight);
    let results = ipvs
        .apply(&[
            changes[0].clone(),
            Change::SetDestination(key, weight(5)),
            Change::DeleteService(gone),
            Change::SetDestination(gone, weight(5)),
            Change::DeleteDestination(key, address("10.1.0.2:53")),
            Change::DeleteDestination(key, address("10.1.0.2:53")),
        ])
        .await;
    let causes: Vec<_> = results
        .into_iter()
        .map(|result| result.map_err(|error| error.cause))
        .collect();
    let expected = matches!(
        causes[..],
        [
            Err(Cause::Exists),
            Ok(()),
            Ok(()),
            Err(Cause::NoService),
            Ok(()),
            Err(Cause::NoDestination)
        ]
    );
    assert!(expected, "{causes:?}");

    let mut tables = ipvs.tables().await.unwrap();
    tables.sort_by_key(|(service, _)| service.spec.key);
    assert_eq!(tables.len(), 99);
    let (service, servers) = &tables[7];
    assert_eq!(service.spec.key, key);
    let servers: Vec<_> = servers
        .iter()
        .map(|server| (server.spec.address, server.spec.weight))
        .collect();
    assert_eq!(servers, [(address("10.1.0.3:53"), 1), (server, 5)]);
    let (service, servers) = &tables[50];
    assert_eq!(&ipvs.service(&service.spec.key).await.unwrap(), service);
    assert_eq!(
        &ipvs.destinations(&service.spec.key).await.unwrap(),
        servers
    );

    ipvs.zero_service(&key).await.unwrap();
    ipvs.zero().await.unwrap();
    ipvs.flush().await.unwrap();
    assert!(ipvs.tables().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_process_that_may_not_is_told_so() {
    let Some(_namespace) = Namespace::enter("caps") else {
        return;
    };
    let all = capabilities(None).unwrap();
    let without = all.effective.difference(CapabilitySet::NET_ADMIN);
    let fewer = CapabilitySets {
        effective: without,
        ..all
    };
    set_capabilities(None, fewer).unwrap();
    let ipvs = Ipvs::connect().await.unwrap();
    let refused = cause(ipvs.services().await);
    let key = ServiceKey::tcp(address("10.99.0.1:80"));
    let entries = cause(ipvs.entries(vec![key]).await);
    let folded = cause(ipvs.try_fold_entries((), |(), _, _| Some(())).await);
    set_capabilities(None, all).unwrap();
    assert!(matches!(refused, Cause::NoPermission), "{refused:?}");
    assert!(matches!(entries, Cause::NoPermission), "{entries:?}");
    assert!(matches!(folded, Cause::NoPermission), "{folded:?}");
}

/// What is read of the kernel.
type Tables = Vec<(Service, Vec<Destination>)>;

/// Which of these services are not told to be as they were read: by netlink for what they are
/// themselves, by entries for their destinations. Entries alone tell whether there is one.
async fn changed(ipvs: &Ipvs, tables: &Tables) -> Vec<ServiceKey> {
    let is = |servers: &[Destination], entries: &[DestinationEntry]| {
        let mut both = servers.iter().zip(entries);
        servers.len() == entries.len() && both.all(|(server, entry)| entry.is(&server.spec))
    };
    let services = ipvs.services().await.unwrap();
    let keys = tables.iter().map(|(service, _)| service.spec.key);
    let entries = ipvs.entries(keys.collect()).await.unwrap();
    let still = |(service, servers): &(Service, Vec<Destination>), entries: Option<Vec<_>>| {
        services.contains(service) && entries.is_some_and(|entries| is(servers, &entries))
    };
    let both = tables.iter().zip(entries);
    let changed = both.filter(|(table, entries)| !still(table, entries.clone()));
    let mut changed: Vec<_> = changed.map(|((service, _), _)| service.spec.key).collect();
    changed.sort();

    let known = tables.clone();
    let count = move |count: usize, service: &ServiceEntry, entries: &[DestinationEntry]| {
        let same = |(known, servers): &&(Service, Vec<Destination>)| {
            service.is(&known.spec) && service.stats == known.stats.narrow() && is(servers, entries)
        };
        known.iter().find(same).map(|_| count + 1)
    };
    let told = ipvs.try_fold_entries(0, count).await.unwrap();
    let can_say = |(service, _): &(Service, _)| ServiceEntry::can_say(&service.spec);
    let unchanged = changed.is_empty() && tables.iter().all(can_say);
    let told = told.map(|(count, _)| count);
    assert_eq!(told == Some(tables.len()), unchanged, "{told:?}");
    changed
}

/// What the older interface says of everything; nothing where it does not.
async fn fingerprint(ipvs: &Ipvs) -> Option<Arc<Fingerprint>> {
    let all = ipvs.try_fold_entries((), |(), _, _| Some(())).await;
    let ((), fingerprint) = all.unwrap()?;
    Some(Arc::new(fingerprint))
}

/// Whatever somebody else does to a service, it is not taken for unchanged, and no other is.
#[tokio::test]
async fn every_change_of_ipvsadm_is_noticed() {
    let Some(_namespace) = Namespace::enter("notice") else {
        return;
    };
    let ipvs = Ipvs::connect().await.unwrap();
    let ipvsadm = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        run("ipvsadm", &words);
    };
    let name = ["-t 10.99.0.1:80", "-u 10.99.0.2:53", "-f 7"];
    for name in name {
        ipvsadm(&format!("-A {name} -s rr"));
        for server in 11..=13 {
            ipvsadm(&format!("-a {name} -r 10.1.0.{server} -g -w 3 -x 9 -y 5"));
        }
    }
    let keys = [
        ServiceKey::tcp(address("10.99.0.1:80")),
        ServiceKey::udp(address("10.99.0.2:53")),
        ServiceKey::mark(Family::V4, 7),
    ];
    let changes = [
        "-e {} -r 10.1.0.12 -g -w 4 -x 9 -y 5",
        "-e {} -r 10.1.0.12 -g -w 0 -x 9 -y 5",
        "-e {} -r 10.1.0.12 -g -w 3 -x 10 -y 5",
        "-e {} -r 10.1.0.12 -g -w 3 -x 10 -y 6",
        "-e {} -r 10.1.0.12 -m -w 3 -x 10 -y 6",
        "-d {} -r 10.1.0.12",
        "-a {} -r 10.1.0.14 -g -w 3",
        "-d {} -r 10.1.0.11",
        // Now at the head of the list.
        "-a {} -r 10.1.0.11 -g -w 3 -x 9 -y 5",
        "-E {} -s wlc",
        "-E {} -s sh",
        "-E {} -s sh -b sh-port",
        "-E {} -s rr -p 50",
        "-E {} -s rr -p 60",
        "-E {} -s rr -p 60 -M 255.255.255.0",
        "-E {} -s rr",
        "-a {} -r 10.1.0.15 -i",
    ];
    for (key, name) in keys.into_iter().zip(name) {
        // The others differ in how a service is named, not in what becomes of it.
        let changes = if key == keys[0] {
            &changes[..]
        } else {
            &changes[12..]
        };
        for change in changes {
            let tables = ipvs.tables().await.unwrap();
            assert_eq!(changed(&ipvs, &tables).await, [], "before {change}");
            let then = fingerprint(&ipvs).await.unwrap();
            assert!(ipvs.is_still(Arc::clone(&then)).await.unwrap());
            let change = change.replace("{}", name);
            ipvsadm(&change);
            assert_eq!(changed(&ipvs, &tables).await, [key], "after {change}");
            assert!(!ipvs.is_still(then).await.unwrap(), "after {change}");
        }
        // A tunnel's options are what entries have no field for.
        let tables = ipvs.tables().await.unwrap();
        assert_eq!(changed(&ipvs, &tables).await, [key], "a tunnel is not told");
        ipvsadm(&format!("-d {name} -r 10.1.0.15"));
        let tables = ipvs.tables().await.unwrap();
        assert_eq!(changed(&ipvs, &tables).await, []);
        // An IPv6 destination is left out of the entries, but counted.
        let six = address("[2001:db8::5]:80");
        let six = DestinationSpec::new(six, Forwarding::Tunnel, 1);
        let then = fingerprint(&ipvs).await.unwrap();
        ipvs.add_destination(&key, &six).await.unwrap();
        assert_eq!(changed(&ipvs, &tables).await, [key], "an IPv6 destination");
        assert!(!ipvs.is_still(Arc::clone(&then)).await.unwrap());
        assert_eq!(fingerprint(&ipvs).await, None, "not all is said");
        ipvs.delete_destination(&key, six.address).await.unwrap();
        assert_eq!(changed(&ipvs, &tables).await, []);
        assert!(ipvs.is_still(then).await.unwrap());
    }
    let tables = ipvs.tables().await.unwrap();
    let then = fingerprint(&ipvs).await.unwrap();
    ipvsadm("-A -f 8 -s rr");
    assert!(!ipvs.is_still(Arc::clone(&then)).await.unwrap(), "one more");
    ipvsadm("-D -f 8");
    assert!(ipvs.is_still(Arc::clone(&then)).await.unwrap());
    ipvsadm("-D -f 7");
    assert!(!ipvs.is_still(then).await.unwrap(), "one less");
    assert_eq!(
        changed(&ipvs, &tables).await,
        [keys[2]],
        "a service is gone"
    );
    // As many as one would not guess.
    let server = |number| SocketAddr::from(([10, 2, 0, number], 80));
    let server = |number| DestinationSpec::new(server(number), Forwarding::Masquerade, 1);
    let servers = (0..=255).map(|number| Change::AddDestination(keys[0], server(number)));
    for result in ipvs.apply(&servers.collect::<Vec<_>>()).await {
        result.unwrap();
    }
    let tables = ipvs.tables().await.unwrap();
    assert_eq!(changed(&ipvs, &tables).await, []);
    let then = fingerprint(&ipvs).await.unwrap();
    assert!(ipvs.is_still(Arc::clone(&then)).await.unwrap());
    // Any one of the 258 counts.
    for number in [0, 255] {
        let server = server(number);
        let heavier = DestinationSpec {
            weight: 2,
            ..server.clone()
        };
        ipvs.set_destination(&keys[0], &heavier).await.unwrap();
        assert!(!ipvs.is_still(Arc::clone(&then)).await.unwrap());
        ipvs.set_destination(&keys[0], &server).await.unwrap();
        assert!(ipvs.is_still(Arc::clone(&then)).await.unwrap());
    }
    ipvs.flush().await.unwrap();
    let nothing = fingerprint(&ipvs).await.unwrap();
    assert!(ipvs.is_still(nothing).await.unwrap());
    assert!(!ipvs.is_still(then).await.unwrap());
}

/// Whoever needs the connection for something else waits for one service, not for all.
#[tokio::test]
async fn a_look_that_nobody_waits_for_ends() {
    let Some(_namespace) = Namespace::enter("given-up") else {
        return;
    };
    let ipvs = Ipvs::connect().await.unwrap();
    let keys: Vec<_> = (1..=5)
        .map(|number| ServiceKey::mark(Family::V4, number))
        .collect();
    for key in &keys {
        let spec = ServiceSpec::new(*key, Scheduler::Rr);
        ipvs.add_service(&spec).await.unwrap();
    }
    let services: Vec<_> = keys.into_iter().map(|key| (key, ())).collect();
    for folds in [true, false] {
        let (began, mut first) = mpsc::unbounded_channel();
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        let look = move || {
            began.send(()).unwrap();
            wait.lock().unwrap().recv().unwrap_err();
        };
        {
            let (ipvs, services) = (ipvs.clone(), services.clone());
            let looking = async move {
                if folds {
                    let fold = move |count, _: &ServiceEntry, _: &[DestinationEntry]| {
                        look();
                        Some(count + 1)
                    };
                    let all = ipvs.try_fold_entries(0, fold);
                    all.await.map(drop)
                } else {
                    let all = ipvs.with_entries(services, move |(), _| look());
                    all.await.map(drop)
                }
            };
            tokio::select! {
                done = looking => panic!("it did not wait: {done:?}"),
                one = first.recv() => one.unwrap(),
            }
        }
        // It may go through all five now.
        drop(go_on);
        ipvs.info().await.unwrap();
        assert_eq!(first.recv().await, None, "folded: {folds}");
    }
}

#[tokio::test]
async fn timeouts_are_written_and_read() {
    let Some(_namespace) = Namespace::enter("timeouts") else {
        return;
    };
    let ipvs = Ipvs::connect().await.unwrap();
    let wanted = Timeouts {
        tcp: 600,
        tcp_fin: 60,
        udp: 30,
    };
    ipvs.set_timeouts(wanted).await.unwrap();
    assert_eq!(ipvs.timeouts().await.unwrap(), wanted);
    let shown = run("ipvsadm", &["-Ln", "--timeout"]);
    assert_eq!(shown.trim(), "Timeout (tcp tcpfin udp): 600 60 30");
}

#[tokio::test]
async fn a_long_list_arrives_whole_and_connections_are_counted() {
    let Some(_namespace) = Namespace::enter("long") else {
        return;
    };
    let ipvs = Ipvs::connect().await.unwrap();
    // More than fits one 32 KiB part of an answer.
    for result in ipvs.apply(&many(200)).await {
        result.unwrap();
    }
    assert_eq!(ipvs.services().await.unwrap().len(), 200);

    run("ip", &["addr", "add", "10.99.0.1/32", "dev", "lo"]);
    let key = ServiceKey::tcp(address("10.99.0.1:80"));
    ipvs.add_service(&ServiceSpec::new(key, "rr"))
        .await
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:8080").unwrap();
    let server = listener.local_addr().unwrap();
    let server = DestinationSpec::new(server, Forwarding::Masquerade, 1);
    ipvs.add_destination(&key, &server).await.unwrap();
    let client = std::net::TcpStream::connect("10.99.0.1:80").unwrap();
    let servers = ipvs.destinations(&key).await.unwrap();
    assert_eq!(servers[0].active, 1);
    // The kernel adds its counters up every two seconds (`ip_vs_est.c`).
    let deadline = Instant::now() + Duration::from_secs(20);
    let counted = loop {
        let service = ipvs.service(&key).await.unwrap();
        let servers = ipvs.destinations(&key).await.unwrap();
        if service.stats.connections > 0 && servers[0].stats.connections > 0 {
            break (service.stats, servers[0].stats);
        }
        assert!(Instant::now() < deadline, "never counted: {servers:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!((counted.0.connections, counted.1.connections), (1, 1));
    assert!(
        counted.1.in_packets >= 2 && counted.1.in_bytes >= 100,
        "{counted:?}"
    );
    let entries = ipvs.entries(vec![key]).await.unwrap().remove(0).unwrap();
    let servers = ipvs.destinations(&key).await.unwrap();
    assert_eq!(entries[0].active, servers[0].active);
    let (entry, server) = (entries[0].stats, servers[0].stats.narrow());
    assert_eq!(
        (entry.connections, entry.in_packets, entry.in_bytes),
        (server.connections, server.in_packets, server.in_bytes)
    );
    assert!(entry.in_bytes >= 100, "{entry:?}");
    drop(client);
}
