//! What no two clusters may declare.
//!
//! The same VIP in two clusters would be announced by both, and clients of one would reach the
//! real servers of the other. The check stands where declarations are put in force, since only
//! there two that arrive at the same moment come one after the other.

use std::collections::HashMap;

use isopath_api::declare::Declaration;
use isopath_api::fault::Fault;
use isopath_api::ids::{ClusterName, Vip};

use super::state::{ClusterState, World};
use crate::error::Error;

/// Refuses addresses that another cluster has declared. What the cluster itself had declared
/// before stays its own, so that a declaration from before this rule can still be changed.
///
/// # Errors
/// [`Error::Invalid`] with the place of each.
pub(super) fn check(
    world: &World,
    name: &ClusterName,
    current: Option<&ClusterState>,
    new: &Declaration,
) -> Result<(), Error> {
    let before = current.map_or(&[][..], |cluster| &cluster.declaration.vip);
    let fresh: HashMap<Vip, usize> = new
        .vip
        .iter()
        .enumerate()
        .filter(|(_, vip)| !before.iter().any(|it| it.address == vip.address))
        .map(|(index, vip)| (vip.address, index))
        .collect();
    let others = world.clusters.iter().filter(|(other, _)| *other != name);
    let mut taken: Vec<_> = others
        .flat_map(|(other, cluster)| cluster.declaration.vip.iter().map(move |vip| (other, vip)))
        .filter_map(|(other, vip)| Some((*fresh.get(&vip.address)?, other, vip.address)))
        .collect();
    taken.sort_unstable();
    let faults: Vec<_> = taken
        .into_iter()
        .map(|(index, other, vip)| {
            Fault::new(
                format!("/vip/{index}/address"),
                "an address that no other cluster announces",
                format_args!("{vip}, which cluster {other} declares"),
            )
        })
        .collect();
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid { faults })
    }
}
