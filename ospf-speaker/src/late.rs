//! How late timed packets leave.

use std::time::Instant;

use isopath_api::paths;
use serde::{Deserialize, Serialize};

/// How late packets of one kind left, which shows when the process is starved of its processor:
/// a switch declares us dead after a few packets that did not come.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Lateness(paths::Lateness);

impl Lateness {
    /// A packet that was due at `due` left at `now`.
    pub(crate) fn record(&mut self, now: Instant, due: Instant) {
        let late = now.saturating_duration_since(due).as_micros();
        let late = u64::try_from(late).unwrap_or(u64::MAX);
        let bounds = paths::Lateness::BOUNDS_US;
        let place = bounds.partition_point(|bound| *bound < late);
        if let Some(count) = self.0.packets.get_mut(place) {
            *count += 1;
        }
        self.0.sum_us = self.0.sum_us.saturating_add(late);
        self.0.max_us = self.0.max_us.max(late);
    }

    pub(crate) fn max_micros(self) -> u64 {
        self.0.max_us
    }

    /// All of it.
    pub(crate) fn seen(self) -> paths::Lateness {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_worst_is_kept_and_early_counts_as_in_time() {
        let due = Instant::now();
        let mut lateness = Lateness::default();
        for (offset, expected) in [(0, 0), (300, 300), (20, 300)] {
            lateness.record(due + Duration::from_micros(offset), due);
            assert_eq!(lateness.max_micros(), expected);
        }
        lateness.record(due, due + Duration::from_secs(1));
        assert_eq!(lateness.max_micros(), 300);
        assert_eq!(lateness.seen().sum_us, 320);
    }

    #[test]
    fn each_packet_is_counted_where_it_belongs() {
        let due = Instant::now();
        let mut lateness = Lateness::default();
        for micros in [0, 1_000, 1_001, 10_000, 50_001, 100_000, 100_001, 9_000_000] {
            lateness.record(due + Duration::from_micros(micros), due);
        }
        assert_eq!(lateness.seen().packets, [2, 1, 1, 0, 2, 2]);
    }
}
