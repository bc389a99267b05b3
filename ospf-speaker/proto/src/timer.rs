//! Every timer of the speaker, in one table.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::ids::{InterfaceId, NeighborId};
use crate::lsdb::DbKey;

/// What happens when a timer fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Timer {
    /// The next Hello of an interface (RFC 2328 §9.5).
    Hello(InterfaceId),
    /// An interface that came up is described in our Router-LSA without a neighbour.
    Describe(InterfaceId),
    /// The delayed acknowledgements of an interface are sent (§13.5).
    DelayedAck(InterfaceId),
    /// A neighbour was not heard for RouterDeadInterval (§10.3).
    Inactivity(NeighborId),
    /// The last Database Description is sent again (§10.8).
    DbDesc(NeighborId),
    /// A slave's last Database Description is let go (§10.8).
    LastDbDesc(NeighborId),
    /// The last Link State Request is sent again (§10.9).
    Request(NeighborId),
    /// Unacknowledged LSAs are sent again (§13.6).
    Retransmit(NeighborId),
    /// A paced change of an LSA of ours leaves.
    Originate(DbKey),
    /// An LSA of ours is refreshed (§12.4).
    Refresh(DbKey),
    /// More instances of our LSAs leave than one burst holds.
    NextBurst,
    /// An LSA reaches MaxAge (§14).
    MaxAge(DbKey),
    /// A step of the planned stop is due or has taken too long.
    Shutdown,
    /// A step of a graceful restart is due or has taken too long.
    Restart,
}

/// The timers that run.
#[derive(Debug, Default)]
pub(crate) struct TimerTable {
    due: BTreeMap<Timer, Instant>,
    queue: BTreeSet<(Instant, Timer)>,
}

impl TimerTable {
    /// Starts a timer, or moves it.
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        if let Some(before) = self.due.insert(timer, at) {
            self.queue.remove(&(before, timer));
        }
        self.queue.insert((at, timer));
    }

    /// Starts a timer unless it runs.
    pub(crate) fn set_if_idle(&mut self, timer: Timer, at: Instant) {
        if !self.due.contains_key(&timer) {
            self.set(timer, at);
        }
    }

    pub(crate) fn clear(&mut self, timer: Timer) {
        if let Some(at) = self.due.remove(&timer) {
            self.queue.remove(&(at, timer));
        }
    }

    pub(crate) fn clear_all(&mut self) {
        self.due.clear();
        self.queue.clear();
    }

    pub(crate) fn due(&self, timer: Timer) -> Option<Instant> {
        self.due.get(&timer).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Timer, Instant)> + '_ {
        self.due.iter().map(|(&timer, &at)| (timer, at))
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|&(at, _)| at)
    }

    /// Takes the earliest timer that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let &(at, timer) = self.queue.first()?;
        if at > now {
            return None;
        }
        self.clear(timer);
        Some(timer)
    }
}
