//! What in this kernel is ours, kept in the state directory.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use isopath_api::declare::Scheduler;
use isopath_api::ids::{ServiceId, Vip};
use serde::{Deserialize, Serialize};

use super::observed::Observed;
use super::state::Wanted;
use super::step::{Step, Subject};

/// What this agent or one before it made. It is written before anything is made, so that a
/// crash leaves a line too many, never an object that nobody owns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ledger {
    /// The interfaces that carry our VIPs: more than one only after the configured name changed.
    pub(super) interfaces: BTreeMap<String, OwnedInterface>,
    /// Our services. With each real server whose weight is 0 stands the one that `mh` has it in
    /// its table with: the last one above 0 (`last_weight` in `ip_vs_ctl.c`), which cannot be
    /// read. Of all others it is the weight they have.
    pub(super) services: BTreeMap<ServiceId, BTreeMap<SocketAddr, u32>>,
}

/// An interface that carries our VIPs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OwnedInterface {
    /// Whether we made it.
    pub(super) made: bool,
    /// The VIPs on it.
    pub(super) vips: BTreeSet<Vip>,
}

impl Ledger {
    /// Owns what is wanted, whoever made it, and learns and forgets what was observed.
    pub(super) fn update(&mut self, interface: &str, wanted: &Wanted, observed: &Observed) {
        if !wanted.vips.is_empty() {
            let missing = !observed.interfaces.contains_key(interface);
            let owned = self.interfaces.entry(interface.to_owned()).or_default();
            owned.made |= missing;
            owned.vips.extend(&wanted.vips);
        }
        for id in wanted.services.keys() {
            self.services.entry(*id).or_default();
        }
        self.services.retain(|id, table| {
            let Some(service) = observed.services.get(id) else {
                table.clear();
                return wanted.services.contains_key(id);
            };
            if !table.is_empty() {
                let quiet = service.real_servers.iter().map(|server| &server.spec);
                let quiet = quiet.filter(|spec| spec.weight == 0);
                let quiet: BTreeSet<_> = quiet.map(|spec| spec.address).collect();
                table.retain(|address, _| quiet.contains(address));
            }
            true
        });
        self.interfaces.retain(|name, owned| {
            let on_it = observed.interfaces.get(name).map(|it| &it.vips);
            let wanted_here = name == interface;
            owned.vips.retain(|vip| {
                wanted_here && wanted.vips.contains(vip) || on_it.is_some_and(|it| it.contains(vip))
            });
            !owned.vips.is_empty() || owned.made && on_it.is_some()
        });
    }

    /// What stands in the file while these steps are done: nothing of the weights that they may
    /// change, so that after a crash none is believed that is no longer so.
    pub(super) fn ahead_of(&self, steps: &[Step]) -> Self {
        let mut ahead = self.clone();
        for step in steps {
            if let Subject::RealServer(id, address) = step.subject() {
                ahead.forget(id, address);
            }
        }
        ahead
    }

    /// Writes down what a step does, `observed` being what the kernel had before its plan.
    pub(super) fn record(&mut self, step: &Step, observed: &Observed, wanted: &Wanted) {
        match step {
            Step::AddRealServer(id, spec) | Step::ReinsertRealServer(id, spec) => {
                // The weight may go to 0 before it is observed; only with `mh` does that matter.
                // What an earlier one of this address had is gone in any case.
                let service = wanted.services.get(id);
                if service.is_some_and(|it| it.scheduler == Scheduler::Mh) {
                    self.weigh(*id, spec.address, spec.weight);
                } else {
                    self.forget(*id, spec.address);
                }
            }
            Step::SetRealServer(id, spec) | Step::QuiesceRealServer(id, spec) => {
                let address = spec.address;
                if spec.weight > 0 {
                    self.weigh(*id, address, spec.weight);
                } else if self.table_weight(*id, address).is_none()
                    && let Some(before) = observed.real_server(*id, address)
                    && before.spec.weight > 0
                {
                    self.weigh(*id, address, before.spec.weight);
                }
            }
            Step::DeleteRealServer(id, address) => self.forget(*id, *address),
            Step::DeleteService(id) => {
                self.services.remove(id);
            }
            Step::RemoveVip { interface, vip } => {
                if let Some(owned) = self.interfaces.get_mut(interface) {
                    owned.vips.remove(vip);
                }
            }
            Step::RemoveInterface(name) => {
                self.interfaces.remove(name);
            }
            Step::SetSysctl { .. }
            | Step::SetTimeouts(_)
            | Step::AddInterface(_)
            | Step::RaiseInterface(_)
            | Step::AddVip { .. }
            | Step::AddService(..)
            | Step::SetService(..)
            | Step::HoldConnections
            | Step::ReleaseConnections => {}
        }
    }

    /// A real server has this weight in the table that `mh` would have of it.
    fn weigh(&mut self, id: ServiceId, address: SocketAddr, weight: u32) {
        let table = self.services.entry(id).or_default();
        table.insert(address, weight);
    }

    /// Nothing is known of a real server's weight in the table.
    fn forget(&mut self, id: ServiceId, address: SocketAddr) {
        if let Some(table) = self.services.get_mut(&id) {
            table.remove(&address);
        }
    }

    /// The weight that `mh` has a real server of weight 0 in its table with, where it is known.
    pub(super) fn table_weight(&self, id: ServiceId, address: SocketAddr) -> Option<u32> {
        self.services.get(&id)?.get(&address).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_that_a_step_may_change_is_not_in_the_file_meanwhile() {
        let id: ServiceId = "tcp:10.99.0.1:80".parse().unwrap();
        let [one, other]: [SocketAddr; 2] =
            ["10.1.0.11:80", "10.1.0.12:80"].map(|it| it.parse().unwrap());
        let mut ledger = Ledger::default();
        ledger.weigh(id, one, 3);
        ledger.weigh(id, other, 4);
        let ahead = ledger.ahead_of(&[Step::DeleteRealServer(id, one)]);
        assert_eq!(ahead.table_weight(id, one), None);
        assert_eq!(ahead.table_weight(id, other), Some(4));
        assert!(ahead.services.contains_key(&id), "it stays ours");
        assert_eq!(ledger.ahead_of(&[Step::DeleteService(id)]), ledger);
    }

    #[test]
    fn the_file_is_one_that_later_versions_can_read() {
        let text = r#"{"interfaces":{"isopath":{"made":true,"vips":["10.99.0.1"]}},
                       "services":{"tcp:10.99.0.1:80":{"10.1.0.11:80":3,"10.1.0.12:80":0}}}"#;
        let ledger: Ledger = serde_json::from_str(text).unwrap();
        let id = "tcp:10.99.0.1:80".parse().unwrap();
        let server = "10.1.0.11:80".parse().unwrap();
        assert_eq!(ledger.table_weight(id, server), Some(3));
        let written = serde_json::to_string(&ledger).unwrap();
        let compact: String = text.split_whitespace().collect();
        assert_eq!(written, compact);
    }
}
