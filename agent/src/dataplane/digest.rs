//! What decides in this kernel where a service's clients land.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use isopath_api::declare::{Lvs, Scheduler, Timeouts};
use isopath_api::digest::{self, Placement, ServiceDigest, Slot};
use isopath_api::ids::ServiceId;
use isopath_ipvs::DestinationSpec;
use tracing::warn;

use super::ledger::Ledger;
use super::observed::{Observed, destination_spec, service_spec, timeouts};
use super::state::{KernelService, RealServerWanted, ServiceWanted, Wanted};

/// The digests of all services, each made anew where something changed that it is made of.
#[derive(Default)]
pub(super) struct Digests {
    known: BTreeMap<ServiceId, Known>,
    /// The digests alone, as they were answered last.
    digests: Arc<BTreeMap<ServiceId, ServiceDigest>>,
    /// What they all depend on.
    shared: (
        Lvs,
        BTreeMap<String, Option<String>>,
        Option<isopath_ipvs::Timeouts>,
    ),
}

/// A digest, and what it was made of.
struct Known {
    wanted: Arc<ServiceWanted>,
    kernel: Arc<KernelService>,
    /// The weights that only the ledger has.
    table: Option<BTreeMap<SocketAddr, u32>>,
    digest: ServiceDigest,
    /// What the kernel has otherwise than wanted, in words.
    differences: Vec<String>,
}

impl Digests {
    /// What decides in the kernel where clients land. What it has otherwise than wanted stands in
    /// the log, once: a digest does not say what differs.
    pub(super) fn of(
        &mut self,
        wanted: &Wanted,
        observed: &Observed,
        ledger: &Ledger,
    ) -> Arc<BTreeMap<ServiceId, ServiceDigest>> {
        let sysctls = &observed.sysctls;
        if self.shared.0 != wanted.lvs
            || self.shared.1 != *sysctls
            || self.shared.2 != observed.timeouts
        {
            self.known.clear();
            self.shared = (wanted.lvs, sysctls.clone(), observed.timeouts);
        }
        let mut services = 0;
        for (id, service) in &wanted.services {
            let Some(kernel) = observed.services.get(id) else {
                continue;
            };
            services += 1;
            let last = self.known.get(id);
            if last.is_some_and(|last| last.is_of(service, kernel, ledger)) {
                continue;
            }
            let known = Known::new(service, &wanted.lvs, observed, kernel, ledger);
            known.log(last);
            if self.digests.get(id) != Some(&known.digest) {
                Arc::make_mut(&mut self.digests).insert(*id, known.digest.clone());
            }
            self.known.insert(*id, known);
        }
        if self.digests.len() != services {
            let stays = |id: &ServiceId| {
                wanted.services.contains_key(id) && observed.services.contains_key(id)
            };
            self.known.retain(|id, _| stays(id));
            Arc::make_mut(&mut self.digests).retain(|id, _| stays(id));
        }
        Arc::clone(&self.digests)
    }
}

impl Known {
    fn new(
        service: &Arc<ServiceWanted>,
        lvs: &Lvs,
        observed: &Observed,
        kernel: &Arc<KernelService>,
        ledger: &Ledger,
    ) -> Self {
        let found = found(service, lvs, observed, kernel, ledger);
        let shall = wanted(service, lvs);
        let differences = if shall == found {
            Vec::new()
        } else {
            shall.differences(&found)
        };
        Self {
            wanted: Arc::clone(service),
            kernel: Arc::clone(kernel),
            table: ledger.services.get(&service.id).cloned(),
            digest: found.digest(),
            differences,
        }
    }

    /// Whether it was made of just these.
    fn is_of(
        &self,
        service: &Arc<ServiceWanted>,
        kernel: &Arc<KernelService>,
        ledger: &Ledger,
    ) -> bool {
        Arc::ptr_eq(&self.wanted, service)
            && Arc::ptr_eq(&self.kernel, kernel)
            && self.table.as_ref() == ledger.services.get(&service.id)
    }

    fn log(&self, last: Option<&Self>) {
        if !self.differences.is_empty()
            && last.is_none_or(|last| last.differences != self.differences)
        {
            let differences = self.differences.join("; ");
            warn!(service = %self.wanted.id, differences, "clients land elsewhere than wanted");
        }
    }
}

/// What a kernel has that has all that is wanted of it.
pub(super) fn wanted(service: &ServiceWanted, lvs: &Lvs) -> Placement {
    let slot = |server: &RealServerWanted| Slot {
        address: SocketAddr::V4(server.id.0),
        weight: u32::from(server.weight),
        via: digest::via(service.forwarding, service.tunnel),
        upper_threshold: server.upper_threshold,
        lower_threshold: server.lower_threshold,
    };
    let mut real_servers: Vec<Slot> = service.real_servers.iter().map(slot).collect();
    real_servers.sort_by_key(|slot| Reverse(slot.address));
    let sysctls = digest::sysctls(lvs.profile, service.id.packets);
    Placement {
        service: service.id,
        scheduler: Cow::Borrowed(service.scheduler.as_str()),
        by_order: digest::goes_by_order(service.scheduler),
        flags: service.flags.clone(),
        persistence: service.persistence,
        real_servers,
        timeouts: lvs.timeouts,
        sysctls: sysctls
            .map(|(key, value)| (key, Some(value.to_owned())))
            .collect(),
    }
}

/// What this kernel really has of a wanted service.
///
/// What it has as it is wanted is in the words of the declaration, so that there is one mapping
/// from these words to the kernel's, the one by which the kernel was asked. What it has
/// otherwise is in the kernel's words, which are no others'.
pub(super) fn found(
    service: &ServiceWanted,
    lvs: &Lvs,
    observed: &Observed,
    kernel: &KernelService,
    ledger: &Ledger,
) -> Placement {
    let mut placement = wanted(service, lvs);
    let (spec, shall) = (&kernel.spec, service_spec(service));
    // The rest is the service's name, and what only a newer kernel knows.
    if spec.scheduler != shall.scheduler
        || spec.flags != shall.flags
        || spec.persistence != shall.persistence
        || spec.persistence_engine != shall.persistence_engine
    {
        placement.scheduler = Cow::Owned(format!("{spec:?}"));
    }
    let by_address = service.by_address();
    let slots = kernel.real_servers.iter().filter_map(|server| {
        let wanted = by_address.get(&server.spec.address).copied();
        slot(service, wanted, &server.spec, ledger)
    });
    placement.real_servers = slots.collect();
    if let Some(kept) = observed.timeouts
        && kept != timeouts(&lvs.timeouts)
    {
        let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
        placement.timeouts = Timeouts {
            tcp: seconds(kept.tcp),
            tcp_fin: seconds(kept.tcp_fin),
            udp: seconds(kept.udp),
        };
    }
    for (key, value) in &mut placement.sysctls {
        *value = observed.sysctls.get(*key).cloned().flatten();
    }
    placement
}

/// A real server in its place; nothing for one on its way out, which is not wanted and takes no
/// new connections.
fn slot(
    service: &ServiceWanted,
    wanted: Option<RealServerWanted>,
    spec: &DestinationSpec,
    ledger: &Ledger,
) -> Option<Slot> {
    if wanted.is_none() && spec.weight == 0 {
        return None;
    }
    let shall = wanted.map(|wanted| destination_spec(service, wanted));
    let via = match shall {
        Some(shall) if shall.forwarding == spec.forwarding && shall.tunnel == spec.tunnel => {
            digest::via(service.forwarding, service.tunnel)
        }
        Some(_) | None => Cow::Owned(format!("{:?} {:?}", spec.forwarding, spec.tunnel)),
    };
    Some(Slot {
        address: spec.address,
        weight: table_weight(service, wanted, spec, ledger),
        via,
        upper_threshold: spec.upper_threshold,
        lower_threshold: spec.lower_threshold,
    })
}

/// The weight that the scheduler has a real server in its table with. The kernel says only the
/// weight in force, which is 0 while a real server is dead: then the ledger has it for `mh`, and
/// for the others, which have no table that outlives a weight, it is the one it gets back.
fn table_weight(
    service: &ServiceWanted,
    wanted: Option<RealServerWanted>,
    spec: &DestinationSpec,
    ledger: &Ledger,
) -> u32 {
    if spec.weight > 0 {
        return spec.weight;
    }
    if service.scheduler == Scheduler::Mh {
        return ledger.table_weight(service.id, spec.address).unwrap_or(0);
    }
    let dead = wanted.filter(|wanted| wanted.effective_weight == 0);
    dead.map_or(0, |wanted| u32::from(wanted.weight))
}

#[cfg(test)]
mod tests;
