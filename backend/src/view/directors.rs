//! The state of each director, and why.

use std::collections::BTreeSet;

use isopath_api::declare::DirectorSpec;
use isopath_api::desired::AdminState;
use isopath_api::ids::{DirectorName, NeighborState};
use isopath_api::observed::{Condition, Observed};
use isopath_api::reason::Reason;
use isopath_api::view::{Contact, DirectorView, DirectorVipView, ReportsView, State};

use super::{Facts, list};
use crate::control::operation::Target;
use crate::control::state::{DirectorState, Liveness, Report, announces, is_connected};
use crate::ecmp;

/// A director's state, and whether all that is wrong with it is a VIP it rightly withholds.
struct Assessed {
    state: State,
    why: String,
    withholds: bool,
}

impl Assessed {
    fn new(state: State, why: impl Into<String>) -> Self {
        Self {
            state,
            why: why.into(),
            withholds: false,
        }
    }
}

/// The directors in their declared order, and those of them that are Degraded for no reason
/// but a VIP that they rightly withhold.
pub(super) fn views(facts: &Facts<'_>) -> (Vec<DirectorView>, BTreeSet<DirectorName>) {
    let mut views = Vec::new();
    let mut withholding = BTreeSet::new();
    for spec in &facts.cluster.declaration.director {
        let Some(director) = facts.cluster.directors.get(&spec.name) else {
            continue;
        };
        let assessed = assess(facts, spec, director);
        if assessed.withholds {
            withholding.insert(spec.name.clone());
        }
        views.push(view(facts, spec, director, assessed));
    }
    (views, withholding)
}

/// The directors' states alone.
pub(super) fn states(facts: &Facts<'_>) -> Vec<(DirectorName, State)> {
    let specs = facts.cluster.declaration.director.iter();
    let state = |spec: &DirectorSpec| {
        let director = facts.cluster.directors.get(&spec.name)?;
        let assessed = assess(facts, spec, director);
        Some((spec.name.clone(), assessed.state))
    };
    specs.filter_map(state).collect()
}

fn view(
    facts: &Facts<'_>,
    spec: &DirectorSpec,
    director: &DirectorState,
    assessed: Assessed,
) -> DirectorView {
    let Assessed { state, why, .. } = assessed;
    let observed = director.report.as_ref().map(|report| &*report.observed);
    let services = observed.map_or(&[][..], |observed| &observed.services);
    let servers = services.iter().flat_map(|service| &service.real_servers);
    let stats = services.iter().filter_map(|service| service.stats);
    DirectorView {
        name: spec.name.clone(),
        router_id: director.router_id,
        state,
        why,
        admin_state: director.admin_state,
        admin_reason: director.admin_reason.clone(),
        version: observed.map(|observed| observed.version.clone()),
        last_report: director.report.as_ref().map(|report| report.received.wall),
        reports: ReportsView {
            accepted: director.reports,
            last_sequence: director
                .report
                .as_ref()
                .map(|report| report.observed.sequence),
        },
        generation: director.generation,
        acknowledged_generation: director.acknowledged(&facts.cluster.epoch),
        neighbors: observed
            .and_then(|observed| observed.speaker.as_ref())
            .map(|speaker| speaker.neighbors.clone())
            .unwrap_or_default(),
        vips: observed
            .map(|observed| vips(facts, observed))
            .unwrap_or_default(),
        active: servers.map(|server| u64::from(server.active)).sum(),
        connections_per_second: stats.map(|stats| stats.connections_per_second).sum(),
        conditions: conditions(director),
        contact: Some(contact(facts, &spec.name, director)),
        protocol: director.protocol,
        clock_skew_ms: director.report.as_ref().map(Report::skew_ms),
        refused: director
            .refused
            .iter()
            .map(|(cause, tally)| (cause.as_str().to_owned(), tally.count))
            .collect(),
    }
}

/// Whether a director is heard; by all other directors' databases where it is not.
pub(super) fn contact(facts: &Facts<'_>, name: &DirectorName, director: &DirectorState) -> Contact {
    match director.liveness(facts.now, facts.started) {
        Liveness::Fresh => Contact::Heard,
        Liveness::Stale(_) => Contact::Silent,
        Liveness::NotYetHeard => Contact::NotYetHeard,
        Liveness::Lost(_) | Liveness::NeverHeard => {
            let when = (facts.now, facts.started);
            let said = ecmp::testimony(facts.cluster, name, None, when);
            if said.is_listed() {
                Contact::AgentLost
            } else if said.is_out() && !said.is_early() {
                Contact::DirectorLost
            } else {
                Contact::Unknown
            }
        }
    }
}

/// What the director says of itself, and that its clock is far off.
fn conditions(director: &DirectorState) -> Vec<Condition> {
    let Some(report) = &director.report else {
        return Vec::new();
    };
    let mut conditions = report.observed.dataplane.conditions.clone();
    if let Some(since) = director.skewed {
        let skew_ms = report.skew_ms();
        let where_to = if skew_ms > 0 { "ahead of" } else { "behind" };
        let seconds = skew_ms.unsigned_abs() as f64 / 1000.0;
        conditions.push(Condition {
            code: "clock-skew".to_owned(),
            text: format!("its clock is {seconds:.1} s {where_to} the controller's"),
            remedy: "see on both that the clock is kept by NTP (`timedatectl`, `chronyc tracking`)"
                .to_owned(),
            since: since.wall,
        });
    }
    conditions
}

/// The declared VIPs, then those that the director knows of besides.
fn vips(facts: &Facts<'_>, observed: &Observed) -> Vec<DirectorVipView> {
    let declared = facts.cluster.declaration.vip.iter().map(|vip| vip.address);
    let is_declared = |vip| declared.clone().any(|declared| declared == vip);
    let cost_of = |vip| {
        let specs = &facts.cluster.declaration.vip;
        let spec = specs.iter().find(|spec| spec.address == vip)?;
        Some(spec.cost_at(&observed.director))
    };
    let others = observed
        .vips
        .iter()
        .map(|vip| vip.vip)
        .filter(|vip| !is_declared(*vip));
    declared
        .clone()
        .chain(others)
        .map(|vip| {
            let decision = observed.vips.iter().find(|decision| decision.vip == vip);
            let reason = decision.map_or(Reason::NotWanted, |decision| decision.reason.clone());
            DirectorVipView {
                vip,
                cost: decision.and_then(|decision| decision.cost),
                declared_cost: cost_of(vip),
                in_lsdb: announces(observed, vip),
                reason_text: reason.to_string(),
                reason,
                since: decision.map_or(observed.at, |decision| decision.since),
            }
        })
        .collect()
}

/// The state of a director in one word, and why.
fn assess(facts: &Facts<'_>, spec: &DirectorSpec, director: &DirectorState) -> Assessed {
    match director.admin_state {
        AdminState::Draining => {
            let operation = facts
                .cluster
                .open_operation(&Target::Director(spec.name.clone()));
            let detail = operation.map(|operation| operation.detail.clone());
            Assessed::new(
                State::Draining,
                detail.unwrap_or_else(|| "draining".to_owned()),
            )
        }
        AdminState::Drained => drained(facts, &spec.name, director),
        AdminState::Active => match director.fresh(facts.now) {
            Some(observed) => serving(facts, &spec.name, (director, observed)),
            None => silent(facts, &spec.name, director),
        },
    }
}

fn drained(facts: &Facts<'_>, name: &DirectorName, director: &DirectorState) -> Assessed {
    let by = match director.admin_reason.as_str() {
        "" => "drained".to_owned(),
        reason => format!("drained: {reason}"),
    };
    let said = ecmp::testimony(facts.cluster, name, None, (facts.now, facts.started));
    if let Some(listing) = said.listings.first() {
        let ecmp::Listing { witness, vip, .. } = listing;
        let why = format!("{by}; but the LSDB of {witness} still lists it for {vip}");
        return Assessed::new(State::Degraded, why);
    }
    // Where it is parted from the others, a switch that they do not see may hear it.
    match director.fresh(facts.now).and_then(|o| o.speaker.as_ref()) {
        Some(speaker) if !speaker.announced.is_empty() => Assessed::new(
            State::Degraded,
            format!("{by}; but it says it still announces"),
        ),
        Some(_) => Assessed::new(State::Safe, by),
        None if said.is_out() => Assessed::new(State::Safe, by),
        None => Assessed::new(
            State::Unknown,
            format!("{by}; nobody can tell whether it announces"),
        ),
    }
}

/// An active director whose last report is too old, or that was never heard.
fn silent(facts: &Facts<'_>, name: &DirectorName, director: &DirectorState) -> Assessed {
    let silence = match director.liveness(facts.now, facts.started) {
        Liveness::NotYetHeard => {
            return Assessed::new(State::Unknown, "not heard since the controller started");
        }
        Liveness::Stale(silent) => format!("its agent is silent for {} s", silent.as_secs()),
        Liveness::Lost(silent) => format!("its agent is lost, silent for {} s", silent.as_secs()),
        Liveness::NeverHeard | Liveness::Fresh => {
            "its agent was never heard since the controller started".to_owned()
        }
    };
    evidence(facts, name, &silence)
}

/// The state of a director that cannot speak for itself, by what the others' LSDBs say.
fn evidence(facts: &Facts<'_>, name: &DirectorName, trouble: &str) -> Assessed {
    let said = ecmp::testimony(facts.cluster, name, None, (facts.now, facts.started));
    if let Some(listing) = said.listings.first() {
        let ecmp::Listing { witness, vip, .. } = listing;
        let why = format!("{trouble}; it still announces {vip} by the LSDB of {witness}");
        return Assessed::new(State::Degraded, why);
    }
    if said.is_out() {
        let witnesses = list(&said.witnesses);
        let why = format!("{trouble}; it announces nothing by the LSDB of {witnesses}");
        return Assessed::new(State::Down, why);
    }
    Assessed::new(
        State::Unknown,
        format!("{trouble}; no other director can tell whether it announces"),
    )
}

/// An active director whose report is fresh.
fn serving(
    facts: &Facts<'_>,
    name: &DirectorName,
    (director, observed): (&DirectorState, &Observed),
) -> Assessed {
    let Some(speaker) = &observed.speaker else {
        return evidence(facts, name, "its agent cannot reach its speaker");
    };
    if !is_connected(observed) {
        let states = speaker
            .neighbors
            .iter()
            .map(|n| format!("{} on {} is {}", n.router_id, n.interface, n.state));
        let states = match list(states) {
            none if none.is_empty() => "none is seen".to_owned(),
            states => states,
        };
        return Assessed::new(State::Down, format!("no OSPF neighbour is Full: {states}"));
    }
    let degraded = |why: String| Assessed::new(State::Degraded, why);
    let withheld = vips(facts, observed)
        .into_iter()
        .find(|vip| !vip.in_lsdb && vip.reason != Reason::NotWanted);
    if let Some(failure) = observed.dataplane.failures.first() {
        return degraded(format!("data plane: {failure}"));
    }
    if let Some(vip) = withheld {
        return match vip.cost {
            Some(_) => degraded(format!("{} is not in its LSDB yet", vip.vip)),
            None => Assessed {
                withholds: true,
                ..degraded(format!("{} is withdrawn: {}", vip.vip, vip.reason_text))
            },
        };
    }
    if let Some(problem) = observed
        .controller
        .as_ref()
        .and_then(|link| link.problem.as_ref())
    {
        return degraded(format!("its agent says: {problem}"));
    }
    if director.acknowledged(&facts.cluster.epoch).is_none() {
        return degraded("it follows no desired state of this controller".to_owned());
    }
    if let Some(vip) = vips(facts, observed).into_iter().find(|vip| !vip.in_lsdb) {
        return degraded(format!("it does not know of {} yet", vip.vip));
    }
    // Two routers of priority 0 on a broadcast network rightly stay at 2-Way.
    let stuck = speaker
        .neighbors
        .iter()
        .find(|n| !matches!(n.state, NeighborState::Full | NeighborState::TwoWay));
    if let Some(neighbor) = stuck {
        return degraded(format!(
            "OSPF neighbour {} on {} is {}",
            neighbor.router_id, neighbor.interface, neighbor.state
        ));
    }
    Assessed::new(
        State::Up,
        match facts.cluster.declaration.vip.len() {
            0 => "no VIPs are declared".to_owned(),
            1 => "announces the VIP".to_owned(),
            count => format!("announces all {count} VIPs"),
        },
    )
}
