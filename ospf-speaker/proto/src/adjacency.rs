//! Performing what the neighbour state machine asks for (RFC 2328 §10.3).

use std::time::{Duration, Instant};

use crate::ids::NeighborId;
use crate::neighbor::{Action, Neighbor, NeighborEvent, State, transition};
use crate::router::Router;
use crate::timer::Timer;
use crate::view::Event;

impl Router {
    pub(crate) fn neighbor(&self, id: NeighborId) -> Option<&Neighbor> {
        self.interfaces.get(id.interface.0)?.neighbors.get(&id.key)
    }

    pub(crate) fn neighbor_mut(&mut self, id: NeighborId) -> Option<&mut Neighbor> {
        self.interfaces
            .get_mut(id.interface.0)?
            .neighbors
            .get_mut(&id.key)
    }

    /// Runs the state machine of a neighbour, then what follows from the change of state.
    pub(crate) fn neighbor_event(&mut self, now: Instant, id: NeighborId, event: NeighborEvent) {
        let Some(neighbor) = self.neighbor_mut(id) else {
            return;
        };
        let from = neighbor.state;
        let (to, action) = transition(from, event);
        if to != from {
            neighbor.state = to;
            neighbor.since = now;
            let changed = Event::NeighborState {
                interface: id.interface,
                router_id: neighbor.router_id,
                address: neighbor.address,
                from,
                to,
            };
            self.event(changed);
        }
        self.perform(now, id, action);
        if to != from {
            self.after_change(now, id, from, to);
        }
    }

    fn perform(&mut self, now: Instant, id: NeighborId, action: Action) {
        match action {
            Action::None => {}
            Action::RestartInactivity => {
                if let Some(interface) = self.interfaces.get(id.interface.0) {
                    let dead = Duration::from_secs(interface.settings.dead_interval.into());
                    self.timers.set(Timer::Inactivity(id), now + dead);
                }
            }
            Action::StartExchange => self.start_exchange(now, id),
            Action::RestartExchange => {
                self.counters.exchange_restarts += 1;
                self.end_adjacency(id);
                self.start_exchange(now, id);
            }
            Action::Summarize => self.summarize(now, id),
            Action::ClearLists => self.end_adjacency(id),
            Action::Forget => {
                self.end_adjacency(id);
                self.timers.clear(Timer::Inactivity(id));
                if let Some(interface) = self.interfaces.get_mut(id.interface.0) {
                    interface.neighbors.remove(&id.key);
                }
            }
        }
    }

    /// Clears an adjacency's lists and timers.
    fn end_adjacency(&mut self, id: NeighborId) {
        if let Some(neighbor) = self.neighbor_mut(id) {
            neighbor.clear_lists();
        }
        self.own.owe_nothing(id);
        self.timers.clear(Timer::DbDesc(id));
        self.timers.clear(Timer::LastDbDesc(id));
        self.timers.clear(Timer::Request(id));
        self.timers.clear(Timer::Retransmit(id));
    }

    fn after_change(&mut self, now: Instant, id: NeighborId, from: State, to: State) {
        self.touch_restart();
        if (from >= State::TwoWay) != (to >= State::TwoWay) {
            self.neighbor_change(now, id.interface);
        }
        if (to == State::Full) != (from == State::Full) {
            self.own.touch_all();
            self.touch_router_lsa();
        }
        // An instance that is not wanted any more waited for what becomes of this neighbour.
        if from >= State::Exchange && to < State::Exchange {
            self.own.touch_all();
        }
        // Only now: a flush of ours may have waited on the lists that were just cleared.
        if to < State::Exchange || from.is_synchronizing() && !to.is_synchronizing() {
            self.purge_all(now);
        }
    }
}
