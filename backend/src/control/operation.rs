//! Drains and undrains of directors, real servers and VIPs: what one is.
//!
//! ```text
//!                      ┌────────── a guard is lost: put back, tried again ─────────┐
//!                      ▼                                                           │
//! director.drain:      guard ─▶ cost ─▶ withdraw ─▶ set ─▶ traffic ─▶ succeeded
//! real_server.drain:   guard ─▶ weight ─▶ connections ─▶ succeeded     (─▶ remove, at the deadline)
//! vip.drain:           guard ─▶ withdraw ─▶ set ─▶ traffic ─▶ succeeded
//! any undrain:         restore ─▶ return ─▶ succeeded                  (no return: a real server)
//! any, cancelled:      ─▶ restore, or what put it out of service ─▶ cancelled
//! ```
//! Up to the step that tells a director something the state is `applying`, after it `settling`;
//! whatever cannot go on is `blocked`. The admitting commit already carries the first
//! generation, so that an operation is `pending` only while a guard keeps it from being told.
//!
//! [`progress`] says where an operation stands. What it waits for is never time alone but for the
//! ten seconds that traffic must stay away; a director that is silent keeps it where it is.

mod machine;
mod servers;
mod steps;
mod traffic;

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use isopath_api::declare::Declaration;
use isopath_api::ids::{ClusterName, DirectorName, ParseIdError, RealServerId, ServiceId, Vip};
use isopath_api::operation::{
    OnDeadline, OperationState, OperationView, StepName, StepState, StepView, TargetView,
};
use jiff::Timestamp;
use uuid::Uuid;

use super::state::ClusterState;
use crate::clock::Moment;

pub(crate) use machine::declared_no_more;
pub use machine::{Progress, cancelling, progress};
pub(crate) use steps::waits_for;
use traffic::Quiet;
pub(crate) use traffic::{connections, rate};

/// What an operation changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A director.
    Director(DirectorName),
    /// A real server, in all services that have it or in one.
    RealServer(ServerName, Option<ServiceId>),
    /// A VIP, on all directors.
    Vip(Vip),
}

/// Real servers by the name that a path has for them: `ADDRESS` or `ADDRESS:PORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerName {
    /// Their address.
    pub address: Ipv4Addr,
    /// Their port; all without one.
    pub port: Option<u16>,
}

impl ServerName {
    /// Whether it is one of them.
    pub fn is(self, server: RealServerId) -> bool {
        *server.0.ip() == self.address && self.port.is_none_or(|port| port == server.0.port())
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.address),
            None => self.address.fmt(f),
        }
    }
}

impl FromStr for ServerName {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseIdError {
            expected: "a real server such as 10.1.0.11 or 10.1.0.11:80",
            found: text.to_owned(),
        };
        let (address, port) = match text.split_once(':') {
            Some((address, port)) => (address, Some(port.parse().map_err(|_| error())?)),
            None => (text, None),
        };
        let address = address.parse().map_err(|_| error())?;
        Ok(Self { address, port })
    }
}

impl Target {
    /// The word for its kind, used in the database and before the dot of an operation's kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Director(_) => "director",
            Self::RealServer(..) => "real_server",
            Self::Vip(_) => "vip",
        }
    }

    /// Its name in events, such as `director d1`.
    pub fn object(&self) -> String {
        match self {
            Self::Director(name) => format!("director {name}"),
            Self::RealServer(server, None) => format!("real server {server}"),
            Self::RealServer(server, Some(service)) => format!("real server {server} of {service}"),
            Self::Vip(vip) => format!("VIP {vip}"),
        }
    }

    /// The declared real servers that it is.
    pub fn members(&self, declaration: &Declaration) -> Vec<(ServiceId, RealServerId)> {
        let Self::RealServer(name, only) = self else {
            return Vec::new();
        };
        let services = declaration.service.iter();
        services
            .filter(|service| only.is_none_or(|only| only == service.id()))
            .flat_map(|service| {
                let servers = service.real_server.iter();
                servers.map(|server| (service.id(), service.real_server_id(server)))
            })
            .filter(|(_, server)| name.is(*server))
            .collect()
    }

    /// Whether the declaration has it.
    pub fn is_declared(&self, declaration: &Declaration) -> bool {
        match self {
            Self::Director(name) => declaration.director.iter().any(|it| it.name == *name),
            Self::RealServer(..) => !self.members(declaration).is_empty(),
            Self::Vip(vip) => declaration.vip.iter().any(|it| it.address == *vip),
        }
    }

    /// Whether a change of one is a change of the other.
    pub fn overlaps(&self, other: &Self, declaration: &Declaration) -> bool {
        match (self, other) {
            (Self::RealServer(..), Self::RealServer(..)) => {
                let others = other.members(declaration);
                let mut members = self.members(declaration).into_iter();
                members.any(|member| others.contains(&member))
            }
            _ => self == other,
        }
    }
}

/// Whose name it has.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Director(name) => name.fmt(f),
            Self::RealServer(server, _) => server.fmt(f),
            Self::Vip(vip) => vip.fmt(f),
        }
    }
}

/// Which way an operation goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Takes it out of service.
    Drain,
    /// Puts it back.
    Undrain,
}

impl Kind {
    /// The verb.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Undrain => "undrain",
        }
    }
}

/// Every kind of operation, as the API and the database have it.
pub const KINDS: [&str; 6] = [
    "director.drain",
    "director.undrain",
    "real_server.drain",
    "real_server.undrain",
    "vip.drain",
    "vip.undrain",
];

/// A long-running change.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// Its id.
    pub id: String,
    /// The cluster.
    pub cluster: ClusterName,
    /// What it changes.
    pub target: Target,
    /// Which way.
    pub kind: Kind,
    /// Where it stands.
    pub state: OperationState,
    /// Its steps, in their order.
    pub steps: Vec<Step>,
    /// What it waits for or how it ended.
    pub detail: String,
    /// What keeps it from going on.
    pub blocked_by: Vec<String>,
    /// The generation that each director concerned must acknowledge.
    pub need: BTreeMap<DirectorName, u64>,
    /// The VIPs that a director announced when its drain was admitted, or the VIP that is drained.
    /// None where it was known to announce nothing.
    pub at_stake: Vec<Vip>,
    /// What the directors had acknowledged and counted when it was stored last.
    pub targets: Vec<TargetView>,
    /// Who asked for it.
    pub requested_by: String,
    /// Their words.
    pub reason: String,
    /// Guards that were overridden.
    pub override_guards: Vec<String>,
    /// Whether the cost is not raised before.
    pub immediate: bool,
    /// When it should have ended.
    pub deadline_at: Timestamp,
    /// What happens then.
    pub on_deadline: OnDeadline,
    /// The revision that it was admitted under.
    pub base_revision: u64,
    /// Counts its stored changes.
    pub version: u64,
    /// When it was accepted.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Since when the traffic stays away, by director. Not stored: what a controller did not see
    /// itself it has to see again.
    pub quiet: BTreeMap<DirectorName, Quiet>,
}

/// A step and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which one.
    pub name: StepName,
    /// Where it stands.
    pub state: StepState,
    /// Since when.
    pub since: Option<Timestamp>,
    /// What was seen when it was over, or why it was left out.
    pub evidence: String,
}

impl Operation {
    /// A fresh id. It sorts by time.
    pub fn new_id() -> String {
        format!("op_{}", Uuid::now_v7().simple())
    }

    /// Its kind as the API and the database have it, such as `director.drain`.
    pub fn kind_str(&self) -> &'static str {
        kind_str(&self.target, self.kind)
    }

    /// The step that it is at; nothing once it has ended.
    pub fn step(&self) -> Option<StepName> {
        let now = self.steps.iter().find(|step| step.state == StepState::Now);
        now.map(|step| step.name)
    }

    /// The VIPs whose traffic has to leave: where none is known to have been at stake, all.
    pub fn watched(&self, declaration: &Declaration) -> Vec<Vip> {
        if self.at_stake.is_empty() {
            return declaration.vip.iter().map(|spec| spec.address).collect();
        }
        self.at_stake.clone()
    }

    /// Whether a guard was overridden.
    pub fn overrides(&self, guard: &str) -> bool {
        self.override_guards.iter().any(|name| name == guard)
    }

    /// The operation as the API shows it, with what `cluster` has of it now.
    pub fn view(&self, cluster: Option<(&ClusterState, Moment)>) -> OperationView {
        let step = |step: &Step| StepView {
            step: step.name,
            state: step.state,
            since: step.since,
            evidence: match step.state {
                StepState::Now => self.detail.clone(),
                StepState::Ahead | StepState::Done | StepState::Skipped | StepState::Overdue => {
                    step.evidence.clone()
                }
            },
        };
        let targets = match cluster {
            Some((cluster, now)) if self.ended_at.is_none() => self.targets_now(cluster, now),
            Some(_) | None => self.targets.clone(),
        };
        OperationView {
            id: self.id.clone(),
            kind: self.kind_str().to_owned(),
            cluster: self.cluster.clone(),
            target: self.target.to_string(),
            service: match &self.target {
                Target::RealServer(_, service) => *service,
                Target::Director(_) | Target::Vip(_) => None,
            },
            state: self.state,
            detail: self.detail.clone(),
            steps: self.steps.iter().map(step).collect(),
            blocked_by: self.blocked_by.clone(),
            targets,
            requested_by: self.requested_by.clone(),
            reason: self.reason.clone(),
            override_guards: self.override_guards.clone(),
            immediate: self.immediate,
            base_revision: self.base_revision,
            version: self.version,
            started_at: self.started_at,
            deadline_at: self.deadline_at,
            on_deadline: self.on_deadline,
            ended_at: self.ended_at,
        }
    }

    /// What each director concerned has acknowledged and counts now.
    pub fn targets_now(&self, cluster: &ClusterState, now: Moment) -> Vec<TargetView> {
        let vips = self.watched(&cluster.declaration);
        let of = |(name, need): (&DirectorName, &u64)| {
            let director = cluster.directors.get(name);
            let observed = director.and_then(|director| director.fresh(now));
            let connections = observed.map(|it| connections(it, &self.target, &vips));
            TargetView {
                director: name.clone(),
                need_gen: *need,
                acked_gen: director.and_then(|it| it.acknowledged(&cluster.epoch)),
                vip_pps: observed.and_then(|it| traffic::rate(it, &self.target, &vips)),
                active: connections.map(|(active, _)| active),
                inactive: connections.map(|(_, inactive)| inactive),
            }
        };
        self.need.iter().map(of).collect()
    }
}

/// The kind of an operation as the API and the database have it.
pub fn kind_str(target: &Target, kind: Kind) -> &'static str {
    match (target, kind) {
        (Target::Director(_), Kind::Drain) => "director.drain",
        (Target::Director(_), Kind::Undrain) => "director.undrain",
        (Target::RealServer(..), Kind::Drain) => "real_server.drain",
        (Target::RealServer(..), Kind::Undrain) => "real_server.undrain",
        (Target::Vip(_), Kind::Drain) => "vip.drain",
        (Target::Vip(_), Kind::Undrain) => "vip.undrain",
    }
}

/// The steps of a new operation, all of them ahead.
pub fn plan(target: &Target, kind: Kind, on_deadline: OnDeadline) -> Vec<StepName> {
    use StepName::{
        Connections, Cost, Guard, Remove, Restore, Return, Set, Traffic, Weight, Withdraw,
    };
    match (target, kind) {
        (Target::Director(_), Kind::Drain) => vec![Guard, Cost, Withdraw, Set, Traffic],
        (Target::Vip(_), Kind::Drain) => vec![Guard, Withdraw, Set, Traffic],
        (Target::RealServer(..), Kind::Drain) if on_deadline == OnDeadline::Remove => {
            vec![Guard, Weight, Connections, Remove]
        }
        (Target::RealServer(..), Kind::Drain) => vec![Guard, Weight, Connections],
        (Target::RealServer(..), Kind::Undrain) => vec![Restore],
        (Target::Director(_) | Target::Vip(_), Kind::Undrain) => vec![Restore, Return],
    }
}

#[cfg(test)]
mod tests;
