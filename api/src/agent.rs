//! The protocol of the agent's Unix socket: one JSON object a line, one answer each.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::ids::Vip;
use crate::interface::Interface;
use crate::observed::Observed;
use crate::paths::Paths;
use crate::speaker::{Lsa, Neighbor, OverrideAction};

/// What a client asks of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Everything the agent observes.
    Status,
    /// The speaker's neighbours.
    Neighbors,
    /// The speaker's link-state database.
    Lsdb,
    /// How the area's routers reach the hosts that are announced, as the speaker sees it.
    Paths {
        /// Only this host; all without it.
        #[serde(default)]
        host: Option<Ipv4Addr>,
    },
    /// An operator's override of one VIP; it outlives the agent's restart and stays until undone.
    Override {
        /// The VIP.
        vip: Vip,
        /// What to do with it.
        action: OverrideAction,
        /// The operator's words.
        #[serde(default)]
        text: String,
    },
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// Done.
    Ok,
    /// Not done.
    Error {
        /// What was refused and why.
        message: String,
    },
    /// The answer to [`Request::Status`].
    Status(Box<Observed>),
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
    /// The answer to [`Request::Paths`], as [`crate::speaker::Reply::Paths`].
    Paths(Box<Paths>),
}
