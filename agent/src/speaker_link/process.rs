//! The speaker that the agent starts where none is running.
//!
//! It gets a process group of its own and no signal when the agent dies: an agent that is
//! killed leaves the routes as they are, and its successor finds the speaker by the process
//! id in the state directory and takes it on. Where somebody else runs the speaker (a unit of
//! its own), the agent never starts and never stops one.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// How long another speaker may take to appear on the socket before one is started: units
/// that start together come up in any order.
const GRACE: Duration = Duration::from_secs(1);

/// Delays between starts of a speaker that dies.
const FIRST_RESTART: Duration = Duration::from_millis(200);
const LAST_RESTART: Duration = Duration::from_secs(30);

/// A speaker that lived this long did not die of its start.
const SETTLED: Duration = Duration::from_secs(60);

/// How long a speaker may take to stop: it withdraws, waits for the switch's acknowledgement
/// and flushes its LSA a MinLSArrival later.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a stopping speaker that is no child is looked at.
const POLL: Duration = Duration::from_millis(20);

/// The speaker's process, as far as it is the agent's concern.
pub struct SpeakerProcess {
    /// Nothing: the agent starts none.
    command: Option<SpeakerCommand>,
    state: State,
    next_start: Instant,
    delay: Duration,
}

struct SpeakerCommand {
    program: PathBuf,
    config: PathBuf,
    pid_file: PathBuf,
}

enum State {
    /// No speaker was seen yet, and none started.
    Unseen,
    /// Somebody else runs it.
    Foreign,
    /// This process started it.
    Child { child: Box<Child>, since: Instant },
    /// An earlier run of the agent started it.
    Adopted(Adopted),
}

/// A process that is no child of this one, by a descriptor that becomes readable when it ends:
/// the process id alone would still be there until its parent has waited for it.
struct Adopted(OwnedFd);

impl Adopted {
    fn new(pid: Pid) -> io::Result<Self> {
        Ok(Self(pidfd_open(pid, PidfdFlags::empty())?))
    }

    fn has_ended(&self) -> bool {
        let mut descriptors = [PollFd::new(&self.0, PollFlags::IN)];
        // Without a timeout nothing is waited for, so only nonsense could fail.
        poll(&mut descriptors, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    async fn ended(&self) {
        while !self.has_ended() {
            sleep(POLL).await;
        }
    }

    fn terminate(&self) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.0, Signal::TERM)?)
    }
}

impl SpeakerProcess {
    /// Starts `program` with the file `config` where no speaker answers; `state_dir` remembers
    /// it.
    pub fn new(program: PathBuf, config: &Path, state_dir: &Path, now: Instant) -> Self {
        let command = SpeakerCommand {
            program,
            config: config.to_owned(),
            pid_file: state_dir.join("speaker.pid"),
        };
        Self {
            command: Some(command),
            state: State::Unseen,
            next_start: now + GRACE,
            delay: FIRST_RESTART,
        }
    }

    /// Never starts or stops a speaker.
    pub fn foreign(now: Instant) -> Self {
        Self {
            command: None,
            state: State::Foreign,
            next_start: now,
            delay: FIRST_RESTART,
        }
    }

    /// A speaker with this process id answered on the socket: whether it is the agent's own.
    /// After an upgrade it is no child of the agent's, but still the speaker that was started
    /// as process `origin`.
    pub(super) fn connected(&mut self, pid: u32, origin: u32) -> bool {
        let id = |pid: u32| i32::try_from(pid).ok().and_then(Pid::from_raw);
        let (pid, origin) = (id(pid), id(origin).or(id(pid)));
        let child = match &self.state {
            State::Child { child, .. } => child.id().and_then(id),
            State::Unseen | State::Foreign | State::Adopted(_) => None,
        };
        if child.is_some() && child == pid {
            return true;
        }
        let remembered = self.command.as_ref().and_then(SpeakerCommand::remembered);
        let is_ours = origin.is_some() && (origin == remembered || origin == child);
        self.state = match pid.filter(|_| is_ours) {
            None => State::Foreign,
            Some(pid) => match Adopted::new(pid) {
                Ok(adopted) => State::Adopted(adopted),
                Err(error) => {
                    tracing::error!(%error, "cannot take the speaker on");
                    State::Foreign
                }
            },
        };
        matches!(self.state, State::Adopted(_))
    }

    /// Nobody answers on the socket: starts a speaker when it is time for that; answers whether
    /// it did.
    pub(super) fn ensure(&mut self, now: Instant) -> bool {
        let Some(command) = &self.command else {
            return false;
        };
        let lived = match &mut self.state {
            State::Foreign => return false,
            State::Unseen => None,
            State::Child { child, since } => match child.try_wait() {
                Ok(None) => return false,
                Ok(Some(status)) => {
                    tracing::error!(%status, "the speaker ended");
                    Some(now - *since)
                }
                Err(error) => {
                    tracing::error!(%error, "cannot look after the speaker");
                    return false;
                }
            },
            State::Adopted(adopted) if !adopted.has_ended() => return false,
            State::Adopted(_) => {
                tracing::error!("the speaker ended");
                Some(SETTLED)
            }
        };
        if let Some(lived) = lived {
            self.state = State::Unseen;
            if lived >= SETTLED {
                self.delay = FIRST_RESTART;
            }
            self.put_off(now);
        } else if now >= self.next_start {
            match command.start() {
                Ok(child) => {
                    let child = Box::new(child);
                    self.state = State::Child { child, since: now };
                    return true;
                }
                Err(error) => {
                    tracing::error!(%error, "cannot start a speaker");
                    self.put_off(now);
                }
            }
        }
        false
    }

    /// The next start comes after a delay, and the one after that after twice the delay.
    fn put_off(&mut self, now: Instant) {
        self.next_start = now + self.delay;
        self.delay = (self.delay * 2).min(LAST_RESTART);
    }

    /// Asks the agent's own speaker to stop, which withdraws everything, and waits for it.
    pub(super) async fn stop(self) {
        let Some(command) = self.command else {
            return;
        };
        let (asked, ended) = match self.state {
            State::Unseen | State::Foreign => return,
            State::Child { mut child, .. } => {
                let pid = child
                    .id()
                    .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
                let asked = pid.map(|pid| kill_process(pid, Signal::TERM));
                let asked = asked.transpose().map_err(io::Error::from);
                let ended = timeout(STOP_TIMEOUT, child.wait()).await;
                (asked.map(drop), ended.map(|status| status.map(drop)))
            }
            State::Adopted(adopted) => {
                let asked = adopted.terminate();
                let ended = timeout(STOP_TIMEOUT, adopted.ended()).await;
                (asked, ended.map(Ok))
            }
        };
        if let Err(error) = asked {
            tracing::warn!(%error, "cannot signal the speaker");
        }
        let gone = matches!(ended, Ok(Ok(())));
        if gone {
            command.forget();
        } else {
            tracing::error!("the speaker did not stop within {STOP_TIMEOUT:?} and is left alone");
        }
    }
}

impl SpeakerCommand {
    fn start(&self) -> io::Result<Child> {
        let child = Command::new(&self.program)
            .arg("run")
            .arg("--config")
            .arg(&self.config)
            .arg("--wait-for-agent")
            .stdin(Stdio::null())
            // A signal to the agent's group, such as Ctrl-C on a terminal, is not for it.
            .process_group(0)
            .kill_on_drop(false)
            .spawn()?;
        let program = self.program.display();
        tracing::info!(pid = child.id(), %program, "started a speaker");
        if let Some(pid) = child.id()
            && let Err(error) = std::fs::write(&self.pid_file, format!("{pid}\n"))
        {
            tracing::warn!(
                %error,
                file = %self.pid_file.display(),
                "a later agent will not know this speaker for its own"
            );
        }
        Ok(child)
    }

    /// The process id of the speaker that an agent started last.
    fn remembered(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(&self.pid_file).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    fn forget(&self) {
        if let Err(error) = std::fs::remove_file(&self.pid_file) {
            tracing::warn!(%error, file = %self.pid_file.display(), "cannot remove the file");
        }
    }
}

/// `isopath-speaker` beside this executable; else by the search path.
pub fn program() -> PathBuf {
    let name = Path::new("isopath-speaker");
    std::env::current_exe()
        .ok()
        .and_then(|own| own.parent().map(|directory| directory.join(name)))
        .filter(|beside| beside.is_file())
        .unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests;
