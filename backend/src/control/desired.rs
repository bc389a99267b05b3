//! What is wanted of one director, derived from its cluster's declaration.

use std::collections::BTreeMap;
use std::sync::Arc;

use isopath_api::declare::{Declaration, DirectorSpec, Lvs, VipSpec, Warning};
use isopath_api::desired::Desired;
use isopath_api::digest::{self, ServiceDigest};
use isopath_api::ids::{DirectorName, ServiceId};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::state::{ClusterState, DirectorState};

/// What follows from a declaration, worked out once for all directors and readers.
#[derive(Debug, Clone)]
pub struct Derived {
    /// The settings that all services share.
    pub lvs: Lvs,
    /// The digest that each service must have on every director.
    pub digests: BTreeMap<ServiceId, ServiceDigest>,
    /// What works but is unwise.
    pub warnings: Vec<Warning>,
    /// A hash of what is wanted of every director alike.
    shared: String,
}

impl Derived {
    /// What follows from `declaration`.
    pub fn of(declaration: &Declaration) -> Arc<Self> {
        let lvs = declaration.lvs();
        let digests = digest::expected(&declaration.service, &lvs);
        Arc::new(Self {
            shared: hash(&(&lvs, &digests, &declaration.service)),
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
    Desired {
        epoch: cluster.epoch.clone(),
        generation: director.generation,
        revision: director.desired_revision,
        cluster: cluster.name.clone(),
        director: name.clone(),
        router_id: director.router_id,
        admin_state: director.admin_state,
        admin_reason: director.admin_reason.clone(),
        lvs: cluster.derived.lvs,
        digests: cluster.derived.digests.clone(),
        vip: vips(&cluster.declaration, name),
        service: cluster.declaration.service.clone(),
    }
}
