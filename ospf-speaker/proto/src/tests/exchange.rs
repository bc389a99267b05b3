//! The Database Exchange and Loading.

use std::time::Duration;

use super::bench::*;
use super::net::Net;
use crate::interface::Interface;
use crate::packet::{Body, DbDescFlags, INITIAL_SEQUENCE, LsType, Lsa, LsaKey, Options};
use crate::{AreaId, AreaType, LinkState, NetworkType, PacketDrop, State};

const SEQ: i32 = INITIAL_SEQUENCE;

/// A slave-to-be and a master-to-be.
fn both() -> [Peer; 2] {
    [Peer::new(0, 1), Peer::new(0, 200)]
}

#[test]
fn a_neighbor_with_an_empty_database_is_full_right_after_the_exchange() {
    for peer in both() {
        let mut bench = Bench::point_to_point();
        bench.exchange(&peer, &[]);
        assert_eq!(bench.state(&peer), Some(State::Full), "{}", peer.router_id);
    }
}

#[test]
fn what_the_neighbor_describes_is_requested_and_loaded() {
    for peer in both() {
        let mut bench = Bench::point_to_point();
        let database: Vec<Lsa> = (1..=25)
            .map(|id| lsa_of(LsType::AsExternal, id, 9, SEQ))
            .collect();
        bench.exchange(&peer, &database);
        assert_eq!(bench.state(&peer), Some(State::Loading));
        let mut requested = bench.requested();
        requested.dedup();
        assert!(!requested.is_empty());
        bench.update(&peer, &database[..10]);
        assert_eq!(bench.state(&peer), Some(State::Loading));
        bench.update(&peer, &database[10..]);
        assert_eq!(bench.state(&peer), Some(State::Full));
        assert_eq!(
            bench
                .router
                .lsdb(bench.now)
                .filter(|lsa| lsa.ls_type == 5)
                .count(),
            25
        );
        assert_eq!(
            bench.acknowledged().len(),
            25,
            "answers to requests are acknowledged directly"
        );
    }
}

#[test]
fn our_database_is_described_page_by_page_but_for_our_own_router_lsa() {
    for network in [NetworkType::PointToPoint, NetworkType::Broadcast] {
        let mut bench = Bench::new(config(&[NetworkType::PointToPoint, network]));
        let first = Peer::new(0, 1);
        let database: Vec<Lsa> = (1..=200)
            .map(|id| lsa_of(LsType::AsExternal, id, 9, SEQ))
            .collect();
        bench.bring_up(&first, &database);
        bench.take();
        let second = Peer::dr(1, 200);
        bench.exchange(&second, &[]);
        let pages = bench.dbdescs();
        let described: Vec<LsaKey> = pages
            .iter()
            .flat_map(|page| page.headers.iter().map(|header| header.key))
            .collect();
        let expected: Vec<LsaKey> = database.iter().map(Lsa::key).collect();
        assert_eq!(described, expected);
        // The page must fit 1500 bytes: (1500 - 20 - 24 - 8) / 20 headers.
        assert!(pages.iter().all(|page| page.headers.len() <= 72));
        assert!(pages.iter().all(|page| page.mtu == MTU));
        assert!(pages.iter().all(|page| page.options == Options(0x42)));
    }
}

#[test]
fn an_unanswered_opening_is_repeated_until_it_is_answered() {
    let mut bench = Bench::point_to_point();
    let peer = Peer::new(0, 1);
    bench.hello(&peer);
    bench.advance(RXMT * 2);
    let openings = bench.dbdescs();
    assert_eq!(openings.len(), 3);
    assert!(openings.iter().all(|dbdesc| dbdesc == &openings[0]));
    assert_eq!(openings[0].flags, DbDescFlags::OPENING);
}

#[test]
fn the_slave_repeats_its_answer_to_a_duplicate_and_the_master_does_not() {
    let mut bench = Bench::point_to_point();
    let master = Peer::new(0, 200);
    bench.exchange(&master, &[]);
    let answer = bench.last_dbdesc();
    let duplicate = master.dbdesc(flags(false, false, true), answer.sequence, &[]);
    bench.take();
    bench.receive(&master, Body::DbDesc(duplicate));
    assert_eq!(bench.dbdescs(), [answer]);
    assert_eq!(bench.state(&master), Some(State::Full));

    let mut bench = Bench::point_to_point();
    let slave = Peer::new(0, 1);
    bench.hello(&slave);
    let asked = bench.last_dbdesc().sequence;
    let answer = slave.dbdesc(flags(false, true, false), asked, &[]);
    bench.receive(&slave, Body::DbDesc(answer.clone()));
    bench.take();
    bench.receive(&slave, Body::DbDesc(answer));
    assert_eq!(bench.dbdescs(), []);
    assert_eq!(bench.state(&slave), Some(State::Exchange));
    let duplicates = bench.router.counters().dropped(PacketDrop::DuplicateDbDesc);
    assert_eq!(duplicates, 1);
}

#[test]
fn the_slave_keeps_its_last_answer_for_the_dead_interval() {
    let mut bench = Bench::point_to_point();
    let master = Peer::new(0, 200);
    bench.exchange(&master, &[]);
    let sequence = bench.last_dbdesc().sequence;
    let duplicate = || Body::DbDesc(master.dbdesc(flags(false, false, true), sequence, &[]));
    bench.advance_with(&[&master], DEAD - Duration::from_millis(10));
    bench.receive(&master, duplicate());
    assert_eq!(bench.state(&master), Some(State::Full));
    bench.advance_with(&[&master], Duration::from_millis(20));
    bench.receive(&master, duplicate());
    assert_eq!(bench.state(&master), Some(State::ExStart));
}

#[test]
fn the_exchange_starts_over_on_what_is_out_of_sequence() {
    let base = |peer: &Peer, sequence| peer.dbdesc(flags(false, true, true), sequence, &[]);
    type Change = fn(&mut crate::packet::DbDesc);
    let cases: [(&str, Change); 5] = [
        ("the MS bit changes", |dbdesc| dbdesc.flags.master = false),
        ("the I bit returns", |dbdesc| dbdesc.flags.init = true),
        ("the options change", |dbdesc| dbdesc.options = Options::E),
        ("a number is left out", |dbdesc| dbdesc.sequence += 1),
        ("an LS type that cannot be", |dbdesc| {
            dbdesc.headers = vec![*lsa_of(LsType::Unknown(8), 1, 9, SEQ).header()];
        }),
    ];
    for (name, change) in cases {
        let mut bench = Bench::point_to_point();
        let peer = Peer::new(0, 200);
        bench.hello(&peer);
        let opening = peer.dbdesc(DbDescFlags::OPENING, 5, &[]);
        bench.receive(&peer, Body::DbDesc(opening));
        bench.receive(&peer, Body::DbDesc(base(&peer, 6)));
        assert_eq!(bench.state(&peer), Some(State::Exchange), "{name}");
        bench.take();
        let mut wrong = base(&peer, 7);
        change(&mut wrong);
        bench.receive(&peer, Body::DbDesc(wrong));
        assert_eq!(bench.state(&peer), Some(State::ExStart), "{name}");
        assert_eq!(bench.last_dbdesc().flags, DbDescFlags::OPENING, "{name}");
        assert_eq!(bench.router.counters().exchange_restarts, 1, "{name}");
    }
}

#[test]
fn i_or_ms_alone_makes_nobody_master() {
    let peer = Peer::new(0, 200);
    for wrong in [
        flags(true, true, false),
        flags(true, false, true),
        flags(false, true, true),
        flags(false, false, false),
    ] {
        let mut bench = Bench::point_to_point();
        bench.hello(&peer);
        bench.receive(&peer, Body::DbDesc(peer.dbdesc(wrong, 5, &[])));
        assert_eq!(bench.state(&peer), Some(State::ExStart), "{wrong:?}");
        assert_eq!(bench.router.counters().dropped(PacketDrop::ExStart), 1);
    }
}

#[test]
fn a_description_in_init_means_two_way() {
    let mut bench = Bench::point_to_point();
    let peer = Peer::new(0, 200);
    bench.receive(&peer, Body::Hello(peer.hello(&[])));
    assert_eq!(bench.state(&peer), Some(State::Init));
    let opening = peer.dbdesc(DbDescFlags::OPENING, 5, &[]);
    bench.receive(&peer, Body::DbDesc(opening));
    assert_eq!(bench.state(&peer), Some(State::Exchange));
}

#[test]
fn a_description_in_init_from_the_dr_elects_it_first() {
    let mut bench = Bench::broadcast();
    let dr = Peer::dr(0, 200);
    bench.receive(&dr, Body::Hello(dr.hello(&[])));
    let opening = dr.dbdesc(DbDescFlags::OPENING, 5, &[]);
    bench.receive(&dr, Body::DbDesc(opening));
    assert_eq!(bench.state(&dr), Some(State::Exchange));
}

#[test]
fn an_opening_from_the_slave_is_answered_by_ours() {
    let mut bench = Bench::point_to_point();
    let slave = Peer::new(0, 1);
    bench.hello(&slave);
    bench.take();
    let opening = slave.dbdesc(DbDescFlags::OPENING, 5, &[]);
    bench.receive(&slave, Body::DbDesc(opening));
    assert_eq!(bench.state(&slave), Some(State::ExStart));
    assert_eq!(bench.last_dbdesc().flags, DbDescFlags::OPENING);
}

#[test]
fn only_a_larger_mtu_is_refused() {
    for (mtu, accepted) in [(0, true), (1400, true), (1500, true), (1501, false)] {
        let mut bench = Bench::point_to_point();
        let peer = Peer::new(0, 200);
        bench.hello(&peer);
        let mut opening = peer.dbdesc(DbDescFlags::OPENING, 5, &[]);
        opening.mtu = mtu;
        bench.receive(&peer, Body::DbDesc(opening));
        let expected = match accepted {
            true => State::Exchange,
            false => State::ExStart,
        };
        assert_eq!(bench.state(&peer), Some(expected), "MTU {mtu}");
        let dropped = bench.router.counters().dropped(PacketDrop::Mtu);
        assert_eq!(dropped, u64::from(!accepted), "MTU {mtu}");
    }
}

#[test]
fn the_advertised_mtu_can_be_set() {
    let mut settings = config(&[NetworkType::PointToPoint]);
    settings.interfaces[0].advertise_mtu = Some(0);
    let mut bench = Bench::new(settings);
    bench.hello(&Peer::new(0, 1));
    assert_eq!(bench.last_dbdesc().mtu, 0);
}

#[test]
fn packets_fit_the_mtu_that_the_neighbor_was_told() {
    for (told, most) in [
        (None, 9000),
        (Some(0), 1500),
        (Some(1400), 1400),
        (Some(9600), 9000),
    ] {
        let mut settings = config(&[NetworkType::PointToPoint]);
        settings.interfaces[0].advertise_mtu = told;
        let mut interface = Interface::new(settings.interfaces[0].clone());
        assert_eq!(interface.body_capacity(), 0, "without a link");
        interface.link = Some(LinkState {
            mtu: 9000,
            ..link(0)
        });
        let headers = 20 + 24;
        assert_eq!(interface.body_capacity(), most - headers, "{told:?}");
    }
}

#[test]
fn an_unanswered_request_is_repeated_for_what_is_still_missing() {
    let mut bench = Bench::point_to_point();
    let peer = Peer::new(0, 200);
    let database = [
        lsa_of(LsType::AsExternal, 1, 9, SEQ),
        lsa_of(LsType::AsExternal, 2, 9, SEQ),
    ];
    bench.exchange(&peer, &database);
    assert_eq!(bench.requested().len(), 2);
    bench.update(&peer, &database[..1]);
    bench.take();
    bench.advance(RXMT);
    assert_eq!(bench.requested(), [database[1].key()]);
    bench.update(&peer, &database[1..]);
    assert_eq!(bench.state(&peer), Some(State::Full));
    bench.take();
    bench.advance(RXMT * 2);
    assert_eq!(bench.requested(), []);
}

#[test]
fn an_answer_that_another_neighbor_gives_counts() {
    let mut bench = Bench::new(config(&[NetworkType::PointToPoint; 2]));
    let (first, second) = (Peer::new(0, 200), Peer::new(1, 201));
    bench.bring_up(&first, &[]);
    let lsa = lsa_of(LsType::AsExternal, 1, 9, SEQ);
    bench.exchange(&second, std::slice::from_ref(&lsa));
    assert_eq!(bench.state(&second), Some(State::Loading));
    bench.update(&first, &[lsa]);
    assert_eq!(bench.state(&second), Some(State::Full));
}

#[test]
fn requests_are_answered_from_the_database_byte_for_byte() {
    let mut bench = Bench::point_to_point();
    let peer = Peer::new(0, 200);
    let lsa = lsa_of(LsType::OpaqueArea, 1, 9, SEQ);
    bench.bring_up(&peer, std::slice::from_ref(&lsa));
    bench.take();
    bench.advance(Duration::from_secs(3));
    bench.receive(&peer, Body::Request(vec![lsa.key()]));
    assert_eq!(
        bench.flooded(),
        [lsa.at_age(4)],
        "3 s old, and InfTransDelay"
    );
}

#[test]
fn a_request_for_what_we_do_not_have_starts_over() {
    let mut bench = Bench::point_to_point();
    let peer = Peer::new(0, 200);
    bench.bring_up(&peer, &[]);
    bench.receive(
        &peer,
        Body::Request(vec![lsa_of(LsType::AsExternal, 9, 9, SEQ).key()]),
    );
    assert_eq!(bench.state(&peer), Some(State::ExStart));
    assert_eq!(bench.router.counters().dropped(PacketDrop::BadRequest), 1);
}

#[test]
fn an_older_lsa_than_was_described_starts_over() {
    let mut bench = Bench::new(config(&[NetworkType::PointToPoint; 2]));
    let (first, second) = (Peer::new(0, 200), Peer::new(1, 201));
    let old = lsa_of(LsType::AsExternal, 1, 9, SEQ);
    let new = lsa_of(LsType::AsExternal, 1, 9, SEQ + 1);
    bench.bring_up(&first, std::slice::from_ref(&old));
    bench.exchange(&second, std::slice::from_ref(&new));
    assert_eq!(bench.state(&second), Some(State::Loading));
    bench.update(&second, &[old]);
    assert_eq!(bench.state(&second), Some(State::ExStart), "BadLSReq");
}

#[test]
fn lsas_before_the_exchange_are_dropped() {
    let mut bench = Bench::point_to_point();
    let peer = Peer::new(0, 200);
    bench.hello(&peer);
    bench.update(&peer, &[lsa_of(LsType::AsExternal, 1, 9, SEQ)]);
    assert_eq!(
        bench.router.counters().dropped(PacketDrop::NeighborState),
        1
    );
    assert_eq!(bench.router.lsdb(bench.now).count(), 0);
}

#[test]
fn a_neighbor_without_the_o_bit_is_told_of_no_opaque_lsas() {
    let mut bench = Bench::new(config(&[NetworkType::PointToPoint; 2]));
    let first = Peer::new(0, 200);
    let opaque = lsa_of(LsType::OpaqueArea, 1, 9, SEQ);
    let external = lsa_of(LsType::AsExternal, 1, 9, SEQ);
    bench.bring_up(&first, &[opaque.clone(), external.clone()]);
    let second = Peer::new(1, 1);
    bench.hello(&second);
    bench.take();
    let asked = {
        bench.advance(RXMT);
        bench.last_dbdesc().sequence
    };
    let mut answer = second.dbdesc(flags(false, false, false), asked, &[]);
    answer.options = Options::E;
    bench.receive(&second, Body::DbDesc(answer));
    let described: Vec<LsaKey> = bench
        .last_dbdesc()
        .headers
        .iter()
        .map(|header| header.key)
        .collect();
    assert_eq!(described, [external.key()]);
    // Nor is it flooded any.
    bench.take();
    bench.update(&first, &[lsa_of(LsType::OpaqueArea, 2, 9, SEQ)]);
    assert_eq!(bench.flooded(), []);
}

#[test]
fn an_external_lsa_in_a_stub_areas_description_starts_over() {
    let mut bench = Bench::new(crate::Config {
        area: AreaId([0, 0, 0, 1].into()),
        area_type: AreaType::Stub,
        ..config(&[NetworkType::PointToPoint])
    });
    let peer = Peer {
        options: Options::default(),
        ..Peer::new(0, 200)
    };
    bench.hello(&peer);
    let opening = peer.dbdesc(DbDescFlags::OPENING, 5, &[]);
    bench.receive(&peer, Body::DbDesc(opening));
    let external = lsa_of(LsType::AsExternal, 1, 9, SEQ);
    let page = peer.dbdesc(flags(false, true, true), 6, &[external]);
    bench.receive(&peer, Body::DbDesc(page));
    assert_eq!(bench.state(&peer), Some(State::ExStart));
}

#[test]
fn two_routers_become_full_within_milliseconds_of_the_first_hello() {
    let mut net = Net::new(2, &[(0, 1)], 1);
    let time = net.run_until(Duration::from_secs(5), Net::all_full);
    let limit = HELLO + Duration::from_millis(20);
    assert!(time.is_some_and(|time| time <= limit), "took {time:?}");
    net.run(Duration::from_secs(3));
    assert!(net.is_converged());
    assert_eq!(net.database(0).len(), 2, "a Router-LSA each");
}
