//! The Database Exchange (RFC 2328 §10.6, §10.8), as master and as slave.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::AreaType;
use crate::counters::PacketDrop;
use crate::ids::NeighborId;
use crate::lsdb::{DbKey, MAX_LSAS};
use crate::neighbor::{NeighborEvent, State};
use crate::packet::{
    Body, DB_DESC_FIXED_LEN, DbDesc, DbDescFlags, LSA_HEADER_LEN, LsType, LsaHeader, Options,
};
use crate::router::Router;
use crate::sabotage::Sabotage;
use crate::timer::Timer;

/// Which part we have in an exchange; the higher router id is the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    Master,
    Slave,
}

/// What tells a Database Description from another: a duplicate has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    flags: DbDescFlags,
    options: Options,
    sequence: u32,
}

impl From<&DbDesc> for Fingerprint {
    fn from(dbdesc: &DbDesc) -> Self {
        Self {
            flags: dbdesc.flags,
            options: dbdesc.options,
            sequence: dbdesc.sequence,
        }
    }
}

/// The state of an exchange with one neighbour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exchange {
    pub(crate) role: Role,
    /// The DD sequence number.
    sequence: u32,
    /// The neighbour's options, constant through the exchange.
    pub(crate) options: Options,
    pub(crate) last_received: Option<Fingerprint>,
    pub(crate) last_sent: Option<DbDesc>,
    /// The Database summary list: what is still to be described.
    pub(crate) summary: VecDeque<DbKey>,
}

impl Exchange {
    pub(crate) fn new(sequence: u32) -> Self {
        Self {
            role: Role::Master,
            sequence,
            options: Options::default(),
            last_received: None,
            last_sent: None,
            summary: VecDeque::new(),
        }
    }

    fn is_duplicate(&self, dbdesc: &DbDesc) -> bool {
        self.last_received == Some(dbdesc.into())
    }

    /// Whether a packet after the negotiation is not the next one that the other side may send.
    fn is_out_of_sequence(&self, dbdesc: &DbDesc) -> bool {
        let (sender_is_master, expected) = match self.role {
            Role::Master => (false, self.sequence),
            Role::Slave => (true, self.sequence.wrapping_add(1)),
        };
        dbdesc.flags.master != sender_is_master
            || dbdesc.flags.init
            || dbdesc.options != self.options
            || dbdesc.sequence != expected
    }
}

impl Router {
    /// Enters ExStart: we are the master until the neighbour shows a higher router id.
    pub(crate) fn start_exchange(&mut self, now: Instant, id: NeighborId) {
        let Some(neighbor) = self.neighbor_mut(id) else {
            return;
        };
        neighbor.exchange.role = Role::Master;
        neighbor.exchange.sequence = neighbor.exchange.sequence.wrapping_add(1);
        self.send_dbdesc(now, id, DbDescFlags::OPENING, Vec::new());
    }

    /// Lists the database for the neighbour (§10.3, NegotiationDone).
    pub(crate) fn summarize(&mut self, now: Instant, id: NeighborId) {
        let Some(neighbor) = self.neighbor(id) else {
            return;
        };
        let opaque = neighbor.exchange.options.contains(Options::O);
        let mut summary = VecDeque::new();
        let (mut leaving, mut changing) = (Vec::new(), Vec::new());
        for (key, entry) in self.lsdb.iter() {
            if !key.spans(id.interface) || is_opaque(key.lsa.ls_type) && !opaque {
                continue;
            }
            if entry.is_max_age(now) {
                leaving.push(*key);
            } else if self.is_about_to_change(key) {
                changing.push(*key);
            } else {
                summary.push_back(*key);
            }
        }
        for key in changing {
            self.leave_out(key, id);
        }
        if let Some(neighbor) = self.neighbor_mut(id) {
            neighbor.exchange.summary = summary;
        }
        for key in leaving {
            self.put_on_retransmission_list(now, id, key);
        }
    }

    pub(crate) fn receive_dbdesc(
        &mut self,
        now: Instant,
        id: NeighborId,
        dbdesc: &DbDesc,
    ) -> Result<(), PacketDrop> {
        let link = self.interfaces.get(id.interface.0).and_then(|i| i.link);
        if link.is_none_or(|link| dbdesc.mtu > link.mtu) {
            return Err(PacketDrop::Mtu);
        }
        if self.state_of(id) == State::Init {
            // The neighbour lists us, or it would not send this (§10.6).
            let adjacent = self.should_be_adjacent(id);
            self.neighbor_event(now, id, NeighborEvent::TwoWayReceived { adjacent });
        }
        match self.state_of(id) {
            State::Down | State::Init | State::TwoWay => Err(PacketDrop::NeighborState),
            State::ExStart => self.negotiate(now, id, dbdesc),
            State::Exchange => self.continue_exchange(now, id, dbdesc),
            State::Loading | State::Full => self.after_exchange(now, id, dbdesc),
        }
    }

    /// ExStart: settles who is the master.
    fn negotiate(
        &mut self,
        now: Instant,
        id: NeighborId,
        dbdesc: &DbDesc,
    ) -> Result<(), PacketDrop> {
        let own_id = self.config.router_id;
        let neighbor = self.neighbor_mut(id).ok_or(PacketDrop::UnknownNeighbor)?;
        let flags = dbdesc.flags;
        let opens = flags.init && flags.more && flags.master && dbdesc.headers.is_empty();
        let answers = !flags.init && !flags.master && dbdesc.sequence == neighbor.exchange.sequence;
        if opens && neighbor.router_id > own_id {
            neighbor.exchange.role = Role::Slave;
            neighbor.exchange.sequence = dbdesc.sequence;
        } else if answers && neighbor.router_id < own_id {
            neighbor.exchange.role = Role::Master;
        } else {
            if opens {
                // The slave-to-be opens, so it may have spent our opening on ending an adjacency
                // with an earlier run of ours. Repeated, it saves a RxmtInterval; a neighbour that
                // did take it answers the duplicate.
                self.repeat_dbdesc(id);
            }
            return Err(PacketDrop::ExStart);
        }
        neighbor.exchange.options = dbdesc.options;
        self.timers.clear(Timer::DbDesc(id));
        self.neighbor_event(now, id, NeighborEvent::NegotiationDone);
        self.accept(now, id, dbdesc)
    }

    fn continue_exchange(
        &mut self,
        now: Instant,
        id: NeighborId,
        dbdesc: &DbDesc,
    ) -> Result<(), PacketDrop> {
        let neighbor = self.neighbor(id).ok_or(PacketDrop::UnknownNeighbor)?;
        if neighbor.exchange.is_duplicate(dbdesc) {
            self.answer_duplicate(id);
            return Err(PacketDrop::DuplicateDbDesc);
        }
        if neighbor.exchange.is_out_of_sequence(dbdesc) {
            return self.mismatch(now, id);
        }
        self.accept(now, id, dbdesc)
    }

    /// Loading and Full: only the master's last packet may come again, and the slave answers it
    /// for as long as it keeps its own.
    fn after_exchange(
        &mut self,
        now: Instant,
        id: NeighborId,
        dbdesc: &DbDesc,
    ) -> Result<(), PacketDrop> {
        let neighbor = self.neighbor(id).ok_or(PacketDrop::UnknownNeighbor)?;
        let exchange = &neighbor.exchange;
        let answerable = exchange.role == Role::Master || exchange.last_sent.is_some();
        if exchange.is_duplicate(dbdesc) && answerable {
            self.answer_duplicate(id);
            return Err(PacketDrop::DuplicateDbDesc);
        }
        self.mismatch(now, id)
    }

    fn mismatch(&mut self, now: Instant, id: NeighborId) -> Result<(), PacketDrop> {
        self.neighbor_event(now, id, NeighborEvent::SeqNumberMismatch);
        Err(PacketDrop::SequenceMismatch)
    }

    /// The master passes over a duplicate; the slave repeats its answer.
    fn answer_duplicate(&mut self, id: NeighborId) {
        if self
            .neighbor(id)
            .is_some_and(|neighbor| neighbor.exchange.role == Role::Slave)
        {
            self.repeat_dbdesc(id);
        }
    }

    /// A packet that is the next in sequence.
    fn accept(&mut self, now: Instant, id: NeighborId, dbdesc: &DbDesc) -> Result<(), PacketDrop> {
        if let Some(neighbor) = self.neighbor_mut(id) {
            neighbor.exchange.last_received = Some(dbdesc.into());
        }
        for header in &dbdesc.headers {
            if self.note_described(now, id, header).is_err() {
                return self.mismatch(now, id);
            }
        }
        let Some(neighbor) = self.neighbor_mut(id) else {
            return Err(PacketDrop::UnknownNeighbor);
        };
        let exchange = &mut neighbor.exchange;
        let sent_all = exchange
            .last_sent
            .as_ref()
            .is_some_and(|sent| !sent.flags.more);
        match exchange.role {
            Role::Master => {
                exchange.sequence = exchange.sequence.wrapping_add(1);
                if sent_all && !dbdesc.flags.more {
                    self.exchange_done(now, id);
                } else {
                    self.send_page(now, id);
                }
            }
            Role::Slave => {
                exchange.sequence = dbdesc.sequence;
                let more = self.send_page(now, id);
                if !more && !dbdesc.flags.more {
                    self.exchange_done(now, id);
                }
            }
        }
        self.continue_loading(now, id);
        Ok(())
    }

    /// Puts an LSA that the neighbour has and we lack on the request list.
    fn note_described(
        &mut self,
        now: Instant,
        id: NeighborId,
        header: &LsaHeader,
    ) -> Result<(), UnacceptableType> {
        let ls_type = header.key.ls_type;
        let external_in_stub =
            ls_type == LsType::AsExternal && self.config.area_type != AreaType::Normal;
        if matches!(ls_type, LsType::Unknown(_)) || external_in_stub {
            return Err(UnacceptableType);
        }
        if !self.config.area_type.admits(ls_type) {
            return Ok(());
        }
        let key = DbKey::new(header.key, id.interface);
        let lacking = self
            .lsdb
            .entry(&key)
            .is_none_or(|entry| header.recency(&entry.header(now)).is_gt());
        if let Some(neighbor) = self.neighbor_mut(id)
            && lacking
            && neighbor.requests.len() < MAX_LSAS
        {
            neighbor.requests.insert(key, *header);
        }
        Ok(())
    }

    fn exchange_done(&mut self, now: Instant, id: NeighborId) {
        self.timers.clear(Timer::DbDesc(id));
        let Some(neighbor) = self.neighbor(id) else {
            return;
        };
        let nothing_to_request =
            neighbor.requests.is_empty() || self.is_sabotaged(Sabotage::FullTooSoon);
        if neighbor.exchange.role == Role::Slave
            && let Some(interface) = self.interfaces.get(id.interface.0)
        {
            let dead = Duration::from_secs(interface.settings.dead_interval.into());
            self.timers.set(Timer::LastDbDesc(id), now + dead);
        }
        self.neighbor_event(now, id, NeighborEvent::ExchangeDone { nothing_to_request });
    }

    /// Sends the next page of the summary list; says whether more follow.
    fn send_page(&mut self, now: Instant, id: NeighborId) -> bool {
        let Some(interface) = self.interfaces.get_mut(id.interface.0) else {
            return false;
        };
        let room = interface.body_capacity().saturating_sub(DB_DESC_FIXED_LEN) / LSA_HEADER_LEN;
        let Some(neighbor) = interface.neighbors.get_mut(&id.key) else {
            return false;
        };
        let exchange = &mut neighbor.exchange;
        let count = exchange.summary.len().min(room.max(1));
        let headers = exchange
            .summary
            .drain(..count)
            .filter_map(|key| Some(self.lsdb.entry(&key)?.header(now)))
            .collect();
        let flags = DbDescFlags {
            init: false,
            more: !exchange.summary.is_empty(),
            master: exchange.role == Role::Master,
            other: 0,
        };
        self.send_dbdesc(now, id, flags, headers);
        flags.more
    }

    fn send_dbdesc(
        &mut self,
        now: Instant,
        id: NeighborId,
        flags: DbDescFlags,
        headers: Vec<LsaHeader>,
    ) {
        let options = self.config.area_type.options().union(Options::O);
        let Some(interface) = self.interfaces.get_mut(id.interface.0) else {
            return;
        };
        let link_mtu = interface.link.map_or(0, |link| link.mtu);
        let mtu = interface.settings.advertise_mtu.unwrap_or(link_mtu);
        let retransmit_interval = interface.settings.retransmit_interval;
        let Some(neighbor) = interface.neighbors.get_mut(&id.key) else {
            return;
        };
        neighbor.exchange.last_sent = Some(DbDesc {
            mtu,
            options,
            flags,
            sequence: neighbor.exchange.sequence,
            headers,
        });
        // The slave sends again only when the master does.
        if flags.master {
            self.timers
                .set(Timer::DbDesc(id), now + retransmit_interval);
        }
        self.repeat_dbdesc(id);
    }

    fn repeat_dbdesc(&mut self, id: NeighborId) {
        let Some(interface) = self.interfaces.get(id.interface.0) else {
            return;
        };
        let Some(neighbor) = interface.neighbors.get(&id.key) else {
            return;
        };
        let destination = interface.direct_destination(neighbor);
        if let Some(dbdesc) = neighbor.exchange.last_sent.clone() {
            self.send(id.interface, destination, Body::DbDesc(dbdesc));
        }
    }

    /// The neighbour did not answer our Database Description within RxmtInterval.
    pub(crate) fn dbdesc_timeout(&mut self, now: Instant, id: NeighborId) {
        if self.is_sabotaged(Sabotage::AskOnce) {
            return;
        }
        let Some(interface) = self.interfaces.get(id.interface.0) else {
            return;
        };
        let interval = interface.settings.retransmit_interval;
        self.timers.set(Timer::DbDesc(id), now + interval);
        self.repeat_dbdesc(id);
    }

    /// A slave needs its last packet no more: the master has been silent for long enough.
    pub(crate) fn last_dbdesc_timeout(&mut self, id: NeighborId) {
        if let Some(neighbor) = self.neighbor_mut(id) {
            neighbor.exchange.last_sent = None;
        }
    }

    pub(crate) fn state_of(&self, id: NeighborId) -> State {
        self.neighbor(id)
            .map_or(State::Down, |neighbor| neighbor.state)
    }
}

/// A Database Description names an LSA whose type cannot be in this area's database.
struct UnacceptableType;

/// Whether only neighbours that set the O bit understand the type (RFC 5250 §3).
pub(crate) fn is_opaque(ls_type: LsType) -> bool {
    match ls_type {
        LsType::OpaqueLink | LsType::OpaqueArea | LsType::OpaqueAs => true,
        LsType::Router
        | LsType::Network
        | LsType::SummaryNetwork
        | LsType::SummaryAsbr
        | LsType::AsExternal
        | LsType::Nssa
        | LsType::Unknown(_) => false,
    }
}
