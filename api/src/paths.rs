//! What the routers of the area make of the database: who reaches which host, over how many
//! equal-cost next hops (the "ECMP width"). Part of the speaker's protocol.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::ids::{RouterId, Vip};

/// The paths of every router that the speaker reaches, to every host that is announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// Whether the database has said nothing else since. If it has, the next calculation is
    /// under way or about to begin.
    pub current: bool,
    /// Why there is nothing: the database is larger than what is calculated with.
    #[serde(default)]
    pub problem: Option<String>,
    /// The routers from whose place the calculation was made: the speaker, its neighbours, the
    /// others by router id. Empty while the speaker has no adjacency.
    pub routers: Vec<Viewpoint>,
    /// The hosts that are announced alike, the speaker's own VIPs first.
    pub groups: Vec<HostPaths>,
    /// Routers left out because there are too many.
    pub omitted_routers: usize,
    /// Hosts left out because there are too many.
    pub omitted_hosts: usize,
}

/// A router from whose place the calculation was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Viewpoint {
    /// The router.
    pub router_id: RouterId,
    /// Whether packets of others pass through it. A switch's do, a director's never.
    pub forwards: bool,
}

/// Hosts that are announced alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPaths {
    /// The hosts, ascending. Not all of them are VIPs: switches announce their loopbacks too.
    pub hosts: Vec<Ipv4Addr>,
    /// The routers that announce them and that are reachable, at whatever cost.
    pub announcers: Vec<RouterId>,
    /// The routers that have a path to them.
    pub seen: Vec<Seen>,
}

/// How one router reaches a group of hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The router.
    pub router_id: RouterId,
    /// The lowest cost.
    pub cost: PathCost,
    /// How many different next hops share it; 0 where the router announces the hosts itself.
    pub width: u32,
    /// The announcers that share it.
    pub through: Vec<RouterId>,
}

/// The cost of a path, by the kind of route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum PathCost {
    /// A stub link within the area.
    IntraArea {
        /// The cost of the whole path.
        cost: u32,
    },
    /// An external route of type 1.
    #[serde(rename = "external-1")]
    External1 {
        /// The cost of the whole path.
        cost: u32,
    },
    /// An external route of type 2.
    #[serde(rename = "external-2")]
    External2 {
        /// Its metric.
        metric: u32,
        /// The cost to where it leaves OSPF, which decides between equal metrics.
        distance: u32,
    },
}

impl fmt::Display for PathCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IntraArea { cost } => write!(f, "{cost}"),
            Self::External1 { cost } => write!(f, "E1 {cost}"),
            Self::External2 { metric, distance } => write!(f, "E2 {metric}, {distance} away"),
        }
    }
}

/// How a switch spreads the traffic of VIPs that it reaches alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Width {
    /// The switch.
    pub router_id: RouterId,
    /// The VIPs, ascending.
    pub vips: Vec<Vip>,
    /// How many equal-cost next hops it has to each; 0 without a path.
    pub width: u32,
    /// The routers that announce them at the lowest cost.
    pub through: Vec<RouterId>,
    /// That cost; nothing without a path.
    pub cost: Option<PathCost>,
}

/// How late packets of one kind left, since the speaker's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lateness {
    /// How many left at most 1, 5, 10, 50 and 100 ms late, and how many later: each packet is in
    /// one of them.
    pub packets: [u64; Lateness::BOUNDS_US.len() + 1],
    /// The sum of how late they left, in microseconds.
    pub sum_us: u64,
    /// The worst, in microseconds.
    pub max_us: u64,
}

impl Lateness {
    /// The bounds of the counts, in microseconds.
    pub const BOUNDS_US: [u64; 5] = [1_000, 5_000, 10_000, 50_000, 100_000];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_tagged_with_the_names_that_operators_use() {
        let json = |cost: PathCost| serde_json::to_string(&cost).unwrap();
        assert_eq!(
            json(PathCost::IntraArea { cost: 11 }),
            r#"{"kind":"intra-area","cost":11}"#
        );
        let external = PathCost::External2 {
            metric: 20,
            distance: 10,
        };
        assert_eq!(
            json(external),
            r#"{"kind":"external-2","metric":20,"distance":10}"#
        );
        assert_eq!(external.to_string(), "E2 20, 10 away");
        assert_eq!(
            serde_json::from_str::<PathCost>(&json(external)).unwrap(),
            external
        );
    }
}
