//! The database as plain data.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{DbKey, Entry, Lsdb, Via};
use crate::ids::InterfaceId;
use crate::moment::{Moment, OutOfRange};
use crate::packet::{Lsa, MAX_AGE};

/// An LSA of the database. Which one it is stands in its header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntrySnapshot {
    lsa: Lsa,
    link: Option<InterfaceId>,
    installed: Moment,
    via: Via,
    sent: Option<Moment>,
}

impl Lsdb {
    pub(crate) fn snapshot(&self, base: Instant) -> Vec<EntrySnapshot> {
        let Self {
            entries,
            // Both follow from the entries.
            bytes: _,
            leaving: _,
            // Whoever compares it with an earlier one is of this process, too.
            version: _,
        } = self;
        let entry = |(key, entry): (&DbKey, &Entry)| {
            let Entry {
                lsa,
                installed,
                via,
                sent,
            } = entry;
            EntrySnapshot {
                lsa: lsa.clone(),
                link: key.link,
                installed: Moment::new(*installed, base),
                via: *via,
                sent: sent.map(|at| Moment::new(at, base)),
            }
        };
        entries.iter().map(entry).collect()
    }

    pub(crate) fn restore(
        snapshots: Vec<EntrySnapshot>,
        base: Instant,
    ) -> Result<Self, OutOfRange> {
        let mut lsdb = Self::default();
        for snapshot in snapshots {
            let EntrySnapshot {
                lsa,
                link,
                installed,
                via,
                sent,
            } = snapshot;
            let key = DbKey {
                lsa: lsa.key(),
                link,
            };
            lsdb.bytes += lsa.wire_len();
            if lsa.header().age >= MAX_AGE {
                lsdb.leaving.insert(key);
            }
            let entry = Entry {
                lsa,
                installed: installed.instant(base)?,
                via,
                sent: sent.map(|at| at.instant(base)).transpose()?,
            };
            if let Some(twice) = lsdb.entries.insert(key, entry) {
                lsdb.bytes -= twice.wire_len();
            }
        }
        Ok(lsdb)
    }
}
