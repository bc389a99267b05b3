//! Topologies calculated by hand, hostile databases, and a naive oracle.

mod oracle;
mod topologies;

use std::collections::BTreeMap;

use super::*;
use crate::packet::{
    ExternalKind, ExternalLsa, ExternalMetric, INITIAL_SEQUENCE, LsaKey, NetworkLsa, Options,
    RouterLink,
};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

fn router(last: u8) -> RouterId {
    RouterId(Ipv4Addr::new(10, 0, 0, last))
}

/// The address of a router on a network that is named by a number.
fn on(network: u8, router: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, network, router)
}

/// An area under construction: what each router says of itself.
#[derive(Debug, Default, Clone)]
struct Sketch {
    routers: BTreeMap<u8, RouterLsa>,
    networks: BTreeMap<(Ipv4Addr, u8), NetworkLsa>,
    external: Vec<(u8, Ipv4Addr, ExternalLsa)>,
}

impl Sketch {
    fn at(&mut self, id: u8) -> &mut RouterLsa {
        self.routers.entry(id).or_insert(RouterLsa {
            flags: 0,
            links: Vec::new(),
        })
    }

    /// One direction of a numbered point-to-point link, with its subnet.
    fn half(&mut self, network: u8, from: u8, to: u8, metric: u16) {
        let links = [
            RouterLink {
                kind: LinkKind::PointToPoint,
                id: router(to).0,
                data: on(network, from),
                metric,
            },
            RouterLink {
                kind: LinkKind::Stub,
                id: on(network, 0),
                data: Ipv4Addr::new(255, 255, 255, 0),
                metric: metric.min(10),
            },
        ];
        self.at(from).links.extend(links);
    }

    /// A point-to-point link with the cost of either direction.
    fn link(&mut self, network: u8, (one, cost): (u8, u16), (other, back): (u8, u16)) {
        self.half(network, one, other, cost);
        self.half(network, other, one, back);
    }

    /// A director on a point-to-point link to a switch: 10 there, 0xffff back.
    fn director(&mut self, network: u8, switch: u8, director: u8) {
        self.link(network, (switch, 10), (director, 0xffff));
    }

    /// A broadcast network; the first router is its Designated Router.
    fn segment(&mut self, network: u8, attached: &[(u8, u16)]) {
        let dr = on(network, attached[0].0);
        for (id, metric) in attached {
            self.at(*id).links.push(RouterLink {
                kind: LinkKind::Transit,
                id: dr,
                data: on(network, *id),
                metric: *metric,
            });
        }
        let body = NetworkLsa {
            mask: Ipv4Addr::new(255, 255, 255, 0),
            routers: attached.iter().map(|(id, _)| router(*id)).collect(),
        };
        self.networks.insert((dr, attached[0].0), body);
    }

    /// A host stub.
    fn host(&mut self, id: u8, host: Ipv4Addr, metric: u16) {
        self.at(id).links.push(RouterLink {
            kind: LinkKind::Stub,
            id: host,
            data: Ipv4Addr::BROADCAST,
            metric,
        });
    }

    /// A host as an external route, by an AS boundary router.
    fn external(&mut self, id: u8, kind: ExternalKind, metric: u32, forwarding: Option<Ipv4Addr>) {
        self.at(id).flags |= 0x02;
        let body = ExternalLsa {
            mask: Ipv4Addr::BROADCAST,
            kind,
            metric: ExternalMetric::new(metric).unwrap(),
            forwarding_address: forwarding.unwrap_or(Ipv4Addr::UNSPECIFIED),
            tag: 0,
        };
        self.external.push((id, VIP, body));
    }

    /// The area as the database of router `us` has it, Full with `neighbors`.
    fn area(&self, us: u8, neighbors: &[u8]) -> Area {
        self.area_with(us, neighbors, LsType::AsExternal)
    }

    fn area_with(&self, us: u8, neighbors: &[u8], external: LsType) -> Area {
        let routers = self
            .routers
            .iter()
            .map(|(id, body)| lsa(LsType::Router, router(*id).0, *id, &body.encode()));
        let networks = self
            .networks
            .iter()
            .map(|((dr, id), body)| lsa(LsType::Network, *dr, *id, &body.encode()));
        let externals = self
            .external
            .iter()
            .map(|(id, host, body)| lsa(external, *host, *id, &body.encode()));
        Area {
            us: router(us),
            neighbors: neighbors.iter().map(|id| router(*id)).collect(),
            lsas: routers.chain(networks).chain(externals).collect(),
        }
    }

    /// What is seen of [`VIP`] from the place of router `us`, whose neighbour is router 1.
    fn paths(&self, us: u8) -> AreaPaths {
        self.area(us, &[1]).paths(&BTreeSet::from([VIP])).unwrap()
    }
}

fn lsa(ls_type: LsType, link_state_id: Ipv4Addr, by: u8, body: &[u8]) -> Lsa {
    let key = LsaKey {
        ls_type,
        link_state_id,
        advertising_router: router(by),
    };
    Lsa::originate(key, Options::E, INITIAL_SEQUENCE, body).unwrap()
}

/// The group of [`VIP`], which is known and so the first with it.
fn of_vip(paths: &AreaPaths) -> &HostPaths {
    let has_vip = |group: &&HostPaths| group.hosts.contains(&VIP);
    paths.groups.iter().find(has_vip).expect("VIP is known")
}

/// Cost, width and announcers as a router sees them.
fn seen(paths: &AreaPaths, by: u8) -> Option<(Cost, usize, Vec<u8>)> {
    let seen = &of_vip(paths).seen;
    let seen = seen.iter().find(|seen| seen.router == router(by))?;
    let through = seen.through.iter().map(|id| id.0.octets()[3]).collect();
    Some((seen.cost, seen.width, through))
}

fn announcers(paths: &AreaPaths) -> Vec<u8> {
    let announcers = &of_vip(paths).announcers;
    announcers.iter().map(|id| id.0.octets()[3]).collect()
}
