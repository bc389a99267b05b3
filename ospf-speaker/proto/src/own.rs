//! The LSAs of our own: what is known of each, whether its instance is out or not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::config::{MAX_EXTERNALS, Stub};
use crate::ids::NeighborId;
use crate::lsdb::DbKey;
use crate::packet::{LsaHeader, MAX_AGE, Options, RESERVED_SEQUENCE};

mod snapshot;

pub(crate) use snapshot::OwnSnapshot;

/// So many contending copies within [`CONTENTION_TIME`] are a contention, and not what is left
/// of an earlier run.
const CONTENTIONS: usize = 3;
const CONTENTION_TIME: Duration = Duration::from_secs(60);
/// The most LSAs of which anything is remembered: twice what can be announced, so that a whole
/// set can be withdrawn and another announced without forgetting the first one's numbers.
const MAX_RECORDS: usize = 2 * MAX_EXTERNALS + 64;

/// What an instance says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) options: Options,
    pub(crate) body: Vec<u8>,
}

/// All LSAs of our own.
#[derive(Debug)]
pub(crate) struct OwnLsas {
    records: BTreeMap<DbKey, OwnLsa>,
    /// Those that something changed that they may depend on; they are looked at when the present
    /// input has been taken in whole, so that one input makes one instance.
    stale: BTreeSet<DbKey>,
    /// The neighbours that are to be given the instance in the database, because the Database
    /// Description left it out.
    newcomers: BTreeMap<DbKey, Vec<NeighborId>>,
    /// The sequence number that an LSA without a record goes above.
    hint: Option<i32>,
    /// Until when the first Router-LSA waits for adjacencies under way.
    pub(crate) gathering: Option<Instant>,
    /// The stubs that the Router-LSA in the database carries.
    pub(crate) stubs: Vec<Stub>,
    /// Whether we are, or were in this run, an AS boundary router: the E bit comes with the
    /// first external route and stays, because its change would cost the switches a calculation.
    pub(crate) is_asbr: bool,
    /// Where type 7 LSAs send packets to.
    pub(crate) forwarding_address: Option<Ipv4Addr>,
}

/// What is known of an LSA of our own.
#[derive(Debug, Default)]
pub(crate) struct OwnLsa {
    /// The highest sequence number that is known to be used. It outlives a flush: a router that
    /// still holds the flushed instance would take a lower one for older.
    pub(crate) sequence: Option<i32>,
    /// Whether the instance in the database is one that this run originated.
    pub(crate) is_published: bool,
    /// When the neighbours last got an instance or its flush, as far as we know.
    pub(crate) left: Option<Instant>,
    pub(crate) refresh_due: bool,
    /// The sequence numbers start over once the last instance is purged.
    pub(crate) wrapping: bool,
    /// When copies came that contend with a published instance, the last few.
    contentions: VecDeque<Instant>,
}

impl OwnLsas {
    pub(crate) fn new(hint: Option<i32>, is_asbr: bool) -> Self {
        Self {
            records: BTreeMap::new(),
            stale: BTreeSet::new(),
            newcomers: BTreeMap::new(),
            hint: hint.filter(|&hint| hint != RESERVED_SEQUENCE),
            gathering: None,
            stubs: Vec::new(),
            is_asbr,
            forwarding_address: None,
        }
    }

    #[cfg(feature = "sabotage")]
    pub(crate) fn forget_the_hint(&mut self) {
        self.hint = None;
    }

    pub(crate) fn get(&self, key: &DbKey) -> Option<&OwnLsa> {
        self.records.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &DbKey) -> Option<&mut OwnLsa> {
        self.records.get_mut(key)
    }

    /// The record of an LSA, a new one if there is none.
    pub(crate) fn record(&mut self, key: DbKey) -> &mut OwnLsa {
        if !self.has_room() && !self.records.contains_key(&key) {
            self.forget_idle();
        }
        let hint = self.hint;
        self.records.entry(key).or_insert_with(|| OwnLsa {
            sequence: hint,
            ..OwnLsa::default()
        })
    }

    /// Whether another record fits without forgetting any.
    pub(crate) fn has_room(&self) -> bool {
        self.records.len() < MAX_RECORDS
    }

    /// Makes room by the records of LSAs that are not out.
    fn forget_idle(&mut self) {
        let stale = &self.stale;
        self.records
            .retain(|key, record| record.is_published || stale.contains(key));
    }

    pub(crate) fn is_published(&self, key: &DbKey) -> bool {
        self.get(key).is_some_and(|record| record.is_published)
    }

    /// The LSAs of which an instance of this run is in the database.
    pub(crate) fn published(&self) -> impl Iterator<Item = &DbKey> {
        self.records
            .iter()
            .filter(|(_, own)| own.is_published)
            .map(|(key, _)| key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &DbKey> {
        self.records.keys()
    }

    /// Something changed that an LSA may depend on.
    pub(crate) fn touch(&mut self, key: DbKey) {
        self.record(key);
        self.stale.insert(key);
    }

    /// Something changed that all LSAs may depend on.
    pub(crate) fn touch_all(&mut self) {
        self.stale.extend(self.records.keys());
    }

    /// The next LSA to look at: the Router-LSA, which all others need, comes first.
    pub(crate) fn next_stale(&self) -> Option<DbKey> {
        self.stale.first().copied()
    }

    pub(crate) fn looked_at(&mut self, key: &DbKey) {
        self.stale.remove(key);
    }

    /// A neighbour was not told of an LSA by its Database Description.
    pub(crate) fn owe(&mut self, key: DbKey, neighbor: NeighborId) {
        let newcomers = self.newcomers.entry(key).or_default();
        if !newcomers.contains(&neighbor) {
            newcomers.push(neighbor);
        }
    }

    /// A neighbour is flooded the LSA, or an instance of it that comes after the one it is owed.
    pub(crate) fn is_told(&mut self, key: &DbKey, neighbor: NeighborId) {
        if let Some(newcomers) = self.newcomers.get_mut(key) {
            newcomers.retain(|&newcomer| newcomer != neighbor);
            if newcomers.is_empty() {
                self.newcomers.remove(key);
            }
        }
    }

    /// A neighbour's adjacency ends; the next Database Description lists anew.
    pub(crate) fn owe_nothing(&mut self, neighbor: NeighborId) {
        self.newcomers.retain(|_, newcomers| {
            newcomers.retain(|&newcomer| newcomer != neighbor);
            !newcomers.is_empty()
        });
    }

    /// Those who are owed an LSA for which `is_due` holds.
    pub(crate) fn owed(
        &self,
        is_due: impl Fn(&DbKey, NeighborId) -> bool,
    ) -> Vec<(DbKey, NeighborId)> {
        let all = self
            .newcomers
            .iter()
            .flat_map(|(&key, newcomers)| newcomers.iter().map(move |&newcomer| (key, newcomer)));
        all.filter(|(key, newcomer)| is_due(key, *newcomer))
            .collect()
    }

    /// The highest sequence number of all.
    pub(crate) fn highest_sequence(&self) -> Option<i32> {
        self.records
            .values()
            .filter_map(|record| record.sequence)
            .max()
    }
}

impl OwnLsa {
    /// A copy came from the network that a neighbour has, and that is newer than ours.
    pub(crate) fn outdone(&mut self, now: Instant, header: &LsaHeader) {
        // A copy of the last sequence number takes the place of the flush of ours.
        self.wrapping = false;
        if std::mem::take(&mut self.is_published) {
            self.contentions.push_back(now);
            if self.contentions.len() > CONTENTIONS {
                self.contentions.pop_front();
            }
        }
        self.sequence = self.sequence.max(Some(header.sequence));
        self.left = self.left.max(departure_of(now, header));
    }

    pub(crate) fn is_contended(&self, now: Instant) -> bool {
        self.contentions.len() >= CONTENTIONS
            && self
                .contentions
                .front()
                .is_some_and(|&first| now.saturating_duration_since(first) < CONTENTION_TIME)
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
