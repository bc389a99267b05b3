//! When instances of our own LSAs leave, and what is done about copies of them that come from
//! the network (RFC 2328 §12.4, §13.4, §12.1.6, §14.1). What they say is in `content.rs`.
//!
//! Four rules keep a switch from dropping an instance for MinLSArrival and getting it only by
//! a retransmission seconds later:
//! - While nobody is Full there is nobody to tell: nothing leaves before the first neighbour is
//!   Full, and then everything does, once, above any stale copy that the exchange brought.
//! - A change leaves at once if the last instance is older than the neighbours' MinLSArrival;
//!   later changes of the same LSA wait for that and leave together. A flush is a change, too.
//! - The Router-LSA is flooded to a neighbour that becomes Full, and not described to it before.
//! - Other LSAs are described, but for those that are about to change.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::config::{External, Stub};
use crate::ids::NeighborId;
use crate::lsdb::{DbKey, Via};
use crate::neighbor::{Neighbor, State};
use crate::own::Content;
use crate::packet::{
    INITIAL_SEQUENCE, LsType, Lsa, LsaHeader, LsaKey, MAX_AGE, MAX_SEQUENCE, Options,
};
use crate::router::Router;
use crate::sabotage::Sabotage;
use crate::timer::Timer;
use crate::view::Event;

/// What the pace adds to the neighbours' MinLSArrival, for their clocks and queues.
const ARRIVAL_MARGIN: Duration = Duration::from_millis(50);
/// MinLSInterval, the pace while another router contends for our LSAs.
const MIN_LS_INTERVAL: Duration = Duration::from_secs(5);
/// LSRefreshTime.
const REFRESH_TIME: Duration = Duration::from_secs(1800);
/// The directors of a cluster start together and should not refresh together, and the LSAs of
/// one director neither.
const REFRESH_JITTER: Duration = Duration::from_secs(180);
/// How long the first origination waits for adjacencies that are under way, so that it has the
/// links of all uplinks.
const GATHERING_TIME: Duration = Duration::from_millis(200);
/// The most instances that leave together: they fill a dozen packets, and the receive buffer
/// of a neighbour's socket takes some ninety.
const BURST: usize = 500;
/// What did not fit into a burst follows after this.
const NEXT_BURST: Duration = Duration::from_millis(10);

/// What a received LSA is to us (§13.4).
pub(crate) enum SelfOriginated {
    /// Somebody else's, or one of ours that leaves the area anyway.
    No,
    /// One from before a graceful restart that is not over: it stays as it is.
    Adopted,
    /// One that we originate: a newer instance takes its place.
    Superseded,
    /// An LSA that we would not originate: it is flushed.
    Unwanted,
}

impl Router {
    /// Something changed that our Router-LSA may depend on.
    pub(crate) fn touch_router_lsa(&mut self) {
        self.own.touch(self.router_lsa_key());
    }

    /// Brings our LSAs in line with what the input changed, and gives them to those who became
    /// Full.
    pub(crate) fn update_own_lsas(&mut self, now: Instant) {
        let forwarding_address = self.choose_forwarding_address();
        if forwarding_address != self.own.forwarding_address {
            self.own.forwarding_address = forwarding_address;
            self.own.touch_all();
        }
        let mut left = 0;
        while let Some(key) = self.next_to_originate(now, left) {
            self.own.looked_at(&key);
            if self.originate(now, key) {
                left += 1;
            }
            // An instance may be all that a neighbour still had to load, and then there is more
            // to look at.
            if left > 0 && self.next_to_originate(now, left).is_none() {
                for neighbor in self.all_neighbors() {
                    self.continue_loading(now, neighbor);
                }
            }
        }
        self.present_to_newcomers(now);
    }

    /// The next of our LSAs to look at, after so many have left with the present burst.
    fn next_to_originate(&mut self, now: Instant, left: usize) -> Option<DbKey> {
        let key = self.own.next_stale()?;
        let is_over = left >= BURST || self.timers.due(Timer::NextBurst).is_some();
        if is_over && key.lsa.ls_type != LsType::Router {
            self.timers.set_if_idle(Timer::NextBurst, now + NEXT_BURST);
            return None;
        }
        Some(key)
    }

    /// Sets what is to be announced.
    pub(crate) fn want(&mut self, stubs: Vec<Stub>, externals: BTreeMap<Ipv4Addr, External>) {
        let mut stubs = stubs;
        if self.is_sabotaged(Sabotage::KeepUnhealthy) {
            stubs.extend(&self.stubs);
        }
        let before = std::mem::replace(&mut self.externals, externals);
        let changed: Vec<Ipv4Addr> = before
            .keys()
            .chain(self.externals.keys())
            .filter(|prefix| before.get(prefix) != self.externals.get(prefix))
            .copied()
            .collect();
        for prefix in changed {
            self.own.touch(self.external_key(prefix));
        }
        self.stubs = stubs;
        self.own.is_asbr |= !self.externals.is_empty();
        self.touch_restart();
        self.touch_router_lsa();
    }

    /// Brings one of our LSAs in line with what is wanted: now, when the pace allows, or when
    /// there is somebody to tell. Says whether an instance left; a call that finds nothing to
    /// change does nothing.
    fn originate(&mut self, now: Instant, key: DbKey) -> bool {
        let wrapping = self.own.get(&key).is_some_and(|own| own.wrapping);
        if !self.anyone_full() || !self.may_originate() || wrapping {
            self.timers.clear(Timer::Originate(key));
            if !self.anyone_full() && !self.anyone_takes_floods() {
                self.unsay(&key);
            }
            return false;
        }
        match self.wanted(&key) {
            Some(content) => self.publish(now, key, &content),
            None => self.withdraw(now, key),
        }
    }

    /// While nobody is Full or about to be, an instance that is not what is wanted any more leaves
    /// the database unheard, so that it is not described to the next neighbour; that one tells us
    /// of its copy, if it has one. The Router-LSA is never described.
    fn unsay(&mut self, key: &DbKey) {
        let is_described = key.lsa.ls_type != LsType::Router && self.own.is_published(key);
        let is_wanted = || {
            self.wanted(key)
                .is_some_and(|content| self.says(key, &content))
        };
        if is_described && !is_wanted() {
            self.forget_lsa(key);
        }
    }

    /// Whether an instance of this run is in the database that says this.
    fn says(&self, key: &DbKey, content: &Content) -> bool {
        self.own.is_published(key)
            && !self.lsdb.is_leaving(key)
            && self
                .lsdb
                .entry(key)
                .is_some_and(|entry| entry.body() == content.body)
    }

    fn publish(&mut self, now: Instant, key: DbKey, content: &Content) -> bool {
        let refresh_due = self.own.get(&key).is_some_and(|own| own.refresh_due);
        if self.says(&key, content) && !refresh_due {
            self.timers.clear(Timer::Originate(key));
            return false;
        }
        let earliest = self.gathered(now, &key).max(self.next_departure(now, &key));
        if earliest > now {
            if !self.is_sabotaged(Sabotage::LoseTheLastState) {
                self.timers.set(Timer::Originate(key), earliest);
            }
            return false;
        }
        self.timers.clear(Timer::Originate(key));
        self.originate_now(now, key, content);
        true
    }

    /// Flushes an LSA of ours that is wanted no more (§14.1).
    fn withdraw(&mut self, now: Instant, key: DbKey) -> bool {
        self.timers.clear(Timer::Refresh(key));
        if self.lsdb.entry(&key).is_none() || self.lsdb.is_leaving(&key) {
            self.timers.clear(Timer::Originate(key));
            return false;
        }
        let earliest = self.next_departure(now, &key);
        if earliest > now {
            self.timers.set(Timer::Originate(key), earliest);
            return false;
        }
        self.timers.clear(Timer::Originate(key));
        let own = self.own.record(key);
        own.is_published = false;
        own.refresh_due = false;
        own.left = Some(now);
        self.counters.flushed += 1;
        self.event(Event::Flushed { key: key.lsa });
        self.flush(now, key);
        true
    }

    /// When the pace lets another instance of an LSA leave.
    pub(crate) fn next_departure(&self, now: Instant, key: &DbKey) -> Instant {
        if self.is_sabotaged(Sabotage::Hurry) {
            return now;
        }
        let own = self.own.get(key);
        own.and_then(|own| Some(own.left? + self.pace(own.is_contended(now))))
            .unwrap_or(now)
    }

    /// The shortest time between two instances of an LSA.
    fn pace(&self, is_contended: bool) -> Duration {
        let arrival = self
            .interfaces
            .iter()
            .map(|interface| interface.settings.peer_min_arrival)
            .max()
            .unwrap_or_default();
        let pace = arrival + ARRIVAL_MARGIN;
        if is_contended {
            pace.max(MIN_LS_INTERVAL)
        } else {
            pace
        }
    }

    /// When the first Router-LSA need not wait any longer for other adjacencies.
    fn gathered(&mut self, now: Instant, key: &DbKey) -> Instant {
        let under_way = key.lsa.ls_type == LsType::Router
            && !self.own.is_published(key)
            && self.interfaces.iter().any(|interface| {
                interface.neighbors.values().any(|neighbor| {
                    neighbor.state >= State::ExStart && neighbor.state != State::Full
                })
            });
        if under_way {
            *self.own.gathering.get_or_insert(now + GATHERING_TIME)
        } else {
            now
        }
    }

    fn originate_now(&mut self, now: Instant, key: DbKey, content: &Content) {
        let in_database = self.lsdb.entry(&key).is_some();
        let sequence = match self.own.record(key).sequence {
            None => INITIAL_SEQUENCE,
            Some(MAX_SEQUENCE) if in_database => {
                self.start_sequence_over(now, key);
                return;
            }
            Some(MAX_SEQUENCE) => INITIAL_SEQUENCE,
            Some(sequence) => sequence + 1,
        };
        let lsa = Lsa::originate(key.lsa, content.options, sequence, &content.body)
            .expect("MAX_STUBS and MAX_INTERFACES keep a Router-LSA below 64 KiB");
        let up_to_date = self.settle_requests(&key, lsa.header());
        self.clear_retransmissions(&key);
        self.install(now, key, lsa, Via::Ourselves);
        self.flood(now, key, None, &up_to_date);
        let own = self.own.record(key);
        own.sequence = Some(sequence);
        own.is_published = true;
        own.left = Some(now);
        own.refresh_due = false;
        let jitter = self.rng.below(REFRESH_JITTER);
        self.timers
            .set(Timer::Refresh(key), now + REFRESH_TIME - jitter);
        if key.lsa.ls_type == LsType::Router {
            self.own.gathering = None;
            self.own.stubs.clone_from(&self.stubs);
        }
        self.counters.originated += 1;
        self.event(Event::Originated {
            key: key.lsa,
            sequence,
        });
    }

    /// The last sequence number is used up: the instance is flushed, and the next one follows
    /// when it has left the database (§12.1.6).
    fn start_sequence_over(&mut self, now: Instant, key: DbKey) {
        let own = self.own.record(key);
        own.wrapping = true;
        own.left = Some(now);
        self.flush(now, key);
    }

    /// An LSA has left the database; it may be one of ours.
    pub(crate) fn lsa_is_gone(&mut self, key: &DbKey) {
        if let Some(own) = self.own.get_mut(key) {
            own.is_published = false;
            if std::mem::take(&mut own.wrapping) {
                own.sequence = None;
            }
            self.timers.clear(Timer::Refresh(*key));
            self.own.touch(*key);
        }
    }

    pub(crate) fn refresh_timeout(&mut self, key: DbKey) {
        self.own.record(key).refresh_due = true;
        self.own.touch(key);
    }

    /// Gives our LSAs to the neighbours that they were not described to. Who is to get the next
    /// instance need not get this one, and would drop the next if it did; but the next may be
    /// called off, so that they stay newcomers until it has left.
    fn present_to_newcomers(&mut self, now: Instant) {
        let router_lsa = self.router_lsa_key();
        let owed = self.own.owed(|key, id| {
            let may_be_told = *key != router_lsa || self.state_of(id) == State::Full;
            may_be_told && self.timers.due(Timer::Originate(*key)).is_none()
        });
        for (key, id) in owed {
            self.own.is_told(&key, id);
            self.present(now, key, id);
        }
    }

    fn present(&mut self, now: Instant, key: DbKey, id: NeighborId) {
        let has_instance = self.own.is_published(&key) && self.lsdb.entry(&key).is_some();
        let takes_it = self.neighbor(id).is_some_and(Neighbor::takes_floods);
        if !has_instance || !takes_it {
            return;
        }
        self.put_on_retransmission_list(now, id, key);
        if let Some(interface) = self.interfaces.get_mut(id.interface.0) {
            interface.floods.push(key);
        }
    }

    /// An LSA of ours was left out of a Database Description. It is flooded when what changes it
    /// has come or is off; the Router-LSA not before Full.
    pub(crate) fn leave_out(&mut self, key: DbKey, id: NeighborId) {
        self.own.owe(key, id);
    }

    /// Whether an LSA of ours is to be left out of a Database Description, because what it says
    /// is about to change: the neighbour would drop that instance within MinLSArrival of the one
    /// it asked for. Our Router-LSA changes as soon as the neighbour is Full.
    pub(crate) fn is_about_to_change(&self, key: &DbKey) -> bool {
        *key == self.router_lsa_key()
            || self.own.get(key).is_some_and(|own| {
                !own.is_published || self.timers.due(Timer::Originate(*key)).is_some()
            })
    }

    /// A neighbour was sent LSAs that it asked for; the pace counts from then for ours.
    pub(crate) fn answered(&mut self, now: Instant, keys: &[LsaKey]) {
        let router_id = self.config.router_id;
        for key in keys
            .iter()
            .filter(|key| key.advertising_router == router_id)
        {
            if let Some(own) = self.own.get_mut(&DbKey::of_area(*key)) {
                own.left = Some(now);
            }
        }
    }

    /// Whether an LSA may have been described or flooded to somebody who is still there.
    fn anyone_takes_floods(&self) -> bool {
        self.interfaces
            .iter()
            .any(|interface| interface.neighbors.values().any(Neighbor::takes_floods))
    }

    pub(crate) fn anyone_full(&self) -> bool {
        self.interfaces.iter().any(|interface| interface.any_full())
    }

    /// What a received LSA that is newer than the database's copy is to us.
    pub(crate) fn judge_self_originated(&self, key: &DbKey, header: &LsaHeader) -> SelfOriginated {
        let has_our_address = self
            .interfaces
            .iter()
            .filter_map(|interface| interface.link)
            .any(|link| link.address == header.key.link_state_id);
        // A Network-LSA with our address is left over from when we had another router id.
        let ours = header.key.advertising_router == self.config.router_id
            || header.key.ls_type == LsType::Network && has_our_address;
        if !ours {
            SelfOriginated::No
        } else if self.is_adopted(header) {
            SelfOriginated::Adopted
        } else if self.may_originate() && self.is_wanted(key) {
            SelfOriginated::Superseded
        } else if header.age < MAX_AGE {
            SelfOriginated::Unwanted
        } else {
            SelfOriginated::No
        }
    }

    /// A newer instance of an LSA of ours came from the network, from an earlier run or from a
    /// router with our id. It is not flooded on: a neighbour would drop our answer within
    /// MinLSArrival of it. Nor is there an answer before somebody is Full.
    pub(crate) fn supersede(&mut self, now: Instant, key: DbKey, header: &LsaHeader) {
        self.counters.self_originated_received += 1;
        self.event(Event::SelfOriginatedReceived {
            ls_type: header.key.ls_type.into(),
            sequence: header.sequence,
        });
        self.own.record(key).outdone(now, header);
        if self.is_sabotaged(Sabotage::OutbidNothing) {
            return;
        }
        self.own.touch(key);
    }

    /// A copy of an LSA of ours came while a graceful restart is not over (RFC 3623 §2.2). It is
    /// not flooded on: the neighbours have what we left them with.
    pub(crate) fn adopt(&mut self, now: Instant, key: DbKey, header: &LsaHeader) {
        self.counters.self_originated_received += 1;
        self.own.record(key).outdone(now, header);
    }

    /// An LSA came that would be ours if we wanted it. A route is flushed by an instance above all
    /// that are known, anything else as it was received. If we want it later, its next instance
    /// goes above that, and not too soon after.
    pub(crate) fn flush_unwanted(&mut self, now: Instant, key: DbKey, header: &LsaHeader) {
        if key == self.external_key(key.lsa.link_state_id) && self.own.has_room() {
            let own = self.own.record(key);
            own.outdone(now, header);
            own.left = Some(now);
            if let Some(known) = own.sequence.filter(|&known| known != MAX_SEQUENCE) {
                self.flush_above(now, key, known, header.options);
                return;
            }
        }
        self.flush(now, key);
    }

    /// An instance that we, or an earlier run of us, may have flushed before came back, from a
    /// router that had not heard of it. A second flush of it would be the same as the first on the
    /// wire, and an acknowledgement of the first, still on its way, would end the second's
    /// retransmission: the instance would stay with that router until it dies of age. So the flush
    /// is of an instance above all.
    fn flush_above(&mut self, now: Instant, key: DbKey, known: i32, options: Options) {
        let Some(entry) = self.lsdb.entry(&key) else {
            return;
        };
        let sequence = known + 1;
        let lsa = Lsa::originate(key.lsa, options, sequence, entry.body())
            .expect("a body of the same length came in an LSA")
            .at_age(MAX_AGE);
        self.own.record(key).sequence = Some(sequence);
        self.clear_retransmissions(&key);
        self.install(now, key, lsa, Via::Ourselves);
        self.flood(now, key, None, &[]);
        self.purge(now, &key);
    }
}
