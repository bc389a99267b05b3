//! Holding down VIPs that come and go (docs/adr/0010).
//!
//! A VIP that was withdrawn so and so often within a time stays withdrawn until it has not been
//! withdrawn for a while. It is never held announced: a withdrawal passes at once. Whatever is
//! wanted when the hold ends gets out then.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use isopath_api::config::HoldDownConfig;
use isopath_api::ids::Vip;
use isopath_api::reason::Reason;
use isopath_api::speaker::Source;
use jiff::{SignedDuration, Timestamp};

use crate::wanted::Verdict;

mod snapshot;
#[cfg(test)]
mod tests;

pub(crate) use snapshot::HoldDownSnapshot;

/// One moment on both clocks, so that a hold's end can be told to people.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    instant: Instant,
    wall: Timestamp,
}

impl Clock {
    /// The same moment by both.
    pub(crate) fn new(instant: Instant, wall: Timestamp) -> Self {
        Self { instant, wall }
    }

    /// The time of day, to the second.
    fn wall(&self, at: Instant) -> Timestamp {
        let since = at.saturating_duration_since(self.instant);
        let since = SignedDuration::try_from(since).unwrap_or(SignedDuration::MAX);
        let wall = self.wall.saturating_add(since).unwrap_or(Timestamp::MAX);
        Timestamp::from_second(wall.as_second()).unwrap_or(wall)
    }
}

/// What is remembered of VIPs that were withdrawn lately.
#[derive(Debug)]
pub(crate) struct HoldDown {
    policy: HoldDownConfig,
    clock: Clock,
    vips: BTreeMap<Vip, History>,
}

#[derive(Debug, Default)]
struct History {
    /// Whether it was to be announced at the last look.
    wanted: bool,
    /// Its last withdrawals, at most as many as the policy counts.
    withdrawals: VecDeque<Instant>,
    is_held: bool,
}

impl HoldDown {
    /// With nothing remembered.
    pub(crate) fn new(policy: HoldDownConfig, clock: Clock) -> Self {
        Self {
            policy,
            clock,
            vips: BTreeMap::new(),
        }
    }

    /// Sees what is to be done with each VIP, and withholds those that are held down. An
    /// operator's override passes.
    pub(crate) fn judge(&mut self, now: Instant, verdicts: &mut BTreeMap<Vip, Verdict>) {
        if self.policy.withdrawals == 0 {
            return;
        }
        // Of a VIP that nobody speaks of any more only the history is left.
        for (vip, history) in &mut self.vips {
            if !verdicts.contains_key(vip) {
                history.see(now, false, self.policy);
            }
        }
        for (vip, verdict) in verdicts {
            let (wanted, by_operator) = match verdict {
                Verdict::Announce { source, .. } => (true, *source == Source::Override),
                Verdict::Withhold(_) => (false, false),
            };
            if !wanted && !self.vips.contains_key(vip) {
                continue;
            }
            let history = self.vips.entry(*vip).or_default();
            history.see(now, wanted, self.policy);
            if let Some(until) = history.held_until(self.policy)
                && wanted
                && !by_operator
            {
                *verdict = Verdict::Withhold(self.reason(until));
            }
        }
        let within = self.policy.within;
        self.vips.retain(|_, history| history.matters(now, within));
    }

    /// An operator says that a VIP is to be announced whatever it did.
    pub(crate) fn forgive(&mut self, vip: Vip) {
        if let Some(history) = self.vips.get_mut(&vip) {
            history.withdrawals.clear();
            history.is_held = false;
        }
    }

    /// When the next hold ends.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let ends = self.vips.values();
        ends.filter_map(|history| history.held_until(self.policy))
            .min()
    }

    fn reason(&self, until: Instant) -> Reason {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Reason::HeldDown {
            withdrawals: self.policy.withdrawals.into(),
            within_ms: millis(self.policy.within),
            until: self.clock.wall(until),
        }
    }
}

impl History {
    fn see(&mut self, now: Instant, wanted: bool, policy: HoldDownConfig) {
        if self.held_until(policy).is_some_and(|until| until <= now) {
            self.is_held = false;
        }
        if std::mem::replace(&mut self.wanted, wanted) && !wanted {
            self.withdrawals.push_back(now);
            if self.withdrawals.len() > usize::from(policy.withdrawals) {
                self.withdrawals.pop_front();
            }
            let too_many = self.withdrawals.len() == usize::from(policy.withdrawals);
            let first = self.withdrawals.front();
            self.is_held |= too_many
                && first.is_some_and(|&at| now.saturating_duration_since(at) <= policy.within);
        }
    }

    /// The end of the hold, unless it is withdrawn again before.
    fn held_until(&self, policy: HoldDownConfig) -> Option<Instant> {
        let last = self.withdrawals.back().filter(|_| self.is_held)?;
        Some(*last + policy.hold)
    }

    /// Whether anything is lost if it is forgotten.
    fn matters(&self, now: Instant, within: Duration) -> bool {
        let last = self.withdrawals.back();
        self.wanted
            || self.is_held
            || last.is_some_and(|&last| now.saturating_duration_since(last) <= within)
    }
}
