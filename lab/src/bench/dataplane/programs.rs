//! The programs that fill the kernel: how each is started, told of a change, and ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use isopath_ipvs::Destination;
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::speaker::cpu;
use crate::binaries;
use crate::http::{self, Request};
use crate::netns::Namespace;
use crate::process::{Process, pss};
use crate::wait::{self, Probe, scaled};

use super::figures::Who;
use super::rig::Rig;
use super::set::{METRICS, Set};

/// How long a program may take to fill the kernel.
const FULL: Duration = Duration::from_secs(60);

/// How long a change of one weight may take.
pub(super) const CHANGE: Duration = Duration::from_secs(20);

/// A program that is running, and its file.
pub(super) struct Program {
    who: Who,
    process: Process,
    directory: PathBuf,
    set: Set,
}

/// Starts a program with its kernel empty; returns it, and the time from its start until the
/// kernel had the whole set.
pub(super) fn fill(rig: &Rig, who: Who, set: Set) -> Result<(Program, Duration)> {
    let directory = rig.fresh_directory(who.name())?;
    write(who, &directory, set)?;
    let start = || start(rig.namespace(), who, &directory);
    let (process, took) = rig.time_full(set, FULL, start)?;
    let program = Program {
        who,
        process,
        directory,
        set,
    };
    Ok((program, took))
}

fn file(who: Who, directory: &Path) -> PathBuf {
    directory.join(match who {
        Who::Isopath | Who::IsopathStateful => "agent.toml",
        Who::Ipvsadm => "rules",
        Who::Keepalived => "keepalived.conf",
    })
}

fn write(who: Who, directory: &Path, set: Set) -> Result<()> {
    let text = match who {
        Who::Isopath | Who::IsopathStateful => set.director_file(directory),
        Who::Ipvsadm => set.ipvsadm(),
        Who::Keepalived => set.keepalived(),
    };
    let file = file(who, directory);
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
}

fn start(namespace: &Namespace, who: Who, directory: &Path) -> Result<Process> {
    let file = file(who, directory);
    let log = directory.join("program.log");
    let mut command = match who {
        Who::Isopath | Who::IsopathStateful => {
            let mut command = Command::new(binaries::find("isopath-agent")?);
            command.args(["run", "--no-speaker", "--config"]).arg(&file);
            command
        }
        Who::Ipvsadm => {
            let mut command = Command::new("bash");
            command.args(["-c", "exec ipvsadm -R <\"$1\"", "ipvsadm"]);
            command.arg(&file);
            command
        }
        Who::Keepalived => keepalived(&file, directory, "-C"),
    };
    Process::spawn(namespace, who.name(), &log, &mut command)
}

/// keepalived in the foreground, with a log that goes to its standard output alone. `part` is
/// its checkers (`-C`), or nothing for all of it.
pub(super) fn keepalived(file: &Path, directory: &Path, part: &str) -> Command {
    let mut command = Command::new("keepalived");
    command.args(["--dont-fork", "--log-console", "--no-syslog"]);
    if !part.is_empty() {
        command.arg(part);
    }
    command.arg("--use-file").arg(file);
    for (option, name) in [("-p", "parent"), ("-c", "checkers"), ("-r", "vrrp")] {
        command
            .arg(option)
            .arg(directory.join(format!("{name}.pid")));
    }
    command
}

impl Program {
    /// Waits for the end of a program that has nothing to do but to fill the kernel.
    pub(super) fn finish(mut self) -> Result<()> {
        let status = self.process.wait(FULL)?;
        if !status.success() {
            bail!("{status}: {}", self.process.log_tail(5));
        }
        Ok(())
    }

    /// Ends a program that goes on, at once: what it would tidy up is of no interest.
    pub(super) fn kill(self) -> Result<()> {
        crash(self.process)
    }

    /// The memory of all processes that it consists of.
    pub(super) fn pss(&self) -> Result<u64> {
        let children = children(self.process.pid())?;
        let of_children = children.iter().map(|pid| pss(number(*pid)));
        Ok(self.process.pss()? + of_children.sum::<Result<u64>>()?)
    }

    /// Waits until it uses less than half a processor: our agent looks at the kernel each second.
    pub(super) fn wait_until_quiet(&self) -> Result<()> {
        let window = scaled(Duration::from_millis(250));
        let mut last = None;
        wait::until_every(window, "the program to be quiet", CHANGE, || {
            let now = (Instant::now(), self.cpu()?);
            let Some((at, cpu)) = last.replace(now) else {
                return Ok(Probe::Waiting("not looked at yet".to_owned()));
            };
            let (used, passed) = (now.1.saturating_sub(cpu), now.0 - at);
            Ok(Probe::when(used < passed / 2, (), || {
                format!("{used:?} of {passed:?}")
            }))
        })
    }

    fn cpu(&self) -> Result<Duration> {
        let mut sum = cpu(self.process.pid())?;
        for child in children(self.process.pid())? {
            sum += cpu(number(child))?;
        }
        Ok(sum)
    }

    /// Changes the last weight in the file; returns the time from the signal to the kernel.
    pub(super) fn change_weight(&mut self, rig: &Rig) -> Result<Duration> {
        let weight = if self.set.last_weight == 1 { 2 } else { 1 };
        self.set = self.set.with_last_weight(weight);
        write(self.who, &self.directory, self.set)?;
        let changed = self.set.last_real_server();
        let process = &self.process;
        let has = |(): &mut (), found: &[Destination]| {
            let server = found.iter().find(|it| it.spec.address == changed.into());
            Ok(server.is_some_and(|it| it.spec.weight == weight))
        };
        let signal = || process.signal(Signal::HUP);
        Ok(rig.time(self.set, CHANGE, signal, has)?.1)
    }
}

/// Ends a program and what it has started by SIGKILL, before any of them notices the end of
/// another: a keepalived whose parent is gone would tidy up.
pub(super) fn crash(process: Process) -> Result<()> {
    process.signal(Signal::STOP)?;
    for child in children(process.pid())? {
        kill_process(child, Signal::KILL).context("killing a child")?;
    }
    process.crash()
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

fn children(pid: u32) -> Result<Vec<Pid>> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let pids = text.split_whitespace();
    pids.map(|pid| {
        let pid = pid.parse().ok().and_then(Pid::from_raw);
        pid.with_context(|| format!("a process id in {text:?}"))
    })
    .collect()
}

/// What the agent says of its reconciles, since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Reconciles {
    /// Those that changed nothing, and the seconds that they took.
    pub(super) unchanged: (f64, f64),
    /// Those that changed something, and the seconds that they took.
    pub(super) changed: (f64, f64),
    /// The changes.
    pub(super) steps: f64,
}

/// Asks the agent of the namespace.
pub(super) fn reconciles(namespace: &Namespace) -> Result<Reconciles> {
    let request = Request {
        method: "GET",
        path: "/metrics",
        token: None,
        body: None,
        if_match: None,
        timeout: scaled(Duration::from_secs(20)),
    };
    let answer = namespace.enter(|| http::send(METRICS.into(), &request))??;
    let text = answer.body;
    let number = |name: &str| {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.with_context(|| format!("the agent has no metric {name}"))
    };
    let pair = |outcome: &str| -> Result<(f64, f64)> {
        Ok((
            number(&format!(
                "isopath_dataplane_reconciles_total{{outcome=\"{outcome}\"}}"
            ))?,
            number(&format!(
                "isopath_dataplane_reconcile_seconds_total{{outcome=\"{outcome}\"}}"
            ))?,
        ))
    };
    Ok(Reconciles {
        unchanged: pair("unchanged")?,
        changed: pair("changed")?,
        steps: number("isopath_dataplane_steps_total")?,
    })
}
