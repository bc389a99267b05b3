//! Packets on their way out, in one queue, so that what is put on them in order (such as the
//! sequence numbers of cryptographic authentication) leaves in order.

use std::net::Ipv4Addr;

use crate::ids::{InterfaceId, NeighborId};
use crate::packet::{Body, Header, Lsa, Packet, UPDATE_FIXED_LEN};
use crate::router::Router;
use crate::view::Transmit;

impl Router {
    pub(crate) fn send(&mut self, interface: InterfaceId, destination: Ipv4Addr, body: Body) {
        let packet = Packet {
            header: Header {
                router_id: self.config.router_id,
                area: self.config.area,
            },
            body,
        };
        self.counters.packets_sent += 1;
        self.transmits.push_back(Transmit {
            interface,
            destination,
            payload: packet.encode(),
        });
    }

    /// Sends LSAs to one neighbour.
    pub(crate) fn send_lsas_to(&mut self, id: NeighborId, lsas: Vec<Lsa>) {
        let destination = self.interfaces.get(id.interface.0).and_then(|interface| {
            let neighbor = interface.neighbors.get(&id.key)?;
            Some(interface.direct_destination(neighbor))
        });
        if let Some(destination) = destination {
            self.send_lsas(id.interface, destination, lsas);
        }
    }

    /// Sends LSAs in as few Link State Updates as the MTU allows. An LSA that is larger than the
    /// MTU goes alone and is fragmented by IP (§A.1).
    pub(crate) fn send_lsas(
        &mut self,
        interface: InterfaceId,
        destination: Ipv4Addr,
        lsas: Vec<Lsa>,
    ) {
        let capacity = self
            .interfaces
            .get(interface.0)
            .map_or(0, |interface| interface.body_capacity())
            .saturating_sub(UPDATE_FIXED_LEN);
        let mut page = Vec::new();
        let mut used = 0;
        for lsa in lsas {
            if !page.is_empty() && used + lsa.wire_len() > capacity {
                self.send(
                    interface,
                    destination,
                    Body::Update(std::mem::take(&mut page)),
                );
                used = 0;
            }
            used += lsa.wire_len();
            page.push(lsa);
        }
        if !page.is_empty() {
            self.send(interface, destination, Body::Update(page));
        }
    }
}
