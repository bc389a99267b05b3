//! Points in time as plain numbers.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A point in time as nanoseconds from another that both sides of a handover agree on, negative
/// before it: an [`Instant`] means nothing outside its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Moment(i64);

impl Moment {
    /// `at` as seen from `base`; what is centuries away stays at the end of the range.
    pub(crate) fn new(at: Instant, base: Instant) -> Self {
        let nanos = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        Self(match at.checked_duration_since(base) {
            Some(after) => nanos(after),
            None => -nanos(base.saturating_duration_since(at)),
        })
    }

    /// The point in time, or nothing where this process' clock does not reach.
    pub(crate) fn instant(self, base: Instant) -> Option<Instant> {
        let distance = Duration::from_nanos(self.0.unsigned_abs());
        if self.0 < 0 {
            base.checked_sub(distance)
        } else {
            base.checked_add(distance)
        }
    }
}
