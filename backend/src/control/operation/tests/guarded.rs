//! Guards that are asked again, and lost, on the way.

use super::*;

#[test]
fn a_guard_that_is_lost_puts_the_director_back_until_it_holds_again() {
    for step in [
        StepName::Cost,
        StepName::Withdraw,
        StepName::Set,
        StepName::Traffic,
    ] {
        let (mut known, mut operation) = draining(step);
        gone(&mut known);
        for n in [2, 3] {
            known.hear(withdrawn(n, &[], Reason::Stopping));
        }
        expect(
            &known,
            &operation,
            (Blocked, StepName::Guard),
            "back in service",
        );
        operation = next(&known, &operation);
        assert_eq!(operation.blocked_by, [guards::LAST_ANNOUNCER]);
        // It is told to serve again, and does.
        operation.need.insert("d1".parse().unwrap(), 3);
        expect(
            &known,
            &operation,
            (Pending, StepName::Guard),
            "3 is needed",
        );
        let mut back = observed(1, &[1]);
        back.generation = 3;
        known.hear(back.clone());
        expect(
            &known,
            &operation,
            (Blocked, StepName::Guard),
            "no other director is known",
        );
        for n in [2, 3] {
            known.hear(observed(n, &[1, 2, 3]));
        }
        expect(
            &known,
            &operation,
            (Applying, StepName::Cost),
            "acknowledgement",
        );
    }
}

#[test]
fn a_guard_that_was_overridden_puts_nothing_back() {
    let (mut known, mut operation) = draining(StepName::Traffic);
    operation.override_guards = vec![guards::LAST_ANNOUNCER.to_owned()];
    gone(&mut known);
    for n in [2, 3] {
        known.hear(withdrawn(n, &[], Reason::Stopping));
    }
    expect(&known, &operation, (Settling, StepName::Traffic), "");
}

#[test]
fn another_s_silent_agent_is_no_reason_to_put_a_director_back() {
    let (mut known, operation) = draining(StepName::Traffic);
    gone(&mut known);
    known.pass(Duration::from_secs(6));
    let report = acknowledging(withdrawn(1, &[2, 3], DRAINED));
    known.hear(counting(report, 1000));
    expect(&known, &operation, (Settling, StepName::Traffic), "");
}

/// The drained director goes out of service at `cost`, whatever the deadline says, only where no
/// guard that was not overridden speaks against it.
#[test]
fn no_deadline_withdraws_past_a_guard() {
    let (mut known, mut operation) = draining(StepName::Cost);
    operation.on_deadline = OnDeadline::Finish;
    operation.deadline_at = known.now.wall;
    known.hear(acknowledging(observed(1, &[1, 2, 3])));
    known.director(3).shaped_at = 2;
    let at = (Blocked, StepName::Cost);
    expect(&known, &operation, at, "a change is being rolled out");
    assert_eq!(next(&known, &operation).blocked_by, [guards::ROLLOUT]);
    operation.override_guards = vec![guards::ROLLOUT.to_owned()];
    expect(&known, &operation, (Applying, StepName::Withdraw), "");
}

#[test]
fn nothing_is_withdrawn_on_the_word_of_those_who_are_silent() {
    let (mut known, mut operation) = draining(StepName::Cost);
    raised(&mut known);
    let report = known.director(1).report.clone().unwrap();
    known.pass(Duration::from_secs(6));
    known.hear((*report.observed).clone());
    let at = (Blocked, StepName::Cost);
    expect(&known, &operation, at, "no other director is known");
    operation.on_deadline = OnDeadline::Finish;
    operation.deadline_at = known.now.wall;
    expect(&known, &operation, at, "no other director is known");
    operation.override_guards = vec![guards::LAST_ANNOUNCER.to_owned()];
    expect(&known, &operation, (Applying, StepName::Withdraw), "");
}

#[test]
fn a_guard_that_was_overridden_lifts_no_other() {
    let (mut known, mut operation) = draining(StepName::Traffic);
    let declaration = std::sync::Arc::make_mut(&mut known.cluster.declaration);
    declaration.min_directors = Some(2);
    operation.override_guards = vec![guards::LAST_ANNOUNCER.to_owned()];
    gone(&mut known);
    for n in [2, 3] {
        known.hear(withdrawn(n, &[], Reason::Stopping));
    }
    let at = (Blocked, StepName::Guard);
    expect(&known, &operation, at, "min_directors is 2");
    assert_eq!(next(&known, &operation).blocked_by, [guards::MIN_DIRECTORS]);
}

/// What a director announces from the call of its drain until it has withdrawn is kept as well.
#[test]
fn what_is_announced_later_is_at_stake_too() {
    for step in [StepName::Cost, StepName::Withdraw] {
        let (mut known, mut operation) = draining(step);
        operation.at_stake.clear();
        for n in [2, 3] {
            known.hear(withdrawn(n, &[1], Reason::Stopping));
        }
        known.hear(observed(1, &[1]));
        let at = (Blocked, StepName::Guard);
        expect(&known, &operation, at, "nobody else announces 10.99.0.1");
        assert_eq!(next(&known, &operation).at_stake, [vip()]);
    }
}
