use std::time::Duration;

use isopath_api::desired::AdminState;
use isopath_api::ids::NeighborState;
use isopath_api::reason::Reason;
use isopath_api::view::OperationState::{Applying, Cancelled, Settling, Succeeded};

use super::*;
use crate::testing::{Known, observed, vip, withdrawn};

const DRAINED: Reason = Reason::Drained {
    text: String::new(),
};

fn operation(known: &Known, kind: Kind, director: &str) -> Operation {
    Operation {
        id: Operation::new_id(),
        cluster: known.cluster.name.clone(),
        director: director.parse().unwrap(),
        kind,
        state: Applying,
        detail: String::new(),
        need_generation: 2,
        requested_by: "ops".to_owned(),
        reason: String::new(),
        override_guards: Vec::new(),
        started_at: known.now.wall,
        ended_at: None,
    }
}

fn stands(known: &Known, kind: Kind) -> (OperationState, String) {
    let operation = operation(known, kind, "d1");
    let progress = progress(&operation, &known.cluster, known.now, known.started);
    (progress.state, progress.detail)
}

/// A cluster of two where a drain of d1 with generation 2 was admitted.
fn draining() -> Known {
    let mut known = Known::healthy(2);
    known.director(1).admin_state = AdminState::Draining;
    known.director(1).generation = 2;
    known
}

fn acknowledging(mut observed: Observed) -> Observed {
    observed.generation = 2;
    observed
}

#[test]
fn a_drain_waits_for_each_step_and_says_for_which() {
    let mut known = draining();
    let expect = |known: &Known, state, words: &str| {
        let (now, detail) = stands(known, Kind::Drain);
        assert_eq!(now, state, "{detail}");
        assert!(detail.contains(words), "{detail:?} does not say {words:?}");
    };
    expect(
        &known,
        Applying,
        "d1 has acknowledged generation 1, 2 is needed",
    );
    known.hear(acknowledging(observed(1, &[1, 2])));
    expect(&known, Applying, "d1 still announces 10.99.0.1");
    let mut pending = acknowledging(withdrawn(1, &[2], DRAINED));
    let announcers = &mut pending.speaker.as_mut().unwrap().announcers;
    announcers
        .get_mut(&vip())
        .unwrap()
        .push(crate::testing::router_id(1));
    known.hear(pending);
    expect(
        &known,
        Applying,
        "the Router-LSA of d1 still carries 10.99.0.1",
    );
    known.hear(acknowledging(withdrawn(1, &[2], DRAINED)));
    expect(
        &known,
        Settling,
        "the LSDB of d2 still lists d1 for 10.99.0.1",
    );
    known.hear(observed(2, &[2]));
    expect(&known, Succeeded, "no LSDB lists d1");
}

#[test]
fn a_director_that_falls_silent_never_succeeds() {
    let mut known = draining();
    known.hear(acknowledging(withdrawn(1, &[2], DRAINED)));
    known.pass(Duration::from_secs(6));
    known.hear(observed(2, &[2]));
    let (state, detail) = stands(&known, Kind::Drain);
    assert_eq!(state, Applying, "{detail}");
    assert!(detail.contains("silent"), "{detail}");
}

#[test]
fn an_acknowledgement_of_another_database_does_not_count() {
    let mut known = draining();
    let mut report = acknowledging(withdrawn(1, &[2], DRAINED));
    report.epoch = Some("another".to_owned());
    known.hear(report);
    known.hear(observed(2, &[2]));
    assert_eq!(stands(&known, Kind::Drain).0, Applying);
}

#[test]
fn an_override_on_the_director_is_named() {
    let mut known = draining();
    let mut report = acknowledging(observed(1, &[1, 2]));
    report.speaker.as_mut().unwrap().announced[0].source = Source::Override;
    known.hear(report);
    let (state, detail) = stands(&known, Kind::Drain);
    assert_eq!(state, Applying);
    assert!(detail.contains("an operator's override"), "{detail}");
}

#[test]
fn an_agent_without_its_speaker_says_nothing_about_announcements() {
    let mut known = draining();
    let mut report = acknowledging(withdrawn(1, &[2], DRAINED));
    report.speaker = None;
    known.hear(report);
    known.hear(observed(2, &[2]));
    let (state, detail) = stands(&known, Kind::Drain);
    assert_eq!(state, Applying, "{detail}");
}

#[test]
fn an_lsdb_that_hears_of_nothing_is_not_waited_for() {
    let mut known = draining();
    known.hear(acknowledging(withdrawn(1, &[2], DRAINED)));
    let mut island = observed(2, &[1, 2]);
    island.speaker.as_mut().unwrap().neighbors[0].state = NeighborState::Down;
    known.hear(island);
    assert_eq!(stands(&known, Kind::Drain).0, Succeeded);
}

#[test]
fn after_a_start_of_the_controller_silence_proves_nothing() {
    let mut known = draining();
    known.started = known.now;
    known.hear(acknowledging(withdrawn(1, &[], DRAINED)));
    known.director(2).report = None;
    let (state, detail) = stands(&known, Kind::Drain);
    assert_eq!(state, Settling, "{detail}");
    known.pass(Duration::from_secs(61));
    known.hear(acknowledging(withdrawn(1, &[], DRAINED)));
    assert_eq!(stands(&known, Kind::Drain).0, Succeeded);
}

#[test]
fn an_undrain_waits_for_the_acknowledgement_alone() {
    let mut known = draining();
    known.director(1).admin_state = AdminState::Active;
    assert_eq!(stands(&known, Kind::Undrain).0, Applying);
    known.hear(acknowledging(withdrawn(1, &[2], Reason::Stopping)));
    assert_eq!(stands(&known, Kind::Undrain).0, Succeeded);
}

#[test]
fn an_operation_on_what_is_declared_no_more_is_cancelled() {
    let known = draining();
    let operation = operation(&known, Kind::Drain, "d9");
    let progress = progress(&operation, &known.cluster, known.now, known.started);
    assert_eq!(progress.state, Cancelled);
}
