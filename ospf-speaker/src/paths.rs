//! When the area's paths are calculated, and by whom: a thread of ordinary priority, so that
//! not even a hostile database delays a Hello. The loop hands it a snapshot, which shares the
//! LSAs with the database, and is woken when the result is there.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Instant;

use isopath_ospf::RouterId;
use isopath_ospf::spf::{Area, AreaPaths, TooLarge};
use mio::{Registry, Token, Waker};
use tracing::{error, warn};

use crate::priority::set_ordinary;

mod pace;

use pace::{Pace, Wish};

/// The calculation's stack. Nothing in it recurses.
const STACK: usize = 256 << 10;

/// A calculation to do.
#[derive(Debug)]
struct Job {
    area: Area,
    known: BTreeSet<Ipv4Addr>,
}

/// What a calculation ends with.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The paths.
    Paths(AreaPaths),
    /// The database is too large for them; who says of itself that it announces the known hosts.
    Claims(TooLarge, Vec<(Ipv4Addr, RouterId)>),
}

impl Outcome {
    fn of(job: &Job) -> Self {
        match job.area.paths(&job.known) {
            Ok(paths) => Self::Paths(paths),
            Err(problem) => Self::Claims(problem, job.area.claims(&job.known)),
        }
    }
}

/// What was calculated last, and the thread that does it.
#[derive(Debug)]
pub(crate) struct Paths {
    pace: Pace,
    /// The hosts that are wanted in any case.
    known: BTreeSet<Ipv4Addr>,
    outcome: Option<Outcome>,
    /// One job at a time, so neither channel ever holds more than one.
    jobs: SyncSender<Job>,
    outcomes: Receiver<Outcome>,
}

impl Paths {
    /// Starts the thread. `token` becomes ready with each result.
    pub(crate) fn start(registry: &Registry, token: Token) -> io::Result<Self> {
        let waker = Waker::new(registry, token)?;
        let (jobs, todo) = sync_channel::<Job>(1);
        let (done, outcomes) = sync_channel(1);
        let work = move || {
            if let Err(error) = set_ordinary() {
                warn!(%error, "the calculation of paths runs with real-time priority");
            }
            for job in todo {
                let outcome = Outcome::of(&job);
                // The snapshot goes first: its memory is free before the result is looked at.
                drop(job);
                if done.send(outcome).is_err() {
                    return;
                }
                if let Err(error) = waker.wake() {
                    error!(%error, "cannot tell of calculated paths");
                }
            }
        };
        let builder = thread::Builder::new().name("paths".to_owned());
        builder.stack_size(STACK).spawn(work)?;
        Ok(Self {
            pace: Pace::default(),
            known: BTreeSet::new(),
            outcome: None,
            jobs,
            outcomes,
        })
    }

    /// Sets the hosts that are wanted in any case.
    pub(crate) fn know(&mut self, hosts: BTreeSet<Ipv4Addr>) {
        if self.known != hosts {
            self.known = hosts;
            self.pace.other_hosts();
        }
    }

    /// Somebody has just asked: the next calculation waits for nothing but the last.
    pub(crate) fn ask(&mut self) {
        self.pace.ask();
    }

    /// Whether to call [`Paths::calculate`] now. `subscribed`: somebody follows every change.
    pub(crate) fn is_due(&mut self, now: Instant, database: u64, subscribed: bool) -> bool {
        let wish = if subscribed {
            Wish::Subscribed
        } else {
            Wish::Asked
        };
        self.pace.is_due(now, database, wish)
    }

    /// When [`Paths::is_due`] may become true without anything else happening.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.pace.poll_timeout()
    }

    /// Begins a calculation.
    pub(crate) fn calculate(&mut self, now: Instant, area: Area) {
        let known = self.known.clone();
        if self.jobs.try_send(Job { area, known }).is_ok() {
            self.pace.started(now);
        } else {
            // The thread is gone, which was told; without it there is nothing to show.
            self.pace.failed();
        }
    }

    /// Takes a result that is there; whether there was one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        match self.outcomes.try_recv() {
            Ok(outcome) => {
                if let Outcome::Claims(problem, _) = &outcome
                    && !matches!(self.outcome, Some(Outcome::Claims(..)))
                {
                    warn!(%problem, "the paths of the area are not calculated");
                }
                self.outcome = Some(outcome);
                self.pace.finished(now);
                true
            }
            Err(TryRecvError::Empty) => false,
            Err(TryRecvError::Disconnected) => {
                error!("the thread that calculates paths has ended");
                self.pace.failed();
                false
            }
        }
    }

    /// What was calculated last; nothing before the first result.
    pub(crate) fn latest(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// Whether the result is that of the database and the hosts as they are.
    pub(crate) fn is_current(&self, database: u64) -> bool {
        self.pace.is_current(database)
    }
}

#[cfg(test)]
mod tests {
    use isopath_ospf::{AreaId, AreaType, Config, Router};
    use mio::{Events, Poll};

    use super::*;

    fn lonely_router(now: Instant) -> Router {
        let config = Config {
            router_id: RouterId(Ipv4Addr::new(10, 0, 1, 2)),
            area: AreaId(Ipv4Addr::UNSPECIFIED),
            area_type: AreaType::Normal,
            interfaces: Vec::new(),
            is_asbr: false,
            sequence_hint: None,
        };
        Router::new(config, 1, now).unwrap()
    }

    #[test]
    fn a_result_wakes_the_loop() {
        let now = Instant::now();
        let mut poll = Poll::new().unwrap();
        let mut paths = Paths::start(poll.registry(), Token(7)).unwrap();
        let vip = Ipv4Addr::new(10, 99, 0, 1);
        paths.know(BTreeSet::from([vip]));
        let router = lonely_router(now);
        let version = router.area_version();
        assert!(!paths.is_due(now, version, false), "nobody asks");
        assert!(paths.is_due(now, version, true));
        paths.calculate(now, router.area(now));
        assert!(!paths.is_due(now, version, true), "one at a time");
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, None).unwrap();
        assert_eq!(events.iter().next().unwrap().token(), Token(7));
        assert!(paths.take(now));
        assert!(paths.is_current(version));
        let Some(Outcome::Paths(found)) = paths.latest() else {
            panic!("an empty database is not too large: {:?}", paths.latest());
        };
        assert_eq!(found.groups[0].hosts, [vip]);
        assert!(found.viewpoints.is_empty(), "no Router-LSA, no view");
        assert!(!paths.take(now), "one result of one calculation");
    }
}
