//! Traffic that has to have left before a director is safe.

use super::*;

/// A drain of d1 after so many seconds in which nobody lists it and `hear` adds what is reported
/// besides.
fn measured(seconds: u64, hear: impl Fn(&mut Known, u64)) -> (Known, Operation) {
    let (mut known, mut operation) = draining(StepName::Traffic);
    for second in 0..seconds {
        known.pass(Duration::from_secs(1));
        gone(&mut known);
        hear(&mut known, second);
        operation = next(&known, &operation);
    }
    (known, operation)
}

#[test]
fn traffic_has_to_stay_away_by_what_the_kernel_counts() {
    let (mut known, mut operation) = draining(StepName::Traffic);
    let mut packets = 1000;
    let mut pass = |known: &mut Known, operation: &mut Operation, rate: u64| {
        known.pass(Duration::from_secs(1));
        packets += rate;
        gone(known);
        known.hear(withdrawn_after(packets));
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
    let (_, operation) = measured(30, |known, second| {
        known.hear(withdrawn_after(1_000 - second % 5));
    });
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
        let (_, operation) = measured(15, |known, second| {
            let mut report = withdrawn_after(1000);
            report.dataplane.reconciles.unchanged.count = reads(second);
            known.hear(report);
        });
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
    known.hear(withdrawn_after(1000 + 300));
    let at = (Settling, StepName::Traffic);
    expect(&known, &operation, at, "stayed away for 0 of 10 s");
}

#[test]
fn who_is_listed_again_while_its_traffic_is_measured_is_not_safe() {
    // The network was parted: d3 hears of the withdrawal last.
    let (mut known, operation) = measured(12, |known, _| known.hear(observed(3, &[1, 2, 3])));
    let (state, at, detail) = stands(&known, &operation);
    assert_eq!((state, at), (Settling, Some(StepName::Traffic)), "{detail}");
    assert!(detail.contains("the LSDB of d3 still"), "{detail}");
    gone(&mut known);
    let ended = next(&known, &operation);
    assert_eq!(ended.state, Succeeded, "{}", ended.detail);
}

#[test]
fn who_announces_again_while_its_traffic_is_measured_is_not_safe() {
    let (known, operation) = measured(12, |known, _| {
        let mut report = acknowledging(observed(1, &[1, 2, 3]));
        report.speaker.as_mut().unwrap().announced[0].source = Source::Override;
        known.hear(counting(report, 1000));
    });
    let at = (Settling, StepName::Traffic);
    expect(&known, &operation, at, "an operator's override");
}
