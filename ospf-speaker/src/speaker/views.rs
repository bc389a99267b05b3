//! The speaker's state in the words of the control socket.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use isopath_api::ids::{AreaId, BfdState, NeighborState, RouterId};
use isopath_api::paths::Lateness;
use isopath_api::speaker::{
    Announced, ExternalRoute, Link, Lsa, Neighbor, Owner, Status, Withheld,
};
use isopath_ospf::{ExternalKind, LinkKind, NeighborView, RouterLink, State};

use super::Speaker;
use super::config::{self, Host};
use crate::wanted::Verdict;

impl Speaker {
    /// Everything.
    pub(super) fn status(&self, now: Instant) -> Status {
        let carried = self.router.announced();
        let announced = self.verdicts.iter().filter_map(|(vip, verdict)| {
            let Verdict::Announce { how, source } = verdict else {
                return None;
            };
            let (in_lsdb, acknowledged) = place(&carried, config::host(*vip, *how));
            Some(Announced {
                vip: *vip,
                cost: how.cost,
                kind: how.kind,
                source: *source,
                in_lsdb,
                acknowledged,
            })
        });
        let withheld = self.verdicts.iter().filter_map(|(vip, verdict)| {
            let Verdict::Withhold(reason) = verdict else {
                return None;
            };
            Some(Withheld {
                vip: *vip,
                reason: reason.clone(),
            })
        });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            origin_pid: self.origin_pid,
            router_id: RouterId(self.config.router_id.0),
            area: AreaId(self.config.area.0),
            up_ms: millis(now.saturating_duration_since(self.started)),
            neighbors: self.neighbors(now),
            announced: announced.collect(),
            withheld: withheld.collect(),
            owner: self.wanted.owner(now),
            announcers: self.announcers(&carried),
            widths: self.widths(),
            lateness: self.lateness(),
            interfaces: self.interface_views(now),
            counters: self.all_counters(),
        }
    }

    fn lateness(&self) -> BTreeMap<String, Lateness> {
        let kinds = [
            ("hello", self.hello_lateness.seen()),
            ("bfd", self.bfd.lateness.seen()),
        ];
        kinds.map(|(kind, seen)| (kind.to_owned(), seen)).into()
    }

    /// The neighbours, by interface and router id.
    pub(super) fn neighbors(&self, now: Instant) -> Vec<Neighbor> {
        let views = self.router.neighbors();
        let mut neighbors: Vec<Neighbor> = views.map(|view| self.neighbor(now, &view)).collect();
        neighbors.sort_by(|a, b| {
            let key = |neighbor: &Neighbor| (neighbor.interface.clone(), neighbor.router_id);
            key(a).cmp(&key(b))
        });
        neighbors
    }

    fn neighbor(&self, now: Instant, view: &NeighborView) -> Neighbor {
        let interface = self.interfaces.get(view.interface.0);
        let bfd = self.bfd.state(view.interface, view.address);
        Neighbor {
            interface: interface.map_or_else(String::new, |at| at.name.clone()),
            router_id: RouterId(view.router_id.0),
            address: view.address,
            state: match view.state {
                State::Down => NeighborState::Down,
                State::Init => NeighborState::Init,
                State::TwoWay => NeighborState::TwoWay,
                State::ExStart => NeighborState::ExStart,
                State::Exchange => NeighborState::Exchange,
                State::Loading => NeighborState::Loading,
                State::Full => NeighborState::Full,
            },
            priority: view.priority,
            state_ms: millis(now.saturating_duration_since(view.since)),
            dead_ms: millis(view.dead_at.saturating_duration_since(now)),
            bfd: bfd.map(|state| match state {
                isopath_bfd::State::AdminDown => BfdState::AdminDown,
                isopath_bfd::State::Down => BfdState::Down,
                isopath_bfd::State::Init => BfdState::Init,
                isopath_bfd::State::Up => BfdState::Up,
            }),
            auth_key: view.received.map(|received| received.key_id),
        }
    }

    /// The link-state database, in the core's order.
    pub(super) fn lsas(&self, now: Instant) -> Vec<Lsa> {
        let link = |link: &RouterLink| Link {
            link_type: match link.kind {
                LinkKind::PointToPoint => 1,
                LinkKind::Transit => 2,
                LinkKind::Stub => 3,
                LinkKind::Virtual => 4,
                LinkKind::Unknown(code) => code,
            },
            id: link.id,
            data: link.data,
            metric: link.metric,
        };
        let lsas = self.router.lsdb(now);
        lsas.map(|lsa| Lsa {
            ls_type: lsa.ls_type,
            link_state_id: lsa.link_state_id,
            advertising_router: RouterId(lsa.advertising_router.0),
            age: lsa.age,
            sequence: lsa.sequence,
            checksum: lsa.checksum,
            length: lsa.length,
            links: lsa.links.iter().map(link).collect(),
            routers: lsa.routers.iter().map(|id| RouterId(id.0)).collect(),
            external: lsa.external.map(|route| ExternalRoute {
                mask: route.mask,
                metric_type: match route.kind {
                    ExternalKind::Type1 => 1,
                    ExternalKind::Type2 => 2,
                },
                metric: route.metric.value(),
                forwarding_address: route.forwarding_address,
                tag: route.tag,
            }),
        })
        .collect()
    }

    fn all_counters(&self) -> BTreeMap<String, u64> {
        let own = self.counters.iter();
        let process = [
            ("hello_late_max_us", self.hello_lateness.max_micros()),
            ("bfd_late_max_us", self.bfd.lateness.max_micros()),
            ("log_lines_dropped", crate::log::dropped()),
        ];
        let process = process.map(|(name, value)| (name.to_owned(), value));
        self.router
            .counters()
            .iter()
            .chain(self.bfd.counters())
            .chain(own)
            .chain(process)
            .collect()
    }
}

/// Whether an LSA of ours in the database carries a host, and every neighbour has it.
fn place(carried: &isopath_ospf::Announced, host: Host) -> (bool, bool) {
    match host {
        Host::Stub(stub) => {
            let in_lsdb = carried.stubs.binary_search(&stub).is_ok();
            (in_lsdb, in_lsdb && carried.acknowledged)
        }
        Host::External(external) => {
            let routes = &carried.externals;
            let found = routes.binary_search_by_key(&external.prefix, |it| it.external.prefix);
            let route = found.ok().and_then(|place| routes.get(place));
            route
                .filter(|it| it.external == external)
                .map_or((false, false), |it| (true, it.acknowledged))
        }
    }
}

/// The status without what changes by itself, to see whether anything happened.
pub(super) fn timeless(status: &Status) -> Status {
    let mut timeless = status.clone();
    timeless.up_ms = 0;
    timeless.counters.clear();
    timeless.lateness.clear();
    for refused in timeless
        .interfaces
        .iter_mut()
        .flat_map(|at| &mut at.refused)
    {
        refused.ago_ms = 0;
        refused.count = 0;
    }
    for neighbor in &mut timeless.neighbors {
        neighbor.state_ms = 0;
        neighbor.dead_ms = 0;
    }
    match &mut timeless.owner {
        Owner::Connected { silent_ms, .. } => *silent_ms = 0,
        Owner::Held { left_ms } => *left_ms = 0,
        Owner::None | Owner::Expired => {}
    }
    timeless
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
