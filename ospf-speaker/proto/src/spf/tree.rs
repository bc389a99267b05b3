//! The shortest-path tree of one router (RFC 2328 §16.1) with all equal-cost next hops.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::net::Ipv4Addr;
use std::rc::Rc;

use super::MAX_WIDTH;
use super::graph::{Edge, Graph};

/// The shortest paths from one router.
#[derive(Debug)]
pub(super) struct Tree {
    root: usize,
    reached: Vec<Option<Reached>>,
}

/// A vertex on a shortest path.
#[derive(Debug, Clone)]
pub(super) struct Reached {
    pub(super) cost: u32,
    pub(super) next_hops: NextHops,
}

/// The next hops of equal cost, ascending, [`MAX_WIDTH`] at most. Those of a vertex are most
/// often those of its parent.
pub(super) type NextHops = Rc<[NextHop]>;

/// Where the root sends packets first (§16.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NextHop {
    /// Over which of its links, as the graph counts them; for a subnet of the root's own, which
    /// is no link of the graph, [`NextHop::OWN_SUBNET`].
    link: usize,
    /// To which address on it, or, on a point-to-point link, to which router id; nothing as long
    /// as it is a network that the root is attached to, and no host on it.
    to: Option<Ipv4Addr>,
}

impl NextHop {
    const OWN_SUBNET: usize = usize::MAX;

    /// A host on a subnet of the root's own.
    pub(super) fn on_own_subnet(to: Ipv4Addr) -> Self {
        Self {
            link: Self::OWN_SUBNET,
            to: Some(to),
        }
    }

    /// The same network, but to this host on it.
    fn to(self, host: Ipv4Addr) -> Self {
        Self {
            to: self.to.or(Some(host)),
            ..self
        }
    }
}

impl Tree {
    /// Dijkstra's algorithm from a router. On a tie networks go before routers (§16.1 (3)), so
    /// that a vertex has all of its next hops before its children get them.
    pub(super) fn grow(graph: &Graph, root: usize) -> Self {
        let mut tree = Self {
            root,
            reached: vec![None; graph.len()],
        };
        tree.reached[root] = Some(Reached {
            cost: 0,
            next_hops: Rc::new([]),
        });
        let mut done = vec![false; graph.len()];
        let mut heap = BinaryHeap::from([Reverse((0, true, root))]);
        while let Some(Reverse((_, _, vertex))) = heap.pop() {
            if std::mem::replace(&mut done[vertex], true) {
                continue;
            }
            let Some(from) = tree.reached[vertex].clone() else {
                continue;
            };
            for (link, edge) in graph.edges(vertex).iter().enumerate() {
                let path = Reached {
                    cost: from.cost.saturating_add(edge.cost),
                    next_hops: tree.next_hops(graph, vertex, &from, (link, edge)),
                };
                if !done[edge.to] && tree.offer(edge.to, path) {
                    let cost = from.cost.saturating_add(edge.cost);
                    heap.push(Reverse((cost, !graph.is_network(edge.to), edge.to)));
                }
            }
        }
        tree
    }

    pub(super) fn root(&self) -> usize {
        self.root
    }

    pub(super) fn reached(&self, vertex: usize) -> Option<&Reached> {
        self.reached[vertex].as_ref()
    }

    /// The next hops of what lies behind a link (§16.1.1).
    fn next_hops(
        &self,
        graph: &Graph,
        vertex: usize,
        from: &Reached,
        (link, edge): (usize, &Edge),
    ) -> NextHops {
        if vertex == self.root {
            let to = (!graph.is_network(edge.to)).then_some(edge.far);
            return Rc::new([NextHop { link, to }]);
        }
        if graph.is_network(vertex) {
            on_network(&from.next_hops, edge.far)
        } else {
            Rc::clone(&from.next_hops)
        }
    }

    /// Takes a path if it is not longer than the one that is known; whether it is shorter.
    fn offer(&mut self, vertex: usize, path: Reached) -> bool {
        let place = &mut self.reached[vertex];
        match place {
            None => {
                *place = Some(path);
                true
            }
            Some(known) => match path.cost.cmp(&known.cost) {
                Ordering::Less => {
                    *known = path;
                    true
                }
                Ordering::Equal => {
                    known.next_hops = union(&known.next_hops, &path.next_hops);
                    false
                }
                Ordering::Greater => false,
            },
        }
    }
}

/// The next hops to a host of a network: the host itself where the network is the root's own.
pub(super) fn on_network(next_hops: &NextHops, host: Ipv4Addr) -> NextHops {
    if next_hops.iter().any(|hop| hop.to.is_none()) {
        next_hops.iter().map(|hop| hop.to(host)).collect()
    } else {
        Rc::clone(next_hops)
    }
}

/// The next hops of both.
pub(super) fn union(one: &NextHops, other: &NextHops) -> NextHops {
    if other.iter().all(|hop| one.contains(hop)) {
        return Rc::clone(one);
    }
    let mut both: Vec<NextHop> = one.iter().chain(other.iter()).copied().collect();
    both.sort_unstable();
    both.dedup();
    both.truncate(MAX_WIDTH);
    both.into()
}
