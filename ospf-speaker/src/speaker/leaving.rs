//! The two ways to leave: withdrawn, or kept by the neighbours until the next start.

use std::time::{Duration, Instant};

use isopath_api::config::OnExit;
use isopath_api::ids::RouterId;
use isopath_ospf::packet::RestartReason;
use isopath_ospf::{Grace, RestartEnd, RestartRefusal, State};
use tracing::{info, warn};

use super::{STOP_BOUND, Speaker};
use crate::notify::notify;
use crate::restart::{Prepared, Present, Return};
use crate::wanted::Wanted;

/// How long the peers' answers to the pause of BFD are waited for.
const PAUSE_BOUND: Duration = Duration::from_millis(500);

/// How long an adjacency that was dropped is waited for. It takes some 20 ms.
const REJOIN_BOUND: Duration = Duration::from_secs(2);

/// How long an adjacency must last after the pause of BFD. A peer that takes it for the loss of
/// the path (FRR 8.4, BIRD 2.0) drops us when its BFD daemon has told its OSPF, a
/// few milliseconds later, and says so as soon as it hears our next Hello, which leaves at once.
const SETTLE: Duration = Duration::from_millis(500);

/// How far an exit that keeps the announced set has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeping {
    /// BFD is paused; its peers know of it, or the time is over.
    Pausing { until: Instant },
    /// The core asks the neighbours.
    Asking,
    /// A neighbour has dropped us. Before it can be told that all is withdrawn it must be Full
    /// again, or the time is over; else BIRD keeps the route until it originates its own LSA.
    Rejoining { until: Instant },
    /// All is said and written: the process ends.
    Done,
}

impl Speaker {
    /// What the restart of the last run asks of this one.
    pub(super) fn come_back(&mut self, now: Instant) {
        let Some(prepared) = self.kept.take_restart() else {
            return;
        };
        let present = match Present::ask(now) {
            Ok(present) => present,
            Err(error) => {
                warn!(%error, "cannot tell whether the machine was started anew; starting plainly");
                return;
            }
        };
        let router_id = RouterId(self.config.router_id.0);
        let Some(back) = prepared.resume(&present, router_id) else {
            info!("the prepared graceful restart is not for this run; starting plainly");
            return;
        };
        let Return {
            expires,
            wanted,
            written,
        } = back;
        if wanted.is_some() {
            let overrides = self.kept.overrides().clone();
            self.wanted = Wanted::restore(&self.file, true, overrides, wanted, written);
        }
        let left_ms = expires.saturating_duration_since(now).as_millis();
        info!(left_ms, "returning from a graceful restart");
        self.router.resume_restart(now, expires);
    }

    /// SIGTERM, or (`interrupted`) SIGINT, which withdraws whatever the file says.
    pub(super) fn leave(&mut self, now: Instant, interrupted: bool) {
        notify("STOPPING=1");
        self.stop_by = Some(now + STOP_BOUND);
        match self.file.director.on_exit {
            OnExit::Keep if !interrupted => {
                info!("stopping: asking the neighbors to keep the routes");
                self.keeping = Some(Keeping::Pausing {
                    until: now + PAUSE_BOUND,
                });
                self.settles = self.bfd.pause(now);
                self.continue_leaving(now);
            }
            OnExit::Keep | OnExit::Withdraw => self.withdraw_all(now),
        }
    }

    fn withdraw_all(&mut self, now: Instant) {
        info!("stopping: withdrawing first");
        self.keeping = None;
        self.stop_by = Some(now + STOP_BOUND);
        self.wanted.stop();
        self.touched = true;
        self.router.shutdown(now);
        self.drain_router(None);
    }

    /// Takes the exit as far as it can go now. The neighbours are asked as soon as no BFD peer can take our silence for a failure. Not before:
    /// FRR 8.4 that loses BFD with a neighbour it helps drops the neighbour and with it the end
    /// of the grace period, and keeps the route until it next has a reason to look.
    pub(super) fn continue_leaving(&mut self, now: Instant) {
        match self.keeping {
            Some(Keeping::Pausing { until }) => {
                if self.bfd.is_pause_known() || now >= until {
                    self.ask_neighbors(now);
                }
            }
            Some(Keeping::Rejoining { until }) => {
                if self.has_rejoined() || now >= until {
                    self.withdraw_all(now);
                }
            }
            Some(Keeping::Asking | Keeping::Done) | None => {}
        }
    }

    /// Whether no adjacency is coming up.
    fn has_rejoined(&self) -> bool {
        self.router
            .neighbors()
            .all(|neighbor| match neighbor.state {
                State::Down | State::Init | State::ExStart | State::Exchange | State::Loading => {
                    false
                }
                State::TwoWay | State::Full => true,
            })
    }

    fn ask_neighbors(&mut self, now: Instant) {
        self.keeping = Some(Keeping::Asking);
        let grace = Grace {
            until: self.longest_grace(now),
            reason: RestartReason::Software,
            settle: if self.settles { SETTLE } else { Duration::ZERO },
        };
        self.router.prepare_restart(now, grace);
        self.drain_router(None);
    }

    /// The switches are to keep the set for no longer than we would without the agent. FRR counts
    /// RouterDeadInterval from the end of the grace period, so that one is left for it.
    fn longest_grace(&self, now: Instant) -> Instant {
        let longest = now + self.file.director.agent_hold;
        let dead = self.config.interfaces.iter().map(|at| at.dead_interval);
        let dead = Duration::from_secs(dead.max().unwrap_or_default().into());
        // When the agent's set is withdrawn unless the agent speaks.
        let silent = self.wanted.poll_timeout().unwrap_or(longest);
        silent.min(longest).checked_sub(dead).unwrap_or(now)
    }

    /// When [`Self::continue_leaving`] is due.
    pub(super) fn leaving_due(&self) -> Option<Instant> {
        match self.keeping {
            Some(Keeping::Pausing { until } | Keeping::Rejoining { until }) => Some(until),
            Some(Keeping::Asking | Keeping::Done) | None => None,
        }
    }

    /// Every neighbour has agreed.
    pub(super) fn restart_prepared(&mut self, expires: Instant) {
        let now = Instant::now();
        let router_id = RouterId(self.config.router_id.0);
        let wanted = self.wanted.snapshot(now);
        let written = Present::ask(now).is_ok_and(|present| {
            let prepared = Prepared::new(&present, router_id, expires, wanted);
            self.kept.prepare_restart(prepared)
        });
        if written {
            let left_ms = expires.saturating_duration_since(now).as_millis();
            info!(left_ms, "the neighbors keep the routes");
            self.count("restart_prepared");
            self.keeping = Some(Keeping::Done);
        } else {
            warn!("the next run would not know of the restart, withdrawing");
            self.count("restart_refused");
            self.withdraw_all(now);
        }
    }

    /// A neighbour cannot be asked, or does not agree.
    pub(super) fn restart_refused(&mut self, refusal: RestartRefusal) {
        self.count("restart_refused");
        if self.keeping.is_some() {
            warn!(reason = refusal.code(), "no graceful restart: {refusal}");
            let now = Instant::now();
            match refusal {
                RestartRefusal::Adjacency => {
                    self.keeping = Some(Keeping::Rejoining {
                        until: now + REJOIN_BOUND,
                    });
                    self.wanted.stop();
                    self.touched = true;
                }
                RestartRefusal::Stopping
                | RestartRefusal::Restarting
                | RestartRefusal::Period
                | RestartRefusal::NoAdjacency
                | RestartRefusal::NotOpaque
                | RestartRefusal::WantedSet
                | RestartRefusal::NotAcknowledged => self.withdraw_all(now),
            }
        }
    }

    pub(super) fn restart_ended(&mut self, end: RestartEnd) {
        self.count(match end {
            RestartEnd::Complete => "restart_complete",
            RestartEnd::WantedSet
            | RestartEnd::Inconsistent
            | RestartEnd::Expired
            | RestartEnd::Stopping => "restart_incomplete",
        });
        info!(reason = end.code(), "graceful restart is over: {end}");
    }
}
