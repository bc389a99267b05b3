//! What a drain must not do, decided purely from what is known.

use std::collections::BTreeSet;

use isopath_api::desired::AdminState;
use isopath_api::ids::{DirectorName, Vip};

use crate::clock::Moment;
use crate::control::state::{
    ClusterState, DirectorState, announces, is_connected, lsdb_announcers,
};

/// The name of the guard against losing a VIP.
pub const LAST_ANNOUNCER: &str = "last_announcer";

/// Every guard that can be overridden.
pub const ALL: [&str; 1] = [LAST_ANNOUNCER];

/// A guard's refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The guard.
    pub guard: &'static str,
    /// What would be lost.
    pub detail: String,
}

/// Refuses to drain the last director that announces some VIP.
///
/// Another director counts only if it is active, reported within the last five seconds,
/// says its LSDB has it announcing the VIP, and is Full with a neighbour; whatever is not
/// known counts as absent.
///
/// # Errors
/// The VIPs that nobody else announces.
pub fn last_announcer(
    cluster: &ClusterState,
    drained: &DirectorName,
    now: Moment,
) -> Result<(), Refusal> {
    let Some(director) = cluster.directors.get(drained) else {
        return Ok(());
    };
    let lost: Vec<String> = at_stake(cluster, director, now)
        .into_iter()
        .filter(|vip| {
            !cluster
                .directors
                .iter()
                .any(|(name, other)| name != drained && is_announcing(other, *vip, now))
        })
        .map(|vip| vip.to_string())
        .collect();
    if lost.is_empty() {
        return Ok(());
    }
    Err(Refusal {
        guard: LAST_ANNOUNCER,
        detail: format!(
            "no other director is known to announce {}, so draining {drained} would take it out \
             of service; bring another director up, or override {LAST_ANNOUNCER} with a reason",
            lost.join(", ")
        ),
    })
}

/// The declared VIPs that a director announces, or may announce for all that is known.
fn at_stake(cluster: &ClusterState, director: &DirectorState, now: Moment) -> BTreeSet<Vip> {
    let declared = cluster.declaration.vip.iter().map(|vip| vip.address);
    if let Some(speaker) = director
        .fresh(now)
        .and_then(|report| report.speaker.as_ref())
    {
        let announced = |vip: &Vip| speaker.announced.iter().any(|known| known.vip == *vip);
        return declared.filter(announced).collect();
    }
    let mut witnesses = cluster
        .directors
        .values()
        .filter_map(|other| other.fresh(now))
        .filter(|report| is_connected(report))
        .peekable();
    if witnesses.peek().is_none() {
        return declared.collect();
    }
    let witnesses: Vec<_> = witnesses.collect();
    declared
        .filter(|vip| {
            witnesses
                .iter()
                .any(|report| lsdb_announcers(report, *vip).contains(&director.router_id))
        })
        .collect()
}

fn is_announcing(director: &DirectorState, vip: Vip, now: Moment) -> bool {
    director.admin_state == AdminState::Active
        && director
            .fresh(now)
            .is_some_and(|report| announces(report, vip) && is_connected(report))
}

#[cfg(test)]
mod tests;
