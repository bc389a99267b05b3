//! VIPs as external routes, against real switches: type 5 LSAs in a normal area, with a type of
//! metric each, and type 7 LSAs in an NSSA that the switch is the border of. Each test prints
//! what it measured (`--nocapture`).

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use isopath_api::config::AreaType;
use isopath_api::declare::AnnounceAs;
use isopath_api::ids::AreaId;
use isopath_api::reason::Reason;
use isopath_api::speaker::{OverrideAction, Reply, Request};
use isopath_lab::director::{Director, Source};
use isopath_lab::plan::VIP;
use isopath_lab::route_monitor::RouteMonitor;
use isopath_lab::switch::{SwitchArea, SwitchKind};
use isopath_lab::topology::{Lab, Spec};
use isopath_lab::wait::{self, Probe, scaled};

/// How long anything may take before the test fails.
const LIMIT: Duration = Duration::from_secs(20);

/// Longer than the switch's MinLSArrival, so that the next change finds a quiet LSA.
const QUIET: Duration = Duration::from_millis(1200);

/// When the opposite change comes, within MinLSArrival.
const SOON: Duration = Duration::from_millis(800);

/// How long a change may take to the FIB. It is no measure of speed: it lies below the 5 s of
/// a switch's retransmission, which a dropped LSA would have to wait for.
const CHANGE: Duration = Duration::from_secs(4);

/// Changes in both directions that are timed.
const ROUNDS: usize = 1;

const NSSA: SwitchArea = SwitchArea {
    id: AreaId(Ipv4Addr::new(0, 0, 0, 1)),
    kind: AreaType::Nssa,
};

#[test]
fn frr_type_5_with_a_type_2_metric() -> Result<()> {
    run("ext-frr-2", SwitchKind::Frr, AnnounceAs::External2)
}

#[test]
fn frr_type_7() -> Result<()> {
    run("ext-frr-7", SwitchKind::Frr, AnnounceAs::Nssa)
}

#[test]
fn bird_type_5_with_a_type_1_metric() -> Result<()> {
    run("ext-bird-1", SwitchKind::Bird, AnnounceAs::External1)
}

#[test]
fn bird_type_7() -> Result<()> {
    run("ext-bird-7", SwitchKind::Bird, AnnounceAs::Nssa)
}

fn run(name: &str, switch: SwitchKind, kind: AnnounceAs) -> Result<()> {
    let Some(mut spec) = Spec::for_test(name) else {
        return Ok(());
    };
    spec.directors = 2;
    spec.real_servers = 0;
    spec.switch = switch;
    if kind == AnnounceAs::Nssa {
        spec.area = NSSA;
    }
    Lab::with(spec, |lab| {
        lab.switch.start()?;
        let mut monitor = lab.switch.monitor()?;
        let start = Instant::now();
        for director in &mut lab.directors {
            director.write_config(&director.config(&Source::vip_as(kind)))?;
            director.start_speaker()?;
        }
        let both = lab.all_next_hops();
        let took = hops_at(&mut monitor, &both, start)?;
        say(name, "cold start of two to both next hops in the FIB", took);
        expect_announced(&lab.directors[0], kind)?;
        if kind == AnnounceAs::Nssa {
            expect_translated(lab)?;
        }
        withdraw_and_announce(name, lab)?;
        crash_and_restart(name, lab)?;
        planned_stop(name, lab)
    })
}

#[expect(
    clippy::print_stdout,
    reason = "the measurements are for whoever runs the test"
)]
fn say(name: &str, what: &str, value: impl std::fmt::Debug) {
    println!("{name}: {what}: {value:.1?}");
}

/// Waits for exactly these next hops; how long after `since` the kernel had them.
fn hops_at(
    monitor: &mut RouteMonitor,
    hops: &BTreeSet<Ipv4Addr>,
    since: Instant,
) -> Result<Duration> {
    let wanted = format!("next hops {hops:?} to {VIP}");
    let change = monitor.wait_for(&wanted, LIMIT, |change| {
        change.destination == VIP.0 && change.next_hops == *hops
    })?;
    Ok(change.at.saturating_duration_since(since))
}

/// The status says by what kind of LSA the VIP is announced, and that the switch has it.
fn expect_announced(director: &Director, kind: AnnounceAs) -> Result<()> {
    wait::until("the VIP to be acknowledged", LIMIT, || {
        let announced = director.speaker_status()?.announced;
        let there = announced
            .iter()
            .any(|it| it.vip == VIP && it.kind == kind && it.in_lsdb && it.acknowledged);
        Ok(Probe::when(there, (), || format!("{announced:?}")))
    })
}

/// The switch, which borders the NSSA, tells the rest of the network of the VIP by a type 5 LSA
/// of its own.
fn expect_translated(lab: &Lab) -> Result<()> {
    let question = match lab.switch.kind() {
        SwitchKind::Frr => "show ip ospf database external",
        SwitchKind::Bird => "show ospf lsadb global type 5 self",
    };
    wait::until("the translation to type 5", LIMIT, || {
        let answer = lab.switch.ask(question)?;
        let there = answer.contains(&VIP.to_string());
        Ok(Probe::when(there, (), || answer))
    })
}

fn override_vip(director: &Director, action: OverrideAction) -> Result<()> {
    let request = Request::Override {
        vip: VIP,
        action,
        text: "test".to_owned(),
    };
    match director.ask_speaker(&request)? {
        Reply::Ok => Ok(()),
        other => bail!("{action:?} was answered with {other:?}"),
    }
}

/// Changes on a quiet LSA, and each one's opposite within MinLSArrival, which waits for that and
/// is not lost.
fn withdraw_and_announce(name: &str, lab: &Lab) -> Result<()> {
    let director = &lab.directors[0];
    let mut monitor = lab.switch.monitor()?;
    let (both, other) = (lab.all_next_hops(), lab.next_hops([2]));
    let (mut changes, mut opposites) = (Vec::new(), Vec::new());
    let (withdraw, announce) = (OverrideAction::Withdraw, OverrideAction::Clear);
    let mut change = |action: OverrideAction, hops: &BTreeSet<Ipv4Addr>| -> Result<Duration> {
        let start = Instant::now();
        override_vip(director, action)?;
        hops_at(&mut monitor, hops, start)
    };
    for _ in 0..ROUNDS {
        std::thread::sleep(scaled(QUIET));
        changes.push(change(withdraw, &other)?);
        std::thread::sleep(SOON.saturating_sub(*changes.last().context("one was pushed")?));
        opposites.push(change(announce, &both)?);
        std::thread::sleep(scaled(QUIET));
        changes.push(change(withdraw, &other)?);
        std::thread::sleep(scaled(QUIET));
        changes.push(change(announce, &both)?);
    }
    say(name, "change of a quiet LSA to FIB", &changes);
    say(name, "the opposite 0.8 s later to FIB", &opposites);
    for took in changes.iter().chain(&opposites) {
        ensure!(*took <= scaled(CHANGE), "a change took {took:?}");
    }
    let status = director.speaker_status()?;
    let held = |reason: &Reason| matches!(reason, Reason::HeldDown { .. });
    let held = status.withheld.iter().any(|it| held(&it.reason));
    ensure!(!held, "an operator's few tries are no flapping");
    Ok(())
}

/// A restart after a crash outbids the LSA that the switch still has, and does not flap.
fn crash_and_restart(name: &str, lab: &mut Lab) -> Result<()> {
    let (both, other) = (lab.all_next_hops(), lab.next_hops([2]));
    let mut monitor = lab.switch.monitor()?;
    let speaker = lab.directors[0].take_speaker()?;
    let start = Instant::now();
    speaker.crash()?;
    let took = hops_at(&mut monitor, &other, start)?;
    say(name, "SIGKILL to FIB", took);
    let start = Instant::now();
    lab.directors[0].start_speaker()?;
    let took = hops_at(&mut monitor, &both, start)?;
    say(name, "start after SIGKILL to FIB", took);
    monitor
        .expect_quiet(VIP.0, scaled(QUIET))
        .context("the restarted speaker flapped")
}

fn planned_stop(name: &str, lab: &mut Lab) -> Result<()> {
    let other = lab.next_hops([2]);
    let mut monitor = lab.switch.monitor()?;
    let speaker = lab.directors[0].take_speaker()?;
    let start = Instant::now();
    let status = speaker.stop(LIMIT)?;
    let stopped = start.elapsed();
    let withdrawn = hops_at(&mut monitor, &other, start)?;
    say(name, "SIGTERM to FIB and to exit", [withdrawn, stopped]);
    ensure!(status.success(), "the speaker ended with {status}");
    ensure!(
        withdrawn < stopped,
        "the speaker left before the switch had let go"
    );
    Ok(())
}
