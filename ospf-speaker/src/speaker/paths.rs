//! The calculated paths in the words of the control socket.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Instant;

use isopath_api::ids::{RouterId, Vip};
use isopath_api::paths::{HostPaths, PathCost, Paths, Seen, Viewpoint, Width};
use isopath_api::speaker::MAX_LINE;
use isopath_ospf::spf::{self, AreaPaths, Cost};

use super::Speaker;
use crate::paths::Outcome;

/// The answer to a request leaves room in a line for what surrounds it.
const MOST_BYTES: usize = MAX_LINE / 4 * 3;

/// The status names so many switches. A cluster has one or two; an operator asks for the paths
/// of all.
const MOST_SWITCHES: usize = 16;

/// What the last result says of our VIPs. It is made once, for the status is made often.
#[derive(Debug, Default)]
pub(super) struct OurPaths {
    /// The other routers that announce each and that we reach.
    others: BTreeMap<Vip, Vec<RouterId>>,
    widths: Vec<Width>,
}

impl Speaker {
    /// Takes the result of a calculation, if there is one.
    pub(super) fn take_paths(&mut self, now: Instant) {
        if !self.paths.take(now) {
            return;
        }
        self.our_paths = match self.paths.latest() {
            Some(Outcome::Paths(paths)) => self.of_our_vips(paths),
            Some(Outcome::Claims(_, claims)) => self.of_claims(claims),
            None => OurPaths::default(),
        };
        self.touched = true;
    }

    fn of_our_vips(&self, paths: &AreaPaths) -> OurPaths {
        let is_ours = |host: &&Ipv4Addr| self.verdicts.contains_key(&Vip(**host));
        let ours: Vec<(&spf::HostPaths, Vec<Vip>)> = paths
            .groups
            .iter()
            .map(|group| {
                let hosts = group.hosts.iter().filter(is_ours);
                (group, hosts.map(|host| Vip(*host)).collect())
            })
            .filter(|(_, vips): &(_, Vec<Vip>)| !vips.is_empty())
            .collect();
        let mut found = OurPaths::default();
        for (group, vips) in &ours {
            let others = group.announcers.iter();
            let others = others.filter(|router| **router != self.config.router_id);
            let others: Vec<RouterId> = others.copied().map(router_id).collect();
            found
                .others
                .extend(vips.iter().map(|vip| (*vip, others.clone())));
        }
        let switches = paths.viewpoints.iter().filter(|router| router.forwards);
        for switch in switches.take(MOST_SWITCHES) {
            for (group, vips) in &ours {
                let seen = group.seen.iter().find(|seen| seen.router == switch.router);
                found.widths.push(Width {
                    router_id: router_id(switch.router),
                    vips: vips.clone(),
                    width: seen.map_or(0, |seen| count(seen.width)),
                    through: seen.map_or_else(Vec::new, |seen| router_ids(&seen.through)),
                    cost: seen.map(|seen| path_cost(seen.cost)),
                });
            }
        }
        found
    }

    /// Nobody is known to be unreachable, so everybody counts.
    fn of_claims(&self, claims: &[(Ipv4Addr, isopath_ospf::RouterId)]) -> OurPaths {
        let mut found = OurPaths::default();
        for (host, router) in claims {
            if *router != self.config.router_id {
                let others = found.others.entry(Vip(*host)).or_default();
                others.push(router_id(*router));
            }
        }
        found
    }

    /// Who announces our VIPs: of others those that we reach, of ourselves what our own LSAs
    /// carry at this moment.
    pub(super) fn announcers(
        &self,
        carried: &isopath_ospf::Announced,
    ) -> BTreeMap<Vip, Vec<RouterId>> {
        let us = router_id(self.config.router_id);
        let of = |vip: &Vip| {
            let others = self.our_paths.others.get(vip);
            let mut routers = others.cloned().unwrap_or_default();
            let stub = carried
                .stubs
                .binary_search_by_key(&vip.0, |stub| stub.prefix);
            let external = carried
                .externals
                .binary_search_by_key(&vip.0, |own| own.external.prefix);
            if stub.is_ok() || external.is_ok() {
                routers.push(us);
                routers.sort_unstable();
            }
            routers
        };
        self.verdicts.keys().map(|vip| (*vip, of(vip))).collect()
    }

    /// How each switch spreads the traffic of our VIPs.
    pub(super) fn widths(&self) -> Vec<Width> {
        self.our_paths.widths.clone()
    }

    /// All that was calculated, or what concerns one host.
    pub(super) fn all_paths(&self, host: Option<Ipv4Addr>) -> Paths {
        let current = self.paths.is_current(self.router.area_version());
        let none = Paths {
            current,
            problem: None,
            routers: Vec::new(),
            groups: Vec::new(),
            omitted_routers: 0,
            omitted_hosts: 0,
        };
        match self.paths.latest() {
            None => none,
            Some(Outcome::Claims(problem, _)) => Paths {
                problem: Some(problem.to_string()),
                ..none
            },
            Some(Outcome::Paths(paths)) => {
                let (groups, omitted) = groups(paths, host);
                Paths {
                    routers: paths.viewpoints.iter().map(viewpoint).collect(),
                    groups,
                    omitted_routers: paths.omitted_routers,
                    omitted_hosts: paths.omitted_hosts + omitted,
                    ..none
                }
            }
        }
    }
}

/// The groups that have the host, as many as fit, and how many hosts do not.
fn groups(paths: &AreaPaths, host: Option<Ipv4Addr>) -> (Vec<HostPaths>, usize) {
    let is_wanted = |of: &&Ipv4Addr| host.is_none_or(|host| **of == host);
    let mut groups = Vec::new();
    let (mut omitted, mut left) = (0, MOST_BYTES);
    for group in &paths.groups {
        let hosts: Vec<Ipv4Addr> = group.hosts.iter().filter(is_wanted).copied().collect();
        if hosts.is_empty() {
            continue;
        }
        match left.checked_sub(longest(&hosts, group)) {
            None => omitted += hosts.len(),
            Some(rest) => {
                left = rest;
                groups.push(HostPaths {
                    hosts,
                    announcers: router_ids(&group.announcers),
                    seen: group.seen.iter().map(seen).collect(),
                });
            }
        }
    }
    (groups, omitted)
}

/// No fewer bytes than a group has as JSON.
fn longest(hosts: &[Ipv4Addr], group: &spf::HostPaths) -> usize {
    const ADDRESS: usize = r#""255.255.255.255","#.len();
    const GROUP: usize = r#"{"hosts":[],"announcers":[],"seen":[]},"#.len();
    const SEEN: usize = r#"{"router_id":,"cost":{"kind":"external-2","metric":4294967295,"distance":4294967295},"width":64,"through":[]},"#.len();
    let seen = group.seen.iter();
    let seen = seen.map(|seen| SEEN + ADDRESS * (1 + seen.through.len()));
    GROUP + ADDRESS * (hosts.len() + group.announcers.len()) + seen.sum::<usize>()
}

fn viewpoint(viewpoint: &spf::Viewpoint) -> Viewpoint {
    Viewpoint {
        router_id: router_id(viewpoint.router),
        forwards: viewpoint.forwards,
    }
}

fn seen(seen: &spf::Seen) -> Seen {
    Seen {
        router_id: router_id(seen.router),
        cost: path_cost(seen.cost),
        width: count(seen.width),
        through: router_ids(&seen.through),
    }
}

fn path_cost(cost: Cost) -> PathCost {
    match cost {
        Cost::IntraArea(cost) => PathCost::IntraArea { cost },
        Cost::External1(cost) => PathCost::External1 { cost },
        Cost::External2 { metric, distance } => PathCost::External2 { metric, distance },
    }
}

fn router_id(id: isopath_ospf::RouterId) -> RouterId {
    RouterId(id.0)
}

fn router_ids(ids: &[isopath_ospf::RouterId]) -> Vec<RouterId> {
    ids.iter().copied().map(router_id).collect()
}

/// Next hops are [`spf::MAX_WIDTH`] at most.
fn count(width: usize) -> u32 {
    u32::try_from(width).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(hosts: usize) -> AreaPaths {
        let widest = u32::MAX;
        let id = isopath_ospf::RouterId(Ipv4Addr::BROADCAST);
        let group = |n: usize| spf::HostPaths {
            hosts: vec![Ipv4Addr::from_bits(u32::try_from(n).unwrap()); 2],
            announcers: vec![id; 2],
            seen: vec![
                spf::Seen {
                    router: id,
                    cost: Cost::External2 {
                        metric: widest,
                        distance: widest,
                    },
                    width: spf::MAX_WIDTH,
                    through: vec![id; spf::MAX_WIDTH],
                };
                20
            ],
        };
        AreaPaths {
            groups: (0..hosts).map(group).collect(),
            ..AreaPaths::default()
        }
    }

    #[test]
    fn an_answer_fits_a_line_and_says_what_is_left_out() {
        let (some, omitted) = groups(&paths(300), None);
        let bytes = serde_json::to_vec(&some).unwrap().len();
        assert!(bytes <= MOST_BYTES, "{bytes} bytes");
        assert!(bytes > MOST_BYTES / 2, "{bytes} bytes, more would have fit");
        assert_eq!(2 * some.len() + omitted, 600);
    }

    #[test]
    fn one_host_is_found_among_many() {
        let host = Ipv4Addr::from_bits(299);
        let (found, omitted) = groups(&paths(300), Some(host));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].hosts, [host, host]);
        assert_eq!(omitted, 0);
    }
}
