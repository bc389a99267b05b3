//! How often the paths are calculated: not more often than anybody looks, and never for more
//! than a twentieth of a processor's time.

use std::time::{Duration, Instant};

/// The least time between the end of a calculation and the next for subscribers.
const EASE: Duration = Duration::from_secs(1);
/// The same where somebody waits for the result.
const HASTE: Duration = Duration::from_millis(50);
/// A calculation is followed by a rest of so many times its own duration.
const REST: u32 = 20;

/// What a calculation was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Version {
    /// The database's, as the core counts.
    database: u64,
    /// The set of wanted hosts'.
    hosts: u64,
}

/// Who wants a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Those that follow every change.
    Subscribed,
    /// Nobody, unless somebody has asked.
    Asked,
}

/// The calculation under way, the last one, and when the next may begin.
#[derive(Debug, Default)]
pub(super) struct Pace {
    hosts: u64,
    /// What is wanted next, as of the last look.
    next: Version,
    running: Option<(Version, Instant)>,
    finished: Option<Finished>,
    asked: bool,
    /// The next one is to begin at this time unless something happens before.
    due: Option<Instant>,
    /// There is nobody left to calculate.
    broken: bool,
}

#[derive(Debug, Clone, Copy)]
struct Finished {
    version: Version,
    at: Instant,
    took: Duration,
}

impl Pace {
    /// The wanted hosts are others.
    pub(super) fn other_hosts(&mut self) {
        self.hosts += 1;
    }

    /// Somebody waits for a result.
    pub(super) fn ask(&mut self) {
        self.asked = true;
    }

    /// Whether a calculation is to begin now.
    pub(super) fn is_due(&mut self, now: Instant, database: u64, wish: Wish) -> bool {
        self.due = None;
        self.next = Version {
            database,
            hosts: self.hosts,
        };
        if self.is_current(database) {
            self.asked = false;
        }
        let is_wanted = self.asked || wish == Wish::Subscribed;
        if self.broken || self.running.is_some() || !is_wanted || self.is_current(database) {
            return false;
        }
        let least = if self.asked { HASTE } else { EASE };
        let at = self
            .finished
            .map(|last| last.at + least.max(last.took.saturating_mul(REST)));
        match at {
            Some(at) if at > now => {
                self.due = Some(at);
                false
            }
            Some(_) | None => true,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// A calculation of what [`Pace::is_due`] saw last has begun.
    pub(super) fn started(&mut self, now: Instant) {
        self.running = Some((self.next, now));
    }

    /// Its result is there.
    pub(super) fn finished(&mut self, now: Instant) {
        if let Some((version, started)) = self.running.take() {
            self.finished = Some(Finished {
                version,
                at: now,
                took: now.saturating_duration_since(started),
            });
        }
    }

    /// There will be no more results.
    pub(super) fn failed(&mut self) {
        self.running = None;
        self.broken = true;
    }

    /// Whether the last result is that of this database and of the hosts as they are.
    pub(super) fn is_current(&self, database: u64) -> bool {
        let version = Version {
            database,
            hosts: self.hosts,
        };
        self.finished.is_some_and(|last| last.version == version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Begins and ends a calculation that takes `took`; when it ended.
    fn run(pace: &mut Pace, now: Instant, took: Duration) -> Instant {
        pace.started(now);
        pace.finished(now + took);
        now + took
    }

    #[test]
    fn nobody_looks_nothing_is_calculated() {
        let now = Instant::now();
        let mut pace = Pace::default();
        assert!(!pace.is_due(now, 1, Wish::Asked));
        assert_eq!(pace.poll_timeout(), None);
        pace.ask();
        assert!(pace.is_due(now, 1, Wish::Asked));
        let now = run(&mut pace, now, MS);
        assert!(!pace.is_due(now + EASE, 1, Wish::Subscribed), "nothing new");
        assert!(!pace.is_due(now + EASE, 2, Wish::Asked), "asked only once");
    }

    #[test]
    fn the_first_change_is_calculated_at_once_and_the_next_a_second_later() {
        let now = Instant::now();
        let mut pace = Pace::default();
        assert!(pace.is_due(now, 1, Wish::Subscribed));
        pace.started(now);
        assert!(!pace.is_due(now, 2, Wish::Subscribed), "one at a time");
        pace.finished(now + MS);
        assert!(pace.is_current(1));
        assert!(!pace.is_current(2));
        let now = now + MS;
        assert!(!pace.is_due(now, 2, Wish::Subscribed));
        assert_eq!(pace.poll_timeout(), Some(now + EASE));
        assert!(pace.is_due(now + EASE, 3, Wish::Subscribed));
    }

    #[test]
    fn who_waits_does_not_wait_for_the_second() {
        let now = Instant::now();
        let mut pace = Pace::default();
        assert!(pace.is_due(now, 1, Wish::Subscribed));
        let now = run(&mut pace, now, MS);
        pace.ask();
        assert!(!pace.is_due(now, 2, Wish::Subscribed));
        assert_eq!(pace.poll_timeout(), Some(now + HASTE));
        assert!(pace.is_due(now + HASTE, 2, Wish::Subscribed));
    }

    #[test]
    fn a_long_calculation_is_followed_by_a_long_rest() {
        let now = Instant::now();
        let mut pace = Pace::default();
        assert!(pace.is_due(now, 1, Wish::Subscribed));
        let now = run(&mut pace, now, 200 * MS);
        pace.ask();
        assert!(!pace.is_due(now + EASE, 2, Wish::Subscribed));
        assert_eq!(pace.poll_timeout(), Some(now + REST * (200 * MS)));
    }

    #[test]
    fn other_hosts_make_a_result_old() {
        let now = Instant::now();
        let mut pace = Pace::default();
        assert!(pace.is_due(now, 1, Wish::Subscribed));
        let now = run(&mut pace, now, MS);
        pace.other_hosts();
        assert!(!pace.is_current(1));
        assert!(pace.is_due(now + EASE, 1, Wish::Subscribed));
    }

    #[test]
    fn after_the_thread_has_ended_nothing_is_due() {
        let now = Instant::now();
        let mut pace = Pace::default();
        assert!(pace.is_due(now, 1, Wish::Subscribed));
        pace.started(now);
        pace.failed();
        assert!(!pace.is_due(now + EASE, 2, Wish::Subscribed));
        assert_eq!(pace.poll_timeout(), None);
    }
}
