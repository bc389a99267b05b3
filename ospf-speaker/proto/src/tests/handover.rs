//! Routers that are handed over from one process to another, at any moment, mid-exchange too,
//! beside the same network in which nothing of that kind happens.

use std::time::{Duration, Instant};

use super::bench::vip;
use super::net::{Faults, Net, Trace};
use crate::packet::Body;
use crate::rng::Rng;
use crate::{External, ExternalKind, NeighborView, State, Stub};

const SEEDS: u64 = 24;
const SECOND: Duration = Duration::from_secs(1);
/// A triangle with a tail.
const WIRES: [(usize, usize); 4] = [(0, 1), (1, 2), (2, 0), (2, 3)];

/// One network, twice from the same seed.
struct Twins {
    stays: Net,
    moves: Net,
    /// Decides when the routers of `moves` are handed over, and nothing else.
    moments: Rng,
    /// How many handovers found a neighbour in each state.
    found: [usize; State::ALL.len()],
}

impl Twins {
    fn new(seed: u64, faults: Faults) -> Self {
        let net = || {
            let mut net = Net::new(4, &WIRES, seed);
            net.set_faults(faults);
            net
        };
        Self {
            stays: net(),
            moves: net(),
            moments: Rng::new(!seed),
            found: [0; State::ALL.len()],
        }
    }

    fn both(&mut self, what: impl Fn(&mut Net)) {
        what(&mut self.stays);
        what(&mut self.moves);
    }

    /// Lets the time go by with handovers at random moments of it.
    fn run(&mut self, time: Duration) {
        self.stays.run(time);
        let mut left = time;
        while !left.is_zero() {
            let step = (self.moments.below(SECOND / 8) + Duration::from_millis(1)).min(left);
            self.moves.run(step);
            left -= step;
            let router = usize::try_from(self.moments.next_u64() % 4).unwrap();
            for neighbor in self.moves.routers[router].neighbors() {
                self.found[neighbor.state as usize] += 1;
            }
            self.moves.hand_over(router);
        }
    }

    /// Whether both networks have sent the same, at the same times, and look the same.
    fn check(&self, seed: u64) {
        let begin = |net: &Net| net.trace[0].at;
        let sent = |net: &Net, trace: &Trace| (trace.at - begin(net), trace.clone());
        for (stays, moves) in self.stays.trace.iter().zip(&self.moves.trace) {
            let (at, stays) = sent(&self.stays, stays);
            let (found_at, moves) = sent(&self.moves, moves);
            assert_eq!(
                (found_at, moves.router, &moves.packet),
                (at, stays.router, &stays.packet),
                "seed {seed}: after {at:?}"
            );
        }
        assert_eq!(
            self.moves.trace.len(),
            self.stays.trace.len(),
            "seed {seed}"
        );
        for router in 0..4 {
            let (stays, moves) = (&self.stays.routers[router], &self.moves.routers[router]);
            assert_eq!(
                self.moves.database(router),
                self.stays.database(router),
                "seed {seed}: the database of router {router}"
            );
            assert_eq!(
                neighbors(moves.neighbors(), self.moves.now),
                neighbors(stays.neighbors(), self.stays.now),
                "seed {seed}: the neighbours of router {router}"
            );
            assert_eq!(
                moves.announced(),
                stays.announced(),
                "seed {seed}: {router}"
            );
            assert_eq!(moves.counters(), stays.counters(), "seed {seed}: {router}");
        }
    }
}

/// Neighbours with what is comparable between two networks whose clocks began apart.
fn neighbors(
    views: impl Iterator<Item = NeighborView>,
    now: Instant,
) -> Vec<(Duration, Duration, usize, State)> {
    let view = |view: NeighborView| {
        let since = now.saturating_duration_since(view.since);
        let left = view.dead_at.saturating_duration_since(now);
        (since, left, view.unacknowledged, view.state)
    };
    views.map(view).collect()
}

fn external(stub: Stub) -> External {
    External {
        prefix: stub.prefix,
        kind: ExternalKind::Type2,
        metric: stub.metric,
    }
}

#[test]
fn a_network_with_handovers_behaves_as_one_without() {
    let mut found = [0; State::ALL.len()];
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let faults = Faults {
            loss: rng.next_u64() % 30,
            duplication: rng.next_u64() % 10,
            reordering: rng.next_u64() % 20,
        };
        let mut twins = Twins::new(seed, faults);
        for _ in 0..12 {
            twins.run(rng.below(SECOND * 2));
            let router = usize::try_from(rng.next_u64() % 4).unwrap();
            let last = u8::try_from(rng.next_u64() % 5).unwrap();
            let set: Vec<Stub> = (0..last).map(vip).collect();
            let routes: Vec<External> = set.iter().map(|stub| external(*stub)).collect();
            let again = rng.next_u64();
            match rng.next_u64() % 8 {
                0 => twins.both(|net| net.crash(router, again)),
                1 => twins.both(|net| net.set_wire(router, false)),
                2 => (0..WIRES.len()).for_each(|wire| twins.both(|net| net.set_wire(wire, true))),
                3 => twins.both(|net| net.stop(router)),
                4 => twins.both(|net| net.announce_externals(router, &routes)),
                _ => twins.both(|net| net.announce(router, &set)),
            }
        }
        twins.run(SECOND * 10);
        twins.check(seed);
        for (sum, found) in found.iter_mut().zip(twins.found) {
            *sum += found;
        }
    }
    for state in [
        State::Init,
        State::ExStart,
        State::Exchange,
        State::Loading,
        State::Full,
    ] {
        assert!(
            found[state as usize] > 0,
            "no handover with a neighbour in {state}"
        );
    }
}

#[test]
fn a_handover_ends_no_adjacency() {
    let mut net = Net::new(4, &WIRES, 7);
    net.run_until(SECOND * 20, |net| net.all_full() && net.is_converged())
        .unwrap();
    let before = net.trace.len();
    for round in 0..40 {
        net.hand_over(round % 4);
        net.run(Duration::from_millis(130));
    }
    assert!(net.all_full());
    for trace in &net.trace[before..] {
        match &trace.packet.body {
            Body::Hello(hello) => assert!(!hello.neighbors.is_empty(), "1-Way: {trace:?}"),
            Body::DbDesc(_) => panic!("a new exchange: {trace:?}"),
            Body::Request(_) | Body::Update(_) | Body::Ack(_) => {}
        }
    }
}

#[test]
fn a_successor_with_another_cost_tells_it() {
    let mut net = Net::new(2, &[(0, 1)], 1);
    net.run_until(SECOND * 20, |net| net.all_full() && net.is_converged())
        .unwrap();
    net.run(SECOND * 3);
    let has_cost = |net: &Net, cost: u16| {
        let lsas = net.database(1).into_iter();
        let mut links = lsas.flat_map(|lsa| lsa.links);
        links.any(|link| link.metric == cost)
    };
    assert!(!has_cost(&net, 77));
    net.set_cost(0, 77);
    net.hand_over(0);
    net.run(SECOND * 2);
    assert!(has_cost(&net, 77), "{:?}", net.database(1));
    assert!(net.all_full());
}

#[test]
fn what_the_neighbours_see_must_not_change() {
    let mut net = Net::new(2, &[(0, 1)], 1);
    net.run(SECOND * 10);
    let snapshot = net.routers[0].snapshot(net.now);
    let config = net.config(0);
    let refused = |change: fn(&mut crate::Config)| {
        let mut changed = config.clone();
        change(&mut changed);
        let restored = crate::Router::restore(changed, snapshot.clone(), net.now);
        restored.unwrap_err().to_string()
    };
    assert_eq!(
        refused(|config| config.interfaces[0].dead_interval = 9),
        "the dead interval of interface 0 is 9 in the new configuration, 4 in the running one"
    );
    let words = refused(|config| config.router_id.0 = [10, 0, 0, 77].into());
    assert!(
        words.starts_with("the router id is RouterId(10.0.0.77)"),
        "{words}"
    );
    let words = refused(|config| config.interfaces.clear());
    assert!(
        words.starts_with("the number of interfaces is 0"),
        "{words}"
    );
}

#[test]
fn a_spoiled_snapshot_is_refused_with_the_place() {
    let mut net = Net::new(2, &[(0, 1)], 1);
    net.run(SECOND * 10);
    let good = serde_json::to_string(&net.routers[0].snapshot(net.now)).unwrap();
    for (find, replace, words) in [
        ("\"full\"", "\"fuller\"", "fuller"),
        ("\"lsa\":\"", "\"lsa\":\"zz", "hexadecimal"),
        ("\"stubs\":[]", "\"stubs\":3", "invalid type"),
        ("\"since\":", "\"sinze\":", "sinze"),
    ] {
        let bad = good.replacen(find, replace, 1);
        assert_ne!(bad, good, "{find} is not in {good}");
        let error = serde_json::from_str::<crate::Snapshot>(&bad)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(words) || error.contains("missing field"),
            "{error}"
        );
    }
}
