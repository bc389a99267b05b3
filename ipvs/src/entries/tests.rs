//! The structures byte by byte; what a kernel makes of them is in `tests/`.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use rustix::io::Errno;

use super::*;
use crate::destination::{TunnelChecksum, TunnelKind};
use crate::service::Protocol;
use crate::{UnknownAttribute, destination};

/// A `struct ip_vs_dest_entry` with another number in each field, and which of its bytes are
/// fields.
fn entry() -> (Vec<u8>, BTreeSet<usize>) {
    let mut bytes = vec![0; size_of::<DestEntry>()];
    let mut fields = BTreeSet::new();
    let mut put = |offset: usize, value: &[u8]| {
        bytes[offset..offset + value.len()].copy_from_slice(value);
        assert!((offset..offset + value.len()).all(|at| fields.insert(at)));
    };
    put(offset_of!(DestEntry, addr), &[10, 1, 0, 11]);
    put(offset_of!(DestEntry, port), &8080_u16.to_be_bytes());
    let stats = offset_of!(DestEntry, stats);
    let numbers = [
        // Direct routing, and a flag that no destination is told apart by.
        (offset_of!(DestEntry, conn_flags), 0x0100 | 3),
        (offset_of!(DestEntry, weight), 1),
        (offset_of!(DestEntry, u_threshold), 200),
        (offset_of!(DestEntry, l_threshold), 100),
        (offset_of!(DestEntry, activeconns), 4),
        (offset_of!(DestEntry, inactconns), 5),
        (offset_of!(DestEntry, persistconns), 6),
        (stats + offset_of!(StatsUser, conns), 7),
        (stats + offset_of!(StatsUser, inpkts), 8),
        (stats + offset_of!(StatsUser, outpkts), 9),
        (stats + offset_of!(StatsUser, cps), 10),
        (stats + offset_of!(StatsUser, inpps), 11),
        (stats + offset_of!(StatsUser, outpps), 12),
        (stats + offset_of!(StatsUser, inbps), 13),
        (stats + offset_of!(StatsUser, outbps), 14),
    ];
    for (offset, number) in numbers {
        put(offset, &u32::to_ne_bytes(number));
    }
    let inbytes = stats + offset_of!(StatsUser, inbytes);
    put(inbytes, &(1_u64 << 40 | 15).to_ne_bytes());
    let outbytes = stats + offset_of!(StatsUser, outbytes);
    put(outbytes, &(1_u64 << 41 | 16).to_ne_bytes());
    (bytes, fields)
}

fn parsed() -> DestinationEntry {
    DestinationEntry {
        address: "10.1.0.11:8080".parse().unwrap(),
        forwarding: Forwarding::DirectRoute,
        weight: 1,
        upper_threshold: 200,
        lower_threshold: 100,
        active: 4,
        inactive: 5,
        persistent: 6,
        stats: Stats {
            connections: 7,
            in_packets: 8,
            out_packets: 9,
            in_bytes: 1 << 40 | 15,
            out_bytes: 1 << 41 | 16,
            connections_per_second: 10,
            in_packets_per_second: 11,
            out_packets_per_second: 12,
            in_bytes_per_second: 13,
            out_bytes_per_second: 14,
        },
    }
}

/// What `gcc` says of `linux/ip_vs.h` where a number of 64 bits is aligned to 8 bytes.
#[test]
#[cfg(target_pointer_width = "64")]
fn the_structures_have_the_kernel_s_layout() {
    assert_eq!(size_of::<StatsUser>(), 56);
    assert_eq!(offset_of!(StatsUser, inbytes), 16);
    assert_eq!(size_of::<ServiceEntryLayout>(), 104);
    assert_eq!(offset_of!(ServiceEntryLayout, sched_name), 16);
    assert_eq!(offset_of!(ServiceEntryLayout, num_dests), 44);
    assert_eq!(offset_of!(ServiceEntryLayout, stats), 48);
    assert_eq!(offset_of!(GetInfo, num_services), 8);
    assert_eq!(size_of::<GetServices>(), 8);
    assert_eq!(offset_of!(GetServices, entrytable), 8);
    assert_eq!(size_of::<DestEntry>(), 96);
    assert_eq!(offset_of!(DestEntry, stats), 40);
    assert_eq!(size_of::<GetDests>(), 24);
    assert_eq!(offset_of!(GetDests, num_dests), 16);
    assert_eq!(offset_of!(GetDests, entrytable), 24);
}

fn parse(bytes: &[u8]) -> Option<DestinationEntry> {
    DestinationEntry::parse(bytes.first_chunk()?)
}

#[test]
fn an_entry_is_read_field_by_field() {
    let (bytes, _) = entry();
    assert_eq!(parse(&bytes), Some(parsed()));
    for length in 0..size_of::<DestEntry>() {
        let all = destinations(&bytes[..length], 1, &mut Vec::new());
        assert!(!all, "of {length} bytes");
    }
}

/// Whatever bit of a field is another, the entry is: nothing that the kernel says gets lost.
#[test]
fn every_bit_of_every_field_tells_entries_apart() {
    let (bytes, fields) = entry();
    let conn_flags = offset_of!(DestEntry, conn_flags);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut other = bytes.clone();
            other[at] ^= 1 << bit;
            let mut flags = 0_u32.to_ne_bytes();
            if let Some(byte) = at.checked_sub(conn_flags).and_then(|at| flags.get_mut(at)) {
                *byte = 1 << bit;
            }
            let flags = u32::from_ne_bytes(flags);
            let counts = fields.contains(&at) && (flags == 0 || flags & FORWARDING_MASK != 0);
            let differs = parse(&other) != Some(parsed());
            assert_eq!(differs, counts, "byte {at}, bit {bit}");
        }
    }
}

/// A `struct ip_vs_service_entry`, all of whose counters are 0.
fn service_entry() -> [u8; size_of::<ServiceEntryLayout>()] {
    let mut bytes = [0; size_of::<ServiceEntryLayout>()];
    let mut put = |offset: usize, value: &[u8]| {
        bytes[offset..offset + value.len()].copy_from_slice(value);
    };
    let key = ServiceKey::udp("10.99.0.1:53".parse().unwrap());
    put(0, &identity(&key).unwrap());
    put(offset_of!(ServiceEntryLayout, sched_name), b"wlc");
    let flags = (ServiceFlags::PERSISTENT | ServiceFlags::HASHED).bits();
    put(offset_of!(ServiceEntryLayout, flags), &flags.to_ne_bytes());
    let timeout = offset_of!(ServiceEntryLayout, timeout);
    put(timeout, &50_u32.to_ne_bytes());
    let netmask = offset_of!(ServiceEntryLayout, netmask);
    put(netmask, &[255, 255, 255, 0]);
    let num_dests = offset_of!(ServiceEntryLayout, num_dests);
    put(num_dests, &3_u32.to_ne_bytes());
    bytes
}

/// Whatever of a service is another, its entry is, but for the kernel's own flag and what stands
/// after a name's end.
#[test]
fn every_bit_of_a_service_s_entry_counts() {
    let entry = ServiceEntry::parse(&service_entry());
    let named = offset_of!(ServiceEntryLayout, sched_name)..offset_of!(ServiceEntryLayout, flags);
    let (name, after_name) = (named.start..named.start + 4, named.start + 4..named.end);
    let padding = [2, 3, 10, 11];
    let stats = offset_of!(ServiceEntryLayout, stats);
    let padding_of_stats = [stats + 12..stats + 16, stats + 52..stats + 56];
    for at in 0..size_of::<ServiceEntryLayout>() {
        for bit in 0..8 {
            let mut bytes = service_entry();
            bytes[at] ^= 1 << bit;
            let flags = u32::from_ne_bytes(field(&bytes, named.end).unwrap());
            let hashed = ServiceFlags::from_bits(flags).contains(ServiceFlags::HASHED);
            let says_nothing = (!hashed && !name.contains(&at))
                || padding.contains(&at)
                || padding_of_stats.iter().any(|range| range.contains(&at))
                || after_name.contains(&at);
            let same = ServiceEntry::parse(&bytes) == entry;
            assert_eq!(same, says_nothing, "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn every_difference_of_a_service_is_noticed() {
    let mut bytes = service_entry();
    let flags = offset_of!(ServiceEntryLayout, flags);
    bytes[flags..flags + 4].copy_from_slice(&ServiceFlags::HASHED.bits().to_ne_bytes());
    let entry = ServiceEntry::parse(&bytes).unwrap();
    let key = ServiceKey::udp("10.99.0.1:53".parse().unwrap());
    let netmask = Netmask::V4(Ipv4Addr::new(255, 255, 255, 0));
    let persistence = Persistence {
        timeout: 50,
        netmask,
    };
    let same = ServiceSpec {
        persistence,
        ..ServiceSpec::new(key, Scheduler::Wlc)
    };
    assert_eq!(entry.destinations, 3);
    assert_eq!(entry.stats, Stats::default());
    assert!(entry.is(&same), "{entry:?}");
    let with = |change: fn(&mut ServiceSpec)| {
        let mut spec = same.clone();
        change(&mut spec);
        spec
    };
    let others = [
        with(|it| it.key = ServiceKey::udp("10.99.0.1:54".parse().unwrap())),
        with(|it| it.key = ServiceKey::tcp("10.99.0.1:53".parse().unwrap())),
        with(|it| it.key = ServiceKey::mark(Family::V4, 1)),
        with(|it| it.scheduler = Scheduler::Mh),
        with(|it| it.flags = ServiceFlags::ONE_PACKET),
        with(|it| it.persistence.timeout = 51),
        with(|it| it.persistence.netmask = Netmask::V4(Ipv4Addr::BROADCAST)),
    ];
    for other in others {
        assert!(ServiceEntry::can_say(&other));
        assert!(!entry.is(&other), "{other:?}");
    }
}

/// What an entry has no field for is never taken for unchanged.
#[test]
fn a_service_that_an_entry_cannot_say_is_none() {
    let key = ServiceKey::udp("10.99.0.1:53".parse().unwrap());
    let plain = ServiceSpec::new(key, Scheduler::Wlc);
    assert!(ServiceEntry::can_say(&plain));
    let netmask = Netmask::V4(Ipv4Addr::new(255, 255, 255, 0));
    let persistent = plain.clone().persistent(50, netmask);
    let entry = ServiceEntry::parse(&service_entry()).unwrap();
    assert_eq!(entry.persistence, persistent.persistence);
    assert_eq!(entry.flags, persistent.flags);
    let unknown = UnknownAttribute {
        kind: 99,
        value: Box::new([1]),
    };
    let others = [
        persistent,
        ServiceSpec::new(ServiceKey::mark(Family::V6, 1), Scheduler::Wlc),
        ServiceSpec {
            persistence_engine: Some("sip".to_owned()),
            ..plain.clone()
        },
        ServiceSpec {
            unknown: Box::new([unknown]),
            ..plain
        },
    ];
    for other in others {
        assert!(!ServiceEntry::can_say(&other), "{other:?}");
        assert!(!entry.is(&other), "{other:?}");
    }
}

#[test]
fn every_difference_of_a_destination_is_noticed() {
    let address: SocketAddr = "10.1.0.11:8080".parse().unwrap();
    let same = DestinationSpec {
        upper_threshold: 200,
        lower_threshold: 100,
        ..DestinationSpec::new(address, Forwarding::DirectRoute, 1)
    };
    assert!(parsed().is(&same));
    let with = |change: fn(&mut DestinationSpec)| {
        let mut spec = same.clone();
        change(&mut spec);
        spec
    };
    let others = [
        with(|it| it.address.set_port(8081)),
        with(|it| it.address.set_ip([10, 1, 0, 12].into())),
        with(|it| it.forwarding = Forwarding::Masquerade),
        with(|it| it.forwarding = Forwarding::Local),
        with(|it| it.forwarding = Forwarding::Bypass),
        with(|it| it.weight = 0),
        with(|it| it.upper_threshold = 201),
        with(|it| it.lower_threshold = 0),
    ];
    for other in others {
        assert!(DestinationEntry::can_say(&other), "{other:?}");
        assert!(!parsed().is(&other), "{other:?}");
    }
}

/// What an entry has no field for is never taken for unchanged, whatever the entry says.
#[test]
fn what_an_entry_cannot_say_is_not_known_from_one() {
    let v4: SocketAddr = "10.1.0.11:8080".parse().unwrap();
    let tunnelled = DestinationSpec::new(v4, Forwarding::Tunnel, 1);
    let direct = DestinationSpec::new(v4, Forwarding::DirectRoute, 1);
    let tunnel = |tunnel| DestinationSpec {
        tunnel,
        ..direct.clone()
    };
    let plain = destination::Tunnel::default();
    let specs = [
        tunnelled,
        DestinationSpec::new(v4, Forwarding::Unknown(6), 1),
        DestinationSpec::new("[::ffff:a01:b]:8080".parse().unwrap(), direct.forwarding, 1),
        tunnel(destination::Tunnel {
            kind: TunnelKind::Gre,
            ..plain
        }),
        tunnel(destination::Tunnel {
            port: 6080,
            ..plain
        }),
        tunnel(destination::Tunnel {
            checksum: TunnelChecksum::Full,
            ..plain
        }),
        DestinationSpec {
            unknown: [UnknownAttribute {
                kind: 16,
                value: [1].into(),
            }]
            .into(),
            ..direct.clone()
        },
    ];
    for spec in specs {
        let entry = DestinationEntry {
            forwarding: spec.forwarding,
            upper_threshold: 0,
            lower_threshold: 0,
            ..parsed()
        };
        assert!(!DestinationEntry::can_say(&spec), "{spec:?}");
        assert!(!entry.is(&spec), "{spec:?}");
    }
}

/// The kernel does not say how many it wrote: too few and too many are both not known.
#[test]
fn the_destinations_are_all_there_or_not_known() {
    let (entry, _) = entry();
    let written = |count: usize, room: usize| {
        let mut bytes = entry.repeat(count);
        bytes.resize(room * entry.len(), UNWRITTEN);
        bytes
    };
    // What another service left there does not count.
    let mut found = vec![parsed(); 2];
    assert!(destinations(&written(0, 1), 0, &mut found));
    assert_eq!(found, []);
    assert!(destinations(&written(3, 4), 3, &mut found));
    assert_eq!(found, vec![parsed(); 3]);
    assert!(!destinations(&written(2, 4), 3, &mut found));
    assert!(!destinations(&written(4, 4), 3, &mut found));
}

#[test]
fn a_service_is_named_as_the_kernel_reads_it() {
    let address = "10.99.0.1:80".parse().unwrap();
    let bytes = identity(&ServiceKey::address(Protocol::Sctp, address)).unwrap();
    let mut expected = [0; size_of::<Identity>()];
    expected[..2].copy_from_slice(&132_u16.to_ne_bytes());
    expected[4..10].copy_from_slice(&[10, 99, 0, 1, 0, 80]);
    assert_eq!(bytes, expected);

    let bytes = identity(&ServiceKey::mark(Family::V4, 0x0102_0304)).unwrap();
    let mut expected = [0; size_of::<Identity>()];
    expected[12..].copy_from_slice(&0x0102_0304_u32.to_ne_bytes());
    assert_eq!(bytes, expected);

    let address = "10.99.0.1:80".parse().unwrap();
    let other = ServiceKey::address(Protocol::Other(47), address);
    for known in [
        other,
        ServiceKey::udp(address),
        ServiceKey::mark(Family::V4, 9),
    ] {
        assert_eq!(key(identity(&known).unwrap()), Some(known));
    }

    let six = "[2001:db8::1]:80".parse().unwrap();
    assert_eq!(identity(&ServiceKey::tcp(six)), None);
    assert_eq!(identity(&ServiceKey::mark(Family::V6, 7)), None);
}

/// Counters are compared as this interface has them.
#[test]
fn narrow_counters_keep_their_lower_half_and_all_bytes() {
    let wide = Stats {
        connections: 1 << 32 | 7,
        in_packets: 1 << 33 | 8,
        out_packets: 1 << 34 | 9,
        connections_per_second: 1 << 35 | 10,
        in_packets_per_second: 1 << 36 | 11,
        out_packets_per_second: 1 << 37 | 12,
        in_bytes_per_second: 1 << 38 | 13,
        out_bytes_per_second: 1 << 39 | 14,
        ..parsed().stats
    };
    assert_eq!(wide.narrow(), parsed().stats);
}

/// A kernel without IPVS has no such option, and says so.
#[test]
fn without_ipvs_or_permission_it_is_an_error_or_no_service() {
    let mut socket = EntrySocket::open().unwrap();
    let key = ServiceKey::tcp("192.0.2.1:1".parse().unwrap());
    match socket.destinations(&key) {
        Err(Errno::NOPROTOOPT | Errno::PERM) | Ok(None) => {}
        other => panic!("{other:?}"),
    }
}
