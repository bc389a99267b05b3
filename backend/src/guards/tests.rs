use std::time::Duration;

use isopath_api::ids::NeighborState;
use isopath_api::operation::StepName;
use isopath_api::reason::Reason;

use super::*;
use crate::testing::{Known, observed, withdrawn};

fn refused(known: &Known, director: &str) -> Option<String> {
    let director = director.parse().unwrap();
    last_announcer(&known.cluster, &director, known.now)
        .err()
        .map(|refusal| refusal.detail)
}

#[test]
fn one_of_two_announcers_may_go() {
    assert_eq!(refused(&Known::healthy(2), "d1"), None);
}

#[test]
fn a_primary_may_go_whose_backup_announces_at_a_higher_cost() {
    let mut known = Known::healthy(2);
    let mut backup = observed(2, &[1, 2]);
    backup.vips[0].cost = Some(100);
    backup.speaker.as_mut().unwrap().announced[0].cost = 100;
    known.hear(backup);
    assert_eq!(refused(&known, "d1"), None);
}

#[test]
fn the_last_announcer_may_not_go() {
    let detail = refused(&Known::healthy(1), "d1").expect("d1 is alone");
    assert!(
        detail.contains("10.99.0.1") && detail.contains("d1"),
        "{detail}"
    );
}

/// Everything that makes the other director not count, each on its own.
#[test]
fn what_is_not_known_to_announce_does_not_count() {
    type Case = (&'static str, fn(&mut Known));
    let cases: [Case; 7] = [
        ("it is draining", |known| {
            known.director(2).admin_state = AdminState::Draining;
        }),
        ("it is drained", |known| {
            known.director(2).admin_state = AdminState::Drained;
        }),
        ("it was never heard", |known| {
            known.director(2).report = None
        }),
        ("its report is six seconds old", |known| {
            known.pass(Duration::from_secs(6));
            known.hear(observed(1, &[1, 2]));
        }),
        ("it has withdrawn the VIP", |known| {
            known.hear(withdrawn(2, &[1], Reason::Stopping));
        }),
        ("its LSDB does not have its announcement yet", |known| {
            let mut report = observed(2, &[1, 2]);
            report.speaker.as_mut().unwrap().announced[0].in_lsdb = false;
            known.hear(report);
        }),
        ("it has no Full neighbour", |known| {
            let mut report = observed(2, &[1, 2]);
            report.speaker.as_mut().unwrap().neighbors[0].state = NeighborState::Init;
            known.hear(report);
        }),
    ];
    for (what, change) in cases {
        let mut known = Known::healthy(2);
        change(&mut known);
        assert!(
            refused(&known, "d1").is_some(),
            "d1 may go although of d2 {what}"
        );
    }
}

#[test]
fn a_report_of_five_seconds_still_counts() {
    let mut known = Known::healthy(2);
    known.pass(Duration::from_secs(5));
    assert_eq!(refused(&known, "d1"), None);
}

#[test]
fn a_director_that_announces_nothing_has_nothing_to_lose() {
    let mut known = Known::healthy(2);
    known.hear(withdrawn(1, &[2], Reason::Stopping));
    known.director(2).report = None;
    assert_eq!(refused(&known, "d1"), None);
}

#[test]
fn a_silent_director_may_go_if_another_lsdb_does_not_list_it() {
    let mut known = Known::new(2);
    known.hear(observed(2, &[2]));
    assert_eq!(
        refused(&known, "d1"),
        None,
        "d2 hears that d1 announces nothing"
    );
    known.hear(withdrawn(2, &[1], Reason::Stopping));
    assert!(
        refused(&known, "d1").is_some(),
        "d1 alone announces by the LSDB of d2"
    );
}

#[test]
fn a_silent_director_that_nobody_can_tell_of_may_announce() {
    assert!(refused(&Known::new(2), "d1").is_some());
}

/// Each guard by name, what it is asked about, and what makes it refuse.
#[test]
fn each_guard_refuses_what_it_is_for_and_nothing_else() {
    type Case = (&'static str, &'static str, &'static str, fn(&mut Known));
    let cases: [Case; 12] = [
        ("all is well", "d1", "", |_| {}),
        ("nobody else announces", "d1", LAST_ANNOUNCER, |known| {
            for n in [2, 3] {
                known.hear(withdrawn(n, &[1], Reason::Stopping));
            }
        }),
        ("too few would be left", "d1", MIN_DIRECTORS, |known| {
            least_of(known, 3);
        }),
        ("just enough would be left", "d1", "", |known| {
            least_of(known, 2)
        }),
        ("a change is rolled out", "d1", ROLLOUT, |known| {
            known.director(3).shaped_at = 2;
        }),
        (
            "it is rolled out but to one who is lost",
            "d1",
            "",
            |known| {
                known.director(3).shaped_at = 2;
                known.pass(Duration::from_secs(31));
                for n in [1, 2] {
                    known.hear(observed(n, &[1, 2]));
                }
            },
        ),
        ("one of two real servers goes", "10.1.0.11", "", |_| {}),
        ("the quorum needs both", "10.1.0.11:80", QUORUM, |known| {
            service(known).quorum = 2;
        }),
        (
            "the other is down on one director",
            "10.1.0.11",
            "quorum,last_real_server",
            |known| {
                let mut report = observed(2, &[1, 2, 3]);
                crate::testing::set_health(&mut report, 1, Health::Down);
                known.hear(report);
            },
        ),
        (
            "the other's checks have not decided where the kernel gives it connections",
            "10.1.0.11",
            "",
            |known| {
                let mut report = observed(2, &[1, 2, 3]);
                crate::testing::set_health(&mut report, 1, Health::Unknown);
                known.hear(report);
            },
        ),
        (
            "the other's checks have not decided where it takes none",
            "10.1.0.11",
            "quorum,last_real_server",
            |known| {
                let mut report = observed(2, &[1, 2, 3]);
                crate::testing::set_health(&mut report, 1, Health::Unknown);
                report.services[0].real_servers[1].effective_weight = Some(0);
                known.hear(report);
            },
        ),
        ("it is down itself", "10.1.0.11", "", |known| {
            for n in 1..=3 {
                let mut report = observed(n, &[1, 2, 3]);
                crate::testing::set_health(&mut report, 0, Health::Down);
                known.hear(report);
            }
        }),
    ];
    for (what, target, expected, change) in cases {
        let mut known = Known::healthy(3);
        change(&mut known);
        let target = match target.parse() {
            Ok(server) => Target::RealServer(server, None),
            Err(_) => Target::Director(target.parse().unwrap()),
        };
        let at = (known.now, known.started);
        let verdicts = verdicts(&known.cluster, &target, Kind::Drain, at);
        let refused: Vec<&str> = verdicts
            .iter()
            .filter(|(_, verdict)| verdict.is_err())
            .map(|(guard, _)| *guard)
            .collect();
        assert_eq!(refused.join(","), expected, "{what}: {verdicts:?}");
    }
}

fn least_of(known: &mut Known, directors: u16) {
    std::sync::Arc::make_mut(&mut known.cluster.declaration).min_directors = Some(directors);
}

fn service(known: &mut Known) -> &mut ServiceSpec {
    &mut std::sync::Arc::make_mut(&mut known.cluster.declaration).service[0]
}

#[test]
fn real_servers_of_which_nobody_reports_may_not_go() {
    let known = Known::new(2);
    let target = Target::RealServer("10.1.0.11".parse().unwrap(), None);
    let verdicts = verdicts(
        &known.cluster,
        &target,
        Kind::Drain,
        (known.now, known.started),
    );
    assert!(
        verdicts.iter().all(|(_, verdict)| verdict.is_err()),
        "{verdicts:?}"
    );
}

/// Whether it announces still, or again, is not known before it has acknowledged.
#[test]
fn who_has_not_acknowledged_its_undrain_does_not_count() {
    let mut known = Known::healthy(2);
    known.director(2).generation = 2;
    let undrain = known.operation(Kind::Undrain, "d2", StepName::Restore);
    known.cluster.operations.push(undrain);
    assert!(refused(&known, "d1").is_some());
    let mut followed = observed(2, &[1, 2]);
    followed.generation = 2;
    known.hear(followed);
    assert_eq!(refused(&known, "d1"), None);
}

#[test]
fn a_silent_director_may_announce_what_no_speaker_knows_of() {
    let mut known = Known::new(2);
    let mut ignorant = observed(2, &[2]);
    ignorant.speaker.as_mut().unwrap().announced.clear();
    ignorant.speaker.as_mut().unwrap().announcers.clear();
    known.hear(ignorant);
    assert!(refused(&known, "d1").is_some());
}
