//! The Unix socket: connections, their bounds, and nothing of what is said on them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};

use isopath_api::speaker::{Reply, Request};
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::fs::Mode;
use tracing::{debug, info, warn};

use crate::line::{LineReader, parse_request, write_reply};
use crate::wanted::ClientId;

#[cfg(test)]
mod tests;

/// Agent, operator's commands, scripts: more at once is a leak in one of them.
const MOST_CLIENTS: usize = 32;

/// A client that lets this many bytes pile up does not read, and is disconnected. It holds the
/// largest reply (the database of a large area) twice.
const MOST_OUTPUT: usize = 16 << 20;

/// How much is read from one client before others have their turn.
const READ_PER_TURN: usize = 256 << 10;

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another speaker answers on it.
    #[error("another speaker answers on {}", path.display())]
    InUse {
        /// The socket's path.
        path: PathBuf,
    },
    /// Something else than a socket has the path.
    #[error("{} exists and is not a socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On this path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The listening socket and its connections.
#[derive(Debug)]
pub struct Control {
    /// The socket's file, while it is ours to remove.
    path: Option<PathBuf>,
    listener: UnixListener,
    clients: BTreeMap<ClientId, Client>,
    next: usize,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    pid: u32,
    is_root: bool,
    lines: LineReader,
    output: Vec<u8>,
    subscribed: bool,
    phase: Phase,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Both sides speak.
    Open,
    /// The client has said its last word, or one too long; it still gets its replies.
    Draining,
    /// Nothing more is possible.
    Over,
}

/// What reading a client brought.
#[derive(Debug, Default)]
pub struct Received {
    /// Requests in order, or the reply to a line that is none.
    pub requests: Vec<Result<Request, Reply>>,
    /// There is more to read; come back after the others.
    pub more: bool,
}

impl Control {
    /// Creates the socket file (mode 0660) and listens. A stale file is removed, but only when
    /// nobody answers on it.
    ///
    /// # Errors
    /// When another speaker answers or the file cannot be made.
    pub fn listen(path: &Path, registry: &Registry, token: Token) -> Result<Self, ControlError> {
        let failed = |operation| {
            move |source| ControlError::Io {
                operation,
                path: path.to_owned(),
                source,
            }
        };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed("create the directory of"))?;
        }
        remove_stale(path)?;
        // The mode must be right from the first moment on, so it is not set afterwards.
        let umask = rustix::process::umask(Mode::from_raw_mode(0o117));
        let bound = UnixListener::bind(path);
        rustix::process::umask(umask);
        let mut listener = bound.map_err(failed("listen on"))?;
        registry
            .register(&mut listener, token, Interest::READABLE)
            .map_err(failed("watch"))?;
        Ok(Self {
            path: Some(path.to_owned()),
            listener,
            clients: BTreeMap::new(),
            next: 0,
        })
    }

    /// Goes on listening on a socket that another process has opened.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub(crate) fn adopt(listener: OwnedFd, registry: &Registry, token: Token) -> io::Result<Self> {
        let mut listener = UnixListener::from_std(StdUnixListener::from(listener));
        registry.register(&mut listener, token, Interest::READABLE)?;
        Ok(Self {
            path: None,
            listener,
            clients: BTreeMap::new(),
            next: 0,
        })
    }

    /// The listening socket.
    pub(crate) fn listener(&self) -> &impl AsFd {
        &self.listener
    }

    /// The socket's file is ours from now on, and goes when we stop.
    pub(crate) fn own(&mut self, path: &Path) {
        self.path = Some(path.to_owned());
    }

    /// Leaves the socket's file to the process that listens on it from now on.
    pub(crate) fn leave(mut self) {
        self.path = None;
    }

    /// Accepts every waiting connection of root or our own user.
    pub fn accept(&mut self, registry: &Registry, token: impl Fn(ClientId) -> Token) {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    warn!(%error, "cannot accept a control connection");
                    return;
                }
            };
            let (pid, is_root) = match admitted(&stream) {
                Ok(peer) if self.clients.len() < MOST_CLIENTS => peer,
                Ok((pid, _)) => {
                    let message = format!("{MOST_CLIENTS} connections are open already");
                    warn!(pid, "control connection refused: {message}");
                    refuse(&mut stream, message);
                    continue;
                }
                Err(message) => {
                    warn!("control connection refused: {message}");
                    refuse(&mut stream, message);
                    continue;
                }
            };
            let id = ClientId(self.next);
            self.next += 1;
            let interest = Interest::READABLE | Interest::WRITABLE;
            if let Err(error) = registry.register(&mut stream, token(id), interest) {
                warn!(%error, "cannot watch a control connection");
                continue;
            }
            debug!(pid, client = id.0, "control connection opened");
            let client = Client {
                stream,
                pid,
                is_root,
                lines: LineReader::default(),
                output: Vec::new(),
                subscribed: false,
                phase: Phase::Open,
            };
            self.clients.insert(id, client);
        }
    }

    /// Reads what a client sent, up to a bound.
    pub fn receive(&mut self, id: ClientId) -> Received {
        let mut received = Received::default();
        if let Some(client) = self.clients.get_mut(&id) {
            client.receive(&mut received);
        }
        received
    }

    /// Whether a reply can still reach the client.
    pub fn is_listening(&self, id: ClientId) -> bool {
        let client = self.clients.get(&id);
        client.is_some_and(|client| client.phase != Phase::Over)
    }

    /// The process id of a client.
    pub fn pid(&self, id: ClientId) -> u32 {
        self.clients.get(&id).map_or(0, |client| client.pid)
    }

    /// Whether a client is root.
    pub(crate) fn is_root(&self, id: ClientId) -> bool {
        self.clients.get(&id).is_some_and(|client| client.is_root)
    }

    /// Sends a reply, or as much of it as the client takes now.
    pub fn reply(&mut self, id: ClientId, reply: &Reply) {
        if let Some(client) = self.clients.get_mut(&id) {
            write_reply(&mut client.output, reply);
            client.flush();
        }
    }

    /// A client can take more.
    pub fn flush(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.flush();
        }
    }

    /// The client wants to hear of changes.
    pub fn subscribe(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.subscribed = true;
        }
    }

    /// Whether anybody wants to hear of changes.
    pub fn has_subscribers(&self) -> bool {
        self.clients.values().any(|client| client.subscribed)
    }

    /// Tells the subscribers. One that has not read the last change yet is left out, so that a
    /// slow reader gets fewer changes and never a stale queue of them; whether that happened.
    pub fn publish(&mut self, change: &Reply) -> bool {
        let mut line = Vec::new();
        let mut left_out = false;
        for client in self.clients.values_mut() {
            if !client.subscribed {
                continue;
            }
            if !client.output.is_empty() {
                left_out = true;
                continue;
            }
            if line.is_empty() {
                write_reply(&mut line, change);
            }
            client.output.extend_from_slice(&line);
            client.flush();
        }
        left_out
    }

    /// Drops the connections that are over; who they were.
    pub fn sweep(&mut self, registry: &Registry) -> Vec<ClientId> {
        let over = |(id, client): (&ClientId, &Client)| client.is_over().then_some(*id);
        let gone: Vec<ClientId> = self.clients.iter().filter_map(over).collect();
        for id in &gone {
            if let Some(mut client) = self.clients.remove(id) {
                debug!(pid = client.pid, client = id.0, "control connection closed");
                if let Err(error) = registry.deregister(&mut client.stream) {
                    debug!(%error, "control connection was not watched");
                }
            }
        }
        gone
    }
}

impl Drop for Control {
    /// Removes the socket file, so that nobody waits on it.
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(error) = fs::remove_file(path)
        {
            info!(path = %path.display(), %error, "cannot remove the control socket");
        }
    }
}

impl Client {
    fn is_over(&self) -> bool {
        match self.phase {
            Phase::Open => false,
            Phase::Draining => self.output.is_empty(),
            Phase::Over => true,
        }
    }

    fn receive(&mut self, received: &mut Received) {
        let mut chunk = [0; 16 << 10];
        let mut total = 0;
        while self.phase == Phase::Open {
            if total >= READ_PER_TURN {
                received.more = true;
                break;
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => self.phase = Phase::Draining,
                Ok(length) => {
                    total += length;
                    let bytes = chunk.get(..length).unwrap_or_default();
                    if let Err(error) = self.lines.push(bytes) {
                        let message = error.to_string();
                        received.requests.push(Err(Reply::Error { message }));
                        self.phase = Phase::Draining;
                        break;
                    }
                    let lines = std::iter::from_fn(|| self.lines.next_line());
                    let requests = lines.map(|line| parse_request(&line));
                    received.requests.extend(requests);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    debug!(pid = self.pid, %error, "control connection broke");
                    self.phase = Phase::Over;
                }
            }
        }
    }

    fn flush(&mut self) {
        let mut written = 0;
        while let Some(rest) = self.output.get(written..)
            && !rest.is_empty()
        {
            match self.stream.write(rest) {
                Ok(length) => written += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    debug!(pid = self.pid, %error, "control connection broke");
                    self.phase = Phase::Over;
                    return;
                }
            }
        }
        if written == self.output.len() {
            self.output = Vec::new();
        } else {
            self.output.drain(..written);
        }
        if self.output.len() > MOST_OUTPUT {
            warn!(pid = self.pid, "control client does not read, disconnected");
            self.phase = Phase::Over;
        }
    }
}

/// Removes a socket file that nobody serves.
fn remove_stale(path: &Path) -> Result<(), ControlError> {
    let failed = |operation| {
        move |source| ControlError::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at")(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ControlError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
    }
    match StdUnixStream::connect(path) {
        Ok(_) => Err(ControlError::InUse {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("remove the stale socket"))
        }
        Err(error) => Err(failed("probe")(error)),
    }
}

/// The process id of a peer that may speak to us and whether it is root, or why it may not.
fn admitted(stream: &UnixStream) -> Result<(u32, bool), String> {
    let credentials = getsockopt(stream, PeerCredentials)
        .map_err(|error| format!("cannot read the peer's credentials: {error}"))?;
    let ours = rustix::process::geteuid().as_raw();
    let theirs = credentials.uid();
    if theirs != 0 && theirs != ours {
        return Err(format!("user {theirs} is neither root nor {ours}"));
    }
    // The kernel says 0 for a process of another PID namespace.
    Ok((u32::try_from(credentials.pid()).unwrap_or(0), theirs == 0))
}

/// Tells a peer why it is not served, if it happens to listen.
fn refuse(stream: &mut UnixStream, message: String) {
    let mut line = Vec::new();
    write_reply(&mut line, &Reply::Error { message });
    if let Err(error) = stream.write(&line) {
        debug!(%error, "refused control connection is gone already");
    }
}
