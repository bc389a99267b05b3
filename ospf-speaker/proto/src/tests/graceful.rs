//! Graceful restart: leaving, and coming back.

use std::time::{Duration, Instant};

use super::bench::*;
use super::net::Net;
use crate::graceful::Restart;
use crate::packet::{
    ALL_D_ROUTERS, Body, ExternalKind, ExternalLsa, ExternalMetric, GRACE_LSA_ID, GraceLsa,
    LinkKind, LsType, Lsa, LsaKey, MAX_AGE, Options, RestartReason, RouterLink,
};
use crate::{Event, External, Grace, NetworkType, RestartEnd, RestartRefusal, State, Stub};

const SECOND: Duration = Duration::from_secs(1);
const OLD: i32 = 41;

fn grace(bench: &Bench, period: Duration) -> Grace {
    Grace {
        until: bench.now + period,
        reason: RestartReason::Software,
        settle: Duration::ZERO,
    }
}

fn prepare(bench: &mut Bench, grace: Grace) {
    bench.router.prepare_restart(bench.now, grace);
    bench.drain();
}

/// Announces VIP 1 to a neighbour that has acknowledged it a while ago.
fn announcing() -> (Bench, Peer) {
    let mut bench = Bench::point_to_point();
    let peer = Peer::new(0, 200);
    bench.announce(&[vip(1)]);
    bench.bring_up(&peer, &[]);
    bench.advance_with(&[&peer], PACE);
    bench.take();
    (bench, peer)
}

/// The Grace-LSAs that were sent since the last take.
fn grace_lsas(bench: &Bench) -> Vec<Lsa> {
    let mut lsas = bench.own_instances();
    lsas.retain(|lsa| lsa.key().ls_type == LsType::OpaqueLink);
    lsas
}

fn router_lsas(bench: &Bench) -> Vec<Lsa> {
    let mut lsas = bench.own_instances();
    lsas.retain(|lsa| lsa.key().ls_type == LsType::Router);
    lsas
}

fn prepared(bench: &Bench) -> Option<Instant> {
    bench.events.iter().find_map(|event| match event {
        Event::RestartPrepared { expires } => Some(*expires),
        _ => None,
    })
}

fn refusal(bench: &Bench) -> Option<RestartRefusal> {
    bench.events.iter().find_map(|event| match event {
        Event::RestartRefused { refusal } => Some(*refusal),
        _ => None,
    })
}

fn end(bench: &Bench) -> Option<RestartEnd> {
    bench.events.iter().find_map(|event| match event {
        Event::RestartEnded { end } => Some(*end),
        _ => None,
    })
}

#[test]
fn a_restart_is_prepared_when_the_grace_lsa_is_acknowledged() {
    let (mut bench, peer) = announcing();
    let request = grace(&bench, 10 * SECOND + SECOND / 2);
    prepare(&mut bench, request);
    let [lsa] = grace_lsas(&bench).try_into().unwrap();
    assert_eq!(lsa.key().link_state_id, GRACE_LSA_ID);
    assert_eq!(lsa.header().age, 1, "the link adds a second to age 0");
    assert_eq!(
        lsa.body(),
        [0, 1, 0, 4, 0, 0, 0, 10, 0, 2, 0, 1, 1, 0, 0, 0],
        "the period and the reason and nothing else, because FRR refuses other TLVs"
    );
    assert_eq!(prepared(&bench), None, "not before it is acknowledged");
    bench.ack(&peer, &lsa);
    assert_eq!(prepared(&bench), Some(bench.now + 10 * SECOND));
    assert_eq!(router_lsas(&bench), [], "nothing else is said");
    let listed = |neighbors: Vec<_>| neighbors == [peer.router_id];
    assert!(
        bench
            .hellos()
            .into_iter()
            .all(|hello| listed(hello.neighbors)),
        "no 1-Way"
    );
}

#[test]
fn on_a_segment_the_grace_lsa_names_our_address() {
    let mut bench = Bench::broadcast();
    let dr = Peer::dr(0, 200);
    bench.announce(&[vip(1)]);
    bench.bring_up(&dr, &[]);
    bench.advance_with(&[&dr], PACE);
    bench.take();
    let request = grace(&bench, 10 * SECOND);
    prepare(&mut bench, request);
    let [lsa] = grace_lsas(&bench).try_into().unwrap();
    let expected = GraceLsa {
        period: 10,
        reason: RestartReason::Software,
        address: Some(link(0).address),
    };
    assert_eq!(GraceLsa::decode(lsa.body()), Ok(expected));
    let is_update = |body: &Body| matches!(body, Body::Update(_));
    let update = bench.sent.iter().find(|sent| is_update(&sent.body));
    assert_eq!(update.unwrap().destination, ALL_D_ROUTERS);
}

#[test]
fn a_grace_lsa_that_is_lost_is_sent_again() {
    let (mut bench, peer) = announcing();
    let request = grace(&bench, 10 * SECOND);
    prepare(&mut bench, request);
    let started = bench.now;
    bench.take();
    bench.hello(&peer);
    bench.advance(RXMT);
    let [lsa] = grace_lsas(&bench).try_into().unwrap();
    bench.ack(&peer, &lsa);
    assert_eq!(
        prepared(&bench),
        Some(started + 10 * SECOND),
        "the period counts from the origination"
    );
}

#[test]
fn who_does_not_acknowledge_does_not_help() {
    let (mut bench, peer) = announcing();
    let request = grace(&bench, 20 * SECOND);
    prepare(&mut bench, request);
    bench.advance_with(&[&peer], 4 * SECOND);
    assert_eq!(refusal(&bench), Some(RestartRefusal::NotAcknowledged));
    let flushed = grace_lsas(&bench).pop().unwrap();
    assert_eq!(flushed.header().age, MAX_AGE, "it is taken back");
    bench.ack(&peer, &flushed);
    bench.advance_with(&[&peer], 2 * SECOND);
    assert_eq!(prepared(&bench), None);
}

#[test]
fn what_was_announced_last_arrives_before_the_neighbours_are_asked() {
    let (mut bench, peer) = announcing();
    bench.announce(&[vip(2)]);
    bench.ack_all(&peer);
    bench.announce(&[]);
    bench.take();
    let request = grace(&bench, 10 * SECOND);
    prepare(&mut bench, request);
    assert_eq!(bench.own_instances(), [], "the withdrawal is paced");
    bench.hello(&peer);
    bench.advance(PACE);
    let [withdrawal] = bench.own_instances().try_into().unwrap();
    assert_eq!(stubs(&withdrawal), Vec::<u8>::new());
    bench.ack(&peer, &withdrawal);
    let [lsa] = grace_lsas(&bench).try_into().unwrap();
    bench.ack(&peer, &lsa);
    assert!(prepared(&bench).is_some());
}

#[test]
fn a_change_while_the_neighbours_are_asked_calls_it_off() {
    let (mut bench, peer) = announcing();
    let request = grace(&bench, 10 * SECOND);
    prepare(&mut bench, request);
    bench.announce(&[]);
    assert_eq!(refusal(&bench), Some(RestartRefusal::WantedSet));
    bench.ack_all(&peer);
    assert_eq!(prepared(&bench), None);
}

#[test]
fn an_adjacency_must_outlast_the_pause_of_bfd() {
    let (mut bench, peer) = announcing();
    let request = Grace {
        settle: SECOND / 2,
        ..grace(&bench, 10 * SECOND)
    };
    prepare(&mut bench, request);
    assert_eq!(bench.hellos().len(), 1, "who dropped us answers it");
    assert_eq!(grace_lsas(&bench), [], "not asked yet");
    let opening = peer.dbdesc(flags(true, true, true), 5000, &[]);
    bench.receive(&peer, Body::DbDesc(opening));
    assert_eq!(refusal(&bench), Some(RestartRefusal::Adjacency));
    bench.advance(SECOND);
    assert_eq!(grace_lsas(&bench), []);

    let (mut bench, peer) = announcing();
    prepare(&mut bench, request);
    bench.hello(&peer);
    bench.advance(SECOND / 2);
    let [lsa] = grace_lsas(&bench).try_into().unwrap();
    bench.ack(&peer, &lsa);
    assert!(prepared(&bench).is_some());
}

#[test]
fn nobody_is_asked_who_cannot_be() {
    let (mut bench, peer) = announcing();
    for neighbor in bench.router.interfaces[0].neighbors.values_mut() {
        neighbor.exchange.options = Options::E;
    }
    let request = grace(&bench, 10 * SECOND);
    prepare(&mut bench, request);
    assert_eq!(refusal(&bench), Some(RestartRefusal::NotOpaque));

    let mut bench = Bench::point_to_point();
    let request = grace(&bench, 10 * SECOND);
    prepare(&mut bench, request);
    assert_eq!(refusal(&bench), Some(RestartRefusal::NoAdjacency));

    bench.hello(&peer);
    bench.events.clear();
    prepare(&mut bench, request);
    assert_eq!(refusal(&bench), Some(RestartRefusal::Adjacency));

    let (mut bench, _) = announcing();
    let request = grace(&bench, SECOND / 2);
    prepare(&mut bench, request);
    assert_eq!(refusal(&bench), Some(RestartRefusal::Period));
}

#[test]
fn a_stop_takes_the_request_back() {
    let (mut bench, peer) = announcing();
    let request = grace(&bench, 30 * SECOND);
    prepare(&mut bench, request);
    bench.ack_all(&peer);
    bench.take();
    bench.router.shutdown(bench.now);
    bench.drain();
    let mut flushed = Vec::new();
    while !bench.router.is_stopped() {
        bench.hello(&peer);
        bench.advance(SECOND / 10);
        bench.ack_all(&peer);
        let ages = bench.take().into_iter().filter_map(|sent| match sent.body {
            Body::Update(lsas) => Some(lsas),
            Body::Hello(_) | Body::DbDesc(_) | Body::Request(_) | Body::Ack(_) => None,
        });
        let at_max_age = |lsa: &Lsa| lsa.header().age == MAX_AGE;
        flushed.extend(
            ages.flatten()
                .filter(at_max_age)
                .map(|lsa| lsa.key().ls_type),
        );
    }
    // What an acknowledgement sets off is not acknowledged with it here, and sent again.
    flushed.dedup();
    assert_eq!(flushed, [LsType::OpaqueLink, LsType::Router]);
}

/// A router that comes back within the grace period, with as many uplinks.
fn returning(uplinks: usize, announced: &[Stub]) -> Bench {
    let mut bench = Bench::new(config(&vec![NetworkType::PointToPoint; uplinks]));
    let expires = bench.now + 10 * SECOND;
    bench.router.resume_restart(bench.now, expires);
    bench.announce(announced);
    bench
}

fn to_router(id: crate::RouterId, from: std::net::Ipv4Addr) -> RouterLink {
    RouterLink {
        kind: LinkKind::PointToPoint,
        id: id.0,
        data: from,
        metric: 0xffff,
    }
}

fn subnet(interface: usize) -> RouterLink {
    RouterLink {
        kind: LinkKind::Stub,
        id: link(interface).subnet(),
        data: link(interface).mask(),
        metric: 10,
    }
}

/// Our Router-LSA from before the restart, with VIP 1.
fn before(peers: &[&Peer]) -> Lsa {
    let mut links = Vec::new();
    for (interface, peer) in peers.iter().enumerate() {
        links.push(to_router(peer.router_id, link(interface).address));
        links.push(subnet(interface));
    }
    links.push(RouterLink {
        kind: LinkKind::Stub,
        id: vip(1).prefix,
        data: std::net::Ipv4Addr::BROADCAST,
        metric: vip(1).metric,
    });
    router_lsa(OUR_ID, OLD, &links).at_age(60)
}

/// The Router-LSA of a neighbour that has a link to us, or has none any more.
fn of_peer(peer: &Peer, helps: bool) -> Lsa {
    let links = [to_router(OUR_ID, peer.address)];
    router_lsa(peer.router_id, 7, if helps { &links } else { &[] })
}

/// Our Grace-LSA, as a neighbour gives it back.
fn our_grace() -> Lsa {
    let key = LsaKey {
        ls_type: LsType::OpaqueLink,
        link_state_id: GRACE_LSA_ID,
        advertising_router: OUR_ID,
    };
    let body = GraceLsa {
        period: 10,
        reason: RestartReason::Software,
        address: None,
    };
    Lsa::originate(key, Options::E, 3, &body.encode())
        .unwrap()
        .at_age(3)
}

#[test]
fn the_same_router_lsa_leaves_again_when_the_adjacency_is_back() {
    for last in [200, 50] {
        let mut bench = returning(1, &[vip(1)]);
        let peer = Peer::new(0, last);
        let old = before(&[&peer]);
        let database = [of_peer(&peer, true), old.clone(), our_grace()];
        bench.exchange(&peer, &database);
        assert_eq!(bench.state(&peer), Some(State::Loading));
        assert_eq!(bench.own_instances(), [], "nothing before it is Full");
        bench.update(&peer, &database);
        assert_eq!(bench.state(&peer), Some(State::Full));
        assert_eq!(end(&bench), Some(RestartEnd::Complete));
        let [new] = router_lsas(&bench).try_into().unwrap();
        assert_eq!(new.header().sequence, OLD + 1);
        assert_eq!(new.body(), old.body(), "so no router has to calculate");
        let [flushed] = grace_lsas(&bench).try_into().unwrap();
        assert_eq!(
            (flushed.header().sequence, flushed.header().age),
            (3, MAX_AGE)
        );
        assert!(!bench.router.is_returning());
    }
}

#[test]
fn a_neighbour_that_gave_up_ends_the_restart() {
    let mut bench = returning(1, &[vip(1)]);
    let peer = Peer::new(0, 200);
    bench.bring_up(&peer, &[before(&[&peer]), of_peer(&peer, false)]);
    assert_eq!(end(&bench), Some(RestartEnd::Inconsistent));
    let [new] = router_lsas(&bench).try_into().unwrap();
    assert_eq!(stubs(&new), [1]);
}

#[test]
fn neighbours_that_know_nothing_of_us_end_the_restart() {
    let mut bench = returning(1, &[vip(1)]);
    let peer = Peer::new(0, 200);
    bench.bring_up(&peer, &[of_peer(&peer, true)]);
    assert_eq!(end(&bench), Some(RestartEnd::Inconsistent));
    assert_eq!(router_lsas(&bench).len(), 1);
}

#[test]
fn all_uplinks_are_waited_for() {
    let mut bench = returning(2, &[vip(1)]);
    let peers = [Peer::new(0, 200), Peer::new(1, 201)];
    let old = before(&[&peers[0], &peers[1]]);
    let database = [of_peer(&peers[0], true), of_peer(&peers[1], true), old];
    bench.bring_up(&peers[0], &database);
    bench.advance_with(&[&peers[0]], 3 * SECOND);
    assert_eq!(bench.own_instances(), [], "the other one is not back");
    assert_eq!(end(&bench), None);
    bench.bring_up(&peers[1], &database);
    assert_eq!(end(&bench), Some(RestartEnd::Complete));
    let links = links(&router_lsas(&bench)[0]);
    let routers = links
        .iter()
        .filter(|link| link.kind == LinkKind::PointToPoint);
    assert_eq!(routers.count(), 2);
}

#[test]
fn the_restart_ends_with_the_grace_period() {
    let mut bench = returning(2, &[vip(1)]);
    let start = bench.now;
    let peers = [Peer::new(0, 200), Peer::new(1, 201)];
    bench.bring_up(&peers[0], &[before(&[&peers[0], &peers[1]])]);
    bench.advance_with(&[&peers[0]], 10 * SECOND - SECOND / 2);
    assert_eq!(bench.own_instances(), []);
    bench.advance_with(&[&peers[0]], SECOND);
    assert_eq!(end(&bench), Some(RestartEnd::Expired));
    let sent = bench
        .sent
        .iter()
        .find(|sent| matches!(sent.body, Body::Update(_)));
    assert_eq!(sent.unwrap().at, start + 10 * SECOND);
    let [new] = router_lsas(&bench).try_into().unwrap();
    assert_eq!(stubs(&new), [1]);
}

#[test]
fn a_vip_that_became_unhealthy_is_not_kept_by_the_restart() {
    // It becomes so while an uplink is still waited for.
    let mut bench = returning(2, &[vip(1)]);
    let peers = [Peer::new(0, 200), Peer::new(1, 201)];
    let old = before(&[&peers[0], &peers[1]]);
    bench.bring_up(&peers[0], std::slice::from_ref(&old));
    assert_eq!(bench.own_instances(), []);
    bench.announce(&[]);
    assert_eq!(end(&bench), Some(RestartEnd::WantedSet));
    let [new] = router_lsas(&bench).try_into().unwrap();
    assert_eq!(stubs(&new), Vec::<u8>::new(), "at once");

    // It was so before the neighbour told what it has.
    let mut bench = returning(2, &[]);
    bench.bring_up(&peers[0], &[old]);
    assert_eq!(end(&bench), Some(RestartEnd::WantedSet));
    let [new] = router_lsas(&bench).try_into().unwrap();
    assert_eq!(stubs(&new), Vec::<u8>::new());
}

#[test]
fn a_vip_more_waits_for_the_end_of_the_restart() {
    let mut bench = returning(1, &[vip(1), vip(2)]);
    let peer = Peer::new(0, 200);
    bench.exchange(&peer, &[before(&[&peer])]);
    assert_eq!(end(&bench), None);
    bench.update(&peer, &[before(&[&peer])]);
    assert_eq!(end(&bench), Some(RestartEnd::Complete));
    assert_eq!(stubs(&router_lsas(&bench)[0]), [1, 2]);
}

/// Our type 5 LSA for 10.99.1.1 from before the restart.
fn external_before(metric: u32) -> (External, Lsa) {
    let external = External {
        prefix: std::net::Ipv4Addr::new(10, 99, 1, 1),
        kind: ExternalKind::Type2,
        metric: 5,
    };
    let body = ExternalLsa {
        mask: std::net::Ipv4Addr::BROADCAST,
        kind: external.kind,
        metric: ExternalMetric::from(u16::try_from(metric).unwrap()),
        forwarding_address: std::net::Ipv4Addr::UNSPECIFIED,
        tag: 0,
    };
    let key = LsaKey {
        ls_type: LsType::AsExternal,
        link_state_id: external.prefix,
        advertising_router: OUR_ID,
    };
    let lsa = Lsa::originate(key, Options::E, OLD, &body.encode()).unwrap();
    (external, lsa.at_age(60))
}

#[test]
fn our_external_lsas_are_adopted_too() {
    let cases = [
        (5, true, RestartEnd::Complete),
        (6, true, RestartEnd::WantedSet),
        (5, false, RestartEnd::WantedSet),
    ];
    for (metric, is_wanted, expected) in cases {
        let mut bench = returning(1, &[]);
        let peer = Peer::new(0, 200);
        let (external, old) = external_before(metric);
        let externals: &[External] = if is_wanted { &[external] } else { &[] };
        bench
            .router
            .announce(bench.now, &[vip(1)], externals)
            .unwrap();
        let database = [of_peer(&peer, true), before(&[&peer]), old.clone()];
        bench.bring_up(&peer, &database);
        assert_eq!(end(&bench), Some(expected), "{metric} {is_wanted}");
        let ours = bench.own_instances();
        let new = ours.iter().find(|lsa| lsa.key() == old.key()).unwrap();
        if is_wanted {
            assert_eq!(new.header().sequence, OLD + 1, "originated anew");
        } else {
            assert_eq!(new.header().age, MAX_AGE, "flushed");
        }
    }
}

#[test]
fn a_stop_on_the_way_back_withdraws() {
    let mut bench = returning(2, &[vip(1)]);
    let peers = [Peer::new(0, 200), Peer::new(1, 201)];
    bench.bring_up(&peers[0], &[before(&[&peers[0], &peers[1]])]);
    bench.router.shutdown(bench.now);
    bench.drain();
    assert_eq!(end(&bench), Some(RestartEnd::Stopping));
    let [new] = router_lsas(&bench).try_into().unwrap();
    assert_eq!(stubs(&new), Vec::<u8>::new());
}

#[test]
fn a_grace_period_that_is_over_is_none() {
    let mut bench = Bench::point_to_point();
    bench.router.resume_restart(bench.now, bench.now);
    assert!(!bench.router.is_returning());
}

/// Our own kind acknowledges Grace-LSAs and does not help.
#[test]
fn with_a_neighbour_that_does_not_help_all_is_well_in_the_end() {
    let mut net = Net::new(3, &[(0, 1), (1, 2), (2, 0)], 1);
    net.announce(0, &[vip(1)]);
    net.run(5 * SECOND);
    assert!(net.is_converged());
    let until = net.now + 10 * SECOND;
    let request = Grace {
        until,
        reason: RestartReason::Upgrade,
        settle: Duration::ZERO,
    };
    net.routers[0].prepare_restart(net.now, request);
    net.drain(0);
    net.run(2 * SECOND);
    let prepared = matches!(net.routers[0].restart, Restart::Prepared);
    assert!(prepared, "all acknowledge: {:?}", net.routers[0].restart);
    net.crash(0, 2);
    let now = net.now;
    net.routers[0].resume_restart(now, until);
    net.announce(0, &[vip(1)]);
    net.run(20 * SECOND);
    assert!(net.all_full());
    assert!(net.is_converged());
    let announced = net
        .database(1)
        .into_iter()
        .any(|lsa| lsa.ls_type == 1 && lsa.links.iter().any(|link| link.id == vip(1).prefix));
    assert!(announced, "the VIP is still there");
    let grace_lsas = net.database(1).into_iter().filter(|lsa| lsa.ls_type == 9);
    assert_eq!(grace_lsas.count(), 0, "the Grace-LSAs are flushed");
}
