//! When a step that failed is tried again. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use isopath_api::reason::Reason;
use jiff::{SignedDuration, Timestamp};

use super::step::{Step, Subject, Undone};

/// The first wait; each is twice as long as the one before.
const FIRST: Duration = Duration::from_secs(1);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// What happens at this moment, for the machine and for people.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) instant: Instant,
    pub(super) clock: Timestamp,
}

impl Now {
    /// The clocks' own.
    pub(super) fn read() -> Self {
        Self {
            instant: Instant::now(),
            clock: Timestamp::now(),
        }
    }
}

/// What failed and waits for its next try, by the object it is about.
///
/// It is tried again at once when another step is wanted for the object, or when the object has
/// changed in the kernel: then it is not what failed.
#[derive(Debug, Default)]
pub(super) struct Retries(BTreeMap<Subject, Retry>);

#[derive(Debug)]
struct Retry {
    step: Step,
    /// What the kernel had of the object.
    shape: String,
    /// How often it has failed.
    tries: u32,
    next: Instant,
    failure: Failure,
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// The step and its error.
    pub(super) text: String,
    /// The same for the VIPs that need it.
    pub(super) reason: Reason,
    /// When it is tried again; with the first failure at once, within the period.
    pub(super) next: Timestamp,
    /// How often it has failed.
    pub(super) tries: u32,
}

impl Failure {
    /// What an operator reads.
    pub(super) fn report(&self) -> String {
        let Self {
            text, next, tries, ..
        } = self;
        let next = next.strftime("%H:%M:%SZ");
        match tries {
            0 | 1 => format!("{text}; next try at {next}"),
            _ => format!("{text}; failed {tries} times, next try at {next}"),
        }
    }
}

impl Retries {
    /// Whether a step has to wait still.
    pub(super) fn hold(&self, step: &Step, shape: impl Fn(&Subject) -> String, now: Now) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let subject = step.subject();
        self.0.get(&subject).is_some_and(|retry| {
            now.instant < retry.next && retry.step == *step && retry.shape == shape(&subject)
        })
    }

    /// A step has failed.
    pub(super) fn failed(
        &mut self,
        step: &Step,
        shape: impl Fn(&Subject) -> String,
        (text, reason): (String, Reason),
        now: Now,
    ) {
        let subject = step.subject();
        let shape = shape(&subject);
        let again = |retry: &&Retry| retry.step == *step && retry.shape == shape;
        let tries = 1 + self.0.get(&subject).filter(again).map_or(0, |it| it.tries);
        let wait = wait(tries);
        let until = SignedDuration::try_from(wait).unwrap_or(SignedDuration::ZERO);
        let failure = Failure {
            text,
            reason,
            next: now.clock.saturating_add(until).unwrap_or(now.clock),
            tries,
        };
        let retry = Retry {
            step: step.clone(),
            shape,
            tries,
            next: now.instant + wait,
            failure,
        };
        self.0.insert(subject, retry);
    }

    /// Forgets what no plan has any more: it was done, or is not wanted.
    pub(super) fn keep(&mut self, steps: &[Step]) {
        if self.0.is_empty() {
            return;
        }
        let subjects: BTreeSet<Subject> = steps.iter().map(Step::subject).collect();
        self.0.retain(|subject, _| subjects.contains(subject));
    }

    /// What fails.
    pub(super) fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.0.values().map(|retry| &retry.failure)
    }

    /// Why a step is not done: its own failure or that of one it needs.
    pub(super) fn why(&self, step: &Step) -> Option<&Failure> {
        let needed = |retry: &&Retry| {
            let mut undone = Undone::default();
            undone.add(&retry.step);
            undone.hinders(step)
        };
        self.0.values().find(needed).map(|retry| &retry.failure)
    }
}

/// How long a step waits after so many failures.
fn wait(tries: u32) -> Duration {
    let doubled = FIRST.saturating_mul(1 << tries.saturating_sub(1).min(16));
    doubled.min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "net/ipv4/vs/sloppy_tcp";

    fn step(value: &'static str) -> Step {
        let key = KEY.to_owned();
        Step::SetSysctl { key, value }
    }

    fn fail(retries: &mut Retries, step: &Step, shape: &str, now: Now) {
        let error = ("cannot".to_owned(), Reason::NoIpvs);
        retries.failed(step, |_| shape.to_owned(), error, now);
    }

    fn later(now: Now, seconds: u64) -> Now {
        let wait = Duration::from_secs(seconds);
        Now {
            instant: now.instant + wait,
            clock: now.clock + wait,
        }
    }

    #[test]
    fn the_waits_double_up_to_the_longest() {
        let waits: Vec<u64> = (1..=8).map(|tries| wait(tries).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(wait(u32::MAX), LONGEST);
    }

    #[test]
    fn a_step_waits_for_its_next_try_and_says_when_that_is() {
        let now = Now {
            instant: Instant::now(),
            clock: Timestamp::UNIX_EPOCH,
        };
        let mut retries = Retries::default();
        fail(&mut retries, &step("1"), "0", now);
        let shape = |_: &Subject| "0".to_owned();
        assert!(retries.hold(&step("1"), shape, now));
        assert!(!retries.hold(&step("1"), shape, later(now, 1)));
        let report = |retries: &Retries| retries.failures().next().unwrap().report();
        assert_eq!(report(&retries), "cannot; next try at 00:00:01Z");
        fail(&mut retries, &step("1"), "0", later(now, 1));
        assert!(retries.hold(&step("1"), shape, later(now, 2)));
        let text = "cannot; failed 2 times, next try at 00:00:03Z";
        assert_eq!(report(&retries), text);
    }

    #[test]
    fn another_step_or_another_object_is_tried_at_once() {
        let now = Now::read();
        let mut retries = Retries::default();
        for _ in 0..5 {
            fail(&mut retries, &step("1"), "0", now);
        }
        assert!(!retries.hold(&step("2"), |_| "0".to_owned(), now));
        assert!(!retries.hold(&step("1"), |_| "3".to_owned(), now));
        fail(&mut retries, &step("1"), "3", now);
        assert_eq!(retries.failures().next().unwrap().tries, 1, "counted anew");
        retries.keep(&[]);
        assert_eq!(retries.failures().count(), 0, "what is done is forgotten");
    }
}
