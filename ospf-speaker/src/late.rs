//! How late timed packets leave.

use std::time::Instant;

/// The worst lateness seen, which shows when the process is starved of its processor: a switch
/// declares us dead after a few packets that did not come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lateness {
    max_micros: u64,
}

impl Lateness {
    /// A packet that was due at `due` left at `now`.
    pub(crate) fn record(&mut self, now: Instant, due: Instant) {
        let late = now.saturating_duration_since(due).as_micros();
        self.max_micros = self.max_micros.max(u64::try_from(late).unwrap_or(u64::MAX));
    }

    pub(crate) fn max_micros(self) -> u64 {
        self.max_micros
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
    }
}
