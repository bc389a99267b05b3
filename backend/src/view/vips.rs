//! Where each VIP is announced, and where it should be.

use isopath_api::desired::AdminState;
use isopath_api::ids::{DirectorName, RouterId};
use isopath_api::view::{State, VipView, VipWidth};

use super::Facts;
use crate::ecmp::{self, VipTruth};

pub(super) fn views(facts: &Facts<'_>) -> Vec<VipView> {
    let cluster = facts.cluster;
    let truths = ecmp::truth(cluster, facts.now, facts.started);
    let names = || cluster.declaration.director.iter().map(|spec| &spec.name);
    let wanted: Vec<DirectorName> = names()
        .filter(|name| {
            let director = cluster.directors.get(*name);
            director.is_some_and(|director| director.admin_state == AdminState::Active)
        })
        .cloned()
        .collect();
    let specs = cluster.declaration.vip.iter();
    specs
        .zip(&truths)
        .map(|(vip, truth)| {
            let admin_state = cluster.quiesced.vip(vip.address);
            // One that is taken out of service is wanted nowhere.
            let wanted = match admin_state {
                AdminState::Active => wanted.clone(),
                AdminState::Draining | AdminState::Drained => Vec::new(),
            };
            let listed = &truth.announcers;
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
            let state = match admin_state {
                _ if !truth.is_known() => State::Unknown,
                AdminState::Draining => State::Draining,
                AdminState::Drained if real.is_empty() => State::Safe,
                _ if real.is_empty() => State::Down,
                _ if complete && foreign.is_empty() => State::Up,
                AdminState::Active | AdminState::Drained => State::Degraded,
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
                widths: widths(facts, truth),
            }
        })
        .collect()
}

/// How the switches spread a VIP, as most databases have it.
fn widths(facts: &Facts<'_>, truth: &VipTruth) -> Vec<VipWidth> {
    let cluster = facts.cluster;
    let name_of = |router: &RouterId| {
        let director = cluster.director_of(*router);
        director.map_or_else(|| router.to_string(), ToString::to_string)
    };
    let width = |of: &ecmp::SwitchTruth| VipWidth {
        switch: of.switch,
        name: cluster
            .declaration
            .switch
            .iter()
            .find(|switch| switch.router_id == of.switch)
            .map(|switch| switch.name.clone()),
        width: of.equal.width,
        through: of.equal.through.iter().map(name_of).collect(),
    };
    truth.switches.iter().map(width).collect()
}
