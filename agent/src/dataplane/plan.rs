//! From what the kernel has and what it shall have to the steps between. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isopath_api::declare::Scheduler;
use isopath_api::digest::goes_by_order;
use isopath_api::ids::{ServiceId, Vip};
use isopath_ipvs::{DestinationSpec, ServiceFlags, ServiceSpec};

use super::ledger::Ledger;
use super::observed::{Observed, destination_spec, service_spec, timeouts};
use super::state::{KernelRealServer, KernelService, RealServerWanted, ServiceWanted, Wanted};
use super::step::Step;
use super::sysctl;

/// Since when each real server on its way out has had weight 0.
pub(super) type Quiesced = BTreeMap<(ServiceId, SocketAddr), Instant>;

/// Services that need nothing: what was wanted and what the kernel had when that was found.
/// While both are the same allocations, it is still so.
#[derive(Debug, Default)]
pub(super) struct AtRest(BTreeMap<ServiceId, (Arc<ServiceWanted>, Arc<KernelService>)>);

impl AtRest {
    /// Whether a service is known to need nothing.
    pub(super) fn has(&self, wanted: &Arc<ServiceWanted>, observed: &Arc<KernelService>) -> bool {
        self.0
            .get(&wanted.id)
            .is_some_and(|(shall, has)| Arc::ptr_eq(shall, wanted) && Arc::ptr_eq(has, observed))
    }

    /// Takes over what a plan found, forgetting all else.
    pub(super) fn replace(&mut self, plan: &Plan, wanted: &Wanted, observed: &Observed) {
        let pair = |id: &ServiceId| {
            let pair = (wanted.services.get(id)?, observed.services.get(id)?);
            Some((*id, (Arc::clone(pair.0), Arc::clone(pair.1))))
        };
        self.0 = plan.at_rest.iter().filter_map(pair).collect();
    }
}

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The steps, in the order in which they are to be executed: whoever executes a prefix of
    /// them leaves no VIP that clients reach before its services are there, and no real server
    /// is deleted that still takes connections.
    pub(super) steps: Vec<Step>,
    /// The services that need nothing, now and as long as they stay as they are.
    at_rest: Vec<ServiceId>,
}

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
    pub(super) at_rest: &'a AtRest,
    pub(super) now: Instant,
    /// How long a real server with weight 0 may wait for its connections to end.
    pub(super) drain_limit: Duration,
}

/// What is done with the real servers of a service when all services have what takes
/// connections.
#[derive(Default)]
struct Leaving {
    quiesce: Vec<Step>,
    delete: Vec<Step>,
}

impl Planner<'_> {
    /// What is to be done.
    pub(super) fn plan(&self) -> Plan {
        let mut plan = Plan::default();
        let steps = &mut plan.steps;
        if !self.wanted.is_empty() {
            let needs = sysctl::Needs::of(self.wanted);
            steps.extend(sysctl::plan(&self.observed.sysctls, needs));
            let shall = timeouts(&self.wanted.lvs.timeouts);
            if self.observed.timeouts != Some(shall) {
                steps.push(Step::SetTimeouts(shall));
            }
        }
        self.bring_up_interface(steps);
        let mut leaving = Leaving::default();
        for service in self.wanted.services.values() {
            let observed = self.observed.services.get(&service.id);
            let known = observed.is_some_and(|observed| self.at_rest.has(service, observed));
            if known || self.bring_up_service(service, observed, steps, &mut leaving) {
                plan.at_rest.push(service.id);
            }
        }
        let mut gone = Vec::new();
        let mut staying = BTreeSet::new();
        for id in self.ledger.services.keys() {
            let Some(observed) = self.observed.services.get(id) else {
                continue;
            };
            if self.wanted.services.contains_key(id) {
                staying.insert(id.vip);
            } else if self.take_down_service(*id, observed, &mut leaving) {
                gone.push(Step::DeleteService(*id));
            } else {
                staying.insert(id.vip);
            }
        }
        steps.extend(leaving.quiesce);
        steps.extend(leaving.delete);
        steps.extend(gone);
        self.take_down_interfaces(&staying, steps);
        plan
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

    /// The steps that a service needs; answers whether it needs none and will not by itself.
    fn bring_up_service(
        &self,
        wanted: &ServiceWanted,
        observed: Option<&Arc<KernelService>>,
        steps: &mut Vec<Step>,
        leaving: &mut Leaving,
    ) -> bool {
        let before = steps.len();
        let mut spec = service_spec(wanted);
        if let Some(observed) = observed {
            spec.unknown.clone_from(&observed.spec.unknown);
        }
        // `mh` builds its whole table anew for each real server that is added. A new service gets
        // them without a scheduler, and then builds it once.
        let mut filled = None;
        match observed {
            None if wanted.scheduler == Scheduler::Mh && wanted.real_servers.len() > 1 => {
                let without = ServiceSpec {
                    scheduler: isopath_ipvs::Scheduler::from("none"),
                    flags: ServiceFlags::NONE,
                    ..spec.clone()
                };
                steps.push(Step::AddService(wanted.id, without));
                filled = Some(Step::SetService(wanted.id, spec));
            }
            None => steps.push(Step::AddService(wanted.id, spec)),
            Some(it) if it.spec != spec => steps.push(Step::SetService(wanted.id, spec)),
            Some(_) => {}
        }
        let shall = wanted.by_address();
        let servers = observed.map_or(&[][..], |it| &it.real_servers);
        let (staying, leave): (Vec<&KernelRealServer>, Vec<&KernelRealServer>) = servers
            .iter()
            .partition(|it| shall.contains_key(&it.spec.address));
        let (gone, waiting): (Vec<&KernelRealServer>, Vec<&KernelRealServer>) = leave
            .into_iter()
            .partition(|server| self.may_be_deleted(wanted.id, server));

        // What takes connections comes before what stops taking them.
        let inserted = self.insert(wanted, &shall, servers, &gone, steps);
        let mut sets = Vec::new();
        for server in staying {
            if let Some(shall) = shall.get(&server.spec.address)
                && !inserted.contains(&server.spec.address)
            {
                sets.extend(self.set(wanted, *shall, server));
            }
        }
        let (stop, go): (Vec<_>, Vec<_>) = sets.into_iter().partition(|plan| ends_at_zero(plan));
        steps.extend(go.into_iter().chain(stop).flatten());
        steps.extend(filled);
        let at_rest = steps.len() == before && gone.is_empty() && waiting.is_empty();
        self.quiesce(wanted.id, &waiting, leaving);
        let delete = |it: &&KernelRealServer| Step::DeleteRealServer(wanted.id, it.spec.address);
        leaving.delete.extend(gone.iter().map(delete));
        at_rest
    }

    /// Takes real servers off new connections.
    fn quiesce(&self, id: ServiceId, servers: &[&KernelRealServer], leaving: &mut Leaving) {
        let taking = servers.iter().filter(|server| server.spec.weight > 0);
        let quiesce = |it: &&KernelRealServer| Step::QuiesceRealServer(id, without_weight(it));
        leaving.quiesce.extend(taking.map(quiesce));
    }

    /// The insertions that a service needs, and what they are of.
    fn insert(
        &self,
        wanted: &ServiceWanted,
        shall: &BTreeMap<SocketAddr, RealServerWanted>,
        servers: &[KernelRealServer],
        gone: &[&KernelRealServer],
        steps: &mut Vec<Step>,
    ) -> BTreeSet<SocketAddr> {
        let gone: BTreeSet<_> = gone.iter().map(|it| it.spec.address).collect();
        let present: Vec<SocketAddr> = servers
            .iter()
            .map(|server| server.spec.address)
            .filter(|address| !gone.contains(address))
            .collect();
        let insertions = insertions(wanted.scheduler, &present, shall.keys().copied());
        if insertions.is_empty() {
            return BTreeSet::new();
        }
        let servers: BTreeMap<_, _> = servers.iter().map(|it| (it.spec.address, it)).collect();
        let busy = |it: &&KernelRealServer| it.active > 0 || it.inactive > 0;
        let held = insertions
            .iter()
            .any(|address| servers.get(address).is_some_and(busy));
        if held {
            steps.push(Step::HoldConnections);
        }
        for address in &insertions {
            let server = servers.get(address).copied();
            let (mut spec, table) = match (shall.get(address), server) {
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
            if let Some(server) = server {
                spec.unknown.clone_from(&server.spec.unknown);
            }
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
    fn set(
        &self,
        wanted: &ServiceWanted,
        shall: RealServerWanted,
        server: &KernelRealServer,
    ) -> Option<Vec<Step>> {
        let spec = DestinationSpec {
            unknown: server.spec.unknown.clone(),
            ..destination_spec(wanted, shall)
        };
        let mut steps = Vec::new();
        let declared = u32::from(shall.weight);
        // A weight of 0 leaves the table alone, so the one that the table shall have is written
        // before it. With a declared weight of 0 the table keeps what it has.
        if wanted.scheduler == Scheduler::Mh
            && spec.weight == 0
            && declared > 0
            && self.table_weight(wanted.id, server) != Some(declared)
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

    /// Removes the real servers of a service of ours that is no longer wanted; whether none is
    /// left then.
    fn take_down_service(
        &self,
        id: ServiceId,
        observed: &KernelService,
        leaving: &mut Leaving,
    ) -> bool {
        let servers = observed.real_servers.iter();
        let (gone, waiting): (Vec<&KernelRealServer>, Vec<&KernelRealServer>) =
            servers.partition(|server| self.may_be_deleted(id, server));
        let delete = |it: &&KernelRealServer| Step::DeleteRealServer(id, it.spec.address);
        leaving.delete.extend(gone.iter().map(delete));
        self.quiesce(id, &waiting, leaving);
        waiting.is_empty()
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
    fn may_be_deleted(&self, id: ServiceId, server: &KernelRealServer) -> bool {
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

    fn table_weight(&self, id: ServiceId, server: &KernelRealServer) -> Option<u32> {
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
/// is put where it belongs without touching another. Where a list's order decides (see
/// [`goes_by_order`]) and is another, it is put right: the longest end of the canonical list
/// that the kernel's list contains in order stays, and the rest is inserted again.
fn insertions(
    scheduler: Scheduler,
    present: &[SocketAddr],
    shall: impl Iterator<Item = SocketAddr>,
) -> Vec<SocketAddr> {
    let mut canonical: BTreeSet<SocketAddr> = shall.collect();
    if goes_by_order(scheduler) {
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
fn without_weight(server: &KernelRealServer) -> DestinationSpec {
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
