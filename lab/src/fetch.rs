//! Many requests, each on a connection of its own, and what became of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::http::{self, Request};
use crate::wait::scaled;

/// What became of a number of requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Requests answered with 200, by the answer's text.
    pub answered: BTreeMap<String, usize>,
    /// Requests that were not, by what went wrong.
    pub failed: BTreeMap<String, usize>,
}

impl Tally {
    /// Requests answered with 200.
    pub fn answers(&self) -> usize {
        self.answered.values().sum()
    }

    /// Requests that were not.
    pub fn failures(&self) -> usize {
        self.failed.values().sum()
    }

    /// Adds what became of other requests.
    pub fn add(&mut self, other: &Self) {
        for (text, count) in &other.answered {
            *self.answered.entry(text.clone()).or_default() += count;
        }
        for (text, count) in &other.failed {
            *self.failed.entry(text.clone()).or_default() += count;
        }
    }
}

/// Sends `count` requests for `path`, at most `at_once` at the same time, from the network that
/// the calling thread is in. Each has a connection, and so a source port, of its own. Those
/// answered within `timeout` (scaled) count, retransmissions of TCP included.
pub fn fetch(
    address: SocketAddr,
    path: &str,
    count: usize,
    at_once: usize,
    timeout: Duration,
) -> Tally {
    let next = AtomicUsize::new(0);
    let request = Request {
        method: "GET",
        path,
        token: None,
        body: None,
        timeout: scaled(timeout),
    };
    let mut total = Tally::default();
    std::thread::scope(|scope| {
        // A thread started here is in the same network namespace as this one.
        let one = || {
            let mut tally = Tally::default();
            while next.fetch_add(1, Ordering::Relaxed) < count {
                match http::send(address, &request) {
                    Ok(answer) if answer.status == 200 => {
                        *tally
                            .answered
                            .entry(answer.body.trim().to_owned())
                            .or_default() += 1;
                    }
                    Ok(answer) => {
                        *tally
                            .failed
                            .entry(format!("HTTP {}", answer.status))
                            .or_default() += 1;
                    }
                    Err(error) => *tally.failed.entry(format!("{error:#}")).or_default() += 1,
                }
            }
            tally
        };
        let threads: Vec<_> = (0..at_once.max(1)).map(|_| scope.spawn(one)).collect();
        for thread in threads {
            match thread.join() {
                Ok(tally) => total.add(&tally),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_is_a_failure_with_its_cause() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let tally = fetch(address, "/", 3, 2, Duration::from_secs(1));
        assert_eq!((tally.answers(), tally.failures()), (0, 3), "{tally:?}");
        assert!(
            tally.failed.keys().all(|text| text.contains("refused")),
            "{tally:?}"
        );
    }
}
