//! What this director reports.

use std::collections::BTreeMap;

use isopath_api::declare::ServiceSpec;
use isopath_api::ids::{RealServerId, Vip};
use isopath_api::observed::{
    ControllerObserved, DataplaneObserved, Observed, RealServerObserved, ServiceObserved,
    VipObserved,
};
use isopath_api::reason::{Decision, Reason};
use jiff::Timestamp;

use super::state::{Standing, State};
use crate::dataplane::KernelRealServer;

impl State {
    /// Everything this director sees at this moment, as one numbered report.
    pub(super) fn observed(
        &mut self,
        now: Timestamp,
        controller: Option<ControllerObserved>,
    ) -> Observed {
        self.sequence += 1;
        let intent = self.intent.as_deref();
        let services = intent.map_or(&[][..], |intent| &intent.services);
        let vip = |standing: &Standing| {
            let Decision {
                vip,
                announce,
                reason,
            } = &standing.decision;
            // The speaker's word goes before ours: it is what happens.
            let held = announce.and_then(|_| self.held_down(*vip));
            VipObserved {
                vip: *vip,
                cost: announce.filter(|_| held.is_none()).map(|how| how.cost),
                reason: held.unwrap_or(reason).clone(),
                since: standing.since,
            }
        };
        Observed {
            director: self.about.director.clone(),
            router_id: self.about.router_id,
            instance: self.about.instance.clone(),
            run: self.about.run.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at: now,
            sequence: self.sequence,
            epoch: intent.and_then(|intent| intent.epoch.clone()),
            generation: intent.map_or(0, |intent| intent.generation),
            speaker: self.speaker.as_deref().cloned(),
            vips: self.decisions.values().map(vip).collect(),
            services: services
                .iter()
                .map(|spec| self.observed_service(spec, now))
                .collect(),
            dataplane: DataplaneObserved {
                kind: self.about.dataplane,
                steps: self.kernel.report.steps,
                drift_repaired: self.kernel.report.drift_repaired,
                reconciles: self.kernel.reconciles,
                failures: self.kernel.report.failures.clone(),
                conditions: self.conditions.observed(),
            },
            controller,
        }
    }

    /// Why the speaker holds a VIP withdrawn that it was told to announce.
    fn held_down(&self, vip: Vip) -> Option<&Reason> {
        let withheld = &self.speaker.as_deref()?.withheld;
        let of_vip = withheld.iter().find(|withheld| withheld.vip == vip)?;
        matches!(of_vip.reason, Reason::HeldDown { .. }).then_some(&of_vip.reason)
    }

    fn observed_service(&self, spec: &ServiceSpec, now: Timestamp) -> ServiceObserved {
        let service = spec.id();
        let kernel = self.kernel_service(service);
        let checks = self.checks.of(service);
        let in_kernel: BTreeMap<RealServerId, &KernelRealServer> = kernel
            .iter()
            .flat_map(|kernel| &kernel.real_servers)
            .filter_map(|server| Some((server.id()?, server)))
            .collect();
        let mut real_servers: Vec<RealServerObserved> = spec
            .real_server
            .iter()
            .map(|server| {
                let id: RealServerId = spec.real_server_id(server);
                let check = checks.check(id);
                let in_kernel = in_kernel.get(&id);
                RealServerObserved {
                    real_server: id,
                    health: checks.health(id),
                    since: checks.since(id).unwrap_or(now),
                    last_check: check.and_then(|check| check.last.clone()),
                    weight: server.weight,
                    effective_weight: in_kernel.map(|real_server| real_server.spec.weight),
                    active: in_kernel.map_or(0, |real_server| real_server.active),
                    inactive: in_kernel.map_or(0, |real_server| real_server.inactive),
                    stats: in_kernel.map(|real_server| real_server.stats),
                }
            })
            .collect();
        // The kernel's order is canonical too, so every director lists them alike.
        real_servers.sort_by_key(|real_server| real_server.real_server);
        let is_wanted = |id: &RealServerId| real_servers.iter().any(|it| it.real_server == *id);
        let leaving = in_kernel.keys().filter(|id| !is_wanted(id)).copied();
        ServiceObserved {
            service,
            leaving: leaving.collect(),
            real_servers,
            stats: kernel.map(|kernel| kernel.stats),
            digest: self.digest(service).cloned(),
        }
    }
}
