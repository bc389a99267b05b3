//! Each case is small enough to be checked on paper. Routers 1 and 2 are switches, 11 and up
//! directors; directors announce VIP at cost 1 unless said.

use super::*;

use Cost::{External1, External2, IntraArea};
use ExternalKind::{Type1, Type2};

/// One switch with directors 11 to `last` on links of their own.
fn star(last: u8) -> Sketch {
    let mut area = Sketch::default();
    for id in 11..=last {
        area.director(id, 1, id);
        area.host(id, VIP, 1);
    }
    area
}

#[test]
fn one_switch_has_as_many_next_hops_as_directors_announce() {
    let mut area = star(14);
    assert_eq!(
        seen(&area.paths(11), 1),
        Some((IntraArea(11), 4, vec![11, 12, 13, 14]))
    );
    assert_eq!(announcers(&area.paths(11)), [11, 12, 13, 14]);
    // A drained director has its links and not the host.
    area.at(12).links.pop();
    assert_eq!(
        seen(&area.paths(11), 1),
        Some((IntraArea(11), 3, vec![11, 13, 14]))
    );
    // It would send to the others by way of the switch, whose link to them is a single one.
    assert_eq!(
        seen(&area.paths(11), 12),
        Some((IntraArea(0xffff + 11), 1, vec![11, 13, 14]))
    );
}

#[test]
fn a_director_has_the_host_itself() {
    assert_eq!(
        seen(&star(12).paths(11), 12),
        Some((IntraArea(1), 0, vec![12]))
    );
}

#[test]
fn switches_forward_and_directors_do_not() {
    let viewpoints = star(12).paths(11).viewpoints;
    let forwards: Vec<(RouterId, bool)> = viewpoints
        .iter()
        .map(|viewpoint| (viewpoint.router, viewpoint.forwards))
        .collect();
    let expected = [(router(11), false), (router(1), true), (router(12), false)];
    assert_eq!(forwards, expected);
}

#[test]
fn the_stale_lsa_of_a_crashed_director_does_not_count() {
    let mut area = star(13);
    // The switch has noticed: its Router-LSA links to 12 no more. 12's own stays as it was.
    area.at(1).links.retain(|link| link.id != router(12).0);
    let paths = area.paths(11);
    assert_eq!(seen(&paths, 1), Some((IntraArea(11), 2, vec![11, 13])));
    assert_eq!(announcers(&paths), [11, 13]);
    assert_eq!(seen(&paths, 12), None, "nobody asks a dead router");
    let claims = area.area(11, &[1]).claims(&BTreeSet::from([VIP]));
    assert_eq!(claims.len(), 3, "it still says so itself");
    // It comes back with a Router-LSA without its link to the switch: one end is not enough.
    area.half(12, 1, 12, 10);
    area.at(12).links.retain(|link| link.kind == LinkKind::Stub);
    assert_eq!(announcers(&area.paths(11)), [11, 13]);
}

#[test]
fn a_primary_goes_before_a_backup_and_both_announce() {
    let mut area = star(11);
    area.director(12, 1, 12);
    area.host(12, VIP, 100);
    let paths = area.paths(11);
    assert_eq!(seen(&paths, 1), Some((IntraArea(11), 1, vec![11])));
    assert_eq!(announcers(&paths), [11, 12]);
}

#[test]
fn each_of_two_switches_sees_what_its_own_links_cost() {
    let mut area = Sketch::default();
    for id in 11..=12 {
        area.director(id, 1, id);
        area.director(100 + id, 2, id);
        area.host(id, VIP, 1);
    }
    // Switch 2 has a dearer link to director 12 than the way over switch 1 would be.
    area.link(3, (1, 1), (2, 1));
    for link in &mut area.at(2).links {
        if link.id == router(12).0 {
            link.metric = 50;
        }
    }
    let paths = area.paths(11);
    assert_eq!(seen(&paths, 1), Some((IntraArea(11), 2, vec![11, 12])));
    assert_eq!(seen(&paths, 2), Some((IntraArea(11), 1, vec![11])));
}

#[test]
fn two_uplinks_to_one_switch_are_two_next_hops_to_one_director() {
    let mut area = star(11);
    area.director(111, 1, 11);
    assert_eq!(seen(&area.paths(11), 1), Some((IntraArea(11), 2, vec![11])));
    // Only the switch has the second adjacency yet: one of its two links leads nowhere.
    let second = |link: &RouterLink| link.data == on(111, 11);
    area.at(11).links.retain(|link| !second(link));
    assert_eq!(seen(&area.paths(11), 1), Some((IntraArea(11), 1, vec![11])));
}

#[test]
fn a_router_behind_the_switches_counts_switches_and_not_directors() {
    let mut area = star(12);
    area.director(13, 2, 13);
    area.host(13, VIP, 1);
    area.link(3, (3, 5), (1, 5));
    area.link(4, (3, 5), (2, 5));
    let paths = area.paths(11);
    assert_eq!(seen(&paths, 3), Some((IntraArea(16), 2, vec![11, 12, 13])));
    // From switch 1 director 13 is 5 + 5 further away.
    assert_eq!(seen(&paths, 1), Some((IntraArea(11), 2, vec![11, 12])));
}

#[test]
fn on_a_segment_each_director_is_a_next_hop() {
    let mut area = Sketch::default();
    area.segment(9, &[(1, 10), (2, 10), (11, 0xffff), (12, 0xffff)]);
    for id in 11..=12 {
        area.host(id, VIP, 1);
    }
    let paths = area.paths(11);
    for switch in 1..=2 {
        let expected = (IntraArea(11), 2, vec![11, 12]);
        assert_eq!(seen(&paths, switch), Some(expected), "switch {switch}");
    }
    // The Designated Router has found 12 dead: its Network-LSA lists it no more.
    let network = area.networks.get_mut(&(on(9, 1), 1)).unwrap();
    network.routers.retain(|id| *id != router(12));
    let paths = area.paths(11);
    assert_eq!(seen(&paths, 1), Some((IntraArea(11), 1, vec![11])));
    assert_eq!(announcers(&paths), [11]);
}

#[test]
fn from_behind_a_segment_the_way_there_counts_once() {
    let mut area = Sketch::default();
    area.segment(9, &[(1, 10), (11, 0xffff), (12, 0xffff)]);
    area.link(3, (3, 5), (1, 5));
    for id in 11..=12 {
        area.host(id, VIP, 1);
    }
    assert_eq!(
        seen(&area.paths(11), 3),
        Some((IntraArea(16), 1, vec![11, 12]))
    );
}

#[test]
fn intra_area_goes_before_e1_and_e1_before_e2_whatever_the_cost() {
    let mut area = Sketch::default();
    for id in 11..=13 {
        area.director(id, 1, id);
    }
    area.external(13, Type2, 1, None);
    assert_eq!(
        seen(&area.paths(11), 1),
        Some((
            External2 {
                metric: 1,
                distance: 10
            },
            1,
            vec![13]
        ))
    );
    area.external(12, Type1, 5000, None);
    assert_eq!(
        seen(&area.paths(11), 1),
        Some((External1(5010), 1, vec![12]))
    );
    area.host(11, VIP, 60_000);
    assert_eq!(
        seen(&area.paths(11), 1),
        Some((IntraArea(60_010), 1, vec![11]))
    );
    assert_eq!(announcers(&area.paths(11)), [11, 12, 13]);
}

#[test]
fn e1_adds_the_way_and_e2_compares_it_only_between_equals() {
    let mut near_and_far = Sketch::default();
    near_and_far.director(11, 1, 11);
    near_and_far.link(12, (1, 20), (12, 0xffff));

    let mut area = near_and_far.clone();
    area.external(11, Type1, 30, None);
    area.external(12, Type1, 20, None);
    let merged = Some((External1(40), 2, vec![11, 12]));
    assert_eq!(seen(&area.paths(11), 1), merged);

    let mut area = near_and_far.clone();
    area.external(11, Type2, 30, None);
    area.external(12, Type2, 20, None);
    let cost = External2 {
        metric: 20,
        distance: 20,
    };
    assert_eq!(seen(&area.paths(11), 1), Some((cost, 1, vec![12])));

    let mut area = near_and_far;
    area.external(11, Type2, 20, None);
    area.external(12, Type2, 20, None);
    let cost = External2 {
        metric: 20,
        distance: 10,
    };
    assert_eq!(seen(&area.paths(11), 1), Some((cost, 1, vec![11])));
}

#[test]
fn an_external_route_needs_an_as_boundary_router_that_is_there() {
    let mut area = star(12);
    for id in 11..=12 {
        area.at(id).links.pop();
        area.external(id, Type2, 20, None);
    }
    assert_eq!(announcers(&area.paths(11)), [11, 12]);
    let mut without_e_bit = area.clone();
    without_e_bit.at(12).flags = 0;
    assert_eq!(announcers(&without_e_bit.paths(11)), [11]);
    let mut crashed = area.clone();
    crashed.at(1).links.retain(|link| link.id != router(12).0);
    assert_eq!(announcers(&crashed.paths(11)), [11]);
    let mut withdrawn = area;
    withdrawn.external[1].2.metric = ExternalMetric::INFINITY;
    assert_eq!(announcers(&withdrawn.paths(11)), [11]);
}

#[test]
fn a_forwarding_address_is_where_the_packets_go() {
    let mut area = Sketch::default();
    area.segment(9, &[(1, 10), (11, 0xffff), (12, 0xffff)]);
    area.link(3, (3, 5), (1, 5));
    // 11 announces on behalf of a host of the segment that speaks no OSPF, and for itself.
    area.external(11, Type1, 20, Some(on(9, 77)));
    area.external(12, Type1, 20, Some(on(9, 12)));
    let paths = area.paths(11);
    assert_eq!(
        seen(&paths, 1),
        Some((External1(30), 2, vec![11, 12])),
        "both are a step away"
    );
    assert_eq!(seen(&paths, 3), Some((External1(35), 1, vec![11, 12])));
    // Two that say the same forwarding address are one next hop.
    area.external[1].2.forwarding_address = on(9, 77);
    assert_eq!(
        seen(&area.paths(11), 1),
        Some((External1(30), 1, vec![11, 12]))
    );
    // An address outside of the area's subnets leads nowhere, and neither does one's own.
    area.external[1].2.forwarding_address = Ipv4Addr::new(192, 0, 2, 1);
    assert_eq!(announcers(&area.paths(11)), [11]);
    area.external[0].2.forwarding_address = on(9, 1);
    assert_eq!(seen(&area.paths(11), 1), None);
}

#[test]
fn on_a_point_to_point_link_a_forwarding_address_is_on_the_switchs_own_subnet() {
    let mut area = Sketch::default();
    for id in 11..=13 {
        area.director(id, 1, id);
        area.external(id, Type1, 20, Some(on(id, id)));
    }
    assert_eq!(
        seen(&area.paths(11), 1),
        Some((External1(30), 3, vec![11, 12, 13]))
    );
}

#[test]
fn type_7_is_calculated_as_type_5() {
    let mut area = star(12);
    for id in 11..=12 {
        area.at(id).links.pop();
        area.external(id, Type2, 20, Some(on(id, id)));
    }
    let area = area.area_with(11, &[1], LsType::Nssa);
    let paths = area.paths(&BTreeSet::from([VIP])).unwrap();
    let cost = External2 {
        metric: 20,
        distance: 10,
    };
    assert_eq!(seen(&paths, 1), Some((cost, 2, vec![11, 12])));
}

#[test]
fn without_a_router_lsa_of_ours_nothing_is_seen() {
    let paths = star(12).paths(99);
    assert_eq!(paths.viewpoints, []);
    assert_eq!(of_vip(&paths).announcers, []);
    assert_eq!(of_vip(&paths).seen, []);
}

#[test]
fn an_announced_nowhere_vip_is_shown_with_nobody() {
    let mut area = star(11);
    area.at(11).links.pop();
    let paths = area.paths(11);
    assert_eq!(announcers(&paths), Vec::<u8>::new());
    assert_eq!(seen(&paths, 1), None);
    assert_eq!(paths.viewpoints.len(), 2);
}

#[test]
fn hosts_that_are_announced_alike_are_one_group_and_interfaces_are_no_hosts() {
    let mut area = star(12);
    let other = Ipv4Addr::new(10, 99, 0, 2);
    let third = Ipv4Addr::new(10, 99, 0, 3);
    for id in 11..=12 {
        area.host(id, other, 1);
        area.host(id, third, 2);
    }
    // The other form of a point-to-point link's subnet: the neighbour's address as a host.
    area.host(1, on(11, 11), 10);
    let paths = area
        .area(11, &[1])
        .paths(&BTreeSet::from([VIP, other]))
        .unwrap();
    let hosts: Vec<&[Ipv4Addr]> = paths.groups.iter().map(|g| g.hosts.as_slice()).collect();
    assert_eq!(hosts, [&[VIP, other][..], &[third]]);
}
