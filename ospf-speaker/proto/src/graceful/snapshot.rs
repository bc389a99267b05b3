//! A graceful restart as plain data.

use std::collections::BTreeSet;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Restart;
use crate::ids::NeighborId;
use crate::moment::{Moment, OutOfRange};

/// Where a graceful restart is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RestartSnapshot {
    #[default]
    None,
    Settling {
        until: Moment,
        reason: u8,
        adjacencies: BTreeSet<NeighborId>,
        from: Moment,
        patience: Moment,
    },
    Announcing {
        period: u32,
        reason: u8,
        adjacencies: BTreeSet<NeighborId>,
        expires: Moment,
        patience: Moment,
    },
    Prepared,
    Returning {
        expires: Moment,
        is_stale: bool,
    },
}

impl Restart {
    pub(crate) fn snapshot(&self, base: Instant) -> RestartSnapshot {
        let moment = |at: &Instant| Moment::new(*at, base);
        match self {
            Self::None => RestartSnapshot::None,
            Self::Settling {
                until,
                reason,
                adjacencies,
                from,
                patience,
            } => RestartSnapshot::Settling {
                until: moment(until),
                reason: (*reason).into(),
                adjacencies: adjacencies.clone(),
                from: moment(from),
                patience: moment(patience),
            },
            Self::Announcing {
                period,
                reason,
                adjacencies,
                expires,
                patience,
            } => RestartSnapshot::Announcing {
                period: *period,
                reason: (*reason).into(),
                adjacencies: adjacencies.clone(),
                expires: moment(expires),
                patience: moment(patience),
            },
            Self::Prepared => RestartSnapshot::Prepared,
            Self::Returning { expires, is_stale } => RestartSnapshot::Returning {
                expires: moment(expires),
                is_stale: *is_stale,
            },
        }
    }

    pub(crate) fn restore(snapshot: RestartSnapshot, base: Instant) -> Result<Self, OutOfRange> {
        Ok(match snapshot {
            RestartSnapshot::None => Self::None,
            RestartSnapshot::Settling {
                until,
                reason,
                adjacencies,
                from,
                patience,
            } => Self::Settling {
                until: until.instant(base)?,
                reason: reason.into(),
                adjacencies,
                from: from.instant(base)?,
                patience: patience.instant(base)?,
            },
            RestartSnapshot::Announcing {
                period,
                reason,
                adjacencies,
                expires,
                patience,
            } => Self::Announcing {
                period,
                reason: reason.into(),
                adjacencies,
                expires: expires.instant(base)?,
                patience: patience.instant(base)?,
            },
            RestartSnapshot::Prepared => Self::Prepared,
            RestartSnapshot::Returning { expires, is_stale } => Self::Returning {
                expires: expires.instant(base)?,
                is_stale,
            },
        })
    }
}
