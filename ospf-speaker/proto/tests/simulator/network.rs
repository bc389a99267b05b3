//! The network: nodes on links, packets in flight, one virtual clock.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use isopath_ospf::packet::Packet;
use isopath_ospf::{InterfaceId, LinkState, NetworkType, Router};

use crate::properties::Violation;
use crate::rng::Rng;
use crate::speaker::Speaker;
use crate::switch::Switch;
use crate::watch::Input;

/// Virtual time since the start of the run.
pub(crate) type Time = Duration;

/// How many lines of the trace a failure shows.
const TAIL: usize = 60;

/// What links do to packets, in percent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    pub(crate) reordering: u64,
    pub(crate) corruption: u64,
}

/// One attachment to a link.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) node: usize,
    pub(crate) port: usize,
    pub(crate) state: LinkState,
    /// Nothing comes or goes, and nobody notices.
    pub(crate) is_cut: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) network: NetworkType,
    pub(crate) ends: Vec<End>,
    pub(crate) is_up: bool,
}

/// A speaker is large and so is a switch.
pub(crate) enum Node {
    Speaker(Box<Speaker>),
    Switch(Box<Switch>),
    /// A switch that is off; what it is made of when it comes back.
    Off(Box<crate::switch::Setup>),
}

struct Flight {
    node: usize,
    port: usize,
    link: usize,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    payload: Vec<u8>,
}

/// Everything that left and happened, as a hash, and in words where somebody wants to read it.
pub(crate) struct Trace {
    hash: u64,
    lines: Option<VecDeque<String>>,
    prints: bool,
}

impl Trace {
    pub(crate) fn new(keeps: bool, prints: bool) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: keeps.then(VecDeque::new),
            prints,
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn tail(&self) -> String {
        let lines = self.lines.iter().flatten();
        lines.fold(String::new(), |all, line| all + line + "\n")
    }

    pub(crate) fn note(&mut self, now: Time, node: usize, bytes: &[u8]) {
        let mut hasher = std::hash::DefaultHasher::new();
        (self.hash, now, node, bytes).hash(&mut hasher);
        self.hash = hasher.finish();
    }

    #[expect(
        clippy::print_stdout,
        reason = "the trace is for the one who asked for it"
    )]
    pub(crate) fn say(&mut self, now: Time, words: impl FnOnce() -> String) {
        if self.lines.is_none() && !self.prints {
            return;
        }
        let line = format!("{:>10.4} {}", now.as_secs_f64(), words());
        if self.prints {
            println!("{line}");
        }
        if let Some(lines) = &mut self.lines {
            lines.push_back(line);
            if lines.len() > TAIL {
                lines.pop_front();
            }
        }
    }
}

/// The network.
pub(crate) struct Network {
    pub(crate) now: Time,
    epoch: Instant,
    pub(crate) nodes: Vec<Node>,
    pub(crate) links: Vec<Link>,
    wakes: Vec<Option<Time>>,
    flights: BTreeMap<(Time, u64), Flight>,
    flown: u64,
    pub(crate) faults: Faults,
    pub(crate) rng: Rng,
    pub(crate) trace: Trace,
}

impl Network {
    pub(crate) fn new(links: Vec<Link>, nodes: Vec<Node>, seed: u64, trace: Trace) -> Self {
        Self {
            now: Time::ZERO,
            epoch: epoch(),
            wakes: vec![None; nodes.len()],
            nodes,
            links,
            flights: BTreeMap::new(),
            flown: 0,
            faults: Faults::default(),
            rng: Rng::new(seed),
            trace,
        }
    }

    pub(crate) fn instant(&self) -> Instant {
        self.epoch + self.now
    }

    /// Every node comes up, with all links that are up.
    pub(crate) fn plug_in(&mut self, node: usize) -> Result<(), Violation> {
        for link in 0..self.links.len() {
            if self.links[link].is_up {
                self.tell(link, Some(node), true)?;
            }
        }
        Ok(())
    }

    /// A link goes down or comes up, and its ends notice.
    pub(crate) fn set_link(&mut self, link: usize, is_up: bool) -> Result<(), Violation> {
        self.links[link].is_up = is_up;
        self.trace
            .say(self.now, || format!("link {link} is_up={is_up}"));
        self.tell(link, None, is_up)
    }

    fn tell(&mut self, link: usize, only: Option<usize>, is_up: bool) -> Result<(), Violation> {
        let ends = self.links[link].ends.clone();
        let concerned = ends
            .iter()
            .filter(|end| only.is_none_or(|it| it == end.node));
        for end in concerned {
            let instant = self.instant();
            match &mut self.nodes[end.node] {
                Node::Speaker(speaker) => {
                    if let Some(router) = &mut speaker.router {
                        let state = is_up.then_some(end.state);
                        router.handle_interface(instant, InterfaceId(end.port), state);
                    }
                }
                Node::Switch(switch) => switch.set_port(self.now, end.port, is_up),
                Node::Off(_) => {}
            }
            self.settle(end.node, &Input::Other)?;
        }
        Ok(())
    }

    pub(crate) fn run(&mut self, time: Duration) -> Result<(), Violation> {
        let end = self.now + time;
        self.run_until(end, |_| false)?;
        self.now = end;
        Ok(())
    }

    /// Runs, and shows the network whenever something happened.
    pub(crate) fn run_watched(
        &mut self,
        time: Duration,
        mut look: impl FnMut(&Self),
    ) -> Result<(), Violation> {
        let end = self.now + time;
        self.run_until(end, |network| {
            look(network);
            false
        })?;
        self.now = end;
        Ok(())
    }

    /// Runs until the condition, which is asked whenever something happened, holds; at most to
    /// `end`. Says whether it did.
    pub(crate) fn run_until(
        &mut self,
        end: Time,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Result<bool, Violation> {
        while !condition(self) {
            let flight = self.flights.keys().next().map(|&(at, _)| at);
            let wake = self.wakes.iter().flatten().min().copied();
            let Some(at) = flight.into_iter().chain(wake).min().filter(|&at| at <= end) else {
                return Ok(false);
            };
            self.step(at)?;
        }
        Ok(true)
    }

    fn step(&mut self, at: Time) -> Result<(), Violation> {
        self.now = self.now.max(at);
        while let Some(entry) = self.flights.first_entry() {
            if entry.key().0 > at {
                break;
            }
            let flight = entry.remove();
            self.arrive(&flight)?;
        }
        for node in 0..self.nodes.len() {
            if self.wakes[node].is_some_and(|wake| wake <= at) {
                self.wake(node)?;
            }
        }
        Ok(())
    }

    fn wake(&mut self, node: usize) -> Result<(), Violation> {
        let instant = self.instant();
        match &mut self.nodes[node] {
            Node::Speaker(speaker) => {
                if let Some(router) = &mut speaker.router {
                    router.handle_timeout(instant);
                }
                return self.settle(node, &Input::Timeout);
            }
            Node::Switch(switch) => switch.tick(self.now),
            Node::Off(_) => {}
        }
        self.settle(node, &Input::Other)
    }

    fn arrive(&mut self, flight: &Flight) -> Result<(), Violation> {
        let link = &self.links[flight.link];
        let mut ends = link.ends.iter();
        let lost = !link.is_up || ends.any(|end| end.node == flight.node && end.is_cut);
        if lost {
            return Ok(());
        }
        let instant = self.instant();
        let (source, destination) = (flight.source, flight.destination);
        match &mut self.nodes[flight.node] {
            Node::Speaker(speaker) => {
                let input =
                    speaker.take(instant, flight.port, source, destination, &flight.payload);
                self.settle(flight.node, &input)
            }
            Node::Switch(switch) => {
                switch.receive(self.now, flight.port, source, destination, &flight.payload);
                self.settle(flight.node, &Input::Other)
            }
            Node::Off(_) => Ok(()),
        }
    }

    /// After an input of a node: what it sends takes off, and what it did is judged.
    pub(crate) fn settle(&mut self, node: usize, input: &Input) -> Result<(), Violation> {
        let (now, instant) = (self.now, self.instant());
        match &mut self.nodes[node] {
            Node::Speaker(speaker) => {
                let sent = speaker.settle(now, instant, input, &mut self.trace)?;
                let timeout = speaker.router.as_ref().and_then(Router::poll_timeout);
                self.wakes[node] = timeout.map(|at| at - self.epoch);
                for transmit in sent {
                    let (port, to) = (transmit.interface.0, transmit.destination);
                    self.take_off(node, port, to, &transmit.payload);
                }
            }
            Node::Switch(switch) => {
                let sent = switch.sent();
                self.wakes[node] = switch.next();
                for sent in sent {
                    self.take_off(node, sent.port, sent.destination, &sent.payload);
                }
            }
            Node::Off(_) => self.wakes[node] = None,
        }
        Ok(())
    }

    fn take_off(&mut self, node: usize, port: usize, destination: Ipv4Addr, payload: &[u8]) {
        self.trace.note(self.now, node, payload);
        self.trace.say(self.now, || {
            let plain = crate::watch::without_authentication(payload);
            let what = Packet::decode(&plain).map(|packet| crate::words::body(&packet.body));
            format!("node {node} port {port} to {destination}: {what:?}")
        });
        let found = self.links.iter().enumerate().find_map(|(index, link)| {
            let mut ends = link.ends.iter();
            let end = ends.find(|end| end.node == node && end.port == port)?;
            Some((index, end.clone()))
        });
        let Some((link, from)) = found else {
            return;
        };
        if from.is_cut || !self.links[link].is_up {
            return;
        }
        let everybody = destination.is_multicast();
        let is_point_to_point = self.links[link].network == NetworkType::PointToPoint;
        for end in self.links[link].ends.clone() {
            let addressed = everybody || is_point_to_point || end.state.address == destination;
            if end.node == node || !addressed || self.rng.percent(self.faults.loss) {
                continue;
            }
            let copies = 1 + usize::from(self.rng.percent(self.faults.duplication));
            for _ in 0..copies {
                let mut payload = payload.to_vec();
                if self.rng.percent(self.faults.corruption) {
                    let index = self.rng.below(payload.len());
                    payload[index] ^= 1 << self.rng.below(8);
                }
                let flight = Flight {
                    node: end.node,
                    port: end.port,
                    link,
                    source: from.state.address,
                    destination,
                    payload,
                };
                self.fly(flight);
            }
        }
    }

    fn fly(&mut self, flight: Flight) {
        let reordered = self.rng.percent(self.faults.reordering);
        let extra = match reordered {
            true => self.rng.time_below(Duration::from_millis(40)),
            false => Duration::ZERO,
        };
        self.flown += 1;
        let at = self.now + Duration::from_micros(200) + extra;
        self.flights.insert((at, self.flown), flight);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a virtual clock has to begin somewhere, and nothing depends on where"
)]
fn epoch() -> Instant {
    Instant::now()
}
