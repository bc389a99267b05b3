//! The interface machine (RFC 2328 §9.3), whole: Down, Point-to-Point and DROther, each with
//! every event, those that change nothing too.

use super::bench::*;
use crate::packet::Body;
use crate::{Event, InterfaceId, LinkState};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Up,
    Down,
    /// InterfaceDown and InterfaceUp in one: another address.
    Moved,
    /// Another MTU, which no neighbour sees.
    Resized,
    /// A neighbour becomes 1-Way.
    NeighborChange,
}

/// What is seen afterwards: whether the interface is up, its neighbours, whether somebody was
/// elected (or nobody any more).
type Seen = (bool, usize, bool);

const UP: bool = true;
const DOWN: bool = false;

/// Each event in Down, in Point-to-Point and in DROther; the latter two with a neighbour.
const TABLE: [(Input, [Seen; 3]); 5] = [
    //                       Down               Point-to-Point     DROther
    (Input::Up, [(UP, 0, false), (UP, 1, false), (UP, 1, false)]),
    (
        Input::Down,
        [(DOWN, 0, false), (DOWN, 0, false), (DOWN, 0, true)],
    ),
    (
        Input::Moved,
        [(UP, 0, false), (UP, 0, false), (UP, 0, true)],
    ),
    (
        Input::Resized,
        [(UP, 0, false), (UP, 1, false), (UP, 1, false)],
    ),
    (
        Input::NeighborChange,
        [(DOWN, 0, false), (UP, 1, false), (UP, 1, true)],
    ),
];

fn perform(bench: &mut Bench, peer: &Peer, input: Input) {
    let state = match input {
        Input::Up => Some(link(0)),
        Input::Down => None,
        Input::Moved => Some(LinkState {
            address: [10, 1, 0, 101].into(),
            ..link(0)
        }),
        Input::Resized => Some(LinkState {
            mtu: 9000,
            ..link(0)
        }),
        Input::NeighborChange => {
            bench.receive(peer, Body::Hello(peer.hello(&[])));
            return;
        }
    };
    bench
        .router
        .handle_interface(bench.now, InterfaceId(0), state);
    bench.drain();
}

fn seen(bench: &Bench) -> Seen {
    let elects = |event: &Event| matches!(event, Event::DesignatedRouter { .. });
    (
        bench.router.link(InterfaceId(0)).is_some(),
        bench.router.neighbors().count(),
        bench.events.iter().any(elects),
    )
}

#[test]
fn every_state_and_event_goes_where_the_rfc_says() {
    let peer = Peer::dr(0, 50);
    for (input, expected) in TABLE {
        let mut down = Bench::point_to_point();
        perform(&mut down, &peer, Input::Down);
        let mut states = [down, Bench::point_to_point(), Bench::broadcast()];
        for (state, (bench, expected)) in states.iter_mut().zip(expected).enumerate() {
            if state > 0 {
                bench.hello(&peer);
            }
            bench.events.clear();
            perform(bench, &peer, input);
            let name = ["Down", "Point-to-Point", "DROther"][state];
            assert_eq!(seen(bench), expected, "{input:?} in {name}");
            let speaks = bench.router.poll_timeout().is_some();
            assert_eq!(speaks, expected.0, "{input:?} in {name}: the Hello timer");
        }
    }
}
