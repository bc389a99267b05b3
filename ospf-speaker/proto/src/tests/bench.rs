//! One router on a virtual clock, and neighbours whose every packet the test writes itself.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::lsdb::DbKey;
use crate::packet::{
    ALL_SPF_ROUTERS, Body, DbDesc, DbDescFlags, Header, Hello, LsType, Lsa, LsaHeader, LsaKey,
    NetworkLsa, Options, Packet, RouterLink, RouterLsa,
};
use crate::{
    AreaId, AreaType, Config, Event, InterfaceConfig, InterfaceId, LinkState, NetworkType, Router,
    RouterId, State, Stub,
};

pub(super) const OUR_ID: RouterId = RouterId(Ipv4Addr::new(10, 0, 0, 100));
pub(super) const MTU: u16 = 1500;
pub(super) const HELLO: Duration = Duration::from_secs(1);
pub(super) const DEAD: Duration = Duration::from_secs(4);
pub(super) const RXMT: Duration = Duration::from_secs(1);
pub(super) const PACE: Duration = Duration::from_millis(1050);

#[expect(
    clippy::disallowed_methods,
    reason = "an `Instant` can be had from the clock only; the tests count from this one"
)]
pub(super) fn epoch() -> Instant {
    // An age of an hour must be expressible before it, however short the machine is up.
    Instant::now() + Duration::from_secs(7200)
}

pub(super) fn interface(network: NetworkType) -> InterfaceConfig {
    InterfaceConfig {
        network,
        hello_interval: 1,
        dead_interval: 4,
        retransmit_interval: RXMT,
        cost: 10,
        peer_min_arrival: Duration::from_secs(1),
        advertise_mtu: None,
    }
}

pub(super) fn config(networks: &[NetworkType]) -> Config {
    Config {
        router_id: OUR_ID,
        area: AreaId(Ipv4Addr::UNSPECIFIED),
        area_type: AreaType::Normal,
        interfaces: networks.iter().copied().map(interface).collect(),
        is_asbr: false,
        sequence_hint: None,
    }
}

/// Our link to subnet 10.1.`interface`.0/24.
pub(super) fn link(interface: usize) -> LinkState {
    LinkState {
        address: Ipv4Addr::new(10, 1, u8::try_from(interface).unwrap(), 100),
        prefix_len: 24,
        mtu: MTU,
        index: 7,
    }
}

pub(super) fn vip(last: u8) -> Stub {
    Stub {
        prefix: Ipv4Addr::new(10, 99, 0, last),
        metric: 1,
    }
}

/// A packet that the router sent.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) at: Instant,
    pub(super) interface: InterfaceId,
    pub(super) destination: Ipv4Addr,
    pub(super) body: Body,
}

/// A neighbour that does what the test says.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) router_id: RouterId,
    pub(super) address: Ipv4Addr,
    pub(super) interface: InterfaceId,
    pub(super) priority: u8,
    pub(super) dr: Ipv4Addr,
    pub(super) bdr: Ipv4Addr,
    pub(super) options: Options,
    pub(super) dd_sequence: u32,
}

impl Peer {
    /// The router 10.0.0.`last` at 10.1.`interface`.`last`. We are 10.0.0.100.
    pub(super) fn new(interface: usize, last: u8) -> Self {
        Self {
            router_id: RouterId(Ipv4Addr::new(10, 0, 0, last)),
            address: Ipv4Addr::new(10, 1, u8::try_from(interface).unwrap(), last),
            interface: InterfaceId(interface),
            priority: 1,
            dr: Ipv4Addr::UNSPECIFIED,
            bdr: Ipv4Addr::UNSPECIFIED,
            options: Options::E,
            dd_sequence: 1000,
        }
    }

    /// The same as the segment's Designated Router.
    pub(super) fn dr(interface: usize, last: u8) -> Self {
        let peer = Self::new(interface, last);
        Self {
            dr: peer.address,
            ..peer
        }
    }

    pub(super) fn hello(&self, neighbors: &[RouterId]) -> Hello {
        Hello {
            network_mask: Ipv4Addr::new(255, 255, 255, 0),
            hello_interval: 1,
            options: self.options,
            priority: self.priority,
            dead_interval: 4,
            dr: self.dr,
            bdr: self.bdr,
            neighbors: neighbors.to_vec(),
        }
    }

    pub(super) fn dbdesc(&self, flags: DbDescFlags, sequence: u32, lsas: &[Lsa]) -> DbDesc {
        DbDesc {
            mtu: MTU,
            options: self.options.union(Options::O),
            flags,
            sequence,
            headers: lsas.iter().map(|lsa| *lsa.header()).collect(),
        }
    }
}

pub(super) fn flags(init: bool, more: bool, master: bool) -> DbDescFlags {
    DbDescFlags {
        init,
        more,
        master,
        other: 0,
    }
}

pub(super) fn router_lsa(router_id: RouterId, sequence: i32, links: &[RouterLink]) -> Lsa {
    let key = LsaKey {
        ls_type: LsType::Router,
        link_state_id: router_id.0,
        advertising_router: router_id,
    };
    let body = RouterLsa {
        flags: 0,
        links: links.to_vec(),
    };
    Lsa::originate(key, Options::E, sequence, &body.encode()).unwrap()
}

/// An LSA of any type that 10.0.0.`router` originated.
pub(super) fn lsa_of(ls_type: LsType, id: u8, router: u8, sequence: i32) -> Lsa {
    let key = LsaKey {
        ls_type,
        link_state_id: Ipv4Addr::new(10, 77, 0, id),
        advertising_router: RouterId(Ipv4Addr::new(10, 0, 0, router)),
    };
    Lsa::originate(key, Options::E, sequence, &[1, 2, 3, 4]).unwrap()
}

pub(super) fn network_lsa(dr: &Peer, sequence: i32) -> Lsa {
    let key = LsaKey {
        ls_type: LsType::Network,
        link_state_id: dr.address,
        advertising_router: dr.router_id,
    };
    let body = NetworkLsa {
        mask: Ipv4Addr::new(255, 255, 255, 0),
        routers: vec![dr.router_id, OUR_ID],
    };
    Lsa::originate(key, Options::E, sequence, &body.encode()).unwrap()
}

/// The router under test.
pub(super) struct Bench {
    pub(super) router: Router,
    pub(super) now: Instant,
    pub(super) sent: Vec<Sent>,
    pub(super) events: Vec<Event>,
}

impl Bench {
    /// All interfaces are up.
    pub(super) fn new(config: Config) -> Self {
        let now = epoch();
        let count = config.interfaces.len();
        let mut bench = Self {
            router: Router::new(config, 1, now).unwrap(),
            now,
            sent: Vec::new(),
            events: Vec::new(),
        };
        for index in 0..count {
            bench
                .router
                .handle_interface(now, InterfaceId(index), Some(link(index)));
        }
        bench.drain();
        bench
    }

    pub(super) fn point_to_point() -> Self {
        Self::new(config(&[NetworkType::PointToPoint]))
    }

    pub(super) fn broadcast() -> Self {
        Self::new(config(&[NetworkType::Broadcast]))
    }

    /// Takes what the router sent.
    pub(super) fn drain(&mut self) {
        while let Some(transmit) = self.router.poll_transmit() {
            let packet = Packet::decode(&transmit.payload).unwrap();
            assert_eq!(packet.header.router_id, OUR_ID);
            self.sent.push(Sent {
                at: self.now,
                interface: transmit.interface,
                destination: transmit.destination,
                body: packet.body,
            });
        }
        while let Some(event) = self.router.poll_event() {
            self.events.push(event);
        }
    }

    /// Lets time pass; every timer fires at its own time.
    pub(super) fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.router.poll_timeout().filter(|&at| at <= end) {
            assert!(at >= self.now, "a timer lies in the past");
            self.now = at;
            self.router.handle_timeout(at);
            let next = self.router.poll_timeout();
            assert!(next.is_none_or(|next| next > at), "time does not advance");
            self.drain();
        }
        self.now = end;
    }

    /// Advances with a Hello of each peer every second.
    pub(super) fn advance_with(&mut self, peers: &[&Peer], time: Duration) {
        let end = self.now + time;
        while self.now < end {
            for peer in peers {
                self.hello(peer);
            }
            self.advance((end - self.now).min(HELLO));
        }
    }

    pub(super) fn receive(&mut self, from: &Peer, body: Body) {
        self.receive_at(from, ALL_SPF_ROUTERS, body);
    }

    pub(super) fn receive_at(&mut self, from: &Peer, destination: Ipv4Addr, body: Body) {
        let packet = Packet {
            header: Header {
                router_id: from.router_id,
                area: self.router.config.area,
            },
            body,
        };
        self.router.handle_packet(
            self.now,
            from.interface,
            from.address,
            destination,
            &packet.encode(),
        );
        self.drain();
    }

    /// A Hello that lists us.
    pub(super) fn hello(&mut self, peer: &Peer) {
        self.receive(peer, Body::Hello(peer.hello(&[OUR_ID])));
    }

    pub(super) fn update(&mut self, peer: &Peer, lsas: &[Lsa]) {
        self.receive(peer, Body::Update(lsas.to_vec()));
    }

    /// The peer acknowledges an LSA.
    pub(super) fn ack(&mut self, peer: &Peer, lsa: &Lsa) {
        self.receive(peer, Body::Ack(vec![*lsa.header()]));
    }

    /// The peer acknowledges every LSA that was sent since the last take.
    pub(super) fn ack_all(&mut self, peer: &Peer) {
        let headers: Vec<LsaHeader> = self.flooded().iter().map(|lsa| *lsa.header()).collect();
        self.receive(peer, Body::Ack(headers));
    }

    /// Exchanges databases with a peer, which is the master if its router id is above 100, up to
    /// the point at which only its answer to our requests is missing.
    pub(super) fn exchange(&mut self, peer: &Peer, database: &[Lsa]) {
        self.hello(peer);
        let opening = self.last_dbdesc();
        assert!(opening.flags.init, "no opening but {opening:?}");
        let mut sequence = peer.dd_sequence;
        if peer.router_id > OUR_ID {
            let opening = peer.dbdesc(DbDescFlags::OPENING, sequence, &[]);
            self.receive(peer, Body::DbDesc(opening));
            let mut pages = database.chunks(10);
            loop {
                sequence += 1;
                let page = pages.next().unwrap_or_default();
                let more = pages.len() > 0;
                let dbdesc = peer.dbdesc(flags(false, more, true), sequence, page);
                self.receive(peer, Body::DbDesc(dbdesc));
                let answer = self.last_dbdesc();
                assert_eq!(answer.sequence, sequence);
                if !more && !answer.flags.more {
                    break;
                }
            }
        } else {
            let mut asked = opening.sequence;
            let mut first = true;
            loop {
                let page = if first { database } else { &[] };
                first = false;
                let dbdesc = peer.dbdesc(flags(false, false, false), asked, page);
                self.receive(peer, Body::DbDesc(dbdesc));
                let next = self.last_dbdesc();
                if next.sequence == asked {
                    break;
                }
                asked = next.sequence;
            }
        }
    }

    /// Brings the adjacency up to Full; the peer's database becomes ours, and the peer
    /// acknowledges what it is sent.
    pub(super) fn bring_up(&mut self, peer: &Peer, database: &[Lsa]) {
        self.exchange(peer, database);
        if self.state(peer) != Some(State::Full) {
            self.update(peer, database);
        }
        assert_eq!(self.state(peer), Some(State::Full));
        self.ack_all(peer);
    }

    pub(super) fn state(&self, peer: &Peer) -> Option<State> {
        self.router
            .neighbors()
            .find(|neighbor| neighbor.router_id == peer.router_id)
            .map(|neighbor| neighbor.state)
    }

    pub(super) fn take(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    /// The LSAs that were sent since the last take.
    pub(super) fn flooded(&self) -> Vec<Lsa> {
        self.sent
            .iter()
            .filter_map(|sent| match &sent.body {
                Body::Update(lsas) => Some(lsas.clone()),
                Body::Hello(_) | Body::DbDesc(_) | Body::Request(_) | Body::Ack(_) => None,
            })
            .flatten()
            .collect()
    }

    /// The instances of our Router-LSA that were sent since the last take.
    pub(super) fn own_instances(&self) -> Vec<Lsa> {
        let mut own = self.flooded();
        own.retain(|lsa| lsa.key().advertising_router == OUR_ID);
        own
    }

    /// The headers that were acknowledged since the last take.
    pub(super) fn acknowledged(&self) -> Vec<LsaHeader> {
        self.sent
            .iter()
            .filter_map(|sent| match &sent.body {
                Body::Ack(headers) => Some(headers.clone()),
                Body::Hello(_) | Body::DbDesc(_) | Body::Request(_) | Body::Update(_) => None,
            })
            .flatten()
            .collect()
    }

    pub(super) fn dbdescs(&self) -> Vec<DbDesc> {
        self.sent
            .iter()
            .filter_map(|sent| match &sent.body {
                Body::DbDesc(dbdesc) => Some(dbdesc.clone()),
                Body::Hello(_) | Body::Request(_) | Body::Update(_) | Body::Ack(_) => None,
            })
            .collect()
    }

    pub(super) fn last_dbdesc(&self) -> DbDesc {
        self.dbdescs()
            .pop()
            .expect("no Database Description was sent")
    }

    pub(super) fn hellos(&self) -> Vec<Hello> {
        self.sent
            .iter()
            .filter_map(|sent| match &sent.body {
                Body::Hello(hello) => Some(hello.clone()),
                Body::DbDesc(_) | Body::Request(_) | Body::Update(_) | Body::Ack(_) => None,
            })
            .collect()
    }

    pub(super) fn requested(&self) -> Vec<LsaKey> {
        self.sent
            .iter()
            .filter_map(|sent| match &sent.body {
                Body::Request(keys) => Some(keys.clone()),
                Body::Hello(_) | Body::DbDesc(_) | Body::Update(_) | Body::Ack(_) => None,
            })
            .flatten()
            .collect()
    }

    /// The instance of an LSA that is in the database.
    pub(super) fn own_copy(&self, key: LsaKey) -> Lsa {
        let entry = self.router.lsdb.entry(&DbKey::of_area(key));
        entry.expect("the LSA is in the database").to_send(self.now)
    }

    pub(super) fn announce(&mut self, stubs: &[Stub]) {
        self.router.announce(self.now, stubs, &[]).unwrap();
        self.drain();
    }

    /// Whether the database has an LSA, and its sequence number.
    pub(super) fn sequence_of(&self, key: LsaKey) -> Option<i32> {
        self.router
            .lsdb(self.now)
            .find(|lsa| {
                lsa.ls_type == u8::from(key.ls_type)
                    && lsa.link_state_id == key.link_state_id
                    && lsa.advertising_router == key.advertising_router
            })
            .map(|lsa| lsa.sequence)
    }
}

/// The links of a Router-LSA.
pub(super) fn links(lsa: &Lsa) -> Vec<RouterLink> {
    RouterLsa::decode(lsa.body()).unwrap().links
}

/// The announced stubs in a Router-LSA, by the last byte of the address.
pub(super) fn stubs(lsa: &Lsa) -> Vec<u8> {
    links(lsa)
        .iter()
        .filter(|link| link.data == Ipv4Addr::BROADCAST)
        .map(|link| link.id.octets()[3])
        .collect()
}
