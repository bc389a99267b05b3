//! What the controller knows of a cluster, as `GET /api/v1/clusters/{c}` answers it and as the
//! page and the command show it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::declare::{Declaration, Forwarding, Lvs, Warning};
use crate::desired::AdminState;
use crate::digest::ServiceDigest;
use crate::ids::{ClusterName, DirectorName, RealServerId, RouterId, ServiceId, Vip};
use crate::observed::{CheckResult, Condition, Health};
use crate::operation::OperationView;
use crate::reason::Reason;
use crate::revision::DeclarationDiff;
use crate::speaker::Neighbor;

/// One cluster, as of one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClusterView {
    /// `isopath.cluster/1`; fields are only ever added.
    pub schema: String,
    /// The cluster.
    pub name: ClusterName,
    /// The revision in force.
    pub revision: u64,
    /// The controller's clock.
    pub as_of: Timestamp,
    /// Down when one of its VIPs is, Unknown when nothing is known of any director, Degraded
    /// when anything else is wrong.
    pub state: State,
    /// The state in one sentence.
    pub verdict: String,
    /// What is wrong, worst first.
    pub problems: Vec<ProblemView>,
    /// What is declared, works, and is unwise.
    #[serde(default)]
    pub warnings: Vec<Warning>,
    /// The settings that all services share, with what is not declared filled in.
    #[serde(default)]
    pub lvs: Lvs,
    /// The switches, from the directors' neighbours.
    pub switches: Vec<SwitchView>,
    /// The directors in their declared order.
    pub directors: Vec<DirectorView>,
    /// The VIPs in their declared order.
    pub vips: Vec<VipView>,
    /// The services in their declared order.
    pub services: Vec<ServiceView>,
    /// Operations that have not ended, newest first.
    pub operations: Vec<OperationView>,
    /// The last events, newest first.
    pub events: Vec<EventView>,
}

/// A cluster in the list that `GET /api/v1/clusters` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClusterSummary {
    /// The cluster.
    pub name: ClusterName,
    /// The revision in force.
    pub revision: u64,
    /// As [`ClusterView::state`].
    pub state: State,
    /// The state in one sentence.
    pub verdict: String,
    /// How many things are wrong.
    pub problems: usize,
    /// How many directors are declared.
    pub directors: usize,
    /// How many of them are Up.
    pub directors_up: usize,
    /// How many VIPs are declared.
    pub vips: usize,
}

/// What `PUT /api/v1/clusters/{c}` did, or would do with `?dry_run=true`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Applied {
    /// The cluster.
    pub cluster: ClusterName,
    /// The revision now in force, or that would be.
    pub revision: u64,
    /// Whether the declaration differs from the one before.
    pub changed: bool,
    /// Whether nothing was changed because nothing should be.
    pub dry_run: bool,
    /// The directors whose desired state changes.
    pub directors: Vec<DirectorName>,
    /// What it would change in detail; with `dry_run` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<DeclarationDiff>,
    /// What is declared, works, and is unwise.
    #[serde(default)]
    pub warnings: Vec<Warning>,
}

/// A revision of a cluster's declaration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RevisionView {
    /// Counts the revisions of its cluster, from 1.
    pub revision: u64,
    /// When it was accepted.
    pub at: Timestamp,
    /// Who declared it.
    pub actor: String,
    /// Their words.
    pub reason: String,
    /// What it declares; left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declaration: Option<Declaration>,
}

/// The state of a thing in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All is as it should be.
    Up,
    /// On its way out on an operator's word.
    Draining,
    /// Out on an operator's word: safe to work on.
    Safe,
    /// Works, but not all of it.
    Degraded,
    /// Not known: nothing was heard of it, or not for too long.
    Unknown,
    /// Does not work.
    Down,
}

impl State {
    /// The word on pages and in tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "Up",
            Self::Draining => "Draining",
            Self::Safe => "Safe",
            Self::Degraded => "Degraded",
            Self::Unknown => "Unknown",
            Self::Down => "Down",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// Something wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProblemView {
    /// How bad.
    pub state: State,
    /// The object, such as `director d3` or `VIP 10.99.0.1`.
    pub object: String,
    /// What is wrong and why.
    pub cause: String,
    /// Since when, where it is known.
    pub since: Option<Timestamp>,
    /// What to do next.
    pub next: String,
}

/// A router that directors are neighbours of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SwitchView {
    /// Its router id.
    pub router_id: RouterId,
    /// Its declared name.
    pub name: Option<String>,
    /// Directors whose adjacency with it is Full.
    pub full: Vec<DirectorName>,
    /// Directors that see it in a lower state.
    pub not_full: Vec<DirectorName>,
}

/// A director.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DirectorView {
    /// Its name.
    pub name: DirectorName,
    /// Its declared router id.
    pub router_id: RouterId,
    /// Its state in one word.
    pub state: State,
    /// Why it is in that state.
    pub why: String,
    /// What the operator wants of it.
    pub admin_state: AdminState,
    /// The operator's words for that.
    pub admin_reason: String,
    /// The agent's version; nothing before its first report.
    pub version: Option<String>,
    /// When the last report came, by the controller's clock.
    pub last_report: Option<Timestamp>,
    /// How many of its reports were taken.
    #[serde(default)]
    pub reports: ReportsView,
    /// The generation wanted of it.
    pub generation: u64,
    /// The generation it says is in force.
    pub acknowledged_generation: Option<u64>,
    /// Its OSPF neighbours.
    pub neighbors: Vec<Neighbor>,
    /// Its VIPs.
    pub vips: Vec<DirectorVipView>,
    /// Active connections over all services.
    pub active: u64,
    /// Connections a second over all services.
    pub connections_per_second: u64,
    /// Whether it is heard, and what the other directors tell of it where it is not.
    #[serde(default)]
    pub contact: Option<Contact>,
    /// The protocol that its agent speaks.
    #[serde(default)]
    pub protocol: Option<u32>,
    /// How far its clock is before the controller's, in milliseconds, by its last report.
    #[serde(default)]
    pub clock_skew_ms: Option<i64>,
    /// What was refused of its agents since the controller started, by cause.
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
    /// What an operator should know about and what withdraws nothing.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// What was taken of a director's reports since the controller started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReportsView {
    /// How many.
    pub accepted: u64,
    /// The number that the agent gave the last one; nothing before the first.
    pub last_sequence: Option<u64>,
}

/// Whether a director is heard. A lost agent is not a lost director: the other directors'
/// link-state databases tell whether the switches still hear it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Contact {
    /// Its agent reports.
    Heard,
    /// Its agent has been silent for some seconds.
    Silent,
    /// Its agent is lost, and the director still announces.
    AgentLost,
    /// Its agent is lost, and nobody lists the director.
    DirectorLost,
    /// Its agent is lost, and nobody can tell of the director.
    Unknown,
    /// The controller started a moment ago: silence proves nothing yet.
    NotYetHeard,
}

/// A VIP on one director.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DirectorVipView {
    /// The VIP.
    pub vip: Vip,
    /// The cost the agent wants it announced at.
    pub cost: Option<u16>,
    /// The cost that is declared for it on this director; nothing for a VIP that is not declared.
    #[serde(default)]
    pub declared_cost: Option<u16>,
    /// Whether this director's own LSDB has it announced by this director.
    pub in_lsdb: bool,
    /// Why it is announced or not.
    pub reason: Reason,
    /// The reason in words.
    pub reason_text: String,
    /// Since when.
    pub since: Timestamp,
}

/// A VIP over all directors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VipView {
    /// The VIP.
    pub vip: Vip,
    /// Its state in one word.
    pub state: State,
    /// What the operator wants of it on all directors.
    #[serde(default)]
    pub admin_state: AdminState,
    /// Directors that should announce it: all that are active.
    pub wanted: Vec<DirectorName>,
    /// Those of them with the lowest declared cost, over which switches spread its clients. The
    /// others are backups.
    #[serde(default)]
    pub lowest: Vec<DirectorName>,
    /// Directors whose announcement the freshest LSDBs carry.
    pub real: Vec<DirectorName>,
    /// Router ids that announce it and belong to no declared director.
    pub foreign: Vec<RouterId>,
    /// How each switch spreads its traffic, by the freshest LSDB.
    #[serde(default)]
    pub widths: Vec<VipWidth>,
}

/// How a switch spreads the traffic of a VIP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VipWidth {
    /// The switch.
    pub switch: RouterId,
    /// Its declared name.
    pub name: Option<String>,
    /// How many equal-cost next hops it has; 0 without a path.
    pub width: u32,
    /// Who announces the VIP at the lowest cost for it: a director's name, or the router id of
    /// another router.
    pub through: Vec<String>,
}

impl VipWidth {
    /// What people call the switch.
    pub fn switch_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.switch.to_string())
    }
}

/// A service over all directors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceView {
    /// The service.
    pub service: ServiceId,
    /// Its state in one word.
    pub state: State,
    /// The scheduler and its flags as ipvsadm prints them, such as `mh mh-fallback,mh-port`.
    pub scheduler: String,
    /// The forwarding method.
    pub forwarding: Forwarding,
    /// Healthy real servers it needs on a director.
    pub quorum: u16,
    /// Its real servers in canonical order.
    pub real_servers: Vec<RealServerView>,
    /// Whether the directors send its clients to the same real servers.
    #[serde(default)]
    pub placement: Option<PlacementView>,
}

/// Whether directors send the clients of a service to the same real servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlacementView {
    /// The digest that follows from the declaration.
    pub expected: ServiceDigest,
    /// Each director, in its declared order.
    pub directors: Vec<DirectorPlacement>,
}

/// Where one director sends the clients of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DirectorPlacement {
    /// The director.
    pub director: DirectorName,
    /// The digest of what its kernel has; nothing while it has not said.
    pub found: Option<ServiceDigest>,
    /// How that compares with the expected one.
    pub agreement: Agreement,
    /// Since when it differs, as far as this controller has seen.
    pub since: Option<Timestamp>,
}

/// How the digest of one director compares with the expected one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Agreement {
    /// It sends every client where it should.
    Same,
    /// It would send clients elsewhere.
    Differs,
    /// It has another generation than is wanted of it: a change is being rolled out.
    RollingOut,
    /// It has not said, or its digests are of another version.
    Unknown,
}

/// A real server over all directors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RealServerView {
    /// The real server.
    pub real_server: RealServerId,
    /// Its state in one word: Degraded when directors disagree.
    pub state: State,
    /// The declared weight.
    pub weight: u16,
    /// What the operator wants of it in this service: where it is not active, directors have it
    /// at weight 0.
    #[serde(default)]
    pub admin_state: AdminState,
    /// What each director that reported lately says.
    pub seen: Vec<RealServerSeen>,
    /// Active connections over all directors.
    pub active: u64,
    /// Inactive connections over all directors.
    pub inactive: u64,
    /// Connections a second over all directors.
    pub connections_per_second: u64,
}

/// A real server as one director sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RealServerSeen {
    /// The director.
    pub director: DirectorName,
    /// Its health there.
    pub health: Health,
    /// Since when.
    pub since: Timestamp,
    /// The weight in that director's kernel.
    pub effective_weight: Option<u32>,
    /// The last check there.
    pub last_check: Option<CheckResult>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventView {
    /// Counts all events of the controller.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// The cluster, where it concerns one.
    pub cluster: Option<ClusterName>,
    /// How bad.
    pub severity: Severity,
    /// The object, such as `director d3`.
    pub object: String,
    /// What happened.
    pub what: String,
    /// Who or what did it.
    pub actor: String,
}

/// How bad an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As intended.
    Info,
    /// Worth a look.
    Warning,
    /// Something does not work.
    Error,
}

impl Severity {
    /// The word used in the API and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}
