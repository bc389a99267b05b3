//! Two routers that authenticate their packets, on one virtual clock; whatever passes between
//! them is kept, and can be damaged, held back or replayed.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::bench::{Bench, Peer, config, epoch};
use crate::packet::auth::{self, CryptographicField};
use crate::packet::{ALL_SPF_ROUTERS, Body, Envelope};
use crate::{
    Algorithm, AreaId, Authentication, AuthenticationError, AuthenticationView, Config, Event,
    InterfaceId, Key, Lifetime, LinkState, NetworkType, PacketDrop, Router, RouterId, Secret,
    Standing, State, Transmit,
};

const WIRE: InterfaceId = InterfaceId(0);
const DELAY: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn key(id: u8, algorithm: Algorithm) -> Key {
    Key {
        id,
        algorithm,
        secret: Secret::new(format!("secret {id}")),
        send: Lifetime::ALWAYS,
        accept: Lifetime::ALWAYS,
    }
}

fn md5(ids: &[u8]) -> Authentication {
    let keys = ids.iter().map(|&id| key(id, Algorithm::Md5));
    Authentication::Cryptographic(keys.collect())
}

/// Two routers and the packets between them.
struct Pair {
    now: Instant,
    routers: [Router; 2],
    events: [Vec<Event>; 2],
    /// What left each router, in order.
    sent: [Vec<Vec<u8>>; 2],
}

impl Pair {
    fn new(authentication: [Authentication; 2], at_least: u32) -> Self {
        let now = epoch();
        let [a, b] = authentication;
        let mut pair = Self {
            now,
            routers: [router(0, a, at_least, now), router(1, b, at_least, now)],
            events: [Vec::new(), Vec::new()],
            sent: [Vec::new(), Vec::new()],
        };
        for index in 0..2 {
            pair.routers[index].handle_interface(now, WIRE, Some(link(index)));
            pair.carry();
        }
        pair
    }

    /// Starts one of them anew, as after a crash.
    fn restart(&mut self, index: usize, authentication: Authentication, at_least: u32) {
        self.routers[index] = router(index, authentication, at_least, self.now);
        self.routers[index].handle_interface(self.now, WIRE, Some(link(index)));
        self.carry();
    }

    /// Delivers what the routers have sent, and what they sent in answer.
    fn carry(&mut self) {
        let mut idle = 0;
        let mut from = 0;
        while idle < 2 {
            let router = &mut self.routers[from];
            let packets: Vec<Transmit> = std::iter::from_fn(|| router.poll_transmit()).collect();
            self.events[from].extend(std::iter::from_fn(|| router.poll_event()));
            idle = if packets.is_empty() { idle + 1 } else { 0 };
            for Transmit { payload, .. } in packets {
                self.now += DELAY;
                self.deliver(1 - from, &payload);
                self.sent[from].push(payload);
            }
            from = 1 - from;
        }
    }

    fn deliver(&mut self, to: usize, packet: &[u8]) {
        let source = link(1 - to).address;
        self.routers[to].handle_packet(self.now, WIRE, source, ALL_SPF_ROUTERS, packet);
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = self.routers.iter().filter_map(Router::poll_timeout).min();
            let Some(due) = due.filter(|&due| due <= end) else {
                self.now = self.now.max(end);
                return;
            };
            self.now = self.now.max(due);
            for router in &mut self.routers {
                router.handle_timeout(self.now);
            }
            self.carry();
        }
    }

    fn states(&self) -> [Option<State>; 2] {
        let state = |router: &Router| router.neighbors().next().map(|neighbor| neighbor.state);
        [state(&self.routers[0]), state(&self.routers[1])]
    }

    fn is_full(&self) -> bool {
        self.states() == [Some(State::Full); 2]
    }

    /// The key id and the sequence number of each packet that a router sent.
    fn fields(&self, router: usize) -> Vec<CryptographicField> {
        self.sent[router]
            .iter()
            .map(|packet| field(packet))
            .collect()
    }

    fn dropped(&self, router: usize, reason: PacketDrop) -> u64 {
        self.routers[router].counters().dropped(reason)
    }

    /// Every packet that either refused for its authentication.
    fn refused(&self) -> u64 {
        let refusals = [
            PacketDrop::AuthType,
            PacketDrop::AuthPassword,
            PacketDrop::AuthUnknownKey,
            PacketDrop::AuthKeyLifetime,
            PacketDrop::AuthDigest,
            PacketDrop::AuthReplay,
        ];
        let pairs = refusals
            .iter()
            .flat_map(|&reason| [self.dropped(0, reason), self.dropped(1, reason)]);
        pairs.sum()
    }

    /// What a router said of the packets that it dropped.
    fn complaints(&self, router: usize) -> Vec<&str> {
        let events = self.events[router].iter();
        let details = events.filter_map(|event| match event {
            Event::PacketDropped { detail, .. } => Some(detail.as_str()),
            _ => None,
        });
        details.collect()
    }
}

fn router(index: usize, authentication: Authentication, at_least: u32, now: Instant) -> Router {
    let mut router = Router::new(router_config(index), 7, now).unwrap();
    router.set_authentication(WIRE, authentication).unwrap();
    router.raise_auth_sequence(WIRE, at_least);
    router
}

fn router_config(index: usize) -> Config {
    Config {
        router_id: RouterId(link(index).address),
        ..config(&[NetworkType::PointToPoint])
    }
}

fn link(index: usize) -> LinkState {
    LinkState {
        address: Ipv4Addr::new(10, 1, 0, u8::try_from(index).unwrap()),
        prefix_len: 31,
        mtu: 1500,
        index: 1,
    }
}

fn field(packet: &[u8]) -> CryptographicField {
    let envelope = Envelope::decode(packet).unwrap();
    assert_eq!(envelope.auth_type, auth::CRYPTOGRAPHIC);
    CryptographicField::decode(envelope.auth_data)
}

#[test]
fn routers_of_one_mind_become_full_and_refuse_nothing() {
    let mut minds = vec![
        Authentication::Null,
        Authentication::Simple(Secret::new(*b"pass")),
    ];
    for algorithm in Algorithm::ALL {
        minds.push(Authentication::Cryptographic(vec![key(9, algorithm)]));
    }
    for mind in minds {
        let mut pair = Pair::new([mind.clone(), mind.clone()], 5);
        pair.run(10 * SECOND);
        assert!(pair.is_full(), "{mind:?}: {:?}", pair.states());
        assert_eq!(pair.refused(), 0, "{mind:?}");
    }
}

#[test]
fn who_is_of_another_mind_stays_out_and_the_words_say_why() {
    let other_secret = Key {
        secret: Secret::new(*b"another"),
        ..key(1, Algorithm::Md5)
    };
    let other = |key| Authentication::Cryptographic(vec![key]);
    let cases = [
        (
            Authentication::Null,
            PacketDrop::AuthType,
            "authentication: none in place of a cryptographic digest",
        ),
        (
            Authentication::Simple(Secret::new(*b"pass")),
            PacketDrop::AuthType,
            "authentication: a simple password in place of a cryptographic digest",
        ),
        (
            md5(&[3]),
            PacketDrop::AuthUnknownKey,
            "authentication: key id 3 unknown, ours: 1",
        ),
        (
            other(key(1, Algorithm::HmacSha1)),
            PacketDrop::AuthDigest,
            "authentication: key id 1 with a digest of 20 bytes in place of 16, that of md5",
        ),
        (
            other(other_secret),
            PacketDrop::AuthDigest,
            "authentication: key id 1 with a digest that is not ours by md5: another key?",
        ),
    ];
    for (theirs, reason, words) in cases {
        let mut pair = Pair::new([md5(&[1]), theirs], 5);
        pair.run(3 * SECOND);
        assert_eq!(pair.states(), [None; 2], "{words}");
        assert_eq!(pair.complaints(0), [words]);
        assert!(pair.dropped(0, reason) >= 2, "{words}: not counted");
        let refused = pair.routers[0].last_refused(WIRE).unwrap();
        assert_eq!(refused.detail, words);
        assert_eq!(refused.source, link(1).address);
        assert_eq!(refused.count, pair.dropped(0, reason));
        assert!(pair.refused() >= 4, "{words}: the other one took ours");
    }
    let password = |text: &[u8]| Authentication::Simple(Secret::new(text));
    let mut pair = Pair::new([password(b"ours"), password(b"theirs")], 5);
    pair.run(3 * SECOND);
    assert_eq!(pair.complaints(0), ["authentication: another password"]);
    assert!(pair.dropped(1, PacketDrop::AuthPassword) >= 2);
}

#[test]
fn every_packet_has_a_higher_sequence_number_than_the_last_also_after_a_crash() {
    let mut pair = Pair::new([md5(&[1]), md5(&[1])], 1000);
    pair.run(10 * SECOND);
    assert!(pair.is_full());
    let next = pair.routers[0].next_auth_sequence(WIRE).unwrap();
    // The shell's reservation lies ahead of what was used.
    pair.restart(0, md5(&[1]), next + 256);
    pair.run(10 * SECOND);
    assert!(pair.is_full(), "{:?}", pair.states());
    for router in 0..2 {
        let sequences: Vec<u32> = pair.fields(router).iter().map(|f| f.sequence).collect();
        assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
        assert!(sequences[0] >= 1000);
    }
    assert_eq!(pair.refused(), 0);
}

#[test]
fn a_successor_counts_on_and_remembers_what_it_heard() {
    let mut pair = Pair::new([md5(&[1]), md5(&[1])], 1000);
    pair.run(5 * SECOND);
    let snapshot = pair.routers[0].snapshot(pair.now);
    let config = router_config(0);
    pair.routers[0] = Router::restore(config, snapshot, pair.now).unwrap();
    pair.routers[0].set_authentication(WIRE, md5(&[1])).unwrap();
    let old = pair.sent[1][0].clone();
    pair.deliver(0, &old);
    assert_eq!(pair.dropped(0, PacketDrop::AuthReplay), 1);
    pair.run(10 * SECOND);
    assert!(pair.is_full());
    assert_eq!(pair.refused(), 1);
    let sequences: Vec<u32> = pair.fields(0).iter().map(|f| f.sequence).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
}

#[test]
fn a_replayed_packet_is_refused_until_the_neighbour_is_gone() {
    let mut pair = Pair::new([md5(&[1]), md5(&[1])], 1000);
    pair.run(5 * SECOND);
    let all = pair.sent[1].clone();
    for packet in &all[..all.len() - 1] {
        pair.deliver(0, packet);
    }
    let replays = u64::try_from(all.len() - 1).unwrap();
    assert_eq!(pair.dropped(0, PacketDrop::AuthReplay), replays);
    assert!(pair.is_full(), "a replay moved the adjacency");
    pair.carry();
    let expected = format!(
        "authentication: key id 1 with sequence number {} after {}: a replay, or reordered",
        field(&all[0]).sequence,
        field(&all[all.len() - 1]).sequence
    );
    assert_eq!(pair.complaints(0), [expected]);

    // The last one again is not less than itself (RFC 2328 §D.5.3), as BIRD relies on.
    pair.deliver(0, &all[all.len() - 1]);
    assert_eq!(pair.dropped(0, PacketDrop::AuthReplay), replays);

    // A neighbour that lost its count is taken again when the old one is dead, not before.
    pair.restart(1, md5(&[1]), 1);
    pair.run(3 * SECOND);
    assert!(pair.dropped(0, PacketDrop::AuthReplay) > replays);
    assert!(!pair.is_full());
    pair.run(7 * SECOND);
    assert!(pair.is_full(), "{:?}", pair.states());
}

#[test]
fn a_replay_from_another_address_of_a_segment_does_not_pass_for_the_neighbour() {
    let mut bench = Bench::new(config(&[NetworkType::Broadcast]));
    bench.router.set_authentication(WIRE, md5(&[1])).unwrap();
    let (peer, other) = (Peer::new(0, 1), Peer::new(0, 2));
    let hello = |sequence: u32| {
        let mut packet = crate::packet::Packet {
            header: crate::packet::Header {
                router_id: peer.router_id,
                area: AreaId(Ipv4Addr::UNSPECIFIED),
            },
            body: Body::Hello(peer.hello(&[])),
        }
        .encode();
        auth::add_digest(Algorithm::Md5, b"secret 1", 1, sequence, &mut packet);
        packet
    };
    let now = bench.now;
    let mut receive = |from: &Peer, sequence| {
        let packet = hello(sequence);
        let router = &mut bench.router;
        router.handle_packet(now, WIRE, from.address, ALL_SPF_ROUTERS, &packet);
        router.counters().dropped(PacketDrop::AuthReplay)
    };
    assert_eq!(receive(&peer, 20), 0);
    assert_eq!(receive(&peer, 19), 1);
    // Each address counts for itself.
    assert_eq!(receive(&other, 5), 1);
    assert_eq!(receive(&peer, 21), 1);
}

/// Key 1 until the tenth second, key 2 from then on, both accepted for three seconds more.
fn rollover(start: Instant) -> Authentication {
    let at = start + 10 * SECOND;
    let first = Key {
        send: Lifetime {
            from: None,
            until: Some(at),
        },
        accept: Lifetime {
            from: None,
            until: Some(at + 3 * SECOND),
        },
        ..key(1, Algorithm::Md5)
    };
    let second = Key {
        send: Lifetime {
            from: Some(at),
            until: None,
        },
        accept: Lifetime {
            from: Some(at - 3 * SECOND),
            until: None,
        },
        ..key(2, Algorithm::HmacSha256)
    };
    Authentication::Cryptographic(vec![first, second])
}

#[test]
fn keys_follow_each_other_without_a_lost_packet_though_the_clocks_differ() {
    let start = epoch();
    let skewed = start + 2 * SECOND;
    let mut pair = Pair::new([rollover(start), rollover(skewed)], 1);
    pair.run(9 * SECOND);
    assert!(pair.is_full());
    let since = |pair: &Pair| pair.routers[0].neighbors().next().unwrap().since;
    let full_since = since(&pair);
    pair.run(21 * SECOND);
    assert!(pair.is_full());
    assert_eq!(since(&pair), full_since, "the adjacency flapped");
    assert_eq!(pair.refused(), 0);
    for router in 0..2 {
        let ids: Vec<u8> = pair.fields(router).iter().map(|f| f.key_id).collect();
        assert!(
            ids.is_sorted() && ids.contains(&1) && ids.contains(&2),
            "{ids:?}"
        );
        let keys: Vec<(u8, Standing)> = pair.events[router]
            .iter()
            .filter_map(|event| match event {
                Event::SendKey {
                    key_id, standing, ..
                } => Some((*key_id, *standing)),
                _ => None,
            })
            .collect();
        assert_eq!(keys, [(1, Standing::Valid), (2, Standing::Valid)]);
    }
    let received = pair.routers[0]
        .neighbors()
        .next()
        .unwrap()
        .received
        .unwrap();
    assert_eq!(
        received.key_id, 2,
        "the view says which key the neighbour uses"
    );
}

#[test]
fn a_key_out_of_its_time_is_refused_while_there_is_another() {
    let start = epoch();
    let expired = Authentication::Cryptographic(vec![
        Key {
            accept: Lifetime {
                from: None,
                until: Some(start),
            },
            ..key(1, Algorithm::Md5)
        },
        key(2, Algorithm::Md5),
    ]);
    let mut pair = Pair::new([expired, md5(&[2, 1])], 1);
    pair.run(3 * SECOND);
    assert_eq!(
        pair.complaints(0),
        ["authentication: key id 1 is not accepted now, by its lifetime"]
    );
    assert!(pair.dropped(0, PacketDrop::AuthKeyLifetime) >= 2);
}

#[test]
fn when_every_key_has_expired_the_last_one_stays_in_use_and_that_is_said() {
    let start = epoch();
    let until = |seconds| Lifetime {
        from: None,
        until: Some(start + seconds * SECOND),
    };
    let keys = || {
        Authentication::Cryptographic(vec![
            Key {
                send: until(5),
                accept: until(5),
                ..key(1, Algorithm::Md5)
            },
            Key {
                send: until(9),
                accept: until(9),
                ..key(2, Algorithm::Md5)
            },
            Key {
                send: until(7),
                accept: until(7),
                ..key(3, Algorithm::Md5)
            },
        ])
    };
    let mut pair = Pair::new([keys(), keys()], 1);
    pair.run(30 * SECOND);
    assert!(pair.is_full());
    assert_eq!(pair.refused(), 0);
    let last = pair.fields(0).last().unwrap().key_id;
    assert_eq!(last, 2, "the one that expired last");
    let view = pair.routers[0].authentication(pair.now, WIRE);
    let expected = AuthenticationView::Cryptographic {
        key_id: 2,
        algorithm: Algorithm::Md5,
        standing: Standing::Expired,
        accepted: vec![2],
    };
    assert_eq!(view, Some(expected));
    let said = Event::SendKey {
        interface: WIRE,
        key_id: 2,
        standing: Standing::Expired,
    };
    assert_eq!(
        pair.events[0]
            .iter()
            .filter(|event| **event == said)
            .count(),
        1
    );
}

#[test]
fn before_every_lifetime_the_first_key_to_come_is_used() {
    // A machine whose clock says 1970 until a time server is reached, perhaps over this link.
    let start = epoch();
    let from = |seconds| Lifetime {
        from: Some(start + seconds * SECOND),
        until: None,
    };
    let keys = || {
        Authentication::Cryptographic(vec![
            Key {
                send: from(200),
                accept: from(200),
                ..key(1, Algorithm::Md5)
            },
            Key {
                send: from(100),
                accept: from(100),
                ..key(2, Algorithm::Md5)
            },
        ])
    };
    let mut pair = Pair::new([keys(), keys()], 1);
    pair.run(10 * SECOND);
    assert!(pair.is_full());
    assert!(pair.fields(0).iter().all(|field| field.key_id == 2));
    let said = Event::SendKey {
        interface: WIRE,
        key_id: 2,
        standing: Standing::Early,
    };
    assert!(pair.events[0].contains(&said));
}

#[test]
fn keys_that_are_set_anew_end_no_adjacency() {
    let mut pair = Pair::new([md5(&[1]), md5(&[1])], 1);
    pair.run(5 * SECOND);
    for _ in 0..2 {
        for index in 0..2 {
            pair.routers[index]
                .set_authentication(WIRE, md5(&[2, 1]))
                .unwrap();
            pair.run(2 * SECOND);
        }
        for index in 0..2 {
            pair.routers[index]
                .set_authentication(WIRE, md5(&[1, 2]))
                .unwrap();
            pair.run(2 * SECOND);
        }
    }
    assert!(pair.is_full());
    assert_eq!(pair.refused(), 0);
    let sequences: Vec<u32> = pair.fields(0).iter().map(|f| f.sequence).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
}

#[test]
fn what_cannot_be_used_is_refused_and_changes_nothing() {
    let secret = |bytes: &[u8]| Secret::new(bytes);
    let one = |algorithm, bytes: &[u8]| {
        Authentication::Cryptographic(vec![Key {
            secret: secret(bytes),
            ..key(1, algorithm)
        }])
    };
    let cases = [
        (
            Authentication::Cryptographic(vec![]),
            AuthenticationError::NoKey,
        ),
        (md5(&[1, 2, 1]), AuthenticationError::DuplicateKey(1)),
        (
            one(Algorithm::HmacSha512, b""),
            AuthenticationError::EmptySecret,
        ),
        (
            one(Algorithm::Md5, b"seventeen bytes !"),
            AuthenticationError::LongSecret {
                length: 17,
                most: 16,
            },
        ),
        (
            Authentication::Simple(secret(b"nine byte")),
            AuthenticationError::LongSecret { length: 9, most: 8 },
        ),
    ];
    let mut pair = Pair::new([md5(&[1]), md5(&[1])], 1);
    for (authentication, error) in cases {
        let result = pair.routers[0].set_authentication(WIRE, authentication);
        assert_eq!(result, Err(error));
    }
    pair.run(5 * SECOND);
    assert!(pair.is_full());
    one(Algorithm::HmacSha1, &[b'x'; 300]).validate().unwrap();
}

#[test]
fn no_packet_with_its_digest_is_larger_than_the_mtu() {
    let sha512 = || Authentication::Cryptographic(vec![key(1, Algorithm::HmacSha512)]);
    let mut pair = Pair::new([sha512(), sha512()], 1);
    for index in 0..2 {
        let small = LinkState {
            mtu: 200,
            ..link(index)
        };
        pair.routers[index].handle_interface(pair.now, WIRE, Some(small));
    }
    pair.run(5 * SECOND);
    let stubs: Vec<_> = (0..3).map(super::bench::vip).collect();
    pair.routers[0].announce(pair.now, &stubs, &[]).unwrap();
    pair.run(5 * SECOND);
    assert!(pair.is_full());
    let longest = pair.sent.iter().flatten().map(Vec::len).max().unwrap();
    assert!(longest + 20 <= 200, "{longest} bytes");
    assert!(longest > 150, "{longest} bytes are no test");
}

proptest! {
    #[test]
    fn no_damaged_packet_moves_anything(
        at in 0..200_usize,
        value: u8,
        cut in 0..80_usize,
        algorithm in prop::sample::select(Algorithm::ALL.to_vec()),
    ) {
        let mind = || Authentication::Cryptographic(vec![key(1, algorithm)]);
        let mut pair = Pair::new([mind(), mind()], 1);
        pair.run(3 * SECOND);
        prop_assert!(pair.is_full());
        let before = pair.routers[0].neighbors().next().unwrap();
        for packet in pair.sent[1].clone() {
            let mut damaged = packet.clone();
            let length = damaged.len();
            damaged[at % length] = value;
            damaged.truncate(length - cut.min(length));
            if damaged != packet {
                pair.deliver(0, &damaged);
            }
        }
        pair.carry();
        prop_assert_eq!(pair.routers[0].neighbors().next().unwrap(), before);
    }
}
