//! Sending again what is not acknowledged (RFC 2328 §13.6).

use std::time::{Duration, Instant};

use crate::ids::NeighborId;
use crate::lsdb::DbKey;
use crate::router::Router;
use crate::sabotage::Sabotage;
use crate::timer::Timer;

/// The most LSAs that one timer sends again to one neighbour: a neighbour that came back with an
/// empty queue is not buried under the whole database.
const BURST: usize = 500;

/// What did not fit into a burst follows after this.
const NEXT_BURST: Duration = Duration::from_millis(50);

impl Router {
    pub(crate) fn put_on_retransmission_list(&mut self, now: Instant, id: NeighborId, key: DbKey) {
        let Some(interface) = self.interfaces.get_mut(id.interface.0) else {
            return;
        };
        let interval = interface.settings.retransmit_interval;
        if let Some(neighbor) = interface.neighbors.get_mut(&id.key) {
            neighbor.retransmit.insert(key, now);
            self.own.is_told(&key, id);
            self.timers
                .set_if_idle(Timer::Retransmit(id), now + interval);
        }
    }

    /// Says whether it was on the list.
    pub(crate) fn remove_from_retransmission_list(
        &mut self,
        now: Instant,
        id: NeighborId,
        key: &DbKey,
    ) -> bool {
        if self.is_sabotaged(Sabotage::RetransmitForEver) {
            return false;
        }
        let Some(neighbor) = self.neighbor_mut(id) else {
            return false;
        };
        let was_on_list = neighbor.retransmit.remove(key).is_some();
        if neighbor.retransmit.is_empty() {
            self.timers.clear(Timer::Retransmit(id));
        }
        if was_on_list {
            self.purge(now, key);
        }
        was_on_list
    }

    /// Takes an LSA off all lists, because its instance is superseded or leaves.
    pub(crate) fn clear_retransmissions(&mut self, key: &DbKey) {
        for interface in &mut self.interfaces {
            for neighbor in interface.neighbors.values_mut() {
                neighbor.retransmit.remove(key);
            }
        }
    }

    pub(crate) fn is_on_a_retransmission_list(&self, key: &DbKey) -> bool {
        self.interfaces.iter().any(|interface| {
            interface
                .neighbors
                .values()
                .any(|neighbor| neighbor.retransmit.contains_key(key))
        })
    }

    pub(crate) fn retransmit_timeout(&mut self, now: Instant, id: NeighborId) {
        let Some(interface) = self.interfaces.get_mut(id.interface.0) else {
            return;
        };
        let interval = interface.settings.retransmit_interval;
        let Some(neighbor) = interface.neighbors.get_mut(&id.key) else {
            return;
        };
        let mut due: Vec<DbKey> = neighbor
            .retransmit
            .iter()
            .filter(|&(_, &sent)| sent + interval <= now)
            .map(|(&key, _)| key)
            .take(BURST)
            .collect();
        for key in &due {
            neighbor.retransmit.insert(*key, now);
        }
        // An instance of ours that is superseded as soon as the pace allows is not sent again:
        // had the first copy been lost, the second would be the one that the pace counts from.
        due.retain(|&key| self.timers.due(Timer::Originate(key)).is_none());
        let next = neighbor
            .retransmit
            .values()
            .min()
            .map(|&sent| (sent + interval).max(now + NEXT_BURST));
        let Some(neighbor) = interface.neighbors.get(&id.key) else {
            return;
        };
        let destination = interface.direct_destination(neighbor);
        if let Some(next) = next {
            self.timers.set(Timer::Retransmit(id), next);
        }
        self.counters.retransmitted += u64::try_from(due.len()).unwrap_or(u64::MAX);
        self.send_from_database(now, id.interface, destination, &due);
    }
}
