//! What each step waits for, read from the directors' reports.

use std::cell::LazyCell;
use std::collections::BTreeSet;

use isopath_api::config::Dataplane;
use isopath_api::declare::ServiceSpec;
use isopath_api::desired::AdminState;
use isopath_api::ids::{DirectorName, RouterId, ServiceId, Vip};
use isopath_api::observed::Observed;
use isopath_api::operation::{StepName, StepState};
use isopath_api::speaker::Source;

use super::traffic::{Counted, QUIET_FOR, Quiet, Reading, counted};
use super::{Kind, Operation, Target, servers};
use crate::clock::Moment;
use crate::control::state::{ClusterState, DirectorState, Liveness, announces};
use crate::ecmp::{self, Deaf, Place, Testimony, VipTruth};
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
        (StepName::Restore, Target::RealServer(..)) => format!(
            "every director acknowledges {target}, finds it healthy and gives it connections"
        ),
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
    match &operation.target {
        Target::Director(name) => {
            acknowledged(operation, name, facts)?;
        }
        Target::RealServer(..) | Target::Vip(_) => {
            everybody(operation, facts)?;
        }
    }
    Ok(match refusal(operation, facts) {
        Some((guard, detail)) => Blocked(guard, detail),
        None => Done("every guard allows it".to_owned()),
    })
}

/// The first guard, of those that were not overridden, that refuses what is asked for now.
pub(super) fn refusal(operation: &Operation, facts: Facts<'_>) -> Option<(&'static str, String)> {
    let (target, at) = (&operation.target, (facts.now, facts.started));
    let verdicts = guards::verdicts(facts.cluster, target, operation.kind, at);
    verdicts.into_iter().find_map(|(guard, verdict)| {
        let refusal = verdict.err().filter(|_| !operation.overrides(guard))?;
        Some((guard, refusal.detail))
    })
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
        return Ok(Unheard(silent_after_start()));
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
        return Err(Unheard(silent_after_start()));
    }
    listed_nowhere(name, &testimony)?;
    let untold = match vip {
        // Whoever does not know of it is no witness.
        Some(vip) => testimony.witnesses.is_empty().then_some(vip),
        None => {
            let declared = facts.cluster.declaration.vip.iter();
            let declared: BTreeSet<Vip> = declared.map(|spec| spec.address).collect();
            let watched = operation.watched(&facts.cluster.declaration);
            let mut watched = watched.into_iter().filter(|vip| declared.contains(vip));
            watched.find(|vip| !testimony.tells_of(*vip))
        }
    };
    let is_alone = testimony.witnesses.is_empty() && testimony.deaf.is_empty();
    let is_told = untold.is_none() && !testimony.witnesses.is_empty();
    if is_told || is_alone || operation.overrides(WITNESS) {
        return Ok(());
    }
    if let Some(waiting) = not_yet(&testimony) {
        return Err(Unheard(waiting));
    }
    let of = untold.map_or(String::new(), |vip| format!(" of {vip}"));
    let deaf = testimony.deaf.iter();
    let deaf: Vec<String> = deaf.map(|(name, why)| format!("{name}: {why}")).collect();
    let deaf = match deaf.as_slice() {
        [] => "their speakers do not know of it".to_owned(),
        deaf => deaf.join("; "),
    };
    let what = format!("no other director's database can tell{of} ({deaf})");
    Err(Blocked(WITNESS, what))
}

/// What is waited for where nobody can tell, and somebody soon will.
fn not_yet(testimony: &Testimony) -> Option<String> {
    let mut deaf = testimony.deaf.iter();
    let (name, why) = deaf.find(|(_, why)| matches!(why, Deaf::JustFull(_)))?;
    Some(format!("the LSDB of {name} cannot tell yet: {why}"))
}

/// Whether no database lists a director, not even that of one who could not say that none does.
fn listed_nowhere(name: &DirectorName, testimony: &Testimony) -> Result<(), Verdict> {
    // A set is where clients come from; it is worth more words than a mere listing.
    let Some(listing) = testimony.in_sets().next().or(testimony.listings.first()) else {
        return Ok(());
    };
    Err(Waits(match listing.place {
        Place::Announcers => format!(
            "the LSDB of {} still lists {name} for {}",
            listing.witness, listing.vip
        ),
        Place::EqualCost { switch } => format!(
            "the LSDB of {} still has {name} in the equal-cost set of {switch} for {}",
            listing.witness, listing.vip
        ),
    }))
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
    match waits {
        Some(waiting) => waiting,
        None => match stays_out(operation, facts) {
            Ok(()) => Done(seen.join("; ")),
            Err(back) => back,
        },
    }
}

/// Whether what the steps before have seen is so still: while the traffic was measured somebody
/// may have announced by hand, or have come back with a database that knows better.
fn stays_out(operation: &Operation, facts: Facts<'_>) -> Result<(), Verdict> {
    let mut steps = operation.steps.iter();
    let was_seen = steps.any(|it| it.name == StepName::Set && it.state == StepState::Done);
    if !was_seen {
        return Ok(());
    }
    let at = (facts.now, facts.started);
    match &operation.target {
        Target::Director(name) => {
            withdrawn(name, acknowledged(operation, name, facts)?, None)?;
            listed_nowhere(name, &ecmp::testimony(facts.cluster, name, None, at))
        }
        Target::Vip(vip) => {
            for (name, observed) in everybody(operation, facts)? {
                withdrawn(name, observed, Some(*vip))?;
            }
            let mut names = facts.cluster.directors.keys();
            names.try_for_each(|name| {
                let testimony = ecmp::testimony(facts.cluster, name, Some(*vip), at);
                listed_nowhere(name, &testimony)
            })
        }
        Target::RealServer(..) => Ok(()),
    }
}

fn measured(operation: &mut Operation, name: &DirectorName, facts: Facts<'_>) -> Verdict {
    // One that is drained itself has to be heard, and to follow what it was told; of another one
    // that is gone it is enough that no database lists it.
    let judged = match &operation.target {
        Target::Director(_) => acknowledged(operation, name, facts).map_err(Some),
        Target::RealServer(..) | Target::Vip(_) => heard(operation, name, facts),
    };
    let observed = match judged {
        Ok(observed) => observed,
        Err(Some(verdict)) => return verdict,
        Err(None) => {
            return Done(format!(
                "{name}: not measured: {}; no database lists it",
                lost(name, facts)
            ));
        }
    };
    let director = facts.cluster.directors.get(name);
    let Some(report) = director.and_then(|director| director.report.as_ref()) else {
        return Unheard(format!("{name} has not reported"));
    };
    let vips = operation.watched(&facts.cluster.declaration);
    if let Some(service) = unreported(observed, &vips, facts) {
        return Waits(format!("{name} does not report {service}"));
    }
    match counted(observed, &vips) {
        Counted::NoDataplane => Done(format!("{name}: not measured: no data plane")),
        Counted::NoServices => Done(format!(
            "{name}: not measured: the VIPs have no services there"
        )),
        Counted::NotYet => Waits(format!("{name} has not counted its packets yet")),
        Counted::Packets(packets) => {
            let before = operation.quiet.get(name).copied();
            let reading = Reading::new(observed, packets, report.received);
            let quiet = Quiet::next(before, reading);
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

/// A declared service of these VIPs that a director with a kernel to count does not report.
fn unreported(observed: &Observed, vips: &[Vip], facts: Facts<'_>) -> Option<ServiceId> {
    match observed.dataplane.kind {
        Dataplane::None => return None,
        Dataplane::Ipvs => {}
    }
    let reported = observed.services.iter().map(|service| service.service);
    let reported: BTreeSet<ServiceId> = reported.collect();
    let declared = facts.cluster.declaration.service.iter();
    let mut declared = declared.map(ServiceSpec::id);
    declared.find(|id| vips.contains(&id.vip) && !reported.contains(id))
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
        Target::RealServer(..) if cancelled => {
            everybody(operation, facts)?;
            Ok(Done(
                "every director was told its declared weight again".to_owned(),
            ))
        }
        Target::RealServer(..) => servers::restored(operation, facts),
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
    // What of all VIPs is worked out once: there may be a thousand.
    let truths = LazyCell::new(|| ecmp::truth(cluster, facts.now, facts.started));
    let mut untold = None;
    for (name, vips) in concerned {
        let testimony = ecmp::testimony(cluster, name, None, at);
        if testimony.is_early() {
            return Ok(Unheard(silent_after_start()));
        }
        let listed: BTreeSet<Vip> = testimony.listings.iter().map(|it| it.vip).collect();
        let in_sets: BTreeSet<Vip> = testimony.in_sets().map(|it| it.vip).collect();
        for vip in vips {
            if !testimony.tells_of(vip) {
                if let Some(waiting) = not_yet(&testimony) {
                    return Ok(Waits(waiting));
                }
                untold = untold.or(Some(vip));
                continue;
            }
            if !listed.contains(&vip) {
                let others = names(&testimony.witnesses);
                return Ok(Waits(format!(
                    "the LSDB of {others} does not list {name} for {vip} yet"
                )));
            }
            if !in_sets.contains(&vip) && is_lowest(vip, name, &truths) {
                return Ok(Waits(format!(
                    "no switch has {name} in the equal-cost set for {vip} yet"
                )));
            }
        }
    }
    Ok(Done(match untold {
        None => "the other directors' databases have it in the sets again".to_owned(),
        Some(vip) => {
            format!("no other director's database can tell whether the sets have it for {vip}")
        }
    }))
}

/// Whether a switch that somebody sees should have the director in its equal-cost set.
fn is_lowest(vip: Vip, name: &DirectorName, truths: &[VipTruth]) -> bool {
    let truth = truths.iter().find(|truth| truth.vip == vip);
    truth.is_some_and(|truth| truth.lowest.contains(name) && !truth.switches.is_empty())
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
