//! What the routers of the area make of its database: how each of them reaches the hosts that
//! are announced, over how many equal-cost next hops (RFC 2328 §16.1, §16.4; RFC 3101 §2.5).
//!
//! Nothing is routed by it; it is for seeing. A router that announces a host and has crashed
//! stays in the database for up to an hour, but nobody links to it any more, so the calculation
//! does not reach it and it does not count.
//!
//! The calculation is a pure function of an [`Area`], a snapshot that shares its LSAs' bytes with
//! the database: it can be run in another thread than the one that has packets to send. Its work
//! and its result are bounded whatever the database holds. Left out: hosts that another area has
//! (types 3 and 4), for the directors of a cluster are in one area.

mod graph;
mod hosts;
mod tree;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Instant;

use crate::config::AreaType;
use crate::ids::RouterId;
use crate::neighbor::State;
use crate::packet::{LinkKind, LsType, Lsa, RouterLsa};
use crate::router::Router;
use graph::Graph;
use hosts::{Group, Hosts};
use tree::Tree;

/// The most links between routers and networks that are calculated with. A switch has as many
/// as it has ports; this is a thousand of them.
pub const MAX_LINKS: usize = 100_000;
/// The most stub networks and external routes that are calculated with: fifty directors that
/// announce as much as they can.
pub const MAX_ROUTES: usize = 250_000;
/// The most next hops of one route that are told apart, which is the largest cluster; a greater
/// width reads as this one. As many announcers of one route are listed.
pub const MAX_WIDTH: usize = 64;
/// The most groups of hosts that are reached alike. A cluster has a few.
pub const MAX_GROUPS: usize = 2_048;
/// The most routers from whose place the calculation is made.
pub const MAX_VIEWPOINTS: usize = 128;
/// The most pairs of a group and a router, which bounds the result to some megabytes.
const MAX_PAIRS: usize = 1 << 16;
/// The most pairs of an announcement and a router, which bounds the work.
const MAX_LOOKUPS: usize = 1 << 21;

/// The LSAs of an area at one moment.
#[derive(Debug, Clone)]
pub struct Area {
    us: RouterId,
    /// The routers that we are Full with.
    neighbors: BTreeSet<RouterId>,
    /// Those that the calculation reads, without those at MaxAge.
    lsas: Vec<Lsa>,
}

/// How the area's routers reach its hosts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AreaPaths {
    /// The routers from whose place the calculation was made: ourselves, our neighbours, and
    /// then all others that we reach, by router id. Empty until we have a Router-LSA.
    pub viewpoints: Vec<Viewpoint>,
    /// The hosts in groups that are announced alike: the known ones first.
    pub groups: Vec<HostPaths>,
    /// Routers left out for [`MAX_VIEWPOINTS`] and the bound on the result.
    pub omitted_routers: usize,
    /// Hosts left out for [`MAX_GROUPS`].
    pub omitted_hosts: usize,
}

/// A router from whose place the calculation was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Viewpoint {
    /// The router.
    pub router: RouterId,
    /// Whether others' packets pass through it: it is a neighbour of ours, or one of its links
    /// costs less than 0xffff. Of a cluster's routers, the switches and not the directors.
    pub forwards: bool,
}

/// Hosts that are announced alike, and how they are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPaths {
    /// The hosts, ascending.
    pub hosts: Vec<Ipv4Addr>,
    /// The routers that announce them and that we reach, at whatever cost, ascending; ourselves
    /// included.
    pub announcers: Vec<RouterId>,
    /// The routers that reach them, in the order of [`AreaPaths::viewpoints`].
    pub seen: Vec<Seen>,
}

/// How one router reaches a group of hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The router.
    pub router: RouterId,
    /// What it prefers the route for.
    pub cost: Cost,
    /// The ECMP width: how many different next hops share the lowest cost, [`MAX_WIDTH`] at most;
    /// 0 where the router announces the hosts itself.
    pub width: usize,
    /// The announcers that share the lowest cost, ascending, [`MAX_WIDTH`] at most.
    pub through: Vec<RouterId>,
}

/// The cost of a route. A lesser one is preferred (RFC 2328 §16.4 (6)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cost {
    /// A stub link within the area.
    IntraArea(u32),
    /// An external route of type 1, the cost to where it leaves OSPF included.
    External1(u32),
    /// An external route of type 2.
    External2 {
        /// Its metric.
        metric: u32,
        /// The cost to where it leaves OSPF, which decides between equal metrics.
        distance: u32,
    },
}

/// A database with more in it than is calculated with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// More links between routers and networks than [`MAX_LINKS`].
    #[error("the database has more than {MAX_LINKS} links between routers")]
    Links,
    /// More stub networks and external routes than [`MAX_ROUTES`].
    #[error("the database has more than {MAX_ROUTES} stub networks and external routes")]
    Routes,
}

impl Router {
    /// The area as it is now, to calculate with.
    pub fn area(&self, now: Instant) -> Area {
        let neighbors = self.neighbors();
        let full = neighbors.filter(|neighbor| neighbor.state == State::Full);
        let wanted = |ls_type| match ls_type {
            LsType::Router | LsType::Network => true,
            LsType::AsExternal => self.config.area_type == AreaType::Normal,
            LsType::Nssa => self.config.area_type == AreaType::Nssa,
            LsType::SummaryNetwork
            | LsType::SummaryAsbr
            | LsType::OpaqueLink
            | LsType::OpaqueArea
            | LsType::OpaqueAs
            | LsType::Unknown(_) => false,
        };
        Area {
            us: self.config.router_id,
            neighbors: full.map(|neighbor| neighbor.router_id).collect(),
            lsas: self
                .lsdb
                .iter()
                .filter(|(key, entry)| wanted(key.lsa.ls_type) && !entry.is_max_age(now))
                .map(|(_, entry)| entry.lsa().clone())
                .collect(),
        }
    }

    /// A number that is another one whenever [`Router::area`] may give another result of the
    /// calculation.
    pub fn area_version(&self) -> u64 {
        self.lsdb.version()
    }
}

impl Area {
    /// Calculates how every router that we reach reaches the hosts: those of `known`, whether
    /// anybody announces them or not, and all others that are announced and are no router's
    /// interface address.
    ///
    /// # Errors
    /// When the database is larger than what is calculated with.
    pub fn paths(&self, known: &BTreeSet<Ipv4Addr>) -> Result<AreaPaths, TooLarge> {
        let graph = Graph::build(&self.lsas)?;
        let hosts = Hosts::collect(&self.lsas, &graph, known)?;
        let (groups, omitted_hosts) = hosts.grouped();
        let Some(us) = graph.router(self.us) else {
            let groups = groups.into_iter().map(HostPaths::unreached).collect();
            return Ok(AreaPaths {
                groups,
                omitted_hosts,
                ..AreaPaths::default()
            });
        };
        let ours = Tree::grow(&graph, us);
        let (viewpoints, omitted_routers) =
            self.viewpoints(&graph, &ours, most_viewpoints(&groups));
        let mut paths: Vec<HostPaths> = groups
            .iter()
            .map(|group| HostPaths {
                hosts: group.hosts.clone(),
                announcers: hosts.reachable(group, &graph, &ours),
                seen: Vec::new(),
            })
            .collect();
        for (viewpoint, vertex) in &viewpoints {
            let tree = Tree::grow(&graph, *vertex);
            for (group, paths) in groups.iter().zip(&mut paths) {
                paths.seen.extend(
                    hosts
                        .best(group, &graph, &tree)
                        .map(|route| route.seen_by(viewpoint.router)),
                );
            }
        }
        let groups = groups.iter().zip(paths);
        Ok(AreaPaths {
            viewpoints: viewpoints.into_iter().map(|(known, _)| known).collect(),
            groups: groups
                .filter(|(group, paths)| group.is_known || !paths.announcers.is_empty())
                .map(|(_, paths)| paths)
                .collect(),
            omitted_routers,
            omitted_hosts,
        })
    }

    /// Who says that it announces the hosts of `known`, reachable or not: what is left to know
    /// of a database that is [`TooLarge`].
    pub fn claims(&self, known: &BTreeSet<Ipv4Addr>) -> Vec<(Ipv4Addr, RouterId)> {
        let mut claims = Vec::new();
        for lsa in &self.lsas {
            let by = lsa.key().advertising_router;
            match lsa.key().ls_type {
                LsType::Router => {
                    let links = RouterLsa::decode(lsa.body()).map(|lsa| lsa.links);
                    let stubs = links
                        .iter()
                        .flatten()
                        .filter(|link| link.kind == LinkKind::Stub && link.data.is_broadcast());
                    let wanted = stubs.filter(|link| known.contains(&link.id));
                    claims.extend(wanted.map(|link| (link.id, by)));
                }
                LsType::AsExternal | LsType::Nssa => {
                    let host = lsa.key().link_state_id;
                    if known.contains(&host) {
                        claims.push((host, by));
                    }
                }
                LsType::Network
                | LsType::SummaryNetwork
                | LsType::SummaryAsbr
                | LsType::OpaqueLink
                | LsType::OpaqueArea
                | LsType::OpaqueAs
                | LsType::Unknown(_) => {}
            }
        }
        claims.sort_unstable();
        claims.dedup();
        claims
    }

    /// The routers from whose place to look, with their vertices, and how many are left out.
    fn viewpoints(
        &self,
        graph: &Graph,
        ours: &Tree,
        most: usize,
    ) -> (Vec<(Viewpoint, usize)>, usize) {
        let rank = |router: RouterId| {
            if router == self.us {
                0
            } else if self.neighbors.contains(&router) {
                1
            } else {
                2
            }
        };
        let mut all: Vec<(Viewpoint, usize)> = graph
            .routers()
            .filter(|(_, vertex)| ours.reached(*vertex).is_some())
            .map(|(router, vertex)| {
                let forwards = router != self.us
                    && (self.neighbors.contains(&router) || graph.offers_transit(vertex));
                (Viewpoint { router, forwards }, vertex)
            })
            .collect();
        all.sort_by_key(|(viewpoint, _)| (rank(viewpoint.router), viewpoint.router));
        let omitted = all.len().saturating_sub(most);
        all.truncate(most);
        (all, omitted)
    }
}

/// From how many routers' places so many groups can be looked at: one at least.
fn most_viewpoints(groups: &[Group]) -> usize {
    let announcements: usize = groups.iter().map(Group::announcements).sum();
    MAX_VIEWPOINTS
        .min(MAX_PAIRS / groups.len().max(1))
        .min(MAX_LOOKUPS / announcements.max(1))
        .max(1)
}

impl HostPaths {
    /// Hosts that we know nothing of, because we are not in the database ourselves.
    fn unreached(group: Group) -> Self {
        Self {
            hosts: group.hosts,
            announcers: Vec::new(),
            seen: Vec::new(),
        }
    }
}
