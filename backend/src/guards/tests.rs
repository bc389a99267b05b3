use std::time::Duration;

use isopath_api::ids::NeighborState;
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
