//! Where each VIP is announced, and where it should be.

use isopath_api::desired::AdminState;
use isopath_api::ids::{DirectorName, RouterId, Vip};
use isopath_api::view::{State, VipView, VipWidth};

use super::Facts;

pub(super) fn views(facts: &Facts<'_>) -> Vec<VipView> {
    let cluster = facts.cluster;
    let names = || cluster.declaration.director.iter().map(|spec| &spec.name);
    let wanted: Vec<DirectorName> = names()
        .filter(|name| {
            let director = cluster.directors.get(*name);
            director.is_some_and(|director| director.admin_state == AdminState::Active)
        })
        .cloned()
        .collect();
    cluster
        .declaration
        .vip
        .iter()
        .map(|vip| {
            let admin_state = cluster.quiesced.vip(vip.address);
            // One that is taken out of service is wanted nowhere.
            let wanted = match admin_state {
                AdminState::Active => wanted.clone(),
                AdminState::Draining | AdminState::Drained => Vec::new(),
            };
            let routers = facts.lsdb.as_ref().map(|lsdb| lsdb.announcers(vip.address));
            let listed = routers.unwrap_or_default();
            let is_listed = |name: &DirectorName| {
                let director = cluster.directors.get(name);
                director.is_some_and(|director| listed.contains(&director.router_id))
            };
            let real: Vec<DirectorName> = names().filter(|name| is_listed(name)).cloned().collect();
            let foreign: Vec<_> = listed
                .iter()
                .copied()
                .filter(|router_id| cluster.director_of(*router_id).is_none())
                .collect();
            let complete = wanted.iter().all(|name| real.contains(name));
            let state = match routers {
                None => State::Unknown,
                Some(_) if admin_state == AdminState::Draining => State::Draining,
                Some(_) if admin_state == AdminState::Drained && real.is_empty() => State::Safe,
                Some(_) if real.is_empty() => State::Down,
                Some(_) if complete && foreign.is_empty() => State::Up,
                Some(_) => State::Degraded,
            };
            let cheapest = wanted.iter().map(|name| vip.cost_at(name)).min();
            let lowest = wanted
                .iter()
                .filter(|name| Some(vip.cost_at(name)) == cheapest);
            let lowest = lowest.cloned().collect();
            VipView {
                vip: vip.address,
                state,
                lowest,
                admin_state,
                wanted,
                real,
                foreign,
                widths: widths(facts, vip.address),
            }
        })
        .collect()
}

/// How the switches spread a VIP, as the believed database's director calculates.
fn widths(facts: &Facts<'_>, vip: Vip) -> Vec<VipWidth> {
    let cluster = facts.cluster;
    let speaker = facts.lsdb.and_then(|lsdb| lsdb.observed.speaker.as_ref());
    let name_of = |router: &RouterId| {
        let director = cluster.director_of(*router);
        director.map_or_else(|| router.to_string(), ToString::to_string)
    };
    speaker
        .iter()
        .flat_map(|speaker| &speaker.widths)
        .filter(|width| width.vips.binary_search(&vip).is_ok())
        .filter(|width| cluster.director_of(width.router_id).is_none())
        .map(|width| VipWidth {
            switch: width.router_id,
            name: cluster
                .declaration
                .switch
                .iter()
                .find(|switch| switch.router_id == width.router_id)
                .map(|switch| switch.name.clone()),
            width: width.width,
            through: width.through.iter().map(name_of).collect(),
        })
        .collect()
}
