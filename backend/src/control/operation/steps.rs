//! What each step waits for, read from the directors' reports.

use isopath_api::desired::AdminState;
use isopath_api::ids::{DirectorName, RouterId, Vip};
use isopath_api::observed::Observed;
use isopath_api::operation::StepName;
use isopath_api::speaker::Source;

use super::traffic::{Counted, QUIET_FOR, Quiet, counted};
use super::{Kind, Operation, Target, servers};
use crate::clock::Moment;
use crate::control::state::{ClusterState, DirectorState, Liveness, announces};
use crate::ecmp::{self, Place};
use crate::guards::{self, WITNESS};

/// What blocks an operation whose director cannot be asked.
pub(super) const AGENT_LOST: &str = "agent_lost";
/// The metric that a director on its way out announces at.
const HIGHEST_COST: u16 = u16::MAX;

/// How a step stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What it waits for has been seen, namely this.
    Done(String),
    /// It waits for this.
    Waits(String),
    /// It waits for a director that is silent: no deadline ends that.
    Unheard(String),
    /// It waits for what will not come by itself, or must not be taken for granted.
    Blocked(&'static str, String),
}

use Verdict::{Blocked, Done, Unheard, Waits};

/// What is known, and when: the cluster, now, the controller's start.
#[derive(Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) cluster: &'a ClusterState,
    pub(super) now: Moment,
    pub(super) started: Moment,
}

/// How the step that an operation is at stands.
pub(super) fn judge(operation: &mut Operation, step: StepName, facts: Facts<'_>) -> Verdict {
    let verdict = match step {
        StepName::Guard => guard(operation, facts),
        StepName::Cost => match &operation.target {
            Target::Director(name) => cost(operation, name, facts),
            Target::RealServer(..) | Target::Vip(_) => Ok(Done(String::new())),
        },
        StepName::Withdraw => withdraw(operation, facts),
        StepName::Set => set(operation, facts),
        StepName::Traffic => return traffic(operation, facts),
        StepName::Weight => servers::weight(operation, facts),
        StepName::Connections => servers::connections(operation, facts),
        StepName::Remove => servers::remove(operation, facts),
        StepName::Restore => restore(operation, facts),
        StepName::Return => returned(operation, facts),
    };
    verdict.unwrap_or_else(|waiting| waiting)
}

/// Done or not; what keeps it from being judged at all is the error.
pub(super) type Judged = Result<Verdict, Verdict>;

/// What a step would wait for, for a preview.
pub(crate) fn waits_for(step: StepName, target: &Target) -> String {
    match (step, target) {
        (StepName::Guard, _) => "every guard that is not overridden allows it".to_owned(),
        (StepName::Cost, _) => format!(
            "{target} announces its VIPs at metric {HIGHEST_COST}, and no switch sends it clients \
             that another director would take"
        ),
        (StepName::Withdraw, Target::Director(_)) => {
            format!("{target} acknowledges, and its Router-LSA and announcements carry no VIP")
        }
        (StepName::Withdraw, _) => format!(
            "every director acknowledges, and none announces {target}; an agent of a release that \
             cannot withdraw one VIP alone refuses this and every later change until it is \
             upgraded or {target} is undrained"
        ),
        (StepName::Set, _) => {
            format!("no other director's database lists {target} or has it in an equal-cost set")
        }
        (StepName::Traffic, _) => format!(
            "packets to the VIPs stay away for {} s, by the directors' IPVS counters",
            QUIET_FOR.as_secs()
        ),
        (StepName::Weight, _) => {
            format!("every director acknowledges weight 0 of {target}")
        }
        (StepName::Connections, _) => {
            format!("no director has an active connection to {target} (of UDP: none at all)")
        }
        (StepName::Remove, _) => {
            format!("only at the deadline: every director has taken {target} out of its kernel")
        }
        (StepName::Restore, Target::Director(_)) => {
            format!("{target} acknowledges, and announces every VIP again")
        }
        (StepName::Restore, _) => format!("every director acknowledges {target}"),
        (StepName::Return, _) => {
            "the other directors' databases list it, and a switch has it in the equal-cost set \
             where its cost is the lowest"
                .to_owned()
        }
    }
}

/// The guards again, after one was lost; the director has to be back first.
fn guard(operation: &Operation, facts: Facts<'_>) -> Judged {
    acknowledged_by_all(operation, facts)?;
    let at = (facts.now, facts.started);
    for (name, verdict) in guards::verdicts(facts.cluster, &operation.target, operation.kind, at) {
        if let Err(refusal) = verdict
            && !operation.overrides(name)
        {
            return Ok(Blocked(name, refusal.detail));
        }
    }
    Ok(Done("every guard allows it".to_owned()))
}

fn cost(operation: &Operation, name: &DirectorName, facts: Facts<'_>) -> Judged {
    let observed = acknowledged(operation, name, facts)?;
    let Some(speaker) = &observed.speaker else {
        return Ok(Waits(format!(
            "the agent of {name} cannot reach its speaker"
        )));
    };
    if speaker.announced.is_empty() {
        return Ok(Done(format!("{name} announces nothing already")));
    }
    for announced in &speaker.announced {
        let vip = announced.vip;
        if announced.source == Source::Override {
            return Ok(Waits(overridden(name, vip)));
        }
        let cost = announced.cost;
        if cost != HIGHEST_COST {
            return Ok(Waits(format!(
                "{name} still announces {vip} at metric {cost}"
            )));
        }
        if !announced.in_lsdb || !announced.acknowledged {
            let what = format!("the neighbours of {name} have not acknowledged the new metric");
            return Ok(Waits(format!("{what} of {vip}")));
        }
    }
    let testimony = ecmp::testimony(facts.cluster, name, None, (facts.now, facts.started));
    if testimony.is_early() {
        return Ok(Waits(silent_after_start()));
    }
    let would_leave = |listing: &&ecmp::Listing| is_taken_over(listing.vip, name, facts);
    if let Some(listing) = testimony.in_sets().find(would_leave) {
        return Ok(Waits(listing.to_string()));
    }
    Ok(Done(format!(
        "{name} announces at metric {HIGHEST_COST}; no equal-cost set has it beside another, by \
         the databases of {}",
        names(&testimony.witnesses)
    )))
}

/// Whether another director that stays announces a VIP at a lower metric than the highest.
fn is_taken_over(vip: Vip, leaving: &DirectorName, facts: Facts<'_>) -> bool {
    let cluster = facts.cluster;
    let mut specs = cluster.declaration.vip.iter();
    let Some(spec) = specs.find(|spec| spec.address == vip) else {
        return false;
    };
    cluster.directors.iter().any(|(name, director)| {
        name != leaving
            && director.admin_state == AdminState::Active
            && spec.cost_at(name) < HIGHEST_COST
            && director
                .fresh(facts.now)
                .is_some_and(|it| announces(it, vip))
    })
}

fn withdraw(operation: &Operation, facts: Facts<'_>) -> Judged {
    match &operation.target {
        Target::Director(name) => {
            let observed = acknowledged(operation, name, facts)?;
            withdrawn(name, observed, None)?;
            Ok(Done(format!("{name} announces nothing")))
        }
        Target::Vip(vip) => {
            for (name, observed) in everybody(operation, facts)? {
                withdrawn(name, observed, Some(*vip))?;
            }
            Ok(Done(format!("no director announces {vip}")))
        }
        Target::RealServer(..) => Ok(Done(String::new())),
    }
}

/// Whether a director's own speaker announces a VIP, or any, no more.
fn withdrawn(name: &DirectorName, observed: &Observed, vip: Option<Vip>) -> Result<(), Verdict> {
    let Some(speaker) = &observed.speaker else {
        return Err(Waits(format!(
            "the agent of {name} cannot reach its speaker"
        )));
    };
    let is_meant = |of: Vip| vip.is_none_or(|vip| vip == of);
    let mut announced = speaker.announced.iter();
    if let Some(announced) = announced.find(|announced| is_meant(announced.vip)) {
        let vip = announced.vip;
        return Err(Waits(match announced.source {
            Source::Override => overridden(name, vip),
            Source::File | Source::Agent => format!("{name} still announces {vip}"),
        }));
    }
    // The LSA may follow later: its origination is paced.
    let mut listed = speaker.announcers.iter();
    let own = |routers: &[RouterId]| routers.contains(&speaker.router_id);
    match listed.find(|(vip, routers)| is_meant(**vip) && own(routers)) {
        Some((vip, _)) => Err(Waits(format!(
            "the Router-LSA of {name} still carries {vip}"
        ))),
        None => Ok(()),
    }
}

fn overridden(name: &DirectorName, vip: Vip) -> String {
    format!("{name} announces {vip} on an operator's override there; undo that first")
}

fn set(operation: &Operation, facts: Facts<'_>) -> Judged {
    match &operation.target {
        Target::Director(name) => {
            out_of_sets(operation, name, None, facts)?;
            let others = witnesses(name, facts);
            Ok(Done(match others.is_empty() {
                true => format!("no other director is there whose database could list {name}"),
                false => format!(
                    "the databases of {} list {name} for nothing",
                    names(&others)
                ),
            }))
        }
        Target::Vip(vip) => {
            for name in facts.cluster.directors.keys() {
                out_of_sets(operation, name, Some(*vip), facts)?;
            }
            Ok(Done(format!("no database lists a director for {vip}")))
        }
        Target::RealServer(..) => Ok(Done(String::new())),
    }
}

/// Whether the other directors' databases list a director nowhere. Where nobody can say so it
/// is not taken for granted, unless there is nobody else to ask in this cluster.
fn out_of_sets(
    operation: &Operation,
    name: &DirectorName,
    vip: Option<Vip>,
    facts: Facts<'_>,
) -> Result<(), Verdict> {
    let testimony = ecmp::testimony(facts.cluster, name, vip, (facts.now, facts.started));
    if testimony.is_early() {
        return Err(Waits(silent_after_start()));
    }
    // A set is where clients come from; it is worth more words than a mere listing.
    if let Some(listing) = testimony.in_sets().next().or(testimony.listings.first()) {
        return Err(Waits(match listing.place {
            Place::Announcers => format!(
                "the LSDB of {} still lists {name} for {}",
                listing.witness, listing.vip
            ),
            Place::EqualCost { switch } => format!(
                "the LSDB of {} still has {name} in the equal-cost set of {switch} for {}",
                listing.witness, listing.vip
            ),
        }));
    }
    if testimony.witnesses.is_empty() && !testimony.deaf.is_empty() && !operation.overrides(WITNESS)
    {
        let deaf = testimony.deaf.iter();
        let deaf: Vec<String> = deaf.map(|(name, why)| format!("{name}: {why}")).collect();
        let what = format!(
            "no other director's database can tell ({})",
            deaf.join("; ")
        );
        return Err(Blocked(WITNESS, what));
    }
    Ok(())
}

fn witnesses(name: &DirectorName, facts: Facts<'_>) -> Vec<DirectorName> {
    ecmp::testimony(facts.cluster, name, None, (facts.now, facts.started)).witnesses
}

fn traffic(operation: &mut Operation, facts: Facts<'_>) -> Verdict {
    let concerned: Vec<DirectorName> = match &operation.target {
        Target::Director(name) => vec![name.clone()],
        Target::Vip(_) => facts.cluster.directors.keys().cloned().collect(),
        Target::RealServer(..) => Vec::new(),
    };
    let mut seen = Vec::new();
    let mut waits = None;
    for name in concerned {
        match measured(operation, &name, facts) {
            Done(what) => seen.push(what),
            waiting @ (Waits(_) | Unheard(_)) => waits = waits.or(Some(waiting)),
            Blocked(by, what) => return Blocked(by, what),
        }
    }
    waits.unwrap_or_else(|| Done(seen.join("; ")))
}

fn measured(operation: &mut Operation, name: &DirectorName, facts: Facts<'_>) -> Verdict {
    let director = facts.cluster.directors.get(name);
    let Some((director, report)) = director.and_then(|it| Some((it, it.report.as_ref()?))) else {
        return missing(operation, name, facts);
    };
    let Some(observed) = director.fresh(facts.now) else {
        return missing(operation, name, facts);
    };
    let vips = operation.watched(&facts.cluster.declaration);
    match counted(observed, &vips) {
        Counted::NoDataplane => Done(format!("{name}: not measured: no data plane")),
        Counted::NoServices => Done(format!(
            "{name}: not measured: the VIPs have no services there"
        )),
        Counted::NotYet => Waits(format!("{name} has not counted its packets yet")),
        Counted::Packets(packets) => {
            let before = operation.quiet.get(name).copied();
            let quiet = Quiet::next(before, packets, report.received);
            operation.quiet.insert(name.clone(), quiet);
            let lasted = quiet.lasted();
            if lasted >= QUIET_FOR {
                Done(format!("{name}: no traffic for {} s", lasted.as_secs()))
            } else {
                Waits(format!(
                    "traffic to {name} has stayed away for {} of {} s",
                    lasted.as_secs(),
                    QUIET_FOR.as_secs()
                ))
            }
        }
    }
}

/// What a director that does not report means. One that is drained itself has to be heard; of
/// another one it is enough that no database lists it.
fn missing(operation: &Operation, name: &DirectorName, facts: Facts<'_>) -> Verdict {
    let judged = match &operation.target {
        Target::Director(_) => acknowledged(operation, name, facts).map_err(Some),
        Target::RealServer(..) | Target::Vip(_) => heard(operation, name, facts),
    };
    match judged {
        Ok(_) => Unheard(format!("{name} has not reported")),
        Err(Some(verdict)) => verdict,
        Err(None) => Done(format!(
            "{name}: not measured: {}; no database lists it",
            lost(name, facts)
        )),
    }
}

fn restore(operation: &Operation, facts: Facts<'_>) -> Judged {
    let cancelled = operation.kind == Kind::Drain;
    match &operation.target {
        Target::Director(name) => {
            let observed = acknowledged(operation, name, facts)?;
            // A drain that is undone leaves a director as it was, which need not be announcing.
            if !cancelled && let Some(waiting) = announces_again(name, observed, facts) {
                return Ok(Waits(waiting));
            }
            Ok(Done(format!("{name} is in service")))
        }
        Target::Vip(vip) => {
            let all = everybody(operation, facts)?;
            let announcing = all.iter().find(|(_, it)| announces(it, *vip));
            match announcing {
                _ if cancelled => Ok(Done(format!("every director may announce {vip}"))),
                Some((name, _)) => Ok(Done(format!("{name} announces {vip}"))),
                None => Ok(Waits(format!("no director announces {vip} yet"))),
            }
        }
        Target::RealServer(..) => {
            everybody(operation, facts)?;
            Ok(Done(
                "every director has its declared weight again".to_owned(),
            ))
        }
    }
}

/// What keeps a director from announcing all that it should; nothing where it does.
fn announces_again(name: &DirectorName, observed: &Observed, facts: Facts<'_>) -> Option<String> {
    let quiesced = &facts.cluster.quiesced;
    let specs = facts.cluster.declaration.vip.iter();
    let mut wanted = specs
        .map(|spec| spec.address)
        .filter(|vip| !quiesced.vips.contains_key(vip) && !announces(observed, *vip));
    let vip = wanted.next()?;
    let decision = observed.vips.iter().find(|decision| decision.vip == vip);
    Some(match decision {
        Some(decision) if decision.cost.is_none() => {
            format!("{name} does not announce {vip}: {}", decision.reason)
        }
        Some(_) | None => format!("{name} does not announce {vip} yet"),
    })
}

fn returned(operation: &Operation, facts: Facts<'_>) -> Judged {
    let at = (facts.now, facts.started);
    let cluster = facts.cluster;
    let vips = cluster.declaration.vip.iter().map(|spec| spec.address);
    let concerned: Vec<(&DirectorName, Vec<Vip>)> = match &operation.target {
        Target::Director(name) => {
            let wanted = vips.filter(|vip| !cluster.quiesced.vips.contains_key(vip));
            vec![(name, wanted.collect())]
        }
        Target::Vip(vip) => {
            let directors = cluster.directors.iter();
            let announcing =
                |it: &DirectorState| it.fresh(facts.now).is_some_and(|it| announces(it, *vip));
            let directors = directors.filter(|(_, director)| announcing(director));
            directors.map(|(name, _)| (name, vec![*vip])).collect()
        }
        Target::RealServer(..) => Vec::new(),
    };
    for (name, vips) in concerned {
        for vip in vips {
            let testimony = ecmp::testimony(cluster, name, Some(vip), at);
            if testimony.is_early() {
                return Ok(Waits(silent_after_start()));
            }
            if testimony.witnesses.is_empty() {
                continue;
            }
            if !testimony.is_listed() {
                let others = names(&testimony.witnesses);
                return Ok(Waits(format!(
                    "the LSDB of {others} does not list {name} for {vip} yet"
                )));
            }
            if testimony.in_sets().next().is_none() && is_lowest(vip, name, facts) {
                return Ok(Waits(format!(
                    "no switch has {name} in the equal-cost set for {vip} yet"
                )));
            }
        }
    }
    Ok(Done(
        "the other directors' databases have it in the sets again".to_owned(),
    ))
}

/// Whether a switch that somebody sees should have the director in its equal-cost set.
fn is_lowest(vip: Vip, name: &DirectorName, facts: Facts<'_>) -> bool {
    let truth = ecmp::truth(facts.cluster, facts.now, facts.started);
    let mut truth = truth.into_iter();
    truth
        .find(|truth| truth.vip == vip)
        .is_some_and(|truth| truth.lowest.contains(name) && !truth.switches.is_empty())
}

fn silent_after_start() -> String {
    "not every director has been heard since the controller started".to_owned()
}

pub(super) fn names(names: &[DirectorName]) -> String {
    match names {
        [] => "nobody".to_owned(),
        names => {
            let names: Vec<&str> = names.iter().map(DirectorName::as_str).collect();
            names.join(", ")
        }
    }
}

/// The fresh report of a director that acknowledges what the operation needs of it.
fn acknowledged<'a>(
    operation: &Operation,
    name: &DirectorName,
    facts: Facts<'a>,
) -> Result<&'a Observed, Verdict> {
    match heard(operation, name, facts) {
        Ok(observed) => Ok(observed),
        Err(Some(verdict)) => Err(verdict),
        // It is what the operation is about: that it is gone is no acknowledgement.
        Err(None) => Err(Blocked(
            AGENT_LOST,
            format!("{}; no database lists it", lost(name, facts)),
        )),
    }
}

fn acknowledged_by_all(operation: &Operation, facts: Facts<'_>) -> Result<(), Verdict> {
    for name in operation.need.keys() {
        acknowledged(operation, name, facts)?;
    }
    Ok(())
}

/// The fresh reports of all directors that may forward anything, each with its acknowledgement.
pub(super) fn everybody<'a>(
    operation: &Operation,
    facts: Facts<'a>,
) -> Result<Vec<(&'a DirectorName, &'a Observed)>, Verdict> {
    let mut all = Vec::new();
    for name in facts.cluster.directors.keys() {
        match heard(operation, name, facts) {
            Ok(observed) => all.push((name, observed)),
            Err(Some(verdict)) => return Err(verdict),
            Err(None) => {}
        }
    }
    if all.is_empty() {
        let what = "no director reports".to_owned();
        return Err(Blocked(AGENT_LOST, what));
    }
    Ok(all)
}

/// The fresh report of a director with its acknowledgement; else what is waited for, or nothing
/// where it is lost and the others' databases say that it announces nothing.
fn heard<'a>(
    operation: &Operation,
    name: &DirectorName,
    facts: Facts<'a>,
) -> Result<&'a Observed, Option<Verdict>> {
    let Some(director) = facts.cluster.directors.get(name) else {
        return Err(None);
    };
    let Some(observed) = director.fresh(facts.now) else {
        return Err(silence(name, director, facts));
    };
    let need = operation.need.get(name).copied().unwrap_or_default();
    match director.acknowledged(&facts.cluster.epoch) {
        Some(generation) if generation >= need => Ok(observed),
        Some(generation) => Err(Some(Waits(format!(
            "{name} has acknowledged generation {generation}, {need} is needed"
        )))),
        None => Err(Some(Waits(format!(
            "{name} has acknowledged no desired state yet"
        )))),
    }
}

fn silence(name: &DirectorName, director: &DirectorState, facts: Facts<'_>) -> Option<Verdict> {
    match director.liveness(facts.now, facts.started) {
        Liveness::NotYetHeard => Some(Unheard(format!(
            "{name} has not been heard since the controller started"
        ))),
        Liveness::Fresh | Liveness::Stale(_) => {
            Some(Unheard(format!("{name} is silent and may still announce")))
        }
        Liveness::Lost(_) | Liveness::NeverHeard => {
            let at = (facts.now, facts.started);
            let testimony = ecmp::testimony(facts.cluster, name, None, at);
            if testimony.is_out() {
                return None;
            }
            let what = format!("{}, and {name} may still announce", lost(name, facts));
            Some(Blocked(AGENT_LOST, what))
        }
    }
}

/// Since when the agent of a director is lost.
fn lost(name: &DirectorName, facts: Facts<'_>) -> String {
    let director = facts.cluster.directors.get(name);
    match director.and_then(|director| director.report.as_ref()) {
        Some(report) => {
            let since = report.received.wall.strftime("%Y-%m-%d %H:%M:%SZ");
            format!("the agent of {name} is lost since {since}")
        }
        None => format!("the agent of {name} was not heard since the controller started"),
    }
}
