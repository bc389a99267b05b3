//! What was withdrawn lately, as plain data: an upgrade forgives nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use isopath_api::config::HoldDownConfig;
use isopath_api::ids::Vip;
use serde::{Deserialize, Serialize};

use super::{Clock, History, HoldDown};

/// The histories of all VIPs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HoldDownSnapshot(BTreeMap<Vip, HistorySnapshot>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct HistorySnapshot {
    wanted: bool,
    /// How long ago each withdrawal was.
    withdrawals: Vec<Duration>,
    is_held: bool,
}

impl HoldDown {
    pub(crate) fn snapshot(&self, now: Instant) -> HoldDownSnapshot {
        let Self {
            policy: _,
            clock: _,
            vips,
        } = self;
        let history = |history: &History| {
            let History {
                wanted,
                withdrawals,
                is_held,
            } = history;
            HistorySnapshot {
                wanted: *wanted,
                withdrawals: withdrawals
                    .iter()
                    .map(|&at| now.saturating_duration_since(at))
                    .collect(),
                is_held: *is_held,
            }
        };
        HoldDownSnapshot(vips.iter().map(|(&vip, it)| (vip, history(it))).collect())
    }

    /// Goes on from a snapshot that was taken at `taken`, under a policy that may have changed.
    pub(crate) fn restore(
        policy: HoldDownConfig,
        clock: Clock,
        snapshot: HoldDownSnapshot,
        taken: Instant,
    ) -> Self {
        let history = |history: HistorySnapshot| {
            let HistorySnapshot {
                wanted,
                withdrawals,
                is_held,
            } = history;
            let skipped = withdrawals.len().saturating_sub(policy.withdrawals.into());
            History {
                wanted,
                // A withdrawal from before the clock began is forgotten.
                withdrawals: withdrawals
                    .into_iter()
                    .skip(skipped)
                    .filter_map(|ago| taken.checked_sub(ago))
                    .collect(),
                is_held,
            }
        };
        Self {
            policy,
            clock,
            vips: snapshot
                .0
                .into_iter()
                .map(|(vip, it)| (vip, history(it)))
                .collect(),
        }
    }
}
