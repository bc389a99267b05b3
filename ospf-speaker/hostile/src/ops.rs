//! A router driven by whatever comes: packets of any kind from three neighbours, time, what an
//! operator may want. Bytes are read as operations.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use isopath_ospf::packet::{
    ALL_SPF_ROUTERS, Body, DbDesc, DbDescFlags, Header, Hello, LsType, Lsa, LsaKey, MAX_AGE,
    Options, Packet, RouterLsa,
};
use isopath_ospf::{
    AreaId, AreaType, Config, External, ExternalKind, InterfaceConfig, InterfaceId, LinkKind,
    LinkState, NetworkType, Router, RouterId, State, Stub,
};

use crate::epoch;

const OUR_ID: RouterId = RouterId(Ipv4Addr::new(10, 0, 0, 100));
const AREA: AreaId = AreaId(Ipv4Addr::UNSPECIFIED);
/// As many operations as tell something; a longer input is cut off.
const MOST_OPS: usize = 150;
/// What three neighbours and [`MOST_OPS`] operations can leave in a database.
const MOST_LSAS: usize = 20_000;

/// A neighbour: our interface, its last octet.
const PEERS: [(usize, u8); 3] = [(0, 200), (1, 50), (1, 201)];

/// A point-to-point link and a segment.
pub(crate) fn config() -> Config {
    let interface = |network| InterfaceConfig {
        network,
        hello_interval: 1,
        dead_interval: 4,
        retransmit_interval: Duration::from_secs(1),
        cost: 10,
        peer_min_arrival: Duration::from_secs(1),
        advertise_mtu: None,
    };
    Config {
        router_id: OUR_ID,
        area: AREA,
        area_type: AreaType::Normal,
        interfaces: vec![
            interface(NetworkType::PointToPoint),
            interface(NetworkType::Broadcast),
        ],
        is_asbr: false,
        sequence_hint: None,
    }
}

fn link(interface: usize) -> LinkState {
    LinkState {
        address: address(interface, 100),
        prefix_len: 24,
        mtu: 1500,
        index: 1,
    }
}

fn address(interface: usize, last: u8) -> Ipv4Addr {
    let subnet = u8::try_from(interface).unwrap_or(u8::MAX);
    Ipv4Addr::new(10, 1, subnet, last)
}

/// The bytes as one packet to a router that knows nobody yet.
pub(crate) fn one_packet(bytes: &[u8]) {
    let now = epoch();
    let mut router = start(now);
    let (interface, last) = PEERS[0];
    let (id, source) = (InterfaceId(interface), address(interface, last));
    router.handle_packet(now, id, source, ALL_SPF_ROUTERS, bytes);
    drain(&mut router);
}

fn start(now: Instant) -> Router {
    let mut router = Router::new(config(), 7, now).expect("a valid configuration");
    for interface in 0..2 {
        router.handle_interface(now, InterfaceId(interface), Some(link(interface)));
    }
    drain(&mut router);
    router
}

/// Bytes as operations on a router, with what must hold after each.
pub fn ospf_ops(bytes: &[u8]) {
    let now = epoch();
    let mut run = Run {
        now,
        router: start(now),
        input: bytes,
        dd_sequence: 7,
    };
    for _ in 0..MOST_OPS {
        let Some(op) = run.byte() else {
            break;
        };
        run.perform(op);
        run.check();
    }
}

struct Run<'a> {
    now: Instant,
    router: Router,
    input: &'a [u8],
    /// That of the last Database Description of ours.
    dd_sequence: u32,
}

impl<'a> Run<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.input.split_first()?;
        self.input = rest;
        Some(first)
    }

    fn number(&mut self) -> u8 {
        self.byte().unwrap_or(0)
    }

    fn slice(&mut self) -> &'a [u8] {
        let length = usize::from(self.number());
        let (slice, rest) = self.input.split_at(length.min(self.input.len()));
        self.input = rest;
        slice
    }

    fn perform(&mut self, op: u8) {
        let peer = PEERS[usize::from(self.number()) % PEERS.len()];
        match op % 13 {
            0 => {
                let bytes = self.slice();
                self.receive(peer, bytes);
            }
            1 => self.raw_body(peer),
            2 | 3 => self.hello(peer),
            4 | 5 => self.dbdesc(peer),
            6 => self.request(peer),
            7 | 8 => self.update(peer),
            9 => self.wait(),
            10 => self.want(),
            11 => self.lose(peer),
            _ => self.rarely(peer),
        }
    }

    fn receive(&mut self, (interface, last): (usize, u8), bytes: &[u8]) {
        let (id, source) = (InterfaceId(interface), address(interface, last));
        self.router
            .handle_packet(self.now, id, source, ALL_SPF_ROUTERS, bytes);
    }

    fn send(&mut self, peer: (usize, u8), body: Body) {
        let router_id = RouterId(Ipv4Addr::new(10, 0, 0, peer.1));
        let header = Header {
            router_id,
            area: AREA,
        };
        let bytes = Packet { header, body }.encode();
        self.receive(peer, &bytes);
    }

    /// Any body under a good header.
    fn raw_body(&mut self, peer: (usize, u8)) {
        let router_id = RouterId(Ipv4Addr::new(10, 0, 0, peer.1));
        let header = Header {
            router_id,
            area: AREA,
        };
        let body = Body::Ack(Vec::new());
        let mut bytes = Packet { header, body }.encode();
        bytes[1] = 1 + self.number() % 5;
        bytes.extend(self.slice());
        let length = u16::try_from(bytes.len()).expect("a slice is short");
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes[12..14].fill(0);
        let mut sum: u32 = bytes
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| low.into()))
            .sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let sum = !u16::try_from(sum).expect("folded to 16 bits");
        bytes[12..14].copy_from_slice(&sum.to_be_bytes());
        self.receive(peer, &bytes);
    }

    fn hello(&mut self, peer: (usize, u8)) {
        let flags = self.number();
        let own = address(peer.0, peer.1);
        let place = |bit: u8, other: u8| match (flags & bit != 0, flags & other != 0) {
            (true, _) => own,
            (false, true) => address(peer.0, 50),
            (false, false) => Ipv4Addr::UNSPECIFIED,
        };
        let hello = Hello {
            network_mask: Ipv4Addr::new(255, 255, 255, 0),
            hello_interval: 1,
            options: Options::E,
            priority: flags & 1,
            dead_interval: 4,
            dr: place(2, 4),
            bdr: place(8, 16),
            neighbors: match flags & 32 {
                0 => vec![OUR_ID],
                _ => Vec::new(),
            },
        };
        self.send(peer, Body::Hello(hello));
    }

    fn dbdesc(&mut self, peer: (usize, u8)) {
        let flags = self.number();
        let offset = u32::from(self.number() % 4);
        let headers = (0..self.number() % 4)
            .map(|_| *self.lsa().header())
            .collect();
        let dbdesc = DbDesc {
            mtu: 1500,
            options: Options::E.union(Options::O),
            flags: DbDescFlags::from(flags & 7),
            sequence: self.dd_sequence.wrapping_add(offset),
            headers,
        };
        self.send(peer, Body::DbDesc(dbdesc));
    }

    fn request(&mut self, peer: (usize, u8)) {
        let keys = (0..self.number() % 4).map(|_| self.lsa().key()).collect();
        self.send(peer, Body::Request(keys));
    }

    fn update(&mut self, peer: (usize, u8)) {
        let lsas: Vec<Lsa> = (0..1 + self.number() % 3).map(|_| self.lsa()).collect();
        let acknowledges = self.number() & 1 != 0;
        let headers = lsas.iter().map(|lsa| *lsa.header()).collect();
        self.send(peer, Body::Update(lsas));
        if acknowledges {
            self.send(peer, Body::Ack(headers));
        }
    }

    /// An LSA, perhaps one of ours.
    fn lsa(&mut self) -> Lsa {
        let (ls_type, id, kind) = (self.number() % 12, self.number() % 4, self.number());
        let advertising_router = match kind & 1 {
            0 => RouterId(Ipv4Addr::new(10, 0, 0, id)),
            _ => OUR_ID,
        };
        let key = LsaKey {
            ls_type: LsType::from(ls_type),
            link_state_id: match ls_type {
                1 => advertising_router.0,
                2 => address(1, 100 - id),
                _ => Ipv4Addr::new(10, 99, 0, id),
            },
            advertising_router,
        };
        let sequence = match kind >> 1 & 7 {
            0 => i32::MAX,
            1 => i32::MIN,
            2 => -0x7fff_ffff,
            step => i32::from(step),
        };
        let age = match kind >> 4 & 3 {
            0 => MAX_AGE,
            1 => MAX_AGE - 1,
            _ => u16::from(kind),
        };
        let body = self.slice();
        Lsa::originate(key, Options::E, sequence, body)
            .expect("a slice is short")
            .at_age(age)
    }

    /// Time passes; every timeout on the way is taken.
    fn wait(&mut self) {
        let amount = u64::from(self.number());
        let until = match amount {
            250.. => self.now + Duration::from_secs(100),
            _ => self.now + Duration::from_millis(amount * 20),
        };
        while let Some(at) = self.router.poll_timeout().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            self.router.handle_timeout(self.now);
            let next = self.router.poll_timeout();
            assert!(
                next.is_none_or(|next| next > self.now),
                "the next timeout is not later than the last"
            );
            drain(&mut self.router);
        }
        self.now = until;
    }

    fn want(&mut self) {
        let (stubs, externals) = (self.number(), self.number());
        let prefixes = (0..8).map(|last| (1_u8 << last, Ipv4Addr::new(10, 99, 0, last)));
        let stubs = prefixes.clone().filter(|(bit, _)| stubs & bit != 0);
        let stubs: Vec<Stub> = stubs
            .map(|(_, prefix)| Stub { prefix, metric: 1 })
            .collect();
        let externals = prefixes.filter(|(bit, _)| externals & bit != 0);
        let externals: Vec<External> = externals
            .map(|(_, prefix)| External {
                prefix,
                kind: ExternalKind::Type2,
                metric: 20,
            })
            .collect();
        self.router
            .announce(self.now, &stubs, &externals)
            .expect("sixteen hosts");
    }

    fn lose(&mut self, (interface, last): (usize, u8)) {
        let address = address(interface, last);
        self.router
            .handle_neighbor_lost(self.now, InterfaceId(interface), address);
    }

    fn rarely(&mut self, (interface, _): (usize, u8)) {
        match self.number() % 8 {
            0 => self
                .router
                .handle_interface(self.now, InterfaceId(interface), None),
            1..=4 => {
                let state = Some(link(interface));
                self.router
                    .handle_interface(self.now, InterfaceId(interface), state);
            }
            5 => self.router.shutdown(self.now),
            _ => {
                drain(&mut self.router);
                let snapshot = self.router.snapshot(self.now);
                self.router = Router::restore(config(), snapshot, self.now)
                    .expect("a router takes its own snapshot");
            }
        }
    }

    /// What must hold at every moment.
    fn check(&mut self) {
        if let Some(sequence) = drain(&mut self.router) {
            self.dd_sequence = sequence;
        }
        let mut count = 0;
        for neighbor in self.router.neighbors() {
            count += 1;
            assert!(
                neighbor.state >= State::Exchange || neighbor.unacknowledged == 0,
                "a list without an adjacency: {neighbor:?}"
            );
            assert!(neighbor.unacknowledged <= MOST_LSAS, "{neighbor:?}");
        }
        assert!(count <= PEERS.len(), "{count} neighbours");
        let lsas = self.router.lsdb(self.now).count();
        assert!(lsas <= MOST_LSAS, "{lsas} LSAs");
    }
}

/// Takes what a router has to say and checks it; returns the sequence number of its last
/// Database Description.
pub(crate) fn drain(router: &mut Router) -> Option<u32> {
    let mut dd_sequence = None;
    while let Some(transmit) = router.poll_transmit() {
        let packet = Packet::decode(&transmit.payload).expect("what we send can be read");
        assert_eq!(packet.encode(), transmit.payload, "not what was meant");
        let own = router.link(transmit.interface).map(|link| link.address);
        match packet.body {
            Body::Hello(hello) => {
                assert_eq!(hello.priority, 0, "we could be elected");
                let named = [Some(hello.dr), Some(hello.bdr)];
                assert!(own.is_none() || !named.contains(&own), "{hello:?}");
            }
            Body::DbDesc(dbdesc) => dd_sequence = Some(dbdesc.sequence),
            Body::Update(lsas) => lsas.iter().for_each(check_sent),
            Body::Request(_) | Body::Ack(_) => {}
        }
    }
    while router.poll_event().is_some() {}
    dd_sequence
}

/// Our Router-LSA, as we originate it, is no way through us. What the network says in our name
/// may be sent as it came until it is outbid, but then it has none of our links.
fn check_sent(lsa: &Lsa) {
    assert!(lsa.header().age <= MAX_AGE, "{:?}", lsa.header());
    if lsa.key().advertising_router != OUR_ID || lsa.key().ls_type != LsType::Router {
        return;
    }
    let links = RouterLsa::decode(lsa.body()).map_or_else(|_| Vec::new(), |lsa| lsa.links);
    let ours = links
        .iter()
        .filter(|link| link.data == address(0, 100) || link.data == address(1, 100));
    for link in ours {
        assert!(
            link.kind == LinkKind::Stub || link.metric == 0xffff,
            "transit through us: {link:?}"
        );
    }
}
