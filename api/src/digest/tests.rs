use std::time::Duration;

use super::*;
use crate::declare::{DrainLimit, LvsSpec, TunnelKind};

/// Three real servers under `mh`, as a cluster of several directors declares them.
fn service() -> ServiceSpec {
    let service = serde_json::json!({
        "vip": "10.99.0.1", "protocol": "tcp", "port": 80, "check": { "type": "tcp" },
        "real_server": [
            { "address": "10.1.0.11" }, { "address": "10.1.0.12" }, { "address": "10.1.0.13" },
        ],
    });
    serde_json::from_value(service).unwrap()
}

fn stateless() -> Lvs {
    LvsSpec::default().resolve(2)
}

fn digest(service: &ServiceSpec) -> ServiceDigest {
    Placement::declared(service, &stateless()).digest()
}

#[test]
fn the_encoding_does_not_change_by_accident() {
    // Directors and controllers of other releases compute these. Whoever means to change them
    // raises VERSION.
    assert_eq!(digest(&service()).to_string(), "0309891b9b6c7a4097");
    let mut second = service();
    second.scheduler = Scheduler::Wlc;
    second.forwarding = Forwarding::Tun;
    second.tunnel = Some(Tunnel {
        kind: TunnelKind::Gue,
        port: Some(5555),
        checksum: TunnelChecksum::Csum,
    });
    second.persistence = Some(Persistence {
        timeout: Duration::from_secs(50),
        netmask: None,
    });
    second.real_server[1].weight = 3;
    second.real_server[2].upper_threshold = 9;
    let stateful = LvsSpec::default().resolve(1);
    let second = Placement::declared(&second, &stateful).digest();
    assert_eq!(second.to_string(), "03fc025631be7f6677");
    let mut third = service();
    third.protocol = Some(Protocol::Sctp);
    assert_eq!(digest(&third).to_string(), "03977030221cf29313");
}

/// What is changed, and how.
type Change<T> = (&'static str, fn(&mut T));

/// Every change gives a digest of its own.
fn all_differ<T: Clone>(base: &T, changes: &[Change<T>], digest: impl Fn(&T) -> ServiceDigest) {
    let mut seen = BTreeMap::from([(digest(base), "nothing")]);
    for (what, change) in changes {
        let mut changed = base.clone();
        change(&mut changed);
        let other = seen.insert(digest(&changed), what);
        assert_eq!(other, None, "{what} has no say in the digest");
    }
}

/// No change gives another digest.
fn none_differs<T: Clone>(base: &T, changes: &[Change<T>], digest: impl Fn(&T) -> ServiceDigest) {
    for (what, change) in changes {
        let mut changed = base.clone();
        change(&mut changed);
        assert_eq!(digest(&changed), digest(base), "{what} changes the digest");
    }
}

#[test]
fn everything_declared_that_decides_where_a_client_lands_has_a_say() {
    let changes: &[Change<ServiceSpec>] = &[
        ("the VIP", |it| it.vip = "10.99.0.2".parse().unwrap()),
        ("the protocol", |it| it.protocol = Some(Protocol::Sctp)),
        ("the port", |it| it.port = Some(81)),
        ("a mark", |it| it.fwmark = Some(80)),
        ("the scheduler", |it| it.scheduler = Scheduler::Rr),
        ("no flags", |it| it.flags = Some(BTreeSet::new())),
        ("one flag", |it| {
            it.flags = Some([SchedulerFlag::MhPort].into())
        }),
        ("the other flag", |it| {
            it.flags = Some([SchedulerFlag::MhFallback].into())
        }),
        ("persistence", |it| {
            it.persistence = Some(persistence(50, None))
        }),
        ("its timeout", |it| {
            it.persistence = Some(persistence(51, None))
        }),
        ("its netmask", |it| {
            it.persistence = Some(persistence(50, Some("24")))
        }),
        ("forwarding", |it| it.forwarding = Forwarding::Nat),
        ("a tunnel", |it| it.forwarding = Forwarding::Tun),
        ("its kind", |it| {
            tunnel(it, TunnelKind::Gre, None, TunnelChecksum::None)
        }),
        ("its checksum", |it| {
            tunnel(it, TunnelKind::Gre, None, TunnelChecksum::Csum)
        }),
        ("its port", |it| {
            tunnel(it, TunnelKind::Gue, Some(5555), TunnelChecksum::None)
        }),
        ("another port", |it| {
            tunnel(it, TunnelKind::Gue, Some(5556), TunnelChecksum::None)
        }),
        ("a real server less", |it| it.real_server.truncate(2)),
        ("its address", |it| {
            it.real_server[2].address = "10.1.0.14".parse().unwrap()
        }),
        ("its own port", |it| it.real_server[2].port = Some(8080)),
        ("a weight", |it| it.real_server[2].weight = 2),
        ("another's weight", |it| it.real_server[1].weight = 2),
        ("the upper threshold", |it| {
            it.real_server[2].upper_threshold = 9
        }),
        ("the lower threshold", |it| {
            it.real_server[2].lower_threshold = 9
        }),
    ];
    all_differ(&service(), changes, digest);
}

fn persistence(seconds: u64, netmask: Option<&str>) -> Persistence {
    Persistence {
        timeout: Duration::from_secs(seconds),
        netmask: netmask.map(|mask| mask.parse().unwrap()),
    }
}

fn tunnel(
    service: &mut ServiceSpec,
    kind: TunnelKind,
    port: Option<u16>,
    checksum: TunnelChecksum,
) {
    service.forwarding = Forwarding::Tun;
    service.tunnel = Some(Tunnel {
        kind,
        port,
        checksum,
    });
}

#[test]
fn the_settings_of_all_services_have_a_say() {
    let digest = |lvs: &Lvs| Placement::declared(&service(), lvs).digest();
    let changes: &[Change<Lvs>] = &[
        ("the profile", |it| it.profile = Profile::Stateful),
        ("the TCP timeout", |it| {
            it.timeouts.tcp += Duration::from_secs(1)
        }),
        ("the FIN timeout", |it| {
            it.timeouts.tcp_fin += Duration::from_secs(1)
        }),
        ("the UDP timeout", |it| {
            it.timeouts.udp += Duration::from_secs(1)
        }),
    ];
    all_differ(&stateless(), changes, digest);
    let changes: &[Change<Lvs>] = &[("the drain limit", |it| {
        it.drain_limit = DrainLimit(Duration::from_secs(1));
    })];
    none_differs(&stateless(), changes, digest);
}

#[test]
fn what_is_only_written_otherwise_changes_nothing() {
    let changes: &[Change<ServiceSpec>] = &[
        ("the order of the declaration", |it| {
            it.real_server.reverse()
        }),
        ("the quorum", |it| it.quorum = 2),
        ("the check", |it| it.check.rise = 9),
        ("the port, for a real server too", |it| {
            it.real_server[0].port = Some(80)
        }),
        ("the flags that are the default", |it| {
            it.flags = Some([SchedulerFlag::MhPort, SchedulerFlag::MhFallback].into());
        }),
    ];
    none_differs(&service(), changes, digest);
    let mut persistent = service();
    persistent.persistence = Some(persistence(50, None));
    let changes: &[Change<ServiceSpec>] = &[("the netmask of a host", |it| {
        it.persistence = Some(persistence(50, Some("255.255.255.255")));
    })];
    none_differs(&persistent, changes, digest);
    let mut tunnelled = service();
    tunnelled.forwarding = Forwarding::Tun;
    let changes: &[Change<ServiceSpec>] = &[("the tunnel that is the default", |it| {
        it.tunnel = Some(Tunnel::default());
    })];
    none_differs(&tunnelled, changes, digest);
}

#[test]
fn everything_found_in_a_kernel_has_a_say() {
    let base = Placement::declared(&service(), &stateless());
    let changes: &[Change<Placement>] = &[
        ("the scheduler", |it| it.scheduler = Cow::Borrowed("maglev")),
        ("the order of the list", |it| it.real_servers.swap(0, 1)),
        ("a weight", |it| it.real_servers[0].weight = 0),
        ("forwarding", |it| {
            it.real_servers[0].via = Cow::Borrowed("nat")
        }),
        ("a real server of another family", |it| {
            it.real_servers[0].address = "[fd00::1]:80".parse().unwrap();
        }),
        ("a sysctl", |it| {
            it.sysctls
                .insert("net/ipv4/vs/sloppy_tcp", Some("0".to_owned()));
        }),
        ("a missing sysctl", |it| {
            it.sysctls.insert("net/ipv4/vs/sloppy_tcp", None);
        }),
    ];
    all_differ(&base, changes, Placement::digest);
    // Whatever changes the digest can be told.
    for (what, change) in changes {
        let mut found = base.clone();
        change(&mut found);
        assert_ne!(base.differences(&found), [""; 0], "{what} is not told");
    }
    assert_eq!(base.differences(&base), [""; 0]);
}

#[test]
fn what_decides_about_sctp_is_asked_only_of_services_that_may_get_it() {
    const KEY: &str = "net/ipv4/vs/sloppy_sctp";
    let cases: [(Change<ServiceSpec>, bool); 4] = [
        (("tcp", |_| {}), false),
        (("udp", |it| it.protocol = Some(Protocol::Udp)), false),
        (("sctp", |it| it.protocol = Some(Protocol::Sctp)), true),
        (
            ("a mark", |it| {
                (it.protocol, it.port, it.fwmark) = (None, None, Some(7));
            }),
            true,
        ),
    ];
    for ((what, change), asked) in cases {
        let mut service = service();
        change(&mut service);
        let shared = Placement::declared(&service, &stateless());
        let value = shared.sysctls.get(KEY).cloned().flatten();
        assert_eq!(value, asked.then(|| "1".to_owned()), "{what}");
        // Of one director at a time nothing is asked.
        let alone = Placement::declared(&service, &LvsSpec::default().resolve(1));
        assert!(alone.sysctls.is_empty(), "{what}: {:?}", alone.sysctls);
        if asked {
            let mut found = shared.clone();
            found.sysctls.insert(KEY, Some("0".to_owned()));
            assert_ne!(found.digest(), shared.digest(), "{what}");
            let told = shared.differences(&found).join("; ");
            assert!(told.contains("net.ipv4.vs.sloppy_sctp=0"), "{what}: {told}");
        }
    }
}

#[test]
fn the_list_s_order_decides_only_where_the_table_is_made_of_it() {
    let reordered = |scheduler| {
        let mut service = service();
        service.scheduler = scheduler;
        let one = Placement::declared(&service, &stateless());
        let mut other = one.clone();
        other.real_servers.reverse();
        one.digest() == other.digest() && one.differences(&other).is_empty()
    };
    assert!(reordered(Scheduler::Rr), "rr has no table");
    assert!(
        !reordered(Scheduler::Mh),
        "mh builds its table from the list"
    );
}

#[test]
fn the_canonical_list_has_the_greatest_address_first() {
    let placement = Placement::declared(&service(), &stateless());
    let addresses = placement.real_servers.iter();
    let addresses: Vec<_> = addresses.map(|slot| slot.address.to_string()).collect();
    assert_eq!(addresses, ["10.1.0.13:80", "10.1.0.12:80", "10.1.0.11:80"]);
}

#[test]
fn a_weight_of_zero_keeps_the_slots_that_equal_weights_gave() {
    let mut drained = service();
    drained.real_server[1].weight = 0;
    assert_eq!(digest(&drained), digest(&service()));

    let weights = |declared: &[u16], scheduler| {
        let mut service = service();
        service.scheduler = scheduler;
        for (server, weight) in service.real_server.iter_mut().zip(declared) {
            server.weight = *weight;
        }
        let servers = service.real_server.iter();
        servers
            .map(|server| table_weight(&service, server))
            .collect::<Vec<_>>()
    };
    assert_eq!(weights(&[5, 0, 3], Scheduler::Mh), [5, 3, 3]);
    assert_eq!(weights(&[0, 0, 0], Scheduler::Mh), [1, 1, 1]);
    assert_eq!(weights(&[5, 0, 3], Scheduler::Wlc), [5, 0, 3]);
}

#[test]
fn digests_of_different_versions_say_nothing_of_each_other() {
    let ours = digest(&service());
    let later: ServiceDigest = "04ffffffffffffffffffffff".parse().unwrap();
    assert!(!ours.is_comparable(&later));
    let other: ServiceDigest = "030000000000000000".parse().unwrap();
    assert!(ours.is_comparable(&other) && ours != other);
    for bad in ["", "01", "01FF00", "01 000", "0x0100", &"0".repeat(65)] {
        let error = bad.parse::<ServiceDigest>().unwrap_err();
        assert!(error.to_string().contains("digest"), "{bad:?}: {error}");
    }
}
