//! Graceful restart of ourselves (RFC 3623): the neighbours keep us in their routes while the
//! program is away. It is the fallback to a handover of the whole state, which no neighbour has
//! to take part in. We never help others (§3): who forwards nothing has nothing to keep.
//!
//! ```text
//!  before   Settling ── all acknowledged ──▶ Announcing ── all acknowledged ──▶ Prepared, exit
//!  (§2.1)       └──── an adjacency ends, the wanted set changes, time is up ────▶ Refused
//!
//!  after    Returning ── every adjacency is Full again ──────────────▶ Complete
//!  (§2.2)       └──── wanted set, topology, end of the grace period ──▶ (the other RestartEnds)
//! ```
//!
//! While Settling, what is on its way arrives: a helper refuses while it has changes to deliver
//! (§3.1), and a withdrawal must not be left behind. Announcing, a Grace-LSA is out on every
//! interface with an adjacency (§2.1, §A). A restart that not every neighbour has agreed to is
//! called off, and the caller is to withdraw and flush as on any planned stop: who does not help
//! keeps us until RouterDeadInterval, for better or worse.
//!
//! Returning, we originate nothing and take our own LSAs from the network for what they are
//! (§2.2). However it ends (§2.3), our LSAs are then originated anew, those that are not wanted
//! any more and the Grace-LSAs are flushed. One thing is ours: what the wanted set no longer has
//! is not kept in the routes by a restart, so that such a change ends it at once.

mod returning;
mod snapshot;

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use crate::config::NetworkType;
use crate::ids::{InterfaceId, NeighborId};
use crate::lsdb::DbKey;
use crate::neighbor::State;
use crate::own::Content;
use crate::packet::{GRACE_LSA_ID, GraceLsa, LsType, LsaHeader, LsaKey, Options, RestartReason};
use crate::router::Router;
use crate::timer::Timer;
use crate::view::Event;

pub(crate) use snapshot::RestartSnapshot;

/// How long acknowledgements are waited for, at each of the two steps: a delayed one of FRR's
/// comes within 1 s, one of BIRD's within 2.5 s; what is sent again is acknowledged directly.
const PATIENCE: Duration = Duration::from_secs(3);

/// The longest grace period (RFC 3623 §B.1), in seconds.
const LONGEST_PERIOD: u32 = 1800;

/// What is asked of the neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grace {
    /// When the grace period ends. It is counted in whole seconds, from 1 to 1800, from the time
    /// at which the Grace-LSAs leave, so that it ends up to a second earlier.
    pub until: Instant,
    /// Why we restart.
    pub reason: RestartReason,
    /// How long the adjacencies must last before the neighbours are asked: a neighbour that
    /// takes the pause of BFD for the loss of the path ends its adjacency within this time.
    pub settle: Duration,
}

macro_rules! causes {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name used in metrics.
            pub fn code(self) -> &'static str {
                match self {
                    $(Self::$variant => $code,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $text,)*
                })
            }
        }
    };
}

causes!(
    /// Why a graceful restart is not possible now.
    RestartRefusal {
        /// The planned stop has begun.
        Stopping = "stopping", "the speaker is stopping already";
        /// The last restart is not over.
        Restarting = "restarting", "the last graceful restart is not over";
        /// The grace period has no whole second.
        Period = "period", "there is not a second left of the time that the announced set holds";
        /// Nobody is Full.
        NoAdjacency = "no_adjacency", "no neighbor is Full";
        /// A neighbour does not take opaque LSAs (RFC 5250).
        NotOpaque = "not_opaque", "a neighbor does not take opaque LSAs";
        /// An adjacency ended, or one is coming up.
        Adjacency = "adjacency", "an adjacency ended or is coming up";
        /// What we announce changed.
        WantedSet = "wanted_set", "what is to be announced changed";
        /// Our LSAs or the Grace-LSAs are not acknowledged in time. FRR does not acknowledge a
        /// Grace-LSA when it does not help.
        NotAcknowledged = "not_acknowledged", "a neighbor did not acknowledge in time";
    }
);

causes!(
    /// How a graceful restart ended.
    RestartEnd {
        /// Every adjacency from before is Full again.
        Complete = "complete", "every adjacency is back";
        /// What the network holds of ours is not what is wanted.
        WantedSet = "wanted_set", "what is to be announced changed";
        /// A neighbour has given up on us (RFC 3623 §2.2, point 2), or knows nothing of us.
        Inconsistent = "inconsistent", "a neighbor has given up the adjacency";
        /// The grace period is over.
        Expired = "expired", "the grace period is over";
        /// The planned stop begins.
        Stopping = "stopping", "the speaker is stopping";
    }
);

/// Where a graceful restart is.
#[derive(Debug, Default)]
pub(crate) enum Restart {
    #[default]
    None,
    Settling {
        /// When the grace period is to end at the latest, and the reason to name.
        until: Instant,
        reason: RestartReason,
        /// The Full neighbours.
        adjacencies: BTreeSet<NeighborId>,
        /// They must stay Full until then.
        from: Instant,
        /// How long acknowledgements are waited for.
        patience: Instant,
    },
    Announcing {
        /// What the Grace-LSAs say, but for the address.
        period: u32,
        reason: RestartReason,
        adjacencies: BTreeSet<NeighborId>,
        /// When the grace period ends.
        expires: Instant,
        patience: Instant,
    },
    /// Nothing is left to be done but to go.
    Prepared,
    Returning {
        expires: Instant,
        /// Something changed that the end depends on.
        is_stale: bool,
    },
}

impl Router {
    /// Begins a graceful restart (RFC 3623 §2.1). [`Event::RestartPrepared`] says that the
    /// process is to end now, with no word to anybody; [`Event::RestartRefused`] that it is to
    /// stop as planned instead, or to go on.
    pub fn prepare_restart(&mut self, now: Instant, grace: Grace) {
        let now = self.advance(now);
        if let Err(refusal) = self.begin_restart(now, grace) {
            self.event(Event::RestartRefused { refusal });
        }
        self.finish(now);
    }

    /// This run follows one that prepared a restart (RFC 3623 §2.2), whose grace period ends at
    /// `expires`. To be called before any interface is up.
    pub fn resume_restart(&mut self, now: Instant, expires: Instant) {
        let now = self.advance(now);
        if expires > now {
            self.restart = Restart::Returning {
                expires,
                is_stale: true,
            };
            self.timers.set(Timer::Restart, expires);
        }
    }

    /// Whether a graceful restart is still going on, after [`Router::resume_restart`].
    pub fn is_returning(&self) -> bool {
        matches!(self.restart, Restart::Returning { .. })
    }

    fn begin_restart(&mut self, now: Instant, grace: Grace) -> Result<(), RestartRefusal> {
        if self.stopping.is_some() {
            return Err(RestartRefusal::Stopping);
        }
        match self.restart {
            Restart::None => {}
            Restart::Settling { .. }
            | Restart::Announcing { .. }
            | Restart::Prepared
            | Restart::Returning { .. } => return Err(RestartRefusal::Restarting),
        }
        let adjacencies = self.adjacencies()?;
        for index in 0..self.interfaces.len() {
            // A helper looks at its retransmission list first (§3.1), and a neighbour that has
            // dropped us says so when it hears us.
            let id = InterfaceId(index);
            self.send_delayed_acknowledgements(id);
            self.send_hello(id);
        }
        let from = now + grace.settle;
        let patience = from.max(self.all_departed(now)) + PATIENCE;
        self.timers.set(Timer::Restart, from);
        self.restart = Restart::Settling {
            until: grace.until,
            reason: grace.reason,
            adjacencies,
            from,
            patience,
        };
        Ok(())
    }

    /// The Full neighbours, if they can all be asked.
    fn adjacencies(&self) -> Result<BTreeSet<NeighborId>, RestartRefusal> {
        let mut adjacencies = BTreeSet::new();
        for id in self.all_neighbors() {
            let Some(neighbor) = self.neighbor(id) else {
                continue;
            };
            match neighbor.state {
                State::Down | State::Init | State::TwoWay => {}
                State::ExStart | State::Exchange | State::Loading => {
                    return Err(RestartRefusal::Adjacency);
                }
                State::Full if !neighbor.exchange.options.contains(Options::O) => {
                    return Err(RestartRefusal::NotOpaque);
                }
                State::Full => {
                    adjacencies.insert(id);
                }
            }
        }
        if adjacencies.is_empty() {
            return Err(RestartRefusal::NoAdjacency);
        }
        Ok(adjacencies)
    }

    /// Takes the way out, if we are on it, as far as it can go now.
    pub(crate) fn continue_restart(&mut self, now: Instant) {
        match self.restart {
            Restart::Settling { .. } => self.settle(now),
            Restart::Announcing { .. } => self.await_grace(now),
            Restart::None | Restart::Prepared | Restart::Returning { .. } => {}
        }
    }

    /// Ends the way back, if we are on it and it has come to an end.
    pub(crate) fn continue_return(&mut self, now: Instant) {
        let Restart::Returning { expires, is_stale } = &mut self.restart else {
            return;
        };
        let end = if now >= *expires {
            Some(RestartEnd::Expired)
        } else if std::mem::take(is_stale) {
            self.restart_end()
        } else {
            None
        };
        if let Some(end) = end {
            self.end_restart(end);
        }
    }

    fn settle(&mut self, now: Instant) {
        let Restart::Settling {
            until,
            reason,
            adjacencies,
            from,
            patience,
        } = &self.restart
        else {
            return;
        };
        let (until, reason, from, patience) = (*until, *reason, *from, *patience);
        if !self.are_full(adjacencies) {
            self.refuse_restart(RestartRefusal::Adjacency);
        } else if now >= from && self.is_own_acknowledged() {
            let adjacencies = adjacencies.clone();
            self.announce_grace(now, until, reason, adjacencies);
        } else if now >= patience {
            self.refuse_restart(RestartRefusal::NotAcknowledged);
        } else {
            let next = if now < from { from } else { patience };
            self.timers.set(Timer::Restart, next);
        }
    }

    fn announce_grace(
        &mut self,
        now: Instant,
        until: Instant,
        reason: RestartReason,
        adjacencies: BTreeSet<NeighborId>,
    ) {
        let left = until.saturating_duration_since(now).as_secs();
        let period = u32::try_from(left).map_or(LONGEST_PERIOD, |left| left.min(LONGEST_PERIOD));
        if period == 0 {
            self.refuse_restart(RestartRefusal::Period);
            return;
        }
        let interfaces: BTreeSet<InterfaceId> = adjacencies
            .iter()
            .map(|neighbor| neighbor.interface)
            .collect();
        let patience = now + PATIENCE;
        self.timers.set(Timer::Restart, patience);
        self.restart = Restart::Announcing {
            period,
            reason,
            adjacencies,
            expires: now + Duration::from_secs(period.into()),
            patience,
        };
        for interface in interfaces {
            self.own.touch(self.grace_key(interface));
        }
        self.update_own_lsas(now);
    }

    fn await_grace(&mut self, now: Instant) {
        let Restart::Announcing {
            adjacencies,
            expires,
            patience,
            ..
        } = &self.restart
        else {
            return;
        };
        let (expires, patience) = (*expires, *patience);
        if !self.are_full(adjacencies) {
            self.refuse_restart(RestartRefusal::Adjacency);
        } else if !self.is_own_acknowledged() {
            self.refuse_restart(RestartRefusal::WantedSet);
        } else if self.is_grace_acknowledged() {
            self.timers.clear(Timer::Restart);
            self.restart = Restart::Prepared;
            self.event(Event::RestartPrepared { expires });
        } else if now >= patience {
            self.refuse_restart(RestartRefusal::NotAcknowledged);
        }
    }

    fn refuse_restart(&mut self, refusal: RestartRefusal) {
        self.restart = Restart::None;
        self.timers.clear(Timer::Restart);
        self.touch_grace_lsas();
        self.event(Event::RestartRefused { refusal });
    }

    fn end_restart(&mut self, end: RestartEnd) {
        self.restart = Restart::None;
        self.timers.clear(Timer::Restart);
        self.own.touch_all();
        self.event(Event::RestartEnded { end });
    }

    /// A planned stop ends whatever restart is under way.
    pub(crate) fn forget_restart(&mut self) {
        match self.restart {
            Restart::None => {}
            Restart::Settling { .. } | Restart::Announcing { .. } | Restart::Prepared => {
                self.refuse_restart(RestartRefusal::Stopping);
            }
            Restart::Returning { .. } => self.end_restart(RestartEnd::Stopping),
        }
    }

    /// An LSA came into the database.
    pub(crate) fn lsa_installed(&mut self, header: &LsaHeader) {
        let ours = header.key.advertising_router == self.config.router_id;
        if ours || matches!(header.key.ls_type, LsType::Router | LsType::Network) {
            self.touch_restart();
        }
    }

    /// Something changed that the end of the way back depends on.
    pub(crate) fn touch_restart(&mut self) {
        if let Restart::Returning { is_stale, .. } = &mut self.restart {
            *is_stale = true;
        }
    }

    /// The Grace-LSA of an interface.
    fn grace_key(&self, interface: InterfaceId) -> DbKey {
        let key = LsaKey {
            ls_type: LsType::OpaqueLink,
            link_state_id: GRACE_LSA_ID,
            advertising_router: self.config.router_id,
        };
        DbKey::new(key, interface)
    }

    fn grace_keys(&self) -> impl Iterator<Item = DbKey> + '_ {
        (0..self.interfaces.len()).map(|index| self.grace_key(InterfaceId(index)))
    }

    fn touch_grace_lsas(&mut self) {
        let known: Vec<DbKey> = self
            .grace_keys()
            .filter(|key| self.own.get(key).is_some())
            .collect();
        for key in known {
            self.own.touch(key);
        }
    }

    /// What the Grace-LSA at this place should say; nothing if there should be none.
    pub(crate) fn wanted_grace_lsa(&self, key: &DbKey) -> Option<Content> {
        let Restart::Announcing {
            period,
            reason,
            adjacencies,
            ..
        } = &self.restart
        else {
            return None;
        };
        let id = key.link?;
        let interface = self.interfaces.get(id.0)?;
        let asked = adjacencies.iter().any(|neighbor| neighbor.interface == id);
        if *key != self.grace_key(id) || !asked {
            return None;
        }
        let address = match interface.settings.network {
            NetworkType::PointToPoint => None,
            NetworkType::Broadcast => Some(interface.link?.address),
        };
        let lsa = GraceLsa {
            period: *period,
            reason: *reason,
            address,
        };
        Some(Content {
            options: self.config.area_type.options(),
            body: lsa.encode(),
        })
    }

    fn are_full(&self, neighbors: &BTreeSet<NeighborId>) -> bool {
        let mut neighbors = neighbors.iter();
        neighbors.all(|&id| self.state_of(id) == State::Full)
    }

    /// Whether nothing of ours but Grace-LSAs is on its way or waits to leave.
    fn is_own_acknowledged(&self) -> bool {
        let mut others = self.own.keys().filter(|key| key.link.is_none());
        others.all(|key| {
            self.timers.due(Timer::Originate(*key)).is_none()
                && !self.is_on_a_retransmission_list(key)
        })
    }

    fn is_grace_acknowledged(&self) -> bool {
        self.grace_keys()
            .all(|key| !self.is_on_a_retransmission_list(&key))
    }

    /// When the pace has let the last change of ours leave.
    fn all_departed(&self, now: Instant) -> Instant {
        let keys = self.own.keys();
        keys.filter_map(|key| self.timers.due(Timer::Originate(*key)))
            .fold(now, Instant::max)
    }
}
