//! BFD over UDP (RFC 5881): sockets and the sessions with the neighbours that OSPF found.

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU8;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Instant;

use isopath_api::config::BfdConfig;
use isopath_bfd::{Config, ControlPacket, Event, Intervals, Session, State};
use isopath_ospf::{InterfaceId, LinkState};
use nix::sys::socket::sockopt::Ipv4RecvTtl;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tracing::{debug, info, warn};

use crate::counts::Counts;
use crate::kept::Kept;
use crate::late::Lateness;
use crate::ospf_socket::INTERNETWORK_CONTROL;

mod snapshot;

pub(crate) use snapshot::BfdSnapshot;

/// The destination port of single-hop control packets.
const PORT: u16 = 3784;

/// The lowest source port (RFC 5881 §4).
const FIRST_SOURCE_PORT: u16 = 49152;

/// How many source ports there are from there on.
const SOURCE_PORTS: u16 = 16384;

/// A packet from another network has been forwarded and so has less (RFC 5881 §5).
const TTL: u32 = 255;

/// Packets taken from one socket before others have their turn.
const PACKETS_PER_TURN: usize = 64;

/// All BFD of the speaker.
#[derive(Debug)]
pub(crate) struct Bfd {
    interfaces: Vec<Interface>,
    peers: Vec<Peer>,
    lost: Vec<(InterfaceId, Ipv4Addr)>,
    counters: Counts,
    pub(crate) lateness: Lateness,
    /// Whether any session changed its state since it was last asked.
    changed: bool,
    /// All sessions are in AdminDown and no new one is made.
    paused: bool,
}

#[derive(Debug)]
struct Interface {
    name: String,
    config: Option<BfdConfig>,
    open: Option<Open>,
}

/// The receiving socket of an interface that is up, and its address.
#[derive(Debug)]
struct Open {
    socket: Socket,
    address: Ipv4Addr,
}

/// A session and the socket it sends from, whose port stays the same for its lifetime.
#[derive(Debug)]
struct Peer {
    interface: InterfaceId,
    address: Ipv4Addr,
    socket: Socket,
    session: Session,
}

impl Bfd {
    pub(crate) fn new(interfaces: impl Iterator<Item = (String, Option<BfdConfig>)>) -> Self {
        let interface = |(name, config)| Interface {
            name,
            config,
            open: None,
        };
        Self {
            interfaces: interfaces.map(interface).collect(),
            peers: Vec::new(),
            lost: Vec::new(),
            counters: Counts::default(),
            lateness: Lateness::default(),
            changed: false,
            paused: false,
        }
    }

    /// The interface came up; the descriptor to watch, where BFD is configured on it.
    pub(crate) fn open(&mut self, id: InterfaceId, link: LinkState) -> io::Result<Option<RawFd>> {
        let Some(interface) = self.interfaces.get_mut(id.0) else {
            return Ok(None);
        };
        if interface.config.is_none() {
            return Ok(None);
        }
        let socket = udp_socket(
            &interface.name,
            SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT),
        )?;
        setsockopt(&socket, Ipv4RecvTtl, &true)?;
        let descriptor = socket.as_raw_fd();
        interface.open = Some(Open {
            socket,
            address: link.address,
        });
        Ok(Some(descriptor))
    }

    /// The interface went down, and its sessions with it; the descriptor to watch no longer.
    pub(crate) fn close(&mut self, id: InterfaceId) -> Option<RawFd> {
        self.peers.retain(|peer| peer.interface != id);
        let open = self.interfaces.get(id.0)?.open.as_ref()?;
        Some(open.socket.as_raw_fd())
    }

    /// Lets go of the socket of an interface that is no longer watched.
    pub(crate) fn closed(&mut self, id: InterfaceId) {
        if let Some(interface) = self.interfaces.get_mut(id.0) {
            interface.open = None;
        }
    }

    /// Creates the sessions with new neighbours and ends those with neighbours that are gone.
    pub(crate) fn follow(
        &mut self,
        now: Instant,
        neighbors: &[(InterfaceId, Ipv4Addr)],
        kept: &mut Kept,
    ) {
        let mut ended = Vec::new();
        self.peers.retain_mut(|peer| {
            let stays = neighbors.contains(&(peer.interface, peer.address));
            if !stays {
                // The peer learns it from us at once and not from our silence.
                peer.session.down(now);
                ended.extend(
                    peer.session
                        .poll_transmit()
                        .map(|packet| peer.send(&packet)),
                );
            }
            stays
        });
        for result in ended {
            self.count_sent(&result);
        }
        for &(id, address) in neighbors {
            let known = |peer: &Peer| peer.interface == id && peer.address == address;
            if !self.paused && !self.peers.iter().any(known) {
                self.create(now, id, address, kept);
            }
        }
        self.transmit(None);
    }

    fn create(&mut self, now: Instant, id: InterfaceId, address: Ipv4Addr, kept: &mut Kept) {
        let Some(interface) = self.interfaces.get(id.0) else {
            return;
        };
        let (Some(config), Some(open)) = (interface.config, &interface.open) else {
            return;
        };
        let discriminator =
            kept.discriminator(&interface.name, address, || fastrand::u32(1..=u32::MAX));
        let socket = match source_socket(&interface.name, open.address, discriminator.get()) {
            Ok(socket) => socket,
            Err(error) => {
                warn!(interface = interface.name, peer = %address, %error, "cannot open BFD session");
                return;
            }
        };
        let config = Config {
            discriminator,
            intervals: Intervals {
                min_tx: config.min_tx,
                min_rx: config.min_rx,
            },
            detect_multiplier: NonZeroU8::new(config.multiplier).unwrap_or(NonZeroU8::MIN),
            seed: fastrand::u64(..),
        };
        debug!(interface = interface.name, peer = %address, %discriminator, "BFD session created");
        self.changed = true;
        self.peers.push(Peer {
            interface: id,
            address,
            socket,
            session: Session::new(config, now),
        });
    }

    /// Reads the packets of an interface; whether there may be more.
    pub(crate) fn receive(&mut self, now: Instant, id: InterfaceId) -> bool {
        for _ in 0..PACKETS_PER_TURN {
            let Some(open) = self.interfaces.get(id.0).and_then(|at| at.open.as_ref()) else {
                return false;
            };
            let mut buffer = [0; 128];
            match receive(&open.socket, &mut buffer) {
                Ok((source, ttl, length)) => {
                    self.count("bfd_packets_received");
                    let payload = buffer.get(..length).unwrap_or_default();
                    if let Err(reason) = self.handle(now, id, source, ttl, payload) {
                        self.count(reason);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => {
                    debug!(%error, "cannot receive BFD packet");
                    self.count("bfd_receive_errors");
                    return false;
                }
            }
        }
        true
    }

    fn handle(
        &mut self,
        now: Instant,
        id: InterfaceId,
        source: Option<Ipv4Addr>,
        ttl: Option<u32>,
        payload: &[u8],
    ) -> Result<(), &'static str> {
        if ttl != Some(TTL) {
            return Err("bfd_drop_ttl");
        }
        let packet = ControlPacket::parse(payload).map_err(drop_counter)?;
        let addressed = |peer: &&mut Peer| {
            peer.interface == id
                && match packet.your_discriminator {
                    0 => Some(peer.address) == source,
                    ours => peer.session.discriminator().get() == ours,
                }
        };
        let peer = self.peers.iter_mut().find(addressed);
        let peer = peer.ok_or("bfd_drop_no_session")?;
        peer.session.handle_packet(now, &packet);
        self.transmit(None);
        Ok(())
    }

    /// The earliest timer of all sessions.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let timers = self.peers.iter().map(|peer| peer.session.poll_timeout());
        timers.flatten().min()
    }

    /// The earliest time at which a peer that heard our last packet takes us for dead.
    pub(crate) fn peers_patience(&self) -> Option<Instant> {
        let sessions = self.peers.iter();
        sessions
            .filter_map(|peer| peer.session.peer_patience())
            .min()
    }

    /// The descriptors of open receiving sockets.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = (InterfaceId, RawFd)> + '_ {
        let interfaces = self.interfaces.iter().enumerate();
        interfaces.filter_map(|(place, interface)| {
            let open = interface.open.as_ref()?;
            Some((InterfaceId(place), open.socket.as_raw_fd()))
        })
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let mut earliest = None;
        for peer in &mut self.peers {
            let due = peer.session.transmit_due().filter(|due| *due <= now);
            earliest = earliest.into_iter().chain(due).min();
            peer.session.handle_timeout(now);
        }
        self.transmit(earliest);
    }

    /// Takes every session down for good, so that the peers act on it and do not wait for us.
    pub(crate) fn stop(&mut self, now: Instant) {
        for peer in &mut self.peers {
            if self.paused {
                // The last word is Down: a peer that made nothing of the pause is told now.
                peer.session.enable(now);
            }
            peer.session.down(now);
        }
        self.transmit(None);
    }

    /// Takes every session to AdminDown, which says nothing about the path, because there will be
    /// nobody to answer the peers for a while. Says whether there is any.
    pub(crate) fn pause(&mut self, now: Instant) -> bool {
        self.paused = true;
        for peer in &mut self.peers {
            peer.session.admin_down(now);
        }
        self.transmit(None);
        !self.peers.is_empty()
    }

    /// Whether every peer has taken its own end of the session down after [`Self::pause`].
    pub(crate) fn is_pause_known(&self) -> bool {
        let known = |peer: &Peer| match peer.session.remote_state() {
            State::AdminDown | State::Down => true,
            State::Init | State::Up => false,
        };
        self.peers.iter().all(known)
    }

    /// The next neighbour whose session was Up and failed.
    pub(crate) fn poll_lost(&mut self) -> Option<(InterfaceId, Ipv4Addr)> {
        self.lost.pop()
    }

    /// Whether a session changed since this was last asked.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The state of the session with a neighbour, if there is one.
    pub(crate) fn state(&self, id: InterfaceId, address: Ipv4Addr) -> Option<State> {
        let with = |peer: &&Peer| peer.interface == id && peer.address == address;
        let peer = self.peers.iter().find(with)?;
        Some(peer.session.state())
    }

    /// Whether BFD is configured on an interface.
    pub(crate) fn is_on(&self, id: InterfaceId) -> bool {
        let interface = self.interfaces.get(id.0);
        interface.is_some_and(|interface| interface.config.is_some())
    }

    pub(crate) fn counters(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        self.counters.iter()
    }

    /// Sends what the sessions have to send; `due` is when the first of it should have left.
    fn transmit(&mut self, due: Option<Instant>) {
        let mut results = Vec::new();
        for peer in &mut self.peers {
            while let Some(packet) = peer.session.poll_transmit() {
                results.push(peer.send(&packet));
            }
            while let Some(event) = peer.session.poll_event() {
                self.changed = true;
                let interface = self.interfaces.get(peer.interface.0);
                log_event(interface.map_or("", |at| &at.name), peer.address, event);
                if failed(event) {
                    self.lost.push((peer.interface, peer.address));
                }
            }
        }
        if let Some(due) = due.filter(|_| !results.is_empty()) {
            self.lateness.record(Instant::now(), due);
        }
        for result in results {
            self.count_sent(&result);
        }
    }

    fn count_sent(&mut self, result: &io::Result<()>) {
        match result {
            Ok(()) => self.count("bfd_packets_sent"),
            Err(error) => {
                debug!(%error, "cannot send BFD packet");
                self.count("bfd_send_errors");
            }
        }
    }

    fn count(&mut self, counter: &'static str) {
        self.counters.add(counter);
    }
}

impl Peer {
    fn send(&self, packet: &[u8]) -> io::Result<()> {
        let to = SockAddr::from(SocketAddrV4::new(self.address, PORT));
        self.socket.send_to(packet, &to).map(|_| ())
    }
}

/// Whether the path to the peer has failed: a session that is down on purpose, here or there,
/// says nothing about it.
fn failed(event: Event) -> bool {
    use isopath_bfd::Diagnostic::AdministrativelyDown;

    event.from == State::Up
        && event.to == State::Down
        && event.remote != State::AdminDown
        && event.diagnostic != AdministrativelyDown
}

fn log_event(interface: &str, peer: Ipv4Addr, event: Event) {
    let Event {
        from,
        to,
        diagnostic,
        ..
    } = event;
    if from == State::Up || to == State::Up {
        info!(interface, %peer, %from, %to, %diagnostic, "BFD session");
    } else {
        debug!(interface, %peer, %from, %to, %diagnostic, "BFD session");
    }
}

fn drop_counter(reason: isopath_bfd::DropReason) -> &'static str {
    use isopath_bfd::DropReason;

    match reason {
        DropReason::TooShort => "bfd_drop_too_short",
        DropReason::BadLength => "bfd_drop_bad_length",
        DropReason::Version => "bfd_drop_version",
        DropReason::ZeroMultiplier => "bfd_drop_zero_multiplier",
        DropReason::Multipoint => "bfd_drop_multipoint",
        DropReason::ZeroMyDiscriminator => "bfd_drop_zero_my_discriminator",
        DropReason::ZeroYourDiscriminator => "bfd_drop_zero_your_discriminator",
        DropReason::Authentication => "bfd_drop_authentication",
    }
}

fn udp_socket(interface: &str, local: SocketAddrV4) -> io::Result<Socket> {
    let kind = Type::DGRAM.nonblocking();
    let socket = Socket::new(Domain::IPV4, kind, Some(Protocol::UDP))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(&SockAddr::from(local))?;
    Ok(socket)
}

/// A socket on the first free source port from one that the discriminator gives, so that a
/// restart most often finds the same port.
fn source_socket(interface: &str, address: Ipv4Addr, discriminator: u32) -> io::Result<Socket> {
    let first = u16::try_from(discriminator % u32::from(SOURCE_PORTS)).unwrap_or_default();
    let mut refused = io::Error::from(ErrorKind::AddrInUse);
    for offset in 0..SOURCE_PORTS {
        let port = FIRST_SOURCE_PORT + (first + offset) % SOURCE_PORTS;
        match udp_socket(interface, SocketAddrV4::new(address, port)) {
            Ok(socket) => {
                socket.set_ttl_v4(TTL)?;
                socket.set_tos_v4(INTERNETWORK_CONTROL)?;
                // Nothing is ever read from it, so nothing need be kept for reading.
                socket.set_recv_buffer_size(0)?;
                return Ok(socket);
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse => refused = error,
            Err(error) => return Err(error),
        }
    }
    Err(refused)
}

/// A datagram's source, TTL and length.
fn receive(
    socket: &Socket,
    buffer: &mut [u8],
) -> io::Result<(Option<Ipv4Addr>, Option<u32>, usize)> {
    let mut control = nix::cmsg_space!(libc::c_int);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrIn>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let ttl = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4Ttl(ttl) => u32::try_from(ttl).ok(),
        _ => None,
    });
    let source = message.address.map(|address| address.ip());
    Ok((source, ttl, message.bytes))
}

#[cfg(test)]
mod tests {
    use isopath_bfd::Diagnostic;

    use super::*;

    #[test]
    fn only_a_failed_path_takes_the_neighbour_down() {
        let expired = Diagnostic::ControlDetectionTimeExpired;
        let signaled = Diagnostic::NeighborSignaledSessionDown;
        let ours = Diagnostic::AdministrativelyDown;
        let cases = [
            ("silence", State::Up, expired, State::Down, true),
            ("the peer says Down", State::Up, signaled, State::Down, true),
            (
                "the peer pauses",
                State::Up,
                signaled,
                State::AdminDown,
                false,
            ),
            ("we stop", State::Up, ours, State::Up, false),
            ("never Up", State::Init, expired, State::Down, false),
        ];
        for (name, from, diagnostic, remote, expected) in cases {
            let event = Event {
                from,
                to: State::Down,
                diagnostic,
                remote,
            };
            assert_eq!(failed(event), expected, "{name}");
        }
    }
}
