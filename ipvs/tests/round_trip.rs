//! Every combination that a service and a destination can have, through our library into the
//! kernel and back, and the same through ipvsadm: what it says of what we wrote is what we meant,
//! and what it writes of that is what we read. Then what the kernel refuses, each with its cause.
//! This needs a kernel with IPVS and root; `ISOPATH_TEST_IPVS=1` says that both are there, as in
//! the test VM.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use isopath_ipvs::{
    Cause, Change, DestinationEntry, DestinationSpec, Family, Forwarding, Ipvs, Netmask, Protocol,
    Scheduler, ServiceEntry, ServiceFlags, ServiceKey, ServiceSpec, Tunnel, TunnelChecksum,
    TunnelKind,
};

use self::support::{Namespace, run};

type Rules = Vec<(ServiceSpec, Vec<DestinationSpec>)>;

/// The kinds of services; `number` tells those of a kind apart.
fn keys(number: u16) -> [ServiceKey; 8] {
    let port = 1000 + number;
    let v4 = SocketAddr::from(([10, 99, 0, 1], port));
    let v6 = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], port));
    [
        ServiceKey::address(Protocol::Tcp, v4),
        ServiceKey::address(Protocol::Udp, v4),
        ServiceKey::address(Protocol::Sctp, v4),
        ServiceKey::address(Protocol::Tcp, v6),
        ServiceKey::address(Protocol::Udp, v6),
        ServiceKey::address(Protocol::Sctp, v6),
        ServiceKey::mark(Family::V4, u32::from(port)),
        ServiceKey::mark(Family::V6, 1 << 30 | u32::from(port)),
    ]
}

/// The schedulers, each with its flags.
fn schedulers() -> Vec<(Scheduler, ServiceFlags)> {
    let flags = |scheduler: &Scheduler| match scheduler {
        Scheduler::Mh | Scheduler::Sh => vec![
            ServiceFlags::NONE,
            ServiceFlags::SCHED1,
            ServiceFlags::SCHED2,
            ServiceFlags::SCHED1 | ServiceFlags::SCHED2,
        ],
        _ => vec![ServiceFlags::NONE],
    };
    Scheduler::ALL
        .into_iter()
        .flat_map(|scheduler| {
            flags(&scheduler)
                .into_iter()
                .map(move |it| (scheduler.clone(), it))
        })
        .collect()
}

/// No persistence, that of one client, and that of a network.
fn persistences(family: Family) -> [Option<Netmask>; 3] {
    let network = match family {
        Family::V4 => Netmask::V4(Ipv4Addr::new(255, 255, 255, 0)),
        Family::V6 => Netmask::V6(64),
    };
    [None, Some(Netmask::host(family)), Some(network)]
}

/// All services: schedulers × their flags × one-packet (UDP) × persistence × kinds.
fn services() -> Vec<ServiceSpec> {
    let mut services = Vec::new();
    for (scheduler, flags) in schedulers() {
        for persistence in 0..3 {
            for one_packet in [false, true] {
                let number = u16::try_from(services.len()).unwrap();
                for key in keys(number) {
                    let udp = matches!(
                        key,
                        ServiceKey::Address {
                            protocol: Protocol::Udp,
                            ..
                        }
                    );
                    let mut spec = ServiceSpec::new(key, scheduler.clone()).with_flags(flags);
                    if let Some(netmask) = persistences(key.family())[persistence] {
                        spec = spec.persistent(50 + u32::from(number), netmask);
                    }
                    match (one_packet, udp) {
                        (false, _) => services.push(spec),
                        (true, true) => {
                            services.push(spec.with_flags(ServiceFlags::ONE_PACKET));
                        }
                        // ipvsadm refuses the flag for all but UDP.
                        (true, false) => {}
                    }
                }
            }
        }
    }
    services
}

/// The ways of forwarding, with the tunnels and their options.
fn forwardings() -> Vec<(Forwarding, Tunnel)> {
    let plain = Tunnel::default();
    let tunnel = |kind, port, checksum| {
        let tunnel = Tunnel {
            kind,
            port,
            checksum,
        };
        (Forwarding::Tunnel, tunnel)
    };
    let mut ways = vec![
        (Forwarding::Masquerade, plain),
        (Forwarding::DirectRoute, plain),
        (Forwarding::Tunnel, plain),
    ];
    let checksums = [
        TunnelChecksum::None,
        TunnelChecksum::Full,
        TunnelChecksum::Remote,
    ];
    ways.extend(checksums.map(|checksum| tunnel(TunnelKind::Gue, 6080, checksum)));
    ways.extend(
        checksums[..2]
            .iter()
            .map(|checksum| tunnel(TunnelKind::Gre, 0, *checksum)),
    );
    ways
}

/// All destinations of a service: forwarding × tunnel options × thresholds × weights × family.
fn destinations(key: &ServiceKey) -> Vec<DestinationSpec> {
    let mut found = Vec::new();
    let families = [Family::V4, Family::V6];
    for (forwarding, tunnel) in forwardings() {
        for family in families {
            if family != key.family() && forwarding != Forwarding::Tunnel {
                continue;
            }
            for (upper, lower, weight) in [(0, 0, 1), (100, 0, 0), (100, 10, 65_535)] {
                let number = u16::try_from(found.len()).unwrap();
                // Only masquerading changes the port.
                let port = match (forwarding, key) {
                    (Forwarding::Masquerade, _) => 8000 + number,
                    (_, ServiceKey::Address { address, .. }) => address.port(),
                    (_, ServiceKey::Mark { .. }) => 0,
                };
                let address = match family {
                    Family::V4 => {
                        SocketAddr::from((Ipv4Addr::from(0x0a01_0001 + u32::from(number)), port))
                    }
                    Family::V6 => SocketAddr::from(([0x2001, 0xdb8, 1, 0, 0, 0, 0, number], port)),
                };
                found.push(DestinationSpec {
                    upper_threshold: upper,
                    lower_threshold: lower,
                    tunnel,
                    ..DestinationSpec::new(address, forwarding, weight)
                });
            }
        }
    }
    found
}

/// One destination for each service, another way each time, and for the first of each kind all.
fn rules() -> Rules {
    let mut first = BTreeMap::new();
    let mut rules = Vec::new();
    for (number, service) in services().into_iter().enumerate() {
        let all = destinations(&service.key);
        let kind = match service.key {
            ServiceKey::Address { protocol, .. } => (service.key.family(), Some(protocol)),
            ServiceKey::Mark { family, .. } => (family, None),
        };
        let servers = match first.insert(kind, ()) {
            None => all,
            Some(()) => vec![all[number % all.len()].clone()],
        };
        rules.push((service, servers));
    }
    rules
}

/// How ipvsadm names a service.
fn service_name(key: &ServiceKey) -> String {
    match key {
        ServiceKey::Address { protocol, address } => match protocol {
            Protocol::Tcp => format!("-t {address}"),
            Protocol::Udp => format!("-u {address}"),
            Protocol::Sctp => format!("--sctp-service {address}"),
            Protocol::Other(number) => panic!("ipvsadm knows no protocol {number}"),
        },
        ServiceKey::Mark { family, mark } => match family {
            Family::V4 => format!("-f {mark}"),
            Family::V6 => format!("-f {mark} -6"),
        },
    }
}

/// The lines that `ipvsadm -Sn` has for a service: it leaves out thresholds.
fn saved(service: &ServiceSpec, servers: &[DestinationSpec]) -> Vec<String> {
    let name = service_name(&service.key);
    let mut line = format!("-A {name} -s {}", service.scheduler);
    if service.flags.contains(ServiceFlags::PERSISTENT) {
        write!(line, " -p {}", service.persistence.timeout).unwrap();
        let netmask = service.persistence.netmask;
        if netmask != Netmask::host(service.key.family()) {
            write!(line, " -M {netmask}").unwrap();
        }
    }
    if service.flags.contains(ServiceFlags::ONE_PACKET) {
        line.push_str(" -o");
    }
    let prefix = match service.scheduler {
        Scheduler::Mh => "mh",
        _ => "sh",
    };
    let flags: Vec<_> = [
        (ServiceFlags::SCHED1, "fallback"),
        (ServiceFlags::SCHED2, "port"),
    ]
    .into_iter()
    .filter(|(flag, _)| service.flags.contains(*flag))
    .map(|(_, name)| format!("{prefix}-{name}"))
    .collect();
    if !flags.is_empty() {
        write!(line, " -b {}", flags.join(",")).unwrap();
    }
    let server = |it: &DestinationSpec| saved_server(&name, it);
    std::iter::once(line)
        .chain(servers.iter().map(server))
        .collect()
}

fn saved_server(service: &str, server: &DestinationSpec) -> String {
    let forwarding = match server.forwarding {
        Forwarding::Masquerade => "-m",
        Forwarding::Tunnel => "-i",
        Forwarding::DirectRoute => "-g",
        other => panic!("ipvsadm does not write {other}"),
    };
    let (address, weight) = (server.address, server.weight);
    let mut line = format!("-a {service} -r {address} {forwarding} -w {weight}");
    if server.forwarding == Forwarding::Tunnel {
        let checksum = match server.tunnel.checksum {
            TunnelChecksum::None => " --tun-nocsum",
            TunnelChecksum::Full => " --tun-csum",
            TunnelChecksum::Remote => " --tun-remcsum",
            TunnelChecksum::Unknown(flags) => panic!("unknown flags {flags}"),
        };
        let port = server.tunnel.port;
        match server.tunnel.kind {
            TunnelKind::Ipip => line.push_str(" --tun-type ipip"),
            TunnelKind::Gue => {
                write!(line, " --tun-type gue --tun-port {port}{checksum}").unwrap();
            }
            TunnelKind::Gre => write!(line, " --tun-type gre{checksum}").unwrap(),
            TunnelKind::Unknown(number) => panic!("unknown tunnel {number}"),
        }
    }
    line
}

/// What the kernel has, in an order of its own.
async fn read(ipvs: &Ipvs) -> Rules {
    let tables = ipvs.tables().await.unwrap();
    let spec = |(service, servers): (isopath_ipvs::Service, Vec<isopath_ipvs::Destination>)| {
        (
            service.spec,
            servers.into_iter().map(|it| it.spec).collect(),
        )
    };
    sorted(tables.into_iter().map(spec).collect())
}

fn sorted(mut rules: Rules) -> Rules {
    for (_, servers) in &mut rules {
        servers.sort_by_key(|server| server.address);
    }
    rules.sort_by_key(|(service, _)| service.key);
    rules
}

fn changes(rules: &Rules) -> Vec<Change> {
    let service = |(service, servers): &(ServiceSpec, Vec<DestinationSpec>)| {
        let key = service.key;
        let servers: Vec<_> = servers
            .iter()
            .map(|it| Change::AddDestination(key, it.clone()))
            .collect();
        std::iter::once(Change::AddService(service.clone())).chain(servers)
    };
    rules.iter().flat_map(service).collect()
}

/// Compares one by one, so that a failure shows the one.
fn assert_same<T: PartialEq + std::fmt::Debug>(found: &[T], expected: &[T]) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

#[tokio::test]
async fn every_combination_survives_the_kernel_and_ipvsadm() {
    let Some(_namespace) = Namespace::enter("roundtrip") else {
        return;
    };
    let ipvs = Ipvs::connect().await.unwrap();
    let rules = sorted(rules());
    let changes = changes(&rules);
    for (change, result) in changes.iter().zip(ipvs.apply(&changes).await) {
        result.unwrap_or_else(|error| panic!("{change:?}: {error}: {}", error.cause));
    }
    assert_same(&read(&ipvs).await, &rules);
    assert_said_by_entries(&ipvs).await;

    // ipvsadm indents nothing but by its own mistake: compared are the words.
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = run("ipvsadm", &["-Sn"]);
    let mut said: Vec<_> = text.lines().map(words).collect();
    let mut meant: Vec<_> = rules
        .iter()
        .flat_map(|(service, servers)| saved(service, servers))
        .collect();
    said.sort();
    meant.sort();
    assert_same(&said, &meant);

    let mut said = listed_thresholds(&run("ipvsadm", &["-Ln", "--thresholds"]));
    let server = |it: &DestinationSpec| (it.address, it.upper_threshold, it.lower_threshold);
    let servers = rules.iter().flat_map(|(_, servers)| servers);
    let mut meant: Vec<_> = servers.map(server).collect();
    said.sort();
    meant.sort();
    assert_same(&said, &meant);

    ipvs.flush().await.unwrap();
    restore(&text);
    let mut without_thresholds = rules.clone();
    for server in without_thresholds
        .iter_mut()
        .flat_map(|(_, servers)| servers)
    {
        server.upper_threshold = 0;
        server.lower_threshold = 0;
    }
    assert_same(&read(&ipvs).await, &without_thresholds);
    assert_said_by_fold(&ipvs).await;
}

/// The older interface says of every service that it can say what netlink does; those with an
/// IPv6 destination, at which it ends, are deleted first.
async fn assert_said_by_fold(ipvs: &Ipvs) {
    let tables = ipvs.tables().await.unwrap();
    let ended = ipvs.try_fold_entries((), |(), _, _| Some(())).await;
    assert!(ended.unwrap().is_none(), "an IPv6 destination is not said");
    let mut said = Vec::new();
    for (service, servers) in tables {
        let key = service.spec.key;
        if servers.iter().any(|server| server.spec.address.is_ipv6()) {
            ipvs.delete_service(&key).await.unwrap();
        } else if key.family() == Family::V4 {
            said.push((service, servers.len()));
        }
    }
    let collect = |mut all: Vec<_>, service: &ServiceEntry, servers: &[DestinationEntry]| {
        all.push((service.clone(), servers.len()));
        Some(all)
    };
    let entries = ipvs.try_fold_entries(Vec::new(), collect).await;
    let (entries, _) = entries.unwrap().unwrap();
    assert_eq!(entries.len(), said.len());
    for (service, count) in &said {
        let spec = &service.spec;
        let entry = entries.iter().find(|(entry, _)| entry.key == spec.key);
        let (entry, servers) = entry.unwrap();
        let persistent = spec.flags.contains(ServiceFlags::PERSISTENT);
        assert_eq!(entry.is(spec), !persistent, "{entry:?}, {spec:?}");
        let all = (&entry.scheduler, entry.flags, entry.persistence);
        assert_eq!(all, (&spec.scheduler, spec.flags, spec.persistence));
        assert_eq!(entry.stats, service.stats.narrow(), "{}", spec.key);
        assert_eq!(servers, count, "{}", spec.key);
    }
    assert!(said.len() > 20, "{} services are said", said.len());
}

/// The older interface says of everything that it can say what netlink does, and of the rest that
/// it cannot.
async fn assert_said_by_entries(ipvs: &Ipvs) {
    let tables = ipvs.tables().await.unwrap();
    let keys = tables.iter().map(|(service, _)| service.spec.key);
    let entries = ipvs.entries(keys.collect()).await.unwrap();
    assert_eq!(entries.len(), tables.len());
    let (mut said, mut unsaid) = (0, 0);
    for ((service, servers), entries) in tables.iter().zip(entries) {
        let key = service.spec.key;
        let six = servers.iter().any(|server| server.spec.address.is_ipv6());
        let Some(entries) = entries else {
            assert!(six || key.family() == Family::V6, "{key} is not said");
            continue;
        };
        assert_eq!(entries.len(), servers.len(), "{key}");
        for (entry, server) in entries.iter().zip(servers) {
            assert_eq!(server.spec.address, entry.address.into(), "{key}");
            assert_eq!(server.spec.forwarding, entry.forwarding, "{key}");
            let tunnelled = server.spec.forwarding == Forwarding::Tunnel;
            assert_eq!(entry.is(&server.spec), !tunnelled, "{key}: {server:?}");
            let counts = (entry.active, entry.inactive, entry.persistent);
            assert_eq!(counts, (server.active, server.inactive, server.persistent));
            assert_eq!(entry.stats, server.stats.narrow());
            *if tunnelled { &mut unsaid } else { &mut said } += 1;
        }
    }
    assert!(
        said > 20 && unsaid > 20,
        "{said} are said, {unsaid} are not"
    );
}

/// The thresholds of every destination that ipvsadm lists, upper and lower.
fn listed_thresholds(text: &str) -> Vec<(SocketAddr, u32, u32)> {
    let destination = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["->", address, upper, lower, ..] => Some((
            address.parse().ok()?,
            upper.parse().unwrap(),
            lower.parse().unwrap(),
        )),
        _ => None,
    };
    text.lines().filter_map(destination).collect()
}

/// Has ipvsadm make what it said.
fn restore(text: &str) {
    let mut ipvsadm = Command::new("ipvsadm")
        .arg("-R")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = ipvsadm.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    assert!(ipvsadm.wait().unwrap().success());
}

/// Whether a cause is the one that is expected.
type Expected = fn(&Cause) -> bool;

/// What the kernel refuses, and why; the services of [`keys`] are there with a destination each.
fn refusals() -> Vec<(Change, Expected)> {
    let [tcp, udp, _, six, .., mark, _] = keys(0);
    let number = |number| SocketAddr::from(([10, 1, 0, number], 80));
    let six_server = SocketAddr::from(([0x2001, 0xdb8, 1, 0, 0, 0, 0, 9], 80));
    let server = |address| DestinationSpec::new(address, Forwarding::DirectRoute, 1);
    let there = server(number(1));
    let new = server(number(2));
    let by = |forwarding, address| DestinationSpec::new(address, forwarding, 1);
    let gue = DestinationSpec {
        tunnel: Tunnel {
            kind: TunnelKind::Gue,
            ..Tunnel::default()
        },
        ..by(Forwarding::Tunnel, number(2))
    };
    let thresholds = |server: &DestinationSpec| DestinationSpec {
        upper_threshold: 5,
        lower_threshold: 6,
        ..server.clone()
    };
    let heavy = |server: &DestinationSpec| DestinationSpec {
        weight: 1 << 31,
        ..server.clone()
    };
    let prefix = |prefix| ServiceSpec::new(six, "rr").persistent(9, Netmask::V6(prefix));
    let other = |scheduler: &str| ServiceSpec::new(keys(1)[0], scheduler);
    let engine = ServiceSpec {
        persistence_engine: Some("nosuch".to_owned()),
        ..other("rr")
    };
    let add = |key, server: DestinationSpec| Change::AddDestination(key, server);
    let set = |key, server: DestinationSpec| Change::SetDestination(key, server);
    let absent = keys(2)[0];
    vec![
        (Change::AddService(ServiceSpec::new(tcp, "rr")), |it| {
            matches!(it, Cause::Exists)
        }),
        (Change::AddService(ServiceSpec::new(mark, "rr")), |it| {
            matches!(it, Cause::Exists)
        }),
        (Change::AddService(other("nosuch")), |it| {
            matches!(it, Cause::UnknownScheduler(_))
        }),
        (Change::SetService(ServiceSpec::new(udp, "nosuch")), |it| {
            matches!(it, Cause::UnknownScheduler(_))
        }),
        (Change::AddService(other("a-name-longer-than-15")), |it| {
            matches!(it, Cause::Kernel(_))
        }),
        (Change::AddService(engine), |it| {
            matches!(it, Cause::UnknownEngine(_))
        }),
        (Change::SetService(prefix(0)), |it| {
            matches!(it, Cause::BadNetmask(0))
        }),
        (Change::SetService(prefix(129)), |it| {
            matches!(it, Cause::BadNetmask(129))
        }),
        (Change::SetService(ServiceSpec::new(absent, "rr")), |it| {
            matches!(it, Cause::NoService)
        }),
        (Change::DeleteService(absent), |it| {
            matches!(it, Cause::NoService)
        }),
        (Change::ZeroService(absent), |it| {
            matches!(it, Cause::NoService)
        }),
        (add(absent, new.clone()), |it| {
            matches!(it, Cause::NoService)
        }),
        (add(tcp, there.clone()), |it| matches!(it, Cause::Exists)),
        (add(mark, there.clone()), |it| matches!(it, Cause::Exists)),
        (set(tcp, new.clone()), |it| {
            matches!(it, Cause::NoDestination)
        }),
        (Change::DeleteDestination(tcp, number(2)), |it| {
            matches!(it, Cause::NoDestination)
        }),
        (add(tcp, thresholds(&new)), |it| {
            matches!(it, Cause::BadThresholds { lower: 6, upper: 5 })
        }),
        (set(tcp, thresholds(&there)), |it| {
            matches!(it, Cause::BadThresholds { .. })
        }),
        (add(tcp, heavy(&new)), |it| {
            matches!(it, Cause::BadWeight(0x8000_0000))
        }),
        (set(tcp, heavy(&there)), |it| {
            matches!(it, Cause::BadWeight(_))
        }),
        (add(tcp, by(Forwarding::DirectRoute, six_server)), |it| {
            matches!(it, Cause::MixedFamilies)
        }),
        (add(tcp, by(Forwarding::Masquerade, six_server)), |it| {
            matches!(it, Cause::MixedFamilies)
        }),
        (add(six, by(Forwarding::DirectRoute, number(2))), |it| {
            matches!(it, Cause::MixedFamilies)
        }),
        (add(six, by(Forwarding::Masquerade, number(2))), |it| {
            matches!(it, Cause::MixedFamilies)
        }),
        (add(tcp, gue), |it| matches!(it, Cause::NoTunnelPort)),
        (add(tcp, server(([224, 0, 0, 1], 80).into())), |it| {
            matches!(it, Cause::BadAddress)
        }),
        (add(tcp, server(([255, 255, 255, 255], 80).into())), |it| {
            matches!(it, Cause::BadAddress)
        }),
        (
            add(six, server(([0xff02, 0, 0, 0, 0, 0, 0, 1], 80).into())),
            |it| matches!(it, Cause::BadAddress),
        ),
        (
            add(six, server(([0xfe80, 0, 0, 0, 0, 0, 0, 1], 80).into())),
            |it| matches!(it, Cause::BadAddress),
        ),
    ]
}

#[tokio::test]
async fn what_the_kernel_refuses_has_its_cause() {
    let Some(_namespace) = Namespace::enter("refusals") else {
        return;
    };
    let ipvs = Ipvs::connect().await.unwrap();
    let mut rules = Rules::new();
    for key in keys(0) {
        let address = match key.family() {
            Family::V4 => SocketAddr::from(([10, 1, 0, 1], 80)),
            Family::V6 => SocketAddr::from(([0x2001, 0xdb8, 1, 0, 0, 0, 0, 1], 80)),
        };
        // These two are set by nobody, but read where an old ipvsadm left them.
        let forwarding = match key.family() {
            Family::V4 => Forwarding::Local,
            Family::V6 => Forwarding::Bypass,
        };
        let server = DestinationSpec::new(address, forwarding, 1);
        rules.push((ServiceSpec::new(key, "rr"), vec![server]));
    }
    let rules = sorted(rules);
    for result in ipvs.apply(&changes(&rules)).await {
        result.unwrap();
    }
    assert_same(&read(&ipvs).await, &rules);

    let refusals = refusals();
    let asked: Vec<_> = refusals.iter().map(|(change, _)| change.clone()).collect();
    for ((change, expected), result) in refusals.iter().zip(ipvs.apply(&asked).await) {
        let error = result.expect_err(&format!("the kernel took {change:?}"));
        assert!(expected(&error.cause), "{error}: {:?}", error.cause);
        assert_eq!(error.operation, change.operation());
        assert!(error.errno.is_some(), "{error}");
    }
    assert_same(&read(&ipvs).await, &rules);
}
