//! The connection to the speaker.
//!
//! One task owns it. It reads the speaker's status before it says anything, so that the
//! control loop knows what an earlier run of the agent had announced; it sends the announced
//! set whenever the control loop publishes another one, and a heartbeat whenever the control
//! loop publishes the same one again. So a control loop that hangs stops the heartbeats too,
//! and the speaker withdraws after `agent_hold`: a heartbeat of this task's own would keep
//! VIPs announced whose health nobody looks at any more.
//!
//! When the connection is lost the speaker keeps the set for `agent_hold`, and this task
//! connects again at once, then with growing delays.

mod process;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use isopath_api::declare::Announce;
use isopath_api::reason::Decision;
use isopath_api::speaker::{Announcement, MAX_LINE, Reply, Request, Status, Withheld};
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::sync::CancellationToken;

pub use process::{SpeakerProcess, program};

use crate::causes;

/// How long the speaker may take for an answer before the connection counts as dead. It is a
/// process of real-time priority on the same machine.
const REPLY_TIMEOUT: Duration = Duration::from_secs(3);

/// Delays between attempts to connect: the socket is local, so an attempt costs next to
/// nothing, and each one may be the one within `agent_hold`.
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_millis(500);

/// Requests without an answer at any one time. The control loop publishes a few times a
/// second at most, and an answer takes less than a millisecond.
const MAX_UNANSWERED: usize = 32;

/// What the control loop wants announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Every VIP to announce.
    pub set: Vec<Announcement>,
    /// Every VIP not to announce, and why.
    pub withheld: Vec<Withheld>,
}

impl From<&[Decision]> for Publication {
    fn from(decisions: &[Decision]) -> Self {
        let mut publication = Self {
            set: Vec::new(),
            withheld: Vec::new(),
        };
        for decision in decisions {
            let Decision {
                vip,
                announce,
                reason,
            } = decision;
            match announce {
                Some(Announce { kind, cost }) => publication.set.push(Announcement {
                    vip: *vip,
                    cost: *cost,
                    kind: *kind,
                }),
                None => publication.withheld.push(Withheld {
                    vip: *vip,
                    reason: reason.clone(),
                }),
            }
        }
        publication
    }
}

/// What the control loop learns from this task.
#[derive(Debug)]
pub enum SpeakerEvent {
    /// The first status of a new connection.
    Connected {
        /// The status, before anything was said to this speaker over this connection.
        status: Box<Status>,
        /// Whether the agent started this speaker and will stop it.
        ours: bool,
    },
    /// A later status.
    Changed(Box<Status>),
    /// The connection is lost or could not be made.
    Disconnected,
}

/// Why a connection ended.
#[derive(Debug, Error)]
pub enum LinkError {
    /// Nobody listens on the socket, or it cannot be reached.
    #[error("cannot reach the speaker on {}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Reading or writing failed.
    #[error("the connection to the speaker broke")]
    Broken(#[source] io::Error),
    /// The control loop has ended.
    #[error("the agent is stopping")]
    Stopping,
    /// The speaker closed the connection.
    #[error("the speaker closed the connection")]
    Closed,
    /// No answer.
    #[error("the speaker did not answer within {REPLY_TIMEOUT:?}")]
    Silent,
    /// The answer is not of this protocol.
    #[error("the speaker's answer cannot be understood")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer does not belong to the question.
    #[error("the speaker's answer does not belong to the question")]
    OutOfOrder,
}

/// One connection, either way.
struct Connection {
    lines: FramedRead<OwnedReadHalf, LinesCodec>,
    write: OwnedWriteHalf,
}

impl Connection {
    async fn open(path: &Path) -> Result<Self, LinkError> {
        let stream = UnixStream::connect(path).await;
        let (read, write) = stream
            .map_err(|source| LinkError::Unreachable {
                path: path.to_owned(),
                source,
            })?
            .into_split();
        let lines = FramedRead::new(read, LinesCodec::new_with_max_length(MAX_LINE));
        Ok(Self { lines, write })
    }

    async fn send(&mut self, request: &Request) -> Result<(), LinkError> {
        let mut line =
            serde_json::to_vec(request).map_err(|error| LinkError::Malformed(error.into()))?;
        line.push(b'\n');
        timeout(REPLY_TIMEOUT, self.write.write_all(&line))
            .await
            .map_err(|_| LinkError::Silent)?
            .map_err(LinkError::Broken)
    }

    /// The next line. Cancel-safe: a line that has come in part stays in the buffer.
    async fn receive(&mut self) -> Result<Reply, LinkError> {
        let line = match self.lines.next().await {
            None => return Err(LinkError::Closed),
            Some(Err(LinesCodecError::Io(error))) => return Err(LinkError::Broken(error)),
            Some(Err(error @ LinesCodecError::MaxLineLengthExceeded)) => {
                return Err(LinkError::Malformed(error.into()));
            }
            Some(Ok(line)) => line,
        };
        serde_json::from_str(&line).map_err(|error| LinkError::Malformed(error.into()))
    }
}

/// Asks the speaker one question over a connection of its own.
///
/// # Errors
/// The speaker cannot be reached or does not answer in time.
pub async fn ask(path: &Path, request: &Request) -> Result<Reply, LinkError> {
    let mut connection = Connection::open(path).await?;
    connection.send(request).await?;
    timeout(REPLY_TIMEOUT, connection.receive())
        .await
        .map_err(|_| LinkError::Silent)?
}

/// The task that owns the connection.
pub struct SpeakerLink {
    /// The speaker's socket.
    pub path: PathBuf,
    /// How long the speaker keeps the set without a word.
    pub hold: Duration,
    /// What to announce; nothing before the first decision.
    pub publications: watch::Receiver<Option<Publication>>,
    /// Where the speaker's status goes.
    pub events: mpsc::Sender<SpeakerEvent>,
    /// The speaker that the agent starts where none is running.
    pub process: SpeakerProcess,
    /// Ends the task; a speaker that the agent started ends with it.
    pub stop: CancellationToken,
}

impl SpeakerLink {
    /// Runs until it is stopped.
    pub async fn run(mut self) {
        let stop = self.stop.clone();
        let mut said = String::new();
        let mut retry = FIRST_RETRY;
        loop {
            let attempt = async {
                let connection = Connection::open(&self.path).await?;
                self.serve(connection, &mut retry).await
            };
            // Dropping the attempt at any point only loses a connection that is given up anyway.
            let error = tokio::select! {
                () = stop.cancelled() => break,
                Err(error) = attempt => error,
            };
            if matches!(error, LinkError::Stopping) {
                break;
            }
            let text = causes(&error);
            if text != said {
                tracing::warn!(error = text, "no connection to the speaker");
                said = text;
            }
            if self.events.send(SpeakerEvent::Disconnected).await.is_err() {
                break;
            }
            // A speaker that closed the connection may have been upgraded: then the next attempt
            // finds its successor on the same socket.
            if matches!(error, LinkError::Unreachable { .. }) && self.process.ensure(Instant::now())
            {
                retry = FIRST_RETRY;
            }
            // A sleep holds nothing that could be lost.
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(retry.mul_f64(0.5 + 0.5 * fastrand::f64())) => {}
            }
            retry = (retry * 2).min(LAST_RETRY);
        }
        self.process.stop().await;
    }

    /// Serves one connection until it breaks.
    async fn serve(
        &mut self,
        connection: Connection,
        retry: &mut Duration,
    ) -> Result<std::convert::Infallible, LinkError> {
        let mut session = Session {
            connection,
            hold_ms: u64::try_from(self.hold.as_millis()).unwrap_or(u64::MAX),
            unanswered: VecDeque::new(),
            announced: None,
            refusal: String::new(),
        };
        let status = session.first_status().await?;
        let ours = self.process.connected(status.pid, status.origin_pid);
        tracing::info!(
            pid = status.pid,
            version = status.version,
            ours,
            "connected to the speaker"
        );
        *retry = FIRST_RETRY;
        self.tell(SpeakerEvent::Connected { status, ours }).await?;
        session
            .request(Asked::Subscribe, &Request::Subscribe)
            .await?;
        // What was published while there was no connection is new to this one.
        self.publications.mark_changed();
        loop {
            // Each arm is cancel-safe: `receive` keeps a partial line, `changed` marks the
            // value as seen only when it completes, and a sleep holds nothing.
            tokio::select! {
                reply = session.connection.receive() => {
                    if let Some(status) = session.take(reply?)? {
                        self.tell(SpeakerEvent::Changed(status)).await?;
                    }
                }
                changed = self.publications.changed() => {
                    changed.map_err(|_| LinkError::Stopping)?;
                    let publication = self.publications.borrow_and_update().clone();
                    if let Some(publication) = publication {
                        session.publish(publication).await?;
                    }
                }
                () = overdue(&session.unanswered) => return Err(LinkError::Silent),
            }
        }
    }

    async fn tell(&self, event: SpeakerEvent) -> Result<(), LinkError> {
        let sent = self.events.send(event).await;
        sent.map_err(|_| LinkError::Stopping)
    }
}

/// What a request without an answer yet was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Status,
    Subscribe,
    Announce,
    Heartbeat,
}

/// The state of one connection.
struct Session {
    connection: Connection,
    hold_ms: u64,
    /// The speaker answers in order.
    unanswered: VecDeque<(Asked, Instant)>,
    /// What this connection announced last; nothing before, and after a refusal.
    announced: Option<Publication>,
    /// The last refusal, which is logged once.
    refusal: String,
}

impl Session {
    async fn first_status(&mut self) -> Result<Box<Status>, LinkError> {
        self.request(Asked::Status, &Request::Status).await?;
        let reply = timeout(REPLY_TIMEOUT, self.connection.receive())
            .await
            .map_err(|_| LinkError::Silent)??;
        self.take(reply)?.ok_or(LinkError::OutOfOrder)
    }

    async fn request(&mut self, asked: Asked, request: &Request) -> Result<(), LinkError> {
        if self.unanswered.len() >= MAX_UNANSWERED {
            return Err(LinkError::Silent);
        }
        self.connection.send(request).await?;
        self.unanswered.push_back((asked, Instant::now()));
        Ok(())
    }

    /// Says what is published: the whole set when it is new to the speaker.
    async fn publish(&mut self, publication: Publication) -> Result<(), LinkError> {
        if self.announced.as_ref() == Some(&publication) {
            return self.request(Asked::Heartbeat, &Request::Heartbeat).await;
        }
        let request = Request::Announce {
            set: publication.set.clone(),
            withheld: publication.withheld.clone(),
            hold_ms: self.hold_ms,
        };
        self.request(Asked::Announce, &request).await?;
        self.announced = Some(publication);
        Ok(())
    }

    /// Takes a reply; answers the status it carries.
    fn take(&mut self, reply: Reply) -> Result<Option<Box<Status>>, LinkError> {
        if let Reply::Changed(status) = reply {
            return Ok(Some(status));
        }
        let (asked, _) = self.unanswered.pop_front().ok_or(LinkError::OutOfOrder)?;
        match (asked, reply) {
            (Asked::Status | Asked::Subscribe, Reply::Status(status)) => Ok(Some(status)),
            (Asked::Announce | Asked::Heartbeat, Reply::Ok) => {
                self.refusal.clear();
                Ok(None)
            }
            (_, Reply::Error { message }) => {
                // The next publication says the whole set again.
                self.announced = None;
                if message != self.refusal {
                    tracing::error!(?asked, message, "the speaker refused");
                    self.refusal = message;
                }
                Ok(None)
            }
            (
                Asked::Status | Asked::Subscribe | Asked::Announce | Asked::Heartbeat,
                Reply::Ok
                | Reply::Status(_)
                | Reply::Changed(_)
                | Reply::Neighbors { .. }
                | Reply::Lsdb { .. }
                | Reply::Paths(_)
                | Reply::Upgraded(_),
            ) => Err(LinkError::OutOfOrder),
        }
    }
}

/// Returns when an answer is overdue.
async fn overdue(unanswered: &VecDeque<(Asked, Instant)>) {
    match unanswered.front() {
        Some((_, since)) => sleep_until(*since + REPLY_TIMEOUT).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
