//! What is wanted of one director, derived from its cluster's declaration.

use std::collections::BTreeMap;
use std::sync::Arc;

use isopath_api::declare::{Declaration, DirectorSpec, Lvs, ServiceSpec, VipSpec, Warning};
use isopath_api::desired::{AdminState, Desired};
use isopath_api::digest::{self, ServiceDigest};
use isopath_api::ids::{DirectorName, ServiceId, Vip};
use isopath_api::operation::StepName;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::operation::Target;
use super::quiesced::Quiesced;
use super::state::{ClusterState, DirectorState};

/// What follows from a declaration, worked out once for all directors and readers.
#[derive(Debug, Clone)]
pub struct Derived {
    /// The settings that all services share.
    pub lvs: Lvs,
    /// The services as the directors get them: what is drained has weight 0.
    pub services: Vec<ServiceSpec>,
    /// The digest that each service must have on every director, so drained.
    pub digests: BTreeMap<ServiceId, ServiceDigest>,
    /// What works but is unwise.
    pub warnings: Vec<Warning>,
    /// A hash of what is wanted of every director alike.
    shared: String,
}

impl Derived {
    /// What follows from `declaration` and from what of it is out of service.
    pub fn of(declaration: &Declaration, quiesced: &Quiesced) -> Arc<Self> {
        let lvs = declaration.lvs();
        let services = quiesced.services(declaration);
        let digests = digest::expected(&services, &lvs);
        Arc::new(Self {
            shared: hash(&(&lvs, &digests, &services)),
            services,
            warnings: declaration.warnings(),
            lvs,
            digests,
        })
    }

    /// A hash of everything in [`derive`] that a declaration decides. A director whose content
    /// is another one gets another generation, whether the declaration changed or this
    /// controller derives it otherwise than the one before: an agent refuses other content
    /// under the same number.
    pub(crate) fn content(&self, declaration: &Declaration, director: &DirectorSpec) -> String {
        let vips = vips(declaration, &director.name);
        hash(&(director.router_id, &self.shared, vips))
    }
}

/// The VIPs as a director has them: each at its own cost.
fn vips(declaration: &Declaration, director: &DirectorName) -> Vec<VipSpec> {
    let vips = declaration.vip.iter();
    vips.map(|vip| vip.at(director)).collect()
}

fn hash(content: &impl Serialize) -> String {
    let text = serde_json::to_vec(content).expect("what is derived has string keys only");
    let hash = Sha256::digest(text);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The desired state of a declared director.
pub(super) fn derive(
    cluster: &ClusterState,
    name: &DirectorName,
    director: &DirectorState,
) -> Desired {
    let admin_state = sent(cluster, name, director);
    Desired {
        epoch: cluster.epoch.clone(),
        generation: director.generation,
        revision: director.desired_revision,
        cluster: cluster.name.clone(),
        director: name.clone(),
        router_id: director.router_id,
        admin_state,
        admin_reason: words(admin_state, director).to_owned(),
        lvs: cluster.derived.lvs,
        digests: cluster.derived.digests.clone(),
        vip: vips(&cluster.declaration, name),
        service: cluster.derived.services.clone(),
        withdraw: cluster.quiesced.withdrawn(&cluster.declaration),
    }
}

/// What a director is sent as its admin state. While its drain is under way that follows the step:
/// first only its cost is raised, and while a guard wants it back it serves.
fn sent(cluster: &ClusterState, name: &DirectorName, director: &DirectorState) -> AdminState {
    match director.admin_state {
        AdminState::Draining => {
            let operation = cluster.open_operation(&Target::Director(name.clone()));
            match operation.and_then(|operation| operation.step()) {
                Some(StepName::Guard) => AdminState::Active,
                Some(StepName::Cost) => AdminState::Draining,
                Some(_) | None => AdminState::Drained,
            }
        }
        state @ (AdminState::Active | AdminState::Drained) => state,
    }
}

fn words(sent: AdminState, director: &DirectorState) -> &str {
    match sent {
        AdminState::Active => "",
        AdminState::Draining | AdminState::Drained => &director.admin_reason,
    }
}

/// Everything that a director is told but for the number of it: where it differs, the number has
/// to be another one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    admin_state: AdminState,
    admin_reason: String,
    withdraw: BTreeMap<Vip, String>,
    content: String,
}

/// What a director is told; nothing where it is not declared.
pub(super) fn told(cluster: &ClusterState, name: &DirectorName) -> Option<Told> {
    let director = cluster.directors.get(name)?;
    let admin_state = sent(cluster, name, director);
    Some(Told {
        admin_state,
        admin_reason: words(admin_state, director).to_owned(),
        withdraw: cluster.quiesced.withdrawn(&cluster.declaration),
        content: director.content.clone(),
    })
}
