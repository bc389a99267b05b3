//! Waiting for a condition with a deadline, on machines of very different speed.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// What one look at a condition found.
#[derive(Debug)]
pub enum Probe<T> {
    /// It holds.
    Ready(T),
    /// It does not hold yet; the text says what is there instead.
    Waiting(String),
}

impl<T> Probe<T> {
    /// Ready with `value` when `holds`, else waiting with `state`.
    pub fn when(holds: bool, value: T, state: impl FnOnce() -> String) -> Self {
        if holds {
            Self::Ready(value)
        } else {
            Self::Waiting(state())
        }
    }
}

/// How many times slower than a usual machine this one is: `ISOPATH_LAB_SLOW`, 1 without it.
/// The runner of the virtual machine sets it where the processor is emulated.
pub fn slowness() -> f64 {
    std::env::var("ISOPATH_LAB_SLOW")
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(|factor: &f64| (1.0..=1000.0).contains(factor))
        .unwrap_or(1.0)
}

/// `duration` on a machine as slow as this one.
pub fn scaled(duration: Duration) -> Duration {
    duration.mul_f64(slowness())
}

/// Looks until the condition holds, for at most `within` (scaled by [`slowness`]).
///
/// # Errors
/// The deadline passed (the error has the last state seen), or a look itself failed.
pub fn until<T>(
    what: impl Display,
    within: Duration,
    look: impl FnMut() -> Result<Probe<T>>,
) -> Result<T> {
    // A look costs a process or a system call; more looks would only slow what they wait for.
    let pause = if slowness() > 1.0 { 250 } else { 20 };
    until_every(Duration::from_millis(pause), what, within, look)
}

/// The same with a pause of one's own between two looks, for many that wait at the same time.
///
/// # Errors
/// As [`until`].
pub fn until_every<T>(
    pause: Duration,
    what: impl Display,
    within: Duration,
    mut look: impl FnMut() -> Result<Probe<T>>,
) -> Result<T> {
    let within = scaled(within);
    let deadline = Instant::now() + within;
    loop {
        match look()? {
            Probe::Ready(value) => return Ok(value),
            Probe::Waiting(state) => {
                if Instant::now() >= deadline {
                    bail!("not within {within:?}: {what}; last seen: {state}");
                }
            }
        }
        std::thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_deadline_says_what_was_there_instead() {
        let error = until("three next hops", Duration::ZERO, || {
            Ok(Probe::<()>::Waiting("one next hop".to_owned()))
        })
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("three next hops"),
            "{error} does not say what was wanted"
        );
        assert!(
            error.contains("one next hop"),
            "{error} does not say what was seen"
        );
    }

    #[test]
    fn a_condition_that_holds_at_once_needs_no_time() {
        let value = until("nothing", Duration::ZERO, || {
            Ok(Probe::when(true, 7, String::new))
        });
        assert_eq!(value.unwrap(), 7);
    }
}
