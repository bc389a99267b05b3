//! What long-lived connections are answered by: every byte comes back.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::real_server::RealServer;

use super::flows::ready;

/// A connection that was silent for so long has lost its client, who was told by a director and
/// could not tell the real server.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// How often the thread looks whether it is to end.
const PATIENCE_MS: i64 = 200;

/// A thread that answers for all real servers, in whose namespaces its sockets are: one thread,
/// so that the machine is there for those who carry the connections.
pub(super) struct Echo {
    enough: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Echo {
    pub(super) fn start(servers: &[RealServer], port: u16) -> Result<Self> {
        let mut sockets = Sockets::new()?;
        for server in servers {
            let listen = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
            let listener = server.namespace().enter(listen)?;
            let listener =
                listener.with_context(|| format!("listening on {port} in {}", server.name()))?;
            listener.set_nonblocking(true).context("listening")?;
            sockets.watch(Socket::Listener(listener))?;
        }
        let enough = Arc::new(AtomicBool::new(false));
        let ends = enough.clone();
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                sockets.serve()?;
            }
            Ok(())
        });
        Ok(Self {
            enough,
            thread: Some(thread),
        })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Ok(Err(error))) => eprintln!("isopath-lab: the echo ended: {error:#}"),
            Some(Err(_)) => eprintln!("isopath-lab: the echo panicked"),
            Some(Ok(Ok(()))) | None => {}
        }
    }
}

enum Socket {
    Listener(TcpListener),
    /// With the time of its last byte.
    Connection(TcpStream, Instant),
}

struct Sockets {
    epoll: OwnedFd,
    all: BTreeMap<u64, Socket>,
    next: u64,
}

impl Sockets {
    fn new() -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).context("making an epoll")?;
        Ok(Self {
            epoll,
            all: BTreeMap::new(),
            next: 0,
        })
    }

    fn watch(&mut self, socket: Socket) -> Result<()> {
        let number = self.next;
        self.next += 1;
        let source = match &socket {
            Socket::Listener(listener) => listener.as_fd(),
            Socket::Connection(stream, _) => stream.as_fd(),
        };
        epoll::add(
            &self.epoll,
            source,
            EventData::new_u64(number),
            EventFlags::IN,
        )
        .context("watching a socket")?;
        self.all.insert(number, socket);
        Ok(())
    }

    /// Serves what is ready. A connection that breaks is the client's to count.
    fn serve(&mut self) -> Result<()> {
        let ready = ready(&self.epoll, PATIENCE_MS)?;
        let now = Instant::now();
        for number in ready {
            let mut accepted = Vec::new();
            let goes_on = match self.all.get_mut(&number) {
                Some(Socket::Listener(listener)) => {
                    while let Ok((stream, _)) = listener.accept() {
                        accepted.push(stream);
                    }
                    true
                }
                Some(Socket::Connection(stream, last)) => {
                    *last = now;
                    echo(stream)
                }
                None => false,
            };
            if !goes_on {
                self.all.remove(&number);
            }
            if !accepted.is_empty() {
                self.all.retain(|_, socket| match socket {
                    Socket::Listener(_) => true,
                    Socket::Connection(_, last) => now.duration_since(*last) < FORGOTTEN,
                });
            }
            for stream in accepted {
                stream.set_nonblocking(true).context("accepting")?;
                stream.set_nodelay(true).context("accepting")?;
                self.watch(Socket::Connection(stream, now))?;
            }
        }
        Ok(())
    }
}

/// Sends back what has come; whether the connection goes on.
fn echo(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 256];
    match stream.read(&mut bytes) {
        Ok(0) => false,
        Ok(count) => stream.write_all(&bytes[..count]).is_ok(),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
