//! Ten thousand AS-external-LSAs at the switch, and memory.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::netns::checked;
use crate::switch::{Switch, SwitchKind};
use crate::wait::{self, Probe};

use super::capture::Capture;
use super::cluster::{Cluster, LIMIT, Stage};
use super::figures::{Figure, Series};
use super::speaker::{Form, SpeakerKind};
use super::{Job, bfd_timers, plain_timers};

/// How many LSAs.
const EXTERNALS: usize = 10_000;

/// From the start of a speaker until it has acknowledged every AS-external-LSA of the switch,
/// and what that costs it.
pub(super) fn load(stage: &Stage, job: &Job) -> Result<Vec<Series>> {
    let mut cluster = Cluster::new(stage, job, super::DIRECTORS, Form::Stub, plain_timers())?;
    originate_externals(&cluster.lab.switch)?;
    let mut times = Series::new(Figure::Load);
    let mut cpu = Series::new(Figure::LoadCpu);
    let mut memory = Series::new(Figure::LoadMemory);
    let mut failures = Vec::new();
    for repetition in 0..job.repetitions {
        let index = repetition % cluster.speakers.len();
        let done = one(&mut cluster, index, repetition, job.repetitions);
        match done {
            Ok(done) => {
                times.push(done.took, None);
                cpu.push(done.cpu, None);
                memory.push_bytes(done.pss);
            }
            Err(error) => failures.push(format!("repetition {}: {error:#}", repetition + 1)),
        }
        if cluster.speakers[index].is_running() {
            cluster.speakers[index].terminate()?;
            cluster.speakers[index].reap()?;
        }
    }
    for series in [&mut times, &mut cpu, &mut memory] {
        series.failures.clone_from(&failures);
    }
    let mut all = vec![times, cpu];
    all.extend(is_alone_in_memory(job).then_some(memory));
    Ok(all)
}

struct Loaded {
    took: Duration,
    cpu: Duration,
    pss: u64,
}

fn one(
    cluster: &mut Cluster<'_>,
    index: usize,
    repetition: usize,
    repetitions: usize,
) -> Result<Loaded> {
    cluster.wait_forgotten(index)?;
    let number = cluster.speakers[index].number;
    let director = cluster.speakers[index].next_hop;
    let capture = Capture::start(
        cluster.lab.switch.namespace(),
        &format!("d{number}"),
        cluster.lab.switch.directory(),
    )?;
    cluster.stage.wait_for_phase(repetition, repetitions);
    let started = cluster.start(index)?;
    let end = wait::until("all LSAs to be acknowledged", LIMIT, || {
        let at = capture.acknowledged(director, EXTERNALS)?;
        Ok(at.map_or_else(|| Probe::Waiting("not all".to_owned()), Probe::Ready))
    })?;
    // What follows at once, such as the flooding of its own LSA, belongs to the cost.
    std::thread::sleep(Duration::from_millis(500));
    let (cpu, pss) = (
        cluster.speakers[index].cpu()?,
        cluster.speakers[index].pss()?,
    );
    capture.end()?;
    Ok(Loaded {
        took: end.saturating_duration_since(started),
        cpu,
        pss,
    })
}

/// The memory of one speaker that has nothing to do but BFD.
pub(super) fn idle_memory(stage: &Stage, job: &Job) -> Result<Vec<Series>> {
    if !is_alone_in_memory(job) {
        return Ok(Vec::new());
    }
    let mut cluster = Cluster::new(stage, job, 1, Form::Stub, bfd_timers())?;
    let mut series = Series::new(Figure::IdleMemory);
    cluster.complete()?;
    cluster.wait_for_bfd(0)?;
    for _ in 0..3 {
        std::thread::sleep(Duration::from_secs(2));
        series.push_bytes(cluster.speakers[0].pss()?);
    }
    Ok(vec![series])
}

/// A proportional size counts shared pages by the number of those who share them: a director of
/// the switch's own suite would seem half as large.
fn is_alone_in_memory(job: &Job) -> bool {
    !matches!(
        (job.speaker, job.switch),
        (SpeakerKind::Frr, SwitchKind::Frr) | (SpeakerKind::Bird, SwitchKind::Bird)
    )
}

/// 172.16.0.0/32 and those after it.
fn external(index: usize) -> Ipv4Addr {
    let first = Ipv4Addr::new(172, 16, 0, 0).to_bits();
    Ipv4Addr::from_bits(first + u32::try_from(index).unwrap_or(0))
}

/// Makes the switch originate the LSAs, from static routes, and waits until it has.
fn originate_externals(switch: &Switch) -> Result<()> {
    prepare_externals(switch)?;
    set_externals(switch, true)?;
    let (command, mark) = match switch.kind() {
        SwitchKind::Frr => ("show ip ospf", "Number of external LSA "),
        SwitchKind::Bird => ("show ospf", "Number of LSAs in DB:"),
    };
    wait::until("the externals at the switch", LIMIT, || {
        let answer = switch.ask(command)?;
        let count = answer
            .lines()
            .find_map(|line| line.trim().strip_prefix(mark))
            .and_then(|rest| rest.trim().split(['.', ' ']).next()?.parse::<usize>().ok());
        let all = count.is_some_and(|count| count >= EXTERNALS);
        Ok(Probe::when(all, (), || format!("{count:?}")))
    })
}

/// Sets the switch up to originate them on [`set_externals`]: FRR takes over static routes of
/// its kernel, BIRD has a protocol for them.
pub(super) fn prepare_externals(switch: &Switch) -> Result<()> {
    match switch.kind() {
        SwitchKind::Frr => {
            let mut vtysh = Command::new("vtysh");
            vtysh.args(["-N", switch.namespace().name()]);
            for line in ["configure terminal", "router ospf", "redistribute kernel"] {
                vtysh.args(["-c", line]);
            }
            checked(&mut vtysh).map(drop)
        }
        SwitchKind::Bird => {
            let file = switch.directory().join("bird.conf");
            let text = fs::read_to_string(&file);
            let text = text.with_context(|| format!("reading {}", file.display()))?;
            let text = bird_with_externals(&text)?;
            fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
            birdc(switch, &["configure"], "Reconfig")
        }
    }
}

/// Originates them all, or flushes them.
pub(super) fn set_externals(switch: &Switch, present: bool) -> Result<()> {
    match switch.kind() {
        SwitchKind::Frr => {
            let verb = if present { "add" } else { "del" };
            let routes = (0..EXTERNALS).map(external);
            let lines = routes.map(|route| format!("route {verb} blackhole {route}"));
            switch.namespace().ip(lines)
        }
        SwitchKind::Bird => {
            let verb = if present { "enable" } else { "disable" };
            birdc(switch, &[verb, "externals"], &format!("externals: {verb}d"))
        }
    }
}

fn bird_with_externals(config: &str) -> Result<String> {
    let none = "ipv4 { import all; export none; };";
    ensure!(
        config.contains(none),
        "no {none:?} in BIRD's configuration: {config}"
    );
    let statics = "ipv4 { import all; export where source = RTS_STATIC; };";
    let mut text = config.replace(none, statics);
    text.push_str("protocol static externals {\n  disabled;\n  ipv4;\n");
    for index in 0..EXTERNALS {
        writeln!(text, "  route {}/32 blackhole;", external(index))?;
    }
    text.push_str("}\n");
    Ok(text)
}

fn birdc(switch: &Switch, arguments: &[&str], wanted: &str) -> Result<()> {
    let mut birdc = Command::new("birdc");
    birdc.arg("-s").arg(switch.directory().join("bird.ctl"));
    let output = checked(birdc.args(arguments))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        said.contains(wanted),
        "BIRD answered {arguments:?} with {said}"
    );
    Ok(())
}
