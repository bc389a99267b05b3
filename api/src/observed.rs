//! What a director's agent says it sees.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::ServiceDigest;
use crate::ids::{DirectorName, RealServerId, RouterId, ServiceId, Vip};
use crate::reason::Reason;
use crate::speaker;

/// One report of an agent: always complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Observed {
    /// The director.
    pub director: DirectorName,
    /// Its OSPF router id.
    pub router_id: RouterId,
    /// Made once and kept in the state directory: tells two agents of one name apart.
    pub instance: String,
    /// Made at each start of the agent.
    pub run: String,
    /// The agent's version.
    pub version: String,
    /// The director's clock.
    pub at: Timestamp,
    /// Counts the reports of this run.
    pub sequence: u64,
    /// The epoch of the desired state in force; nothing with a local file.
    pub epoch: Option<String>,
    /// The generation of the desired state in force; 0 before the first.
    pub generation: u64,
    /// The speaker; nothing while the agent cannot reach it.
    pub speaker: Option<speaker::Status>,
    /// The decision for each VIP.
    pub vips: Vec<VipObserved>,
    /// The services.
    pub services: Vec<ServiceObserved>,
    /// The data plane.
    pub dataplane: DataplaneObserved,
    /// The link to the controller; nothing with a local file.
    #[serde(default)]
    pub controller: Option<ControllerObserved>,
}

/// The agent's link to the controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ControllerObserved {
    /// The controller's base URL.
    pub url: String,
    /// Whether the stream of the desired state is open.
    pub connected: bool,
    /// Since when.
    pub since: Timestamp,
    /// What went wrong last: a report that the controller refused, a desired state that this
    /// director refused, or why it cannot connect. Nothing while all is well.
    #[serde(default)]
    pub problem: Option<String>,
}

/// The decision for a VIP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VipObserved {
    /// The VIP.
    pub vip: Vip,
    /// The cost the agent wants it announced at; nothing when it wants it withdrawn.
    pub cost: Option<u16>,
    /// Why.
    pub reason: Reason,
    /// Since when the decision and its reason's code stand.
    pub since: Timestamp,
}

/// A service and its real servers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceObserved {
    /// The service.
    pub service: ServiceId,
    /// Its real servers, in canonical order.
    pub real_servers: Vec<RealServerObserved>,
    /// Those that are in the kernel still although they are not wanted any more: they take no
    /// connections and go with the last that they have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<RealServerId>,
    /// The kernel's counters; nothing where there is no IPVS.
    pub stats: Option<Stats>,
    /// What decides in this kernel where a client lands; nothing where there is no IPVS.
    #[serde(default)]
    pub digest: Option<ServiceDigest>,
}

/// A real server as this director sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RealServerObserved {
    /// The real server.
    pub real_server: RealServerId,
    /// Its health.
    pub health: Health,
    /// Since when.
    pub since: Timestamp,
    /// The last check's result.
    pub last_check: Option<CheckResult>,
    /// The declared weight.
    pub weight: u16,
    /// The weight in the kernel; nothing while it is not there.
    pub effective_weight: Option<u32>,
    /// Active connections.
    pub active: u32,
    /// Inactive connections.
    pub inactive: u32,
    /// The kernel's counters; nothing where there is no IPVS.
    pub stats: Option<Stats>,
}

/// The health of a real server as this director's checks have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// The checks have not decided yet.
    Unknown,
    /// Healthy.
    Up,
    /// Unhealthy.
    Down,
}

impl std::fmt::Display for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "Unknown",
            Self::Up => "Up",
            Self::Down => "Down",
        })
    }
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckResult {
    /// Whether it succeeded.
    pub ok: bool,
    /// What happened, such as `HTTP 503, wanted 200-399` or `TCP refused`.
    pub detail: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Results of this kind in a row.
    pub in_a_row: u32,
    /// When it ended.
    pub at: Timestamp,
}

/// IPVS counters (`struct ip_vs_kstats`, 64 bit).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Stats {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients (NAT only).
    pub out_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Bytes to clients (NAT only).
    pub out_bytes: u64,
    /// Connections a second, the kernel's own estimate.
    pub connections_per_second: u64,
    /// Packets from clients a second, the kernel's own estimate.
    pub in_packets_per_second: u64,
}

/// The state of the data plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DataplaneObserved {
    /// What is programmed.
    pub kind: crate::config::Dataplane,
    /// Steps executed since the start.
    pub steps: u64,
    /// Differences that something outside had made and that were repaired.
    pub drift_repaired: u64,
    /// How often the kernel was compared with what is wanted since the start.
    #[serde(default)]
    pub reconciles: Reconciles,
    /// Steps of the last plan that failed, with their errors.
    pub failures: Vec<String>,
    /// What an operator should know about and what withdraws nothing.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// Something about a director that is not as it should be and withdraws nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Condition {
    /// Its stable code, as the metric's label has it: that of a [`Reason`] which would have kept
    /// a VIP from being announced for the first time, or one of the agent's own.
    pub code: String,
    /// What is so.
    pub text: String,
    /// What an operator would do about it.
    pub remedy: String,
    /// Since when.
    pub since: Timestamp,
}

/// Comparisons of the kernel with what is wanted, by whether they ended in a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reconciles {
    /// Those that found nothing to do.
    pub unchanged: Timed,
    /// Those that executed a step, with its time.
    pub changed: Timed,
}

/// How often something was done, and how long that took together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Timed {
    /// How often.
    pub count: u64,
    /// Microseconds in all.
    pub took_us: u64,
}

impl Timed {
    /// Adds one more.
    pub fn add(&mut self, took: std::time::Duration) {
        self.count += 1;
        self.took_us = self
            .took_us
            .saturating_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
}

/// The controller's answer to a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Acknowledged {
    /// The epoch of the wanted state.
    pub epoch: String,
    /// The generation wanted of this director: heals a stream that died unnoticed.
    pub generation: u64,
    /// When to report next at the latest, in milliseconds.
    pub interval_ms: u64,
}
