//! What an operator declares: VIPs, services, real servers and their checks.
//!
//! The same `[[vip]]` and `[[service]]` tables stand in a director's own file
//! ([`crate::config`]) and in a cluster's declaration ([`Declaration`]).

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::AreaType;
use crate::fault::Fault;
use crate::ids::{
    ClusterName, DirectorName, ParseIdError, Protocol, RealServerId, RouterId, ServiceId, Vip,
    serde_as_text,
};

mod validate;
pub use validate::{validate_kinds, validate_services, validate_vips};

/// The widest cluster that any switch is known to balance over.
pub const MAX_PATHS_LIMIT: u16 = 64;

/// A whole cluster, as `PUT /api/v1/clusters/{c}` takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declaration {
    /// The cluster it declares; must be the one it is put to when present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
    /// How many equal-cost paths the switches carry (1 to 64).
    #[serde(default = "default_max_paths")]
    pub max_paths: u16,
    /// The directors, at most `max_paths`.
    #[serde(default)]
    pub director: Vec<DirectorSpec>,
    /// The switches; only to give the routers seen in the LSDB a name.
    #[serde(default)]
    pub switch: Vec<SwitchSpec>,
    /// The VIPs.
    #[serde(default)]
    pub vip: Vec<VipSpec>,
    /// The services.
    #[serde(default)]
    pub service: Vec<ServiceSpec>,
}

fn default_max_paths() -> u16 {
    8
}

impl Declaration {
    /// Everything wrong with the declaration, each with a JSON pointer; empty when it holds.
    pub fn validate(&self) -> Vec<Fault> {
        validate::declaration(self)
    }
}

/// A director of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectorSpec {
    /// Its name.
    pub name: DirectorName,
    /// Its OSPF router id.
    pub router_id: RouterId,
}

/// A switch of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchSpec {
    /// Its name.
    pub name: String,
    /// Its OSPF router id.
    pub router_id: RouterId,
}

/// A virtual IP address and how it is announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VipSpec {
    /// The address.
    pub address: Vip,
    /// How it is announced.
    #[serde(default)]
    pub announce: Announce,
    /// How many of its services must be at their quorum for it to be announced.
    #[serde(default)]
    pub require: Require,
}

/// How a VIP is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announce {
    /// The kind of LSA that carries it.
    #[serde(default, rename = "as")]
    pub kind: AnnounceAs,
    /// The metric (1 to 65535).
    #[serde(default = "default_announce_cost")]
    pub cost: u16,
}

fn default_announce_cost() -> u16 {
    1
}

impl Default for Announce {
    fn default() -> Self {
        Self {
            kind: AnnounceAs::default(),
            cost: default_announce_cost(),
        }
    }
}

/// The kind of LSA that carries a VIP.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum AnnounceAs {
    /// A type 3 stub link in the Router-LSA (RFC 2328 §12.4.1).
    #[default]
    Stub,
    /// An AS-external-LSA with a type 1 metric.
    #[serde(rename = "external-1")]
    External1,
    /// An AS-external-LSA with a type 2 metric.
    #[serde(rename = "external-2")]
    External2,
    /// A type 7 LSA (RFC 3101) with a type 1 metric.
    Nssa,
}

impl AnnounceAs {
    /// The name that files and requests have for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stub => "stub",
            Self::External1 => "external-1",
            Self::External2 => "external-2",
            Self::Nssa => "nssa",
        }
    }

    /// Why such an LSA cannot be in an area of this type; nothing where it can.
    pub fn refused_in(self, area: AreaType) -> Option<&'static str> {
        match (self, area) {
            (Self::Stub, AreaType::Normal | AreaType::Stub | AreaType::Nssa)
            | (Self::External1 | Self::External2, AreaType::Normal)
            | (Self::Nssa, AreaType::Nssa) => None,
            (Self::External1 | Self::External2, AreaType::Stub) => {
                Some("a stub area has no type 5 LSAs (RFC 2328 §3.6)")
            }
            (Self::External1 | Self::External2, AreaType::Nssa) => {
                Some("an NSSA has type 7 LSAs in the place of type 5 (RFC 3101 §2.2)")
            }
            (Self::Nssa, AreaType::Normal | AreaType::Stub) => {
                Some("type 7 LSAs are for an NSSA (RFC 3101 §2.2)")
            }
        }
    }

    /// The kinds that an area of this type can have, for a message.
    pub fn allowed_in(area: AreaType) -> &'static str {
        match area {
            AreaType::Normal => "\"stub\", \"external-1\" or \"external-2\" in a normal area",
            AreaType::Stub => "\"stub\" in a stub area",
            AreaType::Nssa => "\"stub\" or \"nssa\" in an NSSA",
        }
    }
}

impl fmt::Display for AnnounceAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How many of a VIP's services must be healthy: `all`, `any` or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Require {
    /// Every service.
    #[default]
    All,
    /// At least one.
    Any,
    /// At least this many, never 0.
    Count(u16),
}

impl Require {
    /// The number of healthy services wanted out of `services`.
    pub fn wanted(self, services: usize) -> usize {
        match self {
            Self::All => services,
            Self::Any => services.min(1),
            Self::Count(count) => usize::from(count),
        }
    }
}

impl fmt::Display for Require {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Any => f.write_str("any"),
            Self::Count(count) => count.fmt(f),
        }
    }
}

impl Serialize for Require {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All | Self::Any => serializer.collect_str(self),
            Self::Count(count) => serializer.serialize_u16(*count),
        }
    }
}

impl<'de> Deserialize<'de> for Require {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Require;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"all\", \"any\" or a number from 1")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Require, E> {
                match text {
                    "all" => Ok(Require::All),
                    "any" => Ok(Require::Any),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
            fn visit_u64<E: serde::de::Error>(self, count: u64) -> Result<Require, E> {
                match u16::try_from(count) {
                    Ok(count) if count > 0 => Ok(Require::Count(count)),
                    _ => Err(E::invalid_value(
                        serde::de::Unexpected::Unsigned(count),
                        &self,
                    )),
                }
            }
            fn visit_i64<E: serde::de::Error>(self, count: i64) -> Result<Require, E> {
                match u64::try_from(count) {
                    Ok(count) => self.visit_u64(count),
                    Err(_) => Err(E::invalid_value(
                        serde::de::Unexpected::Signed(count),
                        &self,
                    )),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A service: one VIP, protocol and port, balanced over real servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// The VIP, which a `[[vip]]` must declare.
    pub vip: Vip,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port (1 to 65535).
    pub port: u16,
    /// The IPVS scheduler.
    #[serde(default)]
    pub scheduler: Scheduler,
    /// The scheduler's flags.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub flags: BTreeSet<SchedulerFlag>,
    /// The packet forwarding method.
    #[serde(default)]
    pub forwarding: Forwarding,
    /// Healthy real servers needed for the service to count as healthy (at least 1).
    #[serde(default = "default_quorum")]
    pub quorum: u16,
    /// How the real servers are checked.
    pub check: CheckSpec,
    /// The real servers, in any order: the order in the kernel is canonical.
    #[serde(default)]
    pub real_server: Vec<RealServerSpec>,
}

fn default_quorum() -> u16 {
    1
}

impl ServiceSpec {
    /// The service's identity.
    pub fn id(&self) -> ServiceId {
        ServiceId {
            protocol: self.protocol,
            vip: self.vip,
            port: self.port,
        }
    }

    /// The identity of one of its real servers: its port is the service's unless it says otherwise.
    pub fn real_server_id(&self, server: &RealServerSpec) -> RealServerId {
        let port = server.port.unwrap_or(self.port);
        RealServerId(std::net::SocketAddrV4::new(server.address, port))
    }
}

/// An IPVS scheduler (`net/netfilter/ipvs/ip_vs_*.c`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheduler {
    /// Round robin.
    Rr,
    /// Weighted least connection.
    Wlc,
    /// Maglev hashing: the one that several directors can share.
    #[default]
    Mh,
}

impl Scheduler {
    /// The kernel's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wlc => "wlc",
            Self::Mh => "mh",
        }
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A flag of a scheduler (`IP_VS_SVC_F_SCHED_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SchedulerFlag {
    /// Take the next real server when the hashed one is unavailable.
    MhFallback,
    /// Hash the client's port too.
    MhPort,
}

impl fmt::Display for SchedulerFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MhFallback => "mh-fallback",
            Self::MhPort => "mh-port",
        })
    }
}

/// The packet forwarding method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forwarding {
    /// Direct routing: the frame is sent on to the real server's MAC address.
    #[default]
    Dr,
    /// IP-in-IP tunnelling.
    Tun,
    /// Network address translation.
    Nat,
}

impl fmt::Display for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dr => "dr",
            Self::Tun => "tun",
            Self::Nat => "nat",
        })
    }
}

/// A real server of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealServerSpec {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its port; the service's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Its weight (0 to 65535; 0 takes no new connections).
    #[serde(default = "default_weight")]
    pub weight: u16,
}

fn default_weight() -> u16 {
    1
}

/// How a service's real servers are checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckSpec {
    /// What is tried.
    #[serde(rename = "type")]
    pub kind: CheckKind,
    /// The port to check; the real server's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The request's path (HTTP, HTTPS); `/` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The request's host and the TLS server name (HTTP, HTTPS); the VIP when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The statuses that count as success (HTTP, HTTPS); 200-399 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<StatusRange>,
    /// Whether an HTTPS check verifies the certificate against the system's roots.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verify: bool,
    /// The time from the start of one try to the start of the next.
    #[serde(default = "default_interval", with = "crate::duration")]
    pub interval: Duration,
    /// The time after which a try has failed; at most the interval.
    #[serde(default = "default_timeout", with = "crate::duration")]
    pub timeout: Duration,
    /// Successes in a row that make a real server healthy.
    #[serde(default = "default_rise")]
    pub rise: u16,
    /// Failures in a row that make it unhealthy.
    #[serde(default = "default_rise")]
    pub fall: u16,
}

fn default_interval() -> Duration {
    Duration::from_secs(1)
}

fn default_timeout() -> Duration {
    Duration::from_millis(500)
}

fn default_rise() -> u16 {
    2
}

/// What a check tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckKind {
    /// The TCP handshake.
    Tcp,
    /// A GET over HTTP/1.1.
    Http,
    /// A GET over HTTP/1.1 in TLS.
    Https,
}

impl fmt::Display for CheckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

/// An inclusive range of HTTP statuses, written `200-399` or `204`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatusRange {
    /// The lowest status.
    pub from: u16,
    /// The highest status.
    pub to: u16,
}

impl StatusRange {
    /// What counts as success when a check does not say.
    pub const DEFAULT: Self = Self { from: 200, to: 399 };

    /// Whether `status` lies in the range.
    pub fn contains(self, status: u16) -> bool {
        (self.from..=self.to).contains(&status)
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to {
            self.from.fmt(f)
        } else {
            write!(f, "{}-{}", self.from, self.to)
        }
    }
}

impl FromStr for StatusRange {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseIdError {
            expected: "a status range such as 200-399, within 100 to 599",
            found: text.to_owned(),
        };
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let from = from.parse().map_err(|_| error())?;
        let to = to.parse().map_err(|_| error())?;
        if (100..=to).contains(&from) && to <= 599 {
            Ok(Self { from, to })
        } else {
            Err(error())
        }
    }
}

serde_as_text!(StatusRange);
