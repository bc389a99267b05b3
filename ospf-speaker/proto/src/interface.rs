//! An interface (RFC 2328 §9): Down, Point-to-Point or DROther, since priority 0 waits for
//! nobody and is elected for nothing.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::auth::Authenticator;
use crate::config::{InterfaceConfig, LinkState, NetworkType};
use crate::election;
use crate::ids::{InterfaceId, NeighborId};
use crate::lsdb::DbKey;
use crate::neighbor::{Neighbor, NeighborEvent, State};
use crate::packet::{ALL_D_ROUTERS, ALL_SPF_ROUTERS, HEADER_LEN, Hello, LsaHeader};
use crate::router::Router;
use crate::timer::Timer;
use crate::view::Event;

mod snapshot;

pub(crate) use snapshot::InterfaceSnapshot;

/// The length of an IP header without options, which the link's MTU includes.
const IP_HEADER_LEN: usize = 20;
/// The MTU of a neighbour that is not told ours, and whose own is not known.
const ETHERNET_MTU: u16 = 1500;

/// How much longer than a HelloInterval an adjacency takes to come up after its interface.
const ADJACENCY_TIME: Duration = Duration::from_secs(1);

/// An interface and the neighbours on it.
#[derive(Debug)]
pub(crate) struct Interface {
    pub(crate) settings: InterfaceConfig,
    pub(crate) auth: Authenticator,
    /// The link's state; nothing while the interface is Down.
    pub(crate) link: Option<LinkState>,
    /// No Hello has left since the interface came up: see [`Interface::may_speak`].
    pub(crate) is_listening: bool,
    /// The interface came up lately: its subnet alone is not worth an instance of our
    /// Router-LSA, behind which the link to its neighbour would have to wait.
    pub(crate) is_reserved: bool,
    pub(crate) neighbors: BTreeMap<Ipv4Addr, Neighbor>,
    /// The segment's Designated Router and its Backup (§9.4).
    pub(crate) elected: election::Elected,
    /// Acknowledgements that wait for company (§13.5).
    pub(crate) delayed_acks: Vec<LsaHeader>,
    /// What is to be flooded out of the interface at the end of the present input.
    pub(crate) floods: Vec<DbKey>,
}

impl Interface {
    pub(crate) fn new(settings: InterfaceConfig) -> Self {
        Self {
            settings,
            auth: Authenticator::default(),
            link: None,
            is_listening: false,
            is_reserved: false,
            neighbors: BTreeMap::new(),
            elected: election::Elected::default(),
            delayed_acks: Vec::new(),
            floods: Vec::new(),
        }
    }

    pub(crate) fn hello_interval(&self) -> Duration {
        Duration::from_secs(self.settings.hello_interval.into())
    }

    /// Whether our Router-LSA describes the interface.
    pub(crate) fn is_described(&self) -> bool {
        self.link.is_some() && (!self.is_reserved || self.any_full())
    }

    pub(crate) fn any_full(&self) -> bool {
        self.neighbors
            .values()
            .any(|neighbor| neighbor.state == State::Full)
    }

    /// The most neighbours that are kept. A segment has two switches and some directors; a
    /// point-to-point link has one neighbour, and a second while it changes its router id.
    pub(crate) fn max_neighbors(&self) -> usize {
        match self.settings.network {
            NetworkType::PointToPoint => 4,
            NetworkType::Broadcast => 64,
        }
    }

    /// Where LSAs are flooded and delayed acknowledgements are sent to (§8.1, §13.3 step 5).
    pub(crate) fn flood_destination(&self) -> Ipv4Addr {
        match self.settings.network {
            NetworkType::PointToPoint => ALL_SPF_ROUTERS,
            NetworkType::Broadcast => ALL_D_ROUTERS,
        }
    }

    /// Where packets for one neighbour are sent to (§8.1).
    pub(crate) fn direct_destination(&self, neighbor: &Neighbor) -> Ipv4Addr {
        match self.settings.network {
            NetworkType::PointToPoint => ALL_SPF_ROUTERS,
            NetworkType::Broadcast => neighbor.address,
        }
    }

    /// The bytes that a packet may have between the OSPF header and the digest, if any, without
    /// being fragmented. Where another MTU than the link's is told, the neighbours' is the one
    /// told, or unknown: then it is taken for Ethernet's.
    pub(crate) fn body_capacity(&self) -> usize {
        let link = self.link.map_or(0, |link| link.mtu);
        let mtu = match self.settings.advertise_mtu {
            None => link,
            Some(0) => link.min(ETHERNET_MTU),
            Some(told) => link.min(told),
        };
        usize::from(mtu).saturating_sub(IP_HEADER_LEN + HEADER_LEN + self.auth.trailer_len())
    }

    /// Whether the first Hello may leave. A switch that still has the adjacency of an earlier run
    /// of ours would end it on a Hello that does not list the switch, and be without its routes
    /// until its own next Hello. So for one HelloInterval we listen, and speak as soon as we have
    /// heard everybody who can have an adjacency with us, by the word of the Hello at hand.
    pub(crate) fn may_speak(&self, hello: &Hello) -> bool {
        match self.settings.network {
            NetworkType::PointToPoint => true,
            NetworkType::Broadcast => [hello.dr, hello.bdr]
                .iter()
                .all(|router| router.is_unspecified() || self.neighbors.contains_key(router)),
        }
    }

    /// Whether there should be an adjacency with a neighbour (§10.4).
    pub(crate) fn is_adjacent_to(&self, neighbor: &Neighbor) -> bool {
        match self.settings.network {
            NetworkType::PointToPoint => true,
            NetworkType::Broadcast => self.elected.includes(neighbor.address),
        }
    }

    /// The neighbour that is the Designated Router, when fully adjacent (§12.4.1.2).
    pub(crate) fn full_dr(&self) -> Option<&Neighbor> {
        let dr = self.elected.dr?;
        self.neighbors
            .get(&dr)
            .filter(|neighbor| neighbor.state == State::Full)
    }
}

impl Router {
    /// The events InterfaceUp and InterfaceDown (§9.2), the latter for a change of address too.
    pub(crate) fn change_link(&mut self, now: Instant, id: InterfaceId, link: Option<LinkState>) {
        let Some(interface) = self.interfaces.get_mut(id.0) else {
            return;
        };
        let before = interface.link;
        if before == link {
            return;
        }
        if let (Some(old), Some(new)) = (before, link)
            && (LinkState {
                mtu: new.mtu,
                ..old
            }) == new
        {
            interface.link = link;
            return;
        }
        if before.is_some() {
            self.interface_down(now, id);
        }
        let is_described = self.own.is_published(&self.router_lsa_key());
        if let Some(interface) = self.interfaces.get_mut(id.0)
            && link.is_some()
        {
            interface.link = link;
            interface.is_listening = true;
            interface.is_reserved = is_described;
            if interface.is_reserved {
                let adjacency = interface.hello_interval() + ADJACENCY_TIME;
                self.timers.set(Timer::Describe(id), now + adjacency);
            }
            self.schedule_hello(now, id);
        }
        self.touch_router_lsa();
    }

    /// The network changed under an interface: all adjacencies on it end (§9.3).
    pub(crate) fn interface_down(&mut self, now: Instant, id: InterfaceId) {
        if let Some(interface) = self.interfaces.get_mut(id.0) {
            interface.link = None;
        }
        for neighbor in self.neighbors_of(id) {
            self.neighbor_event(now, neighbor, NeighborEvent::LlDown);
        }
        self.timers.clear(Timer::Hello(id));
        self.timers.clear(Timer::Describe(id));
        self.timers.clear(Timer::DelayedAck(id));
        for key in self.lsdb.of_link(id) {
            self.forget_lsa(&key);
        }
        if let Some(interface) = self.interfaces.get_mut(id.0) {
            interface.elected = election::Elected::default();
            interface.delayed_acks.clear();
            interface.floods.clear();
        }
    }

    /// The event NeighborChange (§9.2): elects anew and asks every neighbour's adjacency again.
    pub(crate) fn neighbor_change(&mut self, now: Instant, id: InterfaceId) {
        let Some(interface) = self.interfaces.get_mut(id.0) else {
            return;
        };
        if interface.settings.network == NetworkType::PointToPoint {
            return;
        }
        let candidates: Vec<election::Candidate> = interface
            .neighbors
            .values()
            .filter(|neighbor| neighbor.state >= State::TwoWay)
            .map(election::Candidate::from)
            .collect();
        let elected = election::elect(&candidates);
        if elected == interface.elected {
            return;
        }
        interface.elected = elected;
        self.event(Event::DesignatedRouter {
            interface: id,
            dr: elected.dr,
            bdr: elected.bdr,
        });
        for neighbor in self.neighbors_of(id) {
            let adjacent = self.should_be_adjacent(neighbor);
            self.neighbor_event(now, neighbor, NeighborEvent::AdjOk { adjacent });
        }
        // A neighbour that stayed Full may have become the Designated Router or ceased to be.
        self.touch_router_lsa();
    }

    pub(crate) fn should_be_adjacent(&self, id: NeighborId) -> bool {
        self.interfaces
            .get(id.interface.0)
            .is_some_and(|interface| {
                interface
                    .neighbors
                    .get(&id.key)
                    .is_some_and(|neighbor| interface.is_adjacent_to(neighbor))
            })
    }

    /// An interface that has been up for a while without a neighbour has at least its subnet.
    pub(crate) fn describe_timeout(&mut self, id: InterfaceId) {
        if let Some(interface) = self.interfaces.get_mut(id.0) {
            interface.is_reserved = false;
            self.touch_router_lsa();
        }
    }

    pub(crate) fn schedule_hello(&mut self, now: Instant, id: InterfaceId) {
        if let Some(interface) = self.interfaces.get(id.0) {
            let interval = interface.hello_interval();
            self.timers.set(Timer::Hello(id), now + interval);
        }
    }

    /// The neighbours of an interface, to walk over while they change.
    pub(crate) fn neighbors_of(&self, id: InterfaceId) -> Vec<NeighborId> {
        self.interfaces
            .get(id.0)
            .map_or_else(Vec::new, |interface| {
                interface
                    .neighbors
                    .keys()
                    .map(|&key| NeighborId { interface: id, key })
                    .collect()
            })
    }

    /// All neighbours, to walk over while they change.
    pub(crate) fn all_neighbors(&self) -> Vec<NeighborId> {
        (0..self.interfaces.len())
            .flat_map(|index| self.neighbors_of(InterfaceId(index)))
            .collect()
    }
}
