//! What this director wants and sees, without any channel.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use isopath_api::config::Dataplane as DataplaneKind;
use isopath_api::declare::{Announce, Profile, ServiceSpec};
use isopath_api::digest::ServiceDigest;
use isopath_api::ids::{DirectorName, Packets, RouterId, ServiceId, Vip};
use isopath_api::reason::{Decision, Reason};
use isopath_api::speaker::{Announced, Owner, Source, Status};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::dataplane::{ServiceWanted, Wanted};
use crate::decide::{Inputs, Readiness, Tally, decide};
use crate::desired::Intent;
use crate::health::{CheckKey, Checks, Outcome};
use crate::kernel::{KernelReport, NumberedWanted};
use crate::overrides::ByVip;
use crate::readiness::GateReport;
use crate::speaker_link::{Publication, SpeakerEvent};
use crate::weights;

use super::conditions::Conditions;

/// How long what belongs to a withdrawn VIP stays in the kernel after the LSA has lost it: the
/// switch computes its routes with some delay, and packets arrive until then.
const LET_GO: Duration = Duration::from_secs(2);

/// What the agent says about itself in each report.
#[derive(Debug, Clone)]
pub struct About {
    /// The director.
    pub director: DirectorName,
    /// Its router id.
    pub router_id: RouterId,
    /// The identity kept in the state directory.
    pub instance: String,
    /// Made at each start.
    pub run: String,
    /// What is programmed.
    pub dataplane: DataplaneKind,
}

/// A decision and since when it stands.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) decision: Decision,
    pub(super) since: Timestamp,
}

/// A VIP that is no longer wanted and not yet let go of.
#[derive(Debug)]
struct Leaving {
    services: Vec<Arc<ServiceWanted>>,
    /// Since when the speaker does not announce it.
    gone: Option<Instant>,
}

/// A service of the desired state, and what follows from it and the health of its real servers.
#[derive(Debug)]
struct Served {
    spec: Arc<ServiceSpec>,
    /// Its place in the desired state.
    place: usize,
    wanted: Arc<ServiceWanted>,
    tally: Tally,
}

/// What this director wants and sees. Owned by the control loop.
#[derive(Debug)]
pub struct State {
    pub(super) about: About,
    pub(super) intent: Option<Arc<Intent>>,
    pub(super) checks: Checks,
    services: BTreeMap<ServiceId, Served>,
    /// The services of which the health of a real server has changed since the last decision.
    stale: BTreeSet<ServiceId>,
    overrides: ByVip,
    adopted: BTreeMap<CheckKey, u32>,
    pub(super) speaker: Option<Box<Status>>,
    owns_speaker: bool,
    /// What the speaker held for an earlier run; nothing before its first status.
    held: Option<BTreeSet<Vip>>,
    pub(super) decisions: BTreeMap<Vip, Standing>,
    leaving: BTreeMap<Vip, Leaving>,
    wanted: NumberedWanted,
    pub(super) kernel: Arc<KernelReport>,
    gate: Arc<GateReport>,
    /// The VIPs that have been announced since they were declared, operators' overrides aside:
    /// the gate has no say in them any more.
    passed: BTreeSet<Vip>,
    pub(super) conditions: Conditions,
    stopping: bool,
    pub(super) sequence: u64,
}

impl State {
    /// The state at the start: nothing is wanted or known yet.
    pub fn new(
        about: About,
        checks: Checks,
        overrides: ByVip,
        adopted: BTreeMap<CheckKey, u32>,
    ) -> Self {
        Self {
            about,
            intent: None,
            checks,
            services: BTreeMap::new(),
            stale: BTreeSet::new(),
            overrides,
            adopted,
            speaker: None,
            owns_speaker: false,
            held: None,
            decisions: BTreeMap::new(),
            leaving: BTreeMap::new(),
            wanted: NumberedWanted::default(),
            kernel: Arc::default(),
            gate: Arc::default(),
            passed: BTreeSet::new(),
            conditions: Conditions::default(),
            stopping: false,
            sequence: 0,
        }
    }

    /// Whether the speaker was started by this agent and stops with it.
    pub(super) fn owns_speaker(&self) -> bool {
        self.owns_speaker
    }

    /// From now on nothing is announced.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether the speaker announces anything on that voice's word.
    pub(super) fn announced_by_speaker(&self, source: Source) -> bool {
        let announced = self.speaker.iter().flat_map(|status| &status.announced);
        announced.into_iter().any(|vip| vip.source == source)
    }

    /// Puts another desired state in force; answers whether it is another one.
    pub(super) fn apply(&mut self, intent: Arc<Intent>, now: Timestamp) -> bool {
        if self.intent.as_ref() == Some(&intent) {
            return false;
        }
        let changed = self.checks.apply(&intent.services, now);
        let checks = &self.checks;
        self.adopted
            .retain(|(service, server), _| checks.check(*service, *server).is_some());
        self.passed
            .retain(|vip| intent.vips.iter().any(|spec| spec.address == *vip));
        self.serve(&intent.services, changed.into_iter().collect());
        self.intent = Some(intent);
        for vip in self.wanted.wanted.vips.clone() {
            self.leave_unless_wanted(vip);
        }
        for vip in self.held.clone().unwrap_or_default() {
            self.leave_unless_wanted(vip);
        }
        true
    }

    /// Makes the services those of the desired state; `changed` are not what they were.
    fn serve(&mut self, services: &[Arc<ServiceSpec>], changed: HashSet<ServiceId>) {
        let mut before = std::mem::take(&mut self.services);
        for (place, spec) in services.iter().enumerate() {
            let id = spec.id();
            let served = match before.remove(&id).filter(|_| !changed.contains(&id)) {
                Some(served) => Served { place, ..served },
                None => self.served(spec, place),
            };
            self.services.insert(id, served);
        }
    }

    fn leave_unless_wanted(&mut self, vip: Vip) {
        let Some(intent) = &self.intent else { return };
        if intent.vips.iter().any(|spec| spec.address == vip) {
            self.leaving.remove(&vip);
            return;
        }
        let of_vip = |service: &&Arc<ServiceWanted>| service.id.vip == vip;
        let services = self.wanted.wanted.services.values().filter(of_vip);
        let leaving = Leaving {
            services: services.cloned().collect(),
            gone: None,
        };
        self.leaving.entry(vip).or_insert(leaving);
    }

    /// Lets go of VIPs whose withdrawal the switch has had time to act on; answers whether
    /// there were any.
    pub(super) fn let_go(&mut self, now: Instant) -> bool {
        let speaker = self.speaker.as_deref();
        let before = self.leaving.len();
        self.leaving.retain(|vip, leaving| {
            if announces(speaker, *vip) {
                leaving.gone = None;
            }
            let gone = *leaving.gone.get_or_insert(now);
            announces(speaker, *vip) || now - gone < LET_GO
        });
        self.leaving.len() != before
    }

    /// Counts the outcome of a check; answers whether it changed a real server's health.
    pub(super) fn take_outcome(&mut self, outcome: Outcome, now: Timestamp) -> bool {
        let Some(((service, server), health)) = self.checks.take(outcome, now) else {
            return false;
        };
        let last = self.checks.check(service, server);
        let detail = last.and_then(|check| check.last.as_ref());
        let detail = detail.map_or("", |last| last.detail.as_str());
        tracing::info!(%service, real_server = %server, %health, detail, "health changed");
        // What the kernel had at the start has no say from the first decision on.
        self.adopted.remove(&(service, server));
        self.stale.insert(service);
        true
    }

    /// Takes what the speaker's link says; answers whether it is worth telling.
    pub(super) fn take_speaker(&mut self, event: SpeakerEvent) -> bool {
        match event {
            SpeakerEvent::Connected { status, ours } => {
                self.owns_speaker = ours;
                let (own, theirs) = (self.about.router_id, status.router_id);
                if theirs != own {
                    tracing::error!(%own, %theirs, "the speaker runs with another router id");
                }
                if self.held.is_none() {
                    let by_agent = status.announced.iter();
                    let held: BTreeSet<Vip> = by_agent
                        .filter(|announced| announced.source == Source::Agent)
                        .map(|announced| announced.vip)
                        .collect();
                    tracing::info!(vips = held.len(), "the speaker holds from an earlier run");
                    self.held = Some(held.clone());
                    // What was decided before was never said to anybody.
                    self.decisions.clear();
                    for vip in held {
                        self.leave_unless_wanted(vip);
                    }
                }
                self.speaker = Some(status);
                true
            }
            SpeakerEvent::Changed(status) => {
                let news = match &self.speaker {
                    Some(before) => differ(before, &status),
                    None => true,
                };
                self.speaker = Some(status);
                news
            }
            SpeakerEvent::Disconnected => self.speaker.take().is_some(),
        }
    }

    /// Takes the kernel's report; answers whether more than counters changed.
    pub(super) fn take_kernel(&mut self, report: Arc<KernelReport>) -> bool {
        let before = std::mem::replace(&mut self.kernel, report);
        let (before, now) = (&before, &self.kernel);
        before.number != now.number
            || before.report.vips != now.report.vips
            || before.report.failures != now.report.failures
            || before.report.digests != now.report.digests
    }

    /// Takes what the gate found; answers whether it is something else.
    pub(super) fn take_gate(&mut self, report: Arc<GateReport>) -> bool {
        let before = std::mem::replace(&mut self.gate, report);
        before != self.gate
    }

    /// Takes the operators' overrides; answers whether they are others.
    pub(super) fn take_overrides(&mut self, overrides: ByVip) -> bool {
        let before = std::mem::replace(&mut self.overrides, overrides);
        before != self.overrides
    }

    /// Decides anew from everything known; answers what the kernel shall have where that
    /// changed.
    pub(super) fn settle(&mut self, now: Timestamp) -> Option<NumberedWanted> {
        for id in std::mem::take(&mut self.stale) {
            if let Some(Served { spec, place, .. }) = self.services.remove(&id) {
                let served = self.served(&spec, place);
                self.services.insert(id, served);
            }
        }
        let wanted = self.wanted_now()?;
        let changed = wanted != self.wanted.wanted || self.wanted.number == 0;
        if changed {
            self.wanted.number += 1;
            self.wanted.wanted = wanted;
        }
        self.decide(now);
        changed.then(|| self.wanted.clone())
    }

    /// What the kernel was last asked for.
    #[cfg(test)]
    pub(super) fn wanted_in_force(&self) -> &Wanted {
        &self.wanted.wanted
    }

    /// What the kernel shall have; nothing before the first desired state.
    fn wanted_now(&self) -> Option<Wanted> {
        let intent = self.intent.as_ref()?;
        let mut wanted = Wanted {
            vips: intent.vips.iter().map(|spec| spec.address).collect(),
            services: self
                .services
                .iter()
                .map(|(id, served)| (*id, Arc::clone(&served.wanted)))
                .collect(),
            lvs: intent.lvs,
        };
        for (vip, leaving) in &self.leaving {
            wanted.vips.insert(*vip);
            for service in &leaving.services {
                // The kernel has one service for a mark: the VIP that it is declared for has it.
                let marked = matches!(service.id.packets, Packets::Marked(_));
                let same = |id: &ServiceId| id.packets == service.id.packets;
                if !marked || !self.services.keys().any(same) {
                    wanted.services.insert(service.id, Arc::clone(service));
                }
            }
        }
        Some(wanted)
    }

    /// What follows from a service. What the kernel shall have of it is what it was last asked for
    /// where that stays.
    fn served(&self, spec: &Arc<ServiceSpec>, place: usize) -> Served {
        let service = spec.id();
        let health = self.checks.of(service);
        let wanted = ServiceWanted::of(spec, |id, weight| {
            let adopted = || self.adopted.get(&(service, id)).copied();
            weights::effective(weight, health.health(id), adopted)
        });
        Served {
            spec: Arc::clone(spec),
            place,
            wanted: match self.wanted.wanted.services.get(&service) {
                Some(before) if **before == wanted => Arc::clone(before),
                Some(_) | None => Arc::new(wanted),
            },
            tally: Tally::of(spec, |server| health.health(server)),
        }
    }

    /// What the services of a VIP say, in the order of the desired state.
    fn tallies(&self, vip: Vip) -> Vec<Tally> {
        let of_vip = self.services.range(ServiceId::all_of(vip));
        let mut of_vip: Vec<&Served> = of_vip.map(|(_, served)| served).collect();
        of_vip.sort_unstable_by_key(|served| served.place);
        of_vip
            .into_iter()
            .map(|served| served.tally.clone())
            .collect()
    }

    fn decide(&mut self, now: Timestamp) {
        let Some(intent) = self.intent.clone() else {
            return;
        };
        let announced = self.decisions.values();
        let announced = announced.filter(|standing| standing.decision.announce.is_some());
        let announced = announced.map(|standing| standing.decision.vip).collect();
        let nothing = BTreeSet::new();
        let decisions = decide(&Inputs {
            vips: &intent.vips,
            services: &|vip| self.tallies(vip),
            admin_state: intent.admin_state,
            admin_reason: &intent.admin_reason,
            withdraw: &intent.withdraw,
            overrides: &self.overrides,
            readiness: &|vip| self.readiness(vip),
            held: self.held.as_ref().unwrap_or(&nothing),
            announced: &announced,
            leaving: &self.leaving.keys().copied().collect(),
            stopping: self.stopping,
        });
        // Before the speaker's first status nothing is published, so nothing is decided for
        // good either: what it holds is not known.
        if let Some(held) = &mut self.held {
            for decision in &decisions {
                let overridden = matches!(decision.reason, Reason::Override { .. });
                if decision.announce.is_some() && !overridden {
                    self.passed.insert(decision.vip);
                }
                if decision.reason != Reason::HeldOverRestart {
                    held.remove(&decision.vip);
                }
            }
        }
        self.stand(decisions, now);
        self.stand_conditions(now);
    }

    /// Shows what keeps nothing from being announced, and what does not do so any more.
    fn stand_conditions(&mut self, now: Timestamp) {
        let kernel = self.kernel.report.vips.iter();
        let kernel = kernel.filter_map(|(vip, ready)| Some((*vip, ready.as_ref().err()?)));
        let gate = self.gate.findings.vips.iter();
        let gate = gate.flat_map(|(vip, found)| found.iter().map(|reason| (*vip, reason)));
        let decisions = &self.decisions;
        // What the decision says itself is shown there.
        let unsaid = |(vip, reason): &(Vip, &Reason)| {
            let standing = decisions.get(vip);
            standing.is_some_and(|standing| standing.decision.reason != **reason)
        };
        let notices = &self.gate.findings.notices;
        let unsaid = kernel.chain(gate).filter(unsaid);
        self.conditions.stand(notices, unsaid, now);
    }

    fn readiness(&self, vip: Vip) -> Readiness {
        let held = self.held.as_ref();
        let passed = self.passed.contains(&vip) || held.is_some_and(|held| held.contains(&vip));
        match self.kernel.report.vips.get(&vip) {
            // Some connections may break where a sysctl is not as it should be; without the VIP
            // all of them do. Where other directors take them over, none does.
            Some(Err(Reason::SysctlRefused { .. })) if passed && self.mismatch(vip).is_none() => {}
            Some(Err(reason)) => return Readiness::Failed(reason.clone()),
            Some(Ok(())) => match self.mismatch(vip) {
                Some(reason) => return Readiness::Failed(reason),
                None if self.is_executed() => {}
                None => return Readiness::Pending,
            },
            None => return Readiness::Pending,
        }
        if passed {
            return Readiness::Ready;
        }
        match self.gate.findings.vips.get(&vip) {
            Some(found) if self.gate.number == self.wanted.number => match found.first() {
                Some(reason) => Readiness::Failed(reason.clone()),
                None => Readiness::Ready,
            },
            Some(_) | None => Readiness::Pending,
        }
    }

    /// Whether the kernel's last report is about what is wanted now.
    fn is_executed(&self) -> bool {
        self.kernel.number == self.wanted.number
    }

    /// What decides in the kernel where a service's clients land; nothing while a change is
    /// being executed, since it is about to be something else.
    pub(super) fn digest(&self, service: ServiceId) -> Option<&ServiceDigest> {
        let digests = &self.kernel.report.digests;
        digests.get(&service).filter(|_| self.is_executed())
    }

    /// The service for which this director would send the VIP's clients elsewhere than the
    /// others do, in the profile that relies on it that they do not.
    ///
    /// While a change is being executed nothing is found out: a VIP that is announced stays so,
    /// and one that is withheld for a difference stays withheld.
    fn mismatch(&self, vip: Vip) -> Option<Reason> {
        let intent = self.intent.as_ref()?;
        match intent.lvs.profile {
            Profile::Stateless => {}
            Profile::Stateful => return None,
        }
        let differs = |(service, expected): (&ServiceId, &ServiceDigest)| {
            let found = self.kernel.report.digests.get(service)?;
            (found != expected && found.is_comparable(expected)).then(|| Reason::DigestMismatch {
                service: *service,
                expected: expected.clone(),
                found: found.clone(),
            })
        };
        let mut digests = intent.digests.range(ServiceId::all_of(vip));
        let mismatch = digests.find_map(differs)?;
        let standing = self.decisions.get(&vip);
        let stands = standing.is_some_and(|standing| standing.decision.reason == mismatch);
        (self.is_executed() || stands).then_some(mismatch)
    }

    /// Replaces the standing decisions; what stays the same keeps its time.
    fn stand(&mut self, decisions: Vec<Decision>, now: Timestamp) {
        let mut before = std::mem::take(&mut self.decisions);
        for decision in decisions {
            let standing = match before.remove(&decision.vip) {
                Some(standing) if same(&standing.decision, &decision) => Standing {
                    decision,
                    since: standing.since,
                },
                Some(_) | None => {
                    if self.held.is_some() {
                        log(&decision);
                    }
                    Standing {
                        decision,
                        since: now,
                    }
                }
            };
            self.decisions.insert(standing.decision.vip, standing);
        }
    }

    /// What the speaker shall announce; nothing before the first desired state and the
    /// speaker's first status.
    pub(super) fn publication(&self) -> Option<Publication> {
        self.held.as_ref()?;
        self.intent.as_ref()?;
        let decisions = self.decisions.values();
        let decisions: Vec<Decision> = decisions
            .map(|standing| standing.decision.clone())
            .collect();
        Some(Publication::from(decisions.as_slice()))
    }

    /// The kernel's view of a service.
    pub(super) fn kernel_service(
        &self,
        service: ServiceId,
    ) -> Option<&crate::dataplane::KernelService> {
        let services = &self.kernel.report.services;
        services.get(&service).map(|service| &**service)
    }
}

/// A decision with the same announcement and the same reason but for its words.
fn same(one: &Decision, other: &Decision) -> bool {
    one.announce == other.announce && one.reason.code() == other.reason.code()
}

fn log(decision: &Decision) {
    let Decision {
        vip,
        announce,
        reason,
    } = decision;
    match announce {
        Some(Announce { kind, cost }) => {
            tracing::info!(%vip, %kind, cost, %reason, "announce");
        }
        None => tracing::info!(%vip, %reason, "withdraw"),
    }
}

fn announces(speaker: Option<&Status>, vip: Vip) -> bool {
    let announced = speaker.iter().flat_map(|status| &status.announced);
    announced.into_iter().any(|announced| announced.vip == vip)
}

/// Whether two statuses differ in more than clocks and counters.
fn differ(one: &Status, other: &Status) -> bool {
    let neighbors = |status: &Status| -> Vec<_> {
        let key =
            |n: &isopath_api::speaker::Neighbor| (n.interface.clone(), n.router_id, n.state, n.bfd);
        status.neighbors.iter().map(key).collect()
    };
    let announced = |status: &Status| -> Vec<Announced> { status.announced.clone() };
    let owner = |status: &Status| match status.owner {
        Owner::None => 0,
        Owner::Connected { .. } => 1,
        Owner::Held { .. } => 2,
        Owner::Expired => 3,
    };
    neighbors(one) != neighbors(other)
        || announced(one) != announced(other)
        || one.withheld != other.withheld
        || one.announcers != other.announcers
        || one.widths != other.widths
        || owner(one) != owner(other)
        || one.pid != other.pid
}
