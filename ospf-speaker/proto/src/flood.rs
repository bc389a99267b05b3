//! The flooding procedure (RFC 2328 §13).

use std::cmp::Ordering;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::ack::Acknowledgement;
use crate::config::AreaType;
use crate::counters::{LsaDrop, PacketDrop};
use crate::dbdesc::is_opaque;
use crate::ids::{InterfaceId, NeighborId};
use crate::lsdb::{DbKey, Via};
use crate::neighbor::{NeighborEvent, State};
use crate::originate::SelfOriginated;
use crate::packet::{LsType, Lsa, LsaHeader, MAX_AGE, MAX_SEQUENCE, Options, RESERVED_SEQUENCE};
use crate::router::Router;
use crate::sabotage::Sabotage;
use crate::timer::Timer;

/// MinLSArrival: sooner than this after the last one, an instance is not accepted.
pub(crate) const MIN_LS_ARRIVAL: Duration = Duration::from_secs(1);

impl AreaType {
    /// Whether LSAs of a type belong into such an area.
    pub(crate) fn admits(self, ls_type: LsType) -> bool {
        match ls_type {
            LsType::Router
            | LsType::Network
            | LsType::SummaryNetwork
            | LsType::OpaqueLink
            | LsType::OpaqueArea => true,
            LsType::SummaryAsbr | LsType::AsExternal | LsType::OpaqueAs => self == Self::Normal,
            LsType::Nssa => self == Self::Nssa,
            LsType::Unknown(_) => false,
        }
    }
}

/// What becomes of a received LSA.
enum Outcome {
    /// Acknowledge it, or not, as table 19 says.
    Done(Acknowledgement),
    /// Discarded without acknowledgement.
    Discarded(LsaDrop),
    /// Discarded, and the adjacency with the sender starts over.
    BadLsReq,
}

impl Router {
    /// Receives a Link State Update.
    pub(crate) fn receive_update(
        &mut self,
        now: Instant,
        id: NeighborId,
        lsas: Vec<Lsa>,
    ) -> Result<(), PacketDrop> {
        if self.state_of(id) < State::Exchange {
            return Err(PacketDrop::NeighborState);
        }
        let is_loading = self.state_of(id) != State::Full;
        let mut direct = Vec::new();
        for lsa in lsas {
            self.counters.lsas_received += 1;
            let header = *lsa.header();
            match self.receive_lsa(now, id, lsa) {
                Outcome::Done(Acknowledgement::None) => {}
                Outcome::Done(Acknowledgement::Direct) => direct.push(header),
                // A whole update answers a request: its acknowledgements fill a packet.
                Outcome::Done(Acknowledgement::Delayed) if is_loading => direct.push(header),
                Outcome::Done(Acknowledgement::Delayed) => {
                    self.delay_acknowledgement(now, id.interface, header);
                }
                Outcome::Discarded(reason) => {
                    let dropped = reason == LsaDrop::MinArrival;
                    if dropped && self.is_sabotaged(Sabotage::AcknowledgeDropped) {
                        direct.push(header);
                    }
                    self.discard_lsa(now, id, reason);
                }
                Outcome::BadLsReq => {
                    self.discard_lsa(now, id, LsaDrop::BadRequest);
                    self.neighbor_event(now, id, NeighborEvent::BadLsReq);
                    break;
                }
            }
        }
        self.acknowledge(id, direct);
        for neighbor in self.all_neighbors() {
            self.continue_loading(now, neighbor);
        }
        Ok(())
    }

    /// The eight steps of §13 for one LSA.
    fn receive_lsa(&mut self, now: Instant, from: NeighborId, lsa: Lsa) -> Outcome {
        // Steps 1 to 3, and what the other sections say about the header.
        if let Err(reason) = self.check_lsa(&lsa) {
            return Outcome::Discarded(reason);
        }
        let header = *lsa.header();
        let key = DbKey::new(header.key, from.interface);
        let present = self.lsdb.entry(&key).map(|entry| entry.header(now));

        // (4) At MaxAge, not in the database, and nobody is synchronizing: nothing to flush.
        if header.age >= MAX_AGE && present.is_none() && !self.anyone_synchronizing() {
            self.counters.count_discard(LsaDrop::MaxAgeUnknown);
            return Outcome::Done(Acknowledgement::Direct);
        }
        let recency = present.map_or(Ordering::Greater, |present| header.recency(&present));

        // (5) No copy in the database, or an older one.
        if recency.is_gt() {
            return self.receive_newer(now, from, key, lsa);
        }
        // (6) The sender claimed to have a newer one than this.
        if self
            .neighbor(from)
            .is_some_and(|neighbor| neighbor.requests.contains_key(&key))
        {
            return Outcome::BadLsReq;
        }
        // (7) The same instance.
        if recency.is_eq() {
            let is_implied = self.remove_from_retransmission_list(now, from, &key);
            return Outcome::Done(if is_implied {
                Acknowledgement::None
            } else {
                Acknowledgement::Direct
            });
        }
        // (8) The database's copy is newer.
        self.receive_older(now, from, key);
        Outcome::Discarded(LsaDrop::Older)
    }

    fn check_lsa(&self, lsa: &Lsa) -> Result<(), LsaDrop> {
        let header = lsa.header();
        // (1)
        if !lsa.checksum_is_valid() {
            return Err(LsaDrop::Checksum);
        }
        // (2)
        if matches!(header.key.ls_type, LsType::Unknown(_)) {
            return Err(LsaDrop::UnknownType);
        }
        // (3)
        if !self.config.area_type.admits(header.key.ls_type) {
            return Err(LsaDrop::AreaType);
        }
        // §12.1.1, §12.1.4, §12.1.6
        if header.age > MAX_AGE {
            return Err(LsaDrop::Age);
        }
        if header.sequence == RESERVED_SEQUENCE {
            return Err(LsaDrop::Sequence);
        }
        if header.key.ls_type == LsType::Router
            && header.key.link_state_id != header.key.advertising_router.0
        {
            return Err(LsaDrop::RouterLsaId);
        }
        Ok(())
    }

    /// Step 5.
    fn receive_newer(&mut self, now: Instant, from: NeighborId, key: DbKey, lsa: Lsa) -> Outcome {
        // (5a) What was asked for was not flooded, so that MinLSArrival does not count from it.
        if self.lsdb.entry(&key).is_some_and(|entry| {
            entry.via() == Via::Flooding && entry.is_younger_than(MIN_LS_ARRIVAL, now)
        }) {
            return Outcome::Discarded(LsaDrop::MinArrival);
        }
        if self.lsdb.admit(&key, &lsa).is_err() {
            return Outcome::Discarded(LsaDrop::DatabaseFull);
        }
        let was_requested = self
            .neighbor(from)
            .is_some_and(|neighbor| neighbor.requests.contains_key(&key));
        let header = *lsa.header();
        let mut up_to_date = self.settle_requests(&key, &header);
        up_to_date.push(from);
        // (5c) comes first, because the lists name LSAs and not instances.
        self.clear_retransmissions(&key);
        // (5d)
        let via = if was_requested {
            Via::Request
        } else {
            Via::Flooding
        };
        self.install(now, key, lsa, via);
        // (5b), and (5f) where it is ours.
        let flooded_back = match self.judge_self_originated(&key, &header) {
            SelfOriginated::No => self.flood(now, key, Some(from), &up_to_date),
            SelfOriginated::Adopted => {
                self.adopt(now, key, &header);
                false
            }
            SelfOriginated::Superseded => {
                self.supersede(now, key, &header);
                false
            }
            SelfOriginated::Unwanted => {
                self.flush_unwanted(now, key, &header);
                false
            }
        };
        self.purge(now, &key);
        // (5e)
        Outcome::Done(if flooded_back {
            Acknowledgement::None
        } else {
            Acknowledgement::Delayed
        })
    }

    /// Step 8: tells the sender what it missed, but not more than once a second.
    fn receive_older(&mut self, now: Instant, from: NeighborId, key: DbKey) {
        let Some(entry) = self.lsdb.entry(&key) else {
            return;
        };
        let header = entry.header(now);
        // A sequence that is about to start over: the sender's is the first of the new ones.
        if header.age >= MAX_AGE && header.sequence == MAX_SEQUENCE {
            return;
        }
        if !entry.was_sent_within(MIN_LS_ARRIVAL, now) {
            let lsa = entry.to_send(now);
            self.lsdb.mark_sent(&key, now);
            self.send_lsas_to(from, vec![lsa]);
        }
    }

    /// §13.3 step 1b for all neighbours: those that have described this instance or a newer one
    /// need not be sent it, and those with an older one need not be asked for it any more.
    pub(crate) fn settle_requests(&mut self, key: &DbKey, header: &LsaHeader) -> Vec<NeighborId> {
        let mut up_to_date = Vec::new();
        for id in self.all_neighbors() {
            let Some(neighbor) = self.neighbor_mut(id) else {
                continue;
            };
            let Some(described) = neighbor.requests.get(key) else {
                continue;
            };
            let recency = header.recency(described);
            if recency.is_ge() {
                neighbor.requests.remove(key);
            }
            if recency.is_le() {
                up_to_date.push(id);
            }
        }
        up_to_date
    }

    /// Floods an LSA of the database (§13.3), `from` being whom it came from, if anybody. Says
    /// whether it goes back out of the interface that it came in on.
    pub(crate) fn flood(
        &mut self,
        now: Instant,
        key: DbKey,
        from: Option<NeighborId>,
        up_to_date: &[NeighborId],
    ) -> bool {
        let mut flooded_back = false;
        if from.is_some() && self.is_sabotaged(Sabotage::FloodNothingOn) {
            return false;
        }
        for index in 0..self.interfaces.len() {
            let interface = InterfaceId(index);
            if !key.spans(interface) {
                continue;
            }
            // (1)
            let added = self.put_on_lists(now, interface, key, up_to_date);
            // (2)
            if !added {
                continue;
            }
            let came_in_here = from.filter(|from| from.interface == interface);
            // (3) The Designated Router or its Backup has told the whole segment already.
            if came_in_here.is_some_and(|from| self.is_designated(from)) {
                continue;
            }
            // (4) is for a Backup Designated Router.
            // (5)
            if let Some(interface) = self.interfaces.get_mut(index) {
                interface.floods.push(key);
            }
            flooded_back |= came_in_here.is_some();
        }
        flooded_back
    }

    /// §13.3 step 1 for one interface: whether any neighbour is to acknowledge the LSA.
    fn put_on_lists(
        &mut self,
        now: Instant,
        interface: InterfaceId,
        key: DbKey,
        up_to_date: &[NeighborId],
    ) -> bool {
        let mut added = false;
        for id in self.neighbors_of(interface) {
            let takes = self.neighbor(id).is_some_and(|neighbor| {
                let opaque = neighbor.exchange.options.contains(Options::O);
                neighbor.takes_floods() && (opaque || !is_opaque(key.lsa.ls_type))
            });
            if takes && !up_to_date.contains(&id) {
                self.put_on_retransmission_list(now, id, key);
                added = true;
            }
        }
        added
    }

    fn is_designated(&self, id: NeighborId) -> bool {
        self.interfaces
            .get(id.interface.0)
            .is_some_and(|interface| interface.elected.includes(id.key))
    }

    pub(crate) fn anyone_synchronizing(&self) -> bool {
        self.interfaces.iter().any(|interface| {
            interface
                .neighbors
                .values()
                .any(|neighbor| neighbor.state.is_synchronizing())
        })
    }

    /// Sends what was put up for flooding, LSAs for one interface together.
    pub(crate) fn flush_floods(&mut self, now: Instant) {
        for index in 0..self.interfaces.len() {
            let Some(interface) = self.interfaces.get_mut(index) else {
                continue;
            };
            let destination = interface.flood_destination();
            let mut keys = std::mem::take(&mut interface.floods);
            keys.sort_unstable();
            keys.dedup();
            self.send_from_database(now, InterfaceId(index), destination, &keys);
        }
    }

    /// Sends LSAs of the database; what has left it meanwhile is passed over.
    pub(crate) fn send_from_database(
        &mut self,
        now: Instant,
        interface: InterfaceId,
        destination: Ipv4Addr,
        keys: &[DbKey],
    ) {
        let mut lsas = Vec::with_capacity(keys.len());
        for key in keys {
            if let Some(entry) = self.lsdb.entry(key) {
                lsas.push(entry.to_send(now));
                self.lsdb.mark_sent(key, now);
            }
        }
        self.send_lsas(interface, destination, lsas);
    }

    /// Puts an LSA into the database and starts its way to MaxAge (§13.2 is for routers that
    /// compute routes).
    pub(crate) fn install(&mut self, now: Instant, key: DbKey, lsa: Lsa, via: Via) {
        self.counters.lsas_installed += 1;
        self.lsa_installed(lsa.header());
        self.lsdb.install(now, key, lsa, via);
        match self.lsdb.entry(&key) {
            Some(entry) if !entry.is_max_age(now) => {
                self.timers.set(Timer::MaxAge(key), entry.expires());
            }
            Some(_) | None => self.timers.clear(Timer::MaxAge(key)),
        }
    }
}
