//! Many requests, each on a connection of its own, and what became of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::http::{self, Request};
use crate::netns::Namespace;
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

/// How requests are sent.
#[derive(Debug, Clone)]
pub struct Load {
    /// The server's address.
    pub address: SocketAddr,
    /// The path.
    pub path: String,
    /// How many connections there are at the same time at most.
    pub at_once: usize,
    /// How long each of those waits after an answer before its next request.
    pub pause: Duration,
    /// The time (scaled) in which an answer counts, retransmissions of TCP included.
    pub timeout: Duration,
}

impl Load {
    /// Eight connections at a time, with a short pause that leaves the processor to those who
    /// are to carry them.
    pub fn new(address: impl Into<SocketAddr>) -> Self {
        Self {
            address: address.into(),
            path: "/".to_owned(),
            at_once: 8,
            pause: Duration::from_millis(10),
            timeout: Duration::from_secs(5),
        }
    }

    /// Sends `count` requests from the network that the calling thread is in. Each has a
    /// connection, and so a source port, of its own.
    pub fn send(&self, count: usize) -> Tally {
        let next = AtomicUsize::new(0);
        self.send_while(&|| next.fetch_add(1, Ordering::Relaxed) < count)
    }

    /// Starts to send requests from a namespace, until told to finish.
    pub fn start(self, namespace: &Namespace) -> Running {
        let (enough, sent) = (Arc::new(AtomicUsize::new(usize::MAX)), AtomicUsize::new(0));
        let (namespace, limit) = (namespace.clone(), enough.clone());
        let more = move || sent.fetch_add(1, Ordering::Relaxed) < limit.load(Ordering::Relaxed);
        let thread = std::thread::spawn(move || namespace.enter(|| self.send_while(&more)));
        Running { enough, thread }
    }

    fn send_while(&self, more: &(dyn Fn() -> bool + Sync)) -> Tally {
        let mut total = Tally::default();
        std::thread::scope(|scope| {
            // A thread started here is in the same network namespace as this one.
            let threads: Vec<_> = (0..self.at_once.max(1))
                .map(|_| scope.spawn(|| self.send_one_by_one(more)))
                .collect();
            for thread in threads {
                match thread.join() {
                    Ok(tally) => total.add(&tally),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        total
    }

    fn send_one_by_one(&self, more: &dyn Fn() -> bool) -> Tally {
        let (path, timeout) = (self.path.as_str(), scaled(self.timeout));
        let request = Request {
            method: "GET",
            path,
            token: None,
            body: None,
            if_match: None,
            timeout,
        };
        let mut tally = Tally::default();
        while more() {
            let (counts, what) = match http::send(self.address, &request) {
                Ok(answer) if answer.status == 200 => {
                    (&mut tally.answered, answer.body.trim().to_owned())
                }
                Ok(answer) => (&mut tally.failed, format!("HTTP {}", answer.status)),
                Err(error) => (&mut tally.failed, format!("{error:#}")),
            };
            *counts.entry(what).or_default() += 1;
            std::thread::sleep(self.pause);
        }
        tally
    }
}

/// Requests on their way.
#[derive(Debug)]
pub struct Running {
    /// How many requests are enough.
    enough: Arc<AtomicUsize>,
    thread: JoinHandle<Result<Tally>>,
}

impl Running {
    /// Stops when at least so many requests were sent; returns what became of all of them.
    ///
    /// # Errors
    /// The namespace could not be entered.
    pub fn finish(self, at_least: usize) -> Result<Tally> {
        self.enough.store(at_least, Ordering::Relaxed);
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_is_a_failure_with_its_cause() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let tally = Load::new(address).send(3);
        assert_eq!((tally.answers(), tally.failures()), (0, 3), "{tally:?}");
        assert!(
            tally.failed.keys().all(|text| text.contains("refused")),
            "{tally:?}"
        );
    }
}
