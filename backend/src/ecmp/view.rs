//! The truth and the conditions as the API shows them.

use std::collections::BTreeSet;

use isopath_api::ecmp::{
    EcmpCondition, EcmpDissent, EcmpNotCounted, EcmpRouter, EcmpSaid, EcmpSwitch, EcmpView,
    EcmpVip, EcmpWanted, EcmpWish,
};
use isopath_api::ids::{DirectorName, RouterId};

use super::conditions::{Conditions, raised};
use super::truth::{SwitchTruth, VipTruth, Wish, truth};
use crate::clock::Moment;
use crate::control::state::ClusterState;

/// What `GET /api/v1/clusters/{c}/ecmp` answers.
pub fn view(cluster: &ClusterState, now: Moment, started: Moment) -> EcmpView {
    let truths = truth(cluster, now, started);
    EcmpView {
        schema: "isopath.ecmp/1".to_owned(),
        cluster: cluster.name.clone(),
        as_of: now.wall,
        vips: truths.iter().map(|truth| of_vip(cluster, truth)).collect(),
        conditions: listed(&cluster.conditions),
    }
}

/// The conditions as the API lists them.
pub fn listed(conditions: &Conditions) -> Vec<EcmpCondition> {
    let one = |(key, held): (&super::Key, &super::Held)| EcmpCondition {
        code: key.code,
        object: key.to_string(),
        vip: key.vip,
        director: key.director.clone(),
        router: key.router,
        cause: held.difference.cause.clone(),
        since: held.first.wall,
        next: held.difference.next.to_owned(),
    };
    raised(conditions).map(one).collect()
}

fn of_vip(cluster: &ClusterState, truth: &VipTruth) -> EcmpVip {
    let specs = cluster.declaration.director.iter();
    let wanted = specs.filter_map(|spec| wanted(truth, &spec.name));
    let said = truth.said.iter().map(|(director, said)| EcmpSaid {
        director: director.clone(),
        cost: said.cost,
        acknowledged: said.acknowledged,
        connected: said.connected,
    });
    let not_counted = truth.deaf.iter().map(|(director, why)| EcmpNotCounted {
        director: director.clone(),
        why: why.to_string(),
    });
    let switches = truth.switches.iter();
    let dissent = truth.dissent.iter();
    EcmpVip {
        vip: truth.vip,
        wanted: wanted.collect(),
        said: said.collect(),
        announcers: routers(cluster, &truth.announcers),
        switches: switches.map(|it| of_switch(cluster, it)).collect(),
        witnesses: truth.witnesses.clone(),
        not_counted: not_counted.collect(),
        dissent: dissent
            .map(|it| EcmpDissent {
                witness: it.witness.clone(),
                has: routers(cluster, &it.has),
            })
            .collect(),
    }
}

fn wanted(truth: &VipTruth, name: &DirectorName) -> Option<EcmpWanted> {
    let (wish, cost) = match truth.wishes.get(name)? {
        Wish::Announce { cost } => (EcmpWish::Announce, Some(*cost)),
        Wish::Leaving => (EcmpWish::Leaving, None),
        Wish::Out => (EcmpWish::Out, None),
    };
    Some(EcmpWanted {
        director: name.clone(),
        wish,
        cost,
        lowest: truth.lowest.contains(name),
    })
}

fn of_switch(cluster: &ClusterState, of: &SwitchTruth) -> EcmpSwitch {
    let mut declared = cluster.declaration.switch.iter();
    let declared = declared.find(|switch| switch.router_id == of.switch);
    let dissent = of.dissent.iter().map(|it| EcmpDissent {
        witness: it.witness.clone(),
        has: routers(cluster, &it.has.through),
    });
    EcmpSwitch {
        switch: of.switch,
        name: declared.map(|switch| switch.name.clone()),
        width: of.equal.width,
        through: routers(cluster, &of.equal.through),
        cost: of.equal.cost,
        dissent: dissent.collect(),
    }
}

fn routers(cluster: &ClusterState, routers: &BTreeSet<RouterId>) -> Vec<EcmpRouter> {
    let router = |router: &RouterId| EcmpRouter {
        router_id: *router,
        director: cluster.director_of(*router).cloned(),
    };
    routers.iter().map(router).collect()
}
