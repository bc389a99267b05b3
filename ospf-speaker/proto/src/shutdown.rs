//! The planned stop: withdraw, be acknowledged, flush, say good-bye.
//!
//! The stubs go first and alone, so that the neighbours stop sending new flows here while the
//! adjacencies (and with them the dataplane) still stand. Then the Router-LSA is flushed (RFC
//! 2328 §14.1) and a Hello that lists nobody ends the adjacencies at once instead of after
//! RouterDeadInterval. Every wait is bounded.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::ids::InterfaceId;
use crate::lsdb::DbKey;
use crate::moment::{Moment, OutOfRange};
use crate::router::Router;
use crate::timer::Timer;
use crate::view::Event;

/// How long acknowledgements are waited for. A delayed one comes within a second or two, and
/// what is sent again after RxmtInterval is acknowledged directly.
const PATIENCE: Duration = Duration::from_secs(2);

/// How far the planned stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The Router-LSA without stubs leaves and is acknowledged, or the time is over.
    Withdrawing {
        until: Instant,
    },
    /// MinLSArrival passes, so that the flush is not dropped.
    Settling,
    /// The flush is acknowledged, or the time is over.
    Flushing {
        until: Instant,
    },
    Stopped,
}

/// [`Stage`] as plain data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StageSnapshot {
    Withdrawing { until: Moment },
    Settling,
    Flushing { until: Moment },
    Stopped,
}

impl Stage {
    pub(crate) fn snapshot(self, base: Instant) -> StageSnapshot {
        let moment = |at| Moment::new(at, base);
        match self {
            Self::Withdrawing { until } => StageSnapshot::Withdrawing {
                until: moment(until),
            },
            Self::Settling => StageSnapshot::Settling,
            Self::Flushing { until } => StageSnapshot::Flushing {
                until: moment(until),
            },
            Self::Stopped => StageSnapshot::Stopped,
        }
    }

    pub(crate) fn restore(snapshot: StageSnapshot, base: Instant) -> Result<Self, OutOfRange> {
        Ok(match snapshot {
            StageSnapshot::Withdrawing { until } => Self::Withdrawing {
                until: until.instant(base)?,
            },
            StageSnapshot::Settling => Self::Settling,
            StageSnapshot::Flushing { until } => Self::Flushing {
                until: until.instant(base)?,
            },
            StageSnapshot::Stopped => Self::Stopped,
        })
    }
}

impl Router {
    pub(crate) fn begin_shutdown(&mut self, now: Instant) {
        if self.stopping.is_some() {
            return;
        }
        self.forget_restart();
        let last = self
            .own
            .keys()
            .map(|key| self.next_departure(now, key))
            .max();
        let until = last.map_or(now, |last| last.max(now)) + PATIENCE;
        self.want(Vec::new(), BTreeMap::new());
        self.update_own_lsas(now);
        self.stopping = Some(Stage::Withdrawing { until });
        self.timers.set(Timer::Shutdown, until);
    }

    /// Whether new instances of our LSAs may leave: not at the end of a planned stop, and not
    /// before a graceful restart is over (RFC 3623 §2.2).
    pub(crate) fn may_originate(&self) -> bool {
        match self.stopping {
            None => !self.is_returning(),
            Some(Stage::Withdrawing { .. }) => true,
            Some(Stage::Settling | Stage::Flushing { .. } | Stage::Stopped) => false,
        }
    }

    /// Takes the planned stop, if there is one, as far as it can go now.
    pub(crate) fn continue_shutdown(&mut self, now: Instant) {
        let key = self.router_lsa_key();
        let nobody_listens = !self.anyone_full();
        if let Some(Stage::Withdrawing { until }) = self.stopping {
            let withdrawn = || !self.anything_of_ours_unacknowledged() && !self.anything_pending();
            if nobody_listens || now >= until || withdrawn() {
                self.stopping = Some(Stage::Settling);
                self.own.touch_all();
                self.update_own_lsas(now);
                self.timers
                    .set(Timer::Shutdown, self.next_departure(now, &key));
            }
        }
        if self.stopping == Some(Stage::Settling)
            && (nobody_listens || self.next_departure(now, &key) <= now)
        {
            let until = now + PATIENCE;
            self.stopping = Some(Stage::Flushing { until });
            self.timers.set(Timer::Shutdown, until);
            self.flush(now, key);
        }
        if let Some(Stage::Flushing { until }) = self.stopping {
            let acknowledged = !self.is_on_a_retransmission_list(&key);
            if nobody_listens || acknowledged || now >= until {
                self.say_good_bye(now);
            }
        }
    }

    /// Whether a neighbour has not acknowledged an LSA of ours.
    fn anything_of_ours_unacknowledged(&self) -> bool {
        let is_ours = |key: &DbKey| key.lsa.advertising_router == self.config.router_id;
        self.interfaces
            .iter()
            .flat_map(|interface| interface.neighbors.values())
            .any(|neighbor| neighbor.retransmit.keys().any(is_ours))
    }

    /// Whether a change of an LSA of ours waits for its time.
    fn anything_pending(&self) -> bool {
        self.own.next_stale().is_some()
            || self
                .own
                .keys()
                .any(|key| self.timers.due(Timer::Originate(*key)).is_some())
    }

    fn say_good_bye(&mut self, now: Instant) {
        // What waits to be flooded or acknowledged goes before the adjacency does.
        self.flush_floods(now);
        self.stopping = Some(Stage::Stopped);
        for index in 0..self.interfaces.len() {
            let id = InterfaceId(index);
            self.send_delayed_acknowledgements(id);
            self.send_hello_listing(id, Vec::new());
            self.interface_down(now, id);
        }
        self.timers.clear_all();
        self.event(Event::Stopped);
    }
}
