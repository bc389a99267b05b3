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
    known.hear(counting(
        acknowledging(withdrawn(1, &[2, 3], DRAINED)),
        1000,
    ));
    known.hear(observed(2, &[2, 3]));
    known.hear(observed(3, &[2, 3]));
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
fn traffic_has_to_stay_away_by_what_the_kernel_counts() {
    let (mut known, mut operation) = draining(StepName::Traffic);
    let mut packets = 1000;
    let mut pass = |known: &mut Known, operation: &mut Operation, rate: u64| {
        known.pass(Duration::from_secs(1));
        packets += rate;
        gone(known);
        let report = acknowledging(withdrawn(1, &[2, 3], DRAINED));
        known.hear(counting(report, packets));
        *operation = next(known, operation);
    };
    for _ in 0..12 {
        pass(&mut known, &mut operation, 11);
    }
    assert_eq!(operation.state, Settling, "11 packets a second are traffic");
    for _ in 0..5 {
        pass(&mut known, &mut operation, 3);
    }
    pass(&mut known, &mut operation, 500);
    for _ in 0..9 {
        pass(&mut known, &mut operation, 3);
    }
    assert_eq!(operation.state, Settling, "the ten seconds begin anew");
    let mut again = operation.clone();
    again.quiet.clear();
    pass(&mut known, &mut operation, 0);
    assert_eq!(operation.state, Succeeded, "{}", operation.detail);
    assert!(
        operation.detail.contains("no traffic for 10 s"),
        "{}",
        operation.detail
    );
    assert!(
        operation.detail.contains("safe to work on"),
        "{}",
        operation.detail
    );
    let (state, _, detail) = stands(&known, &again);
    assert_eq!(
        state, Settling,
        "another controller has not seen it stay away: {detail}"
    );
}

#[test]
fn counters_that_begin_anew_prove_nothing() {
    let (mut known, mut operation) = draining(StepName::Traffic);
    for second in 0..30_u64 {
        known.pass(Duration::from_secs(1));
        gone(&mut known);
        let report = acknowledging(withdrawn(1, &[2, 3], DRAINED));
        known.hear(counting(report, 1_000 - second % 5));
        operation = next(&known, &operation);
    }
    assert_eq!(operation.state, Settling, "{}", operation.detail);
}

#[test]
fn where_nothing_counts_the_step_says_so() {
    let (mut known, operation) = draining(StepName::Traffic);
    gone(&mut known);
    let mut report = acknowledging(withdrawn(1, &[2, 3], DRAINED));
    report.dataplane.kind = Dataplane::None;
    known.hear(report);
    let next = next(&known, &operation);
    assert_eq!(next.state, Succeeded);
    assert_eq!(next.steps[4].evidence, "d1: not measured: no data plane");
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
fn a_drained_director_that_is_gone_is_not_taken_for_quiet() {
    for step in [StepName::Withdraw, StepName::Traffic] {
        let (mut known, mut operation) = draining(step);
        operation.on_deadline = OnDeadline::Finish;
        gone(&mut known);
        let heard = known.now.wall;
        known.pass(Duration::from_secs(40));
        known.hear(observed(2, &[2, 3]));
        known.hear(observed(3, &[2, 3]));
        operation.deadline_at = known.now.wall;
        let since = heard.strftime("lost since %Y-%m-%d %H:%M:%SZ").to_string();
        expect(&known, &operation, (Blocked, step), &since);
        assert_eq!(next(&known, &operation).blocked_by, ["agent_lost"]);
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

/// A release without steps did not write down what was at stake, and who announced nothing has
/// nothing at stake: traffic may come all the same.
#[test]
fn without_a_vip_at_stake_the_traffic_of_all_has_to_leave() {
    let (mut known, mut operation) = draining(StepName::Traffic);
    operation.at_stake.clear();
    gone(&mut known);
    let at = (Settling, StepName::Traffic);
    expect(&known, &operation, at, "stayed away for 0 of 10 s");
    let told = operation.targets_now(&known.cluster, known.now);
    assert_eq!(told[0].vip_pps, Some(7), "it is counted");
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

#[test]
fn an_agent_that_follows_nothing_says_nothing_of_traffic() {
    let (mut known, operation) = draining(StepName::Traffic);
    gone(&mut known);
    // Its state directory is new.
    let mut anew = withdrawn(1, &[2, 3], DRAINED);
    (anew.run, anew.epoch, anew.generation) = ("run-2".to_owned(), None, 0);
    anew.services.clear();
    known.hear(anew);
    let at = (Settling, StepName::Traffic);
    expect(&known, &operation, at, "acknowledged no desired state");
    let mut without = acknowledging(withdrawn(1, &[2, 3], DRAINED));
    without.services.clear();
    known.hear(without);
    let words = "d1 does not report tcp:10.99.0.1:80";
    expect(&known, &operation, at, words);
}

#[test]
fn a_count_that_was_not_read_again_proves_nothing() {
    let quiet = |reads: fn(u64) -> u64| {
        let (mut known, mut operation) = draining(StepName::Traffic);
        for second in 0..15 {
            known.pass(Duration::from_secs(1));
            gone(&mut known);
            let report = acknowledging(withdrawn(1, &[2, 3], DRAINED));
            let mut report = counting(report, 1000);
            report.dataplane.reconciles.unchanged.count = reads(second);
            known.hear(report);
            operation = next(&known, &operation);
        }
        operation
    };
    let stuck = quiet(|_| 7);
    assert_eq!(stuck.state, Settling, "{}", stuck.detail);
    let read = quiet(|second| 7 + second);
    assert_eq!(read.state, Succeeded, "{}", read.detail);
}

#[test]
fn what_came_in_a_silence_may_have_come_at_its_end() {
    let (mut known, mut operation) = draining(StepName::Traffic);
    gone(&mut known);
    operation = next(&known, &operation);
    known.pass(Duration::from_secs(40));
    gone(&mut known);
    let report = acknowledging(withdrawn(1, &[2, 3], DRAINED));
    known.hear(counting(report, 1000 + 300));
    let at = (Settling, StepName::Traffic);
    expect(&known, &operation, at, "stayed away for 0 of 10 s");
}

#[test]
fn who_is_listed_again_while_its_traffic_is_measured_is_not_safe() {
    let (mut known, mut operation) = draining(StepName::Traffic);
    for _ in 0..12 {
        known.pass(Duration::from_secs(1));
        gone(&mut known);
        // The network was parted: d3 hears of the withdrawal last.
        known.hear(observed(3, &[1, 2, 3]));
        operation = next(&known, &operation);
    }
    let (state, at, detail) = stands(&known, &operation);
    assert_eq!((state, at), (Settling, Some(StepName::Traffic)), "{detail}");
    assert!(detail.contains("the LSDB of d3 still"), "{detail}");
    gone(&mut known);
    let ended = next(&known, &operation);
    assert_eq!(ended.state, Succeeded, "{}", ended.detail);
}

#[test]
fn who_announces_again_while_its_traffic_is_measured_is_not_safe() {
    let (mut known, mut operation) = draining(StepName::Traffic);
    for _ in 0..12 {
        known.pass(Duration::from_secs(1));
        gone(&mut known);
        let mut report = acknowledging(observed(1, &[1, 2, 3]));
        report.speaker.as_mut().unwrap().announced[0].source = Source::Override;
        known.hear(counting(report, 1000));
        operation = next(&known, &operation);
    }
    let at = (Settling, StepName::Traffic);
    expect(&known, &operation, at, "an operator's override");
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
