//! The agent's Unix socket, for the operator's command.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use isopath_api::agent::{Reply, Request};
use isopath_api::speaker;
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LinesCodec};

use crate::causes;
use crate::controller_link::SnapshotRequest;
use crate::overrides::OverrideRequest;
use crate::speaker_link;

/// The longest request. The longest that makes sense is an override with some words.
const MAX_REQUEST: usize = 64 << 10;

/// Operators and scripts at the same time; more is a leak in one of them.
const MAX_CONNECTIONS: usize = 32;

/// How long a client may take to read a reply.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long another agent may take to say who it is.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the socket cannot be served.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Another agent answers on it.
    #[error("another agent answers on {}: {who}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
        /// What that agent says about itself.
        who: String,
    },
    /// The operating system refused.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// The operation.
        what: &'static str,
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where the answers come from.
#[derive(Clone)]
pub struct Sources {
    /// Asks the control loop for a report.
    pub snapshots: mpsc::Sender<SnapshotRequest>,
    /// Takes overrides to their owner.
    pub overrides: mpsc::Sender<OverrideRequest>,
    /// The speaker's socket, for what only it knows.
    pub speaker_socket: PathBuf,
}

/// The listening socket; its file goes with it.
pub struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "cannot remove the socket");
        }
    }
}

impl Socket {
    /// Listens, with mode 0660. A file that nobody answers on is left from a crash and removed.
    ///
    /// # Errors
    /// [`SocketError::InUse`] names the agent that answers.
    pub async fn listen(path: &Path) -> Result<Self, SocketError> {
        let failed = |what| {
            move |source| SocketError::Io {
                what,
                path: path.to_owned(),
                source,
            }
        };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(failed("make the directory of"))?;
        }
        match UnixStream::connect(path).await {
            Ok(stream) => {
                return Err(SocketError::InUse {
                    path: path.to_owned(),
                    who: who(stream).await,
                });
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(failed("remove the stale socket"))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("probe")(error)),
        }
        let listener = UnixListener::bind(path).map_err(failed("listen on"))?;
        // Peers are let in by their credentials; the mode only says so beforehand.
        let mode = std::fs::Permissions::from_mode(0o660);
        std::fs::set_permissions(path, mode).map_err(failed("set the mode of"))?;
        Ok(Self {
            path: path.to_owned(),
            listener,
        })
    }

    /// Serves until it is dropped.
    pub async fn serve(self, sources: Sources) {
        let mut connections = JoinSet::new();
        loop {
            // Both arms are cancel-safe: a connection that is not accepted waits in the
            // kernel, a task that is not joined stays in the set.
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let room = connections.len() < MAX_CONNECTIONS;
                        connections.spawn(serve(stream, sources.clone(), room));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept on the agent's socket");
                        // Out of descriptors, most likely: others must end first.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// What another agent says about itself.
async fn who(stream: UnixStream) -> String {
    let (read, mut write) = stream.into_split();
    let ask = async {
        send(&mut write, &Request::Status).await.ok()?;
        let codec = LinesCodec::new_with_max_length(speaker::MAX_LINE);
        let line = FramedRead::new(read, codec).next().await?.ok()?;
        match serde_json::from_str(&line).ok()? {
            Reply::Status(observed) => Some(format!(
                "director {} ({}), instance {}",
                observed.director, observed.router_id, observed.instance
            )),
            Reply::Ok
            | Reply::Error { .. }
            | Reply::Neighbors { .. }
            | Reply::Lsdb { .. }
            | Reply::Paths(_) => None,
        }
    };
    let said = timeout(PROBE_TIMEOUT, ask).await.ok().flatten();
    said.unwrap_or_else(|| "it does not say which".to_owned())
}

async fn serve(stream: UnixStream, sources: Sources, room: bool) {
    let refusal = match stream.peer_cred() {
        Ok(peer) => refusal(peer.uid(), room),
        Err(error) => Some(format!("cannot read the peer's credentials: {error}")),
    };
    let (read, mut write) = stream.into_split();
    if let Some(message) = refusal {
        tracing::warn!(message, "refused a connection to the agent's socket");
        reply(&mut write, &Reply::Error { message }).await;
        return;
    }
    let codec = LinesCodec::new_with_max_length(MAX_REQUEST);
    let mut lines = FramedRead::new(read, codec);
    while let Some(line) = lines.next().await {
        let answer = match line {
            Ok(line) => match serde_json::from_str(&line) {
                Ok(request) => sources.answer(request).await,
                Err(error) => Reply::Error {
                    message: format!("expected a request as one JSON object a line: {error}"),
                },
            },
            Err(error) => {
                let message = format!("expected lines of at most {MAX_REQUEST} bytes: {error}");
                reply(&mut write, &Reply::Error { message }).await;
                return;
            }
        };
        if !reply(&mut write, &answer).await {
            return;
        }
    }
}

/// Why a peer is not served: only root and the agent's own user are.
fn refusal(peer: u32, room: bool) -> Option<String> {
    let own = rustix::process::geteuid().as_raw();
    if peer != 0 && peer != own {
        return Some(format!("user {peer} is neither root nor {own}"));
    }
    (!room).then(|| format!("{MAX_CONNECTIONS} connections are open already"))
}

/// Writes a reply; answers whether the client is still there.
async fn reply(write: &mut OwnedWriteHalf, reply: &Reply) -> bool {
    match timeout(WRITE_TIMEOUT, send(write, reply)).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a client of the agent's socket is gone");
            false
        }
        Err(_) => {
            tracing::debug!("a client of the agent's socket does not read");
            false
        }
    }
}

async fn send(write: &mut OwnedWriteHalf, message: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    write.write_all(&line).await
}

impl Sources {
    async fn answer(&self, request: Request) -> Reply {
        match request {
            Request::Status => self.status().await,
            Request::Neighbors => self.ask_speaker(&speaker::Request::Neighbors).await,
            Request::Lsdb => self.ask_speaker(&speaker::Request::Lsdb).await,
            Request::Paths { host } => {
                let request = speaker::Request::Paths { host };
                self.ask_speaker(&request).await
            }
            Request::Override { vip, action, text } => {
                let (reply, outcome) = oneshot::channel();
                let request = OverrideRequest {
                    vip,
                    action,
                    text,
                    reply,
                };
                if self.overrides.send(request).await.is_err() {
                    return stopping();
                }
                match outcome.await {
                    Ok(Ok(())) => Reply::Ok,
                    Ok(Err(error)) => Reply::Error {
                        message: causes(&error),
                    },
                    Err(_) => stopping(),
                }
            }
        }
    }

    async fn status(&self) -> Reply {
        let (sender, receiver) = oneshot::channel();
        if self.snapshots.send(sender).await.is_err() {
            return stopping();
        }
        receiver.await.map_or_else(|_| stopping(), Reply::Status)
    }

    async fn ask_speaker(&self, request: &speaker::Request) -> Reply {
        match speaker_link::ask(&self.speaker_socket, request).await {
            Ok(speaker::Reply::Neighbors {
                neighbors,
                interfaces,
            }) => Reply::Neighbors {
                neighbors,
                interfaces,
            },
            Ok(speaker::Reply::Lsdb { lsas }) => Reply::Lsdb { lsas },
            Ok(speaker::Reply::Paths(paths)) => Reply::Paths(paths),
            Ok(speaker::Reply::Error { message }) => Reply::Error {
                message: format!("the speaker refused: {message}"),
            },
            Ok(
                speaker::Reply::Ok
                | speaker::Reply::Status(_)
                | speaker::Reply::Changed(_)
                | speaker::Reply::Upgraded(_),
            ) => Reply::Error {
                message: "the speaker gave another answer than was asked for".to_owned(),
            },
            Err(error) => Reply::Error {
                message: causes(&error),
            },
        }
    }
}

fn stopping() -> Reply {
    Reply::Error {
        message: "the agent is stopping".to_owned(),
    }
}

#[cfg(test)]
mod tests;
