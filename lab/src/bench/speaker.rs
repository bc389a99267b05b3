//! A director's speaker, of any of the three suites, in the hands of the benchmark.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use rustix::process::Signal;
use serde::Serialize;

use crate::binaries;
use crate::director::{Director, Source};
use crate::netns::{Namespace, checked};
use crate::plan;
use crate::process::Process;
use crate::switch::frr;
use crate::topology::Timers;

use super::configs;

/// Whose OSPF a director runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SpeakerKind {
    /// `isopath-speaker`.
    Isopath,
    /// FRR's ospfd, with its zebra and, where there is BFD, bfdd.
    Frr,
    /// BIRD.
    Bird,
}

impl SpeakerKind {
    /// All, ours first.
    pub const ALL: [Self; 3] = [Self::Isopath, Self::Frr, Self::Bird];

    /// How it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Isopath => "isopath",
            Self::Frr => "frr",
            Self::Bird => "bird",
        }
    }
}

/// How the VIP is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A stub link in the Router-LSA.
    Stub,
    /// An AS-external-LSA with a type 2 metric.
    External2,
}

/// One director's speaker.
#[derive(Debug)]
pub(super) struct DirectorSpeaker {
    pub(super) kind: SpeakerKind,
    form: Form,
    timers: Timers,
    pub(super) number: u8,
    pub(super) next_hop: Ipv4Addr,
    pub(super) router_id: Ipv4Addr,
    namespace: Namespace,
    directory: PathBuf,
    /// FRR's zebra, which a restart of the speaker leaves alone.
    zebra: Option<Process>,
    bfdd: Option<Process>,
    speaker: Option<Process>,
    /// The file of Isopath's daemons and its socket, for which the lab's director knows the form.
    isopath_config: String,
    isopath_file: PathBuf,
    isopath_socket: PathBuf,
}

impl DirectorSpeaker {
    pub(super) fn new(
        director: &Director,
        kind: SpeakerKind,
        form: Form,
        timers: Timers,
    ) -> Result<Self> {
        let announce = match form {
            Form::Stub => "",
            Form::External2 => "announce = { as = \"external-2\", cost = 1 }\n",
        };
        let vip = format!("[[vip]]\naddress = \"{}/32\"\n{announce}", plan::VIP);
        let speaker = Self {
            kind,
            form,
            timers,
            number: director.number,
            next_hop: director.next_hop(),
            router_id: director.router_id.0,
            namespace: director.namespace().clone(),
            directory: director.directory().to_owned(),
            zebra: None,
            bfdd: None,
            speaker: None,
            isopath_config: director
                .config(&Source::File(vip))
                // More changes are timed than a VIP makes that is well.
                .replace("[ospf]\n", "[ospf]\nhold_down = { withdrawals = 0 }\n"),
            isopath_file: director.config_file(),
            isopath_socket: director.speaker_socket(),
        };
        if kind != SpeakerKind::Isopath {
            speaker.set_address(true)?;
        }
        Ok(speaker)
    }

    /// Starts the speaker, and for the first time what it stands on; returns the moment at which
    /// the speaker itself was started.
    pub(super) fn start(&mut self) -> Result<Instant> {
        if self.speaker.is_some() {
            bail!("the speaker of d{} runs already", self.number);
        }
        match self.kind {
            SpeakerKind::Isopath => self.start_isopath(),
            SpeakerKind::Frr => self.start_frr(),
            SpeakerKind::Bird => self.start_bird(),
        }
    }

    fn start_isopath(&mut self) -> Result<Instant> {
        let own = format!("router_id = \"{}\"", plan::router_id(self.number));
        let wanted = format!("router_id = \"{}\"", self.router_id);
        let text = self.isopath_config.replace(&own, &wanted);
        fs::write(&self.isopath_file, text)
            .with_context(|| format!("writing {}", self.isopath_file.display()))?;
        let mut command = Command::new(binaries::find("isopath-speaker")?);
        command.arg("run").arg("--config").arg(&self.isopath_file);
        self.spawn(&mut command)
    }

    fn start_frr(&mut self) -> Result<Instant> {
        if self.zebra.is_none() {
            self.zebra = Some(frr::start_zebra(&self.namespace, &self.directory, "")?);
        }
        if self.timers.bfd.is_some() && self.bfdd.is_none() {
            let text = frr::bfdd_conf(self.timers);
            let bfdd = frr::daemon(&self.namespace, &self.directory, "bfdd", &text)?;
            prioritize(&bfdd)?;
            self.bfdd = Some(bfdd);
        }
        let text = configs::frr_ospfd(self.router_id, self.next_hop, self.form, self.timers);
        let started = Instant::now();
        let ospfd = frr::daemon(&self.namespace, &self.directory, "ospfd", &text)?;
        self.speaker = Some(ospfd);
        Ok(started)
    }

    fn start_bird(&mut self) -> Result<Instant> {
        let file = self.directory.join("bird.conf");
        let log = self.directory.join("bird.log");
        let text = configs::bird(&log, self.router_id, self.form, self.timers);
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        let mut command = Command::new("bird");
        command.arg("-f").arg("-c").arg(&file);
        command.arg("-s").arg(self.directory.join("bird.ctl"));
        let started = self.spawn(&mut command)?;
        if let (Some(_), Some(bird)) = (self.timers.bfd, &self.speaker) {
            prioritize(bird)?;
        }
        Ok(started)
    }

    fn spawn(&mut self, command: &mut Command) -> Result<Instant> {
        let what = format!("the speaker of d{}", self.number);
        let log = self.directory.join("speaker.log");
        let started = Instant::now();
        let process = Process::spawn(&self.namespace, what, &log, command)?;
        self.speaker = Some(process);
        Ok(started)
    }

    /// Ends it, and its BFD, by SIGKILL; returns the moment before that.
    pub(super) fn crash(&mut self) -> Result<Instant> {
        let speaker = self.speaker.take().context("the speaker does not run")?;
        let bfdd = self.bfdd.take();
        let moment = Instant::now();
        if let Some(bfdd) = bfdd {
            bfdd.signal(Signal::KILL)?;
            speaker.crash()?;
            bfdd.crash()?;
        } else {
            speaker.crash()?;
        }
        Ok(moment)
    }

    /// Asks the speaker alone to stop; returns the moment before that. [`Self::reap`] waits.
    pub(super) fn terminate(&mut self) -> Result<Instant> {
        let moment = Instant::now();
        self.process()?.signal(Signal::TERM)?;
        Ok(moment)
    }

    /// Waits for the end of a speaker that was asked to stop.
    pub(super) fn reap(&mut self) -> Result<()> {
        let mut speaker = self.speaker.take().context("the speaker does not run")?;
        speaker.wait(Duration::from_secs(15)).map(drop)
    }

    pub(super) fn is_running(&self) -> bool {
        self.speaker.is_some()
    }

    pub(super) fn process(&mut self) -> Result<&mut Process> {
        let speaker = self.speaker.as_mut();
        speaker.with_context(|| format!("the speaker of d{} does not run", self.number))
    }

    /// Announces or withdraws the VIP as an operator would; returns the moment before the
    /// command was started.
    pub(super) fn announce(&self, wanted: bool) -> Result<Instant> {
        let moment = Instant::now();
        if self.kind == SpeakerKind::Isopath {
            let verb = if wanted { "announce" } else { "withdraw" };
            self.isopath([verb, &plan::VIP.to_string()])?;
        } else {
            self.set_address(wanted)?;
        }
        Ok(moment)
    }

    /// Runs the operator's command on this director's speaker.
    pub(super) fn isopath<const N: usize>(&self, arguments: [&str; N]) -> Result<()> {
        let mut command = Command::new(binaries::find("isopath")?);
        command.arg("--speaker").arg(&self.isopath_socket);
        checked(command.args(arguments)).map(drop)
    }

    /// FRR and BIRD announce the addresses of the loopback interface.
    fn set_address(&self, present: bool) -> Result<()> {
        let verb = if present { "replace" } else { "del" };
        let vip = format!("{}/32", plan::VIP);
        let mut command = Command::new("ip");
        command.args(["-n", self.namespace.name(), "address", verb, &vip]);
        checked(command.args(["dev", "lo"])).map(drop)
    }

    /// Forgets what the speaker keeps on disk between two runs.
    pub(super) fn forget_state(&self) -> Result<()> {
        match fs::remove_dir_all(self.directory.join("state")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("removing the speaker's state")
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn programs(&self) -> impl Iterator<Item = &Process> {
        self.zebra.iter().chain(&self.bfdd).chain(&self.speaker)
    }

    /// The memory of all programs that the speaker consists of.
    pub(super) fn pss(&self) -> Result<u64> {
        self.programs().map(Process::pss).sum()
    }

    /// The processor time of all programs that the speaker consists of.
    pub(super) fn cpu(&self) -> Result<Duration> {
        self.programs().map(|program| cpu(program.pid())).sum()
    }

    pub(super) fn ospf_log_tail(&self) -> String {
        self.speaker
            .as_ref()
            .map_or_else(String::new, |speaker| speaker.log_tail(5))
    }
}

/// The time that all threads of a process have run: schedstat's first number, in nanoseconds,
/// where `stat` counts hundredths of a second.
pub(super) fn cpu(pid: u32) -> Result<Duration> {
    let tasks = format!("/proc/{pid}/task");
    let mut total = Duration::ZERO;
    for task in fs::read_dir(&tasks).with_context(|| format!("reading {tasks}"))? {
        let path = task.context("reading a task")?.path().join("schedstat");
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let nanos = text.split(' ').next().and_then(|text| text.parse().ok());
        total += Duration::from_nanos(nanos.context("schedstat has no number")?);
    }
    Ok(total)
}

/// Gives a program a real-time priority, as `isopath-speaker` gives itself: a false alarm of
/// anybody's BFD on a busy machine is not what is measured.
pub(super) fn prioritize(process: &Process) -> Result<()> {
    let mut chrt = Command::new("chrt");
    chrt.args(["--all-tasks", "--fifo", "--pid", "5"]);
    checked(chrt.arg(process.pid().to_string())).map(drop)
}
