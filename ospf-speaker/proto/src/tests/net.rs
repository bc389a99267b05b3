//! Several routers joined by links on one virtual clock.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::bench::{epoch, interface};
use crate::packet::{Body, Packet};
use crate::rng::Rng;
use crate::{
    AreaId, AreaType, Config, External, InterfaceId, LinkState, LsaView, NetworkType, Router,
    RouterId, State, Stub, Transmit,
};

/// How a link treats packets, in percent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    pub(super) loss: u64,
    pub(super) duplication: u64,
    pub(super) reordering: u64,
}

/// A point-to-point link between two routers.
#[derive(Debug, Clone)]
struct Wire {
    ends: [(usize, InterfaceId); 2],
    is_up: bool,
}

/// A packet in flight.
#[derive(Debug)]
struct Flight {
    wire: usize,
    to: usize,
    transmit: Transmit,
}

/// A packet that left a router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trace {
    pub(super) at: Instant,
    pub(super) router: usize,
    pub(super) packet: Packet,
}

/// The network.
pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) routers: Vec<Router>,
    configs: Vec<Config>,
    wires: Vec<Wire>,
    flights: BTreeMap<(Instant, u64), Flight>,
    flown: u64,
    faults: Faults,
    rng: Rng,
    pub(super) trace: Vec<Trace>,
}

impl Net {
    /// `count` routers 10.0.0.1 and up, joined by `wires`; wire `n` is the subnet 10.1.n.0/31.
    pub(super) fn new(count: usize, wires: &[(usize, usize)], seed: u64) -> Self {
        let mut configs: Vec<Config> = (0..count)
            .map(|index| Config {
                router_id: router_id(index),
                area: AreaId(Ipv4Addr::UNSPECIFIED),
                area_type: AreaType::Normal,
                interfaces: Vec::new(),
                is_asbr: false,
                sequence_hint: None,
            })
            .collect();
        let wires: Vec<Wire> = wires
            .iter()
            .map(|&(a, b)| {
                let mut attach = |router: usize| {
                    configs[router]
                        .interfaces
                        .push(interface(NetworkType::PointToPoint));
                    (router, InterfaceId(configs[router].interfaces.len() - 1))
                };
                Wire {
                    ends: [attach(a), attach(b)],
                    is_up: true,
                }
            })
            .collect();
        let now = epoch();
        let mut net = Self {
            now,
            routers: configs
                .iter()
                .map(|config| Router::new(config.clone(), seed, now).unwrap())
                .collect(),
            configs,
            wires,
            flights: BTreeMap::new(),
            flown: 0,
            faults: Faults::default(),
            rng: Rng::new(seed),
            trace: Vec::new(),
        };
        for router in 0..count {
            net.plug_in(router);
        }
        net
    }

    pub(super) fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Takes a wire down or up; both ends notice.
    pub(super) fn set_wire(&mut self, wire: usize, is_up: bool) {
        self.wires[wire].is_up = is_up;
        for end in 0..2 {
            let (router, id) = self.wires[wire].ends[end];
            let link = is_up.then(|| link(wire, end));
            self.routers[router].handle_interface(self.now, id, link);
            self.drain(router);
        }
    }

    /// The router dies without a word and starts again with nothing.
    pub(super) fn crash(&mut self, router: usize, seed: u64) {
        let config = self.configs[router].clone();
        self.routers[router] = Router::new(config, seed, self.now).unwrap();
        self.plug_in(router);
    }

    /// Another process takes the router over and goes on with it, under the configuration as it
    /// is now.
    pub(super) fn hand_over(&mut self, router: usize) {
        let snapshot = self.routers[router].snapshot(self.now);
        let text = serde_json::to_string(&snapshot).unwrap();
        let snapshot = serde_json::from_str(&text).unwrap();
        let config = self.configs[router].clone();
        self.routers[router] = Router::restore(config, snapshot, self.now).unwrap();
    }

    pub(super) fn config(&self, router: usize) -> Config {
        self.configs[router].clone()
    }

    pub(super) fn set_cost(&mut self, router: usize, cost: u16) {
        self.configs[router].interfaces[0].cost = cost;
    }

    /// The router begins its planned stop.
    pub(super) fn stop(&mut self, router: usize) {
        self.routers[router].shutdown(self.now);
        self.drain(router);
    }

    pub(super) fn announce(&mut self, router: usize, stubs: &[Stub]) {
        self.routers[router].announce(self.now, stubs, &[]).unwrap();
        self.drain(router);
    }

    pub(super) fn announce_externals(&mut self, router: usize, externals: &[External]) {
        let result = self.routers[router].announce(self.now, &[], externals);
        result.unwrap();
        self.drain(router);
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.next().filter(|&at| at <= end) {
            self.step(at);
        }
        self.now = end;
    }

    /// Runs until the condition holds; says how long it took, or nothing after `limit`.
    pub(super) fn run_until(
        &mut self,
        limit: Duration,
        condition: impl Fn(&Self) -> bool,
    ) -> Option<Duration> {
        let start = self.now;
        while !condition(self) {
            let at = self.next().filter(|&at| at <= start + limit)?;
            self.step(at);
        }
        Some(self.now - start)
    }

    /// Whether every neighbour of every router is Full, and there are as many as wires that are up.
    pub(super) fn all_full(&self) -> bool {
        let up = self.wires.iter().filter(|wire| wire.is_up).count();
        let states: Vec<State> = self
            .routers
            .iter()
            .flat_map(|router| router.neighbors().map(|neighbor| neighbor.state))
            .collect();
        states.len() == up * 2 && states.iter().all(|&state| state == State::Full)
    }

    /// The database of a router, ages left out.
    pub(super) fn database(&self, router: usize) -> Vec<LsaView> {
        self.routers[router]
            .lsdb(self.now)
            .map(|lsa| LsaView { age: 0, ..lsa })
            .collect()
    }

    /// Whether all routers have the same database and nothing is on its way.
    pub(super) fn is_converged(&self) -> bool {
        let quiet = self.routers.iter().all(|router| {
            router
                .neighbors()
                .all(|neighbor| neighbor.unacknowledged == 0)
        });
        let first = self.database(0);
        quiet && (1..self.routers.len()).all(|router| self.database(router) == first)
    }

    /// The Router-LSAs of one router that it sent itself, by time of each new sequence number.
    pub(super) fn originations(&self, router: usize) -> Vec<(Instant, i32)> {
        let mut seen: Vec<(Instant, i32)> = Vec::new();
        for trace in self.trace.iter().filter(|trace| trace.router == router) {
            if let Body::Update(lsas) = &trace.packet.body {
                for lsa in lsas {
                    let header = lsa.header();
                    if header.key.advertising_router == router_id(router)
                        && seen
                            .iter()
                            .all(|&(_, sequence)| sequence != header.sequence)
                    {
                        seen.push((trace.at, header.sequence));
                    }
                }
            }
        }
        seen
    }

    fn plug_in(&mut self, router: usize) {
        for (index, wire) in self.wires.clone().iter().enumerate() {
            for (end, &(owner, id)) in wire.ends.iter().enumerate() {
                if owner == router && wire.is_up {
                    self.routers[router].handle_interface(self.now, id, Some(link(index, end)));
                }
            }
        }
        self.drain(router);
    }

    fn next(&self) -> Option<Instant> {
        let timers = self.routers.iter().filter_map(Router::poll_timeout).min();
        let flight = self.flights.keys().next().map(|&(at, _)| at);
        timers.into_iter().chain(flight).min()
    }

    fn step(&mut self, at: Instant) {
        self.now = self.now.max(at);
        while let Some(entry) = self.flights.first_entry() {
            if entry.key().0 > at {
                break;
            }
            let flight = entry.remove();
            self.deliver(&flight);
        }
        for router in 0..self.routers.len() {
            if self.routers[router]
                .poll_timeout()
                .is_some_and(|due| due <= at)
            {
                self.routers[router].handle_timeout(at);
                let next = self.routers[router].poll_timeout();
                assert!(next.is_none_or(|next| next > at), "time does not advance");
                self.drain(router);
            }
        }
    }

    fn deliver(&mut self, flight: &Flight) {
        let wire = &self.wires[flight.wire];
        if !wire.is_up {
            return;
        }
        let (router, id) = wire.ends[flight.to];
        let source = link(flight.wire, 1 - flight.to).address;
        self.routers[router].handle_packet(
            self.now,
            id,
            source,
            flight.transmit.destination,
            &flight.transmit.payload,
        );
        self.drain(router);
    }

    pub(super) fn drain(&mut self, router: usize) {
        while self.routers[router].poll_event().is_some() {}
        while let Some(transmit) = self.routers[router].poll_transmit() {
            self.trace.push(Trace {
                at: self.now,
                router,
                packet: Packet::decode(&transmit.payload).unwrap(),
            });
            let from = (router, transmit.interface);
            let Some((wire, to)) = self.wires.iter().enumerate().find_map(|(index, wire)| {
                let end = wire.ends.iter().position(|&end| end == from)?;
                Some((index, 1 - end))
            }) else {
                continue;
            };
            if !self.wires[wire].is_up || self.happens(self.faults.loss) {
                continue;
            }
            self.fly(wire, to, transmit.clone());
            if self.happens(self.faults.duplication) {
                self.fly(wire, to, transmit);
            }
        }
    }

    fn fly(&mut self, wire: usize, to: usize, transmit: Transmit) {
        let delay = match self.happens(self.faults.reordering) {
            true => Duration::from_millis(5) + self.rng.below(Duration::from_millis(20)),
            false => Duration::from_millis(1),
        };
        self.flown += 1;
        let flight = Flight { wire, to, transmit };
        self.flights.insert((self.now + delay, self.flown), flight);
    }

    fn happens(&mut self, percent: u64) -> bool {
        self.rng.next_u64() % 100 < percent
    }
}

pub(super) fn router_id(index: usize) -> RouterId {
    RouterId(Ipv4Addr::new(10, 0, 0, u8::try_from(index + 1).unwrap()))
}

fn link(wire: usize, end: usize) -> LinkState {
    LinkState {
        address: Ipv4Addr::new(
            10,
            1,
            u8::try_from(wire).unwrap(),
            u8::try_from(end).unwrap(),
        ),
        prefix_len: 31,
        mtu: 1500,
        index: 1,
    }
}
