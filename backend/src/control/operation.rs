//! Drains and undrains: where one stands, computed from what the directors report.
//!
//! ```text
//! drain:   applying ──acknowledged, announces nothing──▶ settling ──no LSDB lists it──▶ succeeded
//! undrain: applying ──acknowledged──▶ succeeded
//! either:  ──undone by the other──▶ cancelled
//! ```
//! A director that is silent keeps its operation where it is: it may still announce.

use isopath_api::ids::{ClusterName, DirectorName, Vip};
use isopath_api::observed::Observed;
use isopath_api::speaker::Source;
use isopath_api::view::{OperationState, OperationView};
use jiff::Timestamp;
use uuid::Uuid;

use super::state::{ClusterState, DirectorState, Liveness, is_connected};
use crate::clock::Moment;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Takes a director out of service.
    Drain,
    /// Puts it back.
    Undrain,
}

impl Kind {
    /// The word used in the API and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "director.drain",
            Self::Undrain => "director.undrain",
        }
    }
}

/// A long-running change of one director.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its id.
    pub id: String,
    /// The cluster.
    pub cluster: ClusterName,
    /// The director.
    pub director: DirectorName,
    /// What it does.
    pub kind: Kind,
    /// Where it stands.
    pub state: OperationState,
    /// What it waits for or how it ended.
    pub detail: String,
    /// The generation that the director must acknowledge.
    pub need_generation: u64,
    /// Who asked for it.
    pub requested_by: String,
    /// Their words.
    pub reason: String,
    /// Guards that were overridden.
    pub override_guards: Vec<String>,
    /// When it was accepted.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

impl Operation {
    /// A fresh id. It sorts by time.
    pub fn new_id() -> String {
        format!("op_{}", Uuid::now_v7().simple())
    }

    /// The operation as the API shows it.
    pub fn view(&self) -> OperationView {
        OperationView {
            id: self.id.clone(),
            kind: self.kind.as_str().to_owned(),
            cluster: self.cluster.clone(),
            director: self.director.clone(),
            state: self.state,
            detail: self.detail.clone(),
            requested_by: self.requested_by.clone(),
            reason: self.reason.clone(),
            override_guards: self.override_guards.clone(),
            started_at: self.started_at,
            ended_at: self.ended_at,
        }
    }
}

/// Where an operation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Its state.
    pub state: OperationState,
    /// What it waits for or how it ended.
    pub detail: String,
}

impl Progress {
    fn applying(detail: impl Into<String>) -> Self {
        Self {
            state: OperationState::Applying,
            detail: detail.into(),
        }
    }
}

/// Where an operation that has not ended stands now.
pub fn progress(
    operation: &Operation,
    cluster: &ClusterState,
    now: Moment,
    started: Moment,
) -> Progress {
    let name = &operation.director;
    let Some(director) = cluster.directors.get(name) else {
        return Progress {
            state: OperationState::Cancelled,
            detail: format!("{name} is declared no more"),
        };
    };
    let observed = match acknowledged(operation, cluster, director, (now, started)) {
        Ok(observed) => observed,
        Err(waiting) => return Progress::applying(waiting),
    };
    match operation.kind {
        Kind::Undrain => Progress {
            state: OperationState::Succeeded,
            detail: format!("{name} decides by its own health again"),
        },
        Kind::Drain => match withdrawn(name, observed) {
            Err(waiting) => Progress::applying(waiting),
            Ok(()) => settled(cluster, name, director, (now, started)),
        },
    }
}

/// The fresh report that acknowledges the operation's generation, or what is waited for.
fn acknowledged<'a>(
    operation: &Operation,
    cluster: &ClusterState,
    director: &'a DirectorState,
    (now, started): (Moment, Moment),
) -> Result<&'a Observed, String> {
    let name = &operation.director;
    let Some(observed) = director.fresh(now) else {
        return Err(match director.liveness(now, started) {
            Liveness::NotYetHeard | Liveness::NeverHeard => {
                format!("{name} has not been heard since the controller started")
            }
            Liveness::Fresh | Liveness::Stale(_) | Liveness::Lost(_) => {
                format!("{name} is silent and may still announce")
            }
        });
    };
    match director.acknowledged(&cluster.epoch) {
        Some(generation) if generation >= operation.need_generation => Ok(observed),
        Some(generation) => Err(format!(
            "{name} has acknowledged generation {generation}, {} is needed",
            operation.need_generation
        )),
        None => Err(format!("{name} has acknowledged no desired state yet")),
    }
}

/// Whether the director's own speaker announces no VIP any more.
fn withdrawn(name: &DirectorName, observed: &Observed) -> Result<(), String> {
    let Some(speaker) = &observed.speaker else {
        return Err(format!("the agent of {name} cannot reach its speaker"));
    };
    // The Router-LSA may follow later: its origination is paced.
    let own_lsa = speaker
        .announcers
        .iter()
        .find(|(_, routers)| routers.contains(&speaker.router_id));
    match speaker.announced.first() {
        None => match own_lsa {
            None => Ok(()),
            Some((vip, _)) => Err(format!("the Router-LSA of {name} still carries {vip}")),
        },
        Some(announced) if announced.source == Source::Override => Err(format!(
            "{name} announces {} on an operator's override there; undo that first",
            announced.vip
        )),
        Some(announced) => Err(format!("{name} still announces {}", announced.vip)),
    }
}

/// Whether no other director's LSDB lists the drained one.
fn settled(
    cluster: &ClusterState,
    name: &DirectorName,
    director: &DirectorState,
    (now, started): (Moment, Moment),
) -> Progress {
    let settling = |detail| Progress {
        state: OperationState::Settling,
        detail,
    };
    for (other, state) in cluster.directors.iter().filter(|(other, _)| *other != name) {
        if state.liveness(now, started) == Liveness::NotYetHeard {
            return settling(format!(
                "{other} has not been heard since the controller started"
            ));
        }
        if let Some(observed) = state.fresh(now)
            && let Some(vip) = listed(observed, director)
        {
            return settling(format!("the LSDB of {other} still lists {name} for {vip}"));
        }
    }
    Progress {
        state: OperationState::Succeeded,
        detail: format!("no LSDB lists {name} any more"),
    }
}

/// A VIP that this report's LSDB lists a director for. A speaker without a Full neighbour
/// hears of no withdrawal and does not count.
fn listed(observed: &Observed, director: &DirectorState) -> Option<Vip> {
    let speaker = observed
        .speaker
        .as_ref()
        .filter(|_| is_connected(observed))?;
    speaker
        .announcers
        .iter()
        .find(|(_, routers)| routers.contains(&director.router_id))
        .map(|(vip, _)| *vip)
}

#[cfg(test)]
mod tests;
