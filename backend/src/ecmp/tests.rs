use std::time::Duration;

use isopath_api::desired::AdminState;
use isopath_api::ids::{DirectorName, NeighborState, RouterId};
use isopath_api::observed::Observed;
use isopath_api::reason::Reason;

use super::*;
use crate::testing::{Known, observed, router_id, vip, withdrawn};

fn name(n: u8) -> DirectorName {
    format!("d{n}").parse().unwrap()
}

fn names(of: &[u8]) -> Vec<DirectorName> {
    of.iter().map(|n| name(*n)).collect()
}

fn switch() -> RouterId {
    "10.0.0.1".parse().unwrap()
}

fn the(known: &Known) -> VipTruth {
    let mut all = truth(&known.cluster, known.now, known.started);
    assert_eq!(all.len(), 1, "one VIP is declared");
    all.remove(0)
}

fn of(known: &Known, n: u8) -> Testimony {
    let when = (known.now, known.started);
    testimony(&known.cluster, &name(n), Some(vip()), when)
}

/// The same report without a Full neighbour.
fn alone(mut observed: Observed) -> Observed {
    observed.speaker.as_mut().unwrap().neighbors[0].state = NeighborState::Init;
    observed
}

#[test]
fn in_a_healthy_cluster_wanted_said_and_real_are_the_same() {
    let truth = the(&Known::healthy(3));
    let all = [1, 2, 3];
    assert_eq!(truth.wanted().cloned().collect::<Vec<_>>(), names(&all));
    assert_eq!(truth.said.keys().cloned().collect::<Vec<_>>(), names(&all));
    assert_eq!(truth.witnesses, names(&all));
    let routers = all.map(router_id).into_iter().collect();
    assert_eq!(truth.announcers, routers);
    assert_eq!(truth.switches.len(), 1);
    let [the_switch] = &truth.switches[..] else {
        panic!("{:?}", truth.switches)
    };
    assert_eq!(the_switch.switch, switch());
    assert_eq!(
        (the_switch.equal.width, &the_switch.equal.through),
        (3, &routers)
    );
    assert!(truth.dissent.is_empty() && the_switch.dissent.is_empty());
}

#[test]
fn the_lowest_cost_counts_among_those_that_should_announce() {
    let mut known = Known::healthy(3);
    let declaration = std::sync::Arc::make_mut(&mut known.cluster.declaration);
    declaration.vip[0].director_cost.insert(name(3), 100);
    assert_eq!(the(&known).lowest, names(&[1, 2]).into_iter().collect());
    known.director(1).admin_state = AdminState::Draining;
    let draining = the(&known);
    assert_eq!(draining.wishes[&name(1)], Wish::Leaving);
    assert_eq!(draining.lowest, names(&[2]).into_iter().collect());
    known.director(2).admin_state = AdminState::Drained;
    let backup_alone = the(&known);
    assert_eq!(backup_alone.wishes[&name(2)], Wish::Out);
    assert_eq!(backup_alone.lowest, names(&[3]).into_iter().collect());
}

#[test]
fn most_witnesses_are_believed_and_the_other_is_named() {
    let mut known = Known::healthy(3);
    known.hear(observed(3, &[1, 3]));
    let truth = the(&known);
    assert_eq!(truth.announcers.len(), 3);
    let dissenting = |dissent: &DirectorName| dissent == &name(3);
    assert!(truth.dissent.iter().all(|it| dissenting(&it.witness)));
    assert_eq!(truth.dissent.len(), 1);
    assert_eq!(truth.dissent[0].has, [1, 3].map(router_id).into());
    let [the_switch] = &truth.switches[..] else {
        panic!("{:?}", truth.switches)
    };
    assert_eq!(the_switch.equal.width, 3);
    assert_eq!(the_switch.dissent.len(), 1);
    assert_eq!(the_switch.dissent[0].has.width, 2);
}

#[test]
fn of_two_witnesses_that_disagree_the_later_is_believed() {
    let mut known = Known::healthy(2);
    known.pass(Duration::from_secs(1));
    known.hear(withdrawn(1, &[2], Reason::Stopping));
    let later = the(&known);
    assert_eq!(later.announcers, [router_id(2)].into());
    assert_eq!(later.dissent[0].witness, name(2));
    known.pass(Duration::from_secs(1));
    known.hear(observed(2, &[1, 2]));
    assert_eq!(the(&known).announcers, [1, 2].map(router_id).into());
}

#[test]
fn who_cannot_know_is_no_witness_and_it_is_said_why() {
    let mut known = Known::new(6);
    known.hear(observed(1, &[1, 2, 3]));
    known.pass(Duration::from_secs(7));
    known.hear(observed(2, &[1, 2, 3]));
    known.hear(alone(observed(3, &[3])));
    let mut speechless = observed(4, &[4]);
    speechless.speaker = None;
    known.hear(speechless);
    let mut ignorant = observed(5, &[5]);
    ignorant.speaker.as_mut().unwrap().announcers.clear();
    known.hear(ignorant);
    let truth = the(&known);
    assert_eq!(truth.witnesses, names(&[2]));
    let mut deaf = truth.deaf.clone();
    deaf.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        (name(1), Deaf::Silent(Duration::from_secs(7))),
        (name(3), Deaf::NotFull),
        (name(4), Deaf::NoSpeaker),
        (name(5), Deaf::UnknownVip),
        (name(6), Deaf::NeverHeard),
    ];
    assert_eq!(deaf, expected);
    known.started = known.now;
    let early = of(&known, 1);
    assert!(early.is_early(), "d6 may yet report: {early:?}");
}

#[test]
fn a_director_is_out_when_a_witness_says_so_and_not_when_nobody_can_tell() {
    let mut known = Known::healthy(2);
    let before = of(&known, 1);
    assert!(before.is_listed() && !before.is_out() && !before.is_out_of_sets());
    let places: Vec<Place> = before.listings.iter().map(|it| it.place).collect();
    let in_set = Place::EqualCost { switch: switch() };
    assert_eq!(places, [Place::Announcers, in_set]);
    assert_eq!(
        before.witnesses,
        names(&[2]),
        "d1 does not speak for itself"
    );

    let mut costly = observed(2, &[1, 2]);
    costly.speaker.as_mut().unwrap().widths[0].through = vec![router_id(2)];
    known.hear(costly);
    let raised = of(&known, 1);
    assert!(raised.is_out_of_sets() && !raised.is_out(), "{raised:?}");

    known.hear(observed(2, &[2]));
    assert!(of(&known, 1).is_out());

    known.pass(Duration::from_secs(6));
    let unknown = of(&known, 1);
    assert!(!unknown.is_out() && !unknown.is_out_of_sets() && !unknown.is_listed());
}

#[test]
fn a_lost_director_that_its_switch_still_hears_is_listed_by_the_others() {
    let mut known = Known::healthy(3);
    known.pass(Duration::from_secs(40));
    known.hear(observed(2, &[1, 2, 3]));
    known.hear(observed(3, &[2, 3]));
    let when = (known.now, known.started);
    let heard = testimony(&known.cluster, &name(1), None, when);
    assert!(heard.is_listed());
    assert!(heard.listings.iter().all(|it| it.witness == name(2)));
    known.hear(observed(2, &[2, 3]));
    assert!(!testimony(&known.cluster, &name(1), None, when).is_listed());
}

/// The conditions of `known` now, which it keeps.
fn look(known: &mut Known) -> Vec<String> {
    let next = conditions(&known.cluster, known.now, known.started);
    known.cluster.conditions = next;
    let raised = raised(&known.cluster.conditions);
    raised
        .map(|(key, held)| format!("{} {key}: {}", key.code, held.difference.cause))
        .collect()
}

/// Looks for six seconds in which these reports arrive each second.
fn settle(known: &mut Known, reports: &[Observed]) -> Vec<String> {
    let mut last = Vec::new();
    for _ in 0..=6 {
        for report in reports {
            known.hear(report.clone());
        }
        last = look(known);
        known.pass(Duration::from_secs(1));
    }
    last
}

fn all(directors: u8) -> Vec<Observed> {
    let all: Vec<u8> = (1..=directors).collect();
    all.iter().map(|n| observed(*n, &all)).collect()
}

/// Reports by which the switch spreads the VIP over `through` only.
fn with_set(mut reports: Vec<Observed>, through: &[u8]) -> Vec<Observed> {
    for report in &mut reports {
        let width = &mut report.speaker.as_mut().unwrap().widths[0];
        width.through = through.iter().map(|n| router_id(*n)).collect();
        width.width = u32::try_from(through.len()).unwrap();
    }
    reports
}

#[test]
fn a_healthy_cluster_has_no_condition() {
    let mut known = Known::healthy(3);
    assert_eq!(settle(&mut known, &all(3)), [""; 0]);
    assert!(known.cluster.conditions.is_empty());
}

#[test]
fn a_difference_is_a_condition_once_it_lasts_and_says_since_when() {
    let mut known = Known::healthy(2);
    let reports = with_set(all(2), &[1]);
    let first = known.now;
    let mut raised_after = None;
    for second in 0..6 {
        for report in &reports {
            known.hear(report.clone());
        }
        let found = look(&mut known);
        let is_it = |it: &&String| it.starts_with("announced-not-in-set");
        if raised_after.is_none() && found.iter().any(|it| is_it(&it)) {
            raised_after = Some(second);
        }
        known.pass(Duration::from_secs(1));
    }
    assert_eq!(
        raised_after,
        Some(3),
        "not before three seconds and not later"
    );
    assert!(
        known
            .cluster
            .conditions
            .values()
            .all(|it| it.first == first)
    );
    for report in all(2) {
        known.hear(report);
    }
    assert_eq!(look(&mut known), [""; 0], "it ends as soon as it is over");
    for report in &reports {
        known.hear(report.clone());
    }
    assert_eq!(look(&mut known), [""; 0], "what comes again lasts anew");
}

#[test]
fn what_nobody_can_tell_stays_as_it_was_seen_last() {
    let mut known = Known::healthy(2);
    let before = settle(&mut known, &with_set(all(2), &[1]));
    assert_eq!(before.len(), 2, "{before:?}");
    known.pass(Duration::from_secs(10));
    assert_eq!(look(&mut known), before, "all agents are silent");
    known.hear(observed(1, &[1, 2]));
    assert_eq!(look(&mut known), [""; 0]);
}

#[test]
fn each_difference_has_its_name_and_its_cause() {
    type Case = (&'static [&'static str], fn(&mut Known) -> Vec<Observed>);
    let cases: [Case; 10] = [
        (
            &["vip-not-announced VIP 10.99.0.1 on director d2: its agent withholds it: stopping"],
            |_| vec![observed(1, &[1]), withdrawn(2, &[1], Reason::Stopping)],
        ),
        (
            &[
                "vip-not-announced VIP 10.99.0.1 on director d2: its agent is silent, and no LSDB \
               has it announce it",
            ],
            |known| {
                known.pass(Duration::from_secs(10));
                vec![observed(1, &[1])]
            },
        ),
        (
            &[
                "announced-not-in-set VIP 10.99.0.1 on director d2 at switch 10.0.0.1: its path \
                 costs more than the 11 of those in the set",
                "width-below-announcers VIP 10.99.0.1 on switch 10.0.0.1: its ECMP width is 1, and \
                 2 directors announce it at the lowest cost; one of them is not in its set",
            ],
            |_| with_set(all(2), &[1]),
        ),
        (
            &[
                "announced-not-in-set VIP 10.99.0.1 on director d2 at switch 10.0.0.1: it \
                 announces it at cost 50, 1 is declared",
                "width-below-announcers VIP 10.99.0.1 on switch 10.0.0.1: its ECMP width is 1, and \
                 2 directors announce it at the lowest cost; one of them is not in its set",
            ],
            |_| {
                let mut reports = with_set(all(2), &[1]);
                reports[1].speaker.as_mut().unwrap().announced[0].cost = 50;
                reports
            },
        ),
        (
            &[
                "width-below-announcers VIP 10.99.0.1 on switch 10.0.0.1: its ECMP width is 1, and \
               2 directors announce it at the lowest cost; some of them share a next hop",
            ],
            |_| {
                let mut reports = all(2);
                for report in &mut reports {
                    report.speaker.as_mut().unwrap().widths[0].width = 1;
                }
                reports
            },
        ),
        (
            &[
                "in-set-not-wanted VIP 10.99.0.1 on director d2 at switch 10.0.0.1: it is to be \
                 out, and the switch still sends it clients",
                "announcing-while-drained VIP 10.99.0.1 on director d2: it is to be out, and \
                 still announces it",
            ],
            |known| {
                known.director(2).admin_state = AdminState::Drained;
                all(2)
            },
        ),
        (
            &[
                "in-set-not-wanted VIP 10.99.0.1 on director d2 at switch 10.0.0.1: it is a backup \
               of cost 100, and the switch uses it beside those of the lowest cost",
            ],
            |known| {
                let declaration = std::sync::Arc::make_mut(&mut known.cluster.declaration);
                declaration.vip[0].director_cost.insert(name(2), 100);
                all(2)
            },
        ),
        (
            &[
                "foreign-announcer VIP 10.99.0.1 on router 10.0.9.2: announced by 10.0.9.2, which \
               is no director",
            ],
            |_| vec![observed(1, &[1, 2, 9]), observed(2, &[1, 2, 9])],
        ),
        (
            &[
                "witnesses-disagree VIP 10.99.0.1 on director d2: its LSDB has it announced by d2, \
               most have d1, d2",
            ],
            |_| {
                // The later report of two is believed.
                vec![observed(2, &[2]), observed(1, &[1, 2])]
            },
        ),
        (
            &[
                "switch-sees-nothing VIP 10.99.0.1 on switch 10.0.0.1: it has no path to it, \
                 though it is announced by d1, d2",
                "switch-not-reached switch 10.0.0.9: no director's LSDB reaches sw9",
            ],
            |known| {
                let declaration = std::sync::Arc::make_mut(&mut known.cluster.declaration);
                let switch = serde_json::json!({ "name": "sw9", "router_id": "10.0.0.9" });
                declaration
                    .switch
                    .push(serde_json::from_value(switch).unwrap());
                with_set(all(2), &[])
            },
        ),
    ];
    for (expected, prepare) in cases {
        let mut known = Known::healthy(2);
        let reports = prepare(&mut known);
        // A later report is of a later moment.
        for (index, report) in reports.iter().enumerate() {
            known.pass(Duration::from_millis(u64::try_from(index).unwrap()));
            known.hear(report.clone());
        }
        let mut found = look(&mut known);
        for _ in 0..6 {
            known.pass(Duration::from_secs(1));
            for report in &reports {
                known.pass(Duration::from_millis(1));
                known.hear(report.clone());
            }
            found = look(&mut known);
        }
        assert_eq!(found, expected);
    }
}

#[test]
fn a_broken_uplink_is_told_and_one_that_was_never_meant_is_not() {
    let other: RouterId = "10.0.0.2".parse().unwrap();
    // Both switches see the VIP; d2 is Full with the first only, d1 with both.
    let reports = |idle: bool| {
        let mut reports = all(2);
        for report in &mut reports {
            let speaker = report.speaker.as_mut().unwrap();
            let mut width = speaker.widths[0].clone();
            width.router_id = other;
            width.through = vec![router_id(1)];
            width.width = 1;
            speaker.widths.push(width);
        }
        let of_d1 = reports[0].speaker.as_mut().unwrap();
        let mut neighbor = of_d1.neighbors[0].clone();
        (neighbor.router_id, neighbor.interface) = (other, "eth2".to_owned());
        of_d1.neighbors.push(neighbor);
        let interfaces = if idle {
            &["eth1", "eth2"][..]
        } else {
            &["eth1"]
        };
        reports[1].speaker.as_mut().unwrap().interfaces =
            interfaces.iter().map(|name| interface(name)).collect();
        reports
    };
    let found = settle(&mut Known::healthy(2), &reports(true));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0]
            .starts_with("announced-not-in-set VIP 10.99.0.1 on director d2 at switch 10.0.0.2")
            && found[0].ends_with("its uplink eth2 has no Full neighbour"),
        "{found:?}"
    );
    assert_eq!(settle(&mut Known::healthy(2), &reports(false)), [""; 0]);
}

fn interface(name: &str) -> isopath_api::interface::Interface {
    isopath_api::interface::Interface {
        name: name.to_owned(),
        address: None,
        unnumbered: false,
        auth: isopath_api::interface::Authentication::None,
        refused: None,
    }
}

#[test]
fn nobody_who_could_tell_is_a_condition_but_not_just_after_a_start() {
    let mut known = Known::new(2);
    let alone_all = [alone(observed(1, &[1])), alone(observed(2, &[2]))];
    let found = settle(&mut known, &alone_all);
    assert_eq!(
        found,
        [
            "no-witness VIP 10.99.0.1: nobody knows who announces it: the LSDB of d1 cannot be \
          counted nor that of another director"
        ]
    );
    let mut started = Known::new(2);
    started.started = started.now;
    assert_eq!(settle(&mut started, &alone_all[..1]), [""; 0]);
}

#[test]
fn a_director_that_leaves_differs_in_nothing() {
    for reports in [
        all(2),
        with_set(all(2), &[2]),
        vec![observed(2, &[2]), withdrawn(1, &[2], Reason::Stopping)],
    ] {
        let mut known = Known::healthy(2);
        known.director(1).admin_state = AdminState::Draining;
        assert_eq!(settle(&mut known, &reports), [""; 0]);
    }
}

#[test]
fn what_is_declared_no_more_has_no_condition() {
    let mut known = Known::healthy(2);
    settle(&mut known, &with_set(all(2), &[1]));
    known.cluster.directors.remove(&name(2));
    known.pass(Duration::from_secs(10));
    let found = look(&mut known);
    assert!(!found.iter().any(|it| it.contains("d2")), "{found:?}");
    let declaration = std::sync::Arc::make_mut(&mut known.cluster.declaration);
    declaration.vip.clear();
    assert_eq!(look(&mut known), [""; 0]);
}

#[test]
fn conditions_that_differ_in_the_vip_alone_are_one_group() {
    let key = |n: u8, director: u8| Key {
        code: isopath_api::ecmp::EcmpCode::VipNotAnnounced,
        director: Some(name(director)),
        router: None,
        vip: Some(format!("10.99.0.{n}").parse().unwrap()),
    };
    let now = crate::clock::Clock::default().now();
    let held = Held {
        first: now,
        raised: true,
        difference: Difference {
            cause: String::new(),
            next: "",
        },
    };
    let keys = [key(1, 1), key(2, 1), key(3, 1), key(1, 2)];
    let conditions: Conditions = keys.into_iter().map(|key| (key, held.clone())).collect();
    let groups: Vec<_> = groups(conditions.iter()).iter().map(Group::vips).collect();
    let expected = ["10.99.0.1 and 2 more VIPs", "10.99.0.1"];
    assert_eq!(groups, expected.map(|it| Some(it.to_owned())));
}

#[test]
fn a_switch_that_is_declared_no_more_has_no_condition() {
    let not_reached = || {
        let mut known = Known::healthy(2);
        let declaration = std::sync::Arc::make_mut(&mut known.cluster.declaration);
        let switch = serde_json::json!({ "name": "sw9", "router_id": "10.0.0.9" });
        let switch = serde_json::from_value(switch).unwrap();
        declaration.switch.push(switch);
        let found = settle(&mut known, &all(2));
        assert_eq!(found.len(), 1, "{found:?}");
        known
    };
    let mut known = not_reached();
    std::sync::Arc::make_mut(&mut known.cluster.declaration)
        .switch
        .pop();
    known.pass(Duration::from_secs(10));
    assert_eq!(look(&mut known), [""; 0], "nobody reports");
    let mut known = not_reached();
    std::sync::Arc::make_mut(&mut known.cluster.declaration)
        .vip
        .clear();
    known.pass(Duration::from_secs(10));
    assert_eq!(look(&mut known), [""; 0], "without a VIP nobody is asked");
}

/// The switch tells of its new neighbour some seconds later, and until then nobody is reached.
#[test]
fn who_has_just_become_full_is_no_witness_of_others() {
    let mut known = Known::healthy(2);
    let mut fresh = observed(2, &[2]);
    fresh.speaker.as_mut().unwrap().neighbors[0].state_ms = 2_000;
    known.hear(fresh);
    let said = of(&known, 1);
    assert!(!said.is_out(), "{said:?}");
    assert_eq!(said.deaf[0].1.to_string(), "it is Full for 2 s only");
}
