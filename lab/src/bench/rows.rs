//! The measurements of times to the FIB.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::director::Director;
use crate::plan;
use crate::wait::{self, Probe};

use super::cluster::{Cluster, Stage};
use super::figures::{Figure, Series};
use super::speaker::{Form, SpeakerKind};
use super::{Job, bfd_timers, plain_timers};

/// What the opposite change follows the first one by.
const OPPOSITE: Duration = Duration::from_millis(800);

/// How often agent and speaker are restarted.
const RESTARTS: usize = 20;

/// A cold start with a new router id.
pub(super) fn cold_start(stage: &Stage, job: &Job) -> Result<Vec<Series>> {
    let mut cluster = Cluster::whole(stage, job, Form::Stub, plain_timers())?;
    let mut series = Series::new(Figure::ColdStart);
    series.failures = cluster.repeat(job.repetitions, |cluster, repetition| {
        let index = repetition % cluster.speakers.len();
        cluster.speakers[index].terminate()?;
        cluster.speakers[index].reap()?;
        cluster.hop_at(index, false)?;
        cluster.wait_forgotten(index)?;
        cluster.quiet();
        cluster.speakers[index].forget_state()?;
        let run = u8::try_from(repetition % 250).unwrap_or(0);
        cluster.speakers[index].router_id = std::net::Ipv4Addr::new(10, 200, run, 2);
        cluster.monitor.take()?;
        cluster.stage.wait_for_phase(repetition, job.repetitions);
        let started = cluster.start(index)?;
        let course = cluster.follow(index, false)?;
        series.push(course.settled_after(started), Some(course.flaps()));
        Ok(())
    });
    Ok(vec![series])
}

/// A start right after a SIGKILL, while the switch still has the adjacency of the run before.
pub(super) fn crash_start(stage: &Stage, job: &Job) -> Result<Vec<Series>> {
    let mut cluster = Cluster::whole(stage, job, Form::Stub, plain_timers())?;
    let mut series = Series::new(Figure::CrashStart);
    let mut absent = Series::new(Figure::CrashStartAbsent);
    series.failures = cluster.repeat(job.repetitions, |cluster, repetition| {
        let index = repetition % cluster.speakers.len();
        cluster.quiet();
        cluster.stage.wait_for_phase(repetition, job.repetitions);
        cluster.monitor.take()?;
        cluster.speakers[index].crash()?;
        let started = cluster.start(index)?;
        let course = cluster.follow(index, true)?;
        series.push(course.settled_after(started), Some(course.flaps()));
        absent.push(course.absent_for(), None);
        Ok(())
    });
    Ok(vec![series, absent])
}

/// A withdrawal and an announcement after a quiet time.
pub(super) fn changes(stage: &Stage, job: &Job) -> Result<Vec<Series>> {
    quiet_changes(stage, job, Form::Stub, Figure::Announce, Figure::Withdraw)
}

/// The same with the VIP as an AS-external-LSA.
pub(super) fn changes_external(stage: &Stage, job: &Job) -> Result<Vec<Series>> {
    let (announce, withdraw) = (Figure::AnnounceExternal, Figure::WithdrawExternal);
    quiet_changes(stage, job, Form::External2, announce, withdraw)
}

fn quiet_changes(
    stage: &Stage,
    job: &Job,
    form: Form,
    announce: Figure,
    withdraw: Figure,
) -> Result<Vec<Series>> {
    let mut cluster = Cluster::whole(stage, job, form, plain_timers())?;
    let (mut announces, mut withdraws) = (Series::new(announce), Series::new(withdraw));
    let failures = cluster.repeat(job.repetitions, |cluster, repetition| {
        let index = repetition % cluster.speakers.len();
        for wanted in [false, true] {
            cluster.quiet();
            let alone = cluster.stage.alone();
            cluster.stage.wait_for_phase(repetition, job.repetitions);
            cluster.monitor.take()?;
            let asked = cluster.speakers[index].announce(wanted)?;
            let took = cluster
                .hop_at(index, wanted)?
                .saturating_duration_since(asked);
            drop(alone);
            let series = if wanted {
                &mut announces
            } else {
                &mut withdraws
            };
            series.push(took, None);
        }
        Ok(())
    });
    announces.failures.clone_from(&failures);
    withdraws.failures = failures;
    Ok(vec![announces, withdraws])
}

/// A withdrawal, and 0.8 s later the announcement that takes it back.
pub(super) fn opposite(stage: &Stage, job: &Job) -> Result<Vec<Series>> {
    opposite_changes(stage, job, Form::Stub, Figure::Opposite)
}

/// The same with the VIP as an AS-external-LSA.
pub(super) fn opposite_external(stage: &Stage, job: &Job) -> Result<Vec<Series>> {
    opposite_changes(stage, job, Form::External2, Figure::OppositeExternal)
}

fn opposite_changes(stage: &Stage, job: &Job, form: Form, figure: Figure) -> Result<Vec<Series>> {
    let mut cluster = Cluster::whole(stage, job, form, plain_timers())?;
    let mut series = Series::new(figure);
    series.failures = cluster.repeat(job.repetitions, |cluster, repetition| {
        let index = repetition % cluster.speakers.len();
        cluster.quiet();
        cluster.stage.wait_for_phase(repetition, job.repetitions);
        cluster.monitor.take()?;
        let first = cluster.speakers[index].announce(false)?;
        std::thread::sleep((first + OPPOSITE).saturating_duration_since(Instant::now()));
        let second = cluster.speakers[index].announce(true)?;
        let course = cluster.follow(index, true)?;
        series.push(course.settled_after(second), None);
        Ok(())
    });
    Ok(vec![series])
}

/// SIGKILL of a speaker whose BFD runs at 3 × 50 ms.
pub(super) fn crash_bfd(stage: &Stage, job: &Job) -> Result<Vec<Series>> {
    let mut cluster = Cluster::whole(stage, job, Form::Stub, bfd_timers())?;
    let mut series = Series::new(Figure::CrashBfd);
    series.failures = cluster.repeat(job.repetitions, |cluster, repetition| {
        let index = repetition % cluster.speakers.len();
        cluster.wait_for_bfd(index)?;
        cluster.quiet();
        let alone = cluster.stage.alone();
        cluster.stage.wait_for_phase(repetition, job.repetitions);
        cluster.monitor.take()?;
        let killed = cluster.speakers[index].crash()?;
        let out = cluster.hop_at(index, false)?;
        drop(alone);
        series.push(out.saturating_duration_since(killed), None);
        cluster.complete()
    });
    Ok(vec![series])
}

/// SIGTERM of a speaker.
pub(super) fn stop(stage: &Stage, job: &Job) -> Result<Vec<Series>> {
    let mut cluster = Cluster::whole(stage, job, Form::Stub, plain_timers())?;
    let mut series = Series::new(Figure::Stop);
    series.failures = cluster.repeat(job.repetitions, |cluster, repetition| {
        let index = repetition % cluster.speakers.len();
        cluster.quiet();
        let alone = cluster.stage.alone();
        cluster.stage.wait_for_phase(repetition, job.repetitions);
        cluster.monitor.take()?;
        let asked = cluster.speakers[index].terminate()?;
        let out = cluster.hop_at(index, false)?;
        drop(alone);
        series.push(out.saturating_duration_since(asked), None);
        cluster.speakers[index].reap()?;
        cluster.complete()
    });
    Ok(vec![series])
}

/// Restarts of the agent, and planned restarts of the speaker: how many moved the route.
pub(super) fn restarts(stage: &Stage, job: &Job) -> Result<Vec<Series>> {
    let mut agent = Series::new(Figure::AgentRestart);
    let mut upgrade = Series::new(Figure::Upgrade);
    if job.speaker != SpeakerKind::Isopath {
        return Ok(Vec::new());
    }
    let mut cluster = Cluster::whole(stage, job, Form::Stub, bfd_timers())?;
    cluster.wait_for_bfd(0)?;
    cluster.quiet();
    cluster.lab.directors[0].start_agent()?;
    agent.failures = cluster.repeat(RESTARTS, |cluster, _| {
        unmoved(cluster, &mut agent, |cluster| {
            let ended = cluster.lab.directors[0].take_agent()?;
            ended.stop(Duration::from_secs(10))?;
            cluster.lab.directors[0].start_agent()
        })
    });
    upgrade.failures = cluster.repeat(RESTARTS, |cluster, _| {
        unmoved(cluster, &mut upgrade, |cluster| {
            let before = cluster.lab.directors[0].speaker_status()?.pid;
            cluster.speakers[0].isopath(["upgrade"])?;
            wait_for_successor(&cluster.lab.directors[0], before)
        })
    });
    Ok(vec![agent, upgrade])
}

/// The speaker that took over answers, under another process id or with a new start.
fn wait_for_successor(director: &Director, before: u32) -> Result<()> {
    let limit = Duration::from_secs(5);
    wait::until("the upgraded speaker to answer", limit, || {
        Ok(match director.speaker_status() {
            Ok(status) => {
                let is_new = status.pid != before || status.up_ms < 5_000;
                Probe::when(is_new, (), || format!("process {} still", status.pid))
            }
            Err(error) => Probe::Waiting(format!("{error:#}")),
        })
    })
}

/// Does something that must not move the route, and watches it for longer than
/// RouterDeadInterval after the last time and for a second in between.
fn unmoved(
    cluster: &mut Cluster<'_>,
    series: &mut Series,
    work: impl FnOnce(&mut Cluster<'_>) -> Result<()>,
) -> Result<()> {
    cluster.monitor.take()?;
    let hop = cluster.speakers[0].next_hop;
    ensure!(
        cluster.lab.switch.fib(plan::VIP)?.contains(&hop),
        "the next hop {hop} was not in the FIB"
    );
    let alone = cluster.stage.alone();
    work(cluster)?;
    drop(alone);
    let is_last = series.values.len() + 1 == RESTARTS;
    let watch = if is_last { 6_000 } else { 1_000 };
    std::thread::sleep(Duration::from_millis(watch));
    let left = cluster
        .monitor
        .take()?
        .into_iter()
        .find(|change| change.destination == plan::VIP.0 && !change.next_hops.contains(&hop));
    if let Some(change) = left {
        bail!("the next hop {hop} left the FIB: {:?}", change.next_hops);
    }
    series.count();
    Ok(())
}
