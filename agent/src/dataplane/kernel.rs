//! The kernel: what it has, and changes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use isopath_api::ids::{ServiceId, Vip};
use isopath_ipvs::{
    Cause, Change, DestinationEntry, Fingerprint, Ipvs, Service, ServiceEntry, ServiceKey,
};
use tokio::time::timeout;
use tracing::warn;

use super::error::DataplaneError;
use super::link::Links;
use super::observed::{Observed, kernel_service, service_id, service_key};
use super::state::{KernelService, KernelServices};
use super::step::{Step, Touched};
use super::sysctl;
use super::unchanged;
use crate::causes;

/// How long the kernel may take for one call: milliseconds are usual.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many steps go into one call, of a change or two each: the time that [`PATIENCE`] is about
/// stays short.
const STEPS: usize = 128;

/// How many services are read in one call. Between two of them the reading can be given up for
/// something more urgent, and no more of what is read exists twice.
const AT_ONCE: usize = 32;

/// In one of so many looks, once a minute, the services are listed over netlink whatever the older
/// interface says: [`ServiceEntry::is`] says what it leaves out.
const LISTED_EVERY: u32 = 60;

/// From how many services on it is as fast to read all of them as to read them one by one.
const MANY: usize = 100;

/// Connections to the kernel, in the network namespace of the thread that opened them.
pub(super) struct Kernel {
    ipvs: Ipvs,
    links: Links,
    /// `/proc/sys`.
    sysctls: PathBuf,
    /// Whether the kernel's older interface is worth asking: it never failed.
    entries: AtomicBool,
    /// How often all of it was read.
    looks: u32,
    /// What was found unchanged last, until something changes.
    still: Option<Still>,
}

/// Services that the kernel's older interface said to be as they were read.
#[derive(Clone)]
struct Still {
    services: KernelServices,
    /// By which they were told from those that we could not have made, see [`Scope`].
    marks: BTreeMap<u32, Vip>,
    /// What it said.
    fingerprint: Arc<Fingerprint>,
}

/// What is looked at.
pub(super) struct Scope {
    /// The interfaces that carry or shall carry VIPs.
    pub(super) interfaces: BTreeSet<String>,
    /// Whose VIP the services by mark are for, which the kernel does not know.
    pub(super) marks: BTreeMap<u32, Vip>,
}

impl Kernel {
    pub(super) async fn connect() -> Result<Self, DataplaneError> {
        Ok(Self {
            ipvs: patiently(Ipvs::connect()).await??,
            links: Links::connect()?,
            sysctls: PathBuf::from("/proc/sys"),
            entries: AtomicBool::new(true),
            looks: 0,
            still: None,
        })
    }

    /// Reads what concerns us: the interfaces, the sysctls, the timeouts, and every service that
    /// we could have made. A service that is still as it was in `before` stays that allocation.
    pub(super) async fn observe(
        &mut self,
        scope: &Scope,
        before: Option<&Observed>,
    ) -> Result<Observed, DataplaneError> {
        let mut observed = Observed::default();
        self.looks = self.looks.wrapping_add(1);
        let this = &*self;
        // The kernel's older interface is asked by another thread meanwhile.
        let still = this.still(scope, before);
        let (still, ()) = tokio::try_join!(still, this.observe_host(scope, &mut observed))?;
        self.still = still;
        observed.services = match &self.still {
            Some(still) => Arc::clone(&still.services),
            None => Arc::new(self.services(scope, before).await?),
        };
        Ok(observed)
    }

    /// The services as they were before, where no service has changed, come or gone.
    ///
    /// The kernel's older interface tells it in a fraction of the time that reading them takes,
    /// and sooner where it told the same before. What it does not say of a service is looked for
    /// over netlink now and then.
    async fn still(
        &self,
        scope: &Scope,
        before: Option<&Observed>,
    ) -> Result<Option<Still>, DataplaneError> {
        let known = before.map(|before| &before.services);
        let Some(known) = known.filter(|known| !known.is_empty()) else {
            return Ok(None);
        };
        if self.looks.is_multiple_of(LISTED_EVERY) || !self.entries.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if let Some(still) = &self.still
            && Arc::ptr_eq(&still.services, known)
            && still.marks == scope.marks
        {
            let fingerprint = Arc::clone(&still.fingerprint);
            let told = patiently(self.ipvs.is_still(fingerprint)).await?;
            if self.said(told) == Some(true) {
                return Ok(Some(still.clone()));
            }
        }
        if !known.values().all(|service| unchanged::can_say(service)) {
            return Ok(None);
        }
        let (before, marks) = (Arc::clone(known), scope.marks.clone());
        let count = move |count, service: &ServiceEntry, servers: &[DestinationEntry]| {
            let Some(id) = service_id(&service.key, &marks) else {
                return Some(count);
            };
            unchanged::all_is_still(before.get(&id)?, service, servers).then_some(count + 1)
        };
        let counted = patiently(self.ipvs.try_fold_entries(0, count)).await?;
        let Some((count, fingerprint)) = self.said(counted).flatten() else {
            return Ok(None);
        };
        Ok((count == known.len()).then(|| Still {
            services: Arc::clone(known),
            marks: scope.marks.clone(),
            fingerprint: Arc::new(fingerprint),
        }))
    }

    /// Reads all services, but the real servers only of those in which something changed.
    async fn services(
        &self,
        scope: &Scope,
        before: Option<&Observed>,
    ) -> Result<BTreeMap<ServiceId, Arc<KernelService>>, DataplaneError> {
        let mut services = BTreeMap::new();
        let known = |id: &ServiceId| before?.services.get(id);
        let named =
            |service: Service| Some((service_id(&service.spec.key, &scope.marks)?, service));
        let listed = patiently(self.ipvs.services()).await??;
        let listed = listed.into_iter().filter_map(named).collect();
        let mut changed = self.changed(listed, known, &mut services).await?;
        while !changed.is_empty() {
            let some = changed.split_off(changed.len().saturating_sub(AT_ONCE));
            let (ids, some): (Vec<_>, Vec<_>) = some.into_iter().unzip();
            let tables = patiently(self.ipvs.tables_of(some)).await??;
            for (id, (service, destinations)) in ids.into_iter().zip(tables) {
                let service = kernel_service(service, destinations);
                services.insert(id, same(known(&id), service));
            }
        }
        Ok(services)
    }

    /// Puts those of these services that are still as they are known into `still`, and answers
    /// which of them have to be read.
    ///
    /// Netlink has told what there is to a service itself. Whether its real servers are still the
    /// same the kernel's older interface tells, in a tenth of the time that reading them takes.
    async fn changed<'a>(
        &self,
        services: Vec<(ServiceId, Service)>,
        known: impl Fn(&ServiceId) -> Option<&'a Arc<KernelService>>,
        still: &mut BTreeMap<ServiceId, Arc<KernelService>>,
    ) -> Result<Vec<(ServiceId, Service)>, DataplaneError> {
        let candidate = |(id, service): &(ServiceId, Service)| {
            known(id).filter(|known| unchanged::can_be_told(known, service))
        };
        let candidates: Vec<_> = services.iter().map(candidate).collect();
        let known = candidates.iter().flatten();
        let known = known.map(|known| (known.spec.key, Arc::clone(known)));
        let mut told = self.are_still(known.collect()).await?.into_iter();
        let mut changed = Vec::new();
        for ((id, service), candidate) in services.into_iter().zip(candidates) {
            if let Some(known) = candidate
                && told.next() == Some(Some(true))
            {
                still.insert(id, Arc::clone(known));
            } else {
                changed.push((id, service));
            }
        }
        Ok(changed)
    }

    /// Whether the real servers of these services are still the same, as the kernel's older
    /// interface says them; nothing at all where that fails.
    async fn are_still(
        &self,
        services: Vec<(ServiceKey, Arc<KernelService>)>,
    ) -> Result<Vec<Option<bool>>, DataplaneError> {
        if services.is_empty() || !self.entries.load(Ordering::Relaxed) {
            return Ok(Vec::new());
        }
        let is_still = |known: &Arc<KernelService>, entries: &[DestinationEntry]| {
            unchanged::is_still(known, entries)
        };
        let still = patiently(self.ipvs.with_entries(services, is_still)).await?;
        Ok(self.said(still).unwrap_or_default())
    }

    /// What the kernel's older interface said; nothing where it failed, which is logged once, and
    /// then it is not asked any more: it is only quicker.
    fn said<T>(&self, said: Result<T, isopath_ipvs::Error>) -> Option<T> {
        said.inspect_err(|error| {
            self.entries.store(false, Ordering::Relaxed);
            let error = causes(error);
            warn!(
                error,
                "the kernel is read over netlink alone, which takes longer"
            );
        })
        .ok()
    }

    /// Reads again what steps were about.
    pub(super) async fn observe_again(
        &mut self,
        scope: &Scope,
        touched: &Touched,
        observed: &mut Observed,
    ) -> Result<(), DataplaneError> {
        if touched.services.len() > MANY {
            *observed = self.observe(scope, Some(observed)).await?;
            return Ok(());
        }
        if touched.host {
            self.observe_host(scope, observed).await?;
        }
        for id in touched.services.iter().copied() {
            let services = Arc::make_mut(&mut observed.services);
            match self.service(id).await? {
                Some(service) => {
                    let service = same(services.get(&id), service);
                    services.insert(id, service);
                }
                None => {
                    services.remove(&id);
                }
            }
        }
        Ok(())
    }

    /// Reads what is no service.
    async fn observe_host(
        &self,
        scope: &Scope,
        observed: &mut Observed,
    ) -> Result<(), DataplaneError> {
        observed.sysctls = sysctl::read(&self.sysctls).map_err(DataplaneError::ReadSysctls)?;
        let interfaces = self.links.observe(scope.interfaces.clone());
        observed.interfaces = patiently(interfaces).await??;
        observed.timeouts = Some(patiently(self.ipvs.timeouts()).await??);
        Ok(())
    }

    async fn service(&self, id: ServiceId) -> Result<Option<KernelService>, DataplaneError> {
        let key = service_key(id);
        let service = match patiently(self.ipvs.service(&key)).await? {
            Ok(service) => service,
            Err(error) if matches!(error.cause, Cause::NoService) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let destinations = patiently(self.ipvs.destinations(&key)).await??;
        Ok(Some(kernel_service(service, destinations)))
    }

    /// Executes steps of one rank in as few calls as it takes; answers what became of each.
    pub(super) async fn execute_together(
        &self,
        steps: &[&Step],
    ) -> Vec<Result<(), DataplaneError>> {
        let mut results = Vec::with_capacity(steps.len());
        for some in steps.chunks(STEPS) {
            let mut lengths = Vec::with_capacity(some.len());
            let mut flat = Vec::with_capacity(some.len());
            for step in some {
                let before = flat.len();
                changes(step, &mut flat);
                lengths.push(flat.len() - before);
            }
            let done: Vec<_> = match timeout(PATIENCE, self.ipvs.apply(&flat)).await {
                Ok(done) => done.into_iter().map(|it| it.map_err(Into::into)).collect(),
                Err(_) => flat.iter().map(|_| Err(DataplaneError::Silent)).collect(),
            };
            let mut done = done.into_iter();
            // All of them are taken, also after one that failed: the next ones are another step's.
            let of_step = |length| done.by_ref().take(length).fold(Ok(()), Result::and);
            results.extend(lengths.into_iter().map(of_step));
        }
        results
    }

    /// Executes a step that has no rank.
    pub(super) async fn execute(&self, step: &Step) -> Result<(), DataplaneError> {
        match step {
            Step::SetSysctl { key, value } => self.set_sysctl(key, value),
            Step::SetTimeouts(timeouts) => Ok(patiently(self.ipvs.set_timeouts(*timeouts)).await??),
            Step::AddInterface(name) => patiently(self.links.add(name)).await?,
            Step::RaiseInterface(name) => patiently(self.links.raise(name)).await?,
            Step::AddVip { interface, vip } => {
                patiently(self.links.add_vip(interface, *vip)).await?
            }
            Step::HoldConnections => self.set_sysctl(sysctl::EXPIRE_NODEST_CONN, "0"),
            Step::ReleaseConnections => self.set_sysctl(sysctl::EXPIRE_NODEST_CONN, "1"),
            Step::RemoveVip { interface, vip } => {
                patiently(self.links.remove_vip(interface, *vip)).await?
            }
            Step::RemoveInterface(name) => patiently(self.links.remove(name)).await?,
            Step::AddService(..)
            | Step::SetService(..)
            | Step::AddRealServer(..)
            | Step::ReinsertRealServer(..)
            | Step::SetRealServer(..)
            | Step::QuiesceRealServer(..)
            | Step::DeleteRealServer(..)
            | Step::DeleteService(_) => {
                let mut results = self.execute_together(&[step]).await;
                results.pop().unwrap_or(Err(DataplaneError::Silent))
            }
        }
    }

    fn set_sysctl(&self, key: &str, value: &'static str) -> Result<(), DataplaneError> {
        let failed = |source| DataplaneError::SetSysctl {
            key: key.to_owned(),
            value,
            source,
        };
        sysctl::write(&self.sysctls, key, value).map_err(failed)
    }
}

/// A service, as the allocation that it was before where nothing changed in it.
fn same(before: Option<&Arc<KernelService>>, service: KernelService) -> Arc<KernelService> {
    match before {
        Some(before) if **before == service => Arc::clone(before),
        Some(_) | None => Arc::new(service),
    }
}

/// Adds the changes of IPVS that a step consists of.
fn changes(step: &Step, changes: &mut Vec<Change>) {
    match step {
        Step::AddService(_, spec) => changes.push(Change::AddService(spec.clone())),
        Step::SetService(_, spec) => changes.push(Change::SetService(spec.clone())),
        Step::AddRealServer(id, spec) => {
            changes.push(Change::AddDestination(service_key(*id), spec.clone()));
        }
        Step::ReinsertRealServer(id, spec) => {
            let key = service_key(*id);
            changes.push(Change::DeleteDestination(key, spec.address));
            changes.push(Change::AddDestination(key, spec.clone()));
        }
        Step::SetRealServer(id, spec) | Step::QuiesceRealServer(id, spec) => {
            changes.push(Change::SetDestination(service_key(*id), spec.clone()));
        }
        Step::DeleteRealServer(id, address) => {
            changes.push(Change::DeleteDestination(service_key(*id), *address));
        }
        Step::DeleteService(id) => changes.push(Change::DeleteService(service_key(*id))),
        Step::SetSysctl { .. }
        | Step::SetTimeouts(_)
        | Step::AddInterface(_)
        | Step::RaiseInterface(_)
        | Step::AddVip { .. }
        | Step::HoldConnections
        | Step::ReleaseConnections
        | Step::RemoveVip { .. }
        | Step::RemoveInterface(_) => {}
    }
}

/// Waits for one call.
async fn patiently<T>(call: impl Future<Output = T>) -> Result<T, DataplaneError> {
    timeout(PATIENCE, call)
        .await
        .map_err(|_| DataplaneError::Silent)
}
