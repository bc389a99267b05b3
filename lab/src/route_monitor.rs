//! The moments at which a kernel's routes change, on the clock of whoever caused the change.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout};

use crate::netns::Namespace;
use crate::wait::scaled;

/// `RTMGRP_IPV4_ROUTE` of linux/rtnetlink.h.
const IPV4_ROUTES: u32 = 0x40;

/// More changes than a lab makes between two readings; the monitor waits when it is full, and
/// the kernel then buffers.
const DEPTH: usize = 4096;

/// How often the monitor looks whether it shall end.
const LOOK: Duration = Duration::from_millis(100);

/// A change of one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteChange {
    /// When the kernel's message was read.
    pub at: Instant,
    /// The destination.
    pub destination: Ipv4Addr,
    /// Its length.
    pub prefix_len: u8,
    /// The next hops from now on; none when the route is gone.
    pub next_hops: BTreeSet<Ipv4Addr>,
}

/// Listens to the route changes of one namespace until dropped.
#[derive(Debug)]
pub struct RouteMonitor {
    changes: Receiver<RouteChange>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl RouteMonitor {
    /// Starts listening; a change after this is never missed.
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        Self::start_filtered(namespace, |_| true)
    }

    /// The same for the routes to one destination, where thousands of others may change.
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub fn start_for(namespace: &Namespace, destination: Ipv4Addr) -> Result<Self> {
        Self::start_filtered(namespace, move |change| change.destination == destination)
    }

    fn start_filtered(
        namespace: &Namespace,
        wanted: impl Fn(&RouteChange) -> bool + Send + 'static,
    ) -> Result<Self> {
        let socket = namespace
            .enter(open)?
            .context("listening to route changes")?;
        let (sender, changes) = sync_channel(DEPTH);
        let ending = Arc::new(AtomicBool::new(false));
        let end = ending.clone();
        let thread = std::thread::spawn(move || listen(&socket, &sender, &end, &wanted));
        Ok(Self {
            changes,
            ending,
            thread: Some(thread),
        })
    }

    /// The changes read since the last call.
    ///
    /// # Errors
    /// The monitor failed, so that a change may be missing.
    pub fn take(&mut self) -> Result<Vec<RouteChange>> {
        let changes = self.changes.try_iter().collect();
        self.expect_listening()?;
        Ok(changes)
    }

    /// Waits for a change that `wanted` accepts; earlier ones are dropped.
    ///
    /// # Errors
    /// There was none within the time (scaled), or the monitor failed.
    pub fn wait_for(
        &mut self,
        what: &str,
        within: Duration,
        mut wanted: impl FnMut(&RouteChange) -> bool,
    ) -> Result<RouteChange> {
        let deadline = Instant::now() + scaled(within);
        let mut last = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.changes.recv_timeout(left) {
                Ok(change) if wanted(&change) => return Ok(change),
                Ok(change) => last = Some(change),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no such route change within {within:?}: {what}; the last was {last:?}");
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.expect_listening()?;
                    bail!("the route monitor ended while waiting for {what}");
                }
            }
        }
    }

    /// Listens for a while to make sure that the route to `destination` does not change.
    ///
    /// # Errors
    /// It changed, also before this call and after the last one, or the monitor failed.
    pub fn expect_quiet(&mut self, destination: Ipv4Addr, during: Duration) -> Result<()> {
        let end = Instant::now() + during;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.changes.recv_timeout(left) {
                Ok(change) if change.destination == destination => {
                    bail!(
                        "the route to {destination} changed to {:?}",
                        change.next_hops
                    );
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return self.expect_listening(),
                Err(RecvTimeoutError::Disconnected) => {
                    self.expect_listening()?;
                    bail!("the route monitor ended while it listened");
                }
            }
        }
    }

    fn expect_listening(&mut self) -> Result<()> {
        match self.thread.take_if(|thread| thread.is_finished()) {
            None => Ok(()),
            Some(thread) => match thread.join() {
                Ok(result) => result.context("the route monitor failed"),
                Err(panic) => std::panic::resume_unwind(panic),
            },
        }
    }
}

impl Drop for RouteMonitor {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        // The thread may wait for room in the channel.
        drop(std::mem::replace(&mut self.changes, sync_channel(0).1));
        if let Some(thread) = self.thread.take()
            && !matches!(thread.join(), Ok(Ok(())))
        {
            eprintln!("isopath-lab: the route monitor failed");
        }
    }
}

fn open() -> Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    // Thousands of routes may change at once, while this machine is kept busy on purpose.
    set_socket_recv_buffer_size_force(&socket, 16 << 20)?;
    socket.bind(&SocketAddr::new(0, IPV4_ROUTES))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(LOOK))?;
    Ok(socket)
}

fn listen(
    socket: &Socket,
    changes: &SyncSender<RouteChange>,
    end: &AtomicBool,
    wanted: &dyn Fn(&RouteChange) -> bool,
) -> Result<()> {
    while !end.load(Ordering::Relaxed) {
        let datagram = match socket.recv_from_full() {
            Ok((datagram, _)) => datagram,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error).context("reading route changes"),
        };
        let at = Instant::now();
        for change in parse(&datagram, at)? {
            if wanted(&change) && changes.send(change).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The route changes in one datagram, which may hold several messages.
fn parse(datagram: &[u8], at: Instant) -> Result<Vec<RouteChange>> {
    let mut changes = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
            .context("decoding a route change")?;
        let length = usize::try_from(message.header.length).context("a netlink length")?;
        // Netlink messages are aligned to 4 bytes (NLMSG_ALIGN).
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => {
                let next_hops = next_hops(&route);
                changes.extend(
                    destination(&route).map(|(destination, prefix_len)| RouteChange {
                        at,
                        destination,
                        prefix_len,
                        next_hops,
                    }),
                );
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(route)) => {
                changes.extend(
                    destination(&route).map(|(destination, prefix_len)| RouteChange {
                        at,
                        destination,
                        prefix_len,
                        next_hops: BTreeSet::new(),
                    }),
                );
            }
            _ => {}
        }
    }
    Ok(changes)
}

/// Where a route leads, and the length of that; nothing for a default route.
pub(crate) fn destination(route: &RouteMessage) -> Option<(Ipv4Addr, u8)> {
    let destination = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
            _ => None,
        })?;
    Some((destination, route.header.destination_prefix_length))
}

/// The gateways of a route, of one or several paths.
pub(crate) fn next_hops(route: &RouteMessage) -> BTreeSet<Ipv4Addr> {
    let gateways = |attributes: &[RouteAttribute]| {
        let mut found = BTreeSet::new();
        for attribute in attributes {
            if let RouteAttribute::Gateway(RouteAddress::Inet(address)) = attribute {
                found.insert(*address);
            }
        }
        found
    };
    let mut found = gateways(&route.attributes);
    for attribute in &route.attributes {
        if let RouteAttribute::MultiPath(hops) = attribute {
            for hop in hops {
                found.extend(gateways(&hop.attributes));
            }
        }
    }
    found
}
