//! The protocol of the speaker's Unix socket: one JSON object a line.
//!
//! A client sends [`Request`]s; the speaker answers each with one [`Reply`], in order. After
//! [`Request::Subscribe`] it also sends [`Reply::Changed`] whenever its status changed. One
//! connection at a time may own the announced set: the first that sent
//! [`Request::Announce`], until it closes. The owner says something (any request) at least
//! every second; when it is silent or gone for `agent_hold`, its set is withdrawn.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::declare::AnnounceAs;
use crate::ids::{AreaId, BfdState, NeighborState, RouterId, Vip};
use crate::interface::Interface;
use crate::paths::{Lateness, Paths, Width};
use crate::reason::Reason;

/// The longest line either side accepts, in bytes.
pub const MAX_LINE: usize = 4 << 20;

/// What a client asks of the speaker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Take over the announced set: exactly these VIPs, from now on.
    Announce {
        /// Every VIP to announce. All others of the owner's are withdrawn.
        set: Vec<Announcement>,
        /// Why each VIP that is known but not in the set is not announced, for show.
        #[serde(default)]
        withheld: Vec<Withheld>,
        /// How long the set is kept without a word from the owner, in milliseconds.
        hold_ms: u64,
    },
    /// The owner is alive and its set stands.
    Heartbeat,
    /// An operator's override of one VIP; it goes before the owner's set and stays until undone.
    Override {
        /// The VIP.
        vip: Vip,
        /// What to do with it.
        action: OverrideAction,
        /// The operator's words.
        #[serde(default)]
        text: String,
    },
    /// Everything the speaker knows about itself.
    Status,
    /// The neighbours.
    Neighbors,
    /// The link-state database.
    Lsdb,
    /// How the area's routers reach the hosts that are announced.
    Paths {
        /// Only this host; all without it.
        #[serde(default)]
        host: Option<Ipv4Addr>,
    },
    /// Status now and whenever it changed.
    Subscribe,
    /// Give everything to a new process and leave; nothing that the neighbours see changes. It
    /// is answered when it is over, out of order with what the same client asks meanwhile.
    Upgrade {
        /// The program to start, which only root may name; else the one that runs, as it is on
        /// the disk now.
        #[serde(default)]
        binary: Option<PathBuf>,
    },
}

/// A VIP to announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    /// The VIP.
    pub vip: Vip,
    /// The metric (1 to 65535).
    pub cost: u16,
    /// The kind of LSA that carries it.
    #[serde(default, rename = "as")]
    pub kind: AnnounceAs,
}

/// A VIP that is not announced, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Withheld {
    /// The VIP.
    pub vip: Vip,
    /// Why it is not announced.
    pub reason: Reason,
}

/// What an override does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum OverrideAction {
    /// Announce at this cost whatever the owner says, by the kind of LSA that the owner or the
    /// file has for it (a stub where neither knows it). It ends a hold-down.
    Announce {
        /// The metric (1 to 65535).
        cost: u16,
    },
    /// Do not announce whatever the owner says.
    Withdraw,
    /// Undo the override.
    Clear,
}

/// What the speaker answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// Done.
    Ok,
    /// Not done.
    Error {
        /// What was refused and why.
        message: String,
    },
    /// The answer to [`Request::Status`] and [`Request::Subscribe`].
    Status(Box<Status>),
    /// The status after a change, to subscribers.
    Changed(Box<Status>),
    /// The answer to [`Request::Neighbors`].
    Neighbors {
        /// In the order of interface, then router id.
        neighbors: Vec<Neighbor>,
        /// The interfaces that they are on, or would be, in the file's order.
        #[serde(default)]
        interfaces: Vec<Interface>,
    },
    /// The answer to [`Request::Lsdb`].
    Lsdb {
        /// In the order of type, link state id, advertising router.
        lsas: Vec<Lsa>,
    },
    /// The answer to [`Request::Paths`]: what was calculated last. A request while that is not
    /// current makes the next calculation begin; ask again for its result.
    Paths(Box<Paths>),
    /// The answer to [`Request::Upgrade`]: another process has taken over.
    Upgraded(Upgraded),
}

/// A planned restart that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Upgraded {
    /// The process that has left.
    pub from_pid: u32,
    /// The process that has taken over.
    pub to_pid: u32,
    /// The version of the one that has left.
    pub from_version: String,
    /// The version of the one that has taken over.
    pub version: String,
    /// How long nobody spoke, in microseconds.
    pub freeze_us: u64,
}

/// Everything the speaker knows about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    /// The speaker's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// The process id that it was started with: an upgrade makes it another process and not
    /// another speaker. 0 from a speaker that cannot be upgraded.
    #[serde(default)]
    pub origin_pid: u32,
    /// Its router id.
    pub router_id: RouterId,
    /// Its area.
    pub area: AreaId,
    /// The time since it started, which an upgrade is not, in milliseconds.
    pub up_ms: u64,
    /// Its neighbours.
    pub neighbors: Vec<Neighbor>,
    /// The VIPs it announces.
    pub announced: Vec<Announced>,
    /// The VIPs it knows of and does not announce.
    pub withheld: Vec<Withheld>,
    /// The state of the owner of the announced set.
    pub owner: Owner,
    /// Which routers announce each VIP of ours, by our LSDB, ourselves included. Others are as of
    /// the last calculation of the area's paths and only those that it reaches (for a subscriber
    /// it is a second old at most; a request has the next one begin): what a crashed router said does not count any more once nobody links to it.
    pub announcers: BTreeMap<Vip, Vec<RouterId>>,
    /// How the switches spread the traffic of each VIP of ours: for the first 16 of them, our
    /// neighbours before others.
    #[serde(default)]
    pub widths: Vec<Width>,
    /// How late timed packets left, by kind: `hello`, `bfd`.
    #[serde(default)]
    pub lateness: BTreeMap<String, Lateness>,
    /// Its interfaces, in the file's order.
    #[serde(default)]
    pub interfaces: Vec<Interface>,
    /// Counters since the start: what, then how often. Dropped packets are `drop_<reason>`.
    pub counters: BTreeMap<String, u64>,
}

/// Where the announced set comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Owner {
    /// Nobody has taken the set over: VIPs of the file, if any.
    None,
    /// An agent is connected and speaks.
    Connected {
        /// Its process id.
        pid: u32,
        /// The time since it last spoke, in milliseconds.
        silent_ms: u64,
    },
    /// The agent is gone and its set is kept.
    Held {
        /// The time until the set is withdrawn, in milliseconds.
        left_ms: u64,
    },
    /// The agent was gone for too long and its set is withdrawn.
    Expired,
}

/// A VIP that the speaker announces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Announced {
    /// The VIP.
    pub vip: Vip,
    /// The metric.
    pub cost: u16,
    /// The kind of LSA that carries it.
    #[serde(default, rename = "as")]
    pub kind: AnnounceAs,
    /// Who wanted it.
    pub source: Source,
    /// Whether an LSA of ours in the database carries it.
    pub in_lsdb: bool,
    /// Whether every Full neighbour has acknowledged that LSA (false without one).
    pub acknowledged: bool,
}

/// Who wanted a VIP announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The speaker's file.
    File,
    /// The agent.
    Agent,
    /// An operator.
    Override,
}

/// An OSPF neighbour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Neighbor {
    /// Our interface.
    pub interface: String,
    /// Its router id.
    pub router_id: RouterId,
    /// Its address.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = "ipv4"))]
    pub address: Ipv4Addr,
    /// Its state.
    pub state: NeighborState,
    /// Its router priority.
    pub priority: u8,
    /// The time in this state, in milliseconds.
    pub state_ms: u64,
    /// The time until it is declared dead, in milliseconds.
    pub dead_ms: u64,
    /// Its BFD session's state; nothing where there is none, because BFD is not configured or
    /// the neighbour is not one whose loss matters.
    pub bfd: Option<BfdState>,
    /// The id of the key that its last packet was authenticated with; nothing without
    /// cryptographic authentication.
    #[serde(default)]
    pub auth_key: Option<u8>,
}

/// One LSA of the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lsa {
    /// LS type (RFC 2328 §A.4.1).
    pub ls_type: u8,
    /// Link State ID.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = "ipv4"))]
    pub link_state_id: Ipv4Addr,
    /// Advertising Router.
    pub advertising_router: RouterId,
    /// LS age in seconds.
    pub age: u16,
    /// LS sequence number.
    pub sequence: i32,
    /// LS checksum.
    pub checksum: u16,
    /// Length in bytes, header included.
    pub length: u16,
    /// A Router-LSA's links; nothing for another type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// A Network-LSA's routers; nothing for another type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routers: Vec<RouterId>,
    /// The route of an LSA of type 5 or 7; nothing for another type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalRoute>,
}

/// A route to somewhere outside of OSPF (RFC 2328 §A.4.5, RFC 3101).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExternalRoute {
    /// The mask of the route; its address is the Link State ID.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = "ipv4"))]
    pub mask: Ipv4Addr,
    /// The type of the metric: 1 or 2.
    pub metric_type: u8,
    /// The metric; 16777215 is unreachable.
    pub metric: u32,
    /// Where to send the packets; 0.0.0.0: to the advertising router.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = "ipv4"))]
    pub forwarding_address: Ipv4Addr,
    /// External Route Tag.
    pub tag: u32,
}

/// A link of a Router-LSA (RFC 2328 §A.4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Link {
    /// 1 point-to-point, 2 transit, 3 stub, 4 virtual.
    pub link_type: u8,
    /// Link ID.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = "ipv4"))]
    pub id: Ipv4Addr,
    /// Link Data.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = "ipv4"))]
    pub data: Ipv4Addr,
    /// Metric.
    pub metric: u16,
}
