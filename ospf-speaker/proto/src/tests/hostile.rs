//! What others may send: nothing of it panics, and nothing of it grows without bound.

use proptest::collection::vec;
use proptest::prelude::*;

use super::bench::*;
use crate::lsdb::MAX_LSAS;
use crate::packet::{
    ALL_SPF_ROUTERS, Body, Header, INITIAL_SEQUENCE, LsType, Lsa, LsaKey, Options, Packet,
};
use crate::{AreaId, InterfaceId, LsaDrop, NetworkType, RouterId, State};

/// Something that a neighbour does.
#[derive(Debug, Clone)]
enum Op {
    /// A packet with this type and body; the header is right.
    Packet {
        peer: usize,
        packet_type: u8,
        body: Vec<u8>,
    },
    /// Any bytes.
    Garbage { peer: usize, bytes: Vec<u8> },
    /// A Hello that lists us.
    Hello { peer: usize },
    /// The exchange in one go, as far as it gets.
    Opening {
        peer: usize,
        sequence: u32,
        flags: u8,
    },
    /// An LSA, perhaps one of ours.
    Update {
        peer: usize,
        ls_type: u8,
        id: u8,
        ours: bool,
        age: u16,
        sequence: i32,
        body: Vec<u8>,
    },
    /// Time passes.
    Wait { millis: u64 },
    /// We change what we announce.
    Announce { count: u8 },
    /// BFD loses a neighbour.
    Lost { peer: usize },
    /// An interface goes down or up.
    Interface { interface: usize, is_up: bool },
}

fn op() -> impl Strategy<Value = Op> {
    let peer = 0_usize..3;
    prop_oneof![
        (peer.clone(), 1_u8..=5, vec(any::<u8>(), 0..80)).prop_map(|(peer, packet_type, body)| {
            Op::Packet {
                peer,
                packet_type,
                body,
            }
        }),
        (peer.clone(), vec(any::<u8>(), 0..80))
            .prop_map(|(peer, bytes)| Op::Garbage { peer, bytes }),
        peer.clone().prop_map(|peer| Op::Hello { peer }),
        peer.clone().prop_map(|peer| Op::Hello { peer }),
        (peer.clone(), 0_u32..3, 0_u8..8).prop_map(|(peer, sequence, flags)| Op::Opening {
            peer,
            sequence,
            flags
        }),
        (
            (peer.clone(), 0_u8..13, 0_u8..4, any::<bool>()),
            (
                prop_oneof![Just(0_u16), Just(3599), Just(3600), any::<u16>()],
                prop_oneof![Just(i32::MAX), Just(i32::MIN), -5..5, any::<i32>()],
                vec(any::<u8>(), 0..40),
            )
        )
            .prop_map(
                |((peer, ls_type, id, ours), (age, sequence, body))| Op::Update {
                    peer,
                    ls_type,
                    id,
                    ours,
                    age,
                    sequence,
                    body
                }
            ),
        (0_u64..5000).prop_map(|millis| Op::Wait { millis }),
        (0_u8..5).prop_map(|count| Op::Announce { count }),
        peer.prop_map(|peer| Op::Lost { peer }),
        (0_usize..2, any::<bool>())
            .prop_map(|(interface, is_up)| Op::Interface { interface, is_up }),
    ]
}

/// A master and a slave on a segment, and a neighbour on a point-to-point link.
fn peers() -> [Peer; 3] {
    let mut backup = Peer::new(1, 201);
    backup.dr = Peer::dr(1, 50).address;
    backup.bdr = backup.address;
    [Peer::new(0, 200), Peer::dr(1, 50), backup]
}

fn perform(bench: &mut Bench, peers: &[Peer; 3], op: Op) {
    match op {
        Op::Packet {
            peer,
            packet_type,
            body,
        } => {
            let peer = &peers[peer];
            let mut bytes = Packet {
                header: Header {
                    router_id: peer.router_id,
                    area: AreaId([0; 4].into()),
                },
                body: Body::Ack(vec![]),
            }
            .encode();
            bytes[1] = packet_type;
            bytes.extend(body);
            let length = u16::try_from(bytes.len()).unwrap();
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            bytes[12..14].fill(0);
            let mut sum: u32 = bytes
                .chunks(2)
                .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| low.into()))
                .sum();
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            let sum = !u16::try_from(sum).unwrap();
            bytes[12..14].copy_from_slice(&sum.to_be_bytes());
            raw(bench, peer, &bytes);
        }
        Op::Garbage { peer, bytes } => raw(bench, &peers[peer], &bytes),
        Op::Hello { peer } => bench.hello(&peers[peer]),
        Op::Opening {
            peer,
            sequence,
            flags,
        } => {
            let peer = &peers[peer];
            let sequence = match sequence {
                0 => 7,
                offset => bench.dbdescs().last().map_or(7, |last| last.sequence) + offset - 1,
            };
            bench.receive(peer, Body::DbDesc(peer.dbdesc(flags.into(), sequence, &[])));
        }
        Op::Update {
            peer,
            ls_type,
            id,
            ours,
            age,
            sequence,
            body,
        } => {
            let advertising_router = match ours {
                true => OUR_ID,
                false => RouterId([10, 0, 0, id].into()),
            };
            let key = LsaKey {
                ls_type: LsType::from(ls_type),
                link_state_id: match ls_type {
                    1 => advertising_router.0,
                    _ => [10, 1, 0, 100 + id].into(),
                },
                advertising_router,
            };
            let lsa = Lsa::originate(key, Options::E, sequence, &body).unwrap();
            bench.update(&peers[peer], &[lsa.at_age(age)]);
        }
        Op::Wait { millis } => bench.advance(std::time::Duration::from_millis(millis)),
        Op::Announce { count } => bench.announce(&(0..count).map(vip).collect::<Vec<_>>()),
        Op::Lost { peer } => {
            let peer = &peers[peer];
            bench
                .router
                .handle_neighbor_lost(bench.now, peer.interface, peer.address);
            bench.drain();
        }
        Op::Interface { interface, is_up } => {
            let state = is_up.then(|| link(interface));
            bench
                .router
                .handle_interface(bench.now, InterfaceId(interface), state);
            bench.drain();
        }
    }
}

fn raw(bench: &mut Bench, peer: &Peer, bytes: &[u8]) {
    bench.router.handle_packet(
        bench.now,
        peer.interface,
        peer.address,
        ALL_SPF_ROUTERS,
        bytes,
    );
    bench.drain();
}

proptest! {
    #[test]
    fn whatever_neighbors_do_we_stay_sane(ops in vec(op(), 1..120), start_full in any::<bool>()) {
        let mut bench = Bench::new(config(&[NetworkType::PointToPoint, NetworkType::Broadcast]));
        let peers = peers();
        if start_full {
            bench.bring_up(&peers[0], &[]);
        }
        for op in ops {
            perform(&mut bench, &peers, op);
            prop_assert!(bench.router.neighbors().count() <= 3);
            for neighbor in bench.router.neighbors() {
                let exchanging = neighbor.state >= State::Exchange;
                prop_assert!(exchanging || neighbor.unacknowledged == 0, "{neighbor:?}");
            }
            if let Some(sequence) = bench.router.sequence() {
                prop_assert!(sequence >= INITIAL_SEQUENCE);
            }
            bench.take();
        }
        // And we can still come up: the peers go silent, then one returns.
        for interface in 0..2 {
            let up = Some(link(interface));
            bench.router.handle_interface(bench.now, InterfaceId(interface), up);
        }
        bench.advance(DEAD * 2);
        prop_assert_eq!(bench.router.neighbors().count(), 0);
        bench.take();
        bench.bring_up(&peers[0], &[]);
    }
}

#[test]
fn a_full_database_refuses_more_and_does_not_acknowledge_it() {
    let mut bench = Bench::point_to_point();
    let peer = Peer::new(0, 200);
    bench.bring_up(&peer, &[]);
    let external = |index: usize| {
        let key = LsaKey {
            ls_type: LsType::AsExternal,
            link_state_id: u32::try_from(index).unwrap().into(),
            advertising_router: peer.router_id,
        };
        Lsa::originate(key, Options::E, INITIAL_SEQUENCE, &[]).unwrap()
    };
    let all: Vec<Lsa> = (0..MAX_LSAS).map(external).collect();
    for page in all.chunks(1000) {
        bench.update(&peer, page);
    }
    // Our own Router-LSA has one of the places.
    let full = LsaDrop::DatabaseFull;
    assert_eq!(bench.router.counters().discarded(full), 1);
    let acknowledged = {
        bench.advance(RXMT);
        bench.acknowledged().len()
    };
    assert_eq!(acknowledged, MAX_LSAS - 1);
    // What is there can still change.
    let key = external(5).key();
    let newer = Lsa::originate(key, Options::E, INITIAL_SEQUENCE + 1, &[]).unwrap();
    bench.hello(&peer);
    bench.update(&peer, &[newer]);
    assert_eq!(bench.sequence_of(key), Some(INITIAL_SEQUENCE + 1));
    assert_eq!(bench.state(&peer), Some(State::Full));
}
