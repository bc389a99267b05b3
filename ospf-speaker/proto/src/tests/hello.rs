//! Hellos: who is heard, who is answered, what is dropped.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::bench::*;
use crate::packet::{ALL_D_ROUTERS, ALL_SPF_ROUTERS, Body, Header, Options, Packet};
use crate::{AreaId, AreaType, Event, InterfaceId, NetworkType, PacketDrop, RouterId, State};

#[test]
fn a_neighbor_that_does_not_list_us_is_answered_at_once() {
    let mut bench = Bench::point_to_point();
    let peer = Peer::new(0, 1);
    bench.receive(&peer, Body::Hello(peer.hello(&[])));
    assert_eq!(bench.state(&peer), Some(State::Init));
    let hellos = bench.hellos();
    assert_eq!(hellos.len(), 1);
    assert_eq!(hellos[0].neighbors, [peer.router_id]);
    assert_eq!(hellos[0].priority, 0);
    // The same once more is not answered before the next Hello is due.
    bench.receive(&peer, Body::Hello(peer.hello(&[])));
    assert_eq!(bench.hellos().len(), 1);
}

#[test]
fn the_first_hello_comes_before_the_first_database_description() {
    let mut bench = Bench::point_to_point();
    bench.hello(&Peer::new(0, 1));
    let kinds: Vec<bool> = bench
        .sent
        .iter()
        .map(|sent| matches!(sent.body, Body::Hello(_)))
        .collect();
    assert_eq!(kinds, [true, false], "a Hello, then the opening");
}

#[test]
fn without_neighbors_the_first_hello_leaves_after_one_interval() {
    let mut bench = Bench::point_to_point();
    bench.advance(HELLO - Duration::from_millis(1));
    assert_eq!(bench.hellos().len(), 0);
    bench.advance(Duration::from_millis(1));
    assert_eq!(bench.hellos().len(), 1);
    bench.advance(HELLO * 5);
    assert_eq!(bench.hellos().len(), 6);
}

#[test]
fn on_a_segment_the_first_hello_waits_for_dr_and_bdr_to_be_heard() {
    let mut bench = Bench::broadcast();
    let (mut dr, mut bdr, mut other) = (Peer::dr(0, 1), Peer::new(0, 2), Peer::new(0, 3));
    for peer in [&mut dr, &mut bdr, &mut other] {
        peer.dr = Ipv4Addr::new(10, 1, 0, 1);
        peer.bdr = Ipv4Addr::new(10, 1, 0, 2);
    }
    bench.hello(&other);
    bench.hello(&bdr);
    assert_eq!(bench.hellos().len(), 0, "the DR would see itself missing");
    bench.hello(&dr);
    let first = bench.hellos().remove(0);
    assert_eq!(
        first.neighbors,
        [dr.router_id, bdr.router_id, other.router_id]
    );
}

#[test]
fn a_neighbor_that_restarts_is_answered_at_once() {
    let mut bench = Bench::point_to_point();
    let peer = Peer::new(0, 1);
    bench.bring_up(&peer, &[]);
    bench.take();
    bench.receive(&peer, Body::Hello(peer.hello(&[])));
    assert_eq!(bench.state(&peer), Some(State::Init));
    assert_eq!(bench.hellos().len(), 1);
}

#[test]
fn a_silent_neighbor_is_forgotten_after_the_dead_interval() {
    let mut bench = Bench::point_to_point();
    let peer = Peer::new(0, 1);
    bench.bring_up(&peer, &[]);
    bench.advance(DEAD - Duration::from_millis(1));
    assert_eq!(bench.state(&peer), Some(State::Full));
    bench.advance(Duration::from_millis(1));
    assert_eq!(bench.state(&peer), None);
    assert!(bench.events.iter().any(|event| matches!(
        event,
        Event::NeighborState {
            from: State::Full,
            to: State::Down,
            ..
        }
    )));
}

#[test]
fn bfd_ends_the_adjacency_at_once() {
    let mut bench = Bench::point_to_point();
    let peer = Peer::new(0, 1);
    bench.bring_up(&peer, &[]);
    let stranger = Ipv4Addr::new(10, 1, 0, 9);
    bench
        .router
        .handle_neighbor_lost(bench.now, InterfaceId(0), stranger);
    assert_eq!(bench.state(&peer), Some(State::Full));
    bench
        .router
        .handle_neighbor_lost(bench.now, InterfaceId(0), peer.address);
    assert_eq!(bench.state(&peer), None);
}

#[test]
fn hellos_that_disagree_are_dropped_by_reason() {
    let peer = Peer::new(0, 1);
    let good = peer.hello(&[]);
    let cases = [
        (
            PacketDrop::NetworkMask,
            "network mask 255.255.0.0 in place of 255.255.255.0",
            crate::packet::Hello {
                network_mask: Ipv4Addr::new(255, 255, 0, 0),
                ..good.clone()
            },
        ),
        (
            PacketDrop::HelloInterval,
            "hello interval 10 s in place of 1 s",
            crate::packet::Hello {
                hello_interval: 10,
                ..good.clone()
            },
        ),
        (
            PacketDrop::DeadInterval,
            "dead interval 40 s in place of 4 s",
            crate::packet::Hello {
                dead_interval: 40,
                ..good.clone()
            },
        ),
        (
            PacketDrop::AreaOptions,
            "Options(0x00) (E 0x02, N 0x08) where we are in a normal area",
            crate::packet::Hello {
                options: Options::default(),
                ..good.clone()
            },
        ),
        (
            PacketDrop::AreaOptions,
            "Options(0x0a) (E 0x02, N 0x08) where we are in a normal area",
            crate::packet::Hello {
                options: Options::E.union(Options::N),
                ..good
            },
        ),
    ];
    for (reason, words, hello) in cases {
        let mut bench = Bench::broadcast();
        bench.receive(&peer, Body::Hello(hello));
        let [Event::PacketDropped { detail, .. }] = &bench.events[..] else {
            panic!("not one drop but {:?}", bench.events);
        };
        assert_eq!(detail, words);
        assert_eq!(bench.router.counters().dropped(reason), 1, "{reason}");
        assert_eq!(bench.state(&peer), None, "{reason}");
    }
}

#[test]
fn on_a_point_to_point_link_the_mask_does_not_matter() {
    let mut bench = Bench::point_to_point();
    let peer = Peer::new(0, 1);
    let hello = crate::packet::Hello {
        network_mask: Ipv4Addr::UNSPECIFIED,
        ..peer.hello(&[OUR_ID])
    };
    bench.receive(&peer, Body::Hello(hello));
    assert_eq!(bench.state(&peer), Some(State::ExStart));
}

#[test]
fn stub_areas_and_nssas_have_their_own_bits() {
    for (area_type, options) in [
        (AreaType::Stub, Options::default()),
        (AreaType::Nssa, Options::N),
    ] {
        let mut bench = Bench::new(crate::Config {
            area: AreaId(Ipv4Addr::new(0, 0, 0, 1)),
            area_type,
            ..config(&[NetworkType::PointToPoint])
        });
        bench.advance(HELLO);
        assert_eq!(bench.hellos()[0].options, options, "{area_type:?}");
        let peer = Peer {
            options,
            ..Peer::new(0, 1)
        };
        bench.bring_up(&peer, &[]);
    }
}

#[test]
fn packets_that_are_not_for_us_are_dropped_by_reason() {
    let mut bench = Bench::broadcast();
    let peer = Peer::new(0, 1);
    let hello = |peer: &Peer| Body::Hello(peer.hello(&[]));
    let dropped = |bench: &Bench, reason| bench.router.counters().dropped(reason);

    bench.receive_at(&peer, ALL_D_ROUTERS, hello(&peer));
    bench.receive_at(&peer, Ipv4Addr::new(10, 1, 0, 50), hello(&peer));
    assert_eq!(dropped(&bench, PacketDrop::WrongDestination), 2);

    let foreign = Peer {
        address: Ipv4Addr::new(10, 2, 0, 1),
        ..peer.clone()
    };
    bench.receive(&foreign, hello(&foreign));
    assert_eq!(dropped(&bench, PacketDrop::WrongSubnet), 1);

    let own = Peer {
        address: link(0).address,
        router_id: OUR_ID,
        ..peer.clone()
    };
    bench.receive(&own, hello(&own));
    assert_eq!(dropped(&bench, PacketDrop::OwnPacket), 1);
    assert!(
        bench
            .events
            .iter()
            .all(|event| !matches!(event, Event::DuplicateRouterId { .. }))
    );

    let twin = Peer {
        router_id: OUR_ID,
        ..peer.clone()
    };
    bench.receive(&twin, hello(&twin));
    assert_eq!(dropped(&bench, PacketDrop::OwnRouterId), 1);
    assert!(bench.events.contains(&Event::DuplicateRouterId {
        interface: InterfaceId(0),
        address: twin.address,
    }));

    let zero = Peer {
        router_id: RouterId(Ipv4Addr::UNSPECIFIED),
        ..peer.clone()
    };
    bench.receive(&zero, hello(&zero));
    assert_eq!(dropped(&bench, PacketDrop::ZeroRouterId), 1);

    let other_area = Packet {
        header: Header {
            router_id: peer.router_id,
            area: AreaId(Ipv4Addr::new(0, 0, 0, 9)),
        },
        body: hello(&peer),
    };
    bench.router.handle_packet(
        bench.now,
        InterfaceId(0),
        peer.address,
        ALL_SPF_ROUTERS,
        &other_area.encode(),
    );
    assert_eq!(dropped(&bench, PacketDrop::WrongArea), 1);

    bench.receive(&peer, Body::Ack(vec![]));
    assert_eq!(dropped(&bench, PacketDrop::UnknownNeighbor), 1);
    assert_eq!(bench.router.neighbors().count(), 0);
}

#[test]
fn drops_of_one_reason_make_one_event_a_minute() {
    let mut bench = Bench::broadcast();
    let peer = Peer::new(0, 1);
    let damaged = |bench: &mut Bench| {
        bench.router.handle_packet(
            bench.now,
            peer.interface,
            peer.address,
            ALL_SPF_ROUTERS,
            b"not OSPF",
        );
        bench.drain();
    };
    let events = |bench: &Bench| {
        let is_drop = |event: &&Event| matches!(event, Event::PacketDropped { .. });
        bench.events.iter().filter(is_drop).count()
    };
    for _ in 0..10 {
        damaged(&mut bench);
    }
    assert_eq!(events(&bench), 1);
    bench.advance(Duration::from_secs(60));
    damaged(&mut bench);
    assert_eq!(events(&bench), 2);
    assert_eq!(bench.router.counters().dropped(PacketDrop::Version), 11);
}

#[test]
fn the_number_of_neighbors_is_bounded() {
    for (network, limit) in [(NetworkType::PointToPoint, 4), (NetworkType::Broadcast, 64)] {
        let mut bench = Bench::new(config(&[network]));
        for last in 1..=70 {
            let peer = Peer::new(0, last);
            bench.receive(&peer, Body::Hello(peer.hello(&[])));
        }
        assert_eq!(bench.router.neighbors().count(), limit);
        let refused = bench
            .router
            .counters()
            .dropped(PacketDrop::TooManyNeighbors);
        assert_eq!(refused, 70 - u64::try_from(limit).unwrap());
    }
}

#[test]
fn a_new_router_id_at_an_address_ends_the_old_adjacency() {
    for network in [NetworkType::PointToPoint, NetworkType::Broadcast] {
        let mut bench = Bench::new(config(&[network]));
        let before = Peer::dr(0, 1);
        bench.bring_up(&before, &[]);
        let after = Peer {
            router_id: RouterId(Ipv4Addr::new(10, 0, 0, 77)),
            ..before.clone()
        };
        bench.receive(&after, Body::Hello(after.hello(&[])));
        assert_eq!(bench.state(&before), None);
        assert_eq!(bench.state(&after), Some(State::Init));
    }
}

#[test]
fn there_is_an_adjacency_with_the_designated_routers_only() {
    let mut bench = Bench::broadcast();
    let (mut dr, mut bdr, mut other) = (Peer::dr(0, 1), Peer::new(0, 2), Peer::new(0, 3));
    for peer in [&mut dr, &mut bdr, &mut other] {
        peer.dr = Ipv4Addr::new(10, 1, 0, 1);
        peer.bdr = Ipv4Addr::new(10, 1, 0, 2);
    }
    for peer in [&dr, &bdr, &other] {
        bench.hello(peer);
    }
    assert_eq!(bench.state(&dr), Some(State::ExStart));
    assert_eq!(bench.state(&bdr), Some(State::ExStart));
    assert_eq!(bench.state(&other), Some(State::TwoWay));

    // The other one becomes Backup in the place of the second.
    bdr.bdr = other.address;
    other.bdr = other.address;
    bench.hello(&bdr);
    bench.hello(&other);
    assert_eq!(bench.state(&bdr), Some(State::TwoWay), "AdjOK? says no");
    assert_eq!(bench.state(&other), Some(State::ExStart), "AdjOK? says yes");
    let view: Vec<(bool, bool)> = bench
        .router
        .neighbors()
        .map(|neighbor| (neighbor.is_dr, neighbor.is_bdr))
        .collect();
    assert_eq!(view, [(true, false), (false, false), (false, true)]);
}

#[test]
fn an_address_change_is_a_new_interface_and_an_mtu_change_is_not() {
    let mut bench = Bench::point_to_point();
    let peer = Peer::new(0, 1);
    bench.bring_up(&peer, &[]);
    let smaller = crate::LinkState {
        mtu: 1400,
        ..link(0)
    };
    bench
        .router
        .handle_interface(bench.now, InterfaceId(0), Some(smaller));
    assert_eq!(bench.state(&peer), Some(State::Full));
    let moved = crate::LinkState {
        address: Ipv4Addr::new(10, 1, 0, 101),
        ..smaller
    };
    bench
        .router
        .handle_interface(bench.now, InterfaceId(0), Some(moved));
    assert_eq!(bench.state(&peer), None);
    bench
        .router
        .handle_interface(bench.now, InterfaceId(0), None);
    assert_eq!(bench.router.link(InterfaceId(0)), None);
    bench.receive(&peer, Body::Hello(peer.hello(&[])));
    let dropped = bench.router.counters().dropped(PacketDrop::InterfaceDown);
    assert_eq!(dropped, 1);
    bench.take();
    bench.advance(DEAD * 3);
    assert!(
        bench.sent.is_empty(),
        "sent on a dead interface: {:?}",
        bench.sent
    );
}
