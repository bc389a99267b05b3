//! Seeded runs of a small network under loss, duplication, reordering, crashes and flapping
//! wires, with the properties that must hold in every one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::bench::{PACE, vip};
use super::net::{Faults, Net, router_id};
use crate::Stub;
use crate::packet::Body;
use crate::rng::Rng;

const SEEDS: u64 = 150;
const SECOND: Duration = Duration::from_secs(1);
/// A triangle with a tail.
const WIRES: [(usize, usize); 4] = [(0, 1), (1, 2), (2, 0), (2, 3)];

/// What the routers should announce in the end.
type Wanted = [Vec<Stub>; 4];

/// One random run; returns the network after a time without faults.
fn run(seed: u64) -> (Net, Wanted) {
    let mut rng = Rng::new(seed);
    let mut net = Net::new(4, &WIRES, seed);
    let mut wanted = Wanted::default();
    net.set_faults(Faults {
        loss: rng.next_u64() % 30,
        duplication: rng.next_u64() % 10,
        reordering: rng.next_u64() % 20,
    });
    let mut down = None;
    for _ in 0..25 {
        net.run(rng.below(SECOND * 2));
        let router = usize::try_from(rng.next_u64() % 4).unwrap();
        match rng.next_u64() % 8 {
            0 => {
                net.crash(router, rng.next_u64());
                net.announce(router, &wanted[router].clone());
            }
            1 => match down.take() {
                Some(wire) => net.set_wire(wire, true),
                None => {
                    net.set_wire(router, false);
                    down = Some(router);
                }
            },
            _ => {
                let last = u8::try_from(rng.next_u64() % 5).unwrap();
                let mut set: Vec<Stub> = (0..last).map(vip).collect();
                set.rotate_left(usize::from(last / 2));
                net.announce(router, &set);
                wanted[router] = set;
            }
        }
    }
    if let Some(wire) = down {
        net.set_wire(wire, true);
    }
    net.set_faults(Faults::default());
    net.run(SECOND * 20);
    (net, wanted)
}

/// Every instance of a router's own Router-LSA that it sent, by its first departure. A crash
/// starts the numbers anew only where nobody had a copy, so a number may come twice with other
/// contents; contents are part of the key.
fn departures(net: &Net, router: usize) -> BTreeMap<(i32, u16), Instant> {
    let mut first = BTreeMap::new();
    for trace in net.trace.iter().filter(|trace| trace.router == router) {
        if let Body::Update(lsas) = &trace.packet.body {
            for lsa in lsas {
                let header = lsa.header();
                if header.key.advertising_router == router_id(router) {
                    first
                        .entry((header.sequence, header.checksum))
                        .or_insert(trace.at);
                }
            }
        }
    }
    first
}

#[test]
fn after_the_faults_all_routers_agree_on_what_is_wanted_and_are_quiet() {
    for seed in 0..SEEDS {
        let (net, wanted) = run(seed);
        assert!(net.all_full(), "seed {seed}: not all adjacencies are Full");
        assert!(net.is_converged(), "seed {seed}: the databases differ");
        let quiet_since = net.now - SECOND * 10;
        let late = net
            .trace
            .iter()
            .find(|trace| trace.at > quiet_since && !matches!(trace.packet.body, Body::Hello(_)));
        assert!(late.is_none(), "seed {seed}: still talking: {late:?}");
        for (router, wanted) in wanted.iter().enumerate() {
            for index in 0..5 {
                let prefix = vip(index).prefix;
                let announced = net.routers[3]
                    .announcers(prefix)
                    .contains(&router_id(router));
                let expected = wanted.iter().any(|stub| stub.prefix == prefix);
                assert_eq!(
                    announced, expected,
                    "seed {seed}: router {router} and {prefix}"
                );
            }
        }
    }
}

#[test]
fn two_instances_of_one_run_are_never_closer_than_the_pace() {
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let mut net = Net::new(4, &WIRES, seed);
        for _ in 0..30 {
            net.run(rng.below(SECOND));
            let router = usize::try_from(rng.next_u64() % 4).unwrap();
            let last = u8::try_from(rng.next_u64() % 5).unwrap();
            net.announce(router, &(0..last).map(vip).collect::<Vec<_>>());
        }
        net.run(SECOND * 3);
        for router in 0..4 {
            let times: Vec<Instant> = departures(&net, router).into_values().collect();
            for pair in times.windows(2) {
                let gap = pair[1] - pair[0];
                assert!(gap >= PACE, "seed {seed}: router {router} after {gap:?}");
            }
        }
    }
}

#[test]
fn transit_through_us_is_the_last_resort_and_we_are_never_designated() {
    for seed in 0..SEEDS / 10 {
        let (net, _) = run(seed);
        for trace in &net.trace {
            if let Body::Hello(hello) = &trace.packet.body {
                assert_eq!(hello.priority, 0);
            }
        }
        for lsa in net.database(0) {
            for link in lsa.links {
                let is_transit = !matches!(link.kind, crate::LinkKind::Stub);
                assert!(
                    !is_transit || link.metric == 0xffff,
                    "seed {seed}: {link:?}"
                );
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| {
        let (net, _) = run(seed);
        let start = net.trace[0].at;
        net.trace
            .into_iter()
            .map(|trace| (trace.at - start, trace.router, trace.packet))
            .collect::<Vec<_>>()
    };
    assert!(trace(7) == trace(7));
    assert!(trace(7) != trace(8));
}
