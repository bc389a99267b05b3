//! The programs a lab runs.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::netns::{Namespace, checked};
use crate::wait::{self, Probe};

/// A program in a namespace; ended by SIGKILL, with whatever it started, when dropped.
#[derive(Debug)]
pub struct Process {
    what: String,
    child: Child,
    /// Its id means nothing any more.
    ended: bool,
    log: PathBuf,
}

impl Process {
    /// Starts `command` in the namespace, in a process group of its own, so that a terminal's
    /// Ctrl-C reaches only the lab. What it prints is appended to the file `log`.
    ///
    /// # Errors
    /// The log cannot be opened or the program not started.
    pub fn spawn(
        namespace: &Namespace,
        what: impl Into<String>,
        log: &Path,
        command: &mut Command,
    ) -> Result<Self> {
        let what = what.into();
        let file = OpenOptions::new().create(true).append(true).open(log);
        let file = file.with_context(|| format!("opening {}", log.display()))?;
        let errors = file
            .try_clone()
            .with_context(|| format!("opening {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .process_group(0);
        let start = || namespace.registry().while_locked(|| command.spawn());
        let child = namespace
            .enter(start)?
            .with_context(|| format!("starting {what}"))?;
        Ok(Self {
            what,
            child,
            ended: false,
            log: log.to_owned(),
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it is, such as `the agent of d1`.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// How it ended; nothing while it runs.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait();
        let status = status.with_context(|| format!("looking at {}", self.what))?;
        self.ended |= status.is_some();
        Ok(status)
    }

    /// Fails when it has ended, with the end of its log.
    ///
    /// # Errors
    /// It has ended.
    pub fn expect_running(&mut self) -> Result<()> {
        if let Some(status) = self.exit_status()? {
            bail!(
                "{} ended with {status}; its log ends with\n{}",
                self.what,
                self.log_tail(20)
            );
        }
        Ok(())
    }

    /// Ends it as a crash does, by SIGKILL, and leaves alone what it started.
    ///
    /// # Errors
    /// It cannot be signalled.
    pub fn crash(mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.child
            .wait()
            .with_context(|| format!("waiting for the end of {}", self.what))?;
        self.ended = true;
        Ok(())
    }

    /// Asks it to stop by SIGTERM and waits for that.
    ///
    /// # Errors
    /// It does not stop within the time.
    pub fn stop(mut self, within: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(within)
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    /// It does not end within the time.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.what);
        wait::until(what, within, || {
            Ok(match self.exit_status()? {
                Some(status) => Probe::Ready(status),
                None => Probe::Waiting("it still runs".to_owned()),
            })
        })
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It cannot be signalled.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.raw_pid(), signal)
            .with_context(|| format!("sending {signal:?} to {}", self.what))
    }

    /// Gives it a real-time priority: what it stands for has a processor to itself, and its BFD
    /// must not fail because this machine is busy.
    ///
    /// # Errors
    /// The kernel refuses, or `chrt` is not installed.
    pub fn prioritize(&self) -> Result<()> {
        let mut chrt = Command::new("chrt");
        chrt.args(["--all-tasks", "--fifo", "--pid", "5"]);
        checked(chrt.arg(self.pid().to_string())).map(drop)
    }

    /// Its proportional set size in bytes: memory shared with others is counted by their number.
    ///
    /// # Errors
    /// It has ended, or the kernel does not say.
    pub fn pss(&self) -> Result<u64> {
        pss(self.pid())
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    fn raw_pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Err(error) = kill_process_group(self.raw_pid(), Signal::KILL) {
            eprintln!("isopath-lab: ending {}: {error}", self.what);
        }
        if let Err(error) = self.child.wait() {
            eprintln!("isopath-lab: waiting for the end of {}: {error}", self.what);
        }
    }
}

/// The last lines of a file, or why it cannot be read.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    match File::open(path).and_then(std::io::read_to_string) {
        Ok(text) => {
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("({}: {error})", path.display()),
    }
}

/// The proportional set size of a process, in bytes.
pub(crate) fn pss(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    parse_pss(&text).with_context(|| format!("no Pss in {path}"))
}

fn parse_pss(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proportional_set_size_is_read_and_not_one_of_its_parts() {
        let rollup = "00400000-7ffd [rollup]\nRss:    900 kB\nPss:    412 kB\nPss_Anon:  80 kB\n";
        assert_eq!(parse_pss(rollup), Some(412 * 1024));
        assert_eq!(parse_pss("Pss_Anon:  80 kB\n"), None);
    }
}
