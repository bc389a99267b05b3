//! Planned restarts of the speaker: what the switch, its kernel and the wire see of them, which
//! is nothing.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use isopath_api::config::NetworkType;
use isopath_api::ids::{BfdState, NeighborState, Vip};
use isopath_api::speaker::{OverrideAction, Owner, Reply, Request, Status};
use isopath_lab::binaries;
use isopath_lab::capture::{Capture, Captured, Payload};
use isopath_lab::director::{Director, Source};
use isopath_lab::plan::VIP;
use isopath_lab::switch::SwitchKind;
use isopath_lab::topology::{Lab, Spec};
use isopath_lab::wait::{self, Probe, scaled};
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take before the test fails.
const LIMIT: Duration = Duration::from_secs(20);

/// Long enough for an adjacency or a BFD session that was lost to show.
const AFTER: Duration = Duration::from_millis(1500);

/// Two more VIPs than the file's.
const SECOND: Vip = Vip(Ipv4Addr::new(10, 99, 0, 2));
const THIRD: Vip = Vip(Ipv4Addr::new(10, 99, 0, 3));

#[test]
fn frr_point_to_point() -> Result<()> {
    run("up-frr", SwitchKind::Frr, NetworkType::PointToPoint)
}

#[test]
fn bird_broadcast() -> Result<()> {
    run("up-bird", SwitchKind::Bird, NetworkType::Broadcast)
}

fn run(name: &str, switch: SwitchKind, network: NetworkType) -> Result<()> {
    let Some(mut spec) = Spec::for_test(name) else {
        return Ok(());
    };
    spec.directors = 2;
    spec.real_servers = 0;
    spec.switch = switch;
    spec.network = network;
    Lab::with(spec, |lab| {
        lab.switch.start()?;
        for director in &mut lab.directors {
            director.write_config(&director.config(&Source::vip_only()))?;
            director.start_speaker()?;
        }
        for director in &lab.directors {
            wait_for_status(director, "joined", joined)?;
        }
        lab.switch.wait_for_fib(VIP, &lab.all_next_hops(), LIMIT)?;
        nothing_moves(lab, |lab| {
            let director = &lab.directors[0];
            by_command(director)?;
            by_signal(director)?;
            refusals(director)?;
            by_command(director)?;
            changes_that_wait_get_out(lab)
        })
    })
}

/// An agent that started its speaker itself.
#[test]
fn the_agents_own_speaker() -> Result<()> {
    let Some(mut spec) = Spec::for_test("up-agent") else {
        return Ok(());
    };
    spec.directors = 1;
    spec.real_servers = 0;
    Lab::with(spec, |lab| {
        lab.switch.start()?;
        let config = lab.directors[0].config(&Source::vip_only());
        lab.directors[0].write_config(&config)?;
        lab.directors[0].start_agent()?;
        lab.switch.wait_for_fib(VIP, &lab.all_next_hops(), LIMIT)?;
        wait_for_status(&lab.directors[0], "joined", joined)?;
        nothing_moves(lab, |lab| {
            by_command(&lab.directors[0])?;
            owned(&lab.directors[0], "the agent found the new process")?;
            lab.directors[0].take_agent()?.crash()?;
            by_command(&lab.directors[0])?;
            lab.directors[0].start_agent()?;
            owned(&lab.directors[0], "the next agent found the new process")
        })?;
        // It is still the agent's to stop.
        let director = &mut lab.directors[0];
        let socket = director.speaker_socket();
        director.take_agent()?.stop(LIMIT)?;
        ensure!(!socket.exists(), "the agent left a speaker of its own");
        lab.switch.wait_for_fib(VIP, &lab.next_hops([]), LIMIT)
    })
}

fn owned(director: &Director, what: &str) -> Result<()> {
    let connected = |status: &Status| matches!(status.owner, Owner::Connected { .. });
    wait_for_status(director, what, connected).map(drop)
}

/// Does the work, and makes sure that the switch's kernel, its OSPF and its BFD noticed nothing.
fn nothing_moves(lab: &mut Lab, work: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    let mut monitor = lab.switch.monitor()?;
    let director = &lab.directors[0];
    let directory = director.directory().to_owned();
    let ours = director.next_hop();
    let capture = Capture::start(director.namespace(), "eth1", &directory)?;
    work(lab)?;
    monitor.expect_quiet(VIP.0, scaled(AFTER))?;
    let packets = capture.finish()?;
    let from_us = packets
        .iter()
        .filter(|packet| packet.source == ours)
        .count();
    ensure!(
        from_us > 5,
        "only {from_us} packets of {} captured",
        packets.len()
    );
    packets
        .iter()
        .filter(|packet| packet.source == ours || packet.destination == ours)
        .try_for_each(unremarkable)
}

/// Whether a packet is one of an adjacency and a session that stand.
fn unremarkable(packet: &Captured) -> Result<()> {
    match &packet.payload {
        Payload::Ospf(bytes) => {
            let kind = bytes.get(1).context("no OSPF packet")?;
            ensure!(*kind != 2, "a new database exchange: {packet:?}");
            // A Hello has its neighbours behind 44 bytes, and as many more as it has length.
            let length = bytes.get(2..4).context("no OSPF packet")?;
            let length = u16::from_be_bytes([length[0], length[1]]);
            ensure!(*kind != 1 || length > 44, "a 1-Way Hello: {packet:?}");
        }
        Payload::Bfd(bytes) => {
            let state = bytes.get(1).context("no BFD packet")? >> 6;
            ensure!(state == 3, "BFD is not Up: {packet:?}");
        }
    }
    Ok(())
}

/// `isopath upgrade`, as an operator or systemd calls it.
fn upgrade(director: &Director, binary: Option<&Path>) -> Result<Output> {
    let mut command = Command::new(binaries::find("isopath")?);
    command.arg("--speaker").arg(director.speaker_socket());
    command.arg("upgrade");
    if let Some(binary) = binary {
        command.arg("--binary").arg(binary);
    }
    command.output().context("running isopath")
}

fn by_command(director: &Director) -> Result<()> {
    let before = director.speaker_status()?;
    let output = upgrade(director, None)?;
    ensure!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let after = director.speaker_status()?;
    let pids = format!("process {} to {}", before.pid, after.pid);
    ensure!(said.contains(&pids), "{said:?} does not say {pids:?}");
    went_on(&before, &after)
}

fn by_signal(director: &Director) -> Result<()> {
    let before = director.speaker_status()?;
    signal(before.pid, Signal::USR2)?;
    let after = wait_for_status(director, "another process", |status| {
        status.pid != before.pid
    })?;
    went_on(&before, &after)
}

fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("no process id")?;
    kill_process(pid, signal).with_context(|| format!("signalling {pid:?}"))
}

/// Whether another process speaks, and is the same speaker.
fn went_on(before: &Status, after: &Status) -> Result<()> {
    let upgrades = |status: &Status| status.counters.get("upgrades").copied();
    ensure!(
        after.pid != before.pid,
        "process {} is still there",
        after.pid
    );
    ensure!(after.origin_pid == before.origin_pid, "{after:?}");
    ensure!(after.up_ms >= before.up_ms, "it counts as started anew");
    ensure!(
        upgrades(after) == Some(upgrades(before).unwrap_or(0) + 1),
        "{:?}",
        after.counters
    );
    let sent = |status: &Status| status.counters.get("hellos_sent").copied();
    ensure!(sent(after) >= sent(before), "the counters began anew");
    for (now, then) in after.neighbors.iter().zip(&before.neighbors) {
        ensure!(
            now.state == then.state && now.bfd == then.bfd && now.state_ms >= then.state_ms,
            "{then:?} became {now:?}"
        );
    }
    ensure!(after.announced == before.announced, "{:?}", after.announced);
    Ok(())
}

/// Programs that are no successors, each failing at another step.
fn refusals(director: &Director) -> Result<()> {
    let ready = r#"printf '{"ready":{"version":"9.9.9"}}' >&0"#;
    let garbage = "echo hello >&0; exec sleep 60";
    let silent = format!("{ready}; exec sleep 60");
    let gone = format!("{ready}; exit 3");
    for (name, script, words) in [
        (
            "exits",
            "exit 3",
            "ended before it took over (exit status: 3)",
        ),
        ("garbage", garbage, "is not understood"),
        ("silent", &silent, "did not take over in time"),
        ("gone", &gone, "ended before it took over (exit status: 3)"),
    ] {
        let binary = write_script(director, name, script)?;
        refused(director, &binary, words).with_context(|| format!("a program that {name}"))?;
    }
    let config = director.config(&Source::vip_only());
    director.write_config(&config.replace("dead_interval = \"", "dead_interval = \"1"))?;
    let speaker = binaries::find("isopath-speaker")?;
    refused(director, &speaker, "the dead interval of interface 0 is")?;
    director.write_config("[director\n")?;
    refused(director, &speaker, "agent.toml:1")?;
    director.write_config(&config)?;
    while_one_hangs(director)
}

/// One upgrade at a time; one that hangs ends with its program.
fn while_one_hangs(director: &Director) -> Result<()> {
    let pid_file = director.directory().join("hangs.pid");
    let script = format!(
        "echo $$ > {}.new\nmv {0}.new {0}\nexec sleep 60",
        pid_file.display()
    );
    let hangs = write_script(director, "hangs", &script)?;
    std::thread::scope(|scope| {
        let first =
            scope.spawn(|| refused(director, &hangs, "ended before it took over (signal: 9"));
        let pid = wait::until("the program that hangs", LIMIT, || {
            let text = fs::read_to_string(&pid_file).unwrap_or_default();
            Ok(text
                .trim()
                .parse()
                .map_or_else(|_| Probe::Waiting("no process id".to_owned()), Probe::Ready))
        })?;
        let second = refused(director, &hangs, "an upgrade is under way already");
        signal(pid, Signal::KILL)?;
        first.join().expect("it returns its failure")?;
        second
    })
}

fn write_script(director: &Director, name: &str, body: &str) -> Result<PathBuf> {
    let path = director.directory().join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn refused(director: &Director, binary: &Path, words: &str) -> Result<()> {
    let before = director.speaker_status()?;
    let output = upgrade(director, Some(binary))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        !output.status.success() && said.contains(words),
        "{output:?} is no refusal with {words:?}"
    );
    let after = director.speaker_status()?;
    ensure!(after.pid == before.pid, "process {} speaks", after.pid);
    Ok(())
}

/// The first change leaves at once, the second has to wait for the pace: the process that has
/// taken over sends it.
fn changes_that_wait_get_out(lab: &Lab) -> Result<()> {
    let director = &lab.directors[0];
    let ours = lab.next_hops([1]);
    for vip in [SECOND, THIRD] {
        let request = Request::Override {
            vip,
            action: OverrideAction::Announce { cost: 5 },
            text: "upgrade".to_owned(),
        };
        let reply = director.ask_speaker(&request)?;
        ensure!(reply == Reply::Ok, "{reply:?}");
    }
    let waits = |status: &Status| {
        let third = status.announced.iter().find(|one| one.vip == THIRD);
        third.is_some_and(|one| !one.in_lsdb)
    };
    let before = director.speaker_status()?;
    ensure!(waits(&before), "the second change did not wait: {before:?}");
    let output = upgrade(director, None)?;
    ensure!(output.status.success(), "{output:?}");
    lab.switch.wait_for_fib(THIRD, &ours, LIMIT)?;
    lab.switch.wait_for_fib(SECOND, &ours, LIMIT)
}

/// Whether a neighbour is Full, its BFD Up, and all that is announced acknowledged.
fn joined(status: &Status) -> bool {
    let mut neighbors = status.neighbors.iter();
    neighbors.any(|n| n.state == NeighborState::Full && n.bfd == Some(BfdState::Up))
        && status.announced.iter().all(|vip| vip.acknowledged)
}

fn wait_for_status(
    director: &Director,
    what: &str,
    holds: impl Fn(&Status) -> bool,
) -> Result<Status> {
    wait::until(format_args!("{}: {what}", director.name), LIMIT, || {
        let status = director.speaker_status()?;
        let seen = format!("{status:?}");
        Ok(Probe::when(holds(&status), status, || seen))
    })
}
