//! From what the kernel has and what it shall have to the steps between. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use isopath_api::declare::Scheduler;
use isopath_api::ids::{ServiceId, Vip};
use isopath_ipvs::{Destination, DestinationSpec};

use super::ledger::Ledger;
use super::observed::{Observed, ObservedService, destination_spec, service_spec};
use super::state::{RealServerWanted, ServiceWanted, Wanted};
use super::step::Step;
use super::sysctl;

/// Since when each real server on its way out has had weight 0.
pub(super) type Quiesced = BTreeMap<(ServiceId, SocketAddr), Instant>;

/// Everything a plan is made of.
#[derive(Clone, Copy)]
pub(super) struct Planner<'a> {
    /// The interface that shall carry the VIPs.
    pub(super) interface: &'a str,
    pub(super) observed: &'a Observed,
    pub(super) wanted: &'a Wanted,
    /// Must hold everything that is wanted.
    pub(super) ledger: &'a Ledger,
    pub(super) quiesced: &'a Quiesced,
    pub(super) now: Instant,
    /// How long a real server with weight 0 may wait for its connections to end.
    pub(super) drain_limit: Duration,
}

impl Planner<'_> {
    /// The steps, in the order in which they are to be executed: whoever executes a prefix of
    /// them leaves no VIP that clients reach before its services are there, and no real server
    /// is deleted that still takes connections.
    pub(super) fn plan(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if !self.wanted.is_empty() {
            steps.extend(sysctl::plan(&self.observed.sysctls));
        }
        self.bring_up_interface(&mut steps);
        for service in self.wanted.services.values() {
            self.bring_up_service(service, &mut steps);
        }
        let wanted = &self.wanted.services;
        let mut staying = BTreeSet::new();
        for id in self.ledger.services.keys() {
            let Some(observed) = self.observed.services.get(id) else {
                continue;
            };
            if wanted.contains_key(id) || !self.take_down_service(*id, observed, &mut steps) {
                staying.insert(id.vip);
            }
        }
        self.take_down_interfaces(&staying, &mut steps);
        steps
    }

    fn bring_up_interface(&self, steps: &mut Vec<Step>) {
        if self.wanted.vips.is_empty() {
            return;
        }
        let interface = self.interface.to_owned();
        let observed = self.observed.interfaces.get(self.interface);
        match observed {
            None => steps.push(Step::AddInterface(interface.clone())),
            Some(it) if !it.up => steps.push(Step::RaiseInterface(interface.clone())),
            Some(_) => {}
        }
        for vip in &self.wanted.vips {
            if !observed.is_some_and(|it| it.vips.contains(vip)) {
                let interface = interface.clone();
                steps.push(Step::AddVip {
                    interface,
                    vip: *vip,
                });
            }
        }
    }

    fn bring_up_service(&self, wanted: &ServiceWanted, steps: &mut Vec<Step>) {
        let mut spec = service_spec(wanted);
        let observed = self.observed.services.get(&wanted.id);
        if let Some(observed) = observed {
            spec.unknown.clone_from(&observed.spec.unknown);
        }
        match observed {
            None => steps.push(Step::AddService(wanted.id, spec)),
            Some(it) if it.spec != spec => steps.push(Step::SetService(wanted.id, spec)),
            Some(_) => {}
        }
        let servers = observed.map_or(&[][..], |it| it.real_servers.as_slice());
        let (leaving, staying): (Vec<&Destination>, Vec<&Destination>) = servers
            .iter()
            .partition(|it| wanted.real_server(it.spec.address).is_none());
        let (gone, waiting): (Vec<&Destination>, Vec<&Destination>) = leaving
            .into_iter()
            .partition(|server| self.may_be_deleted(wanted.id, server));

        // What takes connections comes before what stops taking them.
        let inserted = self.insert(wanted, servers, &gone, steps);
        let mut sets = Vec::new();
        for server in staying {
            if !inserted.contains(&server.spec.address) {
                sets.extend(self.set(wanted, server));
            }
        }
        let (stop, go): (Vec<_>, Vec<_>) = sets.into_iter().partition(|plan| ends_at_zero(plan));
        steps.extend(go.into_iter().chain(stop).flatten());
        for server in waiting {
            if server.spec.weight > 0 {
                steps.push(Step::SetRealServer(wanted.id, without_weight(server)));
            }
        }
        for server in gone {
            steps.push(Step::DeleteRealServer(wanted.id, server.spec.address));
        }
    }

    /// The insertions that a service needs, and what they are of.
    fn insert(
        &self,
        wanted: &ServiceWanted,
        servers: &[Destination],
        gone: &[&Destination],
        steps: &mut Vec<Step>,
    ) -> BTreeSet<SocketAddr> {
        let gone: BTreeSet<_> = gone.iter().map(|it| it.spec.address).collect();
        let present: Vec<SocketAddr> = servers
            .iter()
            .map(|server| server.spec.address)
            .filter(|address| !gone.contains(address))
            .collect();
        let servers: BTreeMap<_, _> = servers.iter().map(|it| (it.spec.address, it)).collect();
        let shall: BTreeMap<SocketAddr, RealServerWanted> = wanted
            .real_servers
            .iter()
            .map(|server| (SocketAddr::V4(server.id.0), *server))
            .collect();
        let insertions = insertions(wanted.scheduler, &present, shall.keys().copied());

        let busy = |it: &&Destination| it.active > 0 || it.inactive > 0;
        let held = insertions
            .iter()
            .any(|address| servers.get(address).is_some_and(busy));
        if held {
            steps.push(Step::HoldConnections);
        }
        for address in &insertions {
            let server = servers.get(address).copied();
            let (spec, table) = match (shall.get(address), server) {
                (Some(shall), _) => {
                    let table = if wanted.scheduler == Scheduler::Mh {
                        u32::from(shall.weight)
                    } else {
                        u32::from(shall.effective_weight)
                    };
                    (destination_spec(wanted, *shall), table)
                }
                (None, Some(server)) => (
                    without_weight(server),
                    self.table_weight(wanted.id, server).unwrap_or(0),
                ),
                (None, None) => continue,
            };
            let first = DestinationSpec {
                weight: table,
                ..spec.clone()
            };
            let then = (first != spec).then_some(Step::SetRealServer(wanted.id, spec));
            steps.push(match server {
                Some(_) => Step::ReinsertRealServer(wanted.id, first),
                None => Step::AddRealServer(wanted.id, first),
            });
            steps.extend(then);
        }
        if held {
            steps.push(Step::ReleaseConnections);
        }
        insertions.into_iter().collect()
    }

    /// The steps that make a real server in its place what it shall be, if any.
    fn set(&self, wanted: &ServiceWanted, server: &Destination) -> Option<Vec<Step>> {
        let shall = wanted.real_server(server.spec.address)?;
        let spec = DestinationSpec {
            unknown: server.spec.unknown.clone(),
            ..destination_spec(wanted, shall)
        };
        let mut steps = Vec::new();
        let declared = u32::from(shall.weight);
        let in_table = self.table_weight(wanted.id, server);
        // A weight of 0 leaves the table alone, so the one that the table shall have is written
        // before it. With a declared weight of 0 the table keeps what it has.
        if wanted.scheduler == Scheduler::Mh
            && spec.weight == 0
            && declared > 0
            && in_table != Some(declared)
        {
            let first = DestinationSpec {
                weight: declared,
                ..spec.clone()
            };
            steps.push(Step::SetRealServer(wanted.id, first));
        }
        if server.spec != spec || !steps.is_empty() {
            steps.push(Step::SetRealServer(wanted.id, spec));
        }
        (!steps.is_empty()).then_some(steps)
    }

    /// Removes a service of ours that is no longer wanted; whether it is gone when done.
    fn take_down_service(
        &self,
        id: ServiceId,
        observed: &ObservedService,
        steps: &mut Vec<Step>,
    ) -> bool {
        let mut gone = true;
        for server in &observed.real_servers {
            if self.may_be_deleted(id, server) {
                steps.push(Step::DeleteRealServer(id, server.spec.address));
            } else {
                gone = false;
                if server.spec.weight > 0 {
                    steps.push(Step::SetRealServer(id, without_weight(server)));
                }
            }
        }
        if gone {
            steps.push(Step::DeleteService(id));
        }
        gone
    }

    /// Takes off what shall not be on our interfaces, except VIPs of services that are staying.
    fn take_down_interfaces(&self, staying: &BTreeSet<Vip>, steps: &mut Vec<Step>) {
        for (name, owned) in &self.ledger.interfaces {
            let Some(observed) = self.observed.interfaces.get(name) else {
                continue;
            };
            let configured = name == self.interface;
            let leaves = |vip: &&Vip| {
                if self.wanted.vips.contains(vip) {
                    !configured
                } else {
                    !staying.contains(vip)
                }
            };
            let leaving: BTreeSet<Vip> = owned
                .vips
                .intersection(&observed.vips)
                .filter(leaves)
                .copied()
                .collect();
            for vip in &leaving {
                let interface = name.clone();
                steps.push(Step::RemoveVip {
                    interface,
                    vip: *vip,
                });
            }
            let needed = configured && !self.wanted.vips.is_empty();
            if owned.made && !needed && !observed.others && leaving == observed.vips {
                steps.push(Step::RemoveInterface(name.clone()));
            }
        }
    }

    /// Whether a real server that is on its way out has had weight 0 for long enough.
    fn may_be_deleted(&self, id: ServiceId, server: &Destination) -> bool {
        if server.spec.weight > 0 {
            return false;
        }
        let waited = self
            .quiesced
            .get(&(id, server.spec.address))
            .map(|since| self.now.saturating_duration_since(*since));
        let idle = server.active == 0 && server.inactive == 0;
        idle || waited.is_some_and(|waited| waited >= self.drain_limit)
    }

    fn table_weight(&self, id: ServiceId, server: &Destination) -> Option<u32> {
        if server.spec.weight > 0 {
            return Some(server.spec.weight);
        }
        self.ledger.table_weight(id, server.spec.address)
    }
}

/// Which real servers are inserted, in order, `present` being the kernel's list.
///
/// The canonical order of insertion is that of address and port, on every director. The kernel
/// inserts at the head (`list_add_rcu` in `__ip_vs_update_dest`), so its list has the greatest
/// address first, and a real server added to a growing cluster with the next higher address
/// is put where it belongs without touching another. Only `mh` builds its table from the
/// list's order (`ip_vs_mh_populate`), so only there is a list in another order put right:
/// the longest end of the canonical list that the kernel's list contains in order stays, and
/// the rest is inserted again.
fn insertions(
    scheduler: Scheduler,
    present: &[SocketAddr],
    shall: impl Iterator<Item = SocketAddr>,
) -> Vec<SocketAddr> {
    let mut canonical: BTreeSet<SocketAddr> = shall.collect();
    if scheduler == Scheduler::Mh {
        canonical.extend(present);
        let mut canonical = canonical.into_iter().peekable();
        for address in present.iter().rev() {
            canonical.next_if_eq(address);
        }
        canonical.collect()
    } else {
        for address in present {
            canonical.remove(address);
        }
        canonical.into_iter().collect()
    }
}

/// A real server as it is, but taking no new connections.
fn without_weight(server: &Destination) -> DestinationSpec {
    DestinationSpec {
        weight: 0,
        ..server.spec.clone()
    }
}

fn ends_at_zero(steps: &[Step]) -> bool {
    matches!(steps.last(), Some(Step::SetRealServer(_, spec)) if spec.weight == 0)
}

#[cfg(test)]
mod tests;
