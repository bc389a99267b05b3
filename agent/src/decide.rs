//! Whether a VIP is announced, and why: a pure function of everything that has a say.
//!
//! In falling order of precedence: the process stops; an operator overrides the VIP; the
//! desired state no longer has it; the director or the VIP is drained; a step of its data plane failed;
//! its services are below quorum or undecided; its data plane is not set up yet. What is left
//! is announced.

use std::collections::{BTreeMap, BTreeSet};

use isopath_api::declare::{Announce, ServiceSpec, VipSpec};
use isopath_api::desired::AdminState;
use isopath_api::ids::{RealServerId, ServiceId, Vip};
use isopath_api::observed::Health;
use isopath_api::reason::{Decision, Reason};

use crate::overrides::Override;

/// Everything that has a say.
pub struct Inputs<'a> {
    /// The VIPs of the desired state.
    pub vips: &'a [VipSpec],
    /// What the services of a VIP say, in the order of the desired state.
    pub services: &'a dyn Fn(Vip) -> Vec<Tally>,
    /// What the operator wants of this director.
    pub admin_state: AdminState,
    /// The operator's words for that.
    pub admin_reason: &'a str,
    /// The VIPs that no director shall announce, and the operator's words for that.
    pub withdraw: &'a BTreeMap<Vip, String>,
    /// The operator's overrides of single VIPs.
    pub overrides: &'a BTreeMap<Vip, Override>,
    /// How far the data plane is for a VIP.
    pub readiness: &'a dyn Fn(Vip) -> Readiness,
    /// VIPs that the speaker announced for an earlier run of this agent and that no decision
    /// of this run has confirmed or revoked yet.
    pub held: &'a BTreeSet<Vip>,
    /// VIPs that the last decision announced.
    pub announced: &'a BTreeSet<Vip>,
    /// VIPs on their way out: in an earlier desired state, not in this one.
    pub leaving: &'a BTreeSet<Vip>,
    /// Whether the process is stopping and takes its announcements along.
    pub stopping: bool,
}

/// How far the data plane is for one VIP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// What is wanted now has not been executed yet.
    Pending,
    /// All of it is in the kernel.
    Ready,
    /// It cannot be announced from here as things are.
    Failed(Reason),
}

/// One decision for each VIP that is wanted or on its way out, in the order of the addresses.
pub fn decide(inputs: &Inputs<'_>) -> Vec<Decision> {
    let mut decisions: BTreeMap<Vip, Decision> = inputs
        .leaving
        .iter()
        .map(|vip| (*vip, withdrawn(*vip, Reason::NotWanted)))
        .collect();
    for spec in inputs.vips {
        decisions.insert(spec.address, decide_vip(inputs, spec));
    }
    if inputs.stopping {
        for decision in decisions.values_mut() {
            *decision = withdrawn(decision.vip, Reason::Stopping);
        }
    }
    decisions.into_values().collect()
}

fn withdrawn(vip: Vip, reason: Reason) -> Decision {
    Decision {
        vip,
        announce: None,
        reason,
    }
}

fn decide_vip(inputs: &Inputs<'_>, spec: &VipSpec) -> Decision {
    let vip = spec.address;
    if let Some(Override { cost, text }) = inputs.overrides.get(&vip) {
        return Decision {
            vip,
            announce: cost.map(|cost| Announce {
                cost,
                ..spec.announce
            }),
            reason: Reason::Override { text: text.clone() },
        };
    }
    if let Some(text) = inputs.withdraw.get(&vip) {
        let text = text.clone();
        return withdrawn(vip, Reason::Drained { text });
    }
    let text = inputs.admin_reason.to_owned();
    match inputs.admin_state {
        AdminState::Active => by_health(inputs, spec),
        AdminState::Draining => {
            let decision = by_health(inputs, spec);
            let had = inputs.announced.contains(&vip) || inputs.held.contains(&vip);
            match decision.announce {
                None => decision,
                // Whoever is on the way out takes no VIP over.
                Some(_) if !had => withdrawn(vip, Reason::Drained { text }),
                Some(announce) => Decision {
                    vip,
                    announce: Some(Announce {
                        cost: HIGHEST_COST,
                        ..announce
                    }),
                    // What the checks have yet to confirm stays so.
                    reason: if decision.reason == Reason::HeldOverRestart {
                        decision.reason
                    } else {
                        Reason::Draining { text }
                    },
                },
            }
        }
        AdminState::Drained => withdrawn(vip, Reason::Drained { text }),
    }
}

/// The metric of a director that is on its way out: the highest that an announcement can have,
/// whatever kind of LSA carries it. The switches choose any other director that announces.
const HIGHEST_COST: u16 = u16::MAX;

fn by_health(inputs: &Inputs<'_>, spec: &VipSpec) -> Decision {
    let vip = spec.address;
    let readiness = (inputs.readiness)(vip);
    if let Readiness::Failed(reason) = readiness {
        return withdrawn(vip, reason);
    }
    let held = inputs.held.contains(&vip);
    let announce = |reason| Decision {
        vip,
        announce: Some(spec.announce),
        reason,
    };
    let reason = match verdict(inputs, spec) {
        Verdict::Enough => Reason::Healthy,
        Verdict::NoServices => Reason::NoServices,
        Verdict::Below(reason) => return withdrawn(vip, reason),
        Verdict::Undecided(_) if held => return announce(Reason::HeldOverRestart),
        Verdict::Undecided(service) => return withdrawn(vip, Reason::Undecided { service }),
    };
    match readiness {
        Readiness::Pending if held => announce(Reason::HeldOverRestart),
        // What changes under a VIP that is announced already is no reason to withdraw it.
        Readiness::Pending if inputs.announced.contains(&vip) => announce(reason),
        Readiness::Pending => {
            let what = "it is being set up".to_owned();
            withdrawn(vip, Reason::DataplaneNotReady { what })
        }
        Readiness::Ready | Readiness::Failed(_) => announce(reason),
    }
}

enum Verdict {
    Enough,
    NoServices,
    Below(Reason),
    Undecided(ServiceId),
}

/// What the services of a VIP say together.
fn verdict(inputs: &Inputs<'_>, spec: &VipSpec) -> Verdict {
    let (mut healthy, mut below, mut undecided) = (0, Vec::new(), Vec::new());
    for tally in (inputs.services)(spec.address) {
        match tally {
            Tally::AtQuorum => healthy += 1,
            Tally::Below(reason) => below.push(reason),
            Tally::Undecided(service) => undecided.push(service),
        }
    }
    let services = healthy + below.len() + undecided.len();
    if services == 0 {
        return Verdict::NoServices;
    }
    // A service that is added to a VIP in use counts from its first decision on; before that
    // it must not withdraw the others. Over a restart every service counts, undecided or not.
    let in_use = inputs.announced.contains(&spec.address) && !inputs.held.contains(&spec.address);
    let (counted, may_rise) = if in_use && undecided.len() < services {
        (services - undecided.len(), 0)
    } else {
        (services, undecided.len())
    };
    let wanted = spec.require.wanted(services).min(counted);
    if healthy >= wanted {
        return Verdict::Enough;
    }
    if healthy + may_rise < wanted
        && let Some(reason) = below.into_iter().next()
    {
        return Verdict::Below(reason);
    }
    match undecided.first() {
        Some(service) => Verdict::Undecided(*service),
        // `wanted` is at most the services counted, so something is missing only where a
        // service is below its quorum or undecided.
        None => Verdict::Enough,
    }
}

/// What one service says about its VIP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tally {
    /// Enough of its real servers are healthy.
    AtQuorum,
    /// Too few are.
    Below(Reason),
    /// Too few are known to be healthy or not.
    Undecided(ServiceId),
}

impl Tally {
    /// Counts the real servers of a service that may take connections: weight 0 may not.
    pub fn of(service: &ServiceSpec, health: impl Fn(RealServerId) -> Health) -> Self {
        let (mut healthy, mut undecided) = (0_u32, 0_u32);
        for server in service.real_server.iter().filter(|s| s.weight > 0) {
            match health(service.real_server_id(server)) {
                Health::Up => healthy += 1,
                Health::Unknown => undecided += 1,
                Health::Down => {}
            }
        }
        let quorum = u32::from(service.quorum);
        if healthy >= quorum {
            Self::AtQuorum
        } else if healthy + undecided >= quorum {
            Self::Undecided(service.id())
        } else {
            Self::Below(Reason::BelowQuorum {
                service: service.id(),
                healthy,
                quorum,
                of: u32::try_from(service.real_server.len()).unwrap_or(u32::MAX),
            })
        }
    }
}

#[cfg(test)]
mod tests;
