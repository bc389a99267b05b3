//! One table: what is heard, and what is then shown.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use isopath_api::desired::AdminState;
use isopath_api::ids::NeighborState;
use isopath_api::interface::{Authentication, Interface, Refused};
use isopath_api::observed::{CheckResult, Health};
use isopath_api::operation::StepName;
use isopath_api::reason::Reason;
use isopath_api::view::{Agreement, Contact, DirectorView};
use jiff::Timestamp;

use super::*;
use crate::control::operation::Kind;
use crate::control::state::{Conflict, Report};
use crate::testing::{Known, SERVICE, observed, router_id, set_health, with_digest, withdrawn};

fn shown(known: &Known) -> ClusterView {
    build(&known.cluster, known.now, known.started)
}

fn director(view: &ClusterView, n: usize) -> &DirectorView {
    &view.directors[n - 1]
}

/// Each problem as `object: cause`.
fn problems(view: &ClusterView) -> Vec<String> {
    let problems = view.problems.iter();
    problems
        .map(|p| format!("{}: {}", p.object, p.cause))
        .collect()
}

fn below_quorum() -> Reason {
    Reason::BelowQuorum {
        service: SERVICE.parse().unwrap(),
        healthy: 0,
        quorum: 1,
        of: 2,
    }
}

#[test]
fn all_is_well() {
    let view = shown(&Known::healthy(3));
    assert_eq!(view.state, State::Up);
    assert_eq!(
        view.verdict,
        "10.99.0.1 is announced by all 3 directors in service."
    );
    assert_eq!(problems(&view), [""; 0]);
    assert!(
        view.directors.iter().all(|d| d.state == State::Up),
        "{:?}",
        view.directors
    );
    assert_eq!(view.directors[0].why, "announces the VIP");
    assert_eq!(view.directors[0].active, 6);
    assert_eq!(view.vips[0].real, view.vips[0].wanted);
    let [seen] = view.vips[0].widths.as_slice() else {
        panic!("one switch: {:?}", view.vips[0].widths);
    };
    assert_eq!((seen.width, seen.switch_name().as_str()), (3, "sw1"));
    assert_eq!(seen.through, ["d1", "d2", "d3"]);
    assert_eq!(view.services[0].scheduler, "mh mh-fallback,mh-port");
    assert_eq!(view.services[0].real_servers[0].active, 9);
    assert_eq!(view.switches.len(), 1);
    assert_eq!(view.switches[0].name.as_deref(), Some("sw1"));
    assert_eq!(view.switches[0].full.len(), 3);
}

#[test]
fn nothing_is_known_right_after_the_start() {
    let mut known = Known::new(2);
    known.started = known.now;
    let view = shown(&known);
    assert_eq!(view.state, State::Unknown);
    assert_eq!(director(&view, 1).state, State::Unknown);
    assert_eq!(
        director(&view, 1).why,
        "not heard since the controller started"
    );
    assert_eq!(view.vips[0].state, State::Unknown);
    assert_eq!(view.services[0].state, State::Unknown);
    let expected = "Nothing is known of any director (d1: not heard since the controller started).";
    assert_eq!(view.verdict, expected);
}

#[test]
fn a_cluster_without_directors_is_not_called_healthy() {
    let view = shown(&Known::new(0));
    assert_eq!(
        (view.state, view.verdict.as_str()),
        (State::Unknown, "No directors are declared.")
    );
}

/// What is done to a healthy cluster of three, and the state of d1, why, and the problems.
#[test]
fn one_director_in_trouble() {
    struct Case {
        what: &'static str,
        change: fn(&mut Known),
        state: State,
        why: &'static str,
        problems: &'static [&'static str],
    }
    let cases = [
        Case {
            what: "silent, and its announcement is still there",
            change: |known| {
                known.pass(Duration::from_secs(6));
                known.hear(observed(2, &[1, 2, 3]));
                known.hear(observed(3, &[1, 2, 3]));
            },
            state: State::Degraded,
            why: "its agent is silent for 6 s; it still announces 10.99.0.1 by the LSDB of d2",
            problems: &["director d1: its agent is silent"],
        },
        Case {
            what: "silent, and its announcement is gone",
            change: |known| {
                known.pass(Duration::from_secs(31));
                known.hear(observed(2, &[2, 3]));
                known.hear(observed(3, &[2, 3]));
            },
            state: State::Down,
            why: "its agent is lost, silent for 31 s; it announces nothing by the LSDB of d2, d3",
            problems: &["director d1: its agent is lost"],
        },
        Case {
            what: "silent, and so is everybody",
            change: |known| known.pass(Duration::from_secs(6)),
            state: State::Unknown,
            why: "its agent is silent for 6 s; no other director can tell",
            problems: &["director d1: its", "director d2: its", "director d3: its"],
        },
        Case {
            what: "its speaker is gone",
            change: |known| {
                let mut report = observed(1, &[]);
                report.speaker = None;
                known.hear(report);
                known.hear(observed(2, &[2, 3]));
                known.hear(observed(3, &[2, 3]));
            },
            state: State::Down,
            why: "its agent cannot reach its speaker; it announces nothing by the LSDB of d2, d3",
            problems: &["director d1: its agent cannot reach its speaker"],
        },
        Case {
            what: "its neighbour is not Full",
            change: |known| {
                let mut report = observed(1, &[1]);
                report.speaker.as_mut().unwrap().neighbors[0].state = NeighborState::ExStart;
                known.hear(report);
                known.hear(observed(2, &[2, 3]));
                known.hear(observed(3, &[2, 3]));
            },
            state: State::Down,
            why: "no OSPF neighbour is Full: 10.0.0.1 on eth1 is ExStart",
            problems: &["director d1: no OSPF neighbour is Full"],
        },
        Case {
            what: "it withholds the VIP",
            change: |known| {
                known.hear(withdrawn(1, &[2, 3], below_quorum()));
                known.hear(observed(2, &[2, 3]));
                known.hear(observed(3, &[2, 3]));
            },
            state: State::Degraded,
            why: "10.99.0.1 is withdrawn: tcp:10.99.0.1:80: 0 of 2 real servers healthy",
            problems: &[
                "VIP 10.99.0.1: announced by 2 of 3 directors, not by d1: tcp:10.99.0.1:80: 0 of 2",
            ],
        },
        Case {
            what: "its data plane fails",
            change: |known| {
                let mut report = observed(1, &[1, 2, 3]);
                report
                    .dataplane
                    .failures
                    .push("add service: no such scheduler".to_owned());
                known.hear(report);
            },
            state: State::Degraded,
            why: "data plane: add service: no such scheduler",
            problems: &["director d1: data plane"],
        },
        Case {
            what: "it follows another database",
            change: |known| {
                let mut report = observed(1, &[1, 2, 3]);
                report.epoch = Some("another".to_owned());
                known.hear(report);
            },
            state: State::Degraded,
            why: "it follows no desired state of this controller",
            problems: &["director d1: it follows no"],
        },
        Case {
            what: "a second agent speaks for it",
            change: |known| {
                let now = known.now;
                known.director(1).conflict = Some(Conflict {
                    code: crate::control::fleet::Refused::WrongAgent,
                    cause: "a second agent speaks for d1".to_owned(),
                    since: now,
                    last: now,
                });
            },
            state: State::Up,
            why: "announces the VIP",
            problems: &["agent of director d1: a second agent speaks for d1; it is refused"],
        },
    ];
    for case in cases {
        let mut known = Known::healthy(3);
        (case.change)(&mut known);
        let view = shown(&known);
        let d1 = director(&view, 1);
        assert_eq!(d1.state, case.state, "{}: {}", case.what, d1.why);
        assert!(d1.why.starts_with(case.why), "{}: {}", case.what, d1.why);
        let problems = problems(&view);
        assert_eq!(
            problems.len(),
            case.problems.len(),
            "{}: {problems:?}",
            case.what
        );
        for (problem, expected) in problems.iter().zip(case.problems) {
            assert!(problem.starts_with(expected), "{}: {problem}", case.what);
        }
        assert_ne!(view.state, State::Up, "{}", case.what);
        assert!(!view.verdict.is_empty() && view.problems.iter().all(|p| !p.next.is_empty()));
    }
}

#[test]
fn drained_is_safe_only_if_no_lsdb_lists_it() {
    let reason = Reason::Drained {
        text: "kernel".to_owned(),
    };
    let mut known = Known::healthy(2);
    known.director(1).admin_state = AdminState::Drained;
    known.director(1).admin_reason = "kernel".to_owned();
    known.hear(withdrawn(1, &[2], reason));
    known.hear(observed(2, &[2]));
    let view = shown(&known);
    assert_eq!(director(&view, 1).state, State::Safe);
    assert_eq!(director(&view, 1).why, "drained: kernel");
    assert_eq!(view.state, State::Up);
    let expected = "10.99.0.1 is announced by 1 director; d1 is drained.";
    assert_eq!(view.verdict, expected);

    known.hear(observed(2, &[1, 2]));
    let view = shown(&known);
    assert_eq!(director(&view, 1).state, State::Degraded);
    let expected = "director d1: drained: kernel; but the LSDB of d2 still lists it for 10.99.0.1";
    assert_eq!(problems(&view), [expected]);

    known.hear(observed(1, &[1]));
    known.hear(observed(2, &[2]));
    let view = shown(&known);
    assert_eq!(director(&view, 1).state, State::Degraded, "others may hear");
    let expected = "director d1: drained: kernel; but it says it still announces";
    let found = problems(&view);
    assert!(found.iter().any(|it| it == expected), "{found:?}");
}

#[test]
fn a_drained_director_may_be_switched_off() {
    let mut known = Known::new(2);
    known.director(1).admin_state = AdminState::Drained;
    known.hear(observed(2, &[2]));
    assert_eq!(director(&shown(&known), 1).state, State::Safe);
    known.director(2).report = None;
    assert_eq!(
        director(&shown(&known), 1).state,
        State::Unknown,
        "nobody can tell"
    );
}

#[test]
fn a_vip_that_nobody_announces_is_down_and_told_first() {
    let mut known = Known::healthy(2);
    for n in [1, 2] {
        let mut report = withdrawn(n, &[], below_quorum());
        for server in [0, 1] {
            set_health(&mut report, server, Health::Down);
        }
        known.hear(report);
    }
    let view = shown(&known);
    assert_eq!(view.state, State::Down);
    assert_eq!(view.vips[0].state, State::Down);
    assert_eq!(view.services[0].state, State::Down);
    let problems = problems(&view);
    assert_eq!(
        problems.len(),
        2,
        "objects are told, not checks: {problems:?}"
    );
    assert!(
        problems[0].starts_with("VIP 10.99.0.1: announced by nobody"),
        "{problems:?}"
    );
    assert!(
        problems[1].starts_with("service tcp:10.99.0.1:80: 0 of 2"),
        "{problems:?}"
    );
    assert!(
        view.verdict.ends_with("(and 1 more problem)."),
        "{}",
        view.verdict
    );
}

#[test]
fn a_router_that_is_no_director_is_shown() {
    let mut known = Known::healthy(2);
    known.hear(observed(2, &[1, 2, 9]));
    let view = shown(&known);
    assert_eq!(view.vips[0].foreign, [router_id(9)]);
    assert_eq!(view.vips[0].state, State::Degraded);
    assert!(problems(&view)[0].contains("10.0.9.2, which is no director"));
}

#[test]
fn the_lsdb_of_a_director_without_a_neighbour_is_not_believed() {
    let mut known = Known::healthy(2);
    known.pass(Duration::from_secs(1));
    let mut island = observed(1, &[1]);
    island.speaker.as_mut().unwrap().neighbors.clear();
    known.hear(island);
    let real: Vec<_> = shown(&known).vips[0]
        .real
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        real,
        ["d1", "d2"],
        "the older LSDB of d2 is the one that knows"
    );
}

#[test]
fn a_key_that_keeps_a_switch_out_is_told_though_all_else_is_well() {
    let mut known = Known::healthy(1);
    known.pass(Duration::from_secs(1));
    let mut report = observed(1, &[1]);
    report.speaker.as_mut().unwrap().interfaces = vec![Interface {
        name: "eth2".to_owned(),
        address: None,
        unnumbered: false,
        auth: Authentication::Simple,
        refused: Some(Refused {
            count: 4,
            address: Ipv4Addr::new(10, 0, 1, 1),
            detail: "authentication: another password".to_owned(),
            ago_ms: 700,
        }),
    }];
    known.hear(report);
    assert_eq!(
        problems(&shown(&known)),
        ["uplink eth2 of director d1: authentication: another password on eth2 from 10.0.1.1"]
    );
}

#[test]
fn directors_that_disagree_over_a_real_server_are_named() {
    let mut known = Known::healthy(2);
    let mut report = observed(1, &[1, 2]);
    set_health(&mut report, 0, Health::Down);
    report.services[0].real_servers[0].last_check = Some(CheckResult {
        ok: false,
        detail: "TCP refused".to_owned(),
        took_ms: 1,
        in_a_row: 3,
        at: Timestamp::UNIX_EPOCH,
    });
    known.hear(report);
    let view = shown(&known);
    assert_eq!(view.services[0].state, State::Degraded);
    assert_eq!(view.services[0].real_servers[0].state, State::Degraded);
    assert_eq!(view.services[0].real_servers[1].state, State::Up);
    let expected =
        "real server 10.1.0.11:80 of tcp:10.99.0.1:80: down on d1: TCP refused; up on d2";
    assert_eq!(problems(&view), [expected]);
}

#[test]
fn a_service_that_is_not_decided_yet_is_unknown() {
    let mut known = Known::healthy(1);
    let mut report = observed(1, &[1]);
    for server in [0, 1] {
        set_health(&mut report, server, Health::Unknown);
    }
    known.hear(report);
    assert_eq!(shown(&known).services[0].state, State::Unknown);
}

#[test]
fn an_operation_that_hangs_is_told_with_what_it_waits_for() {
    let mut known = Known::healthy(2);
    known.director(1).admin_state = AdminState::Draining;
    let mut operation = known.operation(Kind::Drain, "d1", StepName::Withdraw);
    operation.detail = "d1 still announces 10.99.0.1".to_owned();
    known.cluster.operations.push(operation);
    let view = shown(&known);
    assert_eq!(director(&view, 1).state, State::Draining);
    assert_eq!(director(&view, 1).why, "d1 still announces 10.99.0.1");
    assert_eq!(problems(&view), [""; 0], "it has just begun");
    known.pass(Duration::from_secs(31));
    known.hear(observed(1, &[1, 2]));
    known.hear(observed(2, &[1, 2]));
    let expected = "director.drain of d1: not done yet: d1 still announces 10.99.0.1";
    assert_eq!(problems(&shown(&known)), [expected]);
}

/// Another digest than the expected one, and one of another version.
const OTHER: &str = "030000000000000000";
const LATER: &str = "04ffffffffffffffff";

#[test]
fn how_a_digest_compares_and_when_it_is_told() {
    struct Case {
        what: &'static str,
        report: fn(&mut Known),
        agreement: Agreement,
        told: bool,
    }
    let cases = [
        Case {
            what: "the expected one",
            report: |known| known.hear(with_digest(observed(1, &[1, 2]), None)),
            agreement: Agreement::Same,
            told: false,
        },
        Case {
            what: "another one",
            report: |known| known.hear(with_digest(observed(1, &[1, 2]), Some(OTHER))),
            agreement: Agreement::Differs,
            told: true,
        },
        Case {
            what: "one of another version",
            report: |known| known.hear(with_digest(observed(1, &[1, 2]), Some(LATER))),
            agreement: Agreement::Unknown,
            told: false,
        },
        Case {
            what: "none",
            report: |known| known.hear(observed(1, &[1, 2])),
            agreement: Agreement::Unknown,
            told: false,
        },
        Case {
            what: "that of a generation before",
            report: |known| {
                known.hear(with_digest(observed(1, &[1, 2]), Some(OTHER)));
                known.director(1).generation = 2;
            },
            agreement: Agreement::RollingOut,
            told: false,
        },
        Case {
            what: "an old report",
            report: |known| {
                known.hear(with_digest(observed(1, &[1, 2]), Some(OTHER)));
                known.pass(Duration::from_secs(6));
                known.hear(observed(2, &[1, 2]));
            },
            agreement: Agreement::Unknown,
            told: false,
        },
    ];
    for case in cases {
        let mut known = Known::healthy(2);
        (case.report)(&mut known);
        let view = shown(&known);
        let placement = view.services[0].placement.as_ref().unwrap();
        let d1 = &placement.directors[0];
        assert_eq!(d1.agreement, case.agreement, "{}", case.what);
        let problems = problems(&view);
        let told = problems.iter().any(|it| it.starts_with("placement on"));
        assert_eq!(told, case.told, "{}: {problems:?}", case.what);
    }
}

#[test]
fn a_director_that_differs_is_told_once_with_since_when() {
    let mut known = Known::healthy(2);
    let reason = Reason::DigestMismatch {
        service: SERVICE.parse().unwrap(),
        expected: LATER.parse().unwrap(),
        found: OTHER.parse().unwrap(),
    };
    known.hear(with_digest(withdrawn(1, &[2], reason), Some(OTHER)));
    known.hear(with_digest(observed(2, &[2]), None));
    known.cluster.differing = differing(&known.cluster, known.now);
    let since = known.now.wall;
    known.pass(Duration::from_secs(3));
    let view = shown(&known);
    assert_eq!(view.state, State::Degraded);
    let expected = &view.services[0].placement.as_ref().unwrap().expected;
    let told = format!(
        "placement on director d1: it would send clients to other real servers than declared: \
         {SERVICE}: digest {OTHER}, expected {expected}"
    );
    assert_eq!(problems(&view), [told], "and not again as the VIP's");
    assert_eq!(view.problems[0].since, Some(since));

    known.cluster.differing = differing(&known.cluster, known.now);
    assert_eq!(
        known.cluster.differing.values().next().map(|at| at.wall),
        Some(since)
    );
}

#[test]
fn what_differs_is_remembered_until_a_report_says_otherwise() {
    let mut known = Known::healthy(2);
    let now_differing = |known: &mut Known| {
        known.cluster.differing = differing(&known.cluster, known.now);
        known.cluster.differing.len()
    };
    known.hear(with_digest(observed(1, &[1, 2]), Some(OTHER)));
    assert_eq!(now_differing(&mut known), 1);
    known.director(1).generation = 2;
    assert_eq!(
        now_differing(&mut known),
        1,
        "a change on its way ends nothing"
    );
    known.pass(Duration::from_secs(31));
    assert_eq!(now_differing(&mut known), 1, "silence ends nothing");
    let mut report = with_digest(observed(1, &[1, 2]), None);
    report.generation = 2;
    known.hear(report);
    assert_eq!(now_differing(&mut known), 0);
}

#[test]
fn only_directors_at_the_lowest_cost_make_the_width() {
    let mut known = Known::healthy(3);
    let mut declaration = (*known.cluster.declaration).clone();
    let backup = "d3".parse().unwrap();
    declaration.vip[0].director_cost.insert(backup, 100);
    known.cluster.declaration = declaration.into();
    let names = |names: &[DirectorName]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let view = shown(&known);
    assert_eq!(names(&view.vips[0].wanted), ["d1", "d2", "d3"]);
    assert_eq!(names(&view.vips[0].lowest), ["d1", "d2"]);
    assert_eq!(view.directors[2].vips[0].declared_cost, Some(100));
    assert_eq!(view.state, State::Up);
    for n in [1, 2] {
        known.director(n).admin_state = AdminState::Drained;
    }
    assert_eq!(
        names(&shown(&known).vips[0].lowest),
        ["d3"],
        "the backup's turn"
    );
}

#[test]
fn a_lost_agent_is_told_from_a_lost_director() {
    let contact = |known: &Known| {
        let view = build(&known.cluster, known.now, known.started);
        let problem = view.problems.iter().find(|it| it.object == "director d1");
        let next = problem.map_or(String::new(), |it| it.next.clone());
        (
            view.directors[0].contact.unwrap(),
            view.directors[0].state,
            next,
        )
    };
    let mut known = Known::healthy(2);
    assert_eq!(contact(&known).0, Contact::Heard);
    known.pass(Duration::from_secs(6));
    known.hear(observed(2, &[1, 2]));
    assert_eq!(contact(&known).0, Contact::Silent);
    known.pass(Duration::from_secs(30));
    known.hear(observed(2, &[1, 2]));
    let (lost, state, next) = contact(&known);
    assert_eq!((lost, state), (Contact::AgentLost, State::Degraded));
    assert!(next.contains("still serves"), "{next}");
    known.hear(observed(2, &[2]));
    let (lost, state, next) = contact(&known);
    assert_eq!((lost, state), (Contact::DirectorLost, State::Down));
    assert!(next.contains("power"), "{next}");
    known.pass(Duration::from_secs(31));
    let (lost, state, _) = contact(&known);
    assert_eq!(
        (lost, state),
        (Contact::Unknown, State::Unknown),
        "nobody can tell"
    );
    let mut started = Known::new(2);
    started.started = started.now;
    assert_eq!(
        contact(&started).0,
        Contact::NotYetHeard,
        "silence proves nothing yet"
    );
}

#[test]
fn a_clock_that_is_far_off_is_a_condition() {
    let mut known = Known::healthy(1);
    let conditions = |known: &Known| {
        let view = build(&known.cluster, known.now, known.started);
        view.directors[0].conditions.clone()
    };
    assert_eq!(conditions(&known), []);
    let mut late = observed(1, &[1]);
    let received = known.now;
    late.at = received.wall - Duration::from_millis(5_250);
    let director = known.director(1);
    director.report = Some(Report {
        observed: Arc::new(late),
        received,
    });
    director.skewed = Some(received);
    let found = conditions(&known);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].code, "clock-skew");
    assert_eq!(found[0].text, "its clock is 5.2 s behind the controller's");
    assert_eq!(found[0].since, received.wall);
}

/// Who reports last is no better a witness than the others, and none of itself.
#[test]
fn the_last_report_is_not_believed_against_the_others() {
    let mut known = Known::healthy(3);
    known.pass(Duration::from_secs(1));
    known.hear(observed(3, &[3]));
    let view = shown(&known);
    assert_eq!(view.vips[0].state, State::Up, "{:?}", view.vips);
    assert_eq!(view.vips[0].widths[0].width, 3);

    known.director(1).admin_state = AdminState::Drained;
    known.pass(Duration::from_secs(1));
    let reason = Reason::Drained {
        text: String::new(),
    };
    known.hear(withdrawn(1, &[2, 3], reason));
    let view = shown(&known);
    assert_eq!(director(&view, 1).state, State::Degraded);
    let why = "drained; but the LSDB of d2 still lists it for 10.99.0.1";
    assert_eq!(director(&view, 1).why, why);

    let mut known = Known::healthy(3);
    known.pass(Duration::from_secs(31));
    known.hear(observed(2, &[1, 2, 3]));
    known.pass(Duration::from_secs(1));
    known.hear(observed(3, &[3]));
    let view = shown(&known);
    assert_eq!(director(&view, 1).contact, Some(Contact::AgentLost));
    assert_eq!(director(&view, 1).state, State::Degraded, "it serves");
}
