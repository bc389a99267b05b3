//! What one seed plays: a topology, faults, a time of chaos, a time of calm.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use isopath_ospf::{
    Algorithm, AreaId, AreaType, Authentication, Config, External, ExternalKind, InterfaceConfig,
    InterfaceId, Key, Lifetime, LinkState, NetworkType, RouterId, Secret, Stub,
};

use crate::network::{End, Faults, Link, Network, Node, Time, Trace};
use crate::properties::{self, RECOVERY, RXMT, Violation};
use crate::rng::Rng;
use crate::speaker::{Speaker, Wanted};
use crate::switch::{Personality, PortSetup, Setup, Switch};
use crate::watch::Input;

const SECOND: Duration = Duration::from_secs(1);
/// How often a wait looks whether what it waits for has come.
const LOOK: Duration = Duration::from_millis(250);
/// Even with a quarter of all packets lost every adjacency was Full at some moment before this. A
/// switch repeats a Database Description or a request after 5 s; with that loss 9 of 16 round trips
/// succeed at once, so that each costs 5 s * 7/9 = 3.9 s on average, and this is enough for sixty
/// of them, where the largest database, of some ninety LSAs, takes eight descriptions and nine
/// requests, and overtaken packets make an exchange start anew now and then.
const BRING_UP: Duration = Duration::from_secs(240);
/// What a switch of BIRD's kind still has to say after all adjacencies are Full: MinLSInterval.
const CALM: Duration = Duration::from_secs(7);
/// One seed of so many lives long enough for LSAs to be refreshed and to die of age.
const LONG_LIVES: u64 = 40;

/// How a seed is run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options {
    /// The tail of the trace is kept for a report.
    pub(crate) keeps: bool,
    /// The whole trace is printed as it happens.
    pub(crate) prints: bool,
    #[cfg(feature = "sabotage")]
    pub(crate) sabotage: Option<isopath_ospf::Sabotage>,
}

/// What came of a seed.
pub(crate) struct Outcome {
    pub(crate) result: Result<(), Violation>,
    pub(crate) hash: u64,
    pub(crate) tail: String,
}

pub(crate) fn run(seed: u64, options: Options) -> Outcome {
    let mut scenario = Scenario::new(seed, options);
    let result = scenario.play();
    Outcome {
        result,
        hash: scenario.network.trace.hash(),
        tail: scenario.network.trace.tail(),
    }
}

/// Whether an address is one that the speakers announce.
pub(crate) fn is_vip(address: Ipv4Addr) -> bool {
    matches!(address.octets(), [10, 99, ..])
}

struct Scenario {
    network: Network,
    rng: Rng,
    speakers: Vec<usize>,
    switches: Vec<usize>,
    area_type: AreaType,
    is_long: bool,
    /// When a node that is off comes back.
    returns: Vec<(Time, usize)>,
}

impl Scenario {
    fn new(seed: u64, options: Options) -> Self {
        let mut rng = Rng::new(seed);
        let is_long = seed % LONG_LIVES == LONG_LIVES - 1;
        let mut layout = Layout::random(&mut rng);
        if is_long {
            (layout.hello, layout.dead) = (30, 120);
        }
        let nodes = layout.nodes(&mut rng, options);
        let kind = |wanted: bool| {
            let all = nodes.iter().enumerate();
            all.filter(move |(_, node)| matches!(node, Node::Speaker(_)) == wanted)
                .map(|(index, _)| index)
                .collect()
        };
        Self {
            speakers: kind(true),
            switches: kind(false),
            network: Network::new(
                layout.links,
                nodes,
                seed,
                Trace::new(options.keeps, options.prints),
            ),
            area_type: layout.area_type,
            rng,
            is_long,
            returns: Vec::new(),
        }
    }

    fn play(&mut self) -> Result<(), Violation> {
        self.bring_up()?;
        match self.is_long {
            true => self.grow_old()?,
            false => self.chaos()?,
        }
        self.heal()?;
        self.calm()?;
        self.converge()
    }

    /// From nothing to Full under all faults but crashes and cuts.
    fn bring_up(&mut self) -> Result<(), Violation> {
        self.network.faults = Faults {
            loss: *self.rng.pick(&[0, 0, 5, 15, 25]),
            duplication: *self.rng.pick(&[0, 5, 10]),
            reordering: *self.rng.pick(&[0, 10, 30]),
            corruption: *self.rng.pick(&[0, 0, 2]),
        };
        for node in 0..self.network.nodes.len() {
            self.start(node)?;
        }
        // Two switches between themselves are not what is tested.
        let mut missing = properties::adjacencies(&self.network);
        missing.retain(|(node, ..)| self.speakers.contains(node));
        let end = self.network.now + self.patience(BRING_UP);
        while !missing.is_empty() && self.network.now < end {
            self.network.run_watched(LOOK, |network| {
                missing.retain(|side| !properties::is_full(network, side));
            })?;
        }
        properties::the_exchange_ends(&self.network, missing.is_empty())
    }

    fn chaos(&mut self) -> Result<(), Violation> {
        for _ in 0..8 + self.rng.below(10) {
            let pause = self.rng.time_below(SECOND * 3 / 2);
            self.network.run(pause)?;
            self.return_those_due()?;
            self.act()?;
        }
        Ok(())
    }

    fn act(&mut self) -> Result<(), Violation> {
        let speaker = *self.rng.pick(&self.speakers);
        let switch = *self.rng.pick(&self.switches);
        let link = self.rng.below(self.network.links.len());
        let later = self.network.now + self.rng.time_below(SECOND * 6);
        match self.rng.below(100) {
            0..45 => self.announce(speaker),
            45..55 => {
                let forgets = self.rng.percent(30);
                self.crash_speaker(speaker, forgets, later);
                Ok(())
            }
            55..60 => {
                self.crash_switch(switch, later);
                Ok(())
            }
            60..66 => {
                self.stop(speaker)?;
                self.returns.push((later + SECOND * 2, speaker));
                Ok(())
            }
            66..80 => {
                let ends = self.network.links[link].ends.len();
                let end = self.rng.below(ends);
                let end = &mut self.network.links[link].ends[end];
                end.is_cut = !end.is_cut;
                Ok(())
            }
            80..90 => {
                let is_up = !self.network.links[link].is_up;
                self.network.set_link(link, is_up)
            }
            90..95 => self.hand_over(speaker),
            _ => self.lose_a_neighbor(speaker),
        }
    }

    /// The speaker wants something else from now on.
    fn announce(&mut self, speaker: usize) -> Result<(), Violation> {
        let mut wanted = Wanted::default();
        for last in 0..5 {
            let prefix = Ipv4Addr::new(10, 99, 0, last);
            let metric = 1 + u16::from(last) * 3;
            let kind = *self.rng.pick(&[ExternalKind::Type1, ExternalKind::Type2]);
            match self.rng.below(4) {
                0 | 1 => {}
                2 if self.area_type != AreaType::Stub => wanted.externals.push(External {
                    prefix,
                    kind,
                    metric,
                }),
                _ => wanted.stubs.push(Stub { prefix, metric }),
            }
        }
        let instant = self.network.instant();
        let now = self.network.now;
        self.network
            .trace
            .say(now, || format!("node {speaker} is to announce {wanted:?}"));
        if let Node::Speaker(it) = &mut self.network.nodes[speaker] {
            it.announce(instant, wanted);
        }
        self.network.settle(speaker, &Input::Other)
    }

    fn crash_speaker(&mut self, speaker: usize, forgets: bool, back: Time) {
        let now = self.network.now;
        self.network
            .trace
            .say(now, || format!("node {speaker} dies, forgets={forgets}"));
        if let Node::Speaker(it) = &mut self.network.nodes[speaker] {
            it.crash();
            if forgets {
                it.hint = None;
            }
        }
        self.returns.push((back, speaker));
    }

    fn crash_switch(&mut self, switch: usize, back: Time) {
        let now = self.network.now;
        self.network
            .trace
            .say(now, || format!("switch {switch} dies"));
        if let Node::Switch(it) = &self.network.nodes[switch] {
            let setup = Box::new(it.setup().clone());
            self.network.nodes[switch] = Node::Off(setup);
            self.returns.push((back, switch));
        }
    }

    fn stop(&mut self, speaker: usize) -> Result<(), Violation> {
        let instant = self.network.instant();
        let now = self.network.now;
        self.network
            .trace
            .say(now, || format!("node {speaker} is to stop"));
        if let Node::Speaker(it) = &mut self.network.nodes[speaker] {
            it.stop(instant);
        }
        self.network.settle(speaker, &Input::Other)
    }

    /// A planned restart: the process hands over to another.
    fn hand_over(&mut self, speaker: usize) -> Result<(), Violation> {
        let (now, instant) = (self.network.now, self.network.instant());
        self.network
            .trace
            .say(now, || format!("node {speaker} is handed over"));
        if let Node::Speaker(it) = &mut self.network.nodes[speaker] {
            it.hand_over(instant)
                .map_err(|violation| violation.at(now, speaker))?;
        }
        self.network.settle(speaker, &Input::Other)
    }

    /// BFD says so.
    fn lose_a_neighbor(&mut self, speaker: usize) -> Result<(), Violation> {
        let instant = self.network.instant();
        if let Node::Speaker(it) = &mut self.network.nodes[speaker]
            && let Some(router) = &mut it.router
        {
            let neighbor = router.neighbors().next();
            if let Some(neighbor) = neighbor {
                router.handle_neighbor_lost(instant, neighbor.interface, neighbor.address);
            }
        }
        self.network.settle(speaker, &Input::Other)
    }

    fn return_those_due(&mut self) -> Result<(), Violation> {
        let now = self.network.now;
        let due: Vec<usize> = self
            .returns
            .iter()
            .filter(|(at, _)| *at <= now)
            .map(|&(_, node)| node)
            .collect();
        self.returns.retain(|(at, _)| *at > now);
        for node in due {
            self.start(node)?;
        }
        Ok(())
    }

    /// Starts a node unless it runs.
    fn start(&mut self, node: usize) -> Result<(), Violation> {
        let seed = self.rng.next();
        let (now, instant) = (self.network.now, self.network.instant());
        match &mut self.network.nodes[node] {
            Node::Speaker(speaker) if speaker.router.is_none() => speaker.start(seed, instant),
            Node::Off(setup) => {
                let switch = Switch::new((**setup).clone(), seed, now);
                self.network.nodes[node] = Node::Switch(Box::new(switch));
            }
            Node::Speaker(_) | Node::Switch(_) => return Ok(()),
        }
        self.network
            .trace
            .say(now, || format!("node {node} starts"));
        self.network.plug_in(node)
    }

    /// Hours pass: LSAs are refreshed, and those of a router that is gone die of age.
    fn grow_old(&mut self) -> Result<(), Violation> {
        self.network.faults = Faults::default();
        let last = self.speakers.len() - 1;
        let gone = self.speakers[last];
        if last > 0 {
            let never = Time::from_secs(1 << 30);
            self.crash_speaker(gone, false, never);
        }
        for _ in 0..5 {
            let pause = self.rng.time_below(SECOND * 1700);
            self.network.run(pause)?;
            let speaker = *self.rng.pick(&self.speakers);
            self.announce(speaker)?;
        }
        self.network.run(SECOND * 1000)
    }

    /// All faults end, and everybody comes back.
    fn heal(&mut self) -> Result<(), Violation> {
        self.network.faults = Faults::default();
        self.network
            .trace
            .say(self.network.now, || "all faults end".to_owned());
        for link in 0..self.network.links.len() {
            for end in &mut self.network.links[link].ends {
                end.is_cut = false;
            }
            if !self.network.links[link].is_up {
                self.network.set_link(link, true)?;
            }
        }
        // Those that are stopping finish first.
        let stopping = |network: &Network| {
            !network
                .nodes
                .iter()
                .any(|node| matches!(node, Node::Speaker(speaker) if speaker.is_stopping))
        };
        self.wait(self.patience(SECOND * 10), stopping)?;
        self.returns.clear();
        for node in 0..self.network.nodes.len() {
            self.start(node)?;
        }
        self.converge()
    }

    /// Properties 10, 1 and 2 after a time without faults.
    fn converge(&mut self) -> Result<(), Violation> {
        let limit = self.patience(RECOVERY);
        let is_complete =
            |network: &Network| properties::all_are_full(network) && properties::is_quiet(network);
        self.wait(limit, is_complete)?;
        properties::the_exchange_ends(&self.network, properties::all_are_full(&self.network))?;
        self.network.run(CALM)?;
        properties::quiescence_means_one_database(&self.network)?;
        for &speaker in &self.speakers {
            properties::the_last_wanted_set_arrives_in_time(&self.network, speaker, Time::ZERO)?;
        }
        Ok(())
    }

    /// Changes on a network without faults: property 2 with its deadline.
    fn calm(&mut self) -> Result<(), Violation> {
        for _ in 0..3 {
            let speaker = *self.rng.pick(&self.speakers);
            for _ in 0..1 + self.rng.below(3) {
                let pause = self.rng.time_below(SECOND * 3 / 2);
                self.network.run(pause)?;
                self.announce(speaker)?;
                if self.rng.percent(20) {
                    self.hand_over(speaker)?;
                }
            }
            let since = self.network.now;
            let Node::Speaker(it) = &self.network.nodes[speaker] else {
                continue;
            };
            let deadline = it.watch.gap() + RXMT + Duration::from_millis(101);
            self.network.run(deadline)?;
            properties::the_last_wanted_set_arrives_in_time(&self.network, speaker, since)?;
        }
        Ok(())
    }

    fn wait(
        &mut self,
        limit: Duration,
        condition: impl Fn(&Network) -> bool,
    ) -> Result<bool, Violation> {
        let end = self.network.now + limit;
        while self.network.now < end {
            if condition(&self.network) {
                return Ok(true);
            }
            self.network.run(LOOK)?;
        }
        Ok(condition(&self.network))
    }

    /// A slow network needs more of it.
    fn patience(&self, time: Duration) -> Duration {
        if self.is_long { time * 30 } else { time }
    }
}

/// Who is joined to whom.
struct Layout {
    links: Vec<Link>,
    is_switch: Vec<bool>,
    ids: Vec<RouterId>,
    ports: Vec<usize>,
    hello: u16,
    dead: u32,
    area: AreaId,
    area_type: AreaType,
    /// The link whose packets have a digest.
    secured: Option<(usize, Algorithm)>,
}

impl Layout {
    fn random(rng: &mut Rng) -> Self {
        let area_type = *rng.pick(&[
            AreaType::Normal,
            AreaType::Normal,
            AreaType::Stub,
            AreaType::Nssa,
        ]);
        let area = match area_type {
            AreaType::Normal => Ipv4Addr::UNSPECIFIED,
            AreaType::Stub | AreaType::Nssa => Ipv4Addr::new(0, 0, 0, 1),
        };
        let mut layout = Self {
            links: Vec::new(),
            is_switch: Vec::new(),
            ids: Vec::new(),
            ports: Vec::new(),
            hello: 1,
            dead: 4,
            area: AreaId(area),
            area_type,
            secured: None,
        };
        let mtu = *rng.pick(&[576, 1500]);
        let speakers = 1 + rng.below(3);
        match rng.below(6) {
            0 => layout.star(rng, speakers, mtu),
            1 => layout.segment(rng, 1, speakers, mtu),
            2 => layout.segment(rng, 2, speakers, mtu),
            3 => layout.two_uplinks(rng, speakers, false, mtu),
            4 => layout.two_uplinks(rng, speakers, true, mtu),
            _ => layout.chain(rng, mtu),
        }
        layout
    }

    /// A switch with a point-to-point link to each speaker.
    fn star(&mut self, rng: &mut Rng, speakers: usize, mtu: u16) {
        let switch = self.add(rng, true);
        for _ in 0..speakers {
            let speaker = self.add(rng, false);
            self.join(NetworkType::PointToPoint, &[switch, speaker], mtu);
        }
    }

    /// A segment.
    fn segment(&mut self, rng: &mut Rng, switches: usize, speakers: usize, mtu: u16) {
        let mut all: Vec<usize> = (0..switches).map(|_| self.add(rng, true)).collect();
        all.extend((0..speakers).map(|_| self.add(rng, false)));
        self.join(NetworkType::Broadcast, &all, mtu);
    }

    /// Two switches and speakers with a link to each. Where the switches have no link of their
    /// own, only the speakers carry LSAs from one to the other.
    fn two_uplinks(&mut self, rng: &mut Rng, speakers: usize, linked: bool, mtu: u16) {
        let switches = [self.add(rng, true), self.add(rng, true)];
        if linked {
            self.join(NetworkType::PointToPoint, &switches, mtu);
        }
        for _ in 0..speakers {
            let speaker = self.add(rng, false);
            for switch in switches {
                let network = match rng.percent(30) {
                    true => NetworkType::Broadcast,
                    false => NetworkType::PointToPoint,
                };
                self.join(network, &[switch, speaker], mtu);
            }
        }
    }

    /// Speakers that are neighbours of each other, and may ask each other for a digest: that the
    /// switches of the simulator do not do.
    fn chain(&mut self, rng: &mut Rng, mtu: u16) {
        let switch = self.add(rng, true);
        let speakers = [self.add(rng, false), self.add(rng, false)];
        self.join(NetworkType::PointToPoint, &[switch, speakers[0]], mtu);
        self.join(NetworkType::PointToPoint, &speakers, mtu);
        if rng.percent(70) {
            let algorithm = *rng.pick(&Algorithm::ALL);
            self.secured = Some((self.links.len() - 1, algorithm));
        }
        if rng.percent(50) {
            self.join(NetworkType::PointToPoint, &[speakers[1], switch], mtu);
        }
    }

    fn add(&mut self, rng: &mut Rng, is_switch: bool) -> usize {
        let id = loop {
            let last = u8::try_from(1 + rng.below(250)).expect("below 251");
            let id = RouterId(Ipv4Addr::new(10, 0, 0, last));
            if !self.ids.contains(&id) {
                break id;
            }
        };
        self.ids.push(id);
        self.is_switch.push(is_switch);
        self.ports.push(0);
        self.ids.len() - 1
    }

    fn join(&mut self, network: NetworkType, nodes: &[usize], mtu: u16) {
        let subnet = u8::try_from(self.links.len()).expect("few links");
        let (first, prefix_len) = match network {
            NetworkType::PointToPoint => (0, 31),
            NetworkType::Broadcast => (1, 24),
        };
        let ends = nodes.iter().zip(first..).map(|(&node, last)| {
            let port = self.ports[node];
            self.ports[node] += 1;
            End {
                node,
                port,
                state: LinkState {
                    address: Ipv4Addr::new(10, 1, subnet, last),
                    prefix_len,
                    mtu,
                    index: 1,
                },
                is_cut: false,
            }
        });
        let ends = ends.collect();
        self.links.push(Link {
            network,
            ends,
            is_up: true,
        });
    }

    fn nodes(&self, rng: &mut Rng, options: Options) -> Vec<Node> {
        let externals = *rng.pick(&[0, 2, 2, 40]);
        (0..self.ids.len())
            .map(|node| match self.is_switch[node] {
                true => {
                    let personality = *rng.pick(&[Personality::FRR, Personality::BIRD]);
                    Node::Off(Box::new(self.switch(node, personality, externals)))
                }
                false => Node::Speaker(Box::new(self.speaker(node, options))),
            })
            .collect()
    }

    fn attachments(&self, node: usize) -> Vec<(InterfaceId, NetworkType, LinkState)> {
        let mut all = Vec::new();
        for link in &self.links {
            for end in link.ends.iter().filter(|end| end.node == node) {
                all.push((InterfaceId(end.port), link.network, end.state));
            }
        }
        all.sort_by_key(|&(id, ..)| id);
        all
    }

    fn authentication(&self, node: usize) -> BTreeMap<usize, Authentication> {
        let Some((link, algorithm)) = self.secured else {
            return BTreeMap::new();
        };
        let key = Key {
            id: 1,
            algorithm,
            secret: Secret::new("a secret"),
            send: Lifetime::ALWAYS,
            accept: Lifetime::ALWAYS,
        };
        let ends = self.links[link].ends.iter().filter(|end| end.node == node);
        let authentication = Authentication::Cryptographic(vec![key]);
        ends.map(|end| (end.port, authentication.clone())).collect()
    }

    fn switch(&self, node: usize, personality: Personality, externals: u32) -> Setup {
        let ports = self.attachments(node).into_iter();
        let ports = ports.map(|(_, network, state)| PortSetup {
            network,
            address: state.address,
            mask: Ipv4Addr::from_bits(u32::MAX << (32 - u32::from(state.prefix_len))),
            hello: self.hello,
            dead: self.dead,
        });
        Setup {
            id: self.ids[node],
            area: self.area,
            area_type: self.area_type,
            personality,
            ports: ports.collect(),
            externals,
        }
    }

    fn speaker(&self, node: usize, options: Options) -> Speaker {
        let interfaces = self.attachments(node).into_iter();
        let interfaces = interfaces.map(|(_, network, _)| InterfaceConfig {
            network,
            hello_interval: self.hello,
            dead_interval: self.dead,
            retransmit_interval: RXMT,
            cost: 10,
            peer_min_arrival: SECOND,
            advertise_mtu: None,
        });
        let config = Config {
            router_id: self.ids[node],
            area: self.area,
            area_type: self.area_type,
            is_asbr: false,
            interfaces: interfaces.collect(),
            sequence_hint: None,
        };
        let mut speaker = Speaker::new(node, config);
        speaker.authentication = self.authentication(node);
        #[cfg(feature = "sabotage")]
        {
            speaker.sabotage = options.sabotage;
        }
        #[cfg(not(feature = "sabotage"))]
        let Options {
            keeps: _,
            prints: _,
        } = options;
        speaker
    }
}
