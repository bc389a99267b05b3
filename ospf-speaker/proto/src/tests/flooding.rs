//! Flooding, acknowledging, retransmitting, ageing.

use std::time::Duration;

use super::bench::*;
use super::net::Net;
use crate::packet::{
    ALL_D_ROUTERS, ALL_SPF_ROUTERS, Body, INITIAL_SEQUENCE, LsType, Lsa, MAX_AGE, Options,
    RESERVED_SEQUENCE,
};
use crate::{AreaId, AreaType, Config, InterfaceId, LsaDrop, NetworkType, RouterId, State};

const SEQ: i32 = INITIAL_SEQUENCE;
const SECOND: Duration = Duration::from_secs(1);

fn external(sequence: i32) -> Lsa {
    lsa_of(LsType::AsExternal, 1, 9, sequence)
}

/// A router with two uplinks, both Full.
fn two_uplinks() -> (Bench, Peer, Peer) {
    let mut bench = Bench::new(config(&[NetworkType::PointToPoint; 2]));
    let (first, second) = (Peer::new(0, 200), Peer::new(1, 1));
    bench.bring_up(&first, &[]);
    bench.bring_up(&second, &[]);
    bench.advance_with(&[&first, &second], PACE);
    bench.ack_all(&first);
    bench.ack_all(&second);
    bench.take();
    (bench, first, second)
}

fn one_uplink(database: &[Lsa]) -> (Bench, Peer) {
    let mut bench = Bench::point_to_point();
    let peer = Peer::new(0, 200);
    bench.bring_up(&peer, database);
    bench.advance_with(&[&peer], SECOND);
    bench.take();
    (bench, peer)
}

#[test]
fn an_lsa_from_one_uplink_is_flooded_to_the_other_and_acknowledged_later() {
    let (mut bench, first, second) = two_uplinks();
    bench.update(&first, &[external(SEQ)]);
    let floods: Vec<InterfaceId> = bench
        .sent
        .iter()
        .filter(|sent| matches!(sent.body, Body::Update(_)))
        .map(|sent| sent.interface)
        .collect();
    assert_eq!(floods, [second.interface]);
    assert_eq!(bench.flooded(), [external(SEQ).at_age(1)]);
    assert_eq!(bench.acknowledged(), [], "delayed");
    bench.advance(Duration::from_millis(200));
    assert_eq!(bench.acknowledged(), [*external(SEQ).header()]);
}

#[test]
fn a_second_instance_within_a_second_is_neither_installed_nor_acknowledged() {
    let (mut bench, peer) = one_uplink(&[]);
    bench.update(&peer, &[external(SEQ)]);
    bench.advance(Duration::from_millis(999));
    bench.take();
    bench.update(&peer, &[external(SEQ + 1)]);
    bench.advance(SECOND * 2);
    assert_eq!(bench.acknowledged(), []);
    assert_eq!(bench.sequence_of(external(SEQ).key()), Some(SEQ));
    let dropped = bench.router.counters().discarded(LsaDrop::MinArrival);
    assert_eq!(dropped, 1);

    bench.update(&peer, &[external(SEQ + 1)]);
    bench.advance(SECOND);
    assert_eq!(bench.sequence_of(external(SEQ).key()), Some(SEQ + 1));
    assert_eq!(bench.acknowledged(), [*external(SEQ + 1).header()]);
}

#[test]
fn min_arrival_does_not_count_from_an_answer_to_a_request() {
    let mut bench = Bench::point_to_point();
    let peer = Peer::new(0, 200);
    bench.bring_up(&peer, &[external(SEQ)]);
    bench.update(&peer, &[external(SEQ + 1)]);
    assert_eq!(bench.sequence_of(external(SEQ).key()), Some(SEQ + 1));
}

#[test]
fn a_duplicate_is_acknowledged_directly_unless_it_acknowledges_itself() {
    let (mut bench, first, second) = two_uplinks();
    bench.update(&first, &[external(SEQ)]);
    bench.advance(SECOND / 2);
    bench.take();
    // Ours to the second is on its retransmission list: its copy is as good as an ack.
    bench.update(&second, &[external(SEQ)]);
    assert_eq!(bench.acknowledged(), []);
    bench.advance(RXMT * 2);
    assert_eq!(bench.flooded(), [], "acknowledged LSAs are not sent again");
    // The first sends it again, and nothing of it is on the first's list.
    bench.update(&first, &[external(SEQ)]);
    assert_eq!(bench.acknowledged(), [*external(SEQ).header()]);
}

#[test]
fn an_older_instance_is_answered_with_ours_once_a_second() {
    let (mut bench, peer) = one_uplink(&[external(SEQ + 5)]);
    bench.update(&peer, &[external(SEQ)]);
    let answer = bench.flooded();
    assert_eq!(answer.len(), 1);
    assert_eq!(answer[0].header().sequence, SEQ + 5);
    assert_eq!(bench.acknowledged(), []);
    bench.update(&peer, &[external(SEQ)]);
    assert_eq!(bench.flooded().len(), 1, "not again within MinLSArrival");
    bench.advance(SECOND);
    bench.update(&peer, &[external(SEQ)]);
    assert_eq!(bench.flooded().len(), 2);
    bench.take();
    bench.advance(RXMT * 3);
    assert_eq!(
        bench.flooded(),
        [],
        "such an answer is on no retransmission list"
    );
}

#[test]
fn what_must_not_be_installed_is_neither_flooded_nor_acknowledged() {
    let cases = [
        (LsaDrop::UnknownType, lsa_of(LsType::Unknown(6), 1, 9, SEQ)),
        (LsaDrop::AreaType, lsa_of(LsType::Nssa, 1, 9, SEQ)),
        (LsaDrop::Age, external(SEQ).at_age(MAX_AGE + 1)),
        (LsaDrop::Age, external(SEQ).at_age(0x8001)),
        (LsaDrop::Sequence, external(RESERVED_SEQUENCE)),
        (LsaDrop::RouterLsaId, lsa_of(LsType::Router, 1, 9, SEQ)),
    ];
    for (reason, lsa) in cases {
        let (mut bench, first, _) = two_uplinks();
        bench.update(&first, &[lsa]);
        bench.advance(SECOND / 2);
        assert_eq!(bench.flooded(), [], "{reason}");
        assert_eq!(bench.acknowledged(), [], "{reason}");
        assert_eq!(bench.router.counters().discarded(reason), 1, "{reason}");
    }
}

#[test]
fn a_damaged_lsa_is_dropped_and_its_company_is_not() {
    use crate::packet::{Header, Packet};
    let (mut bench, peer) = one_uplink(&[]);
    let packet = Packet {
        header: Header {
            router_id: peer.router_id,
            area: AreaId([0; 4].into()),
        },
        body: Body::Update(vec![external(SEQ), lsa_of(LsType::AsExternal, 2, 9, SEQ)]),
    };
    let mut bytes = packet.encode();
    // The last byte of the second LSA, and the packet's checksum to match: 4 becomes 5.
    *bytes.last_mut().unwrap() += 1;
    let sum = u16::from_be_bytes([bytes[12], bytes[13]]) - 1;
    bytes[12..14].copy_from_slice(&sum.to_be_bytes());
    bench.router.handle_packet(
        bench.now,
        peer.interface,
        peer.address,
        ALL_SPF_ROUTERS,
        &bytes,
    );
    assert_eq!(bench.router.counters().discarded(LsaDrop::Checksum), 1);
    assert_eq!(bench.sequence_of(external(SEQ).key()), Some(SEQ));
}

#[test]
fn stub_areas_and_nssas_refuse_what_does_not_belong_there() {
    let areas = [
        (
            AreaType::Stub,
            Options::default(),
            [false, false, false, false],
        ),
        (AreaType::Nssa, Options::N, [false, false, false, true]),
        (AreaType::Normal, Options::E, [true, true, true, false]),
    ];
    let types = [
        LsType::SummaryAsbr,
        LsType::AsExternal,
        LsType::OpaqueAs,
        LsType::Nssa,
    ];
    for (area_type, options, admitted) in areas {
        let mut bench = Bench::new(Config {
            area: AreaId([0, 0, 0, 1].into()),
            area_type,
            ..config(&[NetworkType::PointToPoint])
        });
        let peer = Peer {
            options,
            ..Peer::new(0, 200)
        };
        bench.bring_up(&peer, &[]);
        for (ls_type, admitted) in types.into_iter().zip(admitted) {
            let lsa = lsa_of(ls_type, 1, 9, SEQ);
            bench.update(&peer, std::slice::from_ref(&lsa));
            let stored = bench.sequence_of(lsa.key()).is_some();
            assert_eq!(stored, admitted, "{ls_type:?} in {area_type:?}");
        }
    }
}

#[test]
fn type_9_stays_on_its_link() {
    let (mut bench, first, second) = two_uplinks();
    let lsa = lsa_of(LsType::OpaqueLink, 1, 200, SEQ);
    bench.update(&first, std::slice::from_ref(&lsa));
    assert_eq!(bench.flooded(), []);
    assert_eq!(bench.sequence_of(lsa.key()), Some(SEQ));
    // The same identity on the other link is another LSA.
    bench.update(&second, std::slice::from_ref(&lsa));
    let copies = bench.router.lsdb(bench.now).filter(|lsa| lsa.ls_type == 9);
    assert_eq!(copies.count(), 2);
    bench
        .router
        .handle_interface(bench.now, InterfaceId(0), None);
    let copies = bench.router.lsdb(bench.now).filter(|lsa| lsa.ls_type == 9);
    assert_eq!(copies.count(), 1, "an LSA of a dead link is forgotten");
}

#[test]
fn unacknowledged_lsas_are_sent_again_every_rxmt_interval_until_acknowledged() {
    let (mut bench, first, second) = two_uplinks();
    bench.update(&first, &[external(SEQ)]);
    bench.advance_with(&[&first, &second], RXMT * 3);
    let sent = bench.flooded();
    assert_eq!(sent.len(), 4, "once flooded, thrice again");
    assert_eq!(bench.router.counters().retransmitted, 3);
    // An acknowledgement of another instance does not count.
    let stray = bench.router.counters().stray_acknowledgements;
    bench.ack(&second, &external(SEQ + 1));
    assert_eq!(bench.router.counters().stray_acknowledgements, stray + 1);
    bench.take();
    bench.advance_with(&[&first, &second], RXMT);
    assert_eq!(bench.flooded().len(), 1);
    bench.ack(&second, &external(SEQ));
    bench.take();
    bench.advance_with(&[&first, &second], RXMT * 5);
    assert_eq!(bench.flooded(), []);
}

#[test]
fn on_a_segment_we_flood_and_acknowledge_to_the_designated_routers() {
    let mut bench = Bench::new(config(&[NetworkType::Broadcast, NetworkType::PointToPoint]));
    let (mut dr, mut bdr) = (Peer::dr(0, 1), Peer::new(0, 2));
    bdr.dr = dr.address;
    bdr.bdr = bdr.address;
    dr.bdr = bdr.address;
    bench.hello(&dr);
    bench.hello(&bdr);
    for peer in [&dr, &bdr] {
        while bench.state(peer) != Some(State::Full) {
            let asked = bench
                .sent
                .iter()
                .rev()
                .filter(|sent| sent.destination == peer.address)
                .find_map(|sent| match &sent.body {
                    Body::DbDesc(dbdesc) => Some(dbdesc.sequence),
                    Body::Hello(_) | Body::Request(_) | Body::Update(_) | Body::Ack(_) => None,
                })
                .expect("a Database Description to the neighbour itself");
            let answer = peer.dbdesc(flags(false, false, false), asked, &[]);
            bench.receive(peer, Body::DbDesc(answer));
        }
    }
    let uplink = Peer::new(1, 200);
    bench.bring_up(&uplink, &[]);
    bench.take();
    for peer in [&dr, &bdr, &uplink] {
        assert_eq!(bench.state(peer), Some(State::Full), "{}", peer.router_id);
    }

    // From the uplink to the segment: multicast to both.
    bench.update(&uplink, &[external(SEQ)]);
    let to: Vec<_> = bench
        .sent
        .iter()
        .filter(|sent| matches!(sent.body, Body::Update(_)))
        .map(|sent| (sent.interface, sent.destination))
        .collect();
    assert_eq!(to, [(InterfaceId(0), ALL_D_ROUTERS)]);

    // From the DR: not back to the segment, acknowledged to the designated routers.
    bench.take();
    bench.update(&dr, &[lsa_of(LsType::AsExternal, 2, 9, SEQ)]);
    bench.advance(Duration::from_millis(200));
    let from_dr = lsa_of(LsType::AsExternal, 2, 9, SEQ);
    for sent in bench
        .sent
        .iter()
        .filter(|sent| sent.interface == InterfaceId(0))
    {
        match &sent.body {
            Body::Update(lsas) => assert!(lsas.iter().all(|lsa| lsa.key() != from_dr.key())),
            Body::Ack(_) => assert_eq!(sent.destination, ALL_D_ROUTERS),
            Body::Hello(_) | Body::DbDesc(_) | Body::Request(_) => {}
        }
    }
    assert!(bench.acknowledged().contains(from_dr.header()));

    // Retransmissions go to the neighbour itself.
    bench.take();
    bench.advance(RXMT * 2);
    let again: Vec<_> = bench
        .sent
        .iter()
        .filter(|sent| sent.interface == InterfaceId(0))
        .filter(|sent| match &sent.body {
            Body::Update(lsas) => lsas.iter().any(|lsa| lsa.key() == external(SEQ).key()),
            Body::Hello(_) | Body::DbDesc(_) | Body::Request(_) | Body::Ack(_) => false,
        })
        .map(|sent| sent.destination)
        .collect();
    assert!(
        again.contains(&dr.address) && again.contains(&bdr.address),
        "{again:?}"
    );
    assert!(!again.contains(&ALL_D_ROUTERS), "{again:?}");
}

#[test]
fn an_unknown_lsa_at_max_age_is_acknowledged_and_not_kept() {
    let (mut bench, peer) = one_uplink(&[]);
    let flush = external(SEQ).at_age(MAX_AGE);
    bench.update(&peer, std::slice::from_ref(&flush));
    assert_eq!(bench.acknowledged(), [*flush.header()], "directly");
    assert_eq!(bench.sequence_of(flush.key()), None);
}

#[test]
fn a_flushed_lsa_leaves_when_everybody_has_acknowledged_it() {
    let (mut bench, first, second) = two_uplinks();
    let lsa = external(SEQ);
    bench.update(&first, std::slice::from_ref(&lsa));
    bench.ack(&second, &lsa);
    bench.advance_with(&[&first, &second], SECOND);
    bench.take();
    let flush = lsa.at_age(MAX_AGE);
    bench.update(&first, std::slice::from_ref(&flush));
    assert_eq!(bench.flooded(), std::slice::from_ref(&flush));
    assert_eq!(
        bench.sequence_of(lsa.key()),
        Some(SEQ),
        "waits for the second"
    );
    // The acknowledgement of the instance before the flush is not one of the flush.
    bench.ack(&second, &lsa);
    assert_eq!(bench.sequence_of(lsa.key()), Some(SEQ));
    bench.ack(&second, &flush);
    assert_eq!(bench.sequence_of(lsa.key()), None);
}

#[test]
fn a_flushed_lsa_stays_while_somebody_loads() {
    let (mut bench, first, second) = two_uplinks();
    let lsa = external(SEQ);
    bench.update(&first, std::slice::from_ref(&lsa));
    bench.ack(&second, &lsa);
    // The second starts over and hangs in Loading.
    bench.receive(&second, Body::Hello(second.hello(&[])));
    bench.take();
    bench.exchange(&second, &[lsa_of(LsType::AsExternal, 7, 9, SEQ)]);
    assert_eq!(bench.state(&second), Some(State::Loading));
    bench.advance_with(&[&first, &second], SECOND);
    let flush = lsa.at_age(MAX_AGE);
    bench.update(&first, std::slice::from_ref(&flush));
    bench.ack(&second, &flush);
    assert_eq!(
        bench.sequence_of(lsa.key()),
        Some(SEQ),
        "the second may ask for it"
    );
    bench.update(&second, &[lsa_of(LsType::AsExternal, 7, 9, SEQ)]);
    assert_eq!(bench.state(&second), Some(State::Full));
    assert_eq!(bench.sequence_of(lsa.key()), None);
}

#[test]
fn an_lsa_that_is_not_refreshed_is_flooded_at_max_age_and_leaves() {
    let (mut bench, first, second) = two_uplinks();
    let old = external(SEQ).at_age(MAX_AGE - 2);
    bench.update(&first, std::slice::from_ref(&old));
    bench.ack(&second, &old);
    bench.take();
    bench.advance(SECOND);
    assert_eq!(bench.flooded(), []);
    bench.advance(SECOND);
    let flushes = bench.flooded();
    assert_eq!(flushes.len(), 2, "to both, whoever sent it");
    assert!(flushes.iter().all(|lsa| lsa.header().age == MAX_AGE));
    bench.ack(&first, &old.at_age(MAX_AGE));
    bench.ack(&second, &old.at_age(MAX_AGE));
    assert_eq!(bench.sequence_of(old.key()), None);
}

#[test]
fn a_router_lsa_whose_body_cannot_be_read_is_passed_on_all_the_same() {
    let (mut bench, first, _) = two_uplinks();
    let router = RouterId([10, 0, 0, 9].into());
    let key = crate::packet::LsaKey {
        ls_type: LsType::Router,
        link_state_id: router.0,
        advertising_router: router,
    };
    let odd = Lsa::originate(key, Options::E, SEQ, &[0, 0, 0, 9, 1]).unwrap();
    bench.update(&first, std::slice::from_ref(&odd));
    assert_eq!(bench.flooded(), [odd.at_age(1)]);
    let view = bench
        .router
        .lsdb(bench.now)
        .find(|lsa| lsa.advertising_router == router);
    assert_eq!(view.map(|lsa| lsa.links), Some(vec![]));
}

#[test]
fn a_change_crosses_a_chain_of_routers() {
    let mut net = Net::new(4, &[(0, 1), (1, 2), (2, 3)], 1);
    net.run(Duration::from_secs(5));
    assert!(net.all_full() && net.is_converged());
    net.announce(0, &[vip(1)]);
    let seen = |net: &Net, expected: usize| {
        net.routers
            .iter()
            .all(|router| router.announcers(vip(1).prefix).len() == expected)
    };
    let time = net.run_until(SECOND, |net| seen(net, 1));
    assert!(
        time.is_some_and(|time| time <= Duration::from_millis(5)),
        "{time:?}"
    );
    net.run(Duration::from_secs(2));
    net.announce(0, &[]);
    let time = net.run_until(SECOND, |net| seen(net, 0));
    assert!(
        time.is_some_and(|time| time <= Duration::from_millis(5)),
        "{time:?}"
    );
}
