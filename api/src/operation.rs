//! Long-running changes: drains and undrains of directors, real servers and VIPs.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{ClusterName, DirectorName, ServiceId, Vip};

/// The shortest deadline that is taken, in seconds.
pub const SHORTEST_DEADLINE_S: u64 = 1;
/// The longest deadline that is taken, in seconds: a week.
pub const LONGEST_DEADLINE_S: u64 = 7 * 24 * 60 * 60;
/// The deadline of whoever names none, in seconds.
pub const USUAL_DEADLINE_S: u64 = 900;

/// A long-running change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OperationView {
    /// Its id, such as `op_…`.
    pub id: String,
    /// `director.drain`, `director.undrain`, `real_server.drain`, `real_server.undrain`,
    /// `vip.drain` or `vip.undrain`.
    pub kind: String,
    /// The cluster.
    pub cluster: ClusterName,
    /// What it changes: a director's name, `ADDRESS` or `ADDRESS:PORT` of real servers, or a VIP.
    pub target: String,
    /// The one service that it is restricted to; only of real servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceId>,
    /// Where it stands.
    pub state: OperationState,
    /// What it waits for or how it ended.
    pub detail: String,
    /// Its steps, in their order.
    pub steps: Vec<StepView>,
    /// What keeps it from going on: the names of guards, `agent_lost` or `deadline`.
    pub blocked_by: Vec<String>,
    /// Each director that it concerns.
    pub targets: Vec<TargetView>,
    /// Who asked for it.
    pub requested_by: String,
    /// Their words.
    pub reason: String,
    /// Guards that were overridden.
    pub override_guards: Vec<String>,
    /// Whether the directors withdraw at once, without a raised cost before.
    #[serde(default)]
    pub immediate: bool,
    /// The cluster's revision that it was admitted under.
    pub base_revision: u64,
    /// Counts its stored changes, from 1.
    pub version: u64,
    /// When it was accepted.
    pub started_at: Timestamp,
    /// When it should have ended.
    pub deadline_at: Timestamp,
    /// What happens then.
    pub on_deadline: OnDeadline,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum OperationState {
    /// Accepted and stored; nobody has been told.
    Pending,
    /// Told, and not acknowledged yet by all whom it concerns.
    Applying,
    /// In force; what is left is to leave by itself.
    Settling,
    /// It cannot go on; `blocked_by` says why. It goes on when that is over.
    Blocked,
    /// What it did is being undone.
    Cancelling,
    /// Done.
    Succeeded,
    /// Undone, or ended by a later operation.
    Cancelled,
    /// It ended without having done what it should: what it changes is declared no more.
    Failed,
}

impl OperationState {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Applying,
        Self::Settling,
        Self::Blocked,
        Self::Cancelling,
        Self::Succeeded,
        Self::Cancelled,
        Self::Failed,
    ];

    /// The word used in the API and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Applying => "applying",
            Self::Settling => "settling",
            Self::Blocked => "blocked",
            Self::Cancelling => "cancelling",
            Self::Succeeded => "succeeded",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// Whether it has ended.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Succeeded | Self::Cancelled | Self::Failed => true,
            Self::Pending | Self::Applying | Self::Settling | Self::Blocked | Self::Cancelling => {
                false
            }
        }
    }
}

/// A step of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StepView {
    /// Which one.
    pub step: StepName,
    /// Where it stands.
    pub state: StepState,
    /// Since when it stands so; nothing while it is ahead.
    pub since: Option<Timestamp>,
    /// What it waits for, or what was seen when it was over.
    pub evidence: String,
}

/// The steps of all operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StepName {
    /// The guards allow it.
    Guard,
    /// The director announces at the highest metric, and no switch sends it clients that another
    /// director would take.
    Cost,
    /// Whom it concerns has acknowledged, and announces nothing.
    Withdraw,
    /// The other directors' databases have it in no equal-cost set.
    Set,
    /// The packets to the VIPs have ceased to come.
    Traffic,
    /// All directors have acknowledged weight 0.
    Weight,
    /// No director has a connection left.
    Connections,
    /// All directors have taken it out of their kernels.
    Remove,
    /// Whom it concerns has acknowledged that it serves, and does.
    Restore,
    /// The other directors' databases have it in the equal-cost sets again.
    Return,
}

impl StepName {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Guard,
        Self::Cost,
        Self::Withdraw,
        Self::Set,
        Self::Traffic,
        Self::Weight,
        Self::Connections,
        Self::Remove,
        Self::Restore,
        Self::Return,
    ];

    /// The word used in the API and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guard => "guard",
            Self::Cost => "cost",
            Self::Withdraw => "withdraw",
            Self::Set => "set",
            Self::Traffic => "traffic",
            Self::Weight => "weight",
            Self::Connections => "connections",
            Self::Remove => "remove",
            Self::Restore => "restore",
            Self::Return => "return",
        }
    }

    /// What it is in words, for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Guard => "Guards allow it",
            Self::Cost => "Cost raised, out of the equal-cost sets",
            Self::Withdraw => "Withdrawn",
            Self::Set => "Other databases agree",
            Self::Traffic => "Traffic has left",
            Self::Weight => "Weight 0 everywhere",
            Self::Connections => "Connections gone",
            Self::Remove => "Removed everywhere",
            Self::Restore => "In service",
            Self::Return => "In the equal-cost sets",
        }
    }
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum StepState {
    /// It has not begun.
    Ahead,
    /// It is under way.
    Now,
    /// What it waits for has been seen.
    Done,
    /// It was left out: the evidence says why.
    Skipped,
    /// It was not over at the deadline and not waited for any longer: the evidence says what
    /// was left.
    Overdue,
}

/// A director that an operation concerns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TargetView {
    /// The director.
    pub director: DirectorName,
    /// The generation that it must acknowledge.
    pub need_gen: u64,
    /// The generation that it says is in force; nothing before it has said so.
    pub acked_gen: Option<u64>,
    /// Packets a second to the VIPs concerned; nothing where nobody counts them.
    pub vip_pps: Option<u64>,
    /// Active connections concerned; nothing while the director is silent.
    pub active: Option<u64>,
    /// Inactive connections concerned; nothing while the director is silent.
    pub inactive: Option<u64>,
}

/// What happens to an operation that is not done at its deadline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum OnDeadline {
    /// Everything stays as it is, and somebody is told.
    #[default]
    Hold,
    /// It ends and tells what is left. It still does not end before whom it concerns has
    /// withdrawn.
    Finish,
    /// The real server is taken out, with the connections that are left.
    Remove,
}

impl OnDeadline {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hold, Self::Finish, Self::Remove];

    /// The word used in the API and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Finish => "finish",
            Self::Remove => "remove",
        }
    }
}

/// The body of a drain or an undrain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// The operator's words.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_length = 500))]
    pub reason: String,
    /// Guards to pass over, such as `last_announcer`; wants a reason.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 16))]
    pub override_guards: Vec<String>,
    /// In how many seconds it should be done; 900 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 604_800))]
    pub deadline_s: Option<u64>,
    /// What happens to what is not done by then.
    #[serde(default)]
    pub on_deadline: OnDeadline,
    /// Withdraw at once, without raising the cost before; only in the drain of a director.
    #[serde(default)]
    pub immediate: bool,
    /// Only in this service; only of a real server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceId>,
}

impl DrainRequest {
    /// In how many seconds it should be done.
    pub fn deadline_s(&self) -> u64 {
        self.deadline_s.unwrap_or(USUAL_DEADLINE_S)
    }
}

/// What a drain or an undrain would do, from what is known now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DrainPreview {
    /// The kind of the operation.
    pub kind: String,
    /// The cluster.
    pub cluster: ClusterName,
    /// What it would change.
    pub target: String,
    /// Whether it would be admitted as it is asked for.
    pub admitted: bool,
    /// Why not, where it would not; empty where it would.
    pub refusal: String,
    /// What each guard says.
    pub guards: Vec<GuardView>,
    /// What would be left of each VIP and service concerned.
    pub left: Vec<LeftView>,
    /// What would move, by director.
    pub flows: Vec<FlowsView>,
    /// Its steps, and what each would wait for.
    pub steps: Vec<StepPreview>,
}

/// What a guard says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GuardView {
    /// Its name.
    pub guard: String,
    /// Whether it allows it.
    pub allows: bool,
    /// Whether the request passes it over.
    pub overridden: bool,
    /// Why it refuses; empty where it allows.
    pub detail: String,
}

/// What is left of a VIP or a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeftView {
    /// The VIP or the service.
    pub object: String,
    /// `directors` that announce it, or `weight` of real servers that take connections.
    pub unit: String,
    /// How much there is now.
    pub now: u64,
    /// How much there would be.
    pub after: u64,
    /// The directors that would be left; of a VIP only.
    #[serde(default)]
    pub directors: Vec<DirectorName>,
}

/// What would move away from a director's place, or from a real server on a director.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FlowsView {
    /// The director.
    pub director: DirectorName,
    /// Active connections concerned; nothing while the director is silent.
    pub active: Option<u64>,
    /// Inactive connections concerned; nothing while the director is silent.
    pub inactive: Option<u64>,
    /// Packets a second concerned; nothing where nobody counts them.
    pub pps: Option<u64>,
    /// How many per cent of the clients of the cluster's VIPs concerned these are, by active
    /// connections; nothing where there are none.
    pub percent: Option<f64>,
}

/// A step that an operation would take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StepPreview {
    /// Which one.
    pub step: StepName,
    /// What it would wait for.
    pub waits_for: String,
}

/// A declared real server, in each service that has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RealServerAdminView {
    /// Its service.
    pub service: ServiceId,
    /// Its VIP.
    pub vip: Vip,
    /// Itself.
    pub real_server: crate::ids::RealServerId,
    /// The declared weight.
    pub weight: u16,
    /// The weight that directors are told.
    pub wanted_weight: u16,
    /// What the operator wants of it.
    pub admin_state: crate::desired::AdminState,
    /// Their words.
    pub admin_reason: String,
    /// Active connections over all directors that reported lately.
    pub active: u64,
    /// Inactive connections over all directors that reported lately.
    pub inactive: u64,
}
