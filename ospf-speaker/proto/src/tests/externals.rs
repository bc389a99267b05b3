//! Hosts announced as external routes: type 5, and type 7 in an NSSA.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::bench::*;
use super::net::Net;
use crate::packet::{
    Body, ExternalKind, ExternalLsa, ExternalMetric, INITIAL_SEQUENCE, LinkKind, LsType, Lsa,
    LsaKey, MAX_AGE, MAX_SEQUENCE, Options, RouterLsa,
};
use crate::{
    AnnounceError, AreaId, AreaType, Config, Event, External, InterfaceId, MAX_EXTERNALS,
    NetworkType, RouterId, State,
};

const SEQ: i32 = INITIAL_SEQUENCE;
const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// The external route to 10.99.1.`last`, type 2.
fn external(last: u8) -> External {
    External {
        prefix: Ipv4Addr::new(10, 99, 1, last),
        kind: ExternalKind::Type2,
        metric: 1,
    }
}

/// As many as asked for.
fn externals(count: usize) -> Vec<External> {
    let prefix = |index: usize| Ipv4Addr::from_bits(0x0a64_0000 + u32::try_from(index).unwrap());
    (0..count)
        .map(|index| External {
            prefix: prefix(index),
            ..external(0)
        })
        .collect()
}

fn key(last: u8) -> LsaKey {
    LsaKey {
        ls_type: LsType::AsExternal,
        link_state_id: external(last).prefix,
        advertising_router: OUR_ID,
    }
}

/// A copy of our LSA for a route, from an earlier run or from nowhere.
fn copy(last: u8, sequence: i32) -> Lsa {
    let body = ExternalLsa {
        mask: Ipv4Addr::BROADCAST,
        kind: ExternalKind::Type2,
        metric: ExternalMetric::from(7),
        forwarding_address: Ipv4Addr::UNSPECIFIED,
        tag: 0,
    };
    Lsa::originate(key(last), Options::E, sequence, &body.encode()).unwrap()
}

impl Bench {
    fn announce_externals(&mut self, externals: &[External]) {
        self.router.announce(self.now, &[], externals).unwrap();
        self.drain();
    }

    /// The external LSAs of ours that were sent since the last take, once per interface.
    fn own_externals(&self) -> Vec<Lsa> {
        let mut own = self.own_instances();
        own.retain(|lsa| lsa.key().ls_type != LsType::Router);
        own
    }

    /// Takes the only external LSA of ours that was sent.
    fn the_external(&mut self) -> Lsa {
        let own = self.own_externals();
        assert_eq!(own.len(), 1, "{own:?}");
        self.take();
        own[0].clone()
    }
}

/// A router that announces route 1, is Full, and has been quiet for longer than the pace.
fn settled() -> (Bench, Peer) {
    let mut bench = Bench::point_to_point();
    let peer = Peer::new(0, 200);
    bench.announce_externals(&[external(1)]);
    bench.bring_up(&peer, &[]);
    bench.advance_with(&[&peer], PACE);
    bench.take();
    (bench, peer)
}

fn nssa(networks: &[NetworkType]) -> Config {
    Config {
        area: AreaId(Ipv4Addr::new(0, 0, 0, 1)),
        area_type: AreaType::Nssa,
        ..config(networks)
    }
}

fn nssa_peer(interface: usize, last: u8) -> Peer {
    Peer {
        options: Options::N,
        ..Peer::new(interface, last)
    }
}

fn forwarding_address(lsa: &Lsa) -> Ipv4Addr {
    ExternalLsa::decode(lsa.body()).unwrap().forwarding_address
}

#[test]
fn each_route_is_an_lsa_of_its_own_and_leaves_at_full() {
    let mut bench = Bench::point_to_point();
    let dear = External {
        kind: ExternalKind::Type1,
        metric: 300,
        ..external(2)
    };
    bench.announce_externals(&[external(1), dear]);
    bench.advance(HELLO * 3);
    let peer = Peer::new(0, 200);
    bench.exchange(&peer, &[]);
    let own = bench.own_instances();
    let keys: Vec<LsaKey> = own.iter().map(Lsa::key).collect();
    assert_eq!(keys[1..], [key(1), key(2)]);
    let lsa = &own[2];
    assert_eq!(lsa.header().sequence, SEQ);
    assert_eq!(lsa.header().options, Options::E);
    assert_eq!(
        ExternalLsa::decode(lsa.body()),
        Ok(ExternalLsa {
            mask: Ipv4Addr::BROADCAST,
            kind: ExternalKind::Type1,
            metric: ExternalMetric::from(300),
            forwarding_address: Ipv4Addr::UNSPECIFIED,
            tag: 0,
        })
    );
    assert_eq!(RouterLsa::decode(own[0].body()).unwrap().flags, 2, "E bit");
    let event = Event::Originated {
        key: key(1),
        sequence: SEQ,
    };
    assert!(bench.events.contains(&event));
}

#[test]
fn an_as_boundary_router_is_one_from_the_start_if_it_will_be_and_stays_one() {
    for is_asbr in [false, true] {
        let mut bench = Bench::new(Config {
            is_asbr,
            ..config(&[NetworkType::PointToPoint])
        });
        let peer = Peer::new(0, 200);
        let flags = |bench: &Bench| {
            let own = bench.own_instances();
            own.iter()
                .filter(|lsa| lsa.key().ls_type == LsType::Router)
                .map(|lsa| RouterLsa::decode(lsa.body()).unwrap().flags)
                .collect::<Vec<u8>>()
        };
        bench.bring_up(&peer, &[]);
        assert_eq!(flags(&bench), [if is_asbr { 2 } else { 0 }]);
        bench.advance_with(&[&peer], PACE);
        bench.take();
        bench.announce_externals(&[external(1)]);
        assert_eq!(flags(&bench), if is_asbr { vec![] } else { vec![2] });
        bench.ack_all(&peer);
        bench.advance_with(&[&peer], PACE);
        bench.take();
        bench.announce_externals(&[]);
        assert_eq!(flags(&bench), [0; 0], "once it is one, it stays one");
    }
}

#[test]
fn a_withdrawn_route_is_flushed_at_once_and_forgotten_when_acknowledged() {
    let (mut bench, peer) = settled();
    bench.announce_externals(&[]);
    let flush = bench.the_external();
    assert_eq!(
        (flush.header().age, flush.header().sequence),
        (MAX_AGE, SEQ)
    );
    assert!(bench.events.contains(&Event::Flushed { key: key(1) }));
    assert_eq!(bench.router.announced().externals, []);
    bench.ack(&peer, &flush);
    assert_eq!(bench.sequence_of(key(1)), None);
    assert_eq!(bench.router.counters().flushed, 1);
}

#[test]
fn each_route_has_its_own_pace() {
    let (mut bench, peer) = settled();
    let dear = External {
        metric: 2,
        ..external(1)
    };
    bench.announce_externals(&[dear]);
    assert_eq!(bench.the_external().key(), key(1));
    bench.advance_with(&[&peer], SECOND / 2);
    bench.take();
    bench.announce_externals(&[external(1), external(2)]);
    assert_eq!(bench.the_external().key(), key(2), "1 waits, 2 is new");
    bench.hello(&peer);
    bench.advance(PACE - SECOND / 2 - MILLISECOND);
    let first = |bench: &Bench| {
        let mut own = bench.own_externals();
        own.retain(|lsa| lsa.key() == key(1));
        own
    };
    assert_eq!(first(&bench), []);
    bench.advance(MILLISECOND);
    assert_eq!(first(&bench)[0].header().sequence, SEQ + 2);
}

#[test]
fn the_opposite_of_a_change_waits_and_gets_out_in_the_end() {
    // The peer may have acknowledged the flush or not, and may still hold it in either case.
    for acknowledged in [true, false] {
        let (mut bench, peer) = settled();
        bench.announce_externals(&[]);
        let flush = bench.the_external();
        if acknowledged {
            bench.ack(&peer, &flush);
        }
        bench.advance_with(&[&peer], Duration::from_millis(800));
        bench.take();
        bench.announce_externals(&[external(1)]);
        assert_eq!(bench.own_externals(), []);
        bench.hello(&peer);
        bench.advance(Duration::from_millis(249));
        assert_eq!(bench.own_externals(), []);
        bench.advance(MILLISECOND);
        let again = bench.the_external();
        assert_eq!(again.header().sequence, SEQ + 1, "above the flushed one");
        assert_eq!(again.header().age, 1);
        // And back: the last wanted state is what remains.
        bench.announce_externals(&[]);
        assert_eq!(bench.own_externals(), []);
        bench.advance_with(&[&peer], PACE);
        assert_eq!(bench.own_externals()[0].header().age, MAX_AGE);
    }
}

#[test]
fn a_withdrawal_that_is_taken_back_in_time_never_leaves() {
    let (mut bench, peer) = settled();
    let dear = External {
        metric: 2,
        ..external(1)
    };
    bench.announce_externals(&[dear]);
    bench.ack_all(&peer);
    bench.take();
    bench.announce_externals(&[]);
    bench.advance_with(&[&peer], SECOND / 2);
    bench.announce_externals(&[dear]);
    bench.advance_with(&[&peer], SECOND * 3);
    assert_eq!(bench.own_externals(), []);
    assert_eq!(bench.router.announced().externals.len(), 1);
}

#[test]
fn a_restart_goes_above_the_stale_copy_with_one_instance() {
    let mut bench = Bench::point_to_point();
    bench.announce_externals(&[external(1)]);
    let peer = Peer::new(0, 200);
    let stale = copy(1, SEQ + 41).at_age(100);
    bench.bring_up(&peer, &[stale]);
    assert_eq!(bench.the_external().header().sequence, SEQ + 42);
    bench.advance_with(&[&peer], SECOND * 3);
    assert_eq!(bench.own_externals(), []);
    // With the hint there is not even the question whether the copy is newer.
    let mut bench = Bench::new(Config {
        sequence_hint: Some(SEQ + 99),
        ..config(&[NetworkType::PointToPoint])
    });
    bench.announce_externals(&[external(1)]);
    bench.bring_up(&peer, &[copy(1, SEQ + 41).at_age(100)]);
    assert_eq!(bench.the_external().header().sequence, SEQ + 100);
    assert_eq!(bench.router.sequence(), Some(SEQ + 100));
}

#[test]
fn a_stale_copy_is_flushed_and_a_later_wish_goes_above_it_at_the_pace() {
    let (mut bench, peer) = settled();
    bench.update(&peer, &[copy(2, SEQ + 5)]);
    let flush = bench.the_external();
    assert_eq!(flush, copy(2, SEQ + 6).at_age(MAX_AGE));
    bench.ack(&peer, &flush);
    bench.advance_with(&[&peer], SECOND / 2);
    bench.take();
    bench.announce_externals(&[external(1), external(2)]);
    assert_eq!(
        bench.own_externals(),
        [],
        "the peer has the flush since 0.5 s"
    );
    bench.advance_with(&[&peer], PACE);
    assert_eq!(bench.the_external().header().sequence, SEQ + 7);
}

#[test]
fn a_late_acknowledgement_of_an_earlier_runs_flush_does_not_end_ours() {
    let (mut bench, peer) = settled();
    let stale = copy(2, SEQ + 5);
    bench.update(&peer, std::slice::from_ref(&stale));
    let flush = bench.the_external();
    assert_eq!(flush.header().age, MAX_AGE);
    // The run before had flushed the same, and the peer's delayed acknowledgement comes now,
    // although it dropped our flush within MinLSArrival.
    bench.ack(&peer, &stale.at_age(MAX_AGE));
    assert_eq!(
        bench.sequence_of(key(2)),
        Some(flush.header().sequence),
        "the flush is not acknowledged"
    );
    bench.ack(&peer, &flush);
    assert_eq!(bench.sequence_of(key(2)), None);
}

#[test]
fn an_instance_that_comes_back_after_its_flush_is_flushed_by_one_above_it() {
    let mut bench = Bench::point_to_point();
    let peer = Peer::new(0, 200);
    bench.bring_up(&peer, &[]);
    let announced = copy(1, SEQ + 4);
    bench.update(&peer, std::slice::from_ref(&announced));
    let first = copy(1, SEQ + 5).at_age(MAX_AGE);
    bench.ack(&peer, &first);
    assert_eq!(bench.sequence_of(key(1)), None, "it has left");
    // The peer gets it once more from one that did not hear of the flush.
    bench.advance_with(&[&peer], PACE);
    bench.take();
    bench.update(&peer, &[announced.at_age(12)]);
    let flushed = bench.flooded();
    assert_eq!(flushed.len(), 1);
    let header = flushed[0].header();
    assert_eq!((header.sequence, header.age), (SEQ + 6, MAX_AGE));
    assert!(flushed[0].checksum_is_valid());
    // A late acknowledgement of the first flush does not end the second.
    bench.ack(&peer, &first);
    assert_eq!(bench.sequence_of(key(1)), Some(SEQ + 6));
    bench.ack(&peer, &flushed[0]);
    assert_eq!(bench.sequence_of(key(1)), None);
}

#[test]
fn a_flush_by_another_router_is_outbid() {
    let (mut bench, peer) = settled();
    bench.update(&peer, &[bench.own_copy(key(1)).at_age(MAX_AGE)]);
    bench.advance_with(&[&peer], SECOND * 2);
    let answer = &bench.own_externals()[0];
    assert_eq!(
        (answer.header().age, answer.header().sequence),
        (1, SEQ + 1)
    );
}

#[test]
fn what_changed_while_nobody_was_full_is_not_described_to_the_next() {
    let (mut bench, peer) = settled();
    bench.announce_externals(&[external(1), external(2)]);
    bench.ack_all(&peer);
    bench.advance_with(&[&peer], PACE);
    let (first, second) = (bench.own_copy(key(1)), bench.own_copy(key(2)));
    bench
        .router
        .handle_neighbor_lost(bench.now, InterfaceId(0), peer.address);
    bench.announce_externals(&[external(2)]);
    bench.advance(SECOND * 5);
    bench.take();
    bench.exchange(&peer, &[first.at_age(20), second.at_age(20)]);
    let described: Vec<LsaKey> = bench
        .dbdescs()
        .iter()
        .flat_map(|dbdesc| dbdesc.headers.clone())
        .map(|header| header.key)
        .collect();
    assert!(described.contains(&key(2)), "{described:?}");
    assert!(!described.contains(&key(1)), "withdrawn: {described:?}");
    bench.update(&peer, &[first.at_age(20)]);
    assert_eq!(bench.state(&peer), Some(State::Full));
    let flushed: Vec<_> = bench
        .own_externals()
        .iter()
        .map(|lsa| *lsa.header())
        .collect();
    assert_eq!(flushed.len(), 1, "{flushed:?}");
    assert_eq!(flushed[0].sequence, first.header().sequence + 1);
    assert_eq!(flushed[0].age, MAX_AGE);
}

#[test]
fn what_is_withdrawn_while_the_only_neighbor_is_loading_is_flushed_when_it_is_full() {
    let (mut bench, peer) = settled();
    // The adjacency starts over; the peer keeps what it has and is described it once more.
    let theirs = lsa_of(LsType::AsExternal, 9, 200, SEQ);
    let wrong = peer.dbdesc(flags(false, false, false), 12345, &[]);
    bench.receive(&peer, Body::DbDesc(wrong));
    bench.exchange(&peer, std::slice::from_ref(&theirs));
    assert_eq!(bench.state(&peer), Some(State::Loading));
    bench.announce_externals(&[]);
    bench.take();
    bench.update(&peer, &[theirs]);
    assert_eq!(bench.state(&peer), Some(State::Full));
    bench.advance_with(&[&peer], PACE);
    let flushed = bench.own_externals();
    assert!(!flushed.is_empty(), "the peer keeps the route for an hour");
    assert!(
        flushed.iter().all(|lsa| lsa.header().age == MAX_AGE),
        "{flushed:?}"
    );
}

#[test]
fn a_neighbor_in_exchange_while_a_change_waits_gets_the_present_state_in_either_case() {
    for called_off in [true, false] {
        let mut bench = Bench::new(config(&[NetworkType::PointToPoint; 2]));
        let (first, second) = (Peer::new(0, 200), Peer::new(1, 201));
        bench.announce_externals(&[external(1)]);
        bench.bring_up(&first, &[]);
        bench.announce_externals(&[]);
        bench.take();
        bench.exchange(&second, &[]);
        assert_eq!(bench.state(&second), Some(State::Full));
        if called_off {
            bench.announce_externals(&[external(1)]);
        }
        bench.advance_with(&[&first, &second], PACE);
        let to_second: Vec<Lsa> = bench
            .sent
            .iter()
            .filter(|sent| sent.interface == second.interface)
            .filter_map(|sent| match &sent.body {
                Body::Update(lsas) => Some(lsas.clone()),
                Body::Hello(_) | Body::DbDesc(_) | Body::Request(_) | Body::Ack(_) => None,
            })
            .flatten()
            .filter(|lsa| lsa.key() == key(1))
            .collect();
        let is_flush = to_second.last().map(|lsa| lsa.header().age == MAX_AGE);
        assert_eq!(is_flush, Some(!called_off), "{to_second:?}");
    }
}

#[test]
fn an_answer_to_a_request_counts_for_the_pace() {
    let mut bench = Bench::new(config(&[NetworkType::PointToPoint; 2]));
    let (first, second) = (Peer::new(0, 200), Peer::new(1, 201));
    bench.announce_externals(&[external(1)]);
    bench.bring_up(&first, &[]);
    bench.advance_with(&[&first], PACE);
    bench.exchange(&second, &[]);
    bench.receive(&second, Body::Request(vec![key(1)]));
    bench.take();
    bench.announce_externals(&[]);
    assert_eq!(bench.own_externals(), [], "the second would drop it");
    bench.advance_with(&[&first, &second], PACE);
    assert_eq!(bench.own_externals()[0].header().age, MAX_AGE);
}

#[test]
fn each_route_is_refreshed_within_half_an_hour_and_not_all_at_once() {
    let (mut bench, peer) = settled();
    bench.announce_externals(&externals(20));
    bench.ack_all(&peer);
    bench.take();
    let start = bench.now;
    let mut refreshed = Vec::new();
    while bench.now - start < SECOND * 1800 {
        bench.advance_with(&[&peer], SECOND);
        bench.ack_all(&peer);
        let own = bench.own_externals();
        refreshed.extend(own.iter().map(|lsa| (bench.now - start, lsa.key())));
        bench.take();
    }
    refreshed.sort_by_key(|&(_, key)| key);
    refreshed.dedup_by_key(|&mut (_, key)| key);
    assert_eq!(refreshed.len(), 20, "each once");
    let times: Vec<u64> = refreshed.iter().map(|(at, _)| at.as_secs()).collect();
    let (first, last) = (*times.iter().min().unwrap(), *times.iter().max().unwrap());
    assert!(first >= 1600 && last - first > 60, "{times:?}");
}

#[test]
fn the_sequence_numbers_of_one_route_start_over_without_the_others() {
    let (mut bench, peer) = settled();
    bench.update(&peer, &[copy(1, MAX_SEQUENCE).at_age(9)]);
    let flush = bench.the_external();
    assert_eq!(flush.header().sequence, MAX_SEQUENCE);
    assert_eq!(flush.header().age, MAX_AGE);
    bench.announce_externals(&[external(1), external(2)]);
    assert_eq!(bench.the_external().key(), key(2));
    bench.ack(&peer, &flush);
    bench.advance_with(&[&peer], PACE);
    assert_eq!(bench.sequence_of(key(1)), Some(SEQ));
}

#[test]
fn an_nssa_has_type_7_that_names_an_address_of_ours() {
    let mut bench = Bench::new(nssa(&[NetworkType::PointToPoint; 2]));
    let (first, second) = (nssa_peer(0, 200), nssa_peer(1, 201));
    bench.announce_externals(&[external(1)]);
    bench.bring_up(&second, &[]);
    let lsa = bench.the_external();
    assert_eq!(lsa.key().ls_type, LsType::Nssa);
    assert_eq!(lsa.header().options, Options::N, "the P-bit, and not E");
    assert_eq!(
        forwarding_address(&lsa),
        link(1).address,
        "where the peer is"
    );
    bench.bring_up(&first, &[]);
    bench.advance_with(&[&first, &second], PACE);
    assert_eq!(bench.own_externals(), [], "one more uplink changes nothing");
    bench
        .router
        .handle_neighbor_lost(bench.now, InterfaceId(1), second.address);
    bench.drain();
    let moved = bench.the_external();
    assert_eq!(forwarding_address(&moved), link(0).address);
    assert_eq!(moved.header().sequence, SEQ + 1);
}

#[test]
fn an_unnumbered_forwarding_address_is_reachable_by_a_stub_of_its_own() {
    let mut bench = Bench::new(nssa(&[NetworkType::PointToPoint]));
    let unnumbered = crate::LinkState {
        prefix_len: 32,
        ..link(0)
    };
    bench
        .router
        .handle_interface(bench.now, InterfaceId(0), Some(unnumbered));
    bench.announce_externals(&[external(1)]);
    bench.bring_up(&nssa_peer(0, 200), &[]);
    let own = bench.own_instances();
    let stub = links(&own[0])[1];
    assert_eq!((stub.kind, stub.id), (LinkKind::Stub, link(0).address));
    assert_eq!(stub.data, Ipv4Addr::BROADCAST);
    assert_eq!(forwarding_address(&own[1]), link(0).address);
}

#[test]
fn an_nssa_without_an_interface_has_no_type_7() {
    let mut bench = Bench::new(nssa(&[NetworkType::PointToPoint; 2]));
    let (first, second) = (nssa_peer(0, 200), nssa_peer(1, 201));
    bench.announce_externals(&[external(1)]);
    bench.bring_up(&first, &[]);
    bench.bring_up(&second, &[]);
    bench.advance_with(&[&first, &second], PACE);
    bench.take();
    // The address in use goes with its interface; the other one takes over.
    bench
        .router
        .handle_interface(bench.now, InterfaceId(0), None);
    bench.drain();
    assert_eq!(forwarding_address(&bench.the_external()), link(1).address);
}

#[test]
fn what_cannot_be_announced_is_refused_and_the_set_stays() {
    let (mut bench, _) = settled();
    let many = externals(MAX_EXTERNALS + 1);
    assert_eq!(
        bench.router.announce(bench.now, &[], &many),
        Err(AnnounceError::TooManyExternals(MAX_EXTERNALS + 1))
    );
    assert_eq!(bench.router.announced().externals.len(), 1);
    let stub = Config {
        area: AreaId(Ipv4Addr::new(0, 0, 0, 1)),
        area_type: AreaType::Stub,
        ..config(&[NetworkType::PointToPoint])
    };
    let mut bench = Bench::new(stub);
    assert_eq!(
        bench.router.announce(bench.now, &[vip(1)], &[external(1)]),
        Err(AnnounceError::ExternalInStubArea(external(1).prefix))
    );
}

#[test]
fn a_route_that_is_wanted_twice_has_type_1_and_the_lower_metric() {
    let (mut bench, _) = settled();
    let near = External {
        kind: ExternalKind::Type1,
        metric: 5,
        ..external(2)
    };
    let far = External { metric: 9, ..near };
    bench.announce_externals(&[external(2), far, near]);
    let announced = bench.router.announced().externals;
    assert_eq!(announced.len(), 1);
    assert_eq!(announced[0].external, near);
}

#[test]
fn thousands_leave_in_bursts_of_full_packets_and_are_all_acknowledged() {
    let (mut bench, peer) = settled();
    bench.announce_externals(&externals(MAX_EXTERNALS));
    let at_once = bench.own_externals().len();
    assert!(at_once <= 500, "{at_once} at once");
    let start = bench.now;
    let mut sent = 0;
    let mut updates = 0;
    while sent < MAX_EXTERNALS + 1 && bench.now - start < SECOND {
        sent += bench.own_externals().len();
        updates += bench.sent.len();
        bench.ack_all(&peer);
        bench.take();
        bench.advance(Duration::from_millis(10));
    }
    assert_eq!(sent, MAX_EXTERNALS + 1, "and the flush of the one before");
    assert!(updates < 300, "{updates} packets");
    let announced = bench.router.announced().externals;
    assert_eq!(announced.len(), MAX_EXTERNALS);
    assert!(announced.iter().all(|route| route.acknowledged));
}

#[test]
fn the_announcers_of_a_host_are_seen_by_whatever_lsa() {
    let (mut bench, peer) = settled();
    let other = RouterId(Ipv4Addr::new(10, 0, 0, 9));
    let theirs = |metric: ExternalMetric| {
        let key = LsaKey {
            advertising_router: other,
            ..key(1)
        };
        let body = ExternalLsa {
            metric,
            ..ExternalLsa::decode(copy(1, SEQ).body()).unwrap()
        };
        let sequence = SEQ + i32::from(metric == ExternalMetric::INFINITY);
        Lsa::originate(key, Options::E, sequence, &body.encode()).unwrap()
    };
    bench.update(&peer, &[theirs(ExternalMetric::from(7))]);
    let announcers = bench.router.announcers(external(1).prefix);
    assert_eq!(announcers, [other, OUR_ID]);
    bench.advance_with(&[&peer], PACE);
    bench.update(&peer, &[theirs(ExternalMetric::INFINITY)]);
    assert_eq!(bench.router.announcers(external(1).prefix), [OUR_ID]);
}

#[test]
fn a_planned_stop_flushes_the_routes_before_the_router_lsa() {
    let (mut bench, peer) = settled();
    bench.router.shutdown(bench.now);
    bench.drain();
    let flush = bench.own_instances();
    assert_eq!(flush.len(), 1, "{flush:?}");
    assert_eq!((flush[0].key(), flush[0].header().age), (key(1), MAX_AGE));
    bench.take();
    bench.hello(&peer);
    bench.advance(SECOND / 2);
    bench.ack(&peer, &flush[0]);
    bench.advance(SECOND);
    let router_lsa = bench.own_instances();
    assert_eq!(router_lsa[0].key().ls_type, LsType::Router);
    assert_eq!(router_lsa[0].header().age, MAX_AGE);
    bench.ack(&peer, &router_lsa[0]);
    assert!(bench.router.is_stopped());
}

#[test]
fn a_planned_stop_right_after_an_announcement_waits_for_its_flush() {
    let (mut bench, peer) = settled();
    bench.announce_externals(&[external(2)]);
    bench.ack_all(&peer);
    bench.take();
    bench.router.shutdown(bench.now);
    bench.drain();
    assert_eq!(bench.own_instances(), [], "the pace");
    bench.hello(&peer);
    bench.advance(PACE);
    let flush = bench.own_instances();
    assert_eq!(flush.len(), 1);
    assert_eq!((flush[0].key(), flush[0].header().age), (key(2), MAX_AGE));
    assert!(!bench.router.is_stopped());
}

#[test]
fn crashes_and_changes_end_with_what_is_wanted_everywhere() {
    let mut net = Net::new(3, &[(0, 1), (1, 2), (2, 0)], 1);
    net.announce_externals(0, &externals(30));
    net.run(SECOND * 5);
    net.crash(0, 2);
    net.announce_externals(0, &externals(10));
    net.run(SECOND * 10);
    assert!(net.all_full() && net.is_converged());
    let routes = |net: &Net| {
        let database = net.database(1);
        database.iter().filter(|lsa| lsa.ls_type == 5).count()
    };
    assert_eq!(routes(&net), 10, "what the earlier run announced is gone");
    net.announce_externals(0, &externals(20));
    net.announce_externals(0, &externals(5));
    net.run(SECOND * 10);
    assert!(net.is_converged());
    assert_eq!(routes(&net), 5);
    net.routers[0].shutdown(net.now);
    net.run(SECOND * 10);
    assert!(net.routers[0].is_stopped());
    assert_eq!(routes(&net), 0);
}
