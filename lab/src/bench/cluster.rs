//! The cluster of one measurement: a switch, and directors that run speakers of one suite.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::plan;
use crate::route_monitor::RouteMonitor;
use crate::switch::SwitchKind;
use crate::topology::{Lab, Timers};
use crate::wait::{self, Probe, scaled};

use super::Job;
use super::speaker::{DirectorSpeaker, Form, SpeakerKind, prioritize};

/// How long anything may take before a repetition counts as failed: FRR and BIRD as directors
/// need up to 16 s after a crash.
pub(super) const LIMIT: Duration = Duration::from_secs(40);

/// A route that did not change for so long is stable: an instance that a switch dropped for
/// MinLSArrival is sent again after RxmtInterval, 5 s.
const STABLE: Duration = Duration::from_secs(7);

/// What keeps measurements of milliseconds apart from each other and from the start of programs,
/// when several clusters run at the same time.
#[derive(Debug)]
pub(super) struct Stage {
    alone: Mutex<()>,
    epoch: Instant,
}

impl Stage {
    pub(super) fn new() -> Self {
        Self {
            alone: Mutex::new(()),
            epoch: Instant::now(),
        }
    }

    /// Nothing else is started or timed while the guard lives.
    pub(super) fn alone(&self) -> MutexGuard<'_, ()> {
        self.alone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps up to a second, so that the repetitions begin at phases spread evenly over a second:
    /// a switch's Hellos and BIRD's ticks come once a second, and an event of real life knows
    /// nothing of them.
    pub(super) fn wait_for_phase(&self, repetition: usize, repetitions: usize) {
        let share = (repetition as f64 + 0.5) / repetitions as f64;
        let phase = Duration::from_secs(1).mul_f64(share.fract());
        let now = self.epoch.elapsed();
        let mut at = Duration::from_secs(now.as_secs()) + phase;
        if at < now {
            at += Duration::from_secs(1);
        }
        std::thread::sleep(at.saturating_sub(now));
    }
}

/// When a next hop came into the FIB and left it.
#[derive(Debug)]
pub(super) struct Course {
    /// Each change, and whether the hop was there after it.
    changes: Vec<(Instant, bool)>,
}

impl Course {
    /// The time from `start` to the last change: 0 when there was none.
    pub(super) fn settled_after(&self, start: Instant) -> Duration {
        self.changes.last().map_or(Duration::ZERO, |(at, _)| {
            at.saturating_duration_since(start)
        })
    }

    /// How often the hop left after it had come.
    pub(super) fn flaps(&self) -> u32 {
        let after_coming = self.changes.iter().skip_while(|(_, there)| !there);
        let leavings = after_coming.filter(|(_, there)| !there).count();
        u32::try_from(leavings).unwrap_or(u32::MAX)
    }

    /// For how long in all the hop was not there, between two changes.
    pub(super) fn absent_for(&self) -> Duration {
        let pairs = self.changes.windows(2);
        let gaps = pairs
            .filter(|pair| !pair[0].1)
            .map(|pair| pair[1].0 - pair[0].0);
        gaps.sum()
    }
}

/// A cluster under measurement.
pub(super) struct Cluster<'a> {
    pub(super) speakers: Vec<DirectorSpeaker>,
    pub(super) monitor: RouteMonitor,
    pub(super) lab: Lab,
    pub(super) stage: &'a Stage,
    pub(super) job: Job,
}

impl<'a> Cluster<'a> {
    /// Makes the lab and starts its switch; no speaker runs yet.
    pub(super) fn new(
        stage: &'a Stage,
        job: &Job,
        directors: u8,
        form: Form,
        timers: Timers,
    ) -> Result<Self> {
        let alone = stage.alone();
        let mut spec = job.spec();
        spec.directors = directors;
        spec.timers = timers;
        let mut lab = Lab::new(spec)?;
        lab.switch.start()?;
        for process in lab.processes() {
            prioritize(process)?;
        }
        let speakers = lab
            .directors
            .iter()
            .map(|director| DirectorSpeaker::new(director, job.speaker, form, timers))
            .collect::<Result<_>>()?;
        let monitor = RouteMonitor::start_for(lab.switch.namespace(), plan::VIP.0)?;
        drop(alone);
        Ok(Self {
            speakers,
            monitor,
            lab,
            stage,
            job: job.clone(),
        })
    }

    /// The same with all speakers running and in the FIB.
    pub(super) fn whole(stage: &'a Stage, job: &Job, form: Form, timers: Timers) -> Result<Self> {
        let mut cluster = Self::new(stage, job, super::DIRECTORS, form, timers)?;
        cluster.complete()?;
        Ok(cluster)
    }

    pub(super) fn switch(&self) -> SwitchKind {
        self.lab.switch.kind()
    }

    /// Starts every speaker that does not run and waits until all next hops are there.
    pub(super) fn complete(&mut self) -> Result<()> {
        for index in 0..self.speakers.len() {
            if !self.speakers[index].is_running() {
                self.start(index)?;
            }
        }
        let wanted = self.lab.all_next_hops();
        self.lab.switch.wait_for_fib(plan::VIP, &wanted, LIMIT)
    }

    /// Starts one speaker.
    pub(super) fn start(&mut self, index: usize) -> Result<Instant> {
        let alone = self.stage.alone();
        let started = self.speakers[index].start()?;
        drop(alone);
        Ok(started)
    }

    /// A time without changes, so that the next one leaves at once: after MinLSInterval (5 s) for
    /// FRR and BIRD, and for BIRD as the switch, whose own Router-LSA it holds back, too; after
    /// MinLSArrival for us.
    pub(super) fn quiet(&self) {
        let time = match (self.job.speaker, self.switch()) {
            (SpeakerKind::Isopath, SwitchKind::Frr) => Duration::from_millis(1500),
            (SpeakerKind::Isopath, SwitchKind::Bird)
            | (SpeakerKind::Frr | SpeakerKind::Bird, _) => Duration::from_millis(6500),
        };
        std::thread::sleep(scaled(time));
    }

    /// Waits until the next hop is there, or is not.
    pub(super) fn hop_at(&mut self, index: usize, present: bool) -> Result<Instant> {
        let hop = self.speakers[index].next_hop;
        let what = format!("the next hop {hop} {}", if present { "in" } else { "out" });
        let change = self.monitor.wait_for(&what, LIMIT, |change| {
            change.destination == plan::VIP.0 && change.next_hops.contains(&hop) == present
        })?;
        Ok(change.at)
    }

    /// Follows a next hop until it is there and stable.
    pub(super) fn follow(&mut self, index: usize, was_there: bool) -> Result<Course> {
        let hop = self.speakers[index].next_hop;
        let deadline = Instant::now() + scaled(LIMIT);
        let mut there = was_there;
        let mut last = Instant::now();
        let mut course = Course {
            changes: Vec::new(),
        };
        loop {
            for change in self.monitor.take()? {
                if change.destination == plan::VIP.0 && change.next_hops.contains(&hop) != there {
                    there = !there;
                    last = change.at;
                    course.changes.push((change.at, there));
                }
            }
            if there && last.elapsed() >= STABLE {
                return Ok(course);
            }
            if Instant::now() >= deadline {
                bail!(
                    "the next hop {hop} is not stable after {LIMIT:?}, changes: {:?}; {}",
                    course.changes,
                    self.speakers[index].ospf_log_tail()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the switch has no neighbour of this router id any more.
    pub(super) fn wait_forgotten(&self, index: usize) -> Result<()> {
        let gone = self.speakers[index].router_id;
        wait::until("the switch to forget the neighbour", LIMIT, || {
            let neighbors = self.lab.switch.neighbors()?;
            let there = neighbors
                .iter()
                .any(|neighbor| neighbor.router_id.0 == gone);
            Ok(Probe::when(!there, (), || format!("{neighbors:?}")))
        })
    }

    /// Waits until the switch's BFD session with the director is up.
    pub(super) fn wait_for_bfd(&self, index: usize) -> Result<()> {
        let hop = self.speakers[index].next_hop.to_string();
        wait::until("the switch's BFD session", LIMIT, || {
            let (command, up) = match self.switch() {
                SwitchKind::Frr => ("show bfd peers brief", "up"),
                SwitchKind::Bird => ("show bfd sessions", "Up"),
            };
            let answer = self.lab.switch.ask(command)?;
            let is_up = answer
                .lines()
                .filter(|line| line.split_whitespace().any(|word| word == hop))
                .any(|line| line.split_whitespace().any(|word| word == up));
            Ok(Probe::when(is_up, (), || answer))
        })
    }

    /// Repeats a measurement; after a failed one the cluster is made whole again.
    pub(super) fn repeat(
        &mut self,
        repetitions: usize,
        mut one: impl FnMut(&mut Self, usize) -> Result<()>,
    ) -> Vec<String> {
        let mut failures = Vec::new();
        for repetition in 0..repetitions {
            if let Err(error) = one(self, repetition) {
                failures.push(format!("repetition {}: {error:#}", repetition + 1));
                if let Err(error) = self.recover() {
                    failures.push(format!("the cluster did not recover: {error:#}"));
                    break;
                }
            }
        }
        failures
    }

    fn recover(&mut self) -> Result<()> {
        for speaker in &mut self.speakers {
            if speaker.is_running() {
                speaker.announce(true).map(drop).or_else(|_| {
                    // It is announced already, or does not answer: a new run announces it.
                    speaker.crash().map(drop)
                })?;
            }
        }
        self.complete().context("after a failed repetition")
    }
}
