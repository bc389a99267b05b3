//! The area as a graph: routers and networks, and the links that both ends agree on.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::{MAX_LINKS, TooLarge};
use crate::ids::RouterId;
use crate::packet::{LinkKind, LsType, Lsa, NetworkLsa, RouterLsa};

/// The B, E and V bits' one that says: an AS boundary router (RFC 2328 §A.4.2).
const E_BIT: u8 = 0x02;
/// MaxLinkMetric: a link that is the last resort (RFC 6987).
const MAX_LINK_METRIC: u16 = 0xffff;

/// The area's routers and networks with the links between them.
#[derive(Debug, Default)]
pub(super) struct Graph {
    vertices: Vec<Vertex>,
    routers: BTreeMap<RouterId, usize>,
    /// By Link State ID, the Designated Router's address on the network.
    networks: BTreeMap<Ipv4Addr, usize>,
}

#[derive(Debug)]
struct Vertex {
    id: VertexId,
    is_asbr: bool,
    /// The addresses of a router on its links; an interface index where a link has none.
    addresses: Vec<Ipv4Addr>,
    edges: Vec<Edge>,
}

/// What a vertex stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VertexId {
    Router(RouterId),
    /// A network and its mask.
    Network(Ipv4Addr, Ipv4Addr),
}

/// A link that both of its ends have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge {
    pub(super) to: usize,
    pub(super) cost: u32,
    /// The router at the other end: its address on the network, its router id on a
    /// point-to-point link. 0.0.0.0 where the other end is a network.
    pub(super) far: Ipv4Addr,
}

impl Graph {
    /// The graph of these LSAs. A body that cannot be read has no links.
    pub(super) fn build(lsas: &[Lsa]) -> Result<Self, TooLarge> {
        let routers: Vec<(RouterId, RouterLsa)> = of_type(lsas, LsType::Router)
            .filter_map(|lsa| {
                let body = RouterLsa::decode(lsa.body()).ok()?;
                Some((lsa.key().advertising_router, body))
            })
            .collect();
        let networks: Vec<(Ipv4Addr, NetworkLsa)> = of_type(lsas, LsType::Network)
            .filter_map(|lsa| {
                let body = NetworkLsa::decode(lsa.body()).ok()?;
                Some((lsa.key().link_state_id, body))
            })
            .collect();
        let attached = networks.iter().map(|(_, lsa)| lsa.routers.len());
        let links = routers.iter().map(|(_, lsa)| transit_links(lsa).count());
        if attached.chain(links).sum::<usize>() > MAX_LINKS {
            return Err(TooLarge::Links);
        }
        let mut graph = Self::default();
        for (id, lsa) in &routers {
            let vertex = graph.add(VertexId::Router(*id));
            graph.vertices[vertex].is_asbr = lsa.flags & E_BIT != 0;
            let addresses = transit_links(lsa).map(|link| link.data);
            graph.vertices[vertex].addresses = addresses.collect();
            graph.routers.insert(*id, vertex);
        }
        for (id, lsa) in &networks {
            let vertex = graph.add(VertexId::Network(*id, lsa.mask));
            // Of two networks of one name, which a change of the Designated Router's id leaves
            // behind, one is right for as long as they differ; there is no telling which.
            graph.networks.entry(*id).or_insert(vertex);
        }
        graph.link_routers(&routers);
        graph.link_networks(&routers, &networks);
        Ok(graph)
    }

    fn add(&mut self, id: VertexId) -> usize {
        self.vertices.push(Vertex {
            id,
            is_asbr: false,
            addresses: Vec::new(),
            edges: Vec::new(),
        });
        self.vertices.len() - 1
    }

    /// The point-to-point and virtual links. Of parallel ones as many count as the other end has
    /// too, the cheapest first: LSAs do not say which belongs to which.
    fn link_routers(&mut self, routers: &[(RouterId, RouterLsa)]) {
        let mut between: BTreeMap<(usize, usize), Vec<u32>> = BTreeMap::new();
        for (id, lsa) in routers {
            for link in transit_links(lsa).filter(|link| link.kind != LinkKind::Transit) {
                if let Some(ends) = self.router(*id).zip(self.router(RouterId(link.id))) {
                    between.entry(ends).or_default().push(cost(link.metric));
                }
            }
        }
        for (&(from, to), costs) in &between {
            let back = between.get(&(to, from)).map_or(0, Vec::len);
            let mut costs = costs.clone();
            costs.sort_unstable();
            let far = match self.vertices[to].id {
                VertexId::Router(id) => id.0,
                VertexId::Network(id, _) => id,
            };
            let both = costs.into_iter().take(back);
            let edges = both.map(|cost| Edge { to, cost, far });
            self.vertices[from].edges.extend(edges);
        }
    }

    /// The links between a network and the routers that both it and they list.
    fn link_networks(
        &mut self,
        routers: &[(RouterId, RouterLsa)],
        networks: &[(Ipv4Addr, NetworkLsa)],
    ) {
        let mut listed: Vec<(Ipv4Addr, RouterId)> = networks
            .iter()
            .flat_map(|(id, lsa)| lsa.routers.iter().map(|router| (*id, *router)))
            .collect();
        listed.sort_unstable();
        for (id, lsa) in routers {
            for link in transit_links(lsa).filter(|link| link.kind == LinkKind::Transit) {
                let ends = self
                    .router(*id)
                    .zip(self.networks.get(&link.id).copied())
                    .filter(|_| listed.binary_search(&(link.id, *id)).is_ok());
                let Some((router, network)) = ends else {
                    continue;
                };
                self.vertices[router].edges.push(Edge {
                    to: network,
                    cost: cost(link.metric),
                    far: Ipv4Addr::UNSPECIFIED,
                });
                self.vertices[network].edges.push(Edge {
                    to: router,
                    cost: 0,
                    far: link.data,
                });
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.vertices.len()
    }

    pub(super) fn router(&self, id: RouterId) -> Option<usize> {
        self.routers.get(&id).copied()
    }

    pub(super) fn routers(&self) -> impl Iterator<Item = (RouterId, usize)> + '_ {
        self.routers.iter().map(|(id, vertex)| (*id, *vertex))
    }

    pub(super) fn networks(&self) -> impl Iterator<Item = (Ipv4Addr, Ipv4Addr, usize)> + '_ {
        self.networks
            .values()
            .filter_map(|&vertex| match self.vertices[vertex].id {
                VertexId::Network(id, mask) => Some((id, mask, vertex)),
                VertexId::Router(_) => None,
            })
    }

    pub(super) fn is_network(&self, vertex: usize) -> bool {
        matches!(self.vertices[vertex].id, VertexId::Network(..))
    }

    pub(super) fn edges(&self, vertex: usize) -> &[Edge] {
        &self.vertices[vertex].edges
    }

    pub(super) fn is_asbr(&self, vertex: usize) -> bool {
        self.vertices[vertex].is_asbr
    }

    /// Whether a router has the address on one of its links.
    pub(super) fn has_address(&self, vertex: usize, address: Ipv4Addr) -> bool {
        self.vertices[vertex].addresses.contains(&address)
    }

    /// The addresses that routers have on their links.
    pub(super) fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        let vertices = self.vertices.iter();
        vertices.flat_map(|vertex| vertex.addresses.iter().copied())
    }

    /// Whether a router lets packets of others through except as a last resort.
    pub(super) fn offers_transit(&self, vertex: usize) -> bool {
        self.edges(vertex)
            .iter()
            .any(|edge| edge.cost < u32::from(MAX_LINK_METRIC))
    }
}

/// The LSAs of one type.
pub(super) fn of_type(lsas: &[Lsa], ls_type: LsType) -> impl Iterator<Item = &Lsa> {
    lsas.iter().filter(move |lsa| lsa.key().ls_type == ls_type)
}

/// The links of a Router-LSA that lead to a vertex.
fn transit_links(lsa: &RouterLsa) -> impl Iterator<Item = &crate::packet::RouterLink> {
    lsa.links.iter().filter(|link| match link.kind {
        LinkKind::PointToPoint | LinkKind::Transit | LinkKind::Virtual => true,
        LinkKind::Stub | LinkKind::Unknown(_) => false,
    })
}

/// The cost of a link. An interface's cost is greater than 0 (RFC 2328 §C.3); without that,
/// equal-cost paths could go round in circles.
fn cost(metric: u16) -> u32 {
    u32::from(metric.max(1))
}
