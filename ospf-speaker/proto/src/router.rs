//! The speaker as a whole: what comes in from the shell and what goes out to it.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::config::{
    AnnounceError, Config, ConfigError, External, LinkState, NetworkType, Stub,
    canonical_externals, canonical_stubs,
};
use crate::counters::{Counters, LsaDrop, PacketDrop};
use crate::graceful::Restart;
use crate::ids::{InterfaceId, NeighborId, RouterId};
use crate::interface::Interface;
use crate::lsdb::Lsdb;
use crate::neighbor::NeighborEvent;
use crate::own::OwnLsas;
use crate::packet::{ALL_D_ROUTERS, ALL_SPF_ROUTERS, Body, DecodeError, Envelope, Header, Packet};
use crate::rng::Rng;
use crate::sabotage::Sabotage;
use crate::shutdown::Stage;
use crate::timer::{Timer, TimerTable};
use crate::view::{Event, Transmit};

mod snapshot;

pub use snapshot::{Identity, Snapshot, SnapshotError};

/// The time between two events about drops for the same reason on the same interface.
const DROP_EVENT_INTERVAL: Duration = Duration::from_secs(60);

/// An OSPF router of one area.
#[derive(Debug)]
pub struct Router {
    pub(crate) config: Config,
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) lsdb: Lsdb,
    pub(crate) own: OwnLsas,
    /// The wanted stubs in canonical order.
    pub(crate) stubs: Vec<Stub>,
    /// The wanted external routes by address.
    pub(crate) externals: BTreeMap<Ipv4Addr, External>,
    pub(crate) stopping: Option<Stage>,
    pub(crate) restart: Restart,
    pub(crate) timers: TimerTable,
    pub(crate) rng: Rng,
    pub(crate) counters: Counters,
    pub(crate) transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    reported_drops: BTreeMap<(InterfaceId, Dropped), Instant>,
    /// The latest time of any input.
    pub(crate) latest: Instant,
    #[cfg(feature = "sabotage")]
    pub(crate) sabotage: Option<crate::Sabotage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Dropped {
    Packet(PacketDrop),
    Lsa(LsaDrop),
}

impl Router {
    /// A router with all interfaces down. The seed drives the jitter and the first Database
    /// Description sequence numbers.
    pub fn new(config: Config, seed: u64, now: Instant) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            interfaces: config
                .interfaces
                .iter()
                .cloned()
                .map(Interface::new)
                .collect(),
            lsdb: Lsdb::default(),
            own: OwnLsas::new(config.sequence_hint, config.is_asbr),
            stubs: Vec::new(),
            externals: BTreeMap::new(),
            stopping: None,
            restart: Restart::None,
            timers: TimerTable::default(),
            rng: Rng::new(seed),
            counters: Counters::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            reported_drops: BTreeMap::new(),
            latest: now,
            #[cfg(feature = "sabotage")]
            sabotage: None,
            config,
        })
    }

    /// The interface is up with this state, also after a change of it, or (`None`) down.
    pub fn handle_interface(&mut self, now: Instant, id: InterfaceId, link: Option<LinkState>) {
        let now = self.advance(now);
        if !self.is_stopped() {
            self.change_link(now, id, link);
            self.finish(now);
        }
    }

    /// A packet came in; `payload` begins with the OSPF header. What is wrong with it, if
    /// anything, is counted.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        id: InterfaceId,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        payload: &[u8],
    ) {
        let now = self.advance(now);
        self.counters.packets_received += 1;
        if let Err((reason, detail)) = self.receive(now, id, source, destination, payload) {
            self.drop_packet(now, id, source, reason, detail);
        }
        self.finish(now);
    }

    /// The time of [`Router::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.advance(now);
        while let Some(timer) = self.timers.pop_due(now) {
            self.fire(now, timer);
        }
        self.finish(now);
    }

    /// BFD, or anything else faster than the dead interval, says that the neighbour at this
    /// address is gone.
    pub fn handle_neighbor_lost(&mut self, now: Instant, id: InterfaceId, address: Ipv4Addr) {
        let now = self.advance(now);
        for neighbor in self.neighbors_of(id) {
            if self
                .neighbor(neighbor)
                .is_some_and(|neighbor| neighbor.address == address)
            {
                self.neighbor_event(now, neighbor, NeighborEvent::KillNbr);
            }
        }
        self.finish(now);
    }

    /// Sets the whole set of hosts to announce: as stubs of the Router-LSA, and as external
    /// routes, each in an LSA of its own. A call that changes nothing does nothing, and a call
    /// after [`Router::shutdown`] neither.
    ///
    /// # Errors
    /// More than fit, or an external route in a stub area; then the set stays as it was.
    pub fn announce(
        &mut self,
        now: Instant,
        stubs: &[Stub],
        externals: &[External],
    ) -> Result<(), AnnounceError> {
        let now = self.advance(now);
        let stubs = canonical_stubs(stubs)?;
        let externals = canonical_externals(externals, self.config.area_type)?;
        if self.stopping.is_none() && (stubs != self.stubs || externals != self.externals) {
            self.want(stubs, externals);
            self.finish(now);
        }
        Ok(())
    }

    /// Begins a planned stop: withdraw the stubs, wait for the acknowledgements, flush the
    /// Router-LSA, say good-bye with a Hello that lists nobody. Each step is bounded in time.
    pub fn shutdown(&mut self, now: Instant) {
        let now = self.advance(now);
        self.begin_shutdown(now);
        self.finish(now);
    }

    /// Whether the planned stop is complete.
    pub fn is_stopped(&self) -> bool {
        self.stopping == Some(Stage::Stopped)
    }

    /// When to call [`Router::handle_timeout`]; later than the time of the last call of it.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_sabotaged(Sabotage::StandStill) {
            return Some(self.latest);
        }
        self.timers.next()
    }

    /// The next packet to send. Drain it after each `handle_*`.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let mut transmit = self.transmits.pop_front()?;
        self.seal(&mut transmit);
        if self.is_sabotaged(Sabotage::TrailingByte) {
            transmit.payload.push(0);
        }
        Some(transmit)
    }

    /// The next event. Drain it after each `handle_*`.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Time does not go back: a shell may hand in a packet with the time of its arrival after a
    /// later timeout, and a timer set then must still be later than that timeout.
    pub(crate) fn advance(&mut self, now: Instant) -> Instant {
        self.latest = self.latest.max(now);
        self.latest
    }

    /// The end of every input: what it caused goes out together.
    pub(crate) fn finish(&mut self, now: Instant) {
        self.continue_return(now);
        self.update_own_lsas(now);
        self.continue_restart(now);
        self.flush_floods(now);
        if self.stopping.is_some() && !self.is_stopped() {
            self.continue_shutdown(now);
            self.flush_floods(now);
        }
    }

    fn fire(&mut self, now: Instant, timer: Timer) {
        match timer {
            Timer::Hello(id) => {
                self.send_hello(id);
                self.schedule_hello(now, id);
            }
            Timer::Describe(id) => self.describe_timeout(id),
            Timer::DelayedAck(id) => self.send_delayed_acknowledgements(id),
            Timer::Inactivity(id) => {
                self.neighbor_event(now, id, NeighborEvent::InactivityTimer);
            }
            Timer::DbDesc(id) => self.dbdesc_timeout(now, id),
            Timer::LastDbDesc(id) => self.last_dbdesc_timeout(id),
            Timer::Request(id) => self.request_timeout(now, id),
            Timer::Retransmit(id) => self.retransmit_timeout(now, id),
            Timer::Originate(key) => self.own.touch(key),
            Timer::Refresh(key) => self.refresh_timeout(key),
            // What is left over is looked at in `finish`.
            Timer::NextBurst => {}
            Timer::MaxAge(key) => self.max_age_timeout(now, key),
            // Their own deadlines are looked at in `finish`.
            Timer::Shutdown | Timer::Restart => {}
        }
    }

    /// RFC 2328 §8.2.
    fn receive(
        &mut self,
        now: Instant,
        id: InterfaceId,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        payload: &[u8],
    ) -> Result<(), (PacketDrop, String)> {
        let plain = |reason: PacketDrop| (reason, reason.to_string());
        if self.is_stopped() {
            return Err(plain(PacketDrop::Stopped));
        }
        self.check_addresses(id, source, destination)
            .map_err(plain)?;
        let spoiled = |error: DecodeError| (error.reason(), error.to_string());
        let envelope = Envelope::decode(payload).map_err(spoiled)?;
        let header = envelope.header;
        self.check_area(&header)
            .map_err(|reason| (reason, self.explain_header(reason, &header)))?;
        let vouched = self
            .authenticate(now, id, source, &envelope)
            .inspect_err(|refusal| self.note_refused(now, id, source, refusal))
            .map_err(|refusal| (refusal.reason(), refusal.to_string()))?;
        self.check_router_id(&header).map_err(plain)?;
        let router_id = header.router_id;
        match Packet::open(&envelope).map_err(spoiled)?.body {
            Body::Hello(hello) => {
                self.receive_hello(now, id, source, router_id, &hello)
                    .map_err(|reason| (reason, self.explain_hello(id, reason, &hello)))?;
                // The Hello may have been a new neighbour's first.
                let from = self.neighbor_id(id, source, router_id);
                self.note_received(from, vouched);
                return Ok(());
            }
            Body::DbDesc(dbdesc) => {
                return self
                    .sender(id, source, router_id)
                    .and_then(|from| self.receive_dbdesc(now, from, &dbdesc))
                    .map_err(|reason| (reason, self.explain_dbdesc(id, reason, &dbdesc)));
            }
            Body::Request(keys) => self
                .sender(id, source, router_id)
                .and_then(|from| self.receive_request(now, from, &keys)),
            Body::Update(lsas) => self
                .sender(id, source, router_id)
                .and_then(|from| self.receive_update(now, from, lsas)),
            Body::Ack(headers) => self
                .sender(id, source, router_id)
                .and_then(|from| self.receive_ack(now, from, &headers)),
        }
        .map_err(plain)
    }

    /// The IP header's part of §8.2.
    fn check_addresses(
        &self,
        id: InterfaceId,
        source: Ipv4Addr,
        destination: Ipv4Addr,
    ) -> Result<(), PacketDrop> {
        let interface = self.interfaces.get(id.0).ok_or(PacketDrop::InterfaceDown)?;
        let link = interface.link.ok_or(PacketDrop::InterfaceDown)?;
        if source == link.address {
            return Err(PacketDrop::OwnPacket);
        }
        if destination == ALL_D_ROUTERS
            || destination != ALL_SPF_ROUTERS && destination != link.address
        {
            return Err(PacketDrop::WrongDestination);
        }
        if interface.settings.network == NetworkType::Broadcast && !link.contains(source) {
            return Err(PacketDrop::WrongSubnet);
        }
        Ok(())
    }

    /// The OSPF header's part of §8.2 that comes before the authentication.
    fn check_area(&self, header: &Header) -> Result<(), PacketDrop> {
        if header.area == self.config.area {
            Ok(())
        } else {
            Err(PacketDrop::WrongArea)
        }
    }

    /// What is believed only of an authenticated packet: that another router has our router id.
    fn check_router_id(&self, header: &Header) -> Result<(), PacketDrop> {
        if header.router_id == self.config.router_id {
            return Err(PacketDrop::OwnRouterId);
        }
        if header.router_id.0.is_unspecified() {
            return Err(PacketDrop::ZeroRouterId);
        }
        Ok(())
    }

    /// The neighbour that a packet other than a Hello is from.
    fn sender(
        &self,
        id: InterfaceId,
        source: Ipv4Addr,
        router_id: RouterId,
    ) -> Result<NeighborId, PacketDrop> {
        let interface = self.interfaces.get(id.0).ok_or(PacketDrop::InterfaceDown)?;
        let from = self.neighbor_id(id, source, router_id);
        match interface.neighbors.get(&from.key) {
            Some(neighbor) if neighbor.router_id == router_id => Ok(from),
            Some(_) | None => Err(PacketDrop::UnknownNeighbor),
        }
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    fn drop_packet(
        &mut self,
        now: Instant,
        interface: InterfaceId,
        source: Ipv4Addr,
        reason: PacketDrop,
        detail: String,
    ) {
        self.counters.count_drop(reason);
        // Loops of our own multicasts, repeated descriptions, two openings that cross, and what
        // still comes in after a planned stop are nothing to report.
        let is_usual = matches!(
            reason,
            PacketDrop::OwnPacket
                | PacketDrop::DuplicateDbDesc
                | PacketDrop::ExStart
                | PacketDrop::Stopped
        );
        if is_usual || !self.is_reportable(now, interface, Dropped::Packet(reason)) {
            return;
        }
        self.event(if reason == PacketDrop::OwnRouterId {
            Event::DuplicateRouterId {
                interface,
                address: source,
            }
        } else {
            Event::PacketDropped {
                interface,
                source,
                reason,
                detail,
            }
        });
    }

    pub(crate) fn discard_lsa(&mut self, now: Instant, from: NeighborId, reason: LsaDrop) {
        self.counters.count_discard(reason);
        let is_usual = matches!(reason, LsaDrop::MinArrival | LsaDrop::Older);
        if is_usual || !self.is_reportable(now, from.interface, Dropped::Lsa(reason)) {
            return;
        }
        if let Some(router_id) = self.neighbor(from).map(|neighbor| neighbor.router_id) {
            self.event(Event::LsaDropped {
                interface: from.interface,
                from: router_id,
                reason,
            });
        }
    }

    fn is_reportable(&mut self, now: Instant, interface: InterfaceId, drop: Dropped) -> bool {
        let last = self.reported_drops.get(&(interface, drop));
        let due =
            last.is_none_or(|&last| now.saturating_duration_since(last) >= DROP_EVENT_INTERVAL);
        // An interface that does not exist has no place in the table, which stays bounded.
        if due && interface.0 < self.interfaces.len() {
            self.reported_drops.insert((interface, drop), now);
        }
        due
    }
}
