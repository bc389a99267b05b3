use std::sync::Arc;

use isopath_api::desired::AdminState;
use isopath_api::observed::{Health, Observed};
use isopath_api::operation::OperationState::{Applying, Blocked, Settling, Succeeded};
use isopath_api::operation::{OnDeadline, OperationState, StepName};

use super::super::{Kind, Operation, Target, cancelling, progress};
use crate::control::quiesced::QuiescedServer;
use crate::testing::{Known, SERVICE, observed, read, set_health, without_dataplane};

const SERVER: &str = "10.1.0.11:80";

/// A cluster of two where a drain of a real server is at `step`.
fn draining(step: StepName) -> (Known, Operation) {
    let mut known = Known::healthy(2);
    quiesce(&mut known);
    let target = Target::RealServer(SERVER.parse().unwrap(), None);
    let operation = known.operation_of(Kind::Drain, target, (step, OnDeadline::Remove));
    (known, operation)
}

fn quiesce(known: &mut Known) {
    let server = QuiescedServer {
        state: AdminState::Draining,
        removed: false,
        reason: String::new(),
    };
    let member = (SERVICE.parse().unwrap(), SERVER.parse().unwrap());
    let quiesced = &mut known.cluster.quiesced;
    quiesced.real_servers.insert(member, server);
}

/// The report of a director that has it at this weight and with these connections.
fn with(n: u8, weight: u16, active: u32) -> Observed {
    let mut report = read(observed(n, &[1, 2]));
    let server = &mut report.services[0].real_servers[0];
    server.weight = weight;
    server.effective_weight = Some(weight.into());
    (server.active, server.inactive) = (active, 0);
    report
}

#[track_caller]
fn expect(
    known: &Known,
    operation: &Operation,
    (state, step): (OperationState, Option<StepName>),
    words: &str,
) {
    let next = progress(operation, &known.cluster, known.now, known.started).operation;
    assert_eq!((next.state, next.step()), (state, step), "{}", next.detail);
    let detail = &next.detail;
    assert!(detail.contains(words), "{detail:?} does not say {words:?}");
}

#[test]
fn a_kernel_that_was_not_read_says_nothing_of_weights() {
    let (mut known, operation) = draining(StepName::Weight);
    known.hear(with(1, 0, 0));
    let mut unread = with(2, 0, 0);
    unread.services[0].stats = None;
    unread.services[0].real_servers[0].effective_weight = None;
    let at = (Applying, Some(StepName::Weight));
    known.hear(unread.clone());
    let words = "d2 has not read tcp:10.99.0.1:80 from its kernel yet";
    expect(&known, &operation, at, words);
    let mut behind = with(2, 0, 0);
    behind.services[0].real_servers[0].effective_weight = Some(1);
    known.hear(behind);
    let words = "d2 has 10.1.0.11:80 of tcp:10.99.0.1:80 at weight 1";
    expect(&known, &operation, at, words);
    known.hear(without_dataplane(unread));
    expect(&known, &operation, (Succeeded, None), "");
    // What the kernel was read without takes no connections.
    let mut absent = with(2, 0, 0);
    absent.services[0].real_servers[0].effective_weight = None;
    known.hear(absent);
    expect(&known, &operation, (Succeeded, None), "");
}

#[test]
fn a_kernel_that_was_not_read_says_nothing_of_connections() {
    let (mut known, operation) = draining(StepName::Connections);
    known.hear(with(1, 0, 0));
    let mut unread = with(2, 0, 0);
    unread.services[0].stats = None;
    known.hear(unread);
    let at = (Settling, Some(StepName::Connections));
    let words = "d2 has not read tcp:10.99.0.1:80 from its kernel yet";
    expect(&known, &operation, at, words);
    known.hear(with(2, 0, 4));
    expect(&known, &operation, at, "connections left: 4 on d2");
    known.hear(with(2, 0, 0));
    expect(&known, &operation, (Succeeded, None), "");
}

#[test]
fn a_service_that_a_director_does_not_report_says_nothing() {
    for step in [StepName::Weight, StepName::Connections, StepName::Remove] {
        let (mut known, operation) = draining(step);
        let mut without = with(1, 0, 0);
        without.services[0].real_servers.remove(0);
        known.hear(without);
        let mut other = with(2, 0, 0);
        other.services.clear();
        known.hear(other);
        let next = progress(&operation, &known.cluster, known.now, known.started).operation;
        assert_eq!(next.step(), Some(step), "{}", next.detail);
        assert!(next.detail.contains("does not report"), "{}", next.detail);
    }
}

#[test]
fn what_is_removed_is_gone_when_the_kernel_was_read_without_it() {
    let (mut known, mut operation) = draining(StepName::Remove);
    // The deadline is what brought it about.
    operation.deadline_at = known.now.wall;
    let removed = |n| {
        let mut report = with(n, 0, 0);
        report.services[0].real_servers.remove(0);
        report
    };
    known.hear(removed(1));
    let at = (Applying, Some(StepName::Remove));
    known.hear(with(2, 0, 0));
    let words = "d2 still has 10.1.0.11:80 of tcp:10.99.0.1:80";
    expect(&known, &operation, at, words);
    let mut leaving = removed(2);
    leaving.services[0].leaving = vec![SERVER.parse().unwrap()];
    known.hear(leaving);
    expect(&known, &operation, at, words);
    let mut unread = removed(2);
    unread.services[0].digest = None;
    known.hear(unread);
    expect(&known, &operation, at, "d2 has not read tcp:10.99.0.1:80");
    known.hear(removed(2));
    expect(&known, &operation, (Succeeded, None), "");
}

#[test]
fn a_health_that_nobody_knows_puts_no_real_server_back() {
    let (mut known, operation) = draining(StepName::Connections);
    known.hear(with(1, 0, 2));
    let mut restarted = with(2, 0, 2);
    set_health(&mut restarted, 1, Health::Unknown);
    known.hear(restarted.clone());
    let at = (Settling, Some(StepName::Connections));
    expect(&known, &operation, at, "connections left");
    set_health(&mut restarted, 1, Health::Down);
    known.hear(restarted);
    let at = (Blocked, Some(StepName::Guard));
    expect(
        &known,
        &operation,
        at,
        "is back in service until that is over",
    );
}

#[test]
fn a_weight_that_falls_behind_its_deadline_holds() {
    let (mut known, mut operation) = draining(StepName::Weight);
    Arc::make_mut(&mut known.cluster.declaration).service[0].quorum = 1;
    operation.deadline_at = known.now.wall;
    known.hear(with(1, 0, 0));
    known.hear(with(2, 1, 0));
    let at = (Blocked, Some(StepName::Weight));
    expect(&known, &operation, at, "d2 has 10.1.0.11:80");
}

/// A declaration that gives it to another service while it is being drained in all of them.
#[test]
fn a_service_that_gets_it_meanwhile_gives_it_up_too() {
    for step in [StepName::Weight, StepName::Connections] {
        let (mut known, mut operation) = draining(step);
        operation.target = Target::RealServer("10.1.0.11".parse().unwrap(), None);
        let declaration = Arc::make_mut(&mut known.cluster.declaration);
        let mut other = declaration.service[0].clone();
        other.port = Some(81);
        declaration.service.push(other);
        for n in [1, 2] {
            let mut report = with(n, 0, 0);
            let mut service = with(n, 1, 0).services.remove(0);
            service.service = "tcp:10.99.0.1:81".parse().unwrap();
            for server in &mut service.real_servers {
                server.real_server.0.set_port(81);
            }
            report.services.push(service);
            known.hear(report);
        }
        let next = progress(&operation, &known.cluster, known.now, known.started);
        assert_eq!(next.admin, Some(AdminState::Draining), "{step:?}");
        let operation = next.operation;
        assert_eq!(operation.step(), Some(StepName::Weight), "{step:?}");
        assert_eq!(operation.state, Applying, "{}", operation.detail);
    }
}

#[test]
fn who_is_no_director_any_more_keeps_nothing_put_back() {
    let (mut known, mut operation) = draining(StepName::Guard);
    known.cluster.quiesced.real_servers.clear();
    for n in [1, 2] {
        known.hear(with(n, 1, 0));
        operation.need.insert(format!("d{n}").parse().unwrap(), 1);
    }
    operation.need.insert("d9".parse().unwrap(), 1);
    expect(&known, &operation, (Applying, Some(StepName::Weight)), "");
}

#[test]
fn an_undrained_real_server_is_in_service_when_it_takes_connections() {
    let (mut known, _) = draining(StepName::Weight);
    known.cluster.quiesced.real_servers.clear();
    let target = Target::RealServer(SERVER.parse().unwrap(), None);
    let at = (StepName::Restore, OnDeadline::Hold);
    let operation = known.operation_of(Kind::Undrain, target, at);
    let at = (Applying, Some(StepName::Restore));
    known.hear(with(1, 1, 0));
    let mut down = with(2, 1, 0);
    set_health(&mut down, 0, Health::Down);
    down.services[0].real_servers[0].effective_weight = Some(0);
    known.hear(down.clone());
    let words = "10.1.0.11:80 of tcp:10.99.0.1:80 is Down on d2";
    expect(&known, &operation, at, words);
    known.hear(without_dataplane(down));
    expect(&known, &operation, at, words);
    let mut behind = with(2, 1, 0);
    behind.services[0].real_servers[0].effective_weight = Some(0);
    known.hear(behind.clone());
    let words = "d2 has 10.1.0.11:80 of tcp:10.99.0.1:80 at weight 0";
    expect(&known, &operation, at, words);
    known.hear(without_dataplane(behind));
    expect(&known, &operation, (Succeeded, None), "");
    known.hear(with(2, 1, 0));
    expect(&known, &operation, (Succeeded, None), "");
}

#[test]
fn a_drain_that_is_cancelled_leaves_a_real_server_as_it_was() {
    let (mut known, operation) = draining(StepName::Weight);
    known.cluster.quiesced.real_servers.clear();
    let operation = cancelling(&operation, "ops", known.now);
    for n in [1, 2] {
        let mut down = with(n, 1, 0);
        set_health(&mut down, 0, Health::Down);
        known.hear(down);
    }
    expect(&known, &operation, (OperationState::Cancelled, None), "");
}
