//! Every difference is noticed: what is not noticed here is drift that nobody repairs.

use isopath_ipvs::{
    Destination, DestinationSpec, Forwarding, Netmask, Scheduler, ServiceFlags, ServiceKey,
    ServiceSpec, UnknownAttribute,
};

use super::*;
use crate::dataplane::observed::kernel_service;

/// 2³² and more of everything that is counted.
const MANY: u64 = 1 << 32;

fn service() -> Service {
    let key = ServiceKey::tcp("10.99.0.1:80".parse().unwrap());
    Service {
        spec: ServiceSpec::new(key, Scheduler::Wlc),
        stats: counters(100),
    }
}

fn counters(first: u64) -> isopath_ipvs::Stats {
    isopath_ipvs::Stats {
        connections: MANY + first,
        in_packets: MANY + first + 1,
        out_packets: MANY + first + 2,
        in_bytes: MANY + first + 3,
        out_bytes: MANY + first + 4,
        connections_per_second: first + 5,
        in_packets_per_second: first + 6,
        out_packets_per_second: first + 7,
        in_bytes_per_second: first + 8,
        out_bytes_per_second: first + 9,
    }
}

fn destination(number: u8) -> Destination {
    let address = ([10, 1, 0, number], 80).into();
    Destination {
        spec: DestinationSpec {
            upper_threshold: 200,
            lower_threshold: 100,
            ..DestinationSpec::new(address, Forwarding::DirectRoute, 3)
        },
        active: 4,
        inactive: 5,
        persistent: 6,
        stats: counters(u64::from(number)),
    }
}

fn known() -> KernelService {
    kernel_service(service(), [destination(2), destination(1)])
}

/// What the older interface says of a destination.
fn entry(destination: &Destination) -> DestinationEntry {
    let spec = &destination.spec;
    let std::net::SocketAddr::V4(address) = spec.address else {
        panic!("no entry says {}", spec.address);
    };
    DestinationEntry {
        address,
        forwarding: spec.forwarding,
        weight: spec.weight,
        upper_threshold: spec.upper_threshold,
        lower_threshold: spec.lower_threshold,
        active: destination.active,
        inactive: destination.inactive,
        persistent: destination.persistent,
        stats: destination.stats.narrow(),
    }
}

/// What the older interface says of the service.
fn service_entry() -> ServiceEntry {
    let Service { spec, stats } = service();
    ServiceEntry {
        key: spec.key,
        scheduler: spec.scheduler,
        flags: spec.flags,
        persistence: spec.persistence,
        destinations: 2,
        stats: stats.narrow(),
    }
}

fn entries() -> Vec<DestinationEntry> {
    [2, 1].map(|number| entry(&destination(number))).into()
}

#[test]
fn what_did_not_change_is_unchanged_whatever_was_counted() {
    assert!(can_be_told(&known(), &service()));
    assert!(is_still(&known(), &entries()));
    let empty = kernel_service(service(), []);
    assert!(can_be_told(&empty, &service()));
    assert!(is_still(&empty, &[]));
    assert!(all_is_still(&known(), &service_entry(), &entries()));
    assert!(all_is_still(&empty, &service_entry(), &[]));
}

#[test]
fn every_difference_of_a_service_s_entry_is_noticed() {
    let changes: [fn(&mut ServiceEntry); 12] = [
        |it| it.key = ServiceKey::udp("10.99.0.1:80".parse().unwrap()),
        |it| it.scheduler = Scheduler::Rr,
        |it| it.flags = ServiceFlags::SCHED1,
        |it| it.flags = ServiceFlags::PERSISTENT,
        |it| it.persistence.timeout = 1,
        |it| it.persistence.netmask = Netmask::V4([255, 255, 255, 0].into()),
        |it| it.stats.connections += 1,
        |it| it.stats.in_packets += 1,
        |it| it.stats.out_packets += 1,
        |it| it.stats.in_bytes += MANY,
        |it| it.stats.out_bytes += 1,
        |it| it.stats.connections_per_second += 1,
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut service = service_entry();
        change(&mut service);
        let still = all_is_still(&known(), &service, &entries());
        assert!(!still, "{number}: {service:?}");
    }
    let mut entries = entries();
    entries[1].weight = 0;
    assert!(!all_is_still(&known(), &service_entry(), &entries));
}

#[test]
fn every_difference_of_a_service_is_noticed() {
    let changes: [fn(&mut Service); 13] = [
        |it| it.spec.key = ServiceKey::udp("10.99.0.1:80".parse().unwrap()),
        |it| it.spec.scheduler = Scheduler::Rr,
        |it| it.spec.flags = ServiceFlags::SCHED1,
        |it| it.spec.persistence.timeout = 1,
        |it| it.spec.persistence.netmask = Netmask::V4([255, 255, 255, 0].into()),
        |it| it.spec.persistence_engine = Some("sip".to_owned()),
        |it| {
            let (kind, value) = (13, [1].into());
            it.spec.unknown = [UnknownAttribute { kind, value }].into();
        },
        |it| it.stats.connections += 1,
        |it| it.stats.in_packets += 1,
        |it| it.stats.out_packets += 1,
        |it| it.stats.in_bytes += 1,
        |it| it.stats.out_bytes += 1,
        |it| it.stats.connections -= MANY,
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut service = service();
        change(&mut service);
        assert!(!can_be_told(&known(), &service), "{number}: {service:?}");
    }
}

#[test]
fn every_difference_of_a_real_server_is_noticed() {
    let changes: [fn(&mut DestinationEntry); 15] = [
        |it| it.address.set_port(81),
        |it| it.address.set_ip([10, 1, 0, 9].into()),
        |it| it.forwarding = Forwarding::Masquerade,
        |it| it.forwarding = Forwarding::Tunnel,
        |it| it.weight = 0,
        |it| it.upper_threshold = 0,
        |it| it.lower_threshold = 0,
        |it| it.active = 0,
        |it| it.inactive = 0,
        |it| it.stats.connections += 1,
        |it| it.stats.in_packets += 1,
        |it| it.stats.out_packets += 1,
        |it| it.stats.in_bytes += MANY,
        |it| it.stats.out_bytes -= 1,
        |it| it.stats.in_packets_per_second = 0,
    ];
    for (number, change) in changes.iter().enumerate() {
        for at in 0..2 {
            let mut entries = entries();
            change(&mut entries[at]);
            assert!(!is_still(&known(), &entries), "{number}: {:?}", entries[at]);
        }
    }
}

#[test]
fn a_real_server_more_or_less_or_elsewhere_is_noticed() {
    let mut swapped = entries();
    swapped.reverse();
    assert!(!is_still(&known(), &swapped));
    assert!(!is_still(&known(), &entries()[..1]));
    let more = [entries(), vec![entry(&destination(3))]].concat();
    assert!(!is_still(&known(), &more));
}

#[test]
fn what_entries_do_not_say_is_read() {
    let mut tunnelled = destination(1);
    tunnelled.spec.forwarding = Forwarding::Tunnel;
    let mut six = destination(1);
    six.spec.address = "[2001:db8::1]:80".parse().unwrap();
    for server in [tunnelled, six] {
        let known = kernel_service(service(), [destination(2), server]);
        assert!(!can_be_told(&known, &service()), "{known:?}");
        assert!(!can_say(&known), "{known:?}");
    }
    assert!(can_say(&known()));
    let mut persistent = known();
    persistent.spec.flags = ServiceFlags::PERSISTENT;
    assert!(!can_say(&persistent), "its engine is not said");
}
