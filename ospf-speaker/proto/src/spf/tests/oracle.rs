//! Random areas against a calculation that is slow and plain, and databases made to hurt.

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Every router's distance from one, by relaxing every link until nothing changes.
fn bellman_ford(links: &[(u8, u8, u16)], root: u8) -> HashMap<u8, u32> {
    let mut distances = HashMap::from([(root, 0_u32)]);
    loop {
        let before = distances.clone();
        for &(from, to, metric) in links {
            let both_ends = links.iter().any(|link| (link.0, link.1) == (to, from));
            if let (true, Some(&distance)) = (both_ends, distances.get(&from)) {
                let through = distance + u32::from(metric);
                let known = distances.entry(to).or_insert(u32::MAX);
                *known = through.min(*known);
            }
        }
        if distances == before {
            return distances;
        }
    }
}

/// Cost, width and announcers that `root` must see: the width is the number of its neighbours
/// that lie on some shortest path to an announcer.
fn expected(
    links: &[(u8, u8, u16)],
    announcers: &[(u8, u16)],
    root: u8,
) -> Option<(u32, usize, Vec<u8>)> {
    let from_root = bellman_ford(links, root);
    let costs = announcers
        .iter()
        .filter_map(|(id, metric)| Some((from_root.get(id)? + u32::from(*metric), *id)));
    let costs: Vec<(u32, u8)> = costs.collect();
    let best = costs.iter().map(|(cost, _)| *cost).min()?;
    let mut through: Vec<u8> = costs
        .iter()
        .filter(|(cost, _)| *cost == best)
        .map(|(_, id)| *id)
        .collect();
    through.sort_unstable();
    let is_next_hop = |first: &(u8, u8, u16)| {
        let rest = bellman_ford(links, first.1);
        let returns = links.iter().any(|link| (link.0, link.1) == (first.1, root));
        let on_path = |target: &u8| {
            let behind = rest.get(target).map(|rest| rest + u32::from(first.2));
            *target != root && behind == from_root.get(target).copied()
        };
        first.0 == root && returns && through.iter().any(on_path)
    };
    let width = links.iter().filter(|link| is_next_hop(link)).count();
    Some((best, width, through))
}

/// At most one link from any router to any other, some of them in one direction only; low
/// metrics make for many equal costs.
fn links() -> impl Strategy<Value = Vec<(u8, u8, u16)>> {
    vec(
        (1..=8_u8, 1..=8_u8, 1..=3_u16, prop::bool::weighted(0.8)),
        0..30,
    )
    .prop_map(|pairs| {
        let mut links: BTreeMap<(u8, u8), u16> = BTreeMap::new();
        for (one, other, metric, both) in pairs {
            if one != other {
                links.entry((one, other)).or_insert(metric);
                if both {
                    links.entry((other, one)).or_insert(4 - metric);
                }
            }
        }
        let links = links.into_iter();
        links
            .map(|((from, to), metric)| (from, to, metric))
            .collect()
    })
}

proptest! {
    #[test]
    fn every_router_sees_what_the_plain_calculation_says(
        links in links(),
        announcers in prop::collection::btree_map(1..=8_u8, 1..=3_u16, 0..4),
    ) {
        let mut area = Sketch::default();
        for (from, to, metric) in &links {
            area.half(from * 16 + to, *from, *to, *metric);
        }
        let announcers: Vec<(u8, u16)> = announcers.into_iter().collect();
        for (id, metric) in &announcers {
            area.host(*id, VIP, *metric);
        }
        area.at(1);
        let paths = area.paths(1);
        let within = bellman_ford(&links, 1);
        prop_assert_eq!(paths.viewpoints.len(), within.len());
        for id in within.keys() {
            let found = seen(&paths, *id).map(|(cost, width, through)| match cost {
                Cost::IntraArea(cost) => (cost, width, through),
                other => panic!("{other:?} of a stub"),
            });
            prop_assert_eq!(found, expected(&links, &announcers, *id), "router {}", id);
        }
    }

    #[test]
    fn an_arbitrary_database_is_calculated_without_a_panic(
        bodies in vec((0..8_u8, 0..5_u8, vec(any::<u8>(), 0..80)), 0..20),
    ) {
        let types = [
            LsType::Router, LsType::Network, LsType::AsExternal, LsType::Nssa, LsType::Router,
        ];
        let lsas = bodies.iter().map(|(id, ls_type, body)| {
            lsa(types[usize::from(*ls_type)], router(*id).0, *id, body)
        });
        let area = Area {
            us: router(1),
            neighbors: BTreeSet::from([router(2)]),
            lsas: lsas.collect(),
        };
        let paths = area.paths(&BTreeSet::from([VIP])).unwrap();
        prop_assert!(paths.groups.iter().any(|group| group.hosts == [VIP]));
    }

    /// Bodies that can be read, and contradict each other in every way.
    #[test]
    fn a_lying_database_is_calculated_without_a_panic_and_within_bounds(
        lies in vec((0..6_u8, 0..4_u8, 0..6_u8, 0..6_u8, any::<u16>()), 0..60),
        externals in vec((0..6_u8, 0..0x0100_0000_u32, 0..6_u8), 0..10),
    ) {
        let mut area = Sketch::default();
        for (id, kind, other, data, metric) in lies {
            let (kind, id_of_link) = match kind {
                0 => (LinkKind::PointToPoint, router(other).0),
                1 => (LinkKind::Transit, on(9, other)),
                2 => (LinkKind::Virtual, router(other).0),
                _ => (LinkKind::Stub, VIP),
            };
            let data = if kind == LinkKind::Stub { Ipv4Addr::BROADCAST } else { on(9, data) };
            area.at(id).links.push(RouterLink { kind, id: id_of_link, data, metric });
            let network = NetworkLsa {
                mask: Ipv4Addr::from_bits(u32::from(metric) << 16),
                routers: (0..other).map(router).collect(),
            };
            area.networks.insert((on(9, other), id), network);
        }
        for (id, metric, forwarding) in externals {
            area.external(id, ExternalKind::Type2, metric, Some(on(9, forwarding)));
        }
        let paths = area.paths(1);
        for seen in &of_vip(&paths).seen {
            prop_assert!(seen.width <= MAX_WIDTH);
            prop_assert!(seen.width > 0 || seen.through == [seen.router]);
        }
    }
}

#[test]
fn more_links_than_are_calculated_with_are_refused() {
    let mut area = Sketch::default();
    let link = RouterLink {
        kind: LinkKind::PointToPoint,
        id: router(2).0,
        data: on(1, 1),
        metric: 1,
    };
    for id in 0..=25 {
        area.at(id).links = vec![link; 4000];
    }
    area.host(7, VIP, 1);
    let area = area.area(1, &[]);
    assert_eq!(area.claims(&BTreeSet::from([VIP])), [(VIP, router(7))]);
    let error = area.paths(&BTreeSet::new()).unwrap_err();
    assert_eq!(error, TooLarge::Links);
    assert_eq!(
        error.to_string(),
        "the database has more than 100000 links between routers"
    );
}

#[test]
fn groups_and_viewpoints_are_bounded_and_known_hosts_go_first() {
    let mut area = Sketch::default();
    area.director(2, 1, 2);
    for id in 3..=200 {
        area.link(id, (1, 10), (id, 10));
    }
    let host = |n: u16| Ipv4Addr::from_bits(u32::from(n) | 0x0a62_0000);
    for n in 0..3000 {
        area.host(2, host(n), n);
    }
    area.host(2, VIP, 65_000);
    let area = area.area(2, &[1]);
    let paths = area.paths(&BTreeSet::from([VIP])).unwrap();
    assert_eq!(paths.groups[0].hosts, [VIP]);
    assert_eq!(paths.groups.len(), MAX_GROUPS);
    assert_eq!(paths.omitted_hosts, 3001 - MAX_GROUPS);
    assert_eq!(paths.viewpoints.len(), MAX_PAIRS / MAX_GROUPS);
    assert_eq!(paths.omitted_routers, 200 - MAX_PAIRS / MAX_GROUPS);
    let first: Vec<RouterId> = paths.viewpoints.iter().map(|v| v.router).take(2).collect();
    assert_eq!(first, [router(2), router(1)], "ourselves and the neighbour");
}

/// A hundred routers, a thousand VIPs of eight directors, ten thousand external routes.
#[test]
fn a_large_area_is_calculated_whole() {
    let mut area = Sketch::default();
    for spine in 1..=4 {
        for leaf in 5..=91 {
            area.link(leaf, (spine, 10), (leaf, 10));
        }
    }
    let vip = |n: u16| Ipv4Addr::from_bits(u32::from(n) | 0x0a63_0000);
    for director in 92..=99 {
        area.director(director, 5, director);
        for n in 0..1000 {
            area.host(director, vip(n), 1);
        }
    }
    let body = ExternalLsa {
        mask: Ipv4Addr::BROADCAST,
        kind: ExternalKind::Type2,
        metric: ExternalMetric::from(20),
        forwarding_address: Ipv4Addr::UNSPECIFIED,
        tag: 0,
    };
    area.at(6).flags |= 0x02;
    let external = |n: u16| (6, Ipv4Addr::from_bits(u32::from(n) | 0x0a64_0000), body);
    area.external = (0..10_000).map(external).collect();
    let known: BTreeSet<Ipv4Addr> = (0..1000).map(vip).collect();
    let paths = area.area(92, &[5]).paths(&known).unwrap();
    assert_eq!((paths.omitted_routers, paths.omitted_hosts), (0, 0));
    assert_eq!(paths.viewpoints.len(), 99);
    let [vips, externals] = paths.groups.as_slice() else {
        panic!("two groups, each announced alike: {}", paths.groups.len());
    };
    assert_eq!((vips.hosts.len(), externals.hosts.len()), (1000, 10_000));
    let width = |group: &HostPaths, by: u8| {
        let seen = group.seen.iter().find(|seen| seen.router == router(by));
        seen.map(|seen| seen.width)
    };
    assert_eq!(width(vips, 5), Some(8), "the switch of the directors");
    assert_eq!(width(vips, 1), Some(1), "a spine, by way of that switch");
    assert_eq!(
        width(vips, 91),
        Some(4),
        "another leaf, by way of the spines"
    );
    assert_eq!(width(externals, 91), Some(4));
    assert_eq!(width(externals, 6), Some(0), "who announces them");
}
