use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::counters::PacketDrop;
use crate::ids::{AreaId, RouterId};

fn router(last: u8) -> RouterId {
    RouterId(Ipv4Addr::new(10, 0, 0, last))
}

fn header() -> Header {
    Header {
        router_id: router(1),
        area: AreaId(Ipv4Addr::UNSPECIFIED),
    }
}

/// A Router-LSA with one host stub.
fn router_lsa() -> Lsa {
    let body = RouterLsa {
        flags: 0,
        links: vec![RouterLink {
            kind: LinkKind::Stub,
            id: Ipv4Addr::new(10, 99, 0, 1),
            data: Ipv4Addr::BROADCAST,
            metric: 1,
        }],
    };
    let key = LsaKey {
        ls_type: LsType::Router,
        link_state_id: router(1).0,
        advertising_router: router(1),
    };
    Lsa::originate(key, Options::E, INITIAL_SEQUENCE, &body.encode()).unwrap()
}

#[test]
fn every_byte_changed_fails_the_lsa_checksum_except_in_the_age() {
    let mut bytes = Vec::new();
    router_lsa().encode(&mut bytes);
    for index in 0..bytes.len() {
        let mut damaged = bytes.clone();
        // Fletcher's sums count 0 and 255 alike, so the change is another one.
        damaged[index] ^= 0x01;
        let lsa = Lsa::decode(&mut wire::Reader::new(&damaged));
        let in_length = (18..20).contains(&index);
        match lsa {
            Ok(lsa) => assert_eq!(lsa.checksum_is_valid(), index < 2, "byte {index}"),
            Err(_) => assert!(in_length, "byte {index} is not in the length field"),
        }
    }
}

#[test]
fn a_zero_checksum_is_invalid() {
    let mut bytes = Vec::new();
    router_lsa().encode(&mut bytes);
    bytes[16..18].fill(0);
    let lsa = Lsa::decode(&mut wire::Reader::new(&bytes)).unwrap();
    assert!(!lsa.checksum_is_valid());
}

#[test]
fn instances_compare_by_sequence_then_checksum_then_max_age_then_age() {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let base = *router_lsa().header();
    let with = |change: fn(&mut LsaHeader)| {
        let mut header = base;
        change(&mut header);
        header
    };
    let cases: [(&str, LsaHeader, std::cmp::Ordering); 7] = [
        ("the same", base, Equal),
        (
            "a higher sequence number",
            with(|h| h.sequence += 1),
            Greater,
        ),
        ("a higher checksum", with(|h| h.checksum += 1), Greater),
        ("MaxAge", with(|h| h.age = MAX_AGE), Greater),
        ("15 minutes older", with(|h| h.age = 900), Equal),
        ("more than 15 minutes older", with(|h| h.age = 901), Less),
        (
            "negative sequence numbers are below positive ones",
            with(|h| h.sequence = 1),
            Greater,
        ),
    ];
    for (name, other, expected) in cases {
        assert_eq!(other.recency(&base), expected, "{name}");
        assert_eq!(base.recency(&other), expected.reverse(), "{name}, reversed");
    }
}

#[test]
fn a_truncated_packet_says_which_field_is_missing() {
    let packet = Packet {
        header: header(),
        body: Body::Update(vec![router_lsa()]),
    };
    let bytes = packet.encode();
    // The outer length and checksum are put right, so that only the body is too short.
    let mut cut = bytes[..HEADER_LEN + 4 + LSA_HEADER_LEN + 3].to_vec();
    header().finish(PacketType::Update, &mut cut);
    let error = Packet::decode(&cut).unwrap_err();
    assert_eq!(error.to_string(), "LSA body needs 16 bytes, 3 are left");
    assert_eq!(error.reason(), PacketDrop::Malformed);

    let error = Packet::decode(&bytes[..20]).unwrap_err();
    assert_eq!(error.reason(), PacketDrop::Truncated);
    let error = Packet::decode(&bytes[..bytes.len() - 1]).unwrap_err();
    assert_eq!(error.reason(), PacketDrop::Truncated);
}

#[test]
fn the_header_is_checked_field_by_field() {
    let good = Packet {
        header: header(),
        body: Body::Ack(vec![]),
    }
    .encode();
    let damage = |index: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[index] = value;
        Packet::decode(&bytes).unwrap_err().reason()
    };
    assert_eq!(damage(0, 3), PacketDrop::Version);
    assert_eq!(
        damage(3, 23),
        PacketDrop::Truncated,
        "a length below the header's"
    );
    assert_eq!(
        damage(3, 25),
        PacketDrop::Truncated,
        "a length beyond the bytes"
    );
    assert_eq!(damage(13, good[13] ^ 1), PacketDrop::Checksum);
    assert_eq!(damage(15, 2), PacketDrop::AuthType);

    let mut unknown = good.clone();
    unknown[1] = 6;
    let sum = u16::from_be_bytes([good[12], good[13]]) - 1;
    unknown[12..14].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(
        Packet::decode(&unknown).unwrap_err(),
        DecodeError::UnknownType(6)
    );
}

#[test]
fn an_lsa_count_beyond_the_packet_is_an_error_and_allocates_nothing() {
    let mut bytes = vec![0; HEADER_LEN];
    bytes.extend(u32::MAX.to_be_bytes());
    header().finish(PacketType::Update, &mut bytes);
    assert!(matches!(
        Packet::decode(&bytes),
        Err(DecodeError::Truncated {
            field: "LSA header",
            ..
        })
    ));
}

#[test]
fn a_trailing_signalling_block_is_passed_over() {
    let packet = Packet {
        header: header(),
        body: Body::Request(vec![router_lsa().key()]),
    };
    let mut bytes = packet.encode();
    bytes.extend([0xff, 0xf6, 0, 3, 0, 1, 0, 4, 0, 0, 0, 1]);
    assert_eq!(Packet::decode(&bytes).unwrap(), packet);
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Decodes a packet from the wire, checks its sender, and that encoding gives it back.
fn captured(hex: &str, sender: u8) -> Body {
    let bytes = bytes(hex);
    let packet = Packet::decode(&bytes).unwrap();
    assert_eq!(packet.header.router_id, router(sender));
    assert_eq!(packet.header.area, AreaId(Ipv4Addr::UNSPECIFIED));
    assert_eq!(packet.encode(), bytes);
    packet.body
}

#[test]
fn a_hello_of_bird() {
    let body = captured(
        "02010030 0a000002 00000000 e8c40000 00000000 00000000
         ffffff00 00010201 00000004 00000000 00000000 0a000001",
        2,
    );
    assert_eq!(
        body,
        Body::Hello(Hello {
            network_mask: Ipv4Addr::new(255, 255, 255, 0),
            hello_interval: 1,
            options: Options::E,
            priority: 1,
            dead_interval: 4,
            dr: Ipv4Addr::UNSPECIFIED,
            bdr: Ipv4Addr::UNSPECIFIED,
            neighbors: vec![router(1)],
        })
    );
}

#[test]
fn a_database_description_of_frr() {
    let body = captured(
        "02020034 0a000001 00000000 6c250000 00000000 00000000
         05dc0200 51cab78c
         00000201 0a000001 0a000001 80000001 e0470024",
        1,
    );
    let header = LsaHeader {
        age: 0,
        options: Options::E,
        key: router_lsa().key(),
        sequence: INITIAL_SEQUENCE,
        checksum: 0xe047,
        length: 36,
    };
    assert_eq!(
        body,
        Body::DbDesc(DbDesc {
            mtu: 1500,
            options: Options::E,
            flags: DbDescFlags::from(0),
            sequence: 0x51ca_b78c,
            headers: vec![header],
        })
    );
}

#[test]
fn a_request_of_bird() {
    let body = captured(
        "02030024 0a000002 00000000 dfd30000 00000000 00000000
         00000001 0a000001 0a000001",
        2,
    );
    assert_eq!(body, Body::Request(vec![router_lsa().key()]));
}

#[test]
fn a_router_lsa_of_bird_with_the_o_bit_and_a_host_stub() {
    let body = captured(
        "02040058 0a000002 00000000 2c670000 00000000 00000000
         00000001
         00014201 0a000002 0a000002 80000002 c26b003c 00000003
         0a630009 ffffffff 03000000
         0a000001 0a010002 0100000a
         0a010000 ffffff00 0300000a",
        2,
    );
    let Body::Update(lsas) = body else {
        panic!("not an update but {body:?}");
    };
    assert_eq!(lsas.len(), 1);
    assert!(lsas[0].checksum_is_valid());
    assert_eq!(lsas[0].header().options, Options::E.union(Options::O));
    let link = |kind, id: [u8; 4], data: [u8; 4], metric| RouterLink {
        kind,
        id: id.into(),
        data: data.into(),
        metric,
    };
    assert_eq!(
        RouterLsa::decode(lsas[0].body()).unwrap().links,
        [
            link(LinkKind::Stub, [10, 99, 0, 9], [255; 4], 0),
            link(LinkKind::PointToPoint, [10, 0, 0, 1], [10, 1, 0, 2], 10),
            link(LinkKind::Stub, [10, 1, 0, 0], [255, 255, 255, 0], 10),
        ]
    );
    // We would have computed the same checksum.
    let header = *lsas[0].header();
    let again = Lsa::originate(header.key, header.options, header.sequence, lsas[0].body());
    assert_eq!(again.unwrap().header().checksum, header.checksum);
}

#[test]
fn an_acknowledgment_of_frr() {
    let body = captured(
        "0205002c 0a000001 00000000 e86b0000 00000000 00000000
         00014201 0a000002 0a000002 80000001 352a0030",
        1,
    );
    let Body::Ack(headers) = body else {
        panic!("not an acknowledgment but {body:?}");
    };
    assert_eq!(headers[0].key.advertising_router, router(2));
    assert_eq!((headers[0].age, headers[0].length), (1, 48));
}

fn address() -> impl Strategy<Value = Ipv4Addr> {
    any::<u32>().prop_map(Ipv4Addr::from_bits)
}

fn key() -> impl Strategy<Value = LsaKey> {
    (any::<u8>(), address(), address()).prop_map(|(ls_type, id, router)| LsaKey {
        ls_type: ls_type.into(),
        link_state_id: id,
        advertising_router: RouterId(router),
    })
}

fn lsa_header() -> impl Strategy<Value = LsaHeader> {
    (
        (any::<u16>(), any::<u8>(), key()),
        (any::<i32>(), any::<u16>(), any::<u16>()),
    )
        .prop_map(
            |((age, options, key), (sequence, checksum, length))| LsaHeader {
                age,
                options: Options(options),
                key,
                sequence,
                checksum,
                length,
            },
        )
}

fn lsa() -> impl Strategy<Value = Lsa> {
    (
        (key(), any::<u8>(), any::<i32>(), any::<u16>()),
        vec(any::<u8>(), 0..600),
    )
        .prop_map(|((key, options, sequence, age), body)| {
            Lsa::originate(key, Options(options), sequence, &body)
                .unwrap()
                .at_age(age)
        })
}

fn body() -> impl Strategy<Value = Body> {
    let hello = (
        (address(), any::<u16>(), any::<u8>(), any::<u8>()),
        (any::<u32>(), address(), address()),
        vec(address().prop_map(RouterId), 0..9),
    )
        .prop_map(
            |((network_mask, hello_interval, options, priority), (dead_interval, dr, bdr), n)| {
                Body::Hello(Hello {
                    network_mask,
                    hello_interval,
                    options: Options(options),
                    priority,
                    dead_interval,
                    dr,
                    bdr,
                    neighbors: n,
                })
            },
        );
    let dbdesc = (
        (any::<u16>(), any::<u8>(), any::<u8>(), any::<u32>()),
        vec(lsa_header(), 0..9),
    )
        .prop_map(|((mtu, options, flags, sequence), headers)| {
            Body::DbDesc(DbDesc {
                mtu,
                options: Options(options),
                flags: flags.into(),
                sequence,
                headers,
            })
        });
    prop_oneof![
        hello,
        dbdesc,
        vec(key(), 0..9).prop_map(Body::Request),
        vec(lsa(), 0..9).prop_map(Body::Update),
        vec(lsa_header(), 0..9).prop_map(Body::Ack),
    ]
}

proptest! {
    #[test]
    fn decoding_what_was_encoded_is_the_identity(
        router_id in address(), area in address(), body in body(),
    ) {
        let packet = Packet {
            header: Header { router_id: RouterId(router_id), area: AreaId(area) },
            body,
        };
        prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
    }

    #[test]
    fn encoding_what_was_decoded_gives_the_same_bytes(body in body()) {
        let bytes = Packet { header: header(), body }.encode();
        prop_assert_eq!(Packet::decode(&bytes).unwrap().encode(), bytes);
    }

    #[test]
    fn an_originated_lsa_has_a_valid_checksum_at_any_age(lsa in lsa(), age in any::<u16>()) {
        prop_assert!(lsa.at_age(age).checksum_is_valid());
    }

    #[test]
    fn a_grace_lsa_survives_the_wire(
        period: u32, reason: u8, restarter in proptest::option::of(address()),
    ) {
        let lsa = GraceLsa { period, reason: reason.into(), address: restarter };
        prop_assert_eq!(GraceLsa::decode(&lsa.encode()), Ok(lsa));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        match Packet::decode(&bytes) {
            Ok(packet) => prop_assert!(packet.encode().len() <= bytes.len()),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn an_arbitrary_body_under_a_good_header_never_panics(
        packet_type in 1_u8..=5, body in vec(any::<u8>(), 0..300),
    ) {
        let mut bytes = vec![0; HEADER_LEN];
        bytes.extend(&body);
        header().finish(PacketType::try_from(packet_type).unwrap(), &mut bytes);
        if let Err(error) = Packet::decode(&bytes) {
            prop_assert_eq!(error.reason(), PacketDrop::Malformed);
        }
    }

    #[test]
    fn arbitrary_lsa_bodies_never_panic(body in vec(any::<u8>(), 0..200)) {
        if let Ok(lsa) = RouterLsa::decode(&body) {
            prop_assert!(lsa.links.len() * 12 <= body.len());
        }
        if let Ok(lsa) = NetworkLsa::decode(&body) {
            prop_assert_eq!(lsa.encode(), body.clone());
        }
        if let Ok(lsa) = GraceLsa::decode(&body) {
            prop_assert!(lsa.encode().len() <= body.len());
        }
    }
}
