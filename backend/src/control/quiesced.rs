//! Real servers and VIPs that an operator took out of service, and what that makes of the
//! declared ones.

use std::collections::BTreeMap;

use isopath_api::declare::{Declaration, ServiceSpec};
use isopath_api::desired::AdminState;
use isopath_api::ids::{RealServerId, ServiceId, Vip};

/// What is out of service beside directors. What is not here is active.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quiesced {
    /// Real servers, by service.
    pub real_servers: BTreeMap<(ServiceId, RealServerId), QuiescedServer>,
    /// VIPs that no director announces.
    pub vips: BTreeMap<Vip, QuiescedVip>,
}

/// A real server that is out of service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuiescedServer {
    /// How far.
    pub state: AdminState,
    /// Whether the directors do not have it at all.
    pub removed: bool,
    /// The operator's words.
    pub reason: String,
}

/// A VIP that is out of service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuiescedVip {
    /// How far.
    pub state: AdminState,
    /// The operator's words.
    pub reason: String,
}

impl Quiesced {
    /// What an operator wants of a real server.
    pub fn server(&self, service: ServiceId, server: RealServerId) -> AdminState {
        let found = self.real_servers.get(&(service, server));
        found.map_or(AdminState::Active, |found| found.state)
    }

    /// What an operator wants of a VIP.
    pub fn vip(&self, vip: Vip) -> AdminState {
        let found = self.vips.get(&vip);
        found.map_or(AdminState::Active, |found| found.state)
    }

    /// The services as the directors get them: a real server that is out of service has weight 0,
    /// so that it keeps the connections it has and takes no others, or is not there at all.
    pub(crate) fn services(&self, declaration: &Declaration) -> Vec<ServiceSpec> {
        let mut services = declaration.service.clone();
        if self.real_servers.is_empty() {
            return services;
        }
        for service in &mut services {
            let id = service.id();
            let of = service.clone();
            let found = |server: &_| self.real_servers.get(&(id, of.real_server_id(server)));
            service
                .real_server
                .retain(|server| !found(server).is_some_and(|found| found.removed));
            for server in &mut service.real_server {
                if found(server).is_some() {
                    server.weight = 0;
                }
            }
        }
        services
    }

    /// The declared VIPs that no director shall announce, with the operator's words.
    pub(crate) fn withdrawn(&self, declaration: &Declaration) -> BTreeMap<Vip, String> {
        let declared = declaration.vip.iter();
        declared
            .filter_map(|vip| {
                let found = self.vips.get(&vip.address)?;
                Some((vip.address, found.reason.clone()))
            })
            .collect()
    }
}
