//! The clock of the controller: real, but for tests that move it on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

/// One moment by both clocks: timers compare the monotonic one, people read the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// For differences within the life of the process.
    pub instant: Instant,
    /// For what is stored and shown.
    pub wall: Timestamp,
}

impl Moment {
    /// How long ago `earlier` was.
    pub fn since(self, earlier: Self) -> Duration {
        self.instant.saturating_duration_since(earlier.instant)
    }
}

/// Tells the time, advanced by what [`Clock::advance`] was given.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    ahead_ms: Arc<AtomicU64>,
}

impl Clock {
    /// The time now.
    pub fn now(&self) -> Moment {
        let ahead = Duration::from_millis(self.ahead_ms.load(Ordering::Relaxed));
        let wall = Timestamp::now();
        Moment {
            instant: Instant::now() + ahead,
            wall: SignedDuration::try_from(ahead)
                .ok()
                .and_then(|ahead| wall.checked_add(ahead).ok())
                .unwrap_or(wall),
        }
    }

    /// Moves the time on: what a test does in place of waiting.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.ahead_ms.fetch_add(by, Ordering::Relaxed);
    }
}
