//! The kernel: what it has, and one step at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use isopath_api::ids::{ServiceId, Vip};
use isopath_ipvs::Ipvs;

use super::error::DataplaneError;
use super::link::Links;
use super::observed::{Observed, ObservedService, service_id, service_key};
use super::step::Step;
use super::sysctl;

/// Connections to the kernel, in the network namespace of the thread that opened them.
pub(super) struct Kernel {
    ipvs: Ipvs,
    links: Links,
    /// `/proc/sys`.
    sysctls: PathBuf,
}

impl Kernel {
    pub(super) async fn connect() -> Result<Self, DataplaneError> {
        Ok(Self {
            ipvs: Ipvs::connect().await?,
            links: Links::connect()?,
            sysctls: PathBuf::from("/proc/sys"),
        })
    }

    /// Reads what concerns us: these interfaces, the sysctls, and every service we could have
    /// made; of those by mark, the ones whose VIP `marks` knows.
    pub(super) async fn observe(
        &self,
        interfaces: BTreeSet<String>,
        marks: &BTreeMap<u32, Vip>,
    ) -> Result<Observed, DataplaneError> {
        Ok(Observed {
            sysctls: sysctl::read(&self.sysctls).map_err(DataplaneError::ReadSysctls)?,
            interfaces: self.links.observe(interfaces).await?,
            services: self.services(marks).await?,
        })
    }

    async fn services(
        &self,
        marks: &BTreeMap<u32, Vip>,
    ) -> Result<BTreeMap<ServiceId, ObservedService>, DataplaneError> {
        let mut services = BTreeMap::new();
        for (service, real_servers) in self.ipvs.tables().await? {
            let Some(id) = service_id(&service.spec.key, marks) else {
                continue;
            };
            let observed = ObservedService {
                real_servers,
                spec: service.spec,
                stats: service.stats,
            };
            services.insert(id, observed);
        }
        Ok(services)
    }

    pub(super) async fn execute(&self, step: &Step) -> Result<(), DataplaneError> {
        match step {
            Step::SetSysctl { key, value } => self.set_sysctl(key, value)?,
            Step::AddInterface(name) => self.links.add(name).await?,
            Step::RaiseInterface(name) => self.links.raise(name).await?,
            Step::AddVip { interface, vip } => self.links.add_vip(interface, *vip).await?,
            Step::AddService(_, spec) => self.ipvs.add_service(spec).await?,
            Step::SetService(_, spec) => self.ipvs.set_service(spec).await?,
            Step::HoldConnections => self.set_sysctl(sysctl::EXPIRE_NODEST_CONN, "0")?,
            Step::ReleaseConnections => self.set_sysctl(sysctl::EXPIRE_NODEST_CONN, "1")?,
            Step::AddRealServer(id, spec) => {
                self.ipvs.add_destination(&service_key(*id), spec).await?;
            }
            Step::ReinsertRealServer(id, spec) => {
                self.delete_real_server(*id, spec.address).await?;
                self.ipvs.add_destination(&service_key(*id), spec).await?;
            }
            Step::SetRealServer(id, spec) => {
                self.ipvs.set_destination(&service_key(*id), spec).await?;
            }
            Step::DeleteRealServer(id, address) => self.delete_real_server(*id, *address).await?,
            Step::DeleteService(id) => self.ipvs.delete_service(&service_key(*id)).await?,
            Step::RemoveVip { interface, vip } => self.links.remove_vip(interface, *vip).await?,
            Step::RemoveInterface(name) => self.links.remove(name).await?,
        }
        Ok(())
    }

    fn set_sysctl(&self, key: &str, value: &'static str) -> Result<(), DataplaneError> {
        let failed = |source| DataplaneError::SetSysctl {
            key: key.to_owned(),
            value,
            source,
        };
        sysctl::write(&self.sysctls, key, value).map_err(failed)
    }

    async fn delete_real_server(
        &self,
        id: ServiceId,
        address: SocketAddr,
    ) -> Result<(), DataplaneError> {
        let service = service_key(id);
        Ok(self.ipvs.delete_destination(&service, address).await?)
    }
}
