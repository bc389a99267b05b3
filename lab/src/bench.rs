//! `isopath-lab bench speaker`: how fast a VIP moves with `isopath-speaker`, FRR and BIRD as the
//! directors' speaker, side by side, against FRR and against BIRD as the switch.
//!
//! Each job (a line of the table, a speaker, a switch) has a cluster of its own. Several run at
//! the same time, because most of their time is spent waiting for OSPF's own intervals; whatever
//! is measured in milliseconds, and every start of a program, is alone on the `cluster::Stage`,
//! and what is measured in processor time or memory runs with no other job beside it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::report::say;
use crate::switch::SwitchKind;
use crate::topology::{BfdTimers, Spec, Timers};

mod capture;
mod cluster;
mod configs;
pub mod controller;
pub mod dataplane;
mod figures;
mod load;
mod rows;
mod speaker;
mod starved;
mod table;

use cluster::Stage;
use figures::{Column, Figure, Series};
pub use speaker::SpeakerKind;

/// How many directors a cluster has.
const DIRECTORS: u8 = 4;

/// Which part of the table is measured, and how often.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Only these rows.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Row>,
    /// Repetitions of each measurement.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    reps: u16,
    /// Only this switch: frr or bird.
    #[arg(long)]
    switch: Option<SwitchKind>,
    /// Only these speakers as the directors'.
    #[arg(long, value_delimiter = ',')]
    speaker: Vec<SpeakerKind>,
    /// Clusters that run at the same time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=16))]
    jobs: u8,
    /// Print the table as Markdown.
    #[arg(long)]
    markdown: bool,
    /// Where the results go as JSON.
    #[arg(long, default_value = "target/bench-speaker.json")]
    json: PathBuf,
    /// What the labs' names begin with.
    #[arg(long, default_value = "bench")]
    name: String,
}

/// What one cluster measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Row {
    /// Cold starts with a new router id.
    ColdStart,
    /// Starts right after a SIGKILL.
    CrashStart,
    /// Announcements and withdrawals after a quiet time.
    Change,
    /// A change and its opposite 0.8 s later.
    Opposite,
    /// Announcements and withdrawals as type 5.
    ChangeExternal,
    /// A change and its opposite as type 5.
    OppositeExternal,
    /// SIGKILL with BFD.
    CrashBfd,
    /// SIGTERM.
    Stop,
    /// Restarts of agent and speaker.
    Restarts,
    /// No processor time.
    Starved,
    /// 10,000 LSAs.
    Load,
    /// Memory at rest.
    IdleMemory,
}

impl Row {
    /// The longest first, so that no long one is left at the end.
    const ALL: [Self; 12] = [
        Self::ColdStart,
        Self::CrashStart,
        Self::Opposite,
        Self::OppositeExternal,
        Self::Stop,
        Self::CrashBfd,
        Self::Change,
        Self::ChangeExternal,
        Self::Restarts,
        Self::Starved,
        Self::Load,
        Self::IdleMemory,
    ];

    fn measure(self, stage: &Stage, job: &Job) -> Result<Vec<Series>> {
        match self {
            Self::ColdStart => rows::cold_start(stage, job),
            Self::CrashStart => rows::crash_start(stage, job),
            Self::Change => rows::changes(stage, job),
            Self::Opposite => rows::opposite(stage, job),
            Self::ChangeExternal => rows::changes_external(stage, job),
            Self::OppositeExternal => rows::opposite_external(stage, job),
            Self::CrashBfd => rows::crash_bfd(stage, job),
            Self::Stop => rows::stop(stage, job),
            Self::Restarts => rows::restarts(stage, job),
            Self::Starved => starved::starved(stage, job),
            Self::Load => load::load(stage, job),
            Self::IdleMemory => load::idle_memory(stage, job),
        }
    }

    /// Whether another job would falsify it: by its memory, which is counted by those who share
    /// it, or by its processor time.
    fn is_exclusive(self) -> bool {
        match self {
            Self::Restarts | Self::Starved | Self::Load | Self::IdleMemory => true,
            Self::ColdStart
            | Self::CrashStart
            | Self::Change
            | Self::Opposite
            | Self::ChangeExternal
            | Self::OppositeExternal
            | Self::CrashBfd
            | Self::Stop => false,
        }
    }

    /// The line that tells of a cluster that did not come up.
    fn figure(self) -> Figure {
        match self {
            Self::ColdStart => Figure::ColdStart,
            Self::CrashStart => Figure::CrashStart,
            Self::Change => Figure::Announce,
            Self::Opposite => Figure::Opposite,
            Self::ChangeExternal => Figure::AnnounceExternal,
            Self::OppositeExternal => Figure::OppositeExternal,
            Self::CrashBfd => Figure::CrashBfd,
            Self::Stop => Figure::Stop,
            Self::Restarts => Figure::Upgrade,
            Self::Starved => Figure::StarvedBfd,
            Self::Load => Figure::Load,
            Self::IdleMemory => Figure::IdleMemory,
        }
    }
}

/// One cluster's work.
#[derive(Debug, Clone)]
struct Job {
    row: Row,
    switch: SwitchKind,
    speaker: SpeakerKind,
    repetitions: usize,
    /// The lab's.
    name: String,
}

impl Job {
    fn spec(&self) -> Spec {
        Spec {
            real_servers: 0,
            switch: self.switch,
            // A stopped agent is no reason to withdraw here.
            agent_hold: Duration::from_secs(600),
            ..Spec::new(self.name.as_str())
        }
    }

    fn run(&self, stage: &Stage) -> Vec<Series> {
        let measured = self.row.measure(stage, self);
        measured.unwrap_or_else(|error| {
            let why = format!("{:?} was not measured: {error:#}", self.row);
            vec![Series::failed(self.row.figure(), why)]
        })
    }
}

/// Hello 1 s, dead 4 s.
fn plain_timers() -> Timers {
    Timers {
        bfd: None,
        ..Timers::default()
    }
}

/// The same with BFD at 3 × 50 ms.
fn bfd_timers() -> Timers {
    Timers {
        bfd: Some(BfdTimers {
            interval: Duration::from_millis(50),
            multiplier: 3,
        }),
        ..Timers::default()
    }
}

/// What is written as JSON.
#[derive(Serialize)]
struct Report<'a> {
    repetitions: u16,
    columns: &'a [Column],
    missed: &'a [String],
}

/// Measures, prints the table, writes the JSON; whether every line was reached.
///
/// # Errors
/// The results cannot be written.
pub fn speaker(options: &Options) -> Result<bool> {
    let stage = Stage::new();
    let (exclusive, shared): (Vec<Job>, Vec<Job>) = jobs(options)
        .into_iter()
        .partition(|job| job.row.is_exclusive());
    let mut results = work(&stage, shared, options.jobs.into());
    results.extend(work(&stage, exclusive, 1));
    let columns = columns(results);
    let missed = figures::missed(&columns);
    table::print(&columns, options.markdown);
    say(if options.markdown { EXPLAINED } else { "" });
    let report = Report {
        repetitions: options.reps,
        columns: &columns,
        missed: &missed,
    };
    write(&options.json, &report)?;
    for column in &columns {
        for series in &column.series {
            let (switch, speaker) = (column.switch, column.speaker.name());
            let (title, count) = (series.figure.title(), series.failures.len());
            if let Some(first) = series.failures.first() {
                say(format_args!(
                    "failed: {speaker} with {switch}: {title}: {count}, first {first}"
                ));
            }
        }
    }
    for line in &missed {
        say(format_args!("MISSED: {line}"));
    }
    Ok(missed.is_empty())
}

/// What the numbers of the table are.
const EXPLAINED: &str = "\
Minimum/median/maximum. Times are taken from the switch's netlink route events and the start of \
the command, signal or program on one clock (CLOCK_MONOTONIC). The repetitions begin at phases \
spread evenly over a second, independent of the switch's Hellos and ticks. Stable is the last \
change of the next hop that is followed by 7 s without one; a flap is the next hop leaving the \
FIB after it had come. LSAs count as acknowledged when a capture on the link has seen each in an \
acknowledgement. FRR and BIRD announce an address of the loopback interface, which `ip address` \
adds and removes; Isopath's figure includes the run of `isopath --speaker`. Processor time and PSS \
are those of all programs that the speaker consists of (FRR: zebra, ospfd, bfdd); PSS is left out \
where the switch runs the same programs, because shared pages would be counted by half.";

fn jobs(options: &Options) -> Vec<Job> {
    let mut jobs = Vec::new();
    for row in Row::ALL {
        if !options.only.is_empty() && !options.only.contains(&row) {
            continue;
        }
        for switch in [SwitchKind::Frr, SwitchKind::Bird] {
            if options.switch.is_some_and(|wanted| wanted != switch) {
                continue;
            }
            for speaker in SpeakerKind::ALL {
                if options.speaker.is_empty() || options.speaker.contains(&speaker) {
                    jobs.push(Job {
                        row,
                        switch,
                        speaker,
                        repetitions: options.reps.into(),
                        name: format!("{}-{}", options.name, jobs.len()),
                    });
                }
            }
        }
    }
    jobs
}

/// Runs jobs, so many at a time.
fn work(stage: &Stage, jobs: Vec<Job>, at_once: usize) -> Vec<(Job, Vec<Series>)> {
    let waiting = Mutex::new(VecDeque::from(jobs));
    let done = Mutex::new(Vec::new());
    let next = || waiting.lock().ok().and_then(|mut jobs| jobs.pop_front());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(job) = next() {
                    let series = job.run(stage);
                    eprintln!(
                        "isopath-lab: measured {:?} of {} with {}",
                        job.row,
                        job.speaker.name(),
                        job.switch
                    );
                    if let Ok(mut done) = done.lock() {
                        done.push((job, series));
                    }
                }
            });
        }
    });
    done.into_inner().unwrap_or_default()
}

fn columns(results: Vec<(Job, Vec<Series>)>) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    for (job, series) in results {
        let place = columns
            .iter()
            .position(|column| (column.switch, column.speaker) == (job.switch, job.speaker));
        match place.and_then(|place| columns.get_mut(place)) {
            Some(column) => column.series.extend(series),
            None => columns.push(Column {
                switch: job.switch,
                speaker: job.speaker,
                series,
            }),
        }
    }
    columns
}

fn write(path: &Path, report: &impl Serialize) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    let text = serde_json::to_vec_pretty(report).context("writing the results as JSON")?;
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
