//! What was there before, kept in the state directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use isopath_api::ids::Vip;
use serde::{Deserialize, Serialize};

use super::observed::Place;
use super::step::Step;
use crate::store::{self, StoreError};

/// What was changed, and what was there before. It is written before anything is changed, so
/// that a crash leaves a line too many, never a change that nobody can take back. A line whose
/// change did not happen does no harm: only what still is as it was set is taken back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ledger {
    /// The kernel and its network that all this is about.
    pub(super) place: Place,
    /// The sysctls, in the order in which they were set.
    pub(super) sysctls: Vec<Sysctl>,
    /// The interfaces.
    pub(super) interfaces: BTreeMap<String, Change>,
    /// The VIPs that were not there.
    pub(super) vips: BTreeSet<Placed>,
    /// The UDP ports that were not open to GUE.
    pub(super) ports: BTreeSet<u16>,
    /// Whether there is a table of ours for the MSS.
    pub(super) mss: bool,
}

/// A sysctl that was set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sysctl {
    /// Its name, as under `/proc/sys`.
    pub(super) key: String,
    pub(super) before: u32,
    pub(super) set: u32,
}

/// What was done to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Change {
    /// It was not there.
    Made,
    /// It was down.
    Raised,
}

/// A VIP on an interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Placed {
    pub(super) interface: String,
    pub(super) vip: Vip,
}

impl Ledger {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            ..Self::default()
        }
    }

    /// Whether nothing is left to take back.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::new(self.place.clone())
    }

    /// Writes down what a step is going to change.
    pub(super) fn intend(&mut self, step: &Step) {
        match step {
            Step::Make { name, device } => {
                // A tunnel's interface stays as long as its module, which stays.
                if !device.is_tunnel() {
                    self.interfaces.insert(name.clone(), Change::Made);
                }
            }
            Step::SetSysctl { key, before, value } => {
                self.sysctls.retain(|it| it.key != *key);
                self.sysctls.push(Sysctl {
                    key: key.clone(),
                    before: *before,
                    set: *value,
                });
            }
            Step::ClampMss(vips) => self.mss |= !vips.is_empty(),
            Step::OpenPort(port) => {
                self.ports.insert(*port);
            }
            Step::Raise(name) => {
                self.interfaces
                    .entry(name.clone())
                    .or_insert(Change::Raised);
            }
            Step::AddVip { interface, vip } => {
                self.vips.insert(Placed {
                    interface: interface.clone(),
                    vip: *vip,
                });
            }
            Step::RestoreSysctl { .. }
            | Step::ClosePort(_)
            | Step::Lower(_)
            | Step::RemoveVip { .. }
            | Step::RemoveInterface(_) => {}
        }
    }

    /// Forgets what a step has taken back.
    pub(super) fn forget(&mut self, step: &Step) {
        match step {
            Step::RestoreSysctl { key, .. } => self.sysctls.retain(|it| it.key != *key),
            Step::ClampMss(vips) => self.mss &= !vips.is_empty(),
            Step::ClosePort(port) => {
                self.ports.remove(port);
            }
            Step::Lower(name) | Step::RemoveInterface(name) => {
                self.interfaces.remove(name);
            }
            Step::RemoveVip { interface, vip } => {
                let placed = Placed {
                    interface: interface.clone(),
                    vip: *vip,
                };
                self.vips.remove(&placed);
            }
            Step::Make { .. }
            | Step::SetSysctl { .. }
            | Step::OpenPort(_)
            | Step::Raise(_)
            | Step::AddVip { .. } => {}
        }
    }
}

/// The ledger's file.
pub(super) struct LedgerFile {
    directory: PathBuf,
    path: PathBuf,
}

impl LedgerFile {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            directory: state_dir.to_owned(),
            path: state_dir.join("real-server.json"),
        }
    }

    pub(super) fn read(&self) -> Result<Option<Ledger>, StoreError> {
        store::read_json(&self.path)
    }

    /// Replaces the file; with nothing left to take back it goes.
    pub(super) fn write(&self, ledger: &Ledger) -> Result<(), StoreError> {
        if ledger.is_empty() {
            return store::remove(&self.path);
        }
        store::make_directory(&self.directory)?;
        store::write_json(&self.path, ledger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_one_that_later_versions_can_read() {
        let text = r#"{"place":{"boot_id":"b","namespace":"net:[1]"},
            "sysctls":[{"key":"net/ipv4/conf/all/arp_ignore","before":0,"set":1}],
            "interfaces":{"tunl0":"raised","vips":"made"},
            "vips":[{"interface":"lo","vip":"10.99.0.1"}],"ports":[6080],"mss":true}"#;
        let ledger: Ledger = serde_json::from_str(text).unwrap();
        assert_eq!(ledger.interfaces["vips"], Change::Made);
        let written = serde_json::to_string(&ledger).unwrap();
        let compact: String = text.split_whitespace().collect();
        assert_eq!(written, compact);
    }

    #[test]
    fn an_empty_ledger_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = LedgerFile::new(&directory.path().join("new"));
        let mut ledger = Ledger::new(Place::default());
        file.write(&ledger).unwrap();
        ledger.ports.insert(6080);
        file.write(&ledger).unwrap();
        assert_eq!(file.read().unwrap(), Some(ledger.clone()));
        ledger.ports.clear();
        file.write(&ledger).unwrap();
        assert_eq!(file.read().unwrap(), None);
    }
}
