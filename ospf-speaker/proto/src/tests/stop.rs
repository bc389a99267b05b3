//! The planned stop.

use std::time::Duration;

use super::bench::*;
use super::net::Net;
use crate::packet::{Body, MAX_AGE};
use crate::{Event, NetworkType, PacketDrop};

const SECOND: Duration = Duration::from_secs(1);

fn announcing() -> (Bench, Peer) {
    let mut bench = Bench::point_to_point();
    let peer = Peer::new(0, 200);
    bench.announce(&[vip(1)]);
    bench.bring_up(&peer, &[]);
    bench.advance_with(&[&peer], PACE);
    bench.take();
    (bench, peer)
}

fn shutdown(bench: &mut Bench) {
    bench.router.shutdown(bench.now);
    bench.drain();
}

#[test]
fn the_stubs_go_first_then_the_router_lsa_then_we() {
    let (mut bench, peer) = announcing();
    shutdown(&mut bench);
    let withdrawn = bench.own_instances();
    assert_eq!(withdrawn.len(), 1, "at once");
    assert_eq!(stubs(&withdrawn[0]), Vec::<u8>::new());
    assert_eq!(links(&withdrawn[0]).len(), 2, "the adjacency stands");
    bench.hello(&peer);
    bench.advance(SECOND / 2);
    bench.ack(&peer, &withdrawn[0]);
    bench.take();
    bench.advance(PACE - SECOND / 2 - Duration::from_millis(1));
    assert_eq!(
        bench.own_instances(),
        [],
        "the flush waits for MinLSArrival"
    );
    bench.advance(Duration::from_millis(1));
    let flush = bench.own_instances();
    assert_eq!(flush.len(), 1);
    assert_eq!(flush[0].header().age, MAX_AGE);
    assert_eq!(flush[0].header().sequence, withdrawn[0].header().sequence);
    assert!(!bench.router.is_stopped());
    bench.take();
    bench.ack(&peer, &flush[0]);
    assert!(bench.router.is_stopped());
    let last = bench.sent.pop().expect("a good-bye");
    match last.body {
        Body::Hello(hello) => assert_eq!(hello.neighbors, []),
        Body::DbDesc(_) | Body::Request(_) | Body::Update(_) | Body::Ack(_) => {
            panic!("not a Hello but {:?}", last.body)
        }
    }
    assert!(bench.events.contains(&Event::Stopped));
    assert_eq!(bench.router.poll_timeout(), None);
    assert_eq!(bench.router.neighbors().count(), 0);
}

#[test]
fn after_the_stop_nothing_moves_any_more() {
    let (mut bench, peer) = announcing();
    shutdown(&mut bench);
    bench.advance(SECOND * 10);
    assert!(bench.router.is_stopped());
    bench.take();
    bench.hello(&peer);
    bench.announce(&[vip(1)]);
    shutdown(&mut bench);
    bench
        .router
        .handle_interface(bench.now, peer.interface, Some(link(0)));
    bench.advance(SECOND * 10);
    assert!(bench.sent.is_empty(), "{:?}", bench.sent);
    assert_eq!(bench.router.counters().dropped(PacketDrop::Stopped), 1);
}

#[test]
fn a_neighbor_that_acknowledges_nothing_does_not_hold_the_stop_up() {
    let (mut bench, peer) = announcing();
    shutdown(&mut bench);
    let start = bench.now;
    while !bench.router.is_stopped() && bench.now - start < SECOND * 20 {
        bench.hello(&peer);
        bench.advance(Duration::from_millis(100));
    }
    let elapsed = bench.now - start;
    assert!(elapsed <= SECOND * 5, "took {elapsed:?}");
    assert!(
        bench.router.counters().retransmitted >= 2,
        "it was told again"
    );
}

#[test]
fn a_change_just_before_the_stop_is_paced() {
    let (mut bench, peer) = announcing();
    bench.announce(&[vip(2)]);
    bench.ack_all(&peer);
    bench.take();
    shutdown(&mut bench);
    assert_eq!(bench.own_instances(), []);
    bench.hello(&peer);
    bench.advance(PACE);
    assert_eq!(stubs(&bench.own_instances()[0]), Vec::<u8>::new());
    assert!(!bench.router.is_stopped());
}

#[test]
fn without_neighbors_the_stop_is_immediate() {
    for network in [NetworkType::PointToPoint, NetworkType::Broadcast] {
        let mut bench = Bench::new(config(&[network]));
        bench.announce(&[vip(1)]);
        shutdown(&mut bench);
        assert!(bench.router.is_stopped());
        assert_eq!(bench.hellos().len(), 1, "whoever may remember us");
    }
}

#[test]
fn losing_the_neighbor_during_the_stop_ends_it() {
    let (mut bench, peer) = announcing();
    shutdown(&mut bench);
    bench
        .router
        .handle_neighbor_lost(bench.now, peer.interface, peer.address);
    assert!(bench.router.is_stopped());
}

#[test]
fn the_neighbor_has_nothing_of_us_in_the_end() {
    let mut net = Net::new(2, &[(0, 1)], 1);
    net.announce(0, &[vip(1)]);
    net.run(SECOND * 5);
    assert_eq!(net.database(1).len(), 2);
    net.routers[0].shutdown(net.now);
    let time = net.run_until(SECOND * 10, |net| net.routers[0].is_stopped());
    assert!(time.is_some_and(|time| time <= SECOND * 2), "took {time:?}");
    net.run(SECOND);
    assert_eq!(net.database(1).len(), 1, "its own");
    assert_eq!(
        net.routers[1].neighbors().count(),
        1,
        "in Init, until the dead interval"
    );
    net.run(DEAD);
    assert_eq!(net.routers[1].neighbors().count(), 0);
}
