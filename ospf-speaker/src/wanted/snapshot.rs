//! What the owner said, as plain data. The file is read anew and the overrides are kept anyway.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use isopath_api::config::DirectorFile;
use isopath_api::declare::Announce;
use isopath_api::ids::Vip;
use isopath_api::reason::Reason;
use serde::{Deserialize, Serialize};

use super::{Override, OwnedSet, Wanted};

/// The set of the owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedSnapshot {
    announced: BTreeMap<Vip, Announce>,
    withheld: BTreeMap<Vip, Reason>,
    hold: Duration,
    /// How long the owner has been silent.
    silent: Duration,
    expired: bool,
}

impl Wanted {
    /// What the owner said, if there is one. Its connection ends with this process.
    pub(crate) fn snapshot(&self, now: Instant) -> Option<WantedSnapshot> {
        let Self {
            // Of the file.
            area: _,
            file: _,
            set,
            overrides: _,
            // A speaker that stops is not upgraded.
            stopping: _,
        } = self;
        let OwnedSet {
            owner: _,
            announced,
            withheld,
            hold,
            last_word,
            expired,
        } = set.as_ref()?;
        Some(WantedSnapshot {
            announced: announced.clone(),
            withheld: withheld.clone(),
            hold: *hold,
            silent: now.saturating_duration_since(*last_word),
            expired: *expired,
        })
    }

    /// Goes on from a snapshot that was taken at `taken`. The set of the owner is held for what
    /// is left of its time until it has found the new process.
    pub(crate) fn restore(
        file: &DirectorFile,
        wait_for_agent: bool,
        overrides: BTreeMap<Vip, Override>,
        snapshot: Option<WantedSnapshot>,
        taken: Instant,
    ) -> Self {
        let set = snapshot.map(|snapshot| {
            let WantedSnapshot {
                announced,
                withheld,
                hold,
                silent,
                expired,
            } = snapshot;
            OwnedSet {
                owner: None,
                announced,
                withheld,
                hold,
                last_word: taken.checked_sub(silent).unwrap_or(taken),
                expired,
            }
        });
        Self {
            set,
            ..Self::new(file, wait_for_agent, overrides)
        }
    }
}
