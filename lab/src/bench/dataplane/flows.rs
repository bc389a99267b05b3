//! Long-lived connections, each with a byte every 100 ms that must come back.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use crate::netns::Namespace;
use crate::wait::scaled;

/// Each connection sends at every tenth tick, a tenth of them at each.
const TICK: Duration = Duration::from_millis(10);
const TICKS_PER_BYTE: usize = 10;

/// From the moment at which the network has converged, as the switch sees it, until a byte that
/// was sent after that must be back. TCP waits up to 6.4 s between two retransmissions after an
/// outage of that length.
pub(super) const SILENCE: Duration = Duration::from_secs(20);

/// How long connections may take to open and to carry their first byte.
const OPENING: Duration = Duration::from_secs(15);

/// The connections of one client. They live on the thread that calls: nothing is sent between
/// two calls.
pub(super) struct Flows {
    client: Namespace,
    server: SocketAddrV4,
    epoll: OwnedFd,
    /// One slot for each that there must be.
    flows: Vec<Option<Flow>>,
    /// How those broke that have since [`Self::fill`].
    broken: BTreeMap<&'static str, usize>,
    ticks: usize,
    next_tick: Instant,
    /// Bytes that came back.
    echoed: u64,
}

struct Flow {
    stream: TcpStream,
    sent: u64,
    received: u64,
    /// The connection lives when more bytes than this have come back.
    mark: u64,
}

impl Flows {
    pub(super) fn new(client: &Namespace, server: SocketAddrV4, count: usize) -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).context("making an epoll")?;
        Ok(Self {
            client: client.clone(),
            server,
            epoll,
            flows: std::iter::repeat_with(|| None).take(count).collect(),
            broken: BTreeMap::new(),
            ticks: 0,
            next_tick: Instant::now(),
            echoed: 0,
        })
    }

    /// Opens what is missing, until each connection has carried a byte both ways, and forgets
    /// what broke before.
    pub(super) fn fill(&mut self) -> Result<()> {
        let deadline = Instant::now() + scaled(OPENING);
        loop {
            self.open()?;
            self.mark();
            let all_live = self.pump(deadline, |flows| {
                flows.waiting() == 0 || flows.missing() > 0
            })?;
            if all_live && self.missing() == 0 {
                self.broken.clear();
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!(
                    "of {} connections {} could not be opened ({:?}) and {} carry nothing",
                    self.flows.len(),
                    self.missing(),
                    self.broken,
                    self.waiting()
                );
            }
        }
    }

    /// Lets the connections work while something happens.
    pub(super) fn during<T: Send>(
        &mut self,
        happen: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        std::thread::scope(|scope| {
            let happening = scope.spawn(happen);
            while !happening.is_finished() {
                self.tick()?;
            }
            happening
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Waits until each connection has broken or has got a byte back that it sends from now on;
    /// how many have broken since they were filled, and how.
    pub(super) fn settle(&mut self) -> Result<BTreeMap<&'static str, usize>> {
        self.mark();
        self.pump(Instant::now() + SILENCE, |flows| flows.waiting() == 0)?;
        for slot in 0..self.flows.len() {
            let silent = |flow: &Flow| flow.received <= flow.mark;
            if self.flows[slot].as_ref().is_some_and(silent) {
                self.end(slot, "silent");
            }
        }
        Ok(self.broken.clone())
    }

    /// Bytes that have come back so far.
    pub(super) fn echoed(&self) -> u64 {
        self.echoed
    }

    fn missing(&self) -> usize {
        self.flows.iter().filter(|flow| flow.is_none()).count()
    }

    /// How many have not got back what was sent after their mark.
    fn waiting(&self) -> usize {
        let flows = self.flows.iter().flatten();
        flows.filter(|flow| flow.received <= flow.mark).count()
    }

    fn mark(&mut self) {
        for flow in self.flows.iter_mut().flatten() {
            flow.mark = flow.sent;
        }
    }

    /// Opens a connection for each empty slot, in the client's namespace.
    fn open(&mut self) -> Result<()> {
        let empty: Vec<usize> = (0..self.flows.len())
            .filter(|slot| self.flows[*slot].is_none())
            .collect();
        if empty.is_empty() {
            return Ok(());
        }
        let (count, server) = (empty.len(), self.server);
        let connect =
            || -> Result<Vec<TcpStream>> { (0..count).map(|_| connect(server)).collect() };
        let streams = self.client.enter(connect)??;
        for (slot, stream) in empty.into_iter().zip(streams) {
            let number = u64::try_from(slot).context("numbering a connection")?;
            epoll::add(
                &self.epoll,
                &stream,
                EventData::new_u64(number),
                EventFlags::IN,
            )
            .context("watching a connection")?;
            self.flows[slot] = Some(Flow {
                stream,
                sent: 0,
                received: 0,
                mark: 0,
            });
        }
        Ok(())
    }

    /// Works until the condition holds or the deadline has passed; whether it holds.
    fn pump(&mut self, deadline: Instant, done: impl Fn(&Self) -> bool) -> Result<bool> {
        while !done(self) {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            self.tick()?;
        }
        Ok(true)
    }

    /// Waits for the next tick, takes what has come back and sends what is due. A machine that is
    /// too slow for all of it sends less often, and nothing piles up.
    fn tick(&mut self) -> Result<()> {
        let now = Instant::now();
        std::thread::sleep(self.next_tick.saturating_duration_since(now));
        self.next_tick = self.next_tick.max(now) + TICK;
        for number in ready(&self.epoll, 0)? {
            let slot = usize::try_from(number).context("reading a connection's number")?;
            self.take(slot);
        }
        self.ticks += 1;
        let due = (self.ticks % TICKS_PER_BYTE..self.flows.len()).step_by(TICKS_PER_BYTE);
        for slot in due {
            self.send(slot);
        }
        Ok(())
    }

    fn take(&mut self, slot: usize) {
        let Some(Some(flow)) = self.flows.get_mut(slot) else {
            return;
        };
        let mut bytes = [0; 256];
        match flow.stream.read(&mut bytes) {
            Ok(0) => self.end(slot, "ended"),
            Ok(count) => {
                let count = count as u64;
                flow.received += count;
                self.echoed += count;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => self.end(slot, kind(&error)),
        }
    }

    fn send(&mut self, slot: usize) {
        let Some(Some(flow)) = self.flows.get_mut(slot) else {
            return;
        };
        match flow.stream.write(b"x") {
            Ok(count) => flow.sent += count as u64,
            // It still opens, or waits for an answer since long.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => self.end(slot, kind(&error)),
        }
    }

    fn end(&mut self, slot: usize, how: &'static str) {
        self.flows[slot] = None;
        *self.broken.entry(how).or_default() += 1;
    }
}

fn kind(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "reset",
        ErrorKind::ConnectionRefused => "refused",
        ErrorKind::TimedOut => "timed out",
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "unreachable",
        _ => "failed",
    }
}

/// Begins a connection from the network that the calling thread is in.
fn connect(server: SocketAddrV4) -> Result<TcpStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        flags,
        Some(ipproto::TCP),
    )
    .context("making a socket")?;
    match rustix::net::connect(&socket, &server) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error).with_context(|| format!("connecting to {server}")),
    }
    let stream = TcpStream::from(socket);
    stream
        .set_nodelay(true)
        .context("setting up a connection")?;
    Ok(stream)
}

/// The numbers of the sockets that are ready within so many milliseconds.
pub(super) fn ready(epoll: &OwnedFd, within_ms: i64) -> Result<Vec<u64>> {
    let limit = Timespec {
        tv_sec: within_ms / 1_000,
        tv_nsec: within_ms % 1_000 * 1_000_000,
    };
    let mut events = Vec::with_capacity(256);
    match epoll::wait(epoll, spare_capacity(&mut events), Some(&limit)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error).context("waiting for sockets"),
    }
    Ok(events.iter().map(|event| event.data.u64()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_with_something_to_read_are_ready() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else {
            panic!("not an IPv4 address");
        };
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let streams: Vec<_> = (0..2).map(|_| connect(address).unwrap()).collect();
        for (number, stream) in (0..).zip(&streams) {
            epoll::add(&epoll, stream, EventData::new_u64(number), EventFlags::IN).unwrap();
        }
        let mut peers: Vec<_> = (0..2).map(|_| listener.accept().unwrap()).collect();
        let second = streams[1].local_addr().unwrap();
        let (peer, _) = peers.iter_mut().find(|(_, from)| *from == second).unwrap();
        peer.write_all(b"x").unwrap();
        assert_eq!(ready(&epoll, 5_000).unwrap(), [1]);
    }
}
