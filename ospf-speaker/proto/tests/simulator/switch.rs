//! The reference peer: a switch as RFC 2328 describes one, written from the RFC against the wire
//! formats and sharing nothing else with the speaker under test. Unlike the speaker it can be
//! Designated Router, originates Router-, Network- and AS-external-LSAs, and acknowledges as
//! late as FRR and BIRD do.
//!
//! It keeps to the RFC in what the speaker must bear: MinLSArrival (§13 step 5a), a 1-Way Hello
//! that ends the adjacency at once, LSAs at MaxAge that stay until all have let go of them.

mod exchange;
mod flooding;
mod hello;
mod own;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use isopath_ospf::packet::{
    ALL_D_ROUTERS, ALL_SPF_ROUTERS, Body, DbDesc, Header, Lsa, LsaHeader, LsaKey, MAX_AGE, Options,
    Packet,
};
use isopath_ospf::{AreaId, AreaType, NetworkType, RouterId, State};

use crate::network::Time;

/// MinLSArrival.
const MIN_LS_ARRIVAL: Duration = Duration::from_secs(1);
/// LSRefreshTime.
const REFRESH: Duration = Duration::from_secs(1800);
/// LSA headers in one Database Description; few, so that an exchange has several.
const PAGE: usize = 12;
/// LSAs in one Link State Request.
const REQUEST_PAGE: usize = 10;

/// How a switch differs from another within the RFC.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Personality {
    pub(crate) ack_delay: Duration,
    pub(crate) rxmt: Duration,
    /// MinLSInterval for its own LSAs.
    pub(crate) min_interval: Duration,
    pub(crate) priority: u8,
}

impl Personality {
    pub(crate) const FRR: Self = Self {
        ack_delay: Duration::from_secs(1),
        rxmt: Duration::from_secs(5),
        min_interval: Duration::ZERO,
        priority: 1,
    };
    pub(crate) const BIRD: Self = Self {
        ack_delay: Duration::from_millis(2500),
        rxmt: Duration::from_secs(5),
        min_interval: Duration::from_secs(5),
        priority: 1,
    };
}

/// What a switch is made with.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) id: RouterId,
    pub(crate) area: AreaId,
    pub(crate) area_type: AreaType,
    pub(crate) personality: Personality,
    pub(crate) ports: Vec<PortSetup>,
    /// How many AS-external-LSAs (in an NSSA: type 7) it originates.
    pub(crate) externals: u32,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct PortSetup {
    pub(crate) network: NetworkType,
    pub(crate) address: Ipv4Addr,
    pub(crate) mask: Ipv4Addr,
    pub(crate) hello: u16,
    pub(crate) dead: u32,
}

/// A packet that the switch sends.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) port: usize,
    pub(crate) destination: Ipv4Addr,
    pub(crate) payload: Vec<u8>,
}

#[derive(Debug)]
struct Port {
    setup: PortSetup,
    is_up: bool,
    peers: BTreeMap<Ipv4Addr, Peer>,
    dr: Option<Ipv4Addr>,
    bdr: Option<Ipv4Addr>,
    /// Until when nobody is elected (§9.1, Waiting).
    waiting: Option<Time>,
    hello_at: Time,
    acks: Vec<LsaHeader>,
    ack_at: Option<Time>,
}

#[derive(Debug)]
struct Peer {
    id: RouterId,
    priority: u8,
    dr: Ipv4Addr,
    bdr: Ipv4Addr,
    state: State,
    dead_at: Time,
    is_master: bool,
    sequence: u32,
    options: Options,
    last_sent: Option<DbDesc>,
    last_received: Option<DbDesc>,
    dbdesc_at: Option<Time>,
    summary: Vec<LsaHeader>,
    requests: BTreeMap<LsaKey, LsaHeader>,
    /// What the last Link State Request asked for.
    asked: Vec<LsaKey>,
    request_at: Option<Time>,
    unacknowledged: BTreeMap<LsaKey, LsaHeader>,
    rxmt_at: Option<Time>,
}

#[derive(Debug)]
struct Stored {
    lsa: Lsa,
    since: Time,
    /// It came by flooding, so that MinLSArrival counts.
    flooded: bool,
    /// It was flooded at MaxAge already.
    expired: bool,
}

impl Stored {
    fn age(&self, now: Time) -> u16 {
        let elapsed = u16::try_from((now - self.since).as_secs()).unwrap_or(MAX_AGE);
        let age = self.lsa.header().age.saturating_add(elapsed);
        if self.expired {
            MAX_AGE
        } else {
            age.min(MAX_AGE)
        }
    }

    fn header(&self, now: Time) -> LsaHeader {
        LsaHeader {
            age: self.age(now),
            ..*self.lsa.header()
        }
    }

    /// As it leaves, one second of InfTransDelay older.
    fn to_send(&self, now: Time) -> Lsa {
        self.lsa.at_age((self.age(now) + 1).min(MAX_AGE))
    }

    fn expires(&self) -> Time {
        self.since + Duration::from_secs((MAX_AGE - self.lsa.header().age.min(MAX_AGE)).into())
    }
}

/// An LSA that the switch originates.
#[derive(Debug)]
struct Own {
    body: Vec<u8>,
    left: Time,
}

/// A switch.
#[derive(Debug)]
pub(crate) struct Switch {
    setup: Setup,
    ports: Vec<Port>,
    db: BTreeMap<LsaKey, Stored>,
    own: BTreeMap<LsaKey, Own>,
    sequences: BTreeMap<LsaKey, i32>,
    is_stale: bool,
    originate_at: Option<Time>,
    first_sequence: u32,
    out: Vec<Sent>,
}

impl Switch {
    pub(crate) fn new(setup: Setup, seed: u64, now: Time) -> Self {
        let ports = setup.ports.iter().map(|&port| Port {
            setup: port,
            is_up: false,
            peers: BTreeMap::new(),
            dr: None,
            bdr: None,
            waiting: None,
            hello_at: now,
            acks: Vec::new(),
            ack_at: None,
        });
        Self {
            ports: ports.collect(),
            setup,
            db: BTreeMap::new(),
            own: BTreeMap::new(),
            sequences: BTreeMap::new(),
            is_stale: true,
            originate_at: None,
            first_sequence: u32::try_from(seed % 1_000_000).expect("below a million"),
            out: Vec::new(),
        }
    }

    pub(crate) fn id(&self) -> RouterId {
        self.setup.id
    }

    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    pub(crate) fn set_port(&mut self, now: Time, port: usize, is_up: bool) {
        let peers: Vec<Ipv4Addr> = self.ports[port].peers.keys().copied().collect();
        for peer in peers {
            self.forget(now, port, peer);
        }
        let it = &mut self.ports[port];
        it.is_up = is_up;
        it.dr = None;
        it.bdr = None;
        it.acks.clear();
        it.ack_at = None;
        it.hello_at = now;
        let waits = is_up && it.setup.network == NetworkType::Broadcast;
        it.waiting = waits.then(|| now + Duration::from_secs(it.setup.dead.into()));
        self.is_stale = true;
        self.finish(now);
    }

    pub(crate) fn receive(
        &mut self,
        now: Time,
        port: usize,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        payload: &[u8],
    ) {
        let it = &self.ports[port];
        let for_us = destination == ALL_SPF_ROUTERS
            || destination == it.setup.address
            || destination == ALL_D_ROUTERS && (it.is_dr() || it.is_bdr());
        let Ok(packet) = Packet::decode(payload) else {
            return;
        };
        if !it.is_up || !for_us || packet.header.area != self.setup.area {
            return;
        }
        if let Body::Hello(hello) = &packet.body {
            self.receive_hello(now, port, source, packet.header.router_id, hello);
            self.finish(now);
            return;
        }
        let known = self.ports[port].peers.get(&source);
        if known.is_none_or(|peer| peer.id != packet.header.router_id) {
            return;
        }
        match packet.body {
            Body::Hello(_) => {}
            Body::DbDesc(dbdesc) => self.receive_dbdesc(now, port, source, &dbdesc),
            Body::Request(keys) => self.receive_request(now, port, source, &keys),
            Body::Update(lsas) => self.receive_update(now, port, source, lsas),
            Body::Ack(headers) => self.receive_ack(now, port, source, &headers),
        }
        self.finish(now);
    }

    /// When [`Switch::tick`] is due.
    pub(crate) fn next(&self) -> Option<Time> {
        let ports = self.ports.iter().filter(|port| port.is_up);
        let timers = ports.flat_map(|port| {
            let peers = port.peers.values().flat_map(|peer| {
                let timers = [peer.dbdesc_at, peer.request_at, peer.rxmt_at];
                timers.into_iter().flatten().chain([peer.dead_at])
            });
            let own = [port.waiting, port.ack_at].into_iter().flatten();
            own.chain([port.hello_at]).chain(peers)
        });
        let ageing = self
            .db
            .values()
            .filter(|stored| !stored.expired)
            .map(Stored::expires);
        let refresh = self.own.values().map(|own| own.left + REFRESH);
        timers
            .chain(ageing)
            .chain(refresh)
            .chain(self.originate_at)
            .min()
    }

    pub(crate) fn tick(&mut self, now: Time) {
        for port in 0..self.ports.len() {
            if self.ports[port].is_up {
                self.tick_port(now, port);
            }
        }
        self.tick_own(now);
        self.finish(now);
    }

    pub(crate) fn sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.out)
    }

    /// The database without what is at MaxAge: key, sequence number and checksum.
    pub(crate) fn database(&self, now: Time) -> Vec<(LsaKey, i32, u16)> {
        let live = self
            .db
            .iter()
            .filter(|(_, stored)| stored.age(now) < MAX_AGE);
        live.map(|(&key, stored)| {
            let header = stored.lsa.header();
            (key, header.sequence, header.checksum)
        })
        .collect()
    }

    /// The LSAs of a router that are not at MaxAge, with their bodies.
    pub(crate) fn lsas_of(
        &self,
        now: Time,
        router: RouterId,
    ) -> impl Iterator<Item = (LsaKey, &[u8])> {
        let theirs = self.db.iter().filter(move |(key, stored)| {
            key.advertising_router == router && stored.age(now) < MAX_AGE
        });
        theirs.map(|(&key, stored)| (key, stored.lsa.body()))
    }

    /// Every neighbour: the port, the router id, the state.
    pub(crate) fn neighbors(&self) -> impl Iterator<Item = (usize, RouterId, State)> + '_ {
        let ports = self.ports.iter().enumerate();
        ports.flat_map(|(index, port)| {
            let peers = port.peers.values();
            peers.map(move |peer| (index, peer.id, peer.state))
        })
    }

    /// Whether nothing waits for an acknowledgement and nothing is about to be originated.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut peers = self.ports.iter().flat_map(|port| port.peers.values());
        self.originate_at.is_none()
            && peers.all(|peer| peer.unacknowledged.is_empty() && peer.requests.is_empty())
    }

    fn tick_port(&mut self, now: Time, port: usize) {
        let it = &mut self.ports[port];
        if it.hello_at <= now {
            it.hello_at = now + Duration::from_secs(it.setup.hello.into());
            self.send_hello(port);
        }
        if self.ports[port].waiting.is_some_and(|at| at <= now) {
            self.ports[port].waiting = None;
            self.elect(now, port);
        }
        if self.ports[port].ack_at.is_some_and(|at| at <= now) {
            self.send_delayed_acks(port);
        }
        let peers: Vec<Ipv4Addr> = self.ports[port].peers.keys().copied().collect();
        for peer in peers {
            self.tick_peer(now, port, peer);
        }
    }

    fn tick_peer(&mut self, now: Time, port: usize, peer: Ipv4Addr) {
        let rxmt = self.setup.personality.rxmt;
        let due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        let Some(it) = self.ports[port].peers.get_mut(&peer) else {
            return;
        };
        if it.dead_at <= now {
            self.forget(now, port, peer);
            return;
        }
        if due(it.dbdesc_at) {
            it.dbdesc_at = Some(now + rxmt);
            self.repeat_dbdesc(port, peer);
        }
        if due(self.ports[port].peers[&peer].request_at) {
            self.send_request(now, port, peer);
        }
        if due(self.ports[port].peers[&peer].rxmt_at) {
            self.retransmit(now, port, peer);
        }
    }

    /// The end of every input.
    fn finish(&mut self, now: Time) {
        self.load_all(now);
        if std::mem::take(&mut self.is_stale) {
            self.originate(now);
            self.load_all(now);
        }
        self.purge(now);
    }

    fn load_all(&mut self, now: Time) {
        // What was flooded may be all that somebody was still to be asked for.
        for (port, peer) in self.everybody() {
            if matches!(self.state(port, peer), State::Exchange | State::Loading) {
                self.load(now, port, peer);
            }
        }
    }

    fn peer(&mut self, port: usize, peer: Ipv4Addr) -> Option<&mut Peer> {
        self.ports[port].peers.get_mut(&peer)
    }

    fn state(&self, port: usize, peer: Ipv4Addr) -> State {
        let peer = self.ports[port].peers.get(&peer);
        peer.map_or(State::Down, |peer| peer.state)
    }

    fn send(&mut self, port: usize, destination: Ipv4Addr, body: Body) {
        let header = Header {
            router_id: self.setup.id,
            area: self.setup.area,
        };
        self.out.push(Sent {
            port,
            destination,
            payload: Packet { header, body }.encode(),
        });
    }

    /// To one neighbour: its address, but AllSPFRouters where there is nobody else.
    fn send_to(&mut self, port: usize, peer: Ipv4Addr, body: Body) {
        let destination = match self.ports[port].setup.network {
            NetworkType::PointToPoint => ALL_SPF_ROUTERS,
            NetworkType::Broadcast => peer,
        };
        self.send(port, destination, body);
    }

    fn area_options(&self) -> Options {
        match self.setup.area_type {
            AreaType::Normal => Options::E,
            AreaType::Stub => Options::default(),
            AreaType::Nssa => Options::N,
        }
    }
}

impl Port {
    fn is_dr(&self) -> bool {
        self.dr == Some(self.setup.address)
    }

    fn is_bdr(&self) -> bool {
        self.bdr == Some(self.setup.address)
    }

    fn is_designated(&self, address: Ipv4Addr) -> bool {
        self.dr == Some(address) || self.bdr == Some(address)
    }

    /// §13.3 step 5, and delayed acknowledgements.
    fn flood_destination(&self) -> Ipv4Addr {
        match self.setup.network {
            NetworkType::Broadcast if !self.is_dr() && !self.is_bdr() => ALL_D_ROUTERS,
            NetworkType::PointToPoint | NetworkType::Broadcast => ALL_SPF_ROUTERS,
        }
    }
}
