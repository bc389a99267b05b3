//! Our Router-LSA: what it says, when an instance leaves, and what is done about copies of our
//! LSAs that come from the network (RFC 2328 §12.4, §12.4.1, §13.4, §12.1.6).
//!
//! Three rules keep a switch from dropping an instance for MinLSArrival and getting it only by
//! a retransmission seconds later:
//! - While nobody is Full there is nobody to tell: nothing leaves before the first neighbour is
//!   Full, and then everything does, once, above any stale copy that the exchange brought.
//! - A change leaves at once if the last instance is older than the neighbours' MinLSArrival;
//!   later changes wait for that and leave together.
//! - The Router-LSA is flooded to a neighbour that becomes Full, and not described to it before.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::config::{LinkState, NetworkType, Stub};
use crate::ids::NeighborId;
use crate::interface::Interface;
use crate::lsdb::{DbKey, Via};
use crate::neighbor::State;
use crate::packet::{
    INITIAL_SEQUENCE, LinkKind, LsType, Lsa, LsaHeader, LsaKey, MAX_AGE, MAX_SEQUENCE,
    RESERVED_SEQUENCE, RouterLink, RouterLsa,
};
use crate::router::Router;
use crate::timer::Timer;
use crate::view::Event;

mod snapshot;

pub(crate) use snapshot::OwnSnapshot;

/// MaxLinkMetric (RFC 6987): nobody goes through us while there is another way.
const MAX_LINK_METRIC: u16 = 0xffff;
/// What the pace adds to the neighbours' MinLSArrival, for their clocks and queues.
const ARRIVAL_MARGIN: Duration = Duration::from_millis(50);
/// MinLSInterval, the pace while another router contends for our LSAs.
const MIN_LS_INTERVAL: Duration = Duration::from_secs(5);
/// So many contending copies within [`CONTENTION_TIME`] are a contention, and not what is left
/// of an earlier run.
const CONTENTIONS: usize = 3;
const CONTENTION_TIME: Duration = Duration::from_secs(60);
/// LSRefreshTime.
const REFRESH_TIME: Duration = Duration::from_secs(1800);
/// The directors of a cluster start together and should not refresh together.
const REFRESH_JITTER: Duration = Duration::from_secs(180);
/// How long the first origination waits for adjacencies that are under way, so that it has the
/// links of all uplinks.
const GATHERING_TIME: Duration = Duration::from_millis(200);

/// What a received LSA is to us (§13.4).
pub(crate) enum SelfOriginated {
    /// Somebody else's, or one of ours that leaves the area anyway.
    No,
    /// Our Router-LSA: a newer instance takes its place.
    Superseded,
    /// An LSA that we would not originate: it is flushed as it was received.
    Unwanted,
}

/// Our Router-LSA.
#[derive(Debug)]
pub(crate) struct OwnRouterLsa {
    /// Something changed that it may depend on; it is looked at when the present input has been
    /// taken in whole, so that one input makes one instance.
    pub(crate) is_stale: bool,
    /// The neighbours that became Full and have not been sent an instance since.
    pub(crate) newcomers: Vec<NeighborId>,
    /// The highest sequence number that is known to be used.
    pub(crate) sequence: Option<i32>,
    /// What the instance in the database says, if this run originated it.
    pub(crate) published: Option<Published>,
    /// When the neighbours last got an instance, as far as we know.
    left: Option<Instant>,
    refresh_due: bool,
    /// The sequence numbers start over once the last instance is purged.
    wrapping: bool,
    /// Until when the first origination waits for adjacencies under way.
    gathering: Option<Instant>,
    /// When copies came that contend with a published instance, the last few.
    contentions: VecDeque<Instant>,
}

/// What an instance of our Router-LSA says.
#[derive(Debug)]
pub(crate) struct Published {
    body: Vec<u8>,
    pub(crate) stubs: Vec<Stub>,
}

impl OwnRouterLsa {
    pub(crate) fn new(sequence_hint: Option<i32>) -> Self {
        Self {
            is_stale: false,
            newcomers: Vec::new(),
            sequence: sequence_hint.filter(|&hint| hint != RESERVED_SEQUENCE),
            published: None,
            left: None,
            refresh_due: false,
            wrapping: false,
            gathering: None,
            contentions: VecDeque::new(),
        }
    }

    fn says(&self, body: &[u8]) -> bool {
        self.published
            .as_ref()
            .is_some_and(|published| published.body == body)
    }

    fn is_contended(&self, now: Instant) -> bool {
        self.contentions.len() >= CONTENTIONS
            && self
                .contentions
                .front()
                .is_some_and(|&first| now.saturating_duration_since(first) < CONTENTION_TIME)
    }
}

impl Router {
    /// The place of our Router-LSA.
    pub(crate) fn router_lsa_key(&self) -> DbKey {
        DbKey::of_area(LsaKey {
            ls_type: LsType::Router,
            link_state_id: self.config.router_id.0,
            advertising_router: self.config.router_id,
        })
    }

    /// Brings our Router-LSA in line with what the input changed, and gives it to those who
    /// became Full.
    pub(crate) fn update_router_lsa(&mut self, now: Instant) {
        // Twice at most: an instance may purge its predecessor of the highest sequence number,
        // or be all that a neighbour still had to load.
        while std::mem::take(&mut self.own.is_stale) {
            self.originate(now);
        }
        // Who is to get the next instance need not get this one, and would drop the next if it
        // did. The next may be called off, so that they stay newcomers until it has left.
        if self.timers.due(Timer::Originate).is_none() {
            for id in std::mem::take(&mut self.own.newcomers) {
                self.present_ourselves(now, id);
            }
        }
    }

    /// Brings our Router-LSA in line with what is wanted: now, when the pace allows, or when
    /// there is somebody to tell. A call that finds nothing to change does nothing.
    fn originate(&mut self, now: Instant) {
        if !self.anyone_full() || !self.may_originate() || self.own.wrapping {
            self.timers.clear(Timer::Originate);
            return;
        }
        let (router_lsa, stubs) = self.wanted_router_lsa();
        let body = router_lsa.encode();
        if self.own.says(&body) && !self.own.refresh_due {
            self.timers.clear(Timer::Originate);
            return;
        }
        let earliest = self.gathered(now).max(self.next_departure(now));
        if earliest > now {
            self.timers.set(Timer::Originate, earliest);
            return;
        }
        self.timers.clear(Timer::Originate);
        self.originate_now(now, Published { body, stubs });
    }

    /// When the pace lets another instance leave.
    pub(crate) fn next_departure(&self, now: Instant) -> Instant {
        self.own.left.map_or(now, |left| left + self.pace(now))
    }

    /// The shortest time between two instances.
    fn pace(&self, now: Instant) -> Duration {
        let arrival = self
            .interfaces
            .iter()
            .map(|interface| interface.settings.peer_min_arrival)
            .max()
            .unwrap_or_default();
        let pace = arrival + ARRIVAL_MARGIN;
        if self.own.is_contended(now) {
            pace.max(MIN_LS_INTERVAL)
        } else {
            pace
        }
    }

    /// When the first origination need not wait any longer for other adjacencies.
    fn gathered(&mut self, now: Instant) -> Instant {
        let under_way = self.own.published.is_none()
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

    fn originate_now(&mut self, now: Instant, published: Published) {
        let key = self.router_lsa_key();
        let sequence = match self.own.sequence {
            None => INITIAL_SEQUENCE,
            Some(MAX_SEQUENCE) if self.lsdb.entry(&key).is_some() => {
                self.start_sequence_over(now, key);
                return;
            }
            Some(MAX_SEQUENCE) => INITIAL_SEQUENCE,
            Some(sequence) => sequence + 1,
        };
        let options = self.config.area_type.options();
        let lsa = Lsa::originate(key.lsa, options, sequence, &published.body)
            .expect("MAX_STUBS and MAX_INTERFACES keep a Router-LSA below 64 KiB");
        let up_to_date = self.settle_requests(&key, lsa.header());
        self.clear_retransmissions(&key);
        self.install(now, key, lsa, Via::Ourselves);
        self.flood(now, key, None, &up_to_date);
        self.counters.originated += 1;
        self.event(Event::Originated {
            sequence,
            stubs: published.stubs.len(),
        });
        self.own.sequence = Some(sequence);
        self.own.published = Some(published);
        self.own.left = Some(now);
        self.own.refresh_due = false;
        self.own.gathering = None;
        let jitter = self.rng.below(REFRESH_JITTER);
        self.timers.set(Timer::Refresh, now + REFRESH_TIME - jitter);
        for neighbor in self.all_neighbors() {
            self.continue_loading(now, neighbor);
        }
    }

    /// The last sequence number is used up: the instance is flushed, and the next one follows
    /// when it has left the database (§12.1.6).
    fn start_sequence_over(&mut self, now: Instant, key: DbKey) {
        self.own.wrapping = true;
        self.own.left = Some(now);
        self.flush(now, key);
    }

    /// Our Router-LSA has left the database.
    pub(crate) fn router_lsa_purged(&mut self) {
        self.own.is_stale = true;
        self.own.published = None;
        if self.own.wrapping {
            self.own.wrapping = false;
            self.own.sequence = None;
        }
    }

    pub(crate) fn refresh_timeout(&mut self) {
        self.own.refresh_due = true;
        self.own.is_stale = true;
    }

    /// A neighbour became Full: it gets our Router-LSA, which was not described to it.
    fn present_ourselves(&mut self, now: Instant, id: NeighborId) {
        let key = self.router_lsa_key();
        let has_instance = self.own.published.is_some() && self.lsdb.entry(&key).is_some();
        let is_told = self
            .neighbor(id)
            .is_none_or(|neighbor| neighbor.retransmit.contains_key(&key));
        if !has_instance || is_told {
            return;
        }
        self.put_on_retransmission_list(now, id, key);
        if let Some(interface) = self.interfaces.get_mut(id.interface.0) {
            interface.floods.push(key);
        }
    }

    pub(crate) fn anyone_full(&self) -> bool {
        self.interfaces.iter().any(|interface| {
            interface
                .neighbors
                .values()
                .any(|neighbor| neighbor.state == State::Full)
        })
    }

    /// What a received LSA that is newer than the database's copy is to us.
    pub(crate) fn judge_self_originated(&self, header: &LsaHeader) -> SelfOriginated {
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
        } else if DbKey::of_area(header.key) == self.router_lsa_key() && self.may_originate() {
            SelfOriginated::Superseded
        } else if header.age < MAX_AGE {
            SelfOriginated::Unwanted
        } else {
            SelfOriginated::No
        }
    }

    /// A newer instance of our Router-LSA came from the network, from an earlier run or from a
    /// router with our id. It is not flooded on: a neighbour would drop our answer within
    /// MinLSArrival of it. Nor is there an answer before somebody is Full.
    pub(crate) fn supersede_router_lsa(&mut self, now: Instant, header: &LsaHeader) {
        self.counters.self_originated_received += 1;
        self.event(Event::SelfOriginatedReceived {
            ls_type: header.key.ls_type.into(),
            sequence: header.sequence,
        });
        // A copy of the last sequence number takes the place of the flush of ours.
        self.own.wrapping = false;
        if self.own.published.take().is_some() {
            self.own.contentions.push_back(now);
            if self.own.contentions.len() > CONTENTIONS {
                self.own.contentions.pop_front();
            }
        }
        self.own.sequence = self.own.sequence.max(Some(header.sequence));
        self.own.left = self.own.left.max(departure_of(now, header));
        self.own.is_stale = true;
    }

    /// What our Router-LSA should say (§12.4.1), and the stubs in it.
    fn wanted_router_lsa(&self) -> (RouterLsa, Vec<Stub>) {
        let mut links = Vec::new();
        let described = self
            .interfaces
            .iter()
            .filter(|interface| interface.is_described());
        for interface in described {
            if let Some(link) = interface.link {
                match interface.settings.network {
                    NetworkType::PointToPoint => point_to_point_links(interface, link, &mut links),
                    NetworkType::Broadcast => links.push(broadcast_link(interface, link)),
                }
            }
        }
        links.extend(self.stubs.iter().map(|stub| RouterLink {
            kind: LinkKind::Stub,
            id: stub.prefix,
            data: Ipv4Addr::BROADCAST,
            metric: stub.metric,
        }));
        (RouterLsa { flags: 0, links }, self.stubs.clone())
    }
}

/// §12.4.1.1: a link to the neighbour when Full, and the subnet (option 2) for as long as the
/// interface is up. An unnumbered link is known by its ifIndex and has no subnet.
fn point_to_point_links(interface: &Interface, link: LinkState, links: &mut Vec<RouterLink>) {
    let data = if link.is_unnumbered() {
        Ipv4Addr::from_bits(link.index)
    } else {
        link.address
    };
    let full = interface
        .neighbors
        .values()
        .filter(|neighbor| neighbor.state == State::Full);
    links.extend(full.map(|neighbor| RouterLink {
        kind: LinkKind::PointToPoint,
        id: neighbor.router_id.0,
        data,
        metric: MAX_LINK_METRIC,
    }));
    if !link.is_unnumbered() {
        links.push(subnet(interface, link));
    }
}

/// §12.4.1.2: a transit link when fully adjacent to the Designated Router, else a stub network.
fn broadcast_link(interface: &Interface, link: LinkState) -> RouterLink {
    match interface.full_dr() {
        Some(dr) => RouterLink {
            kind: LinkKind::Transit,
            id: dr.address,
            data: link.address,
            metric: MAX_LINK_METRIC,
        },
        None => subnet(interface, link),
    }
}

fn subnet(interface: &Interface, link: LinkState) -> RouterLink {
    RouterLink {
        kind: LinkKind::Stub,
        id: link.subnet(),
        data: link.mask(),
        metric: interface.settings.cost,
    }
}

/// The latest time at which the sender may have got a copy that we receive now: each hop adds a
/// second of InfTransDelay to the age, so that the copy may be younger by that. At MaxAge the age
/// tells nothing. Nothing for a copy from before the clock began.
fn departure_of(now: Instant, header: &LsaHeader) -> Option<Instant> {
    if header.age >= MAX_AGE {
        return Some(now);
    }
    now.checked_sub(Duration::from_secs(header.age.saturating_sub(1).into()))
}
