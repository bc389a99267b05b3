//! What is wrong with a cluster, each thing once, worst first.
//!
//! A problem is an object's, not a check's: a director that is down is not told again for
//! each of its VIPs, nor a service below its quorum for each of its real servers.

use std::collections::BTreeSet;
use std::time::Duration;

use isopath_api::ecmp::EcmpCode;
use isopath_api::ids::DirectorName;
use isopath_api::observed::Health;
use isopath_api::operation::OperationState;
use isopath_api::reason::Reason;
use isopath_api::view::{
    Contact, DirectorView, DirectorVipView, ProblemView, RealServerView, ServiceView, State,
    VipView,
};
use jiff::Timestamp;

use super::directors::contact;
use super::{Facts, last_check_in_words, list, placement};
use crate::control::state::DirectorState;
use crate::ecmp::{self, Key};

/// An operation that has not ended after so long is told.
const SLOW_OPERATION: Duration = Duration::from_secs(30);

pub(super) fn find(
    facts: &Facts<'_>,
    (directors, withholding): (&[DirectorView], &BTreeSet<DirectorName>),
    vips: &[VipView],
    services: &[ServiceView],
) -> Vec<ProblemView> {
    let mut problems: Vec<ProblemView> = Vec::new();
    problems.extend(vips.iter().filter_map(|vip| of_vip(facts, vip, directors)));
    // A VIP that is rightly withheld is the VIP's problem, told there.
    let others = directors.iter().filter(|d| !withholding.contains(&d.name));
    problems.extend(others.filter_map(|director| of_director(facts, director)));
    problems.extend(uplinks(facts));
    problems.extend(sets(facts, directors));
    problems.extend(conflicts(facts));
    problems.extend(slow_operations(facts));
    let specs = facts.cluster.declaration.director.iter();
    let names: Vec<DirectorName> = specs.map(|spec| spec.name.clone()).collect();
    problems.extend(placement::problems(services, &names));
    problems.extend(services.iter().flat_map(of_service));
    // Stable: what is equally bad stays in the order VIPs, directors, services.
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.state));
    problems
}

/// The state of a cluster in one sentence.
pub(super) fn verdict(
    directors: &[DirectorView],
    vips: &[VipView],
    problems: &[ProblemView],
) -> String {
    let Some(first) = directors.first() else {
        return "No directors are declared.".to_owned();
    };
    if directors.iter().all(|d| d.state == State::Unknown) {
        return format!(
            "Nothing is known of any director ({}: {}).",
            first.name, first.why
        );
    }
    if let Some((worst, others)) = problems.split_first() {
        let more = match others.len() {
            0 => String::new(),
            1 => " (and 1 more problem)".to_owned(),
            count => format!(" (and {count} more problems)"),
        };
        return format!("{}: {}{more}.", worst.object, worst.cause);
    }
    let out: Vec<_> = directors.iter().filter(|d| d.state != State::Up).collect();
    let out_of_service = match out.as_slice() {
        [] => String::new(),
        [one] => format!("; {} is {}", one.name, one.admin_state),
        several => format!(
            "; {} are out of service",
            list(several.iter().map(|d| &d.name))
        ),
    };
    let serving = directors.len() - out.len();
    match (vips, serving) {
        ([], _) => "No VIPs are declared.".to_owned(),
        ([vip], 1) => format!("{} is announced by 1 director{out_of_service}.", vip.vip),
        ([vip], n) => format!(
            "{} is announced by all {n} directors in service{out_of_service}.",
            vip.vip
        ),
        (vips, n) => format!(
            "All {} VIPs are announced by all {n} directors in service{out_of_service}.",
            vips.len()
        ),
    }
}

fn of_vip(facts: &Facts<'_>, vip: &VipView, directors: &[DirectorView]) -> Option<ProblemView> {
    let problem = |state, cause, since, next: &str| {
        Some(ProblemView {
            state,
            object: format!("VIP {}", vip.vip),
            cause,
            since,
            next: next.to_owned(),
        })
    };
    if !vip.foreign.is_empty() {
        let cause = format!("announced by {}, which is no director", list(&vip.foreign));
        let next = "find the router of that id: a director removed from the declaration goes on \
                    announcing until its speaker is stopped";
        let since = foreign_since(facts, vip);
        return problem(State::Degraded, cause, since, next);
    }
    let missing: Vec<&DirectorView> = directors
        .iter()
        .filter(|d| vip.wanted.contains(&d.name) && !vip.real.contains(&d.name))
        .collect();
    // Told elsewhere: of the director, or of where it would send clients.
    let explained = |d: &&DirectorView| {
        let reason = decision(vip, d).map(|decision| &decision.reason);
        matches!(d.state, State::Down | State::Unknown)
            || matches!(reason, Some(Reason::DigestMismatch { .. }))
    };
    match vip.state {
        State::Down if vip.wanted.is_empty() => problem(
            State::Down,
            "announced by nobody: every director is drained".to_owned(),
            None,
            "undrain a director",
        ),
        State::Down => {
            let (why, since) = why_missing(vip, &missing);
            let cause = format!("announced by nobody{why}");
            problem(State::Down, cause, since, remedy(vip, &missing))
        }
        State::Degraded if !missing.is_empty() && !missing.iter().all(explained) => {
            let missing: Vec<_> = missing.into_iter().filter(|d| !explained(d)).collect();
            let (why, since) = why_missing(vip, &missing);
            let cause = format!(
                "announced by {} of {} directors, not by {}{why}",
                vip.wanted
                    .iter()
                    .filter(|name| vip.real.contains(name))
                    .count(),
                vip.wanted.len(),
                list(missing.iter().map(|d| &d.name)),
            );
            problem(State::Degraded, cause, since, remedy(vip, &missing))
        }
        State::Up | State::Draining | State::Safe | State::Degraded | State::Unknown => None,
    }
}

fn decision<'a>(vip: &VipView, director: &'a DirectorView) -> Option<&'a DirectorVipView> {
    director
        .vips
        .iter()
        .find(|decision| decision.vip == vip.vip)
}

/// The first reason for which a VIP is not announced, and since when.
fn why_missing(vip: &VipView, missing: &[&DirectorView]) -> (String, Option<Timestamp>) {
    let withheld = missing
        .iter()
        .filter_map(|d| Some((&d.name, decision(vip, d)?)))
        .find(|(_, decision)| decision.cost.is_none());
    match withheld {
        Some((name, decision)) => {
            let by = if missing.len() == 1 {
                String::new()
            } else {
                format!(" ({name})")
            };
            (
                format!(": {}{by}", decision.reason_text),
                Some(decision.since),
            )
        }
        None => (String::new(), None),
    }
}

fn remedy(vip: &VipView, missing: &[&DirectorView]) -> &'static str {
    missing
        .iter()
        .filter_map(|d| decision(vip, d))
        .find_map(|decision| decision.reason.remedy())
        .unwrap_or("see why those directors do not announce it")
}

fn of_director(facts: &Facts<'_>, view: &DirectorView) -> Option<ProblemView> {
    let director = facts.cluster.directors.get(&view.name)?;
    match view.state {
        State::Up | State::Draining | State::Safe => None,
        State::Degraded | State::Unknown | State::Down => Some(ProblemView {
            state: view.state,
            object: format!("director {}", view.name),
            cause: view.why.clone(),
            since: since(facts, director),
            next: next_for(facts, &view.name, director).to_owned(),
        }),
    }
}

/// A silent director is so since its last report.
fn since(facts: &Facts<'_>, director: &DirectorState) -> Option<Timestamp> {
    match (director.fresh(facts.now), &director.report) {
        (None, Some(report)) => Some(report.received.wall),
        (None, None) => Some(facts.started.wall),
        (Some(_), _) => None,
    }
}

fn next_for(facts: &Facts<'_>, name: &DirectorName, director: &DirectorState) -> &'static str {
    match director.fresh(facts.now) {
        None => match contact(facts, name, director) {
            Contact::AgentLost => {
                "the director still serves: see whether isopath-agent runs there and reaches the \
                 controller, before `agent_hold` withdraws its VIPs"
            }
            Contact::DirectorLost => {
                "the switches do not hear the director any more: look at its power, its links \
                 and isopath-speaker"
            }
            Contact::Heard | Contact::Silent | Contact::Unknown | Contact::NotYetHeard => {
                "see on the director whether isopath-agent runs and reaches the controller"
            }
        },
        Some(observed) if observed.speaker.is_none() => {
            "see on the director whether isopath-speaker runs"
        }
        Some(_) => "see `isopath neighbors` and the agent's log on the director",
    }
}

/// What the speakers complain of on their interfaces: keys that have expired, packets refused for
/// their authentication, which keep a switch out that is not among the neighbours therefore.
fn uplinks(facts: &Facts<'_>) -> Vec<ProblemView> {
    let mut problems = Vec::new();
    for (name, director) in &facts.cluster.directors {
        let observed = director.fresh(facts.now);
        let Some(speaker) = observed.and_then(|observed| observed.speaker.as_ref()) else {
            continue;
        };
        for interface in &speaker.interfaces {
            problems.extend(interface.complaints().into_iter().map(|cause| ProblemView {
                state: State::Degraded,
                object: format!("uplink {} of director {name}", interface.name),
                cause,
                since: None,
                next:
                    "compare the keys of the director and the switch, and their clocks".to_owned(),
            }));
        }
    }
    problems
}

/// Equal-cost sets that are not as they should be. What is a VIP's or a director's own problem
/// is told there: who does not announce, who is no director, who announces though drained.
fn sets(facts: &Facts<'_>, directors: &[DirectorView]) -> Vec<ProblemView> {
    let conditions = &facts.cluster.conditions;
    let is_up = |name: &DirectorName| {
        let mut directors = directors.iter();
        directors.any(|d| d.name == *name && d.state == State::Up)
    };
    let is_told = |key: &Key| match key.code {
        EcmpCode::NoWitness
        | EcmpCode::VipNotAnnounced
        | EcmpCode::ForeignAnnouncer
        | EcmpCode::AnnouncingWhileDrained => true,
        EcmpCode::AnnouncedNotInSet | EcmpCode::InSetNotWanted | EcmpCode::WitnessesDisagree => {
            key.director.as_ref().is_some_and(|name| !is_up(name))
        }
        EcmpCode::WidthBelowAnnouncers => ecmp::raised(conditions).any(|(other, _)| {
            let same = (other.router, other.vip) == (key.router, key.vip);
            same && other.code == EcmpCode::AnnouncedNotInSet
        }),
        EcmpCode::SwitchSeesNothing | EcmpCode::SwitchNotReached => false,
    };
    let untold = ecmp::raised(conditions).filter(|(key, _)| !is_told(key));
    let problem = |group: ecmp::Group<'_>| {
        let (key, held) = (group.key, group.held);
        let at = match (&key.director, key.router) {
            (Some(_), Some(router)) => format!(" at switch {router}"),
            (Some(_) | None, Some(_) | None) => String::new(),
        };
        let of = group
            .vips()
            .map_or_else(String::new, |vips| format!(" for {vips}"));
        let object = match (&key.director, key.router) {
            (Some(director), _) => format!("director {director}"),
            (None, Some(router)) => format!("switch {router}"),
            (None, None) => key.to_string(),
        };
        ProblemView {
            state: State::Degraded,
            object,
            cause: format!("{}{of}{at}: {}", key.code, held.difference.cause),
            since: Some(held.first.wall),
            next: held.difference.next.to_owned(),
        }
    };
    ecmp::groups(untold).into_iter().map(problem).collect()
}

/// Since when routers that are no directors announce a VIP.
fn foreign_since(facts: &Facts<'_>, vip: &VipView) -> Option<Timestamp> {
    let conditions = facts.cluster.conditions.iter();
    let foreign = conditions
        .filter(|(key, _)| key.code == EcmpCode::ForeignAnnouncer && key.vip == Some(vip.vip));
    foreign.map(|(_, held)| held.first.wall).min()
}

fn conflicts(facts: &Facts<'_>) -> Vec<ProblemView> {
    let shown = |(name, director): (&DirectorName, &DirectorState)| {
        let conflict = director.conflict(facts.now)?;
        Some(ProblemView {
            state: State::Degraded,
            object: format!("agent of director {name}"),
            cause: format!("{}; it is refused", conflict.cause),
            since: Some(conflict.since.wall),
            next: conflict.code.next().to_owned(),
        })
    };
    facts.cluster.directors.iter().filter_map(shown).collect()
}

fn slow_operations(facts: &Facts<'_>) -> Vec<ProblemView> {
    let is_slow = |started_at: Timestamp| {
        let taken = facts.now.wall.duration_since(started_at);
        taken.unsigned_abs() > SLOW_OPERATION
    };
    facts
        .cluster
        .operations
        .iter()
        .filter(|operation| {
            is_slow(operation.started_at) || operation.state == OperationState::Blocked
        })
        .map(|operation| ProblemView {
            state: State::Degraded,
            object: format!("{} of {}", operation.kind_str(), operation.target),
            cause: format!("not done yet: {}", operation.detail),
            since: Some(operation.started_at),
            next: "mend what it waits for, or cancel it".to_owned(),
        })
        .collect()
}

fn of_service(service: &ServiceView) -> Vec<ProblemView> {
    if service.state == State::Down {
        let up = service
            .real_servers
            .iter()
            .filter(|server| server.state == State::Up);
        return vec![ProblemView {
            state: State::Down,
            object: format!("service {}", service.service),
            cause: format!(
                "{} of {} real servers healthy, {} needed",
                up.count(),
                service.real_servers.len(),
                service.quorum
            ),
            since: service.real_servers.iter().filter_map(down_since).max(),
            next: "look at the real servers' last check results, then at the path to them"
                .to_owned(),
        }];
    }
    let is_bad = |server: &&RealServerView| matches!(server.state, State::Down | State::Degraded);
    service
        .real_servers
        .iter()
        .filter(is_bad)
        .map(|server| ProblemView {
            // One real server less is what the others are for.
            state: State::Degraded,
            object: format!("real server {} of {}", server.real_server, service.service),
            cause: last_check_in_words(server),
            since: down_since(server),
            next: match server.state {
                State::Degraded => "look at the path from those directors to the real server",
                _ => "look at the real server",
            }
            .to_owned(),
        })
        .collect()
}

fn down_since(server: &RealServerView) -> Option<Timestamp> {
    let down = server
        .seen
        .iter()
        .filter(|seen| seen.health == Health::Down);
    down.map(|seen| seen.since).min()
}
