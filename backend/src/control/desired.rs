//! What is wanted of one director, derived from its cluster's declaration.

use std::collections::BTreeMap;

use isopath_api::declare::{Declaration, DirectorSpec, VipSpec};
use isopath_api::desired::Desired;
use isopath_api::ids::DirectorName;

use super::state::{ClusterState, DirectorState};

/// The desired state of a declared director.
pub(super) fn derive(
    cluster: &ClusterState,
    name: &DirectorName,
    director: &DirectorState,
) -> Desired {
    let vips = cluster.declaration.vip.iter();
    Desired {
        epoch: cluster.epoch.clone(),
        generation: director.generation,
        revision: director.desired_revision,
        cluster: cluster.name.clone(),
        director: name.clone(),
        router_id: director.router_id,
        admin_state: director.admin_state,
        admin_reason: director.admin_reason.clone(),
        lvs: cluster.declaration.lvs(),
        digests: BTreeMap::new(),
        vip: vips.map(|vip| vip.at(name)).collect(),
        service: cluster.declaration.service.clone(),
    }
}

/// Whether two declarations want the same of a director: everything in [`derive`] that a
/// declaration decides.
pub(super) fn same_for(director: &DirectorSpec, old: &Declaration, new: &Declaration) -> bool {
    let vips = |of: &Declaration| -> Vec<VipSpec> {
        let vips = of.vip.iter();
        vips.map(|vip| vip.at(&director.name)).collect()
    };
    old.director.contains(director)
        && old.lvs() == new.lvs()
        && vips(old) == vips(new)
        && old.service == new.service
}
