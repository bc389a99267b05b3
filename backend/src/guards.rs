//! What a drain must not do, decided purely from what is known.
//!
//! The same functions answer a preview, decide in the transaction that admits an operation, before
//! each generation that takes something out of service, and at every tick while one is under way.

use std::collections::BTreeSet;

use isopath_api::declare::{Declaration, ServiceSpec};
use isopath_api::desired::AdminState;
use isopath_api::ids::{DirectorName, RealServerId, ServiceId, Vip};
use isopath_api::observed::{Health, Observed, RealServerObserved};

use crate::clock::Moment;
use crate::control::operation::{Kind, Operation, Target};
use crate::control::state::{
    ClusterState, DirectorState, Liveness, announces, is_connected, lsdb_announcers,
};

/// The name of the guard against losing a VIP.
pub const LAST_ANNOUNCER: &str = "last_announcer";
/// The name of the guard against too few directors.
pub const MIN_DIRECTORS: &str = "min_directors";
/// The name of the guard against draining a director while a change is rolled out.
pub const ROLLOUT: &str = "rollout";
/// The name of the guard against a service below its quorum.
pub const QUORUM: &str = "quorum";
/// The name of the guard against a service without a real server.
pub const LAST_REAL_SERVER: &str = "last_real_server";
/// The name of the guard against taking for granted what no other director's database can say.
pub const WITNESS: &str = "witness";

/// The name of the guard against a declaration that lacks most of what was declared.
pub const LARGE_REMOVAL: &str = "large_removal";

/// Every guard that a declaration can override.
pub const OF_DECLARATIONS: [&str; 1] = [LARGE_REMOVAL];

/// Every guard that can be overridden.
pub const ALL: [&str; 6] = [
    LAST_ANNOUNCER,
    MIN_DIRECTORS,
    ROLLOUT,
    QUORUM,
    LAST_REAL_SERVER,
    WITNESS,
];

/// A guard's refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The guard.
    pub guard: &'static str,
    /// What would be lost.
    pub detail: String,
}

/// What a guard says.
pub type Verdict = (&'static str, Result<(), Refusal>);

/// What each guard that has a say says of an operation that is asked for now.
pub fn verdicts(
    cluster: &ClusterState,
    target: &Target,
    kind: Kind,
    (now, started): (Moment, Moment),
) -> Vec<Verdict> {
    match (kind, target) {
        (Kind::Drain, Target::Director(name)) => vec![
            (LAST_ANNOUNCER, last_announcer(cluster, name, now)),
            (MIN_DIRECTORS, min_directors(cluster, name, now)),
            (ROLLOUT, rollout(cluster, name, (now, started))),
        ],
        (Kind::Drain, Target::RealServer(..)) => {
            let members = target.members(&cluster.declaration);
            let counted = (counts_for_admission as Counts, now);
            vec![
                (QUORUM, quorum(cluster, &members, counted)),
                (
                    LAST_REAL_SERVER,
                    last_real_server(cluster, &members, counted),
                ),
            ]
        }
        // That nobody announces it is what is asked for.
        (Kind::Drain, Target::Vip(_)) | (Kind::Undrain, _) => Vec::new(),
    }
}

/// Whether the guards still allow a drain that is under way.
///
/// A director counts as announcing also where it is silent and another's database has it
/// announce: here the question is whether to put the drained one back, and silence alone,
/// above all so soon after the controller's start, is no reason to.
///
/// # Errors
/// The first guard, of those that were not overridden, that would refuse it now.
pub fn kept(
    cluster: &ClusterState,
    operation: &Operation,
    (now, started): (Moment, Moment),
) -> Result<(), Refusal> {
    let refused = match (&operation.target, operation.kind) {
        (Target::Director(name), Kind::Drain) => {
            let early = cluster
                .directors
                .values()
                .any(|director| director.liveness(now, started) == Liveness::NotYetHeard);
            if early {
                return Ok(());
            }
            still_announced(cluster, operation, name, now)
        }
        (Target::RealServer(..), Kind::Drain) => {
            let members = operation.target.members(&cluster.declaration);
            let known = cluster.directors.values().any(|it| it.fresh(now).is_some());
            if !known {
                return Ok(());
            }
            let counted = (counts_under_way as Counts, now);
            vec![
                quorum(cluster, &members, counted),
                last_real_server(cluster, &members, counted),
            ]
        }
        (Target::Vip(_), Kind::Drain) | (_, Kind::Undrain) => Vec::new(),
    };
    let mut refused = refused.into_iter().filter_map(Result::err);
    match refused.find(|refusal| !operation.overrides(refusal.guard)) {
        Some(refusal) => Err(refusal),
        None => Ok(()),
    }
}

fn still_announced(
    cluster: &ClusterState,
    operation: &Operation,
    drained: &DirectorName,
    now: Moment,
) -> Vec<Result<(), Refusal>> {
    let declared = cluster.declaration.vip.iter().map(|vip| vip.address);
    // One that was known to announce nothing took nothing out that others would have to keep.
    let vips = declared
        .filter(|vip| operation.at_stake.contains(vip) && !cluster.quiesced.vips.contains_key(vip));
    let left = |vip: Vip| {
        let others = cluster
            .directors
            .iter()
            .filter(|(name, _)| *name != drained);
        others
            .filter(|(_, other)| {
                is_announcing(other, vip, now) || is_heard_announcing(cluster, other, vip, now)
            })
            .count()
    };
    let least = least(cluster);
    let refused = |vip| {
        let left = left(vip);
        let lost = (left == 0).then(|| Refusal {
            guard: LAST_ANNOUNCER,
            detail: format!("nobody else announces {vip} any more"),
        });
        // Each of its own: that one is overridden lifts no other.
        let few = (left < least && least > 1).then(|| Refusal {
            guard: MIN_DIRECTORS,
            detail: format!("only {left} others announce {vip} now, min_directors is {least}"),
        });
        [lost, few]
    };
    let refused = vips.flat_map(refused).flatten();
    refused.map(Err).collect()
}

/// Whether an active director that does not report is announced all the same, by a database of
/// somebody who does.
fn is_heard_announcing(
    cluster: &ClusterState,
    director: &DirectorState,
    vip: Vip,
    now: Moment,
) -> bool {
    let mut witnesses = cluster.directors.values().filter_map(|it| it.fresh(now));
    director.admin_state == AdminState::Active
        && director.fresh(now).is_none()
        && witnesses.any(|observed| {
            is_connected(observed) && lsdb_announcers(observed, vip).contains(&director.router_id)
        })
}

/// How many directors shall be left to announce each VIP.
fn least(cluster: &ClusterState) -> usize {
    usize::from(cluster.declaration.min_directors.unwrap_or(1))
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
    let lost: Vec<String> = left(cluster, drained, now)
        .into_iter()
        .filter(|(_, left)| *left == 0)
        .map(|(vip, _)| vip.to_string())
        .collect();
    if lost.is_empty() {
        return Ok(());
    }
    Err(Refusal {
        guard: LAST_ANNOUNCER,
        detail: format!(
            "no other director is known to announce {}, so draining {drained} would take it out \
             of service{}; bring another director up, or override {LAST_ANNOUNCER} with a reason",
            lost.join(", "),
            others_under_way(cluster, drained),
        ),
    })
}

/// Refuses a declaration without more than half of the VIPs or of the services that were declared:
/// a file that was cut short, or one of another cluster, looks like that.
///
/// # Errors
/// How many would go.
pub fn large_removal(before: &Declaration, after: &Declaration) -> Result<(), Refusal> {
    let vips: BTreeSet<Vip> = after.vip.iter().map(|vip| vip.address).collect();
    let services: BTreeSet<ServiceId> = after.service.iter().map(ServiceSpec::id).collect();
    let gone_vips = before.vip.iter().filter(|vip| !vips.contains(&vip.address));
    let gone_services = before
        .service
        .iter()
        .filter(|service| !services.contains(&service.id()));
    for (gone, of, what) in [
        (gone_vips.count(), before.vip.len(), "VIPs"),
        (gone_services.count(), before.service.len(), "services"),
    ] {
        if gone * 2 > of {
            return Err(Refusal {
                guard: LARGE_REMOVAL,
                detail: format!(
                    "{gone} of the {of} {what} that are declared would go; if that is meant, \
                     override {LARGE_REMOVAL} with a reason"
                ),
            });
        }
    }
    Ok(())
}

/// Refuses to drain a director where fewer than `min_directors` would be left to announce some
/// VIP. That none is left is [`last_announcer`]'s to refuse.
///
/// # Errors
/// The VIPs, and how many directors would announce each.
pub fn min_directors(
    cluster: &ClusterState,
    drained: &DirectorName,
    now: Moment,
) -> Result<(), Refusal> {
    let least = least(cluster);
    let few: Vec<String> = left(cluster, drained, now)
        .into_iter()
        .filter(|(_, left)| *left < least && least > 1)
        .map(|(vip, left)| format!("{vip} on {left}"))
        .collect();
    if few.is_empty() {
        return Ok(());
    }
    Err(Refusal {
        guard: MIN_DIRECTORS,
        detail: format!(
            "draining {drained} would leave {}, and min_directors is {least}{}; bring another \
             director up, or override {MIN_DIRECTORS} with a reason",
            few.join(", "),
            others_under_way(cluster, drained),
        ),
    })
}

/// The drains of other directors that are under way: they are why fewer are left.
fn others_under_way(cluster: &ClusterState, drained: &DirectorName) -> String {
    let others: Vec<String> = cluster
        .operations
        .iter()
        .filter_map(|operation| match (&operation.target, operation.kind) {
            (Target::Director(name), Kind::Drain) if name != drained => {
                Some(format!("{name} by operation {}", operation.id))
            }
            _ => None,
        })
        .collect();
    if others.is_empty() {
        String::new()
    } else {
        format!(" (under way: {})", others.join(", "))
    }
}

/// How many others announce each VIP that a director announces.
fn left(cluster: &ClusterState, drained: &DirectorName, now: Moment) -> Vec<(Vip, usize)> {
    let Some(director) = cluster.directors.get(drained) else {
        return Vec::new();
    };
    let vips = at_stake(cluster, director, now).into_iter();
    vips.map(|vip| {
        let others = cluster
            .directors
            .iter()
            .filter(|(name, _)| *name != drained);
        let left = others.filter(|(name, other)| {
            is_announcing(other, vip, now) && has_followed(cluster, name, other)
        });
        (vip, left.count())
    })
    .collect()
}

/// Whether a director has acknowledged what an operation on it needs. Until then its report tells
/// of what it did before: it may be withdrawing, although it is wanted back.
fn has_followed(cluster: &ClusterState, name: &DirectorName, director: &DirectorState) -> bool {
    let open = cluster.open_operation(&Target::Director(name.clone()));
    open.is_none_or(|open| director.acknowledged(&cluster.epoch) >= open.need.get(name).copied())
}

/// Refuses to drain a director while a change of what is declared is being rolled out: which
/// directors have it and which do not is then not known, and what goes wrong with it would not
/// be told from the drain.
///
/// # Errors
/// The directors that report and have not acknowledged it.
pub fn rollout(
    cluster: &ClusterState,
    drained: &DirectorName,
    (now, started): (Moment, Moment),
) -> Result<(), Refusal> {
    let is_behind = |director: &DirectorState| {
        let is_live = match director.liveness(now, started) {
            Liveness::Fresh | Liveness::Stale(_) => true,
            // Whoever is gone gets it when it comes back.
            Liveness::Lost(_) | Liveness::NotYetHeard | Liveness::NeverHeard => false,
        };
        let acknowledged = director.acknowledged(&cluster.epoch);
        is_live && acknowledged.is_none_or(|acknowledged| acknowledged < director.shaped_at)
    };
    let behind: Vec<&str> = cluster
        .directors
        .iter()
        .filter(|(_, director)| is_behind(director))
        .map(|(name, _)| name.as_str())
        .collect();
    if behind.is_empty() {
        return Ok(());
    }
    Err(Refusal {
        guard: ROLLOUT,
        detail: format!(
            "a change is being rolled out that {} has not acknowledged yet; drain {drained} when \
             it has, or override {ROLLOUT} with a reason",
            behind.join(", ")
        ),
    })
}

/// Refuses to drain real servers without which a service would fall below its quorum on some
/// director. One that is below it anyway is not their doing.
///
/// # Errors
/// The services and directors.
fn quorum(
    cluster: &ClusterState,
    drained: &[(ServiceId, RealServerId)],
    (counts, now): (Counts, Moment),
) -> Result<(), Refusal> {
    let mut short = Vec::new();
    for (service, name, left, with) in healthy(cluster, drained, (counts, now)) {
        let quorum = usize::from(service.quorum);
        if left < quorum && with >= quorum {
            let id = service.id();
            short.push(format!(
                "{id} with {left} healthy on {name}, {quorum} needed"
            ));
        }
    }
    refused(cluster, drained, now, QUORUM, short)
}

/// Refuses to drain the last real server of a service that takes connections.
///
/// # Errors
/// The services and directors.
fn last_real_server(
    cluster: &ClusterState,
    drained: &[(ServiceId, RealServerId)],
    (counts, now): (Counts, Moment),
) -> Result<(), Refusal> {
    let mut lost = Vec::new();
    for (service, name, left, with) in healthy(cluster, drained, (counts, now)) {
        if left == 0 && with > 0 {
            lost.push(format!("{} with none on {name}", service.id()));
        }
    }
    refused(cluster, drained, now, LAST_REAL_SERVER, lost)
}

fn refused(
    cluster: &ClusterState,
    drained: &[(ServiceId, RealServerId)],
    now: Moment,
    guard: &'static str,
    short: Vec<String>,
) -> Result<(), Refusal> {
    let nobody_reports = !cluster.directors.values().any(|it| it.fresh(now).is_some());
    let what = if nobody_reports && !drained.is_empty() {
        "no director reports, so that nobody knows which real servers are healthy".to_owned()
    } else if short.is_empty() {
        return Ok(());
    } else {
        format!("the drain would leave {}", short.join("; "))
    };
    Err(Refusal {
        guard,
        detail: format!("{what}; bring another real server up, or override {guard} with a reason"),
    })
}

/// Whether a real server counts as one that takes connections.
type Counts = fn(&RealServerObserved) -> bool;

/// One whose checks have not decided counts where the kernel gives it connections: a restarted
/// agent goes on with what the one before it knew.
fn counts_for_admission(server: &RealServerObserved) -> bool {
    match server.health {
        Health::Up => true,
        Health::Unknown => server.effective_weight.is_some_and(|weight| weight > 0),
        Health::Down => false,
    }
}

/// Only one that is known to be down is lost: that nobody knows of one, above all just after its
/// agent's start, is no reason to put another back.
fn counts_under_way(server: &RealServerObserved) -> bool {
    match server.health {
        Health::Up | Health::Unknown => true,
        Health::Down => false,
    }
}

/// Of each service that has drained real servers, on each director that reports: how many healthy
/// ones that may take connections would be left, and how many there would be with the drained.
fn healthy<'a>(
    cluster: &'a ClusterState,
    drained: &'a [(ServiceId, RealServerId)],
    (counts, now): (Counts, Moment),
) -> impl Iterator<Item = (&'a ServiceSpec, &'a DirectorName, usize, usize)> {
    let services = cluster.declaration.service.iter();
    let services = services.filter(|service| drained.iter().any(|(id, _)| *id == service.id()));
    services.flat_map(move |service| {
        let fresh = cluster.directors.iter();
        let fresh = fresh.filter_map(move |(name, director)| Some((name, director.fresh(now)?)));
        fresh.map(move |(name, observed)| {
            let id = service.id();
            let up = |server: &RealServerId| is_up(observed, (id, *server), counts);
            let servers = service
                .real_server
                .iter()
                .filter(|server| server.weight > 0);
            let ids = servers.map(|server| service.real_server_id(server));
            let (ours, others): (Vec<_>, Vec<_>) =
                ids.partition(|server| drained.contains(&(id, *server)));
            let is_active =
                |server: &RealServerId| cluster.quiesced.server(id, *server) == AdminState::Active;
            let left = others.iter().filter(|it| is_active(it) && up(it)).count();
            let with = left + ours.iter().filter(|it| up(it)).count();
            (service, name, left, with)
        })
    })
}

fn is_up(
    observed: &Observed,
    (service, server): (ServiceId, RealServerId),
    counts: Counts,
) -> bool {
    let services = observed.services.iter().filter(|it| it.service == service);
    let mut servers = services.flat_map(|it| &it.real_servers);
    servers.any(|it| it.real_server == server && counts(it))
}

/// The declared VIPs that a director announces, or may announce for all that is known.
pub fn at_stake(cluster: &ClusterState, director: &DirectorState, now: Moment) -> BTreeSet<Vip> {
    let declared = cluster.declaration.vip.iter().map(|vip| vip.address);
    if let Some(speaker) = director
        .fresh(now)
        .and_then(|report| report.speaker.as_ref())
    {
        let announced = |vip: &Vip| speaker.announced.iter().any(|known| known.vip == *vip);
        return declared.filter(announced).collect();
    }
    let witnesses: Vec<_> = cluster
        .directors
        .values()
        .filter_map(|other| other.fresh(now))
        .filter(|report| is_connected(report))
        .collect();
    if witnesses.is_empty() {
        return declared.collect();
    }
    // Of a VIP that none of their speakers knows of they say nothing.
    let knows = |report: &Observed, vip: Vip| {
        let speaker = report.speaker.as_ref();
        speaker.is_some_and(|speaker| speaker.announcers.contains_key(&vip))
    };
    declared
        .filter(|vip| {
            let announced =
                |report: &&Observed| lsdb_announcers(report, *vip).contains(&director.router_id);
            let is_known = witnesses.iter().any(|report| knows(report, *vip));
            !is_known || witnesses.iter().any(announced)
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
