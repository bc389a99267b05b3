//! Loading: asking for LSAs, and answering those who ask (RFC 2328 §10.7, §10.9).

use std::time::Instant;

use crate::counters::PacketDrop;
use crate::ids::NeighborId;
use crate::lsdb::DbKey;
use crate::neighbor::{NeighborEvent, State};
use crate::packet::{Body, Lsa, LsaKey, REQUEST_ENTRY_LEN};
use crate::router::Router;
use crate::sabotage::Sabotage;
use crate::timer::Timer;

impl Router {
    /// Answers a Link State Request. The answers are on no retransmission list: a neighbour that
    /// misses one asks again.
    pub(crate) fn receive_request(
        &mut self,
        now: Instant,
        id: NeighborId,
        keys: &[LsaKey],
    ) -> Result<(), PacketDrop> {
        if self.state_of(id) < State::Exchange {
            return Err(PacketDrop::NeighborState);
        }
        let found: Option<Vec<Lsa>> = keys
            .iter()
            .map(|&key| {
                let key = DbKey::new(key, id.interface);
                Some(self.lsdb.entry(&key)?.to_send(now))
            })
            .collect();
        let Some(lsas) = found else {
            self.neighbor_event(now, id, NeighborEvent::BadLsReq);
            return Err(PacketDrop::BadRequest);
        };
        self.send_lsas_to(id, lsas);
        self.answered(now, keys);
        Ok(())
    }

    /// Goes on with what the neighbour's request list needs: the next request when the last one
    /// is satisfied, LoadingDone when the list is empty.
    pub(crate) fn continue_loading(&mut self, now: Instant, id: NeighborId) {
        let Some(neighbor) = self.neighbor_mut(id) else {
            return;
        };
        if !neighbor.state.is_synchronizing() {
            return;
        }
        let requests = &neighbor.requests;
        neighbor
            .outstanding
            .retain(|key| requests.contains_key(key));
        if requests.is_empty() {
            let is_loading = neighbor.state == State::Loading;
            self.timers.clear(Timer::Request(id));
            if is_loading {
                self.neighbor_event(now, id, NeighborEvent::LoadingDone);
            }
        } else if neighbor.outstanding.is_empty() {
            self.send_request(now, id);
        }
    }

    /// The neighbour did not send all that it was asked for within RxmtInterval.
    pub(crate) fn request_timeout(&mut self, now: Instant, id: NeighborId) {
        if self.is_sabotaged(Sabotage::AskOnce) {
            return;
        }
        if let Some(neighbor) = self.neighbor_mut(id) {
            neighbor.outstanding.clear();
        }
        self.continue_loading(now, id);
    }

    /// Asks for the first of the request list, as many as fit one packet.
    fn send_request(&mut self, now: Instant, id: NeighborId) {
        let Some(interface) = self.interfaces.get_mut(id.interface.0) else {
            return;
        };
        let room = (interface.body_capacity() / REQUEST_ENTRY_LEN).max(1);
        let interval = interface.settings.retransmit_interval;
        let Some(neighbor) = interface.neighbors.get_mut(&id.key) else {
            return;
        };
        neighbor.outstanding = neighbor.requests.keys().take(room).copied().collect();
        let keys: Vec<LsaKey> = neighbor.outstanding.iter().map(|key| key.lsa).collect();
        if keys.is_empty() {
            return;
        }
        let Some(neighbor) = self.neighbor(id) else {
            return;
        };
        let Some(interface) = self.interfaces.get(id.interface.0) else {
            return;
        };
        let destination = interface.direct_destination(neighbor);
        self.timers.set(Timer::Request(id), now + interval);
        self.send(id.interface, destination, Body::Request(keys));
    }
}
