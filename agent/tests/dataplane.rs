//! The data plane against a kernel's own IPVS, with ipvsadm and ip as the second opinion. These
//! need a kernel with IPVS and dummy interfaces, and root; `ISOPATH_TEST_IPVS=1` says that all
//! are there, as in the test VM.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

mod director;
mod shell;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use director::{
    Director, assert_ready, of, rules, run, server, service, sysctl, three, vip, wanted,
};
use isopath_agent::dataplane::{KernelService, Report, ServiceWanted, Wanted};
use isopath_api::config::DirectorFile;
use isopath_api::declare::{
    DrainLimit, Forwarding, Lvs, Persistence, Scheduler, SchedulerFlag, ServiceSpec, Tunnel,
    TunnelChecksum, TunnelKind,
};
use isopath_api::digest;
use isopath_api::ids::{RealServerId, ServiceId};
use isopath_api::reason::Reason;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const THREE: [&str; 12] = [
    "-A -t 10.99.0.1:80 -s mh -b mh-fallback,mh-port",
    "-A -t 10.99.0.2:443 -s wlc",
    "-A -u 10.99.0.3:53 -s rr",
    "-a -t 10.99.0.1:80 -r 10.1.0.11:80 -g -w 1",
    "-a -t 10.99.0.1:80 -r 10.1.0.12:8080 -g -w 0",
    "-a -t 10.99.0.1:80 -r 10.1.0.13:80 -g -w 2",
    "-a -t 10.99.0.2:443 -r 10.1.0.11:80 -m -w 1",
    "-a -t 10.99.0.2:443 -r 10.1.0.12:8080 -m -w 0",
    "-a -t 10.99.0.2:443 -r 10.1.0.13:80 -m -w 2",
    "-a -u 10.99.0.3:53 -r 10.1.0.11:80 -i -w 1 --tun-type ipip",
    "-a -u 10.99.0.3:53 -r 10.1.0.12:8080 -i -w 0 --tun-type ipip",
    "-a -u 10.99.0.3:53 -r 10.1.0.13:80 -i -w 2 --tun-type ipip",
];

#[tokio::test]
async fn a_director_comes_up_starts_again_and_goes_down() {
    let Some(director) = Director::enter("life") else {
        return;
    };
    run("ipvsadm -A -t 10.99.9.9:80 -s wlc");
    run("ipvsadm -a -t 10.99.9.9:80 -r 10.1.0.99:80 -m -w 7");
    run("ipvsadm -A -f 7 -s rr");
    let foreign = rules();

    let mut dataplane = director.dataplane();
    let report = dataplane.reconcile(&three()).await;
    assert_ready(&report);
    assert_eq!(report.vips.len(), 3);
    let mut expected: Vec<String> = THREE.map(str::to_owned).into();
    expected.extend(foreign.clone());
    expected.sort();
    assert_eq!(rules(), expected);
    let addresses = run("ip -o -4 addr show dev vips");
    for address in ["10.99.0.1/32", "10.99.0.2/32", "10.99.0.3/32"] {
        assert!(addresses.contains(address), "{address} not in {addresses}");
    }
    assert!(run("ip -d link show vips").contains("dummy"));
    assert!(run("ip link show vips").contains("UP"));
    for (name, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/vs/sloppy_tcp", "1"),
        ("net/ipv4/vs/schedule_icmp", "1"),
        ("net/ipv4/vs/expire_nodest_conn", "1"),
        ("net/ipv4/vs/expire_quiescent_template", "1"),
        ("net/ipv4/vs/conn_reuse_mode", "3"),
        ("net/ipv4/conf/all/arp_ignore", "1"),
        ("net/ipv4/conf/all/arp_announce", "2"),
    ] {
        assert_eq!(sysctl(name), value, "{name}");
    }
    let web: ServiceId = "tcp:10.99.0.1:80".parse().unwrap();
    let dead: RealServerId = "10.1.0.12:8080".parse().unwrap();
    let weight = |services: &BTreeMap<ServiceId, Arc<KernelService>>| {
        let server = services[&web].real_server(dead).cloned();
        server.unwrap().spec.weight
    };
    assert_eq!(weight(&report.services), 0);

    let again = dataplane.reconcile(&three()).await;
    assert_eq!(again.steps, report.steps, "nothing was left to do");
    drop(dataplane);
    let mut dataplane = director.dataplane();
    let services = dataplane.services().await.unwrap();
    assert_eq!(weight(&services), 0);
    let restarted = dataplane.reconcile(&three()).await;
    assert_ready(&restarted);
    assert_eq!(restarted.steps, 0, "a restarted agent changed something");

    // What an earlier run made and nobody wants any more goes, whoever runs now.
    drop(dataplane);
    let mut dataplane = director.dataplane();
    let mut fewer = three();
    fewer.services.remove(&"udp:10.99.0.3:53".parse().unwrap());
    fewer.vips.remove(&vip("10.99.0.3"));
    assert_ready(&dataplane.reconcile(&fewer).await);
    assert!(
        !rules().iter().any(|rule| rule.contains("10.99.0.3")),
        "{:?}",
        rules()
    );
    assert!(!run("ip -o -4 addr show dev vips").contains("10.99.0.3"));

    let report = dataplane.tear_down().await;
    assert_eq!(report.failures, [""; 0]);
    assert_eq!(rules(), foreign, "only what is not ours is left");
    assert!(!run("ip link").contains("vips"));
}

#[tokio::test]
async fn a_step_that_fails_holds_back_its_own_vip_only() {
    let Some(director) = Director::enter("fail") else {
        return;
    };
    let mut wanted = three();
    of(&mut wanted, "tcp:10.99.0.2:443").real_servers[0] = server("224.0.0.1:80", 1, 1);
    let mut dataplane = director.dataplane();
    let report = dataplane.reconcile(&wanted).await;
    assert_eq!(report.vips[&vip("10.99.0.1")], Ok(()));
    assert_eq!(report.vips[&vip("10.99.0.3")], Ok(()));
    let what = "cannot add real server 224.0.0.1:80 to service tcp 10.99.0.2:443";
    let Err(Reason::DataplaneNotReady { what: why }) = &report.vips[&vip("10.99.0.2")] else {
        panic!("{:?}", report.vips);
    };
    assert!(why.starts_with(what) && why.contains("EINVAL"), "{why}");
    assert_eq!(report.failures.len(), 1, "{:?}", report.failures);
    assert!(
        report.failures[0].starts_with(why.as_str()),
        "{:?}",
        report.failures
    );
    assert!(
        report.failures[0].contains("next try at"),
        "{:?}",
        report.failures
    );
    let report = dataplane.reconcile(&three()).await;
    assert_ready(&report);

    // A ledger that cannot be written is reported and holds nothing back.
    std::fs::remove_dir_all(director.state.path()).unwrap();
    let mut fewer = three();
    fewer.services.remove(&"udp:10.99.0.3:53".parse().unwrap());
    let report = dataplane.reconcile(&fewer).await;
    assert_eq!(report.vips[&vip("10.99.0.2")], Ok(()));
    assert!(
        report.failures[0].contains("dataplane"),
        "{:?}",
        report.failures
    );
    std::fs::create_dir(director.state.path()).unwrap();
    assert_ready(&dataplane.reconcile(&fewer).await);
}

/// A real server on this host that says its own number once a client has said something.
fn listen(number: u8) {
    let address = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, number), 8080);
    let listener = TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut byte = [0];
                while matches!(stream.read(&mut byte).await, Ok(1..)) {
                    stream.write_all(&[number]).await.unwrap();
                }
            });
        }
    });
}

/// Which real server answers on a connection.
async fn asks(stream: &mut TcpStream) -> u8 {
    stream.write_all(b"?").await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_u8());
    read.await.expect("the connection is silent").unwrap()
}

async fn connect(source_port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    let source = SocketAddr::from(([10, 99, 0, 1], source_port));
    socket.bind(source).unwrap();
    let vip = SocketAddr::from(([10, 99, 0, 1], 80));
    socket.connect(vip).await.unwrap()
}

fn local(scheduler: Scheduler, servers: &[(u8, u16, u16)]) -> Wanted {
    let mut service = service("tcp:10.99.0.1:80", scheduler, Forwarding::Nat);
    for (number, weight, effective_weight) in servers {
        let id = format!("127.0.0.{number}:8080");
        let server = server(&id, *weight, *effective_weight);
        service.real_servers.push(server);
    }
    wanted(vec![service])
}

/// The real servers of the service in the kernel's own order.
async fn kernel_order() -> Vec<u8> {
    let ipvs = isopath_ipvs::Ipvs::connect().await.unwrap();
    let key = isopath_ipvs::ServiceKey::tcp("10.99.0.1:80".parse().unwrap());
    let servers = ipvs.destinations(&key).await.unwrap();
    let last = |address| match address {
        SocketAddr::V4(address) => address.ip().octets()[3],
        SocketAddr::V6(_) => 0,
    };
    servers.iter().map(|it| last(it.spec.address)).collect()
}

#[tokio::test]
async fn connections_outlive_a_change_of_the_kernels_order() {
    let Some(director) = Director::enter("order") else {
        return;
    };
    for number in 1..=4 {
        listen(number);
    }
    let mut dataplane = director.dataplane();
    let some = local(Scheduler::Mh, &[(1, 1, 1), (3, 1, 1), (4, 1, 1)]);
    assert_ready(&dataplane.reconcile(&some).await);
    assert_eq!(kernel_order().await, [4, 3, 1]);
    let mut streams = Vec::new();
    for port in 40_001..40_041 {
        let mut stream = connect(port).await;
        let server = asks(&mut stream).await;
        streams.push((stream, server));
    }

    let all = local(Scheduler::Mh, &[(1, 1, 1), (2, 1, 1), (3, 1, 1), (4, 1, 1)]);
    let report = dataplane.reconcile(&all).await;
    assert_ready(&report);
    assert_eq!(
        kernel_order().await,
        [4, 3, 2, 1],
        "4 and 3 went in again after 2"
    );
    assert_eq!(sysctl("net/ipv4/vs/expire_nodest_conn"), "1");
    for (stream, server) in &mut streams {
        assert_eq!(asks(stream).await, *server, "a connection moved");
    }
    let service = report.services.values().next().unwrap();
    let active: u32 = service.real_servers.iter().map(|it| it.active).sum();
    assert_eq!(active, 40, "the counts went on");
}

#[tokio::test]
async fn a_removed_real_server_keeps_its_connections_up_to_the_limit() {
    let Some(director) = Director::enter("drain") else {
        return;
    };
    for number in 1..=2 {
        listen(number);
    }
    let limit = Duration::from_secs(3);
    let mut dataplane = director.dataplane();
    let limited = |servers: &[(u8, u16, u16)]| {
        let mut wanted = local(Scheduler::Rr, servers);
        wanted.lvs.drain_limit = DrainLimit(limit);
        wanted
    };
    let both = limited(&[(1, 1, 1), (2, 1, 1)]);
    assert_ready(&dataplane.reconcile(&both).await);
    let mut streams = BTreeMap::new();
    for port in 40_001..40_003 {
        let mut stream = connect(port).await;
        let server = asks(&mut stream).await;
        streams.insert(server, stream);
    }
    assert_eq!(streams.len(), 2, "round robin reaches both");

    let began = Instant::now();
    let one = limited(&[(1, 1, 1)]);
    let report = dataplane.reconcile(&one).await;
    assert_ready(&report);
    let leaving: RealServerId = "127.0.0.2:8080".parse().unwrap();
    let seen = |report: &Report| {
        let service = report.services.values().next().unwrap();
        let server = service.real_server(leaving)?;
        Some((server.spec.weight, server.active))
    };
    assert_eq!(seen(&report), Some((0, 1)));
    assert_eq!(asks(streams.get_mut(&2).unwrap()).await, 2);
    let deadline = began + Duration::from_secs(60);
    while seen(&dataplane.reconcile(&one).await).is_some() {
        assert!(Instant::now() < deadline, "it stays");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(began.elapsed() >= limit, "gone after {:?}", began.elapsed());
    let report = dataplane.reconcile(&one).await;
    assert_eq!(report.drift_repaired, 0, "a removal is no drift");
}

/// Which real server each of 60 clients gets.
async fn picks() -> BTreeMap<u16, u8> {
    let mut picks = BTreeMap::new();
    for port in 41_001..41_061 {
        let mut stream = connect(port).await;
        picks.insert(port, asks(&mut stream).await);
    }
    picks
}

#[tokio::test]
async fn a_director_that_starts_while_a_real_server_is_dead_picks_as_the_others_do() {
    let dead = local(Scheduler::Mh, &[(1, 1, 1), (2, 1, 0), (3, 1, 1)]);
    let others = {
        let Some(director) = Director::enter("old") else {
            return;
        };
        (1..=3).for_each(listen);
        let mut dataplane = director.dataplane();
        let alive = local(Scheduler::Mh, &[(1, 1, 1), (2, 1, 1), (3, 1, 1)]);
        assert_ready(&dataplane.reconcile(&alive).await);
        assert_ready(&dataplane.reconcile(&dead).await);
        picks().await
    };
    let Some(director) = Director::enter("new") else {
        return;
    };
    (1..=3).for_each(listen);
    let mut dataplane = director.dataplane();
    assert_ready(&dataplane.reconcile(&dead).await);
    assert!(others.values().all(|server| *server != 2), "{others:?}");
    assert_eq!(picks().await, others);

    // Added with weight 0 alone, as by hand, it has no place in the table, and the others have
    // its clients for good.
    run("ipvsadm -D -t 10.99.0.1:80");
    run("ipvsadm -A -t 10.99.0.1:80 -s mh -b mh-fallback,mh-port");
    for (number, weight) in [(1, 1), (2, 0), (3, 1)] {
        let server = format!("127.0.0.{number}:8080");
        run(&format!(
            "ipvsadm -a -t 10.99.0.1:80 -r {server} -m -w {weight}"
        ));
    }
    assert_ne!(picks().await, others, "the test could not have failed");
}

/// A service of each scheduler, and one of each other form that there is.
fn all_forms() -> Wanted {
    use Scheduler::{Dh, Fo, Lblc, Lblcr, Lc, Mh, Nq, Ovf, Rr, Sed, Sh, Wlc, Wrr};
    let schedulers = [Rr, Wrr, Lc, Wlc, Lblc, Lblcr, Dh, Sh, Sed, Nq, Fo, Ovf, Mh];
    let mut services = Vec::new();
    for (port, scheduler) in (1..).zip(schedulers) {
        let id = format!("tcp:10.99.1.1:{port}");
        services.push(service(&id, scheduler, Forwarding::Dr));
    }
    services[7].flags = [SchedulerFlag::ShFallback, SchedulerFlag::ShPort].into();
    let mut one_packet = service("udp:10.99.1.1:53", Rr, Forwarding::Nat);
    one_packet.flags = [SchedulerFlag::OnePacket].into();
    let mut persistent = service("sctp:10.99.1.1:2905", Wlc, Forwarding::Dr);
    persistent.persistence = Some(Persistence {
        timeout: Duration::from_secs(50),
        netmask: Some("255.255.255.0".parse().unwrap()),
    });
    let mut marked = service("fwmark:10.99.1.1:7", Wrr, Forwarding::Tun);
    marked.tunnel = Some(Tunnel {
        kind: TunnelKind::Gue,
        port: Some(6080),
        checksum: TunnelChecksum::Remcsum,
    });
    let mut gre = service("tcp:10.99.1.1:99", Wlc, Forwarding::Tun);
    gre.tunnel = Some(Tunnel {
        kind: TunnelKind::Gre,
        port: None,
        checksum: TunnelChecksum::Csum,
    });
    services.extend([one_packet, persistent, marked, gre]);
    for service in &mut services {
        service.real_servers = vec![server("10.1.0.11:80", 1, 1), server("10.1.0.12:80", 2, 2)];
        service.real_servers[0].upper_threshold = 100;
        service.real_servers[0].lower_threshold = 80;
    }
    let mut wanted = wanted(services);
    wanted.lvs.timeouts.tcp = Duration::from_secs(1200);
    wanted.lvs.timeouts.udp = Duration::from_secs(30);
    wanted
}

/// The damage that ipvsadm cannot do: it takes a tunnel's port for the service's.
const TUNNEL: &str = "a tunnel of another kind";

async fn lose_the_tunnel() {
    let ipvs = isopath_ipvs::Ipvs::connect().await.unwrap();
    let key = isopath_ipvs::ServiceKey::Mark {
        family: isopath_ipvs::Family::V4,
        mark: 7,
    };
    let address = "10.1.0.12:80".parse().unwrap();
    let tunnel = isopath_ipvs::Forwarding::Tunnel;
    let ipip = isopath_ipvs::DestinationSpec::new(address, tunnel, 2);
    ipvs.set_destination(&key, &ipip).await.unwrap();
}

#[tokio::test]
async fn every_form_is_programmed_adopted_and_repaired() {
    let Some(director) = Director::enter("forms") else {
        return;
    };
    let mut dataplane = director.dataplane();
    let report = dataplane.reconcile(&all_forms()).await;
    assert_ready(&report);
    let saved = rules();
    for line in [
        "-A -t 10.99.1.1:8 -s sh -b sh-fallback,sh-port",
        "-A -t 10.99.1.1:13 -s mh -b mh-fallback,mh-port",
        "-A -u 10.99.1.1:53 -s rr -o",
        "-A --sctp-service 10.99.1.1:2905 -s wlc -p 50 -M 255.255.255.0",
        "-A -f 7 -s wrr",
        "-a -f 7 -r 10.1.0.12:80 -i -w 2 --tun-type gue --tun-port 6080 --tun-remcsum",
        "-a -t 10.99.1.1:99 -r 10.1.0.12:80 -i -w 2 --tun-type gre --tun-csum",
        "-a -t 10.99.1.1:1 -r 10.1.0.11:80 -g -w 1",
    ] {
        assert!(saved.iter().any(|it| it == line), "no {line} in {saved:#?}");
    }
    assert_eq!(saved.len(), 17 * 3);
    // What it saves is without them.
    let thresholds = run("ipvsadm -Ln --thresholds");
    assert!(thresholds.contains(" 100 "), "{thresholds}");
    let timeouts = || run("ipvsadm -L --timeout");
    assert!(timeouts().contains("1200 120 30"), "{}", timeouts());

    drop(dataplane);
    let mut dataplane = director.dataplane();
    let restarted = dataplane.reconcile(&all_forms()).await;
    assert_ready(&restarted);
    assert_eq!(restarted.steps, 0, "a restarted agent changed something");
    assert_eq!(rules(), saved);

    let mut repaired = 0;
    for damage in [
        "ipvsadm --set 100 10 10",
        "ipvsadm -E -f 7 -s rr",
        "ipvsadm -E --sctp-service 10.99.1.1:2905 -s wlc -p 60",
        "ipvsadm -e -u 10.99.1.1:53 -r 10.1.0.11:80 -m -w 1 -x 5",
        TUNNEL,
    ] {
        match damage {
            TUNNEL => lose_the_tunnel().await,
            _ => drop(run(damage)),
        }
        repaired += 1;
        let report = dataplane.reconcile(&all_forms()).await;
        assert_ready(&report);
        assert_eq!(report.drift_repaired, repaired, "after {damage}");
        assert_eq!(report.steps, repaired, "after {damage}");
        assert_eq!(rules(), saved, "after {damage}");
    }
    assert!(timeouts().contains("1200 120 30"), "{}", timeouts());

    // One weight is one change, planned on what was read before.
    let mut wanted = all_forms();
    of(&mut wanted, "tcp:10.99.1.1:13").real_servers[1] = server("10.1.0.12:80", 9, 9);
    let report = dataplane.change(&wanted).await;
    assert_ready(&report);
    assert_eq!(report.steps, repaired + 1);
    assert_eq!(report.drift_repaired, repaired);
    let line = "-a -t 10.99.1.1:13 -r 10.1.0.12:80 -g -w 9";
    assert!(rules().iter().any(|it| it == line), "{:#?}", rules());
    assert_eq!(dataplane.tear_down().await.failures, [""; 0]);
    assert_eq!(rules(), [""; 0]);
}

#[tokio::test]
async fn what_the_kernel_refuses_waits_and_all_else_goes_on() {
    let Some(director) = Director::enter("refusal") else {
        return;
    };
    let mut wanted = three();
    let refused = &mut of(&mut wanted, "tcp:10.99.0.1:80").real_servers[1];
    (refused.upper_threshold, refused.lower_threshold) = (5, 10);
    let mut dataplane = director.dataplane();
    let first = dataplane.reconcile(&wanted).await;
    assert_eq!(first.vips[&vip("10.99.0.2")], Ok(()));
    assert!(first.vips[&vip("10.99.0.1")].is_err(), "{:?}", first.vips);
    assert_eq!(rules().len(), THREE.len() - 1, "{:#?}", rules());
    let failure = &first.failures[0];
    for words in ["10.1.0.11:80", "tcp 10.99.0.1:80", "ERANGE", "next try at"] {
        assert!(failure.contains(words), "{failure} does not say {words}");
    }

    // Whether it is tried again already or not, nothing else is touched over it; another wanted
    // state is tried at once.
    let again = dataplane.change(&wanted).await;
    assert_eq!(again.failures.len(), 1, "{:?}", again.failures);
    assert_eq!(again.steps, first.steps);
    assert!(again.vips[&vip("10.99.0.1")].is_err(), "{:?}", again.vips);
    let report = dataplane.change(&three()).await;
    assert_ready(&report);
}

#[tokio::test]
async fn a_service_changes_under_its_connections() {
    let Some(director) = Director::enter("edit") else {
        return;
    };
    (1..=2).for_each(listen);
    let mut dataplane = director.dataplane();
    let both = local(Scheduler::Rr, &[(1, 1, 1), (2, 1, 1)]);
    assert_ready(&dataplane.reconcile(&both).await);
    let mut streams = Vec::new();
    for port in 42_001..42_005 {
        let mut stream = connect(port).await;
        let server = asks(&mut stream).await;
        streams.push((stream, server));
    }
    let mut other = both.clone();
    let service = of(&mut other, "tcp:10.99.0.1:80");
    service.scheduler = Scheduler::Wlc;
    service.persistence = Some(Persistence {
        timeout: Duration::from_secs(50),
        netmask: None,
    });
    // Local real servers stay reachable; only new connections would go another way.
    service.forwarding = Forwarding::Dr;
    let report = dataplane.change(&other).await;
    assert_ready(&report);
    for (stream, server) in &mut streams {
        assert_eq!(asks(stream).await, *server, "a connection moved");
    }
}

#[tokio::test]
async fn a_plan_is_printed_and_nothing_is_done() {
    let Some(director) = Director::enter("plan") else {
        return;
    };
    let state = director.state.path().display();
    let text = format!(
        r#"
[director]
name = "d1"
router_id = "10.0.1.2"
state_dir = "{state}"
vip_interface = "vips"
[ospf]
[[ospf.interface]]
name = "eth1"
[[vip]]
address = "10.99.0.1"
[[service]]
vip = "10.99.0.1"
protocol = "tcp"
port = 80
check = {{ type = "none" }}
[[service.real_server]]
address = "10.1.0.11"
"#
    );
    let path = director.state.path().join("d1.toml");
    std::fs::write(&path, &text).unwrap();
    let agent = env!("CARGO_BIN_EXE_isopath-agent");
    let plan = || run(&format!("{agent} check --plan --config {}", path.display()));
    let printed = plan();
    for words in [
        "make the dummy interface vips",
        "add VIP 10.99.0.1 to interface vips",
        "add service tcp:10.99.0.1:80 with scheduler mh",
        "add real server 10.1.0.11:80 (weight 1, direct route) to tcp:10.99.0.1:80",
    ] {
        assert!(printed.contains(words), "no {words:?} in {printed}");
    }
    assert_eq!(rules(), [""; 0], "something was done");

    let file = DirectorFile::parse("d1.toml", &text).unwrap();
    let service = ServiceWanted::of(&file.service[0], |_, weight| weight);
    let mut wanted = wanted(vec![service]);
    wanted.lvs = file.lvs();
    assert_ready(&director.dataplane().reconcile(&wanted).await);
    assert_eq!(plan(), "nothing to do\n");
    run("ipvsadm -e -t 10.99.0.1:80 -r 10.1.0.11:80 -g -w 5");
    let expected = "1. change real server of tcp:10.99.0.1:80 to 10.1.0.11:80 (weight 1, direct \
                    route)\n";
    assert_eq!(plan(), expected);
}

/// What the controller expects of this kernel, it has: whatever the form, whatever happened.
#[tokio::test]
async fn the_kernel_s_digests_are_those_that_follow_from_the_declaration() {
    let Some(director) = Director::enter("digests") else {
        return;
    };
    let servers = json!([
        { "address": "10.1.0.12" }, { "address": "10.1.0.11" }, { "address": "10.1.0.13" },
    ]);
    let forms = json!([
        { "port": 80, "protocol": "tcp" },
        { "port": 81, "protocol": "tcp", "scheduler": "wlc",
          "persistence": { "timeout": "50s", "netmask": "24" } },
        { "port": 82, "protocol": "udp", "forwarding": "tun",
          "tunnel": { "type": "gue", "port": 5555, "checksum": "csum" } },
        { "port": 83, "protocol": "sctp", "scheduler": "sh", "flags": ["sh-port"] },
        { "fwmark": 7, "forwarding": "nat", "scheduler": "rr" },
        { "port": 84, "protocol": "tcp", "real_server": [
            { "address": "10.1.0.11", "weight": 2, "upper_threshold": 9 },
            { "address": "10.1.0.12", "weight": 0 },
        ] },
    ]);
    let specs: Vec<ServiceSpec> = forms
        .as_array()
        .unwrap()
        .iter()
        .map(|form| {
            let mut spec = json!({
                "vip": "10.99.0.1", "check": { "type": "none" }, "real_server": servers,
            });
            for (key, value) in form.as_object().unwrap() {
                spec[key] = value.clone();
            }
            serde_json::from_value(spec).unwrap()
        })
        .collect();
    let of = |effective: fn(RealServerId, u16) -> u16| {
        let services = specs.iter().map(|spec| ServiceWanted::of(spec, effective));
        wanted(services.collect())
    };
    let expected = digest::expected(&specs, &Lvs::default());
    let one_is_dead: fn(RealServerId, u16) -> u16 = |id, weight| match id.0.ip().octets() {
        [.., 12] => 0,
        _ => weight,
    };
    // Dead from the start, alive, by an agent that was started again, and dead once more.
    for (what, effective) in [
        ("dead", one_is_dead),
        ("alive", |_, weight| weight),
        ("dead again", one_is_dead),
    ] {
        let mut dataplane = director.dataplane();
        let report = dataplane.reconcile(&of(effective)).await;
        assert_ready(&report);
        assert_eq!(*report.digests, expected, "{what}");
    }
    let mut dataplane = director.dataplane();
    let mut fewer = of(|_, weight| weight);
    Arc::make_mut(fewer.services.get_mut(&specs[0].id()).unwrap())
        .real_servers
        .pop();
    let report = dataplane.reconcile(&fewer).await;
    assert_ne!(
        report.digests[&specs[0].id()],
        expected[&specs[0].id()],
        "a real server less is another digest"
    );
}
