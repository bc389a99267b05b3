//! What an operator declares: VIPs, services, real servers and their checks.
//!
//! The same `[[vip]]` and `[[service]]` tables stand in a director's own file
//! ([`crate::config`]) and in a cluster's declaration ([`Declaration`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::config::AreaType;
use crate::fault::Fault;
use crate::ids::{
    ClusterName, DirectorName, Packets, Protocol, RealServerId, RouterId, ServiceId, Vip,
};

mod check;
mod lvs;
mod validate;
mod warn;

pub use check::{CheckKind, CheckSpec, StatusRange};
pub use lvs::{
    DrainLimit, Forwarding, Lvs, LvsSpec, Netmask, Persistence, Profile, Scheduler, SchedulerFlag,
    Timeouts, Tunnel, TunnelChecksum, TunnelKind,
};
pub use validate::{validate_kinds, validate_lvs, validate_services, validate_vips};
pub(crate) use warn::{Announcers, all as warnings};
pub use warn::{Warning, WarningCode};

/// The widest cluster that any switch is known to balance over.
pub const MAX_PATHS_LIMIT: u16 = 64;

/// The most switches of a cluster.
pub const MOST_SWITCHES: usize = 64;
/// The most VIPs of a cluster.
pub const MOST_VIPS: usize = 1024;
/// The most services of a cluster.
pub const MOST_SERVICES: usize = 4096;
/// The most real servers of a service.
pub const MOST_REAL_SERVERS: usize = 1024;
/// The longest name of a switch, in characters.
pub const LONGEST_SWITCH: usize = 63;
/// The longest path of a check, in bytes.
pub const LONGEST_PATH: usize = 1024;
/// The longest host of a check, in bytes (RFC 1035 §2.3.4).
pub const LONGEST_HOST: usize = 253;

/// A whole cluster, as `PUT /api/v1/clusters/{c}` takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Declaration {
    /// The cluster it declares; must be the one it is put to when present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
    /// How many equal-cost paths the switches carry (1 to 64).
    #[serde(default = "default_max_paths")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 64))]
    pub max_paths: u16,
    /// How many directors must announce each VIP for one of them to be drained (1 to 64); 1 when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 64))]
    pub min_directors: Option<u16>,
    /// The directors, at most `max_paths`.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 64))]
    pub director: Vec<DirectorSpec>,
    /// The settings that all its services share.
    #[serde(default)]
    pub lvs: LvsSpec,
    /// The switches; only to give the routers seen in the LSDB a name.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 64))]
    pub switch: Vec<SwitchSpec>,
    /// The VIPs.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 1024))]
    pub vip: Vec<VipSpec>,
    /// The services.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 4096))]
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

    /// Everything that works but is unwise.
    pub fn warnings(&self) -> Vec<Warning> {
        warn::declaration(self)
    }

    /// The settings that all its services share, with what is not declared filled in.
    pub fn lvs(&self) -> Lvs {
        self.lvs.resolve(self.director.len())
    }
}

/// A director of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DirectorSpec {
    /// Its name.
    pub name: DirectorName,
    /// Its OSPF router id.
    pub router_id: RouterId,
}

/// A switch of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SwitchSpec {
    /// Its name.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 63))]
    pub name: String,
    /// Its OSPF router id.
    pub router_id: RouterId,
}

/// A virtual IP address and how it is announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct VipSpec {
    /// The address.
    pub address: Vip,
    /// How it is announced.
    #[serde(default)]
    pub announce: Announce,
    /// The metric at single directors in place of the announcement's: a backup has a higher one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub director_cost: BTreeMap<DirectorName, u16>,
    /// How many of its services must be at their quorum for it to be announced.
    #[serde(default)]
    pub require: Require,
}

impl VipSpec {
    /// The metric that `director` announces it with.
    pub fn cost_at(&self, director: &DirectorName) -> u16 {
        let own = self.director_cost.get(director);
        own.copied().unwrap_or(self.announce.cost)
    }

    /// The same VIP as `director` alone has it.
    #[must_use]
    pub fn at(&self, director: &DirectorName) -> Self {
        Self {
            announce: Announce {
                cost: self.cost_at(director),
                ..self.announce
            },
            director_cost: BTreeMap::new(),
            ..self.clone()
        }
    }
}

/// How a VIP is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Announce {
    /// The kind of LSA that carries it.
    #[serde(default, rename = "as")]
    pub kind: AnnounceAs,
    /// The metric (1 to 65535).
    #[serde(default = "default_announce_cost")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65535))]
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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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

/// A service: packets to one VIP, balanced over real servers. They are those to one port, or
/// those that the director's firewall has marked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// The VIP, which a `[[vip]]` must declare.
    pub vip: Vip,
    /// The transport protocol; with a port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The port (1 to 65535).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65535))]
    pub port: Option<u16>,
    /// The firewall mark (from 1), in the place of protocol and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub fwmark: Option<u32>,
    /// The IPVS scheduler.
    #[serde(default)]
    pub scheduler: Scheduler,
    /// Its flags; when absent, those of [`ServiceSpec::flags`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<BTreeSet<SchedulerFlag>>,
    /// Whether and how long a client stays with its real server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,
    /// The packet forwarding method.
    #[serde(default)]
    pub forwarding: Forwarding,
    /// The tunnel of forwarding method `tun`; IP in IP when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// Healthy real servers needed for the service to count as healthy (at least 1).
    #[serde(default = "default_quorum")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub quorum: u16,
    /// How the real servers are checked.
    pub check: CheckSpec,
    /// The real servers, in any order: the order in the kernel is canonical.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 1024))]
    pub real_server: Vec<RealServerSpec>,
}

fn default_quorum() -> u16 {
    1
}

impl ServiceSpec {
    /// A service at a port of `vip` with no real servers and everything else as it is when it is
    /// not declared.
    pub fn to(protocol: Protocol, vip: Vip, port: u16, check: CheckSpec) -> Self {
        Self {
            vip,
            protocol: Some(protocol),
            port: Some(port),
            fwmark: None,
            scheduler: Scheduler::default(),
            flags: None,
            persistence: None,
            forwarding: Forwarding::default(),
            tunnel: None,
            quorum: default_quorum(),
            check,
            real_server: Vec::new(),
        }
    }

    /// The service's identity. What is not valid, having neither a port nor a mark, still has
    /// one, so that whoever refuses it can name it.
    pub fn id(&self) -> ServiceId {
        let vip = self.vip;
        match self.fwmark {
            Some(mark) => ServiceId {
                vip,
                packets: Packets::Marked(mark),
            },
            None => {
                let protocol = self.protocol.unwrap_or(Protocol::Tcp);
                ServiceId::to(protocol, vip, self.port.unwrap_or(0))
            }
        }
    }

    /// Its flags. Where none are declared, `mh` has those that let every director pick the same
    /// real server also when one is down: with the client's port, except that a persistent
    /// client keeps its real server over all of its ports.
    pub fn flags(&self) -> BTreeSet<SchedulerFlag> {
        match (&self.flags, self.scheduler, self.persistence) {
            (Some(flags), _, _) => flags.clone(),
            (None, Scheduler::Mh, None) => {
                [SchedulerFlag::MhFallback, SchedulerFlag::MhPort].into()
            }
            (None, Scheduler::Mh, Some(_)) => [SchedulerFlag::MhFallback].into(),
            (None, _, _) => BTreeSet::new(),
        }
    }

    /// The tunnel that its packets go through; nothing without one.
    pub fn tunnel(&self) -> Option<Tunnel> {
        match self.forwarding {
            Forwarding::Tun => Some(self.tunnel.unwrap_or_default()),
            Forwarding::Dr | Forwarding::Nat => None,
        }
    }

    /// The identity of one of its real servers: its port is the service's unless it says
    /// otherwise, and 0, which keeps each packet's own, where the service is a mark's.
    pub fn real_server_id(&self, server: &RealServerSpec) -> RealServerId {
        let port = server.port.or(self.id().port()).unwrap_or(0);
        RealServerId(std::net::SocketAddrV4::new(server.address, port))
    }
}

/// A real server of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RealServerSpec {
    /// Its address.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = "ipv4"))]
    pub address: Ipv4Addr,
    /// Its port; the service's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65535))]
    pub port: Option<u16>,
    /// Its weight (0 to 65535; 0 takes no new connections).
    #[serde(default = "default_weight")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 65535))]
    pub weight: u16,
    /// The connections at which it takes no new ones on a director; 0 for no limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub upper_threshold: u32,
    /// The connections below which it takes new ones again; three quarters of the upper
    /// threshold when 0 (`ip_vs_dest_update_overload` in the kernel).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lower_threshold: u32,
}

impl RealServerSpec {
    /// A real server at `address` with everything else as it is when it is not declared.
    pub fn new(address: Ipv4Addr) -> Self {
        Self {
            address,
            port: None,
            weight: default_weight(),
            upper_threshold: 0,
            lower_threshold: 0,
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the form that serde calls"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn default_weight() -> u16 {
    1
}
