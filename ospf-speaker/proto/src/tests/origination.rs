//! What our Router-LSA says, and when instances of it leave.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::bench::*;
use super::net::Net;
use crate::packet::{
    Body, INITIAL_SEQUENCE, LinkKind, LsType, Lsa, LsaKey, MAX_AGE, MAX_SEQUENCE, Options,
    RouterLink,
};
use crate::{AnnounceError, Config, Event, InterfaceId, MAX_STUBS, NetworkType, State, Stub};

const SEQ: i32 = INITIAL_SEQUENCE;
const SECOND: Duration = Duration::from_secs(1);

fn link_to(kind: LinkKind, id: [u8; 4], data: [u8; 4], metric: u16) -> RouterLink {
    RouterLink {
        kind,
        id: id.into(),
        data: data.into(),
        metric,
    }
}

fn stub_link(last: u8) -> RouterLink {
    link_to(LinkKind::Stub, [10, 99, 0, last], [255; 4], 1)
}

fn subnet_link(third: u8) -> RouterLink {
    link_to(LinkKind::Stub, [10, 1, third, 0], [255, 255, 255, 0], 10)
}

/// A router that is Full with one switch and has been quiet for longer than the pace.
fn settled() -> (Bench, Peer) {
    let mut bench = Bench::point_to_point();
    let peer = Peer::new(0, 200);
    bench.bring_up(&peer, &[]);
    bench.advance_with(&[&peer], PACE);
    bench.take();
    (bench, peer)
}

#[test]
fn one_instance_leaves_at_full_with_everything_in_it() {
    let mut bench = Bench::point_to_point();
    bench.announce(&[vip(2), vip(1)]);
    bench.advance(HELLO * 3);
    let peer = Peer::new(0, 200);
    bench.exchange(&peer, &[lsa_of(LsType::AsExternal, 1, 9, SEQ)]);
    assert_eq!(bench.own_instances(), [], "nobody is Full");
    bench.update(&peer, &[lsa_of(LsType::AsExternal, 1, 9, SEQ)]);
    bench.advance_with(&[&peer], SECOND / 2);
    let own = bench.own_instances();
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].header().sequence, SEQ);
    assert_eq!(
        links(&own[0]),
        [
            link_to(
                LinkKind::PointToPoint,
                [10, 0, 0, 200],
                [10, 1, 0, 100],
                0xffff
            ),
            subnet_link(0),
            stub_link(1),
            stub_link(2),
        ]
    );
    assert!(bench.events.contains(&Event::Originated {
        key: own[0].key(),
        sequence: SEQ,
    }));
}

#[test]
fn on_a_segment_the_transit_link_stands_for_the_subnet() {
    let mut bench = Bench::broadcast();
    bench.announce(&[vip(1)]);
    let dr = Peer::dr(0, 200);
    bench.exchange(&dr, &[network_lsa(&dr, SEQ)]);
    bench.update(&dr, &[network_lsa(&dr, SEQ)]);
    assert_eq!(
        links(&bench.own_instances()[0]),
        [
            link_to(LinkKind::Transit, [10, 1, 0, 200], [10, 1, 0, 100], 0xffff),
            stub_link(1),
        ]
    );
}

#[test]
fn a_subnet_without_a_dr_is_a_stub() {
    let mut bench = Bench::new(config(&[NetworkType::PointToPoint, NetworkType::Broadcast]));
    bench.bring_up(&Peer::new(0, 200), &[]);
    assert_eq!(links(&bench.own_instances()[0])[2], subnet_link(1));
}

#[test]
fn an_unnumbered_link_is_known_by_its_index_and_has_no_subnet() {
    let mut bench = Bench::point_to_point();
    let unnumbered = crate::LinkState {
        prefix_len: 32,
        ..link(0)
    };
    bench
        .router
        .handle_interface(bench.now, InterfaceId(0), Some(unnumbered));
    bench.bring_up(&Peer::new(0, 200), &[]);
    assert_eq!(
        links(&bench.own_instances()[0]),
        [link_to(
            LinkKind::PointToPoint,
            [10, 0, 0, 200],
            [0, 0, 0, 7],
            0xffff
        )]
    );
}

#[test]
fn a_slash_31_has_its_subnet() {
    let mut bench = Bench::point_to_point();
    let narrow = crate::LinkState {
        prefix_len: 31,
        address: Ipv4Addr::new(10, 1, 0, 101),
        ..link(0)
    };
    bench
        .router
        .handle_interface(bench.now, InterfaceId(0), Some(narrow));
    bench.bring_up(&Peer::new(0, 200), &[]);
    assert_eq!(
        links(&bench.own_instances()[0])[1],
        link_to(LinkKind::Stub, [10, 1, 0, 100], [255, 255, 255, 254], 10)
    );
}

#[test]
fn the_first_change_leaves_at_once_and_later_ones_together() {
    let (mut bench, peer) = settled();
    let start = bench.now;
    bench.announce(&[vip(1)]);
    assert_eq!(stubs(&bench.own_instances()[0]), [1], "at once");
    bench.ack_all(&peer);
    bench.take();
    for last in 2..=5 {
        bench.announce(&[vip(last)]);
        bench.advance(Duration::from_millis(100));
    }
    assert_eq!(bench.own_instances(), []);
    bench.hello(&peer);
    bench.advance(SECOND);
    let second: Vec<_> = bench
        .sent
        .iter()
        .filter(|sent| matches!(sent.body, Body::Update(_)))
        .map(|sent| sent.at - start)
        .collect();
    assert_eq!(second, [PACE], "on the trailing edge");
    assert_eq!(stubs(&bench.own_instances()[0]), [5], "the last state");
}

#[test]
fn a_change_that_is_taken_back_in_time_never_leaves() {
    let (mut bench, peer) = settled();
    bench.announce(&[vip(1)]);
    bench.ack_all(&peer);
    bench.take();
    bench.announce(&[]);
    bench.announce(&[vip(1)]);
    bench.advance_with(&[&peer], SECOND * 3);
    assert_eq!(bench.own_instances(), []);
}

#[test]
fn announcing_the_same_set_in_another_order_changes_nothing() {
    let (mut bench, peer) = settled();
    bench.announce(&[vip(1), vip(2)]);
    bench.ack_all(&peer);
    bench.take();
    bench.announce(&[vip(2), vip(1), vip(2)]);
    bench.advance_with(&[&peer], SECOND * 3);
    assert_eq!(bench.own_instances(), []);
}

#[test]
fn a_host_that_is_wanted_twice_has_the_lower_metric() {
    let (mut bench, _) = settled();
    let dear = Stub {
        metric: 9,
        ..vip(1)
    };
    bench.announce(&[dear, vip(1)]);
    assert_eq!(bench.router.announced().stubs, [vip(1)]);
}

#[test]
fn the_pace_is_the_slowest_neighbors() {
    let mut settings = config(&[NetworkType::PointToPoint; 2]);
    settings.interfaces[1].peer_min_arrival = Duration::from_secs(3);
    let mut bench = Bench::new(settings);
    let peer = Peer::new(0, 200);
    bench.bring_up(&peer, &[]);
    bench.take();
    bench.announce(&[vip(1)]);
    bench.advance_with(&[&peer], Duration::from_millis(3049));
    assert_eq!(bench.own_instances(), []);
    bench.advance(Duration::from_millis(1));
    assert_eq!(bench.own_instances().len(), 1);
}

#[test]
fn an_instance_about_to_be_superseded_is_not_sent_again() {
    let (mut bench, peer) = settled();
    bench.announce(&[vip(1)]);
    bench.announce(&[vip(2)]);
    bench.take();
    // RxmtInterval ends before the pace does; the neighbour had nothing of the first.
    bench.hello(&peer);
    bench.advance(RXMT + Duration::from_millis(49));
    assert_eq!(bench.own_instances(), []);
    bench.advance(Duration::from_millis(1));
    assert_eq!(stubs(&bench.own_instances()[0]), [2]);
    bench.take();
    bench.hello(&peer);
    bench.advance(RXMT);
    assert_eq!(bench.own_instances().len(), 1, "this one is");
}

#[test]
fn more_stubs_than_fit_are_refused_and_the_set_stays() {
    let (mut bench, _) = settled();
    bench.announce(&[vip(1)]);
    let host = |index: usize| Stub {
        prefix: Ipv4Addr::from_bits(0x0a63_0000 + u32::try_from(index).unwrap()),
        metric: 1,
    };
    let too_many: Vec<Stub> = (0..=MAX_STUBS).map(host).collect();
    let refused = bench.router.announce(bench.now, &too_many, &[]);
    assert_eq!(refused, Err(AnnounceError::TooManyStubs(MAX_STUBS + 1)));
    assert_eq!(bench.router.announced().stubs, [vip(1)]);
    bench.advance(PACE);
    bench.take();
    bench.announce(&too_many[..MAX_STUBS]);
    assert_eq!(links(&bench.own_instances()[0]).len(), MAX_STUBS + 2);
}

#[test]
fn a_restart_goes_above_the_stale_copy_with_one_instance() {
    for age in [3, 100] {
        let mut bench = Bench::point_to_point();
        bench.announce(&[vip(1)]);
        let peer = Peer::new(0, 200);
        let stale = router_lsa(OUR_ID, SEQ + 41, &[stub_link(9)]).at_age(age);
        bench.exchange(&peer, std::slice::from_ref(&stale));
        assert_eq!(bench.requested(), [stale.key()]);
        bench.update(&peer, std::slice::from_ref(&stale));
        assert_eq!(bench.state(&peer), Some(State::Full));
        let own = bench.own_instances();
        assert_eq!(own.len(), 1, "at once");
        assert_eq!(own[0].header().sequence, SEQ + 42);
        assert_eq!(stubs(&own[0]), [1]);
        bench.ack_all(&peer);
        bench.take();
        bench.advance_with(&[&peer], SECOND * 5);
        assert_eq!(bench.own_instances(), [], "and once");
    }
}

#[test]
fn a_restart_right_after_a_change_waits_for_min_arrival() {
    // The age says that the neighbour got the copy now, or that nobody knows when.
    for age in [0, 1, MAX_AGE] {
        let mut bench = Bench::point_to_point();
        bench.announce(&[vip(1)]);
        let peer = Peer::new(0, 200);
        let stale = router_lsa(OUR_ID, SEQ, &[]).at_age(age);
        bench.bring_up(&peer, &[stale]);
        bench.advance_with(&[&peer], PACE - Duration::from_millis(1));
        assert_eq!(bench.own_instances(), [], "age {age}");
        bench.advance(Duration::from_millis(1));
        assert_eq!(bench.own_instances().len(), 1, "age {age}");
    }
}

#[test]
fn the_stale_copy_is_not_flooded_on() {
    let mut bench = Bench::new(config(&[NetworkType::PointToPoint; 2]));
    let (first, second) = (Peer::new(0, 200), Peer::new(1, 201));
    bench.bring_up(&first, &[]);
    bench.exchange(&second, &[router_lsa(OUR_ID, SEQ + 7, &[])]);
    bench.take();
    bench.update(&second, &[router_lsa(OUR_ID, SEQ + 7, &[])]);
    bench.advance_with(&[&first, &second], SECOND * 3);
    let own = bench.own_instances();
    assert!(
        own.iter().all(|lsa| lsa.header().sequence == SEQ + 8),
        "only the answer leaves: {own:?}"
    );
    assert!(!own.is_empty());
}

#[test]
fn the_hint_of_an_earlier_run_spares_the_answer() {
    let mut bench = Bench::new(Config {
        sequence_hint: Some(SEQ + 99),
        ..config(&[NetworkType::PointToPoint])
    });
    bench.bring_up(&Peer::new(0, 200), &[]);
    assert_eq!(bench.own_instances()[0].header().sequence, SEQ + 100);
    assert_eq!(bench.router.sequence(), Some(SEQ + 100));
}

#[test]
fn two_uplinks_that_come_up_together_share_the_first_instance() {
    let mut bench = Bench::new(config(&[NetworkType::PointToPoint; 2]));
    bench.announce(&[vip(1)]);
    let (first, second) = (Peer::new(0, 200), Peer::new(1, 201));
    let external = lsa_of(LsType::AsExternal, 1, 9, SEQ);
    bench.exchange(&second, std::slice::from_ref(&external));
    assert_eq!(bench.state(&second), Some(State::Loading));
    bench.bring_up(&first, &[]);
    assert_eq!(bench.own_instances(), [], "the second is under way");
    bench.advance(Duration::from_millis(20));
    bench.update(&second, &[external]);
    let own = bench.own_instances();
    assert_eq!(own.len(), 2, "one to each");
    assert_eq!(own[0], own[1]);
    assert_eq!(links(&own[0]).len(), 5, "two links, two subnets, one stub");
}

#[test]
fn the_first_instance_does_not_wait_long_for_a_second_uplink() {
    let mut bench = Bench::new(config(&[NetworkType::PointToPoint; 2]));
    let (first, second) = (Peer::new(0, 200), Peer::new(1, 201));
    bench.exchange(&second, &[lsa_of(LsType::AsExternal, 1, 9, SEQ)]);
    bench.bring_up(&first, &[]);
    bench.advance(Duration::from_millis(199));
    assert_eq!(bench.own_instances(), []);
    bench.advance(Duration::from_millis(1));
    assert!(!bench.own_instances().is_empty());
}

#[test]
fn losing_an_uplink_leaves_at_once() {
    let mut bench = Bench::new(config(&[NetworkType::PointToPoint; 2]));
    let (first, second) = (Peer::new(0, 200), Peer::new(1, 201));
    bench.bring_up(&first, &[]);
    bench.bring_up(&second, &[]);
    bench.advance_with(&[&first, &second], PACE * 2);
    bench.take();
    bench
        .router
        .handle_neighbor_lost(bench.now, InterfaceId(0), first.address);
    bench.drain();
    let own = bench.own_instances();
    assert_eq!(own.len(), 1);
    let kinds: Vec<LinkKind> = links(&own[0]).iter().map(|link| link.kind).collect();
    assert_eq!(
        kinds,
        [LinkKind::Stub, LinkKind::PointToPoint, LinkKind::Stub]
    );
}

#[test]
fn losing_the_only_neighbor_tells_nobody_and_its_return_gets_the_present_state() {
    let (mut bench, peer) = settled();
    bench.announce(&[vip(1)]);
    bench.advance_with(&[&peer], PACE);
    bench
        .router
        .handle_neighbor_lost(bench.now, InterfaceId(0), peer.address);
    bench.announce(&[vip(2)]);
    bench.advance(SECOND * 10);
    bench.take();
    bench.bring_up(&peer, &[]);
    let own = bench.own_instances();
    assert_eq!(own.len(), 1, "no instance without the link before it");
    assert_eq!(stubs(&own[0]), [2]);
}

#[test]
fn an_adjacency_that_starts_over_without_a_change_gets_the_same_instance() {
    let (mut bench, peer) = settled();
    bench.announce(&[vip(1)]);
    bench.advance_with(&[&peer], PACE);
    let before = bench.own_instances().pop().unwrap();
    bench.receive(&peer, Body::Hello(peer.hello(&[])));
    bench.take();
    bench.exchange(&peer, &[]);
    let own = bench.own_instances();
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].header().sequence, before.header().sequence);
    assert!(!bench.router.announced().acknowledged, "before it answers");
    bench.ack_all(&peer);
    assert!(bench.router.announced().acknowledged);
}

#[test]
fn our_copies_that_contend_are_outbid_and_then_slowly() {
    let (mut bench, peer) = settled();
    bench.announce(&[vip(1)]);
    let mut answers = Vec::new();
    for _ in 0..5 {
        bench.advance_with(&[&peer], PACE);
        bench.take();
        let sequence = bench.router.sequence().unwrap() + 1;
        bench.update(&peer, &[router_lsa(OUR_ID, sequence, &[]).at_age(9)]);
        let start = bench.now;
        while bench.own_instances().is_empty() && bench.now - start < SECOND * 6 {
            bench.hello(&peer);
            bench.advance(Duration::from_millis(50));
        }
        answers.push(bench.now - start);
        assert_eq!(bench.router.sequence(), Some(sequence + 1));
        assert_eq!(bench.router.announced().stubs, [vip(1)]);
        bench.ack_all(&peer);
    }
    assert_eq!(answers[0], Duration::ZERO, "{answers:?}");
    assert!(
        answers[4] >= SECOND,
        "contention is paced by MinLSInterval: {answers:?}"
    );
    assert_eq!(bench.router.counters().self_originated_received, 5);
}

#[test]
fn our_lsas_that_we_would_not_originate_are_flushed() {
    let (mut bench, peer) = settled();
    let key = LsaKey {
        ls_type: LsType::AsExternal,
        link_state_id: Ipv4Addr::new(10, 9, 9, 9),
        advertising_router: OUR_ID,
    };
    let external = Lsa::originate(key, Options::E, SEQ + 3, &[1; 16]).unwrap();
    // A route goes by an instance above it, anything else as it was received.
    let route_flush = Lsa::originate(key, Options::E, SEQ + 4, &[1; 16]).unwrap();
    let network = LsaKey {
        ls_type: LsType::Network,
        link_state_id: link(0).address,
        advertising_router: crate::RouterId(Ipv4Addr::new(10, 0, 0, 99)),
    };
    let network = Lsa::originate(network, Options::E, SEQ + 4, &[1; 8]).unwrap();
    let flushes = [(external, route_flush), (network.clone(), network)];
    for (lsa, flush) in flushes.map(|(lsa, flush)| (lsa, flush.at_age(MAX_AGE))) {
        bench.take();
        bench.update(&peer, std::slice::from_ref(&lsa));
        assert_eq!(bench.flooded(), std::slice::from_ref(&flush));
        bench.ack(&peer, &flush);
        assert_eq!(bench.sequence_of(lsa.key()), None);
        // Our flush comes back: that is the end of it.
        bench.take();
        bench.advance_with(&[&peer], SECOND * 2);
        bench.update(&peer, std::slice::from_ref(&flush));
        assert_eq!(bench.flooded(), []);
    }
}

#[test]
fn a_flush_of_our_router_lsa_by_another_router_is_outbid() {
    let (mut bench, peer) = settled();
    bench.announce(&[vip(1)]);
    bench.advance_with(&[&peer], PACE);
    let own = bench.own_instances().pop().unwrap();
    bench.ack_all(&peer);
    bench.take();
    bench.update(&peer, &[own.at_age(MAX_AGE)]);
    bench.advance_with(&[&peer], SECOND * 2);
    let answer = bench.own_instances();
    assert_eq!(answer[0].header().sequence, own.header().sequence + 1);
    assert_eq!(stubs(&answer[0]), [1]);
}

#[test]
fn the_router_lsa_is_refreshed_within_half_an_hour() {
    let (mut bench, peer) = settled();
    let before = bench.router.sequence().unwrap();
    let start = bench.now;
    while bench.router.sequence() == Some(before) && bench.now - start < SECOND * 2000 {
        bench.advance_with(&[&peer], SECOND);
    }
    let elapsed = bench.now - start;
    assert!(
        elapsed > SECOND * 1600 && elapsed <= SECOND * 1800,
        "after {elapsed:?}"
    );
    assert_eq!(bench.router.sequence(), Some(before + 1));
}

#[test]
fn sequence_numbers_start_over_after_the_last_one_is_flushed() {
    let mut bench = Bench::new(Config {
        sequence_hint: Some(MAX_SEQUENCE - 1),
        ..config(&[NetworkType::PointToPoint])
    });
    let peer = Peer::new(0, 200);
    bench.bring_up(&peer, &[]);
    assert_eq!(bench.router.sequence(), Some(MAX_SEQUENCE));
    bench.advance_with(&[&peer], PACE);
    bench.take();
    bench.announce(&[vip(1)]);
    let flush = bench.own_instances();
    assert_eq!(flush.len(), 1);
    assert_eq!(flush[0].header().sequence, MAX_SEQUENCE);
    assert_eq!(flush[0].header().age, MAX_AGE);
    bench.take();
    bench.ack(&peer, &flush[0]);
    bench.advance_with(&[&peer], PACE);
    let own = bench.own_instances();
    assert_eq!(own[0].header().sequence, SEQ);
    assert_eq!(stubs(&own[0]), [1]);
}

#[test]
fn the_views_say_what_the_database_carries_and_the_neighbors_have() {
    let (mut bench, peer) = settled();
    assert!(bench.router.announced().acknowledged);
    bench.announce(&[vip(1)]);
    let announced = bench.router.announced();
    assert_eq!(announced.stubs, [vip(1)]);
    assert!(!announced.acknowledged);
    bench.ack_all(&peer);
    assert!(bench.router.announced().acknowledged);

    let other = crate::RouterId(Ipv4Addr::new(10, 0, 0, 9));
    bench.update(&peer, &[router_lsa(other, SEQ, &[stub_link(1)])]);
    assert_eq!(bench.router.announcers(vip(1).prefix), [other, OUR_ID]);
    bench.advance_with(&[&peer], SECOND);
    let flush = router_lsa(other, SEQ, &[stub_link(1)]).at_age(MAX_AGE);
    bench.update(&peer, &[flush]);
    assert_eq!(bench.router.announcers(vip(1).prefix), [OUR_ID]);
}

#[test]
fn a_crash_and_restart_has_one_instance_more_and_the_state_of_now() {
    let mut net = Net::new(2, &[(0, 1)], 1);
    net.announce(0, &[vip(1)]);
    net.run(Duration::from_secs(10));
    let before = net.originations(0);
    net.trace.clear();
    net.crash(0, 2);
    net.announce(0, &[vip(1)]);
    net.run(Duration::from_secs(10));
    assert!(net.all_full() && net.is_converged());
    let after = net.originations(0);
    assert_eq!(after.len(), 1, "{after:?}");
    assert_eq!(after[0].1, before.last().unwrap().1 + 1);
    assert_eq!(net.routers[1].announcers(vip(1).prefix).len(), 1);
}

/// A router that is Full over its first interface; its second is down and has been for a while.
fn one_of_two() -> (Bench, Peer, Peer) {
    let mut bench = Bench::new(config(&[NetworkType::PointToPoint; 2]));
    bench
        .router
        .handle_interface(bench.now, InterfaceId(1), None);
    let (first, second) = (Peer::new(0, 200), Peer::new(1, 201));
    bench.bring_up(&first, &[]);
    bench.advance_with(&[&first], PACE);
    bench.take();
    (bench, first, second)
}

#[test]
fn an_interface_that_comes_up_is_described_with_its_neighbor() {
    let (mut bench, first, second) = one_of_two();
    let up = Some(link(1));
    bench.router.handle_interface(bench.now, InterfaceId(1), up);
    bench.advance_with(&[&first], SECOND);
    bench.bring_up(&second, &[]);
    let own = bench.own_instances();
    let sequences: Vec<i32> = own.iter().map(|lsa| lsa.header().sequence).collect();
    assert_eq!(sequences, [SEQ + 1; 2], "one instance, at once, to both");
    assert_eq!(links(&own[0]).len(), 4);
    bench.ack_all(&first);
    bench.take();
    bench.advance_with(&[&first, &second], SECOND * 5);
    assert_eq!(bench.own_instances(), []);
}

#[test]
fn an_interface_without_neighbors_is_described_after_a_while() {
    let (mut bench, first, _) = one_of_two();
    let up = Some(link(1));
    bench.router.handle_interface(bench.now, InterfaceId(1), up);
    bench.advance_with(&[&first], SECOND * 2 - Duration::from_millis(1));
    assert_eq!(bench.own_instances(), []);
    bench.advance(Duration::from_millis(1));
    assert_eq!(
        links(&bench.own_instances()[0]).last(),
        Some(&subnet_link(1))
    );
}

#[test]
fn an_interface_that_goes_down_takes_all_its_links_with_it_at_once() {
    let (mut bench, first, second) = one_of_two();
    let up = Some(link(1));
    bench.router.handle_interface(bench.now, InterfaceId(1), up);
    bench.bring_up(&second, &[]);
    bench.advance_with(&[&first, &second], PACE);
    bench.ack_all(&first);
    bench.take();
    bench
        .router
        .handle_interface(bench.now, InterfaceId(1), None);
    bench.drain();
    bench.advance_with(&[&first], Duration::from_millis(900));
    let own = bench.own_instances();
    assert_eq!(own.len(), 1, "one instance");
    assert_eq!(links(&own[0]).len(), 2);
}

#[test]
fn our_own_instance_can_be_all_that_a_neighbor_still_had_to_send() {
    let (mut bench, first, second) = one_of_two();
    let up = Some(link(1));
    bench.router.handle_interface(bench.now, InterfaceId(1), up);
    // The second has a stale copy of ours that is newer than ours, and does not send it.
    let stale = router_lsa(OUR_ID, SEQ + 1, &[]);
    bench.exchange(&second, std::slice::from_ref(&stale));
    assert_eq!(bench.state(&second), Some(State::Loading));
    // Another copy makes us go above it, so that there is nothing to ask for any more.
    bench.update(&first, &[router_lsa(OUR_ID, SEQ + 4, &[]).at_age(9)]);
    assert_eq!(bench.state(&second), Some(State::Full));
    assert_eq!(bench.router.sequence(), Some(SEQ + 5));
}

#[test]
fn a_neighbor_that_is_full_while_a_change_waits_is_told_when_the_change_is_called_off() {
    let mut bench = Bench::broadcast();
    let mut dr = Peer::dr(0, 201);
    let mut bdr = Peer::new(0, 202);
    (dr.bdr, bdr.dr, bdr.bdr) = (bdr.address, dr.address, bdr.address);
    bench.hello(&bdr);
    bench.advance_with(&[&bdr], HELLO);
    bench.exchange(&dr, &[]);
    bench.advance_with(&[&dr, &bdr], PACE * 2);
    bench.announce(&[vip(1)]);
    bench.announce(&[vip(2)]);
    bench.take();
    bench.advance_with(&[&dr, &bdr], RXMT / 2);
    // A neighbour that is Backup only adds no link, so nothing new is wanted for it.
    bench.receive(&bdr, Body::Hello(bdr.hello(&[])));
    bench.exchange(&bdr, &[]);
    assert_eq!(bench.state(&bdr), Some(State::Full));
    bench.announce(&[vip(1)]);
    let told = bench.sent.iter().any(
        |sent| matches!(&sent.body, Body::Update(lsas) if lsas.iter().any(|lsa| stubs(lsa) == [1])),
    );
    assert!(told, "the instance of now: {:?}", bench.sent);
    let unacknowledged: Vec<usize> = bench
        .router
        .neighbors()
        .map(|neighbor| neighbor.unacknowledged)
        .collect();
    assert_eq!(unacknowledged, [1, 1]);
}

#[test]
fn a_copy_with_the_last_sequence_number_does_not_stop_the_numbers_from_starting_over() {
    let mut bench = Bench::new(Config {
        sequence_hint: Some(MAX_SEQUENCE - 1),
        ..config(&[NetworkType::PointToPoint])
    });
    let peer = Peer::new(0, 200);
    bench.bring_up(&peer, &[]);
    bench.advance_with(&[&peer], PACE);
    bench.announce(&[vip(1)]);
    bench.take();
    // While the flush is unacknowledged, a copy with a larger checksum comes in.
    let ours = bench.router.lsdb(bench.now).next().unwrap();
    let copy = (0..=255)
        .map(|metric| {
            let stub = RouterLink {
                metric,
                ..stub_link(9)
            };
            router_lsa(OUR_ID, MAX_SEQUENCE, &[stub])
        })
        .find(|lsa| lsa.header().checksum > ours.checksum)
        .expect("one of 256");
    bench.update(&peer, &[copy.at_age(9)]);
    for _ in 0..20 {
        bench.advance_with(&[&peer], SECOND);
        bench.ack_all(&peer);
        bench.take();
    }
    assert_eq!(bench.router.sequence(), Some(SEQ));
    assert_eq!(bench.router.announced().stubs, [vip(1)]);
}

#[test]
fn what_a_neighbor_acknowledged_while_it_was_loading_is_not_sent_again_when_it_is_full() {
    let mut bench = Bench::broadcast();
    let dr = Peer::dr(0, 50);
    bench.bring_up(&dr, &[]);
    let mut backup = Peer::new(0, 201);
    backup.dr = dr.address;
    backup.bdr = backup.address;
    let theirs = router_lsa(backup.router_id, 1, &[]);
    bench.exchange(&backup, std::slice::from_ref(&theirs));
    assert_eq!(bench.state(&backup), Some(State::Loading));
    bench.advance_with(&[&dr, &backup], PACE);
    bench.take();
    bench.announce(&[vip(1)]);
    assert_eq!(bench.own_instances().len(), 1, "it is flooded to both");
    bench.ack_all(&dr);
    bench.ack_all(&backup);
    bench.take();
    bench.update(&backup, &[theirs]);
    assert_eq!(bench.state(&backup), Some(State::Full));
    // The backup is no transit link of ours: nothing has changed.
    assert_eq!(bench.own_instances(), []);
}

#[test]
fn a_neighbor_that_starts_over_while_it_is_owed_our_router_lsa_gets_nothing_before_full() {
    let mut bench = Bench::new(config(&[NetworkType::PointToPoint; 2]));
    let (first, second) = (Peer::new(0, 50), Peer::new(1, 51));
    bench.bring_up(&first, &[]);
    // Within the pace of that, so that the instance with the second link has to wait.
    bench.exchange(&second, &[]);
    assert_eq!(bench.state(&second), Some(State::Full));
    let wrong = second.dbdesc(flags(false, false, false), 12345, &[]);
    bench.receive(&second, Body::DbDesc(wrong));
    assert_eq!(bench.state(&second), Some(State::ExStart));
    bench.take();
    bench.advance_with(&[&first, &second], PACE + RXMT * 2);
    let unacknowledged = bench
        .router
        .neighbors()
        .find(|it| it.router_id == second.router_id);
    assert_eq!(unacknowledged.map(|it| it.unacknowledged), Some(0));
}
