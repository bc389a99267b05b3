//! A director without processor time: nothing of it may cost a BFD session.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::plan;
use crate::process::Process;

use super::cluster::{Cluster, Stage};
use super::figures::{Figure, Series};
use super::load::{prepare_externals, set_externals};
use super::speaker::{Form, SpeakerKind};
use super::{Job, bfd_timers};

/// For how long.
const TIME: Duration = Duration::from_secs(30);

/// Busy loops for each processor, at normal priority.
const LOOPS: usize = 2;

/// Four speakers with BFD at 3 × 50 ms; on the first director every processor is kept busy, the
/// agent is stopped, and the switch floods it with LSAs. No next hop may leave the FIB, as it
/// would when a BFD session drops; the speaker says how late its packets were.
pub(super) fn starved(stage: &Stage, job: &Job) -> Result<Vec<Series>> {
    if job.speaker != SpeakerKind::Isopath {
        return Ok(Vec::new());
    }
    let mut cluster = Cluster::whole(stage, job, Form::Stub, bfd_timers())?;
    for index in 0..cluster.speakers.len() {
        cluster.wait_for_bfd(index)?;
    }
    let mut hello = Series::new(Figure::StarvedHello);
    let mut bfd = Series::new(Figure::StarvedBfd);
    match starve(&mut cluster) {
        Ok(()) => {
            for director in &cluster.lab.directors {
                let counters = director.speaker_status()?.counters;
                let late = |name: &str| {
                    let micros = counters.get(name).copied();
                    micros
                        .map(Duration::from_micros)
                        .with_context(|| format!("the speaker has no counter {name}"))
                };
                hello.push(late("hello_late_max_us")?, None);
                bfd.push(late("bfd_late_max_us")?, None);
            }
        }
        Err(error) => bfd.failures.push(format!("{error:#}")),
    }
    Ok(vec![hello, bfd])
}

fn starve(cluster: &mut Cluster<'_>) -> Result<()> {
    cluster.lab.directors[0].start_agent()?;
    prepare_externals(&cluster.lab.switch)?;
    cluster.monitor.take()?;
    let loops = busy_loops(cluster)?;
    cluster.lab.directors[0].agent()?.signal(Signal::STOP)?;
    let end = Instant::now() + TIME;
    let mut present = false;
    while Instant::now() < end {
        present = !present;
        set_externals(&cluster.lab.switch, present)?;
        let pause = Duration::from_secs(6).min(end.saturating_duration_since(Instant::now()));
        std::thread::sleep(pause);
        expect_no_loss(cluster)?;
    }
    cluster.lab.directors[0].agent()?.signal(Signal::CONT)?;
    for mut busy in loops {
        ensure!(busy.exit_status()?.is_none(), "a busy loop ended by itself");
    }
    Ok(())
}

fn busy_loops(cluster: &Cluster<'_>) -> Result<Vec<Process>> {
    let processors = std::thread::available_parallelism().context("counting the processors")?;
    let director = &cluster.lab.directors[0];
    let log = director.directory().join("busy.log");
    (0..processors.get() * LOOPS)
        .map(|_| {
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do :; done"]);
            Process::spawn(director.namespace(), "a busy loop", &log, &mut command)
        })
        .collect()
}

/// No next hop to the VIP has left since the last look.
fn expect_no_loss(cluster: &mut Cluster<'_>) -> Result<()> {
    let all = cluster.lab.all_next_hops();
    for change in cluster.monitor.take()? {
        if change.destination == plan::VIP.0 && change.next_hops != all {
            bail!(
                "a session dropped: the next hops became {:?}",
                change.next_hops
            );
        }
    }
    Ok(())
}
