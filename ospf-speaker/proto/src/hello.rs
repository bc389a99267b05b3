//! Sending and receiving Hello packets (RFC 2328 §9.5, §10.5).

use std::net::Ipv4Addr;
use std::time::Instant;

use crate::config::{AreaType, NetworkType};
use crate::counters::PacketDrop;
use crate::ids::{InterfaceId, NeighborId, RouterId};
use crate::interface::Interface;
use crate::neighbor::{Neighbor, NeighborEvent, State};
use crate::packet::{ALL_SPF_ROUTERS, Body, Hello, Options};
use crate::router::Router;
use crate::sabotage::Sabotage;

/// Our priority: never Designated Router.
const PRIORITY: u8 = 0;

impl AreaType {
    /// The E and N bits of routers in such an area.
    pub(crate) fn options(self) -> Options {
        match self {
            Self::Normal => Options::E,
            Self::Stub => Options::default(),
            Self::Nssa => Options::N,
        }
    }
}

impl Router {
    /// Says who we are and whom we hear.
    pub(crate) fn send_hello(&mut self, id: InterfaceId) {
        let heard = self
            .interfaces
            .get(id.0)
            .map_or_else(Vec::new, |interface| {
                interface
                    .neighbors
                    .values()
                    .filter(|neighbor| neighbor.state >= State::Init)
                    .map(|neighbor| neighbor.router_id)
                    .collect()
            });
        self.send_hello_listing(id, heard);
    }

    /// A Hello that lists these neighbours; with nobody, it says good-bye to all.
    pub(crate) fn send_hello_listing(&mut self, id: InterfaceId, neighbors: Vec<RouterId>) {
        let stands = self.is_sabotaged(Sabotage::StandForElection);
        let Some(interface) = self.interfaces.get_mut(id.0) else {
            return;
        };
        let Some(link) = interface.link else {
            return;
        };
        interface.is_listening = false;
        let hello = Hello {
            network_mask: match link.is_unnumbered() {
                true => Ipv4Addr::UNSPECIFIED,
                false => link.mask(),
            },
            hello_interval: interface.settings.hello_interval,
            options: self.config.area_type.options(),
            priority: PRIORITY + u8::from(stands),
            dead_interval: interface.settings.dead_interval,
            dr: interface.elected.dr.unwrap_or(Ipv4Addr::UNSPECIFIED),
            bdr: interface.elected.bdr.unwrap_or(Ipv4Addr::UNSPECIFIED),
            neighbors,
        };
        self.counters.hellos_sent += 1;
        self.send(id, ALL_SPF_ROUTERS, Body::Hello(hello));
    }

    pub(crate) fn receive_hello(
        &mut self,
        now: Instant,
        id: InterfaceId,
        source: Ipv4Addr,
        router_id: RouterId,
        hello: &Hello,
    ) -> Result<(), PacketDrop> {
        let interface = self.interfaces.get(id.0).ok_or(PacketDrop::InterfaceDown)?;
        check_agreement(interface, self.config.area_type, hello)?;
        let neighbor = self.neighbor_id(id, source, router_id);
        self.forget_former_identity(now, neighbor, source, router_id);
        let is_new = self.find_or_create(now, neighbor, source, router_id)?;
        let role_changed = self.note_role(neighbor, source, hello);
        self.neighbor_event(now, neighbor, NeighborEvent::HelloReceived);
        // The answer goes before any Database Description, which the neighbour would not take
        // from a router that does not list it yet. It saves up to a HelloInterval.
        let answers =
            self.interfaces
                .get(id.0)
                .is_some_and(|interface| match interface.is_listening {
                    true => interface.may_speak(hello),
                    false => is_new,
                });
        if answers {
            self.send_hello(id);
        }
        if !hello.neighbors.contains(&self.config.router_id) {
            self.one_way(now, neighbor);
            return Ok(());
        }
        let adjacent = self.should_be_adjacent(neighbor);
        self.neighbor_event(now, neighbor, NeighborEvent::TwoWayReceived { adjacent });
        if role_changed {
            self.neighbor_change(now, id);
        }
        Ok(())
    }

    /// The neighbour does not hear us (any more). If it did, it has started anew, and our answer
    /// saves it up to a HelloInterval.
    fn one_way(&mut self, now: Instant, id: NeighborId) {
        let was_bidirectional = self.state_of(id) >= State::TwoWay;
        self.neighbor_event(now, id, NeighborEvent::OneWayReceived);
        if was_bidirectional {
            self.send_hello(id.interface);
        }
    }

    /// A neighbour that comes back under another router id, at the same address, is another
    /// router: the adjacency with the former one ends at once and not by the dead interval.
    fn forget_former_identity(
        &mut self,
        now: Instant,
        id: NeighborId,
        source: Ipv4Addr,
        router_id: RouterId,
    ) {
        for former in self.neighbors_of(id.interface) {
            let changed = self.neighbor(former).is_some_and(|neighbor| {
                neighbor.address == source && neighbor.router_id != router_id
            });
            if changed {
                self.neighbor_event(now, former, NeighborEvent::KillNbr);
            }
        }
    }

    /// Makes sure that the neighbour exists; says whether it is new.
    fn find_or_create(
        &mut self,
        now: Instant,
        id: NeighborId,
        source: Ipv4Addr,
        router_id: RouterId,
    ) -> Result<bool, PacketDrop> {
        let seeded = self.rng.next_u32();
        let dd_sequence = match self.is_sabotaged(Sabotage::IgnoreTheSeed) {
            true => Self::unseeded(),
            false => seeded,
        };
        let interface = self
            .interfaces
            .get_mut(id.interface.0)
            .ok_or(PacketDrop::InterfaceDown)?;
        if interface.neighbors.contains_key(&id.key) {
            return Ok(false);
        }
        if interface.neighbors.len() >= interface.max_neighbors() {
            return Err(PacketDrop::TooManyNeighbors);
        }
        let neighbor = Neighbor::new(now, router_id, source, dd_sequence);
        interface.neighbors.insert(id.key, neighbor);
        Ok(true)
    }

    /// Takes over what the Hello says of the sender's part on the segment. True when it became
    /// or ceased to be Designated Router or Backup by its own word, or changed its priority.
    fn note_role(&mut self, id: NeighborId, source: Ipv4Addr, hello: &Hello) -> bool {
        let Some(neighbor) = self.neighbor_mut(id) else {
            return false;
        };
        let roles = |dr, bdr, priority| (dr == source, bdr == source, priority);
        let before = roles(neighbor.dr, neighbor.bdr, neighbor.priority);
        neighbor.address = source;
        neighbor.priority = hello.priority;
        neighbor.dr = hello.dr;
        neighbor.bdr = hello.bdr;
        roles(neighbor.dr, neighbor.bdr, neighbor.priority) != before
    }
}

/// The fields that all routers of a link must agree on.
fn check_agreement(
    interface: &Interface,
    area_type: AreaType,
    hello: &Hello,
) -> Result<(), PacketDrop> {
    let link = interface.link.ok_or(PacketDrop::InterfaceDown)?;
    let settings = &interface.settings;
    if settings.network == NetworkType::Broadcast && hello.network_mask != link.mask() {
        return Err(PacketDrop::NetworkMask);
    }
    if hello.hello_interval != settings.hello_interval {
        return Err(PacketDrop::HelloInterval);
    }
    if hello.dead_interval != settings.dead_interval {
        return Err(PacketDrop::DeadInterval);
    }
    let area_bits = Options(hello.options.0 & Options::E.union(Options::N).0);
    if area_bits != area_type.options() {
        return Err(PacketDrop::AreaOptions);
    }
    Ok(())
}
