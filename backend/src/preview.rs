//! What a drain would do, before anybody asks for it.

use isopath_api::desired::AdminState;
use isopath_api::ids::{DirectorName, Vip};
use isopath_api::operation::{DrainPreview, FlowsView, GuardView, LeftView, StepPreview};

use crate::clock::Moment;
use crate::control::Change;
use crate::control::drains::{admit, check_request};
use crate::control::operation::{Kind, Target, connections, kind_str, plan, rate, waits_for};
use crate::control::state::{ClusterState, announces};
use crate::error::Error;
use crate::guards;

/// What a change would do.
///
/// # Errors
/// [`Error::Invalid`] for a request that is not well formed, [`Error::NotFound`] for a target that
/// is not there. That it would be refused is part of the answer.
pub(crate) fn of(
    cluster: &ClusterState,
    change: &Change,
    (now, started): (Moment, Moment),
) -> Result<DrainPreview, Error> {
    check_request(&change.target, change.kind, &change.request)?;
    let refusal = match admit(cluster, change, (now, started)) {
        Ok(_) => String::new(),
        Err(refusal @ (Error::Guard { .. } | Error::Conflict { .. })) => refusal.to_string(),
        Err(error) => return Err(error),
    };
    let target = &change.target;
    let steps = plan(target, change.kind, change.request.on_deadline);
    Ok(DrainPreview {
        kind: kind_str(target, change.kind).to_owned(),
        cluster: cluster.name.clone(),
        target: target.to_string(),
        admitted: refusal.is_empty(),
        refusal,
        guards: guards(cluster, change, (now, started)),
        left: match change.kind {
            Kind::Drain => left(cluster, target, now),
            Kind::Undrain => Vec::new(),
        },
        flows: match change.kind {
            Kind::Drain => flows(cluster, target, now),
            Kind::Undrain => Vec::new(),
        },
        steps: steps
            .into_iter()
            .map(|step| StepPreview {
                step,
                waits_for: waits_for(step, target),
            })
            .collect(),
    })
}

fn guards(cluster: &ClusterState, change: &Change, at: (Moment, Moment)) -> Vec<GuardView> {
    let overridden = |guard: &str| {
        let mut named = change.request.override_guards.iter();
        named.any(|name| name == guard)
    };
    guards::verdicts(cluster, &change.target, change.kind, at)
        .into_iter()
        .map(|(guard, verdict)| GuardView {
            guard: guard.to_owned(),
            allows: verdict.is_ok(),
            overridden: overridden(guard),
            detail: verdict
                .err()
                .map(|refusal| refusal.detail)
                .unwrap_or_default(),
        })
        .collect()
}

/// What would be left of each VIP, or of the weights of each service.
fn left(cluster: &ClusterState, target: &Target, now: Moment) -> Vec<LeftView> {
    let specs = cluster.declaration.vip.iter();
    let of_vip = |vip: Vip| {
        let announcing = cluster.directors.iter().filter(|(_, director)| {
            director.admin_state == AdminState::Active
                && director.fresh(now).is_some_and(|it| announces(it, vip))
        });
        let names: Vec<&DirectorName> = announcing.map(|(name, _)| name).collect();
        let stays = |name: &&&DirectorName| match target {
            Target::Director(drained) => **name != drained,
            Target::Vip(drained) => *drained != vip,
            Target::RealServer(..) => true,
        };
        let left: Vec<DirectorName> = names.iter().filter(stays).copied().cloned().collect();
        LeftView {
            object: vip.to_string(),
            unit: "directors".to_owned(),
            now: count(names.len()),
            after: count(left.len()),
            directors: left,
        }
    };
    match target {
        Target::Director(_) => specs.map(|spec| of_vip(spec.address)).collect(),
        Target::Vip(vip) => vec![of_vip(*vip)],
        Target::RealServer(..) => weights(cluster, target),
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn weights(cluster: &ClusterState, target: &Target) -> Vec<LeftView> {
    let members = target.members(&cluster.declaration);
    let services = cluster.derived.services.iter();
    services
        .filter(|service| members.iter().any(|(id, _)| *id == service.id()))
        .map(|service| {
            let servers = || service.real_server.iter();
            let now: u64 = servers().map(|server| u64::from(server.weight)).sum();
            let ours = servers()
                .filter(|server| members.contains(&(service.id(), service.real_server_id(server))));
            let gone: u64 = ours.map(|server| u64::from(server.weight)).sum();
            LeftView {
                object: service.id().to_string(),
                unit: "weight".to_owned(),
                now,
                after: now - gone,
                directors: Vec::new(),
            }
        })
        .collect()
}

/// What would move: on the drained director, or on each for what all of them have.
fn flows(cluster: &ClusterState, target: &Target, now: Moment) -> Vec<FlowsView> {
    let vips: Vec<Vip> = match target {
        Target::Vip(vip) => vec![*vip],
        Target::Director(_) | Target::RealServer(..) => {
            let specs = cluster.declaration.vip.iter();
            specs.map(|spec| spec.address).collect()
        }
    };
    let reports = cluster.directors.values().filter_map(|it| it.fresh(now));
    let all = Target::Vip(Vip(std::net::Ipv4Addr::UNSPECIFIED));
    let total: u64 = reports.map(|it| connections(it, &all, &vips).0).sum();
    let concerned = cluster.directors.iter().filter(|(name, _)| match target {
        Target::Director(drained) => *name == drained,
        Target::RealServer(..) | Target::Vip(_) => true,
    });
    concerned
        .map(|(name, director)| {
            let observed = director.fresh(now);
            let counted = observed.map(|it| connections(it, target, &vips));
            FlowsView {
                director: name.clone(),
                active: counted.map(|(active, _)| active),
                inactive: counted.map(|(_, inactive)| inactive),
                pps: observed.and_then(|it| rate(it, target, &vips)),
                percent: counted
                    .filter(|_| total > 0)
                    .map(|(active, _)| active as f64 * 100.0 / total as f64),
            }
        })
        .collect()
}
