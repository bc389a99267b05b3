//! The planned restart: this process starts a program, gives it all sockets and all state, and
//! leaves. The neighbours see no change, for not a packet is missing.
//!
//! ```text
//!  predecessor                         successor (its standard input is the channel)
//!      │── Offer ────────────────────────▶│ reads its file, compares, opens what it can
//!      │◀───────────── Ready or Refused ──│
//!   stops reading and sending             │
//!      │── State, descriptors ───────────▶│ restores, watches the sockets, does not touch them
//!      │◀────────── Restored or Refused ──│
//!      │── Go ───────────────────────────▶│
//!   leaves                            speaks
//! ```
//!
//! The first two steps may take their time, since the predecessor speaks on. From then on the
//! bound is what the neighbours' BFD allows. Only [`ToSuccessor::Go`] makes the successor speak,
//! and only the predecessor can say it: whatever goes wrong before, the predecessor ends the
//! successor and goes on, and at no time do two speak. What arrives meanwhile waits in the
//! sockets, which are the same ones for both.

mod channel;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use isopath_api::config::{BfdConfig, DirectorFile};
use isopath_ospf::{Config, Identity, SnapshotError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use tracing::warn;

pub(crate) use channel::{Channel, ChannelError, Incoming, MissingDescriptor, Outgoing};

use crate::wanted::ClientId;

/// The version of the snapshot's format. A field that is added with a default does not change
/// it; one that a successor must understand does, and then a planned restart between the two
/// versions is refused.
const FORMAT: u32 = 1;

/// The argument that makes a speaker the successor of another.
const TAKE_OVER: &str = "--take-over";

/// How long a successor may take to read its file and be ready. A cold disk and a busy machine
/// are in it, a program that hangs is not worth waiting for longer.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a successor waits for its predecessor's next word before it gives up. The
/// predecessor's own bounds are shorter.
const PREDECESSOR_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a program that closed its end of the channel is waited for, to say how it ended.
const ENDING: Duration = Duration::from_millis(10);

/// The longest reason that is passed on.
const MAX_REASON: usize = 8 << 10;

/// How a speaker was called, to call its successor.
#[derive(Debug, Clone)]
pub struct Invocation {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Invocation {
    /// This process' program, by the path it was called by: what stands there later, after an
    /// upgrade of the package, is the successor. `arguments` are those without the program.
    pub fn of_this_process(arguments: Vec<OsString>) -> Self {
        let called = std::env::args_os().next().map(PathBuf::from);
        // A bare name was looked up in PATH, and the system knows where it was found.
        let path = called.filter(|called| called.components().count() > 1);
        let absolute = path.and_then(|path| std::path::absolute(path).ok());
        let program = absolute.or_else(|| std::env::current_exe().ok());
        Self {
            program: program.unwrap_or_else(|| PathBuf::from("isopath-speaker")),
            arguments,
        }
    }
}

/// What the predecessor says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ToSuccessor {
    /// Who it is.
    Offer(Offer),
    /// The snapshot is in the one descriptor that comes with this; so many others follow.
    State { descriptors: usize },
    /// Some of the others.
    Descriptors,
    /// Speak.
    Go,
}

/// What the successor says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FromSuccessor {
    /// It can go on with the state of whoever made the offer.
    Ready { version: String },
    /// It cannot.
    Refused { reason: String },
    /// It has the state and waits for the word.
    Restored,
}

/// Who is to be succeeded, as far as its successor must be the same.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offer {
    /// First, so that it can be read whatever else has changed.
    format: u32,
    version: String,
    identity: Identity,
    interfaces: Vec<OfferedInterface>,
    speaker_socket: PathBuf,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OfferedInterface {
    name: String,
    bfd: Option<OfferedBfd>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OfferedBfd {
    min_tx: Duration,
    min_rx: Duration,
    multiplier: u8,
}

impl Offer {
    pub(crate) fn new(file: &DirectorFile, config: &Config) -> Self {
        let interface = |at: &isopath_api::config::InterfaceConfig| OfferedInterface {
            name: at.name.clone(),
            bfd: at.bfd.map(
                |BfdConfig {
                     min_tx,
                     min_rx,
                     multiplier,
                 }| OfferedBfd {
                    min_tx,
                    min_rx,
                    multiplier,
                },
            ),
        };
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            identity: Identity::new(config),
            interfaces: file.ospf.interface.iter().map(interface).collect(),
            speaker_socket: file.director.speaker_socket.clone(),
        }
    }

    /// Whether a speaker of this file and configuration can go on where the one that made the
    /// offer stops.
    pub(crate) fn check(&self, file: &DirectorFile, config: &Config) -> Result<(), TakeOverError> {
        let ours = Self::new(file, config);
        let changed = |what: String, found: String, running: String| TakeOverError::Changed {
            what,
            found,
            running,
        };
        if self.format != FORMAT {
            let what = "the snapshot's format".to_owned();
            let version = |format: u32, version: &str| format!("{format} (version {version})");
            return Err(changed(
                what,
                version(FORMAT, &ours.version),
                version(self.format, &self.version),
            ));
        }
        if ours.speaker_socket != self.speaker_socket {
            let show = |path: &Path| path.display().to_string();
            return Err(changed(
                "speaker_socket".to_owned(),
                show(&ours.speaker_socket),
                show(&self.speaker_socket),
            ));
        }
        let names = |offer: &Self| -> Vec<String> {
            let interfaces = offer.interfaces.iter();
            interfaces.map(|at| at.name.clone()).collect()
        };
        if names(&ours) != names(self) {
            return Err(changed(
                "the list of interfaces".to_owned(),
                names(&ours).join(", "),
                names(self).join(", "),
            ));
        }
        for (ours, running) in ours.interfaces.iter().zip(&self.interfaces) {
            if ours.bfd != running.bfd {
                return Err(changed(
                    format!("bfd of interface {}", ours.name),
                    format!("{:?}", ours.bfd),
                    format!("{:?}", running.bfd),
                ));
            }
        }
        Ok(self.identity.check(config)?)
    }
}

/// Why a successor does not take over.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    /// Something that the neighbours or the agent see would change.
    #[error("{what} is {found} in the new configuration, {running} in the running one")]
    Changed {
        /// What has changed.
        what: String,
        /// What it is in the successor.
        found: String,
        /// What it is in the running process.
        running: String,
    },
    /// The state of OSPF.
    #[error("cannot go on with the state of OSPF")]
    Ospf(#[from] SnapshotError),
    /// The state of BFD.
    #[error("cannot go on with the state of BFD")]
    Bfd(#[from] isopath_bfd::OutOfRange),
    /// The snapshot is not one.
    #[error("the snapshot is not understood")]
    Snapshot(#[from] serde_json::Error),
    /// A socket is missing.
    #[error("the snapshot is not complete")]
    #[expect(private_interfaces, reason = "only its text is for others")]
    Descriptor(#[from] MissingDescriptor),
    /// The predecessor did not say what it should.
    #[error("lost the running process")]
    #[expect(private_interfaces, reason = "only its text is for others")]
    Channel(#[from] ChannelError),
    /// The predecessor said something at the wrong time.
    #[error("the running process said something unexpected")]
    OutOfOrder,
    /// The system refused.
    #[error("cannot {operation}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Why an upgrade did not happen; the running process goes on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeError {
    #[error("an upgrade is under way already")]
    Busy,
    #[error("the speaker is stopping")]
    Stopping,
    #[error("only root may name the program to start")]
    NotRoot,
    #[error("expected an absolute path of a program, found {}", .0.display())]
    NotAbsolute(PathBuf),
    #[error("cannot start {}", program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("the new program ended before it took over ({0})")]
    Ended(String),
    #[error("the new program cannot take over: {0}")]
    Refused(String),
    #[error("the new program was not ready within {READY_TIMEOUT:?}")]
    NotReady,
    #[error("the new program did not take over in time")]
    TooLate(#[source] ChannelError),
    #[error("the new program said something unexpected")]
    OutOfOrder,
    #[error("cannot hand over")]
    Channel(#[from] ChannelError),
    #[error("cannot {operation}")]
    Io {
        operation: &'static str,
        source: io::Error,
    },
}

/// An error with all its causes, for an answer of one line.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// An upgrade under way, as the predecessor has it.
#[derive(Debug)]
pub(crate) struct Upgrade {
    successor: Child,
    pub(crate) channel: Channel,
    /// Who wants to hear of it.
    pub(crate) requester: Option<ClientId>,
    /// When the successor must be ready.
    pub(crate) deadline: Instant,
    /// The successor's version, once it is ready.
    pub(crate) ready: Option<String>,
}

impl Upgrade {
    /// Starts the successor and makes it the offer.
    pub(crate) fn begin(
        now: Instant,
        invocation: &Invocation,
        binary: Option<PathBuf>,
        offer: Offer,
        requester: Option<ClientId>,
    ) -> Result<Self, UpgradeError> {
        let failed = |operation| move |source| UpgradeError::Io { operation, source };
        let (channel, theirs) = Channel::pair().map_err(failed("create a pair of sockets"))?;
        let program = binary.unwrap_or_else(|| invocation.program.clone());
        let successor = Command::new(&program)
            .args(&invocation.arguments)
            .arg(TAKE_OVER)
            .stdin(theirs.into_descriptor())
            .spawn()
            .map_err(|source| UpgradeError::Start { program, source })?;
        let upgrade = Self {
            successor,
            channel,
            requester,
            deadline: now + READY_TIMEOUT,
            ready: None,
        };
        // A program that is gone already is told from its end of the channel, as any other.
        if let Err(error) = upgrade.channel.send(&ToSuccessor::Offer(offer), &[])
            && !matches!(error, ChannelError::Gone)
        {
            upgrade.abandon();
            return Err(error.into());
        }
        Ok(upgrade)
    }

    /// The successor's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.successor.id()
    }

    /// The successor's word about the offer, which has come.
    pub(crate) fn answer(&mut self, now: Instant) -> Result<(), UpgradeError> {
        match self.receive(now)? {
            FromSuccessor::Ready { version } if self.ready.is_none() => {
                self.ready = Some(version);
                Ok(())
            }
            FromSuccessor::Refused { reason } => Err(UpgradeError::Refused(reason)),
            FromSuccessor::Ready { .. } | FromSuccessor::Restored => Err(UpgradeError::OutOfOrder),
        }
    }

    /// Gives the state and the sockets, waits until the successor has restored them, or until
    /// `deadline`, and lets it speak. After an error it never will.
    pub(crate) fn hand_over(
        &mut self,
        snapshot: &[u8],
        sockets: &Outgoing<'_>,
        deadline: Instant,
        before_go: impl FnOnce(u32),
    ) -> Result<(), UpgradeError> {
        let failed = |source| UpgradeError::Io {
            operation: "keep the snapshot in memory",
            source,
        };
        let memory = memory_file(snapshot).map_err(failed)?;
        let descriptors = sockets.as_slice();
        let state = ToSuccessor::State {
            descriptors: descriptors.len(),
        };
        let sent = self.channel.send(&state, &[memory.as_fd()]);
        let sent = sent.and_then(|()| {
            let message = ToSuccessor::Descriptors;
            self.channel.send_descriptors(&message, descriptors)
        });
        sent.map_err(|error| self.failed(error))?;
        match self.receive(deadline) {
            Ok(FromSuccessor::Restored) => {}
            Ok(FromSuccessor::Refused { reason }) => return Err(UpgradeError::Refused(reason)),
            Ok(FromSuccessor::Ready { .. }) => return Err(UpgradeError::OutOfOrder),
            Err(UpgradeError::Channel(silent @ ChannelError::Silent(_))) => {
                return Err(UpgradeError::TooLate(silent));
            }
            Err(error) => return Err(error),
        }
        before_go(self.pid());
        let sent = self.channel.send(&ToSuccessor::Go, &[]);
        sent.map_err(|error| self.failed(error))
    }

    fn receive(&mut self, deadline: Instant) -> Result<FromSuccessor, UpgradeError> {
        let received = self.channel.receive(deadline);
        let (message, _) = received.map_err(|error| self.failed(error))?;
        Ok(message)
    }

    /// An end of the channel is an end of the program, which says more.
    fn failed(&mut self, error: ChannelError) -> UpgradeError {
        match error {
            ChannelError::Gone => UpgradeError::Ended(self.ending()),
            error @ (ChannelError::Silent(_)
            | ChannelError::Garbage(_)
            | ChannelError::Io { .. }) => error.into(),
        }
    }

    /// How the program ended that has closed its end of the channel.
    fn ending(&mut self) -> String {
        wait_for_exit(self.pid());
        match self.successor.try_wait() {
            Ok(Some(status)) => status.to_string(),
            Ok(None) => "it still runs, and is ended".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    /// Ends the successor, which has not been told to speak and so has not spoken.
    pub(crate) fn abandon(mut self) {
        let pid = self.pid();
        if let Err(error) = self.successor.kill() {
            warn!(pid, %error, "cannot end the new program");
        }
        wait_for_exit(pid);
        match self.successor.try_wait() {
            Ok(Some(_)) => {}
            Ok(None) => warn!(pid, "the new program does not end (it waits for a disk?)"),
            Err(error) => warn!(pid, %error, "cannot look after the new program"),
        }
    }
}

/// Waits for the end of a process that is about to end, but not for long.
fn wait_for_exit(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let descriptor = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let (Some(descriptor), Ok(timeout)) = (descriptor, Timespec::try_from(ENDING)) else {
        return;
    };
    let mut descriptors = [PollFd::new(&descriptor, PollFlags::IN)];
    if let Err(error) = poll(&mut descriptors, Some(&timeout)) {
        warn!(%error, "cannot wait for the new program");
    }
}

/// A file of no file system, which takes a snapshot of any size without a reader.
fn memory_file(contents: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("isopath-snapshot", MemfdFlags::CLOEXEC)?);
    file.write_all(contents)?;
    Ok(file)
}

/// The other end: this process is to succeed the one that started it.
#[derive(Debug)]
pub(crate) struct Successor {
    channel: Channel,
}

impl Successor {
    /// By the channel that is the standard input.
    pub(crate) fn new() -> Result<Self, TakeOverError> {
        let channel = Channel::from_stdin().map_err(|source| TakeOverError::Io {
            operation: "use standard input as the channel to the running speaker",
            source,
        })?;
        Ok(Self { channel })
    }

    pub(crate) fn offer(&self) -> Result<Offer, TakeOverError> {
        match self.receive()? {
            (ToSuccessor::Offer(offer), _) => Ok(offer),
            (ToSuccessor::State { .. } | ToSuccessor::Descriptors | ToSuccessor::Go, _) => {
                Err(TakeOverError::OutOfOrder)
            }
        }
    }

    pub(crate) fn ready(&self) -> Result<(), TakeOverError> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(self.channel.send(&FromSuccessor::Ready { version }, &[])?)
    }

    /// The snapshot and the sockets.
    pub(crate) fn state(&self) -> Result<(Vec<u8>, Incoming), TakeOverError> {
        let (message, memory) = self.receive()?;
        let ToSuccessor::State { descriptors } = message else {
            return Err(TakeOverError::OutOfOrder);
        };
        let mut incoming = Incoming::default();
        while incoming.len() < descriptors {
            let (ToSuccessor::Descriptors, some) = self.receive()? else {
                return Err(TakeOverError::OutOfOrder);
            };
            if some.is_empty() {
                return Err(TakeOverError::OutOfOrder);
            }
            incoming.extend(some);
        }
        let memory = memory.into_iter().next().ok_or(TakeOverError::OutOfOrder)?;
        let failed = |source| TakeOverError::Io {
            operation: "read the snapshot",
            source,
        };
        Ok((read_memory_file(memory).map_err(failed)?, incoming))
    }

    /// Says that all is restored, and returns when it is time to speak.
    pub(crate) fn restored(&self) -> Result<(), TakeOverError> {
        self.channel.send(&FromSuccessor::Restored, &[])?;
        match self.receive()? {
            (ToSuccessor::Go, _) => Ok(()),
            (ToSuccessor::Offer(_) | ToSuccessor::State { .. } | ToSuccessor::Descriptors, _) => {
                Err(TakeOverError::OutOfOrder)
            }
        }
    }

    /// Says why it cannot be.
    pub(crate) fn refuse(&self, reason: &str) {
        let reason: String = reason.chars().take(MAX_REASON).collect();
        if let Err(error) = self.channel.send(&FromSuccessor::Refused { reason }, &[]) {
            warn!(%error, "cannot tell the running speaker why");
        }
    }

    fn receive(&self) -> Result<(ToSuccessor, Vec<OwnedFd>), TakeOverError> {
        Ok(self.channel.receive(Instant::now() + PREDECESSOR_TIMEOUT)?)
    }
}

/// Tells the speaker that started this process as its successor why it cannot be.
pub fn refuse_take_over(reason: &str) {
    match Successor::new() {
        Ok(successor) => successor.refuse(reason),
        Err(error) => warn!(error = causes(&error), "nobody to tell"),
    }
}

fn read_memory_file(memory: OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = File::from(memory);
    file.seek(SeekFrom::Start(0))?;
    let mut contents = Vec::new();
    file.read_to_end(&mut contents)?;
    Ok(contents)
}
