//! Messages captured between ipvsadm 1.31 and Linux 6.1 (little endian): what is asked must be
//! what ipvsadm asks, and what the kernel answers must be understood.

mod golden;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::prelude::*;

use super::*;
use crate::attribute::UnknownAttribute;
use crate::destination::{DestinationSpec, Forwarding, Tunnel, TunnelChecksum, TunnelKind};
use crate::flags::ServiceFlags;
use crate::scheduler::Scheduler;
use crate::service::{Netmask, Persistence, Protocol, ServiceSpec};
use crate::stats::Stats;

/// The number the family had when the messages were captured.
const FAMILY: u16 = 0x20;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).unwrap();
        u8::from_str_radix(text, 16).unwrap()
    };
    digits.chunks(2).map(pair).collect()
}

/// The body of the only request.
fn body(requests: &Requests) -> &[u8] {
    match requests.bodies()[..] {
        [body] => body,
        ref bodies => panic!("{} requests", bodies.len()),
    }
}

/// What a change is written as.
fn changed(change: &Change) -> Vec<u8> {
    let mut requests = Requests::default();
    push_change(&mut requests, FAMILY, change);
    body(&requests).to_vec()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn web() -> ServiceKey {
    ServiceKey::tcp(address("10.99.0.1:80"))
}

#[test]
fn the_family_is_asked_for_as_ipvsadm_does() {
    let golden = hex("03010000 09000200 49505653 00000000");
    assert_eq!(body(&get_family()), golden);
}

#[test]
fn the_familys_number_is_read_from_the_controllers_answer() {
    let answer = hex(
        "01020000 09000200 49505653 00000000 06000100 20000000 08000300 01000000
         08000400 00000000 08000500 06000000",
    );
    assert_eq!(family_number(&answer).unwrap(), FAMILY);
}

#[test]
fn destinations_are_asked_for_as_ipvsadm_does() {
    let by_address = hex(
        "08010000 30000180 06000100 02000000 06000200 06000000 14000300 0a630001
         00000000 00000000 00000000 06000400 00500000",
    );
    let by_mark = hex("08010000 14000180 06000100 02000000 08000500 07000000");
    let mark = ServiceKey::Mark {
        family: Family::V4,
        mark: 7,
    };
    for (key, golden) in [(web(), by_address), (mark, by_mark)] {
        let ours = service_request(FAMILY, Command::GetDest, &key);
        assert_eq!(body(&ours), golden, "{key}");
    }
}

/// The 32 and 64 bit counters of a fresh object; the attribute's numbers are the same in a
/// service and in a destination.
const NO_STATS: &str = "5c000a00 08000100 00000000 08000200 00000000 08000300 00000000 0c000400
     00000000 00000000 0c000500 00000000 00000000 08000600 00000000 08000700 00000000
     08000800 00000000 08000900 00000000 08000a00 00000000
     7c000c00 0c000100 00000000 00000000 0c000200 00000000 00000000 0c000300 00000000 00000000
     0c000400 00000000 00000000 0c000500 00000000 00000000 0c000600 00000000 00000000
     0c000700 00000000 00000000 0c000800 00000000 00000000 0c000900 00000000 00000000
     0c000a00 00000000 00000000";

#[test]
fn a_service_is_read_from_the_kernels_answer() {
    let head = "01010000 2c010100 06000100 02000000 06000200 06000000 14000300 0a630001 00000000
         00000000 00000000 06000400 00500000 07000600 6d680000 0c000700 1a000000 ffffffff
         08000800 00000000 08000900 ffffffff";
    let service = service(&hex(&format!("{head}{NO_STATS}"))).unwrap();
    let mut expected = ServiceSpec::new(web(), "mh");
    expected.flags = ServiceFlags::MH_FALLBACK | ServiceFlags::MH_PORT;
    assert_eq!(
        service.spec, expected,
        "the kernel's own flag 2 must be gone"
    );
    assert_eq!(service.stats, Stats::default());
}

#[test]
fn a_persistent_fwmark_service_is_read_from_the_kernels_answer() {
    // ipvsadm -A -f 7 -s rr -p 50
    let head = "01010000 10010100 06000100 02000000 08000500 07000000 07000600 72720000 0c000700
         03000000 ffffffff 08000800 32000000 08000900 ffffffff";
    let service = service(&hex(&format!("{head}{NO_STATS}"))).unwrap();
    let expected = ServiceSpec {
        key: ServiceKey::Mark {
            family: Family::V4,
            mark: 7,
        },
        scheduler: Scheduler::Rr,
        flags: ServiceFlags::PERSISTENT,
        persistence: Persistence {
            timeout: 50,
            netmask: Netmask::V4(Ipv4Addr::BROADCAST),
        },
        persistence_engine: None,
        unknown: Box::default(),
    };
    assert_eq!(service.spec, expected);
}

const DESTINATION: &str = "05010000 50010200 14000100 0a01000b 00000000 00000000 00000000 06000200
     00500000 08000300 03000000 08000400 03000000 05000d00 00000000 06000e00 00000000 06000f00
     00000000 08000500 00000000 08000600 00000000 08000700 05000000 08000800 07000000 08000900
     00000000 06000b00 02000000";

#[test]
fn a_destination_is_read_from_the_kernels_answer() {
    let answer = hex(&format!("{DESTINATION}{NO_STATS}"));
    let found = destination(&answer, Family::V4).unwrap();
    let spec = DestinationSpec::new(address("10.1.0.11:80"), Forwarding::DirectRoute, 3);
    assert_eq!(found.spec, spec);
    assert_eq!(found.spec.tunnel, Tunnel::default());
    assert_eq!((found.active, found.inactive), (5, 7));
}

#[test]
fn counters_beyond_32_bits_come_from_the_wider_container() {
    let mut wide = NO_STATS.replace("0c000200 00000000 00000000", "0c000200 00000000 01000000");
    wide = wide.replacen("08000200 00000000", "08000200 2a000000", 1);
    let read = |stats: &str| {
        let answer = hex(&format!("{DESTINATION}{stats}"));
        destination(&answer, Family::V4).unwrap().stats
    };
    assert_eq!(read(&wide).in_packets, 1 << 32);
    let narrow = wide.split("7c000c00").next().unwrap();
    let mut message = hex(&format!("{DESTINATION}{narrow}"));
    // The nested attribute is 0x7c bytes shorter without the wider container.
    message[4..6].copy_from_slice(&(0x150_u16 - 0x7c).to_le_bytes());
    let stats = destination(&message, Family::V4).unwrap().stats;
    assert_eq!(
        stats.in_packets, 0x2a,
        "kernels before 4.1 have no wider one"
    );
}

#[test]
fn unknown_attributes_are_kept_and_written_back() {
    // Attribute 99 after the known ones, and 98 before the nested one.
    let mut answer = hex("05010000 08006200 ffffffff");
    let nested = hex(DESTINATION)[8..].to_vec();
    let unknown = hex("05006300 aa000000");
    let length = u16::try_from(4 + nested.len() + unknown.len()).unwrap();
    answer.extend(length.to_le_bytes());
    answer.extend([2, 0]);
    answer.extend(nested);
    answer.extend(&unknown);
    let read = destination(&answer, Family::V4).unwrap();
    assert_eq!(read.spec.weight, 3);
    let kept = UnknownAttribute {
        kind: 99,
        value: [0xaa].into(),
    };
    assert_eq!(*read.spec.unknown, [kept]);
    let written = changed(&Change::SetDestination(web(), read.spec.clone()));
    assert!(written.ends_with(&unknown), "{written:02x?}");

    let mut service_read = ServiceSpec::new(web(), Scheduler::Rr);
    service_read.unknown = read.spec.unknown.clone();
    let written = changed(&Change::AddService(service_read.clone()));
    assert_eq!(service(&written).unwrap().spec, service_read);
}

#[test]
fn the_version_and_the_timeouts_are_read() {
    let info = hex("0e010000 08000100 01020100 08000200 00100000");
    let expected = Info {
        version: (1, 2, 1),
        connection_table_size: 4096,
    };
    assert_eq!(super::info(&info).unwrap(), expected);
    let answer = hex("0c010000 08000400 84030000 08000500 78000000 08000600 2c010000");
    let expected = Timeouts {
        tcp: 900,
        tcp_fin: 120,
        udp: 300,
    };
    assert_eq!(timeouts(&answer).unwrap(), expected);
    // ipvsadm --set 900 120 300 sends exactly what it reads.
    assert_eq!(body(&set_timeouts(FAMILY, expected)), answer);
}

#[test]
fn what_is_missing_or_malformed_is_named() {
    let service = |text: &str| service(&hex(text)).unwrap_err().to_string();
    let destination = |text: &str| {
        let error = destination(&hex(text), Family::V4).unwrap_err();
        error.to_string()
    };
    let cases = [
        (service("01010000"), "IPVS_CMD_ATTR_SERVICE is missing"),
        (service("05010000"), "expected command 1, found 5"),
        (service("0101"), "small"),
        (service("01010000 04000100"), "IPVS_SVC_ATTR_AF is missing"),
        (
            service("01010000 0c000100 06000100 63000000"),
            "unknown address family 99",
        ),
        (
            service("01010000 0c000100 08000100 02000000"),
            "IPVS_SVC_ATTR_AF",
        ),
        (
            destination("05010000 0c000200 08000300 03000000"),
            "IPVS_DEST_ATTR_ADDR is missing",
        ),
        (
            destination(
                "05010000 24000200 06000100 0a010000 06000200 00500000 08000300 03000000
                         08000400 03000000",
            ),
            "IPVS_DEST_ATTR_ADDR",
        ),
        (
            destination("05010000 0a000200 06000400 0300"),
            "IPVS_DEST_ATTR_WEIGHT",
        ),
    ];
    for (error, expected) in cases {
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    }
}

fn any_service() -> impl Strategy<Value = ServiceSpec> {
    let address = prop_oneof![
        any::<(u32, u16)>().prop_map(|(ip, port)| SocketAddr::new(Ipv4Addr::from(ip).into(), port)),
        any::<(u128, u16)>()
            .prop_map(|(ip, port)| SocketAddr::new(Ipv6Addr::from(ip).into(), port)),
    ];
    let protocol = prop_oneof![
        Just(Protocol::Tcp),
        Just(Protocol::Udp),
        Just(Protocol::Sctp),
        Just(Protocol::Other(99)),
    ];
    let key = prop_oneof![
        (address, protocol)
            .prop_map(|(address, protocol)| ServiceKey::Address { protocol, address }),
        (1_u32.., any::<bool>()).prop_map(|(mark, v4)| ServiceKey::Mark {
            family: if v4 { Family::V4 } else { Family::V6 },
            mark,
        }),
    ];
    let scheduler = prop_oneof![
        proptest::sample::select(Scheduler::ALL.to_vec()),
        "[a-z]{1,15}".prop_map(Scheduler::from),
    ];
    let engine = proptest::option::of("[a-z]{1,15}");
    let numbers = any::<(u32, u32, u32)>();
    (key, scheduler, numbers, engine, any_unknown()).prop_map(
        |(key, scheduler, (flags, timeout, netmask), persistence_engine, unknown)| ServiceSpec {
            flags: ServiceFlags::from_bits(flags).without(ServiceFlags::HASHED),
            persistence: Persistence {
                timeout,
                netmask: match key.family() {
                    Family::V4 => Netmask::V4(Ipv4Addr::from(netmask)),
                    Family::V6 => Netmask::V6(netmask),
                },
            },
            persistence_engine,
            unknown,
            ..ServiceSpec::new(key, scheduler)
        },
    )
}

fn any_unknown() -> impl Strategy<Value = Box<[UnknownAttribute]>> {
    let value = proptest::collection::vec(any::<u8>(), 0..9);
    let one = (100..0x4000_u16, value).prop_map(|(kind, value)| UnknownAttribute {
        kind,
        value: value.into(),
    });
    proptest::collection::vec(one, 0..3).prop_map(Into::into)
}

fn any_destination() -> impl Strategy<Value = DestinationSpec> {
    let address = prop_oneof![
        any::<u32>().prop_map(|ip| std::net::IpAddr::V4(ip.into())),
        any::<u128>().prop_map(|ip| std::net::IpAddr::V6(ip.into())),
    ];
    let numbers = any::<(u16, u32, u32, u32)>();
    let tunnel = (any::<u8>(), any::<u16>(), any::<u16>());
    (address, numbers, 0..8_u32, tunnel, any_unknown()).prop_map(
        |(ip, (port, weight, upper_threshold, lower_threshold), method, tunnel, unknown)| {
            DestinationSpec {
                address: SocketAddr::new(ip, port),
                forwarding: Forwarding::from_number(method),
                weight,
                upper_threshold,
                lower_threshold,
                tunnel: Tunnel {
                    kind: TunnelKind::from_number(tunnel.0),
                    port: tunnel.1,
                    checksum: TunnelChecksum::from_number(tunnel.2),
                },
                unknown,
            }
        },
    )
}

proptest! {
    #[test]
    fn a_service_survives_being_written_and_read(spec in any_service()) {
        // The kernel answers with the command and attributes that add a service.
        let written = changed(&Change::AddService(spec.clone()));
        prop_assert_eq!(service(&written).unwrap().spec, spec);
    }

    #[test]
    fn a_destination_survives_being_written_and_read(spec in any_destination()) {
        let written = changed(&Change::AddDestination(web(), spec.clone()));
        prop_assert_eq!(destination(&written, Family::V4).unwrap().spec, spec);
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        // Only that these return matters.
        drop((service(&bytes), destination(&bytes, Family::V6), info(&bytes)));
        drop((timeouts(&bytes), family_number(&bytes)));
    }

    #[test]
    fn a_damaged_answer_never_panics(at in 0..200_usize, byte in any::<u8>(), cut in 0..340_usize) {
        let mut answer = hex(&format!("{DESTINATION}{NO_STATS}"));
        answer[at] = byte;
        drop(destination(&answer, Family::V4));
        answer.truncate(cut);
        drop(destination(&answer, Family::V4));
    }
}
