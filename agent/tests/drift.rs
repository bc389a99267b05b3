//! What changes in the kernel without us is found: drift, traffic, and what becomes ours; though
//! nothing is read in full where nothing changed. These need a kernel with IPVS and dummy
//! interfaces, and root; `ISOPATH_TEST_IPVS=1` says that all are there, as in the test VM.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

#[expect(dead_code, reason = "another test uses the rest")]
mod director;
mod shell;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use director::{Director, assert_ready, of, rules, run, server, service, sysctl, three, wanted};
use isopath_agent::dataplane::{Dataplane, Wanted};
use isopath_api::declare::{Forwarding, Scheduler};
use isopath_api::ids::ServiceId;
use isopath_ipvs::{Ipvs, ServiceKey, ServiceSpec};

/// How often nothing changes before something does: once to read all, once to compare all, and
/// more to compare fingerprints.
const QUIET: usize = 4;

#[tokio::test]
async fn drift_is_repaired_and_counted() {
    let Some(director) = Director::enter("drift") else {
        return;
    };
    // The older interface does not say a tunnel: where a service has one, all are listed and that
    // one is read in full each time; else only what has changed. The third service is here as the
    // one and the other.
    let mut plain = three();
    of(&mut plain, "udp:10.99.0.3:53").forwarding = Forwarding::Nat;
    for wanted in [three(), plain] {
        drift_is_found(&mut director.dataplane(), &wanted).await;
    }
}

async fn drift_is_found(dataplane: &mut Dataplane, wanted: &Wanted) {
    let report = dataplane.reconcile(wanted).await;
    assert_eq!(report.drift_repaired, 0, "coming up is no drift");
    let expected = rules();
    for damage in [
        "ipvsadm -D -t 10.99.0.1:80",
        "ipvsadm -E -t 10.99.0.1:80 -s rr",
        "ipvsadm -e -t 10.99.0.2:443 -r 10.1.0.11:80 -m -w 9",
        "ipvsadm -e -t 10.99.0.1:80 -r 10.1.0.11:80 -i -w 1",
        "ipvsadm -e -t 10.99.0.1:80 -r 10.1.0.11:80 -g -w 1 -x 100 -y 50",
        "ipvsadm -d -u 10.99.0.3:53 -r 10.1.0.13:80",
        "ipvsadm -a -u 10.99.0.3:53 -r 10.1.0.77:53 -m",
        "ip addr del 10.99.0.1/32 dev vips",
        "ip link set vips down",
        "ip link del vips",
        "sysctl -q -w net.ipv4.vs.sloppy_tcp=0",
    ] {
        run(damage);
        let before = dataplane.reconcile(wanted).await;
        assert_ready(&before);
        assert_eq!(rules(), expected, "after {damage}");
        // The first finds nothing changed service by service, the second by their fingerprint.
        for _ in 0..2 {
            let after = dataplane.reconcile(wanted).await;
            assert_eq!(after.steps, before.steps, "{damage} took two calls");
        }
    }
    // Deleting the service took its three real servers along, deleting the interface its VIPs.
    let report = dataplane.reconcile(wanted).await;
    assert_eq!(
        report.drift_repaired,
        4 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 4 + 1
    );
    assert_eq!(sysctl("net/ipv4/vs/sloppy_tcp"), "1");
}

/// One service whose real server is on this host.
fn local() -> Wanted {
    let mut service = service("udp:10.99.0.1:53", Scheduler::Wlc, Forwarding::Nat);
    service.real_servers = vec![server("127.0.0.11:5353", 1, 1)];
    wanted(vec![service])
}

/// The kernel adds its counters up every two seconds.
#[tokio::test]
async fn what_is_counted_is_seen_after_a_time_of_silence() {
    let Some(director) = Director::enter("counted") else {
        return;
    };
    let mut dataplane = director.dataplane();
    let id: ServiceId = "udp:10.99.0.1:53".parse().unwrap();
    let client = |number: u64| {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sent = client.send_to(b"?", "10.99.0.1:53").unwrap();
        assert_eq!(sent, 1, "of client {number}");
    };
    for clients in 0..3 {
        for _ in 0..QUIET {
            let report = dataplane.reconcile(&local()).await;
            assert_ready(&report);
        }
        client(clients);
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let report = dataplane.reconcile(&local()).await;
            let service = &report.services[&id];
            let server = &service.real_servers[0];
            let counted = (service.stats.connections, server.stats.connections);
            if counted == (clients + 1, clients + 1) {
                break;
            }
            assert!(Instant::now() < deadline, "{service:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The kernel does not say whose VIP a mark is for: a service by mark becomes ours when it is
/// wanted, though nothing changed in the kernel.
#[tokio::test]
async fn a_service_by_mark_that_was_there_becomes_ours() {
    let Some(director) = Director::enter("mark") else {
        return;
    };
    run("ipvsadm -A -f 7 -s wlc");
    let mut dataplane = director.dataplane();
    for _ in 0..QUIET {
        assert_ready(&dataplane.reconcile(&local()).await);
    }
    let mut more = local();
    let mut marked = service("fwmark:10.99.0.1:7", Scheduler::Rr, Forwarding::Nat);
    marked.real_servers = vec![server("127.0.0.12:80", 1, 1)];
    more.services.extend(wanted(vec![marked]).services);
    let preview = dataplane.preview(&more).await;
    assert_eq!(preview.steps.len(), 2, "{preview:?}");
    let adds = |step: &&String| step.contains("add service");
    assert_eq!(preview.steps.iter().find(adds), None, "it is there");
    assert_ready(&dataplane.reconcile(&more).await);
    let rules = rules();
    for rule in ["-A -f 7 -s rr", "-a -f 7 -r 127.0.0.12:80 -m -w 1"] {
        assert!(rules.iter().any(|it| it == rule), "{rules:?}");
    }
}

/// The older interface does not say a persistence engine; netlink, once a minute, does.
#[tokio::test]
async fn what_the_older_interface_does_not_say_is_found_in_time() {
    let Some(director) = Director::enter("engine") else {
        return;
    };
    let mut dataplane = director.dataplane();
    for _ in 0..QUIET {
        assert_ready(&dataplane.reconcile(&local()).await);
    }
    let ipvs = Ipvs::connect().await.unwrap();
    let key = ServiceKey::udp("10.99.0.1:53".parse().unwrap());
    let before = ipvs.service(&key).await.unwrap().spec;
    let with_engine = ServiceSpec {
        persistence_engine: Some("sip".to_owned()),
        ..before.clone()
    };
    ipvs.set_service(&with_engine).await.unwrap();
    assert_eq!(ipvs.service(&key).await.unwrap().spec, with_engine);
    for _ in 0..60 {
        assert_ready(&dataplane.reconcile(&local()).await);
    }
    assert_eq!(ipvs.service(&key).await.unwrap().spec, before);
    assert_eq!(dataplane.reconcile(&local()).await.drift_repaired, 1);
}
