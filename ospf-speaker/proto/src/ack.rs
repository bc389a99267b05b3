//! Acknowledging LSAs, and receiving acknowledgements (RFC 2328 §13.5, §13.7).

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::counters::PacketDrop;
use crate::ids::{InterfaceId, NeighborId};
use crate::lsdb::DbKey;
use crate::neighbor::State;
use crate::packet::{Body, LSA_HEADER_LEN, LsaHeader};
use crate::router::Router;
use crate::timer::Timer;

/// How long an acknowledgement waits for others to share its packet. Well below any RxmtInterval
/// (5 s by default), and short enough for a peer that waits for it before it goes on.
const ACK_DELAY: Duration = Duration::from_millis(200);

/// How a received LSA is acknowledged: table 19, of which the column of a Backup Designated
/// Router is not ours.
///
/// | circumstances | acknowledgement |
/// |---|---|
/// | flooded back out of the receiving interface | none |
/// | newer, not flooded back | delayed |
/// | duplicate, taken as an implied acknowledgement | none |
/// | duplicate, not so taken | direct |
/// | at MaxAge, no copy, nobody synchronizing | direct |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acknowledgement {
    None,
    Delayed,
    Direct,
}

impl Router {
    pub(crate) fn delay_acknowledgement(
        &mut self,
        now: Instant,
        id: InterfaceId,
        header: LsaHeader,
    ) {
        let Some(interface) = self.interfaces.get_mut(id.0) else {
            return;
        };
        interface.delayed_acks.push(header);
        // A full packet need not wait.
        let room = interface.body_capacity() / LSA_HEADER_LEN;
        if interface.delayed_acks.len() >= room {
            self.send_delayed_acknowledgements(id);
        } else {
            self.timers
                .set_if_idle(Timer::DelayedAck(id), now + ACK_DELAY);
        }
    }

    pub(crate) fn send_delayed_acknowledgements(&mut self, id: InterfaceId) {
        self.timers.clear(Timer::DelayedAck(id));
        if let Some(interface) = self.interfaces.get_mut(id.0) {
            let headers = std::mem::take(&mut interface.delayed_acks);
            let destination = interface.flood_destination();
            self.send_acknowledgements(id, destination, &headers);
        }
    }

    /// Acknowledges directly to one neighbour.
    pub(crate) fn acknowledge(&mut self, id: NeighborId, headers: Vec<LsaHeader>) {
        let destination = self.interfaces.get(id.interface.0).and_then(|interface| {
            let neighbor = interface.neighbors.get(&id.key)?;
            Some(interface.direct_destination(neighbor))
        });
        if let Some(destination) = destination {
            self.send_acknowledgements(id.interface, destination, &headers);
        }
    }

    fn send_acknowledgements(
        &mut self,
        id: InterfaceId,
        destination: Ipv4Addr,
        headers: &[LsaHeader],
    ) {
        let capacity = self
            .interfaces
            .get(id.0)
            .map_or(0, |interface| interface.body_capacity());
        let room = (capacity / LSA_HEADER_LEN).max(1);
        for page in headers.chunks(room) {
            self.send(id, destination, Body::Ack(page.to_vec()));
        }
    }

    /// Receives a Link State Acknowledgment.
    pub(crate) fn receive_ack(
        &mut self,
        now: Instant,
        id: NeighborId,
        headers: &[LsaHeader],
    ) -> Result<(), PacketDrop> {
        if self.state_of(id) < State::Exchange {
            return Err(PacketDrop::NeighborState);
        }
        for header in headers {
            let key = DbKey::new(header.key, id.interface);
            let same = self
                .lsdb
                .entry(&key)
                .is_some_and(|entry| header.recency(&entry.header(now)).is_eq());
            if same {
                self.own.is_told(&key, id);
            }
            if !(same && self.remove_from_retransmission_list(now, id, &key)) {
                self.counters.stray_acknowledgements += 1;
            }
        }
        Ok(())
    }
}
