//! Whole clusters without IPVS, against FRR and BIRD: what moves a route, and what must not.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use isopath_api::ids::RouterId;
use isopath_api::observed::Health;
use isopath_api::operation::DrainRequest;
use isopath_api::paths::Width;
use isopath_api::problem::Problem;
use isopath_api::speaker::Owner;
use isopath_lab::director::Director;
use isopath_lab::plan::{VIP, router_id};
use isopath_lab::switch::SwitchKind;
use isopath_lab::topology::{Lab, Spec};
use isopath_lab::wait::{self, Probe, scaled};

/// A route change that is waited for takes seconds at most, even on BIRD.
const SOON: Duration = Duration::from_secs(15);

/// Long enough for anything that would wrongly move a route: BFD's detection, the dead interval,
/// and a few rounds of checks.
const WHILE: Duration = Duration::from_secs(5);

/// Runs a test in a cluster of four directors, up and at full width.
fn in_cluster(
    name: &str,
    switch: SwitchKind,
    quorum: u16,
    test: impl FnOnce(&mut Lab) -> Result<()>,
) -> Result<()> {
    let Some(spec) = Spec::for_test(&format!("{name}-{switch}")) else {
        return Ok(());
    };
    // Short, so that the tests can wait for its end.
    let agent_hold = scaled(Duration::from_secs(5));
    Lab::with(
        Spec {
            switch,
            agent_hold,
            ..spec
        },
        |lab| {
            lab.start(quorum, &mut |_| {})?;
            test(lab)
        },
    )
}

fn wait_for_hops(lab: &Lab, directors: &[u8]) -> Result<()> {
    lab.switch
        .wait_for_fib(VIP, &lab.next_hops(directors.iter().copied()), SOON)
}

/// Waits until every director, and the controller after them, says of the switch what its kernel
/// says itself: so many next hops, through these directors.
fn wait_for_width(lab: &Lab, directors: &[u8]) -> Result<()> {
    let in_kernel = lab.switch.fib(VIP)?.len();
    ensure!(
        in_kernel == directors.len(),
        "the switch's kernel has {in_kernel} next hops, {directors:?} announce"
    );
    let ids: BTreeSet<RouterId> = directors.iter().map(|n| router_id(*n)).collect();
    wait::until(
        format_args!("all to see a width of {in_kernel} through {ids:?}"),
        SOON,
        || {
            let mut seen = Vec::new();
            for director in &lab.directors {
                let speaker = director.agent_status()?.speaker;
                seen.extend(speaker.into_iter().flat_map(|speaker| speaker.widths));
            }
            let is_right = |width: &Width| {
                let through: BTreeSet<RouterId> = width.through.iter().copied().collect();
                usize::try_from(width.width) == Ok(in_kernel) && through == ids
            };
            let vips = lab.controller.view()?.vips;
            let shown: Vec<u32> = vips
                .iter()
                .flat_map(|vip| vip.widths.iter().map(|seen| seen.width))
                .collect();
            let all = seen.len() == lab.directors.len() && seen.iter().all(is_right);
            let is_shown = matches!(shown[..], [width] if usize::try_from(width) == Ok(in_kernel));
            Ok(Probe::when(all && is_shown, (), || {
                format!("directors say {seen:?}, the controller {shown:?}")
            }))
        },
    )
}

fn drain(reason: &str, override_guards: &[&str]) -> DrainRequest {
    DrainRequest {
        reason: reason.to_owned(),
        override_guards: override_guards
            .iter()
            .map(|&guard| guard.to_owned())
            .collect(),
        ..DrainRequest::default()
    }
}

#[test]
fn a_vip_below_its_quorum_is_withdrawn_and_comes_back_by_itself_on_frr() -> Result<()> {
    in_cluster("quorum", SwitchKind::Frr, 2, below_quorum)
}

#[test]
fn a_vip_below_its_quorum_is_withdrawn_and_comes_back_by_itself_on_bird() -> Result<()> {
    in_cluster("quorum", SwitchKind::Bird, 2, below_quorum)
}

fn below_quorum(lab: &mut Lab) -> Result<()> {
    let mut monitor = lab.switch.monitor()?;
    lab.real_servers[0].crash()?;
    for director in &lab.directors {
        wait_for_unhealthy(director, 1)?;
    }
    monitor
        .expect_quiet(VIP.0, Duration::from_secs(1))
        .context("two of three real servers are the quorum, and yet")?;

    lab.real_servers[1].crash()?;
    wait_for_hops(lab, &[]).context("with one real server left of the two needed")?;
    for director in &lab.directors {
        let status = director.agent_status()?;
        let reason = status
            .vips
            .first()
            .context("an agent without the VIP")?
            .reason
            .code();
        ensure!(
            reason == "below-quorum",
            "{} withdrew for {reason}",
            director.name
        );
    }

    lab.real_servers[1].start()?;
    wait_for_hops(lab, &[1, 2, 3, 4]).context("with two real servers again")
}

fn wait_for_unhealthy(director: &Director, count: usize) -> Result<()> {
    let what = format!("{} to see {count} real servers unhealthy", director.name);
    wait::until(what, SOON, || {
        let services = director.agent_status()?.services;
        let servers = services.iter().flat_map(|service| &service.real_servers);
        let healths: Vec<Health> = servers.map(|server| server.health).collect();
        let down = healths
            .iter()
            .filter(|&&health| health == Health::Down)
            .count();
        Ok(Probe::when(down == count, (), || format!("{healths:?}")))
    })
}

#[test]
fn a_drained_director_loses_its_next_hop_and_no_other_does_on_frr() -> Result<()> {
    in_cluster("drain", SwitchKind::Frr, 1, drains)
}

#[test]
fn a_drained_director_loses_its_next_hop_and_no_other_does_on_bird() -> Result<()> {
    in_cluster("drain", SwitchKind::Bird, 1, drains)
}

fn drains(lab: &mut Lab) -> Result<()> {
    wait_for_width(lab, &[1, 2, 3, 4]).context("before the drain of d2")?;
    let mut monitor = lab.switch.monitor()?;

    let answer = lab.controller.drain("d2", &drain("kernel", &[]))?;
    ensure!(
        answer.status == 202,
        "draining d2 was answered with {answer:?}"
    );
    wait_for_hops(lab, &[1, 3, 4]).context("after the drain of d2")?;
    wait_for_width(lab, &[1, 3, 4]).context("after the drain of d2")?;
    let others = lab.next_hops([1, 3, 4]);
    for change in monitor
        .take()?
        .iter()
        .filter(|change| change.destination == VIP.0)
    {
        ensure!(
            change.next_hops.is_superset(&others),
            "the drain of d2 also moved others: {change:?}"
        );
    }

    let answer = lab.controller.undrain("d2")?;
    ensure!(
        answer.status == 202,
        "undraining d2 was answered with {answer:?}"
    );
    wait_for_hops(lab, &[1, 2, 3, 4]).context("after the undrain of d2")?;

    for (director, left) in [("d1", &[2, 3, 4][..]), ("d2", &[3, 4]), ("d3", &[4])] {
        let answer = lab.controller.drain(director, &drain("all of them", &[]))?;
        ensure!(
            answer.status == 202,
            "draining {director} was answered with {answer:?}"
        );
        wait_for_hops(lab, left).with_context(|| format!("after the drain of {director}"))?;
    }
    last_announcer(lab)
}

/// Only d4 announces: its drain is refused unless that guard is overridden.
fn last_announcer(lab: &Lab) -> Result<()> {
    let mut monitor = lab.switch.monitor()?;
    let answer = lab.controller.drain("d4", &drain("the last one", &[]))?;
    ensure!(
        answer.status == 409,
        "draining the last announcer was answered with {answer:?}"
    );
    let problem: Problem = serde_json::from_str(&answer.body).context("reading the refusal")?;
    ensure!(
        problem.guards == ["last_announcer"] && !problem.detail.is_empty(),
        "the refusal does not name its guard and reason: {problem:?}"
    );
    monitor
        .expect_quiet(VIP.0, Duration::from_secs(2))
        .context("after a refused drain")?;

    let request = drain("maintenance of the whole site", &["last_announcer"]);
    let answer = lab.controller.drain("d4", &request)?;
    ensure!(
        answer.status == 202,
        "draining d4 with the override was answered with {answer:?}"
    );
    wait_for_hops(lab, &[]).context("after the overridden drain of d4")?;
    for director in ["d1", "d2", "d3", "d4"] {
        let answer = lab.controller.undrain(director)?;
        ensure!(
            answer.status == 202,
            "undraining {director} was answered with {answer:?}"
        );
    }
    wait_for_hops(lab, &[1, 2, 3, 4]).context("after undraining all")
}

#[test]
fn a_killed_process_moves_no_more_than_it_must_on_frr() -> Result<()> {
    in_cluster("kill", SwitchKind::Frr, 1, kills)
}

#[test]
fn a_killed_process_moves_no_more_than_it_must_on_bird() -> Result<()> {
    in_cluster("kill", SwitchKind::Bird, 1, kills)
}

fn kills(lab: &mut Lab) -> Result<()> {
    agent_killed(lab).context("killing an agent")?;
    agent_and_speaker_killed(lab).context("killing agent and speaker")?;
    controller_killed(lab).context("killing the controller")
}

/// Nothing moves while the agent is back within its hold; later its director is withdrawn.
fn agent_killed(lab: &mut Lab) -> Result<()> {
    let hold = lab.spec.agent_hold;
    let mut monitor = lab.switch.monitor()?;
    let killed = Instant::now();
    lab.directors[0].take_agent()?.crash()?;
    lab.directors[0].start_agent()?;
    wait_for_owner(&mut lab.directors[0])?;
    let back = killed.elapsed();
    ensure!(
        back < hold,
        "the agent took {back:?} to come back, more than its hold of {hold:?}"
    );
    monitor
        .expect_quiet(VIP.0, hold + Duration::from_secs(1))
        .context("with the agent back")?;

    lab.directors[0].take_agent()?.crash()?;
    wait_for_hops(lab, &[2, 3, 4]).context("with the agent gone for longer than its hold")?;
    lab.directors[0].start_agent()?;
    wait_for_hops(lab, &[1, 2, 3, 4]).context("with the agent back after its hold")
}

/// Waits until the running agent owns the speaker's set and has decided to announce the VIP.
fn wait_for_owner(director: &mut Director) -> Result<()> {
    let agent = director.agent()?.pid();
    wait::until(
        format_args!("agent {agent} to own the speaker's set"),
        SOON,
        || {
            let owner = director.speaker_status()?.owner;
            let vips = director.agent_status()?.vips;
            let owns = matches!(owner, Owner::Connected { pid, .. } if pid == agent);
            let announces = vips.iter().any(|vip| vip.cost.is_some());
            Ok(Probe::when(owns && announces, (), || {
                format!("owner {owner:?}, VIPs {vips:?}")
            }))
        },
    )
}

/// The speaker's next hop goes, and only that; it comes back with the speaker.
fn agent_and_speaker_killed(lab: &mut Lab) -> Result<()> {
    lab.directors[1].take_speaker()?.crash()?;
    wait_for_hops(lab, &[1, 3, 4]).context("with the speaker of d2 killed")?;
    wait_for_announcers(&lab.directors[0], 3)
        .context("the LSA of d2 is still in every database, and must not count")?;
    lab.directors[2].take_speaker()?.crash()?;
    lab.directors[2].take_agent()?.crash()?;
    wait_for_hops(lab, &[1, 4]).context("with both daemons of d3 killed, too")?;
    lab.directors[1].start_speaker()?;
    lab.directors[2].start_speaker()?;
    lab.directors[2].start_agent()?;
    // With the adjacency the switch has d3's next hop from the LSA of before the crash, for a
    // moment, until the speaker has replaced it; that is not the return that is waited for.
    wait_for_owner(&mut lab.directors[1])?;
    wait_for_owner(&mut lab.directors[2])?;
    wait_for_hops(lab, &[1, 2, 3, 4]).context("with all of them started again")
}

/// Waits until a director knows of so many announcers of the VIP.
fn wait_for_announcers(director: &Director, count: usize) -> Result<()> {
    wait::until(format_args!("{count} announcers"), SOON, || {
        let announcers = director.speaker_status()?.announcers;
        let known = announcers.get(&VIP).map(Vec::len);
        Ok(Probe::when(known == Some(count), (), || {
            format!("{announcers:?}")
        }))
    })
}

/// The directors go on alone, even through a restart of their agents, and nothing moves when
/// the controller is back.
fn controller_killed(lab: &mut Lab) -> Result<()> {
    let mut monitor = lab.switch.monitor()?;
    lab.controller.crash()?;
    monitor
        .expect_quiet(VIP.0, WHILE)
        .context("without the controller")?;
    for director in &mut lab.directors {
        director.take_agent()?.crash()?;
        director.start_agent()?;
        wait_for_owner(director)?;
    }
    monitor
        .expect_quiet(VIP.0, WHILE)
        .context("after a restart of the agents alone")?;
    lab.controller.start()?;
    lab.wait_for_all_up()?;
    monitor
        .expect_quiet(VIP.0, WHILE)
        .context("with the controller back")
}

#[test]
fn eight_directors_are_eight_next_hops_on_frr() -> Result<()> {
    let Some(spec) = Spec::for_test("eight") else {
        return Ok(());
    };
    Lab::with(
        Spec {
            directors: 8,
            ..spec
        },
        |lab| {
            lab.start(1, &mut |_| {})?;
            let fib = lab.switch.fib(VIP)?;
            ensure!(
                fib.len() == 8,
                "the FIB has {} next hops: {fib:?}",
                fib.len()
            );
            Ok(())
        },
    )
}
