mod guarded;
mod traffic;

use std::time::Duration;

use isopath_api::config::Dataplane;
use isopath_api::desired::AdminState;
use isopath_api::ids::NeighborState;
use isopath_api::observed::{Observed, Stats};
use isopath_api::operation::OperationState::{
    Applying, Blocked, Cancelled, Cancelling, Failed, Pending, Settling, Succeeded,
};
use isopath_api::reason::Reason;
use isopath_api::speaker::Source;

use super::*;
use crate::guards;
use crate::testing::{Known, observed, router_id, vip, withdrawn};

const DRAINED: Reason = Reason::Drained {
    text: String::new(),
};

/// A cluster of three where a drain of d1 was admitted and is at `step`.
fn draining(step: StepName) -> (Known, Operation) {
    let mut known = Known::healthy(3);
    known.director(1).admin_state = AdminState::Draining;
    known.director(1).generation = 2;
    let operation = known.operation(Kind::Drain, "d1", step);
    (known, operation)
}

fn acknowledging(mut observed: Observed) -> Observed {
    observed.generation = 2;
    observed
}

/// d1 announces at the highest metric, and the others' databases have only them in the sets.
fn raised(known: &mut Known) {
    let mut report = acknowledging(observed(1, &[1, 2, 3]));
    let speaker = report.speaker.as_mut().unwrap();
    speaker.announced[0].cost = 65535;
    speaker.widths[0].through = vec![router_id(2), router_id(3)];
    known.hear(report);
    for n in [2, 3] {
        let mut report = observed(n, &[1, 2, 3]);
        report.speaker.as_mut().unwrap().widths[0].through = vec![router_id(2), router_id(3)];
        known.hear(report);
    }
}

/// d1 has withdrawn and everybody's database has that.
fn gone(known: &mut Known) {
    known.hear(withdrawn_after(1000));
    known.hear(observed(2, &[2, 3]));
    known.hear(observed(3, &[2, 3]));
}

/// The report of d1 when it has withdrawn and its kernel has counted so many packets.
fn withdrawn_after(packets: u64) -> Observed {
    counting(acknowledging(withdrawn(1, &[2, 3], DRAINED)), packets)
}

fn counting(mut observed: Observed, packets: u64) -> Observed {
    observed.services[0].stats = Some(Stats {
        in_packets: packets,
        in_packets_per_second: 7,
        ..Stats::default()
    });
    observed
}

fn next(known: &Known, operation: &Operation) -> Operation {
    progress(operation, &known.cluster, known.now, known.started).operation
}

/// Where it stands: state, step, what it waits for.
fn stands(known: &Known, operation: &Operation) -> (OperationState, Option<StepName>, String) {
    let next = next(known, operation);
    (next.state, next.step(), next.detail)
}

#[track_caller]
fn expect(
    known: &Known,
    operation: &Operation,
    (state, step): (OperationState, StepName),
    words: &str,
) {
    let (now, at, detail) = stands(known, operation);
    assert_eq!((now, at), (state, Some(step)), "{detail}");
    assert!(detail.contains(words), "{detail:?} does not say {words:?}");
}

#[test]
fn the_cost_is_raised_until_no_set_has_the_director_beside_another() {
    let (mut known, operation) = draining(StepName::Cost);
    let at = (Applying, StepName::Cost);
    expect(&known, &operation, at, "generation 1, 2 is needed");
    known.hear(acknowledging(observed(1, &[1, 2, 3])));
    expect(
        &known,
        &operation,
        at,
        "still announces 10.99.0.1 at metric 1",
    );
    let mut unheard = acknowledging(observed(1, &[1, 2, 3]));
    let announced = &mut unheard.speaker.as_mut().unwrap().announced[0];
    (announced.cost, announced.acknowledged) = (65535, false);
    known.hear(unheard);
    expect(
        &known,
        &operation,
        at,
        "have not acknowledged the new metric",
    );
    raised(&mut known);
    known.hear(observed(3, &[1, 2, 3]));
    expect(
        &known,
        &operation,
        at,
        "the LSDB of d3 has it in the equal-cost set of 10.0.0.1",
    );
    raised(&mut known);
    let at = (Applying, StepName::Withdraw);
    expect(&known, &operation, at, "acknowledgement");
}

#[test]
fn a_director_that_nobody_can_replace_is_not_waited_for_in_the_sets() {
    let (mut known, mut operation) = draining(StepName::Cost);
    operation.override_guards = vec![guards::LAST_ANNOUNCER.to_owned()];
    let mut report = acknowledging(observed(1, &[1]));
    report.speaker.as_mut().unwrap().announced[0].cost = 65535;
    known.hear(report);
    for n in [2, 3] {
        known.hear(withdrawn(n, &[1], Reason::Stopping));
    }
    expect(&known, &operation, (Applying, StepName::Withdraw), "");
}

#[test]
fn an_agent_of_before_that_withdraws_at_once_is_past_the_cost() {
    let (mut known, operation) = draining(StepName::Cost);
    known.hear(acknowledging(withdrawn(1, &[2, 3], DRAINED)));
    expect(&known, &operation, (Applying, StepName::Withdraw), "");
}

#[test]
fn each_step_after_the_withdrawal_waits_for_what_is_seen() {
    let (mut known, operation) = draining(StepName::Withdraw);
    let at = (Applying, StepName::Withdraw);
    known.hear(acknowledging(observed(1, &[1, 2, 3])));
    expect(&known, &operation, at, "d1 still announces 10.99.0.1");
    let mut pending = acknowledging(withdrawn(1, &[2, 3], DRAINED));
    let announcers = &mut pending.speaker.as_mut().unwrap().announcers;
    announcers.get_mut(&vip()).unwrap().push(router_id(1));
    known.hear(pending);
    expect(
        &known,
        &operation,
        at,
        "the Router-LSA of d1 still carries 10.99.0.1",
    );
    gone(&mut known);
    known.hear(observed(2, &[1, 2, 3]));
    let at = (Settling, StepName::Set);
    expect(
        &known,
        &operation,
        at,
        "still has d1 in the equal-cost set of 10.0.0.1",
    );
    known.hear(observed(2, &[2, 3]));
    let at = (Settling, StepName::Traffic);
    expect(&known, &operation, at, "stayed away for 0 of 10 s");
}

#[test]
fn a_director_that_falls_silent_never_succeeds() {
    for step in [StepName::Cost, StepName::Withdraw, StepName::Traffic] {
        let (mut known, mut operation) = draining(step);
        operation.on_deadline = OnDeadline::Finish;
        gone(&mut known);
        known.pass(Duration::from_secs(6));
        known.hear(observed(2, &[2, 3]));
        known.hear(observed(3, &[2, 3]));
        let (state, at, detail) = stands(&known, &operation);
        assert!(
            at.is_some() && state != Blocked,
            "{step:?}: {state:?} {detail}"
        );
        for _ in 0..40 {
            known.pass(Duration::from_secs(30));
            known.hear(observed(2, &[1, 2, 3]));
            known.hear(observed(3, &[1, 2, 3]));
            operation = next(&known, &operation);
        }
        assert_eq!(operation.state, Blocked, "{step:?}: {}", operation.detail);
        assert_eq!(operation.blocked_by, ["agent_lost"], "{step:?}");
    }
}

#[test]
fn no_deadline_ends_the_wait_for_a_director_that_is_silent() {
    let (mut known, mut operation) = draining(StepName::Traffic);
    operation.on_deadline = OnDeadline::Finish;
    gone(&mut known);
    known.pass(Duration::from_secs(6));
    known.hear(observed(2, &[2, 3]));
    known.hear(observed(3, &[2, 3]));
    operation.deadline_at = known.now.wall;
    let at = (Settling, StepName::Traffic);
    expect(&known, &operation, at, "silent and may still announce");
}

#[test]
fn an_acknowledgement_of_another_database_does_not_count() {
    let (mut known, operation) = draining(StepName::Withdraw);
    gone(&mut known);
    let mut report = acknowledging(withdrawn(1, &[2, 3], DRAINED));
    report.epoch = Some("another".to_owned());
    known.hear(report);
    expect(
        &known,
        &operation,
        (Applying, StepName::Withdraw),
        "no desired state",
    );
}

#[test]
fn an_override_on_the_director_is_named() {
    for step in [StepName::Cost, StepName::Withdraw] {
        let (mut known, operation) = draining(step);
        let mut report = acknowledging(observed(1, &[1, 2, 3]));
        report.speaker.as_mut().unwrap().announced[0].source = Source::Override;
        known.hear(report);
        expect(
            &known,
            &operation,
            (Applying, step),
            "an operator's override",
        );
    }
}

#[test]
fn an_agent_without_its_speaker_says_nothing_about_announcements() {
    let (mut known, operation) = draining(StepName::Withdraw);
    gone(&mut known);
    let mut report = acknowledging(withdrawn(1, &[2, 3], DRAINED));
    report.speaker = None;
    known.hear(report);
    expect(
        &known,
        &operation,
        (Applying, StepName::Withdraw),
        "cannot reach its speaker",
    );
}

#[test]
fn what_no_database_can_tell_is_not_taken_for_granted() {
    let (mut known, mut operation) = draining(StepName::Set);
    operation.override_guards = vec![guards::LAST_ANNOUNCER.to_owned()];
    gone(&mut known);
    for n in [2, 3] {
        let mut island = observed(n, &[1, 2, 3]);
        island.speaker.as_mut().unwrap().neighbors[0].state = NeighborState::Down;
        known.hear(island);
    }
    expect(
        &known,
        &operation,
        (Blocked, StepName::Set),
        "d2: it is Full with no neighbour",
    );
    operation.override_guards.push(guards::WITNESS.to_owned());
    expect(&known, &operation, (Settling, StepName::Traffic), "");
}

#[test]
fn after_a_start_of_the_controller_silence_proves_nothing() {
    let (mut known, operation) = draining(StepName::Withdraw);
    gone(&mut known);
    known.started = known.now;
    known.director(3).report = None;
    let at = (Settling, StepName::Set);
    expect(&known, &operation, at, "not every director has been heard");
    known.pass(Duration::from_secs(61));
    gone(&mut known);
    known.director(3).report = None;
    expect(&known, &operation, (Settling, StepName::Traffic), "");
}

#[test]
fn at_its_deadline_a_drain_holds_or_ends_with_what_is_left() {
    let cases = [
        (OnDeadline::Hold, StepName::Cost, Blocked),
        (OnDeadline::Hold, StepName::Withdraw, Blocked),
        (OnDeadline::Hold, StepName::Traffic, Blocked),
        (OnDeadline::Finish, StepName::Cost, Applying),
        (OnDeadline::Finish, StepName::Withdraw, Blocked),
        (OnDeadline::Finish, StepName::Set, Succeeded),
        (OnDeadline::Finish, StepName::Traffic, Succeeded),
    ];
    for (on_deadline, step, expected) in cases {
        let (mut known, mut operation) = draining(step);
        operation.on_deadline = on_deadline;
        match step {
            StepName::Cost | StepName::Withdraw => {
                known.hear(acknowledging(observed(1, &[1, 2, 3])));
            }
            _ => gone(&mut known),
        }
        operation.deadline_at = known.now.wall;
        let next = next(&known, &operation);
        assert_eq!(
            next.state, expected,
            "{on_deadline:?} at {step:?}: {}",
            next.detail
        );
        match expected {
            Blocked => assert_eq!(next.blocked_by, ["deadline"]),
            Applying => assert_eq!(next.step(), Some(StepName::Withdraw)),
            _ => {
                let words = "ended at its deadline";
                assert!(next.detail.contains(words), "{}", next.detail);
                let traffic = next.steps.last().unwrap();
                assert_eq!(traffic.state, StepState::Overdue);
            }
        }
    }
}

#[test]
fn an_undrain_waits_until_the_sets_have_the_director_again() {
    let (mut known, _) = draining(StepName::Cost);
    known.director(1).admin_state = AdminState::Active;
    let operation = known.operation(Kind::Undrain, "d1", StepName::Restore);
    let at = (Applying, StepName::Restore);
    expect(&known, &operation, at, "2 is needed");
    gone(&mut known);
    known.hear(acknowledging(withdrawn(1, &[2, 3], Reason::NoIpvs)));
    expect(&known, &operation, at, "no IPVS");
    known.hear(acknowledging(observed(1, &[1, 2, 3])));
    let at = (Settling, StepName::Return);
    expect(&known, &operation, at, "does not list d1 for 10.99.0.1 yet");
    let mut listed = observed(2, &[1, 2, 3]);
    listed.speaker.as_mut().unwrap().widths[0].through = vec![router_id(2), router_id(3)];
    known.hear(listed);
    expect(&known, &operation, at, "in the equal-cost set");
    known.hear(observed(2, &[1, 2, 3]));
    assert_eq!(next(&known, &operation).state, Succeeded);
}

#[test]
fn what_is_cancelled_ends_when_it_is_undone() {
    for step in [
        StepName::Cost,
        StepName::Withdraw,
        StepName::Set,
        StepName::Traffic,
    ] {
        let (mut known, operation) = draining(step);
        let mut operation = cancelling(&operation, "ops", known.now);
        operation.need.insert("d1".parse().unwrap(), 3);
        gone(&mut known);
        expect(
            &known,
            &operation,
            (Cancelling, StepName::Restore),
            "3 is needed",
        );
        let mut back = observed(1, &[1, 2, 3]);
        back.generation = 3;
        known.hear(back);
        let ended = next(&known, &operation);
        assert_eq!(ended.state, Cancelled, "{step:?}: {}", ended.detail);
        assert!(ended.ended_at.is_some());
    }
}

#[test]
fn an_operation_on_what_is_declared_no_more_fails() {
    let (known, mut operation) = draining(StepName::Cost);
    operation.target = Target::Director("d9".parse().unwrap());
    let next = next(&known, &operation);
    assert_eq!(next.state, Failed);
    assert!(next.ended_at.is_some() && next.detail.contains("declared no more"));
}

#[test]
fn real_servers_are_named_by_address_and_port() {
    let all: ServerName = "10.1.0.11".parse().unwrap();
    let one: ServerName = "10.1.0.11:80".parse().unwrap();
    assert!(all.is("10.1.0.11:80".parse().unwrap()) && all.is("10.1.0.11:81".parse().unwrap()));
    assert!(one.is("10.1.0.11:80".parse().unwrap()) && !one.is("10.1.0.11:81".parse().unwrap()));
    for name in [all, one] {
        assert_eq!(name.to_string().parse::<ServerName>().unwrap(), name);
    }
    for bad in [
        "",
        "10.1.0",
        "10.1.0.11:",
        "10.1.0.11:65536",
        "::1",
        "web-1",
    ] {
        assert!(bad.parse::<ServerName>().is_err(), "{bad:?}");
    }
}

#[test]
fn no_deadline_ends_the_wait_for_those_who_may_yet_be_heard() {
    for step in [StepName::Cost, StepName::Set] {
        let (mut known, mut operation) = draining(step);
        operation.on_deadline = OnDeadline::Finish;
        operation.deadline_at = known.now.wall;
        if step == StepName::Cost {
            raised(&mut known);
        } else {
            gone(&mut known);
        }
        // The controller has just started, and d2 may be gone by now.
        known.started = known.now;
        known.director(2).report = None;
        let next = next(&known, &operation);
        assert_eq!(next.step(), Some(step), "{}", next.detail);
        let words = "not every director has been heard";
        assert!(next.detail.contains(words), "{}", next.detail);
    }
}

#[test]
fn a_vip_that_no_other_speaker_knows_of_has_no_witness() {
    let (mut known, mut operation) = draining(StepName::Set);
    let other = "10.99.0.2".parse().unwrap();
    let declaration = std::sync::Arc::make_mut(&mut known.cluster.declaration);
    let mut spec = declaration.vip[0].clone();
    spec.address = other;
    declaration.vip.push(spec);
    operation.at_stake.push(other);
    operation.override_guards = vec![guards::LAST_ANNOUNCER.to_owned()];
    gone(&mut known);
    let at = (Blocked, StepName::Set);
    let words = "no other director's database can tell of 10.99.0.2";
    expect(&known, &operation, at, words);
    let mut knows = observed(3, &[2, 3]);
    let speaker = knows.speaker.as_mut().unwrap();
    speaker.announcers.insert(other, Vec::new());
    known.hear(knows);
    expect(&known, &operation, (Settling, StepName::Traffic), "");
}

#[test]
fn an_undrain_that_nobody_can_witness_says_so() {
    let mut known = Known::healthy(2);
    known.director(1).generation = 2;
    let operation = known.operation(Kind::Undrain, "d1", StepName::Return);
    known.pass(Duration::from_secs(6));
    known.hear(acknowledging(observed(1, &[1, 2])));
    let ended = next(&known, &operation);
    assert_eq!(ended.state, Succeeded, "{}", ended.detail);
    let words = "no other director's database can tell";
    assert!(ended.detail.contains(words), "{}", ended.detail);
}
