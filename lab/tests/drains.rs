//! A drain of a director among real speakers, its controller killed in each of its steps.
//!
//! Agents are stopped by signal where a step has to be held: what an operation waits for is what
//! they report, and for a minute after the controller's start one that was not heard yet means
//! nothing. Their speakers go on all the while.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use isopath_api::operation::{DrainRequest, OperationState, OperationView, StepName, StepState};
use isopath_api::speaker::{OverrideAction, Reply, Request};
use isopath_lab::plan::VIP;
use isopath_lab::topology::{Lab, Spec};
use isopath_lab::wait::{self, Probe};
use rustix::process::Signal;

/// What an operation waits for here comes within seconds.
const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_drain_survives_its_controller_in_every_step() -> Result<()> {
    let Some(spec) = Spec::for_test("drain-steps") else {
        return Ok(());
    };
    let spec = Spec {
        directors: 3,
        // The agents are stopped for a while, which must not withdraw anything.
        agent_hold: Duration::from_secs(300),
        ..spec
    };
    Lab::with(spec, |lab| {
        lab.start(1, &mut |_| {})?;
        killed_while_a_guard_holds(lab).context("killed while a guard holds the drain")?;
        killed_in_the_other_steps(lab)
    })
}

/// The director is back in service until others announce again, also for the next controller.
fn killed_while_a_guard_holds(lab: &mut Lab) -> Result<()> {
    lab.wait_for_all_up()?;
    stop(lab, &[2])?;
    let drain = begin(lab, "drain")?;
    wait_for(lab, &drain, "the guards", |it| {
        at(it) == Some(StepName::Cost)
    })?;
    for director in [1, 3] {
        override_vip(lab, director, OverrideAction::Withdraw)?;
    }
    // The guard speaks again once d2 has acknowledged that it is back.
    wait_for(lab, &drain, "to be put back", |it| {
        at(it) == Some(StepName::Guard)
    })?;
    go_on(lab, &[2])?;
    let mut monitor = lab.switch.monitor()?;
    kill_at(lab, &drain, StepName::Guard)?;
    wait_for(lab, &drain, "all to be heard again", |it| {
        it.blocked_by == ["last_announcer"] && it.targets[0].acked_gen.is_some()
    })?;
    let changes = monitor.take()?;
    let hop = lab.next_hops([2]);
    let lost = changes
        .iter()
        .find(|it| it.destination == VIP.0 && !it.next_hops.is_superset(&hop));
    ensure!(lost.is_none(), "the last announcer went: {lost:?}");
    for director in [1, 3] {
        override_vip(lab, director, OverrideAction::Clear)?;
    }
    wait_for_success(lab, &drain, "safe to work on")?;
    wait_for_hops(lab, &[1, 3])?;
    let undrain = begin(lab, "undrain")?;
    wait_for_success(lab, &undrain, "in service")?;
    wait_for_hops(lab, &[1, 2, 3])
}

fn killed_in_the_other_steps(lab: &mut Lab) -> Result<()> {
    lab.wait_for_all_up()?;
    let mut monitor = lab.switch.monitor()?;
    stop(lab, &[2])?;
    let drain = begin(lab, "drain")?;
    stop(lab, &[1, 3])?;
    kill_at(lab, &drain, StepName::Cost)?;
    withdrawing(lab, &drain)?;
    stop(lab, &[1, 3])?;
    kill_at(lab, &drain, StepName::Withdraw)?;

    go_on(lab, &[2])?;
    wait_for(lab, &drain, "the withdrawal", |it| {
        at(it) == Some(StepName::Set)
    })?;
    stop(lab, &[2])?;
    kill_at(lab, &drain, StepName::Set)?;

    go_on(lab, &[1, 3])?;
    wait_for(lab, &drain, "the other databases", |it| {
        at(it) == Some(StepName::Traffic)
    })?;
    kill_at(lab, &drain, StepName::Traffic)?;
    go_on(lab, &[2])?;
    wait_for_success(lab, &drain, "safe to work on")?;

    wait_for_hops(lab, &[1, 3])?;
    let others = lab.next_hops([1, 3]);
    for change in monitor.take()? {
        ensure!(
            change.destination != VIP.0 || change.next_hops.is_superset(&others),
            "the drain of d2 also moved others: {change:?}"
        );
    }
    Ok(())
}

/// Brings the drain from `cost` to `withdraw`, and no further: d2 has to be stopped between what
/// it says of its cost and what it is told next. Its word counts for five seconds. Where the
/// machine took longer than that to hear the others, it is begun anew, from the controller's
/// start on.
fn withdrawing(lab: &mut Lab, drain: &str) -> Result<()> {
    loop {
        go_on(lab, &[2])?;
        wait_for(lab, drain, "the higher cost of d2", |it| {
            it.detail.contains("not every director has been heard")
        })?;
        stop(lab, &[2])?;
        go_on(lab, &[1, 3])?;
        let told = wait_for(lab, drain, "the other databases", |it| {
            at(it) == Some(StepName::Withdraw) || it.detail.contains("d2 is silent")
        })?;
        if at(&told) == Some(StepName::Withdraw) {
            return Ok(());
        }
        stop(lab, &[1, 3])?;
        kill_at(lab, drain, StepName::Cost)?;
    }
}

/// Kills the controller, and starts it: the operation is where it was.
fn kill_at(lab: &mut Lab, id: &str, step: StepName) -> Result<()> {
    let name = step.as_str();
    let before = operation(lab, id)?;
    ensure!(at(&before) == Some(step), "it is not at {name}: {before:?}");
    lab.controller.crash()?;
    lab.controller.start()?;
    let after = operation(lab, id)?;
    let stored = |it: &OperationView| {
        let steps = it.steps.iter().map(|it| (it.step, it.state));
        let need = it.targets.iter().map(|it| it.need_gen);
        (steps.collect::<Vec<_>>(), need.collect::<Vec<_>>())
    };
    ensure!(
        stored(&after) == stored(&before),
        "killed at {name}: it was {before:?}, and is {after:?}"
    );
    Ok(())
}

/// Asks for something of d2: the operation's id.
fn begin(lab: &Lab, what: &str) -> Result<String> {
    let answer = match what {
        "drain" => lab.controller.drain("d2", &DrainRequest::default())?,
        _ => lab.controller.undrain("d2")?,
    };
    ensure!(answer.status == 202, "{what} of d2: {answer:?}");
    let begun: OperationView = serde_json::from_str(&answer.body).context("reading it")?;
    Ok(begun.id)
}

fn operation(lab: &Lab, id: &str) -> Result<OperationView> {
    let path = format!("/api/v1/operations/{id}");
    let answer = lab.controller.request("GET", &path, None)?;
    ensure!(answer.status == 200, "{path}: {answer:?}");
    serde_json::from_str(&answer.body).with_context(|| format!("reading {}", answer.body))
}

fn at(operation: &OperationView) -> Option<StepName> {
    let mut steps = operation.steps.iter();
    let now = steps.find(|step| step.state == StepState::Now);
    now.map(|step| step.step)
}

fn wait_for(
    lab: &Lab,
    id: &str,
    what: &str,
    holds: impl Fn(&OperationView) -> bool,
) -> Result<OperationView> {
    wait::until(what, SOON, || {
        let now = operation(lab, id)?;
        ensure!(!now.state.is_terminal() || holds(&now), "it ended: {now:?}");
        let holds = holds(&now);
        let text = format!("{now:?}");
        Ok(Probe::when(holds, now, || text))
    })
}

fn wait_for_success(lab: &Lab, id: &str, words: &str) -> Result<()> {
    let ended = wait_for(lab, id, words, |it| it.state == OperationState::Succeeded)?;
    let said = ended.detail.contains(words);
    ensure!(said, "it ended otherwise: {ended:?}");
    Ok(())
}

fn wait_for_hops(lab: &Lab, directors: &[u8]) -> Result<()> {
    let hops = lab.next_hops(directors.iter().copied());
    lab.switch.wait_for_fib(VIP, &hops, SOON)
}

fn stop(lab: &mut Lab, directors: &[u8]) -> Result<()> {
    signal(lab, directors, Signal::STOP)
}

fn go_on(lab: &mut Lab, directors: &[u8]) -> Result<()> {
    signal(lab, directors, Signal::CONT)
}

fn signal(lab: &mut Lab, directors: &[u8], signal: Signal) -> Result<()> {
    for director in directors {
        let place = usize::from(director - 1);
        lab.directors[place].agent()?.signal(signal)?;
    }
    Ok(())
}

fn override_vip(lab: &Lab, director: u8, action: OverrideAction) -> Result<()> {
    let request = Request::Override {
        vip: VIP,
        action,
        text: "test".to_owned(),
    };
    match lab.directors[usize::from(director - 1)].ask_speaker(&request)? {
        Reply::Ok => Ok(()),
        other => bail!("{action:?} was answered with {other:?}"),
    }
}
