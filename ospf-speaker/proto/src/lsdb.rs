//! The link-state database (RFC 2328 §12.2): LSAs as they were received, aged when looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::ids::InterfaceId;
use crate::packet::{LsType, Lsa, LsaHeader, LsaKey, MAX_AGE};

mod snapshot;

pub(crate) use snapshot::EntrySnapshot;

/// The most LSAs that are kept. A director's area has a few hundred.
pub(crate) const MAX_LSAS: usize = 100_000;
/// The most bytes of LSAs that are kept.
const MAX_BYTES: usize = 64 << 20;

/// An LSA's place in the database. LSAs of type 9 belong to one link, all others to the area
/// (or, as there is only one area, to the whole AS).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct DbKey {
    pub(crate) lsa: LsaKey,
    pub(crate) link: Option<InterfaceId>,
}

impl DbKey {
    /// The place of an LSA that came in, or goes out, on an interface.
    pub(crate) fn new(lsa: LsaKey, interface: InterfaceId) -> Self {
        Self {
            lsa,
            link: (lsa.ls_type == LsType::OpaqueLink).then_some(interface),
        }
    }

    /// The place of an LSA that is not of type 9.
    pub(crate) fn of_area(lsa: LsaKey) -> Self {
        Self { lsa, link: None }
    }

    /// Whether the LSA is flooded on this interface.
    pub(crate) fn spans(&self, interface: InterfaceId) -> bool {
        self.link.is_none_or(|link| link == interface)
    }
}

/// How an instance got into the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Via {
    /// A neighbour flooded it; MinLSArrival counts from it.
    Flooding,
    /// A neighbour sent it because we asked for it.
    Request,
    /// We originated it.
    Ourselves,
}

/// An LSA of the database.
#[derive(Debug)]
pub(crate) struct Entry {
    lsa: Lsa,
    installed: Instant,
    via: Via,
    sent: Option<Instant>,
}

impl Entry {
    /// The LSA as it is sent: one second of InfTransDelay older (§13.3).
    pub(crate) fn to_send(&self, now: Instant) -> Lsa {
        self.lsa.at_age((self.age(now) + 1).min(MAX_AGE))
    }

    pub(crate) fn header(&self, now: Instant) -> LsaHeader {
        LsaHeader {
            age: self.age(now),
            ..*self.lsa.header()
        }
    }

    pub(crate) fn body(&self) -> &[u8] {
        self.lsa.body()
    }

    /// The instance, at the age that it came with.
    pub(crate) fn lsa(&self) -> &Lsa {
        &self.lsa
    }

    pub(crate) fn link_state_id(&self) -> Ipv4Addr {
        self.lsa.key().link_state_id
    }

    pub(crate) fn wire_len(&self) -> usize {
        self.lsa.wire_len()
    }

    pub(crate) fn via(&self) -> Via {
        self.via
    }

    pub(crate) fn is_max_age(&self, now: Instant) -> bool {
        self.age(now) >= MAX_AGE
    }

    /// Whether the instance was installed less than `time` ago.
    pub(crate) fn is_younger_than(&self, time: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.installed) < time
    }

    /// Whether the instance was sent to anybody less than `time` ago.
    pub(crate) fn was_sent_within(&self, time: Duration, now: Instant) -> bool {
        self.sent
            .is_some_and(|sent| now.saturating_duration_since(sent) < time)
    }

    /// When the LSA reaches MaxAge.
    pub(crate) fn expires(&self) -> Instant {
        let left = MAX_AGE.saturating_sub(self.lsa.header().age);
        self.installed + Duration::from_secs(left.into())
    }

    fn age(&self, now: Instant) -> u16 {
        let elapsed = now.saturating_duration_since(self.installed).as_secs();
        u16::try_from(elapsed)
            .ok()
            .and_then(|elapsed| self.lsa.header().age.checked_add(elapsed))
            .map_or(MAX_AGE, |age| age.min(MAX_AGE))
    }
}

/// The database has no room for another LSA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DatabaseFull;

/// The link-state database.
#[derive(Debug, Default)]
pub(crate) struct Lsdb {
    entries: BTreeMap<DbKey, Entry>,
    bytes: usize,
    /// Those at MaxAge, which are on their way out (§14).
    leaving: BTreeSet<DbKey>,
    /// How often what the LSAs say has changed; a refresh says the same.
    version: u64,
}

impl Lsdb {
    pub(crate) fn entry(&self, key: &DbKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&DbKey, &Entry)> {
        self.entries.iter()
    }

    /// Whether the LSA, if it is new, finds room.
    pub(crate) fn admit(&self, key: &DbKey, lsa: &Lsa) -> Result<(), DatabaseFull> {
        let (count, bytes) = match self.entries.get(key) {
            Some(old) => (self.entries.len() - 1, self.bytes - old.wire_len()),
            None => (self.entries.len(), self.bytes),
        };
        if count < MAX_LSAS && bytes + lsa.wire_len() <= MAX_BYTES {
            Ok(())
        } else {
            Err(DatabaseFull)
        }
    }

    /// Puts an instance in the place of the present one, if any.
    pub(crate) fn install(&mut self, now: Instant, key: DbKey, lsa: Lsa, via: Via) {
        let was_leaving = self.leaving.contains(&key);
        if lsa.header().age >= MAX_AGE {
            self.leaving.insert(key);
        } else {
            self.leaving.remove(&key);
        }
        self.bytes += lsa.wire_len();
        let entry = Entry {
            lsa,
            installed: now,
            via,
            sent: None,
        };
        let is_leaving = self.leaving.contains(&key);
        let old = self.entries.insert(key, entry);
        let is_refresh = old.is_some_and(|old| {
            self.bytes -= old.wire_len();
            let new = self.entries.get(&key);
            new.is_some_and(|new| new.body() == old.body()) && was_leaving == is_leaving
        });
        if !is_refresh {
            self.version += 1;
        }
    }

    /// Another number after each change of what the LSAs say.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn remove(&mut self, key: &DbKey) {
        self.leaving.remove(key);
        if let Some(old) = self.entries.remove(key) {
            self.bytes -= old.wire_len();
            self.version += 1;
        }
    }

    /// Sets an LSA's age to MaxAge (§14, and §14.1 for our own).
    pub(crate) fn expire(&mut self, key: &DbKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.lsa = entry.lsa.at_age(MAX_AGE);
            entry.sent = None;
            self.leaving.insert(*key);
            self.version += 1;
        }
    }

    pub(crate) fn mark_sent(&mut self, key: &DbKey, now: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.sent = Some(now);
        }
    }

    /// The LSAs at MaxAge.
    pub(crate) fn leaving(&self) -> impl Iterator<Item = DbKey> + '_ {
        self.leaving.iter().copied()
    }

    /// Whether an LSA is at MaxAge.
    pub(crate) fn is_leaving(&self, key: &DbKey) -> bool {
        self.leaving.contains(key)
    }

    /// The LSAs that belong to one link.
    pub(crate) fn of_link(&self, interface: InterfaceId) -> Vec<DbKey> {
        self.entries
            .keys()
            .filter(|key| key.link == Some(interface))
            .copied()
            .collect()
    }
}
