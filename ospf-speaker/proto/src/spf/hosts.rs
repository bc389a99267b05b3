//! Who announces which host, and what a router makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::rc::Rc;

use super::graph::{Graph, of_type};
use super::tree::{NextHop, NextHops, Tree, on_network, union};
use super::{Cost, MAX_GROUPS, MAX_ROUTES, MAX_WIDTH, Seen, TooLarge};
use crate::ids::RouterId;
use crate::packet::{
    ExternalKind, ExternalLsa, ExternalMetric, LinkKind, LsType, Lsa, RouterLink, RouterLsa,
};

/// The announcements of the hosts, and the subnets of the area.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    /// Sorted, each once.
    announced: Vec<(Ipv4Addr, Announcement)>,
    known: BTreeSet<Ipv4Addr>,
    /// Who is attached to each subnet, at what cost; a network is attached to itself. In it the
    /// forwarding addresses of external routes are looked up.
    subnets: BTreeMap<Subnet, Vec<(usize, u16)>>,
}

/// A prefix: the length first, then the address.
type Subnet = (u32, Ipv4Addr);

/// One announcement of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Announcement {
    by: RouterId,
    vertex: usize,
    route: Route,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Route {
    /// A stub link in the Router-LSA.
    Stub(u16),
    /// A type 5 or type 7 LSA.
    External {
        kind: ExternalKind,
        metric: ExternalMetric,
        /// Where to send packets, if not to the announcer.
        forwarding: Option<Ipv4Addr>,
    },
}

/// Hosts that are announced alike.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) hosts: Vec<Ipv4Addr>,
    pub(super) is_known: bool,
    announcements: Vec<Announcement>,
}

impl Group {
    /// How many announcements each of the hosts has.
    pub(super) fn announcements(&self) -> usize {
        self.announcements.len()
    }
}

/// The best route of one router to a group of hosts.
#[derive(Debug)]
pub(super) struct Best {
    cost: Cost,
    next_hops: NextHops,
    through: Vec<RouterId>,
}

impl Hosts {
    /// What the LSAs announce: every /32 that is no router's interface address, and those of
    /// `known` in any case.
    pub(super) fn collect(
        lsas: &[Lsa],
        graph: &Graph,
        known: &BTreeSet<Ipv4Addr>,
    ) -> Result<Self, TooLarge> {
        let mut hosts = Self {
            announced: Vec::new(),
            known: known.clone(),
            subnets: BTreeMap::new(),
        };
        let interfaces: BTreeSet<Ipv4Addr> = graph.addresses().collect();
        let mut left = MAX_ROUTES;
        let mut count = || {
            left = left.checked_sub(1).ok_or(TooLarge::Routes)?;
            Ok(())
        };
        for lsa in of_type(lsas, LsType::Router) {
            let by = lsa.key().advertising_router;
            let links = RouterLsa::decode(lsa.body()).map_or_else(|_| Vec::new(), |lsa| lsa.links);
            let Some(vertex) = graph.router(by) else {
                continue;
            };
            for link in links.iter().filter(|link| link.kind == LinkKind::Stub) {
                count()?;
                hosts.add_stub(by, vertex, link, &interfaces);
            }
        }
        for lsa in lsas {
            if matches!(lsa.key().ls_type, LsType::AsExternal | LsType::Nssa) {
                count()?;
                hosts.add_external(lsa, graph, &interfaces);
            }
        }
        hosts.announced.sort_unstable();
        hosts.announced.dedup();
        for (address, mask, vertex) in graph.networks() {
            if let Some(subnet) = subnet(address, mask) {
                hosts.subnets.entry(subnet).or_default().push((vertex, 0));
            }
        }
        Ok(hosts)
    }

    fn add_stub(
        &mut self,
        by: RouterId,
        vertex: usize,
        link: &RouterLink,
        interfaces: &BTreeSet<Ipv4Addr>,
    ) {
        if let Some(subnet) = subnet(link.id, link.data) {
            let attached = self.subnets.entry(subnet).or_default();
            attached.push((vertex, link.metric));
        }
        if link.data.is_broadcast() {
            let route = Route::Stub(link.metric);
            self.announce(link.id, Announcement { by, vertex, route }, interfaces);
        }
    }

    /// RFC 2328 §16.4 (1): LSInfinity is as good as no LSA. (3): only an AS boundary router's
    /// counts.
    fn add_external(&mut self, lsa: &Lsa, graph: &Graph, interfaces: &BTreeSet<Ipv4Addr>) {
        let by = lsa.key().advertising_router;
        let asbr = graph.router(by).filter(|vertex| graph.is_asbr(*vertex));
        let (Some(vertex), Ok(body)) = (asbr, ExternalLsa::decode(lsa.body())) else {
            return;
        };
        if !body.mask.is_broadcast() || body.metric == ExternalMetric::INFINITY {
            return;
        }
        let forwarding = Some(body.forwarding_address);
        let route = Route::External {
            kind: body.kind,
            metric: body.metric,
            forwarding: forwarding.filter(|address| !address.is_unspecified()),
        };
        let host = lsa.key().link_state_id;
        self.announce(host, Announcement { by, vertex, route }, interfaces);
    }

    fn announce(
        &mut self,
        host: Ipv4Addr,
        announcement: Announcement,
        interfaces: &BTreeSet<Ipv4Addr>,
    ) {
        if self.known.contains(&host) || !interfaces.contains(&host) {
            self.announced.push((host, announcement));
        }
    }

    /// The hosts in groups that are announced alike, the known ones first, and how many hosts
    /// are left out.
    pub(super) fn grouped(&self) -> (Vec<Group>, usize) {
        let mut alike: BTreeMap<(bool, Vec<Announcement>), Vec<Ipv4Addr>> = BTreeMap::new();
        for of_host in self.announced.chunk_by(|one, next| one.0 == next.0) {
            let host = of_host[0].0;
            let announcements = of_host.iter().map(|(_, announcement)| *announcement);
            let key = (!self.known.contains(&host), announcements.collect());
            alike.entry(key).or_default().push(host);
        }
        let is_announced = |host: &Ipv4Addr| {
            let place = self.announced.binary_search_by_key(host, |(host, _)| *host);
            place.is_ok()
        };
        let silent: Vec<Ipv4Addr> = self
            .known
            .iter()
            .copied()
            .filter(|host| !is_announced(host))
            .collect();
        if !silent.is_empty() {
            alike.insert((false, Vec::new()), silent);
        }
        let omitted = alike.values().skip(MAX_GROUPS).map(Vec::len).sum();
        let groups = alike.into_iter().take(MAX_GROUPS);
        let groups = groups.map(|((is_unknown, announcements), hosts)| Group {
            hosts,
            is_known: !is_unknown,
            announcements,
        });
        (groups.collect(), omitted)
    }

    /// The announcers of a group that a tree reaches, ascending.
    pub(super) fn reachable(&self, group: &Group, graph: &Graph, tree: &Tree) -> Vec<RouterId> {
        let reached = group
            .announcements
            .iter()
            .filter(|announcement| self.route(announcement, graph, tree).is_some());
        let mut announcers: Vec<RouterId> = reached.map(|announcement| announcement.by).collect();
        announcers.dedup();
        announcers
    }

    /// The best route of the tree's root to a group, equal ones merged.
    pub(super) fn best(&self, group: &Group, graph: &Graph, tree: &Tree) -> Option<Best> {
        let mut best: Option<Best> = None;
        for announcement in &group.announcements {
            let Some((cost, next_hops)) = self.route(announcement, graph, tree) else {
                continue;
            };
            match &mut best {
                Some(known) if known.cost < cost => {}
                Some(known) if known.cost == cost => {
                    known.next_hops = union(&known.next_hops, &next_hops);
                    // Announcements are sorted by the announcer.
                    if known.through.last() != Some(&announcement.by)
                        && known.through.len() < MAX_WIDTH
                    {
                        known.through.push(announcement.by);
                    }
                }
                Some(_) | None => {
                    best = Some(Best {
                        cost,
                        next_hops,
                        through: vec![announcement.by],
                    });
                }
            }
        }
        best
    }

    /// The cost and the next hops of one announcement from the root of a tree.
    fn route(
        &self,
        announcement: &Announcement,
        graph: &Graph,
        tree: &Tree,
    ) -> Option<(Cost, NextHops)> {
        let announcer = tree.reached(announcement.vertex)?;
        match announcement.route {
            Route::Stub(metric) => {
                let cost = announcer.cost.saturating_add(metric.into());
                Some((Cost::IntraArea(cost), Rc::clone(&announcer.next_hops)))
            }
            Route::External {
                kind,
                metric,
                forwarding,
            } => {
                // Who announces a host itself does not route to it, wherever it says to send.
                let (distance, next_hops) = match forwarding {
                    Some(address) if announcement.vertex != tree.root() => {
                        self.towards(address, graph, tree)?
                    }
                    Some(_) | None => (announcer.cost, Rc::clone(&announcer.next_hops)),
                };
                let metric = metric.value();
                let cost = match kind {
                    ExternalKind::Type1 => Cost::External1(distance.saturating_add(metric)),
                    ExternalKind::Type2 => Cost::External2 { metric, distance },
                };
                Some((cost, next_hops))
            }
        }
    }

    /// The way to a forwarding address (RFC 2328 §16.4 (3)): the longest prefix of the area that
    /// the root reaches. None if the address is the root's own.
    fn towards(&self, address: Ipv4Addr, graph: &Graph, tree: &Tree) -> Option<(u32, NextHops)> {
        if graph.has_address(tree.root(), address) {
            return None;
        }
        (0..=32).rev().find_map(|length| {
            let attached = self.subnets.get(&(length, address & mask(length)))?;
            let ways = attached.iter().filter_map(|&(vertex, metric)| {
                let reached = tree.reached(vertex)?;
                let next_hops = if vertex == tree.root() {
                    Rc::new([NextHop::on_own_subnet(address)])
                } else if graph.is_network(vertex) {
                    on_network(&reached.next_hops, address)
                } else {
                    Rc::clone(&reached.next_hops)
                };
                Some((reached.cost.saturating_add(metric.into()), next_hops))
            });
            ways.reduce(|one, other| match one.0.cmp(&other.0) {
                std::cmp::Ordering::Less => one,
                std::cmp::Ordering::Equal => (one.0, union(&one.1, &other.1)),
                std::cmp::Ordering::Greater => other,
            })
        })
    }
}

impl Best {
    /// The route as that of a router.
    pub(super) fn seen_by(self, router: RouterId) -> Seen {
        Seen {
            router,
            cost: self.cost,
            width: self.next_hops.len(),
            through: self.through,
        }
    }
}

/// The mask of a prefix length.
fn mask(length: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - length).unwrap_or(0))
}

/// A subnet by any address of it and its mask; nothing for a mask that is none.
fn subnet(address: Ipv4Addr, mask: Ipv4Addr) -> Option<Subnet> {
    let bits = mask.to_bits();
    let length = bits.leading_ones();
    (bits.count_ones() == length).then_some((length, address & mask))
}
