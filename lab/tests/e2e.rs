//! The whole way of a request through a real IPVS, and what a failure costs the client: on the
//! cluster of `deploy/examples/ospf-cluster`.
//!
//! It needs a kernel with IPVS: `scripts/test-ipvs` runs it on this one or in a virtual machine.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use isopath_api::config::Dataplane;
use isopath_api::operation::{DrainRequest, OperationState, OperationView, StepName};
use isopath_api::speaker::Owner;
use isopath_api::view::{Agreement, DirectorPlacement, EventView};
use isopath_lab::controller::CLUSTER;
use isopath_lab::director::Director;
use isopath_lab::fetch::{Load, Tally};
use isopath_lab::http;
use isopath_lab::netns::Namespace;
use isopath_lab::plan::VIP;
use isopath_lab::report::say;
use isopath_lab::switch::SwitchKind;
use isopath_lab::topology::{Lab, Spec};
use isopath_lab::up::measure_spread;
use isopath_lab::wait::{self, Probe};

const REQUESTS: usize = 300;

const SOON: Duration = Duration::from_secs(20);

/// One phase: what happened, and what became of the requests sent meanwhile.
struct Phase {
    what: &'static str,
    tally: Tally,
    before: BTreeSet<Ipv4Addr>,
    after: BTreeSet<Ipv4Addr>,
    took: Duration,
}

#[test]
fn requests_go_through_every_director_and_survive_what_can_be_survived_on_frr() -> Result<()> {
    on(SwitchKind::Frr)
}

#[test]
fn requests_go_through_every_director_and_survive_what_can_be_survived_on_bird() -> Result<()> {
    on(SwitchKind::Bird)
}

fn on(switch: SwitchKind) -> Result<()> {
    let name = format!("e2e-{switch}");
    if std::env::var_os("ISOPATH_TEST_IPVS").is_none() {
        say(format_args!(
            "SKIPPED: {name}: ISOPATH_TEST_IPVS is not set, which make test-ipvs sets"
        ));
        return Ok(());
    }
    let Some(spec) = Spec::for_test(&name) else {
        return Ok(());
    };
    let dataplane = Dataplane::Ipvs;
    Lab::with(
        Spec {
            dataplane,
            switch,
            ..spec
        },
        all_phases,
    )
}

fn all_phases(lab: &mut Lab) -> Result<()> {
    let started = Instant::now();
    lab.start_example(&mut |step| say(format_args!("e2e: {step}")))?;
    let (kind, up) = (lab.switch.kind(), started.elapsed());
    say(format_args!("e2e: {kind} up after {up:.0?}"));
    all_are_used(lab)?;
    // What some try is a director and the controller, for which one switch is enough.
    let is_first = match kind {
        SwitchKind::Frr => true,
        SwitchKind::Bird => false,
    };
    let mut phases = vec![real_server_killed(lab)?];
    if is_first {
        // Before any connection goes on through another director: the first one counts it as
        // active until its timeout.
        phases.push(real_server_drained(lab)?);
    }
    phases.push(director_drained(lab)?);
    phases.push(agent_killed(lab)?);
    phases.push(speaker_killed(lab)?);
    if is_first {
        phases.push(director_differs(lab)?);
        phases.push(drained_and_safe(lab)?);
    }
    print(&phases);
    for Phase { what, tally, .. } in &phases[1..] {
        let (failures, failed) = (tally.failures(), &tally.failed);
        ensure!(
            failures == 0,
            "{what}: {failures} requests failed: {failed:?}"
        );
    }
    Ok(())
}

/// With nothing wrong no request fails, and every director and real server has its share.
fn all_are_used(lab: &Lab) -> Result<()> {
    let spread = measure_spread(lab, REQUESTS)?;
    say(format_args!("e2e: {REQUESTS} requests: {:?}", spread.tally));
    say(format_args!("e2e: by director: {:?}", spread.directors));
    ensure!(
        spread.tally.failures() == 0,
        "requests failed: {:?}",
        spread.tally.failed
    );
    for server in &lab.real_servers {
        let count = spread
            .tally
            .answered
            .get(server.name())
            .copied()
            .unwrap_or(0);
        ensure!(
            count > 0,
            "{} answered none of {REQUESTS} requests",
            server.name()
        );
    }
    for (director, count) in &spread.directors {
        ensure!(
            *count > 0,
            "{director} scheduled none of {REQUESTS} requests"
        );
    }
    agents_count_the_same(lab)
}

/// What the agents report of IPVS is what the kernels themselves have counted.
fn agents_count_the_same(lab: &Lab) -> Result<()> {
    for director in &lab.directors {
        let kernel = director.scheduled()?;
        let what = format!(
            "the agent of {} to report {kernel} connections",
            director.name
        );
        wait::until(what, SOON, || {
            let services = director.agent_status()?.services;
            let stats = services.iter().filter_map(|service| service.stats);
            let reported: u64 = stats.map(|stats| stats.connections).sum();
            Ok(Probe::when(reported == kernel, (), || {
                format!("{reported}")
            }))
        })?;
    }
    Ok(())
}

/// Sends requests before, while and after `happen` runs; that returns when its effect is there.
fn phase(
    what: &'static str,
    lab: &mut Lab,
    happen: impl FnOnce(&mut Lab) -> Result<()>,
) -> Result<Phase> {
    let before = lab.switch.fib(VIP)?;
    let load = Load::new((VIP.0, 80)).start(&lab.client);
    let started = Instant::now();
    let happened = happen(lab);
    let took = started.elapsed();
    let tally = load.finish(REQUESTS)?;
    happened.with_context(|| format!("{what}; the requests meanwhile: {tally:?}"))?;
    let after = lab.switch.fib(VIP)?;
    Ok(Phase {
        what,
        tally,
        before,
        after,
        took,
    })
}

/// Requests to the dead server fail until the checks have found it; then none does.
fn real_server_killed(lab: &mut Lab) -> Result<Phase> {
    let phase = phase("one real server killed", lab, |lab| {
        lab.real_servers[0].crash()?;
        wait_for_weights(lab, 0, |weight| weight.is_none_or(|weight| weight == 0))
    })?;
    ensure!(
        phase.after == phase.before,
        "a dead real server moved next hops: {:?}",
        phase.after
    );
    let spread = measure_spread(lab, REQUESTS)?;
    ensure!(
        spread.tally.failures() == 0,
        "requests still fail: {:?}",
        spread.tally.failed
    );
    let name = lab.real_servers[0].name();
    ensure!(
        !spread.tally.answered.contains_key(name),
        "{name} is dead and answers"
    );
    lab.real_servers[0].start()?;
    wait_for_weights(lab, 0, |weight| weight.is_some_and(|weight| weight > 0))?;
    Ok(phase)
}

/// Waits until the kernels of all directors have a wanted weight for a real server.
fn wait_for_weights(lab: &Lab, index: usize, wanted: impl Fn(Option<u32>) -> bool) -> Result<()> {
    let address = lab.real_servers[index].address();
    wait::until(
        format_args!("the weight of {address} in every kernel"),
        SOON,
        || {
            let mut weights = Vec::new();
            for director in &lab.directors {
                let services = director.agent_status()?.services;
                let servers = services.iter().flat_map(|service| &service.real_servers);
                let server = servers
                    .into_iter()
                    .find(|s| *s.real_server.0.ip() == address);
                weights.push(server.and_then(|server| server.effective_weight));
            }
            Ok(Probe::when(
                weights.iter().copied().all(&wanted),
                (),
                || format!("{weights:?}"),
            ))
        },
    )
}

/// Nothing fails: the drained director's kernel still forwards what the switch sends it.
fn director_drained(lab: &mut Lab) -> Result<Phase> {
    let phase = phase("one director drained", lab, |lab| {
        let request = DrainRequest {
            reason: "end-to-end test".to_owned(),
            ..Default::default()
        };
        let answer = lab.controller.drain("d1", &request)?;
        ensure!(
            answer.status == 202,
            "the drain was answered with {answer:?}"
        );
        lab.switch
            .wait_for_fib(VIP, &lab.next_hops([2, 3, 4]), SOON)
    })?;
    let answer = lab.controller.undrain("d1")?;
    ensure!(
        answer.status == 202,
        "the undrain was answered with {answer:?}"
    );
    lab.switch.wait_for_fib(VIP, &lab.all_next_hops(), SOON)?;
    Ok(phase)
}

/// Nothing fails, and the drain is over by what the kernel of the director counted, while the
/// clients go on through the others; it is back when the sets have it again.
fn drained_and_safe(lab: &mut Lab) -> Result<Phase> {
    let mut evidence = String::new();
    let phase = phase("one director safe", lab, |lab| {
        let ended = change(lab, "directors/d2/drain")?;
        evidence = evidence_of(&ended, StepName::Traffic)?;
        lab.switch
            .wait_for_fib(VIP, &lab.next_hops([1, 3, 4]), SOON)
    })?;
    ensure!(
        evidence.starts_with("d2: no traffic for "),
        "the traffic of d2 was not measured: {evidence}"
    );
    let counted = lab.directors[1].scheduled()?;
    let spread = measure_spread(lab, REQUESTS)?;
    let more = lab.directors[1].scheduled()? - counted;
    ensure!(more == 0, "d2 is drained and scheduled {more} more");
    ensure!(spread.tally.failures() == 0, "{:?}", spread.tally.failed);
    change(lab, "directors/d2/undrain")?;
    let back = lab.switch.fib(VIP)?;
    let all = lab.all_next_hops();
    ensure!(back == all, "d2 is in service, and the switch has {back:?}");
    Ok(phase)
}

/// Nothing fails: no kernel gives it anything new, and it is over with its last connection. A client
/// that comes from the same port again has the real server of the table, not of its former entry.
fn real_server_drained(lab: &mut Lab) -> Result<Phase> {
    let (address, name) = (
        lab.real_servers[1].address(),
        lab.real_servers[1].name().to_owned(),
    );
    let path = format!("real-servers/{address}");
    let port = port_of(lab, &name)?;
    let phase = phase("one real server drained", lab, |lab| {
        let ended = change(lab, &format!("{path}/drain"))?;
        let weight = evidence_of(&ended, StepName::Weight)?;
        ensure!(weight == "weight 0 on d1, d2, d3, d4", "{weight}");
        wait_for_weights(lab, 1, |weight| weight == Some(0))
    })?;
    let spread = measure_spread(lab, REQUESTS)?;
    let (answered, failed) = (&spread.tally.answered, &spread.tally.failed);
    ensure!(spread.tally.failures() == 0, "{failed:?}");
    ensure!(
        !answered.contains_key(&name),
        "{name} is drained, and {answered:?}"
    );
    let other = answer_from(lab, port)?;
    ensure!(other != name, "{name} is drained, and answers port {port}");
    change(lab, &format!("{path}/undrain"))?;
    wait_for_weights(lab, 1, |weight| weight.is_some_and(|weight| weight > 0))?;
    let again = answer_from(lab, port)?;
    ensure!(
        again == name,
        "port {port} is {name}'s by the table, and {again} answers it"
    );
    Ok(phase)
}

/// A port of the client whose requests the real server of this name answers. It is below those that
/// the kernel gives out, so that nothing else comes from it.
fn port_of(lab: &Lab, name: &str) -> Result<u16> {
    for port in 20_000..20_100 {
        if answer_from(lab, port)? == name {
            return Ok(port);
        }
    }
    anyhow::bail!("{name} answered none of 100 ports")
}

/// Who answers a request from this port of the client.
fn answer_from(lab: &Lab, port: u16) -> Result<String> {
    let address = SocketAddrV4::new(VIP.0, 80);
    let answer = lab.client.enter(|| http::get_from(port, address, "/"))??;
    ensure!(answer.status == 200, "port {port}: {answer:?}");
    Ok(answer.body.trim().to_owned())
}

/// Asks for a drain or an undrain, and follows it to its success.
fn change(lab: &Lab, what: &str) -> Result<OperationView> {
    let path = format!("/api/v1/clusters/{CLUSTER}/{what}");
    let answer = lab.controller.request("POST", &path, Some("{}"))?;
    ensure!(answer.status == 202, "{what}: {answer:?}");
    let begun: OperationView = serde_json::from_str(&answer.body).context("reading it")?;
    let path = format!("/api/v1/operations/{}", begun.id);
    wait::until(format_args!("{what}"), Duration::from_secs(60), || {
        let body = lab.controller.request("GET", &path, None)?.body;
        let now: OperationView =
            serde_json::from_str(&body).with_context(|| format!("reading {body}"))?;
        let done = now.state == OperationState::Succeeded;
        ensure!(done || !now.state.is_terminal(), "{what} ended: {body}");
        Ok(Probe::when(done, now, || body))
    })
}

fn evidence_of(operation: &OperationView, step: StepName) -> Result<String> {
    let mut steps = operation.steps.iter();
    let found = steps.find(|it| it.step == step);
    let found = found.with_context(|| format!("no step {}", step.as_str()))?;
    Ok(found.evidence.clone())
}

/// Nothing fails and nothing moves: the agent is back within its hold.
fn agent_killed(lab: &mut Lab) -> Result<Phase> {
    let mut monitor = lab.switch.monitor()?;
    let phase = phase("one agent killed", lab, |lab| {
        let director = &mut lab.directors[1];
        director.take_agent()?.crash()?;
        director.start_agent()?;
        let agent = director.agent()?.pid();
        wait::until("the agent to own the speaker's set again", SOON, || {
            let owner = director.speaker_status()?.owner;
            let owns = matches!(owner, Owner::Connected { pid, .. } if pid == agent);
            Ok(Probe::when(owns, (), || format!("{owner:?}")))
        })
    })?;
    let hold = lab.spec.agent_hold;
    ensure!(
        phase.took < hold,
        "the agent was gone for {:?}, its hold is {hold:?}",
        phase.took
    );
    monitor
        .expect_quiet(VIP.0, Duration::from_secs(5))
        .context("after the agent was killed")?;
    Ok(phase)
}

/// Nothing fails: until the switch has noticed, the director's kernel goes on forwarding.
fn speaker_killed(lab: &mut Lab) -> Result<Phase> {
    let phase = phase("one speaker killed", lab, |lab| {
        lab.directors[2].take_speaker()?.crash()?;
        lab.switch
            .wait_for_fib(VIP, &lab.next_hops([1, 2, 4]), SOON)
    })?;
    lab.directors[2].start_speaker()?;
    lab.switch.wait_for_fib(VIP, &lab.all_next_hops(), SOON)?;
    Ok(phase)
}

/// A sysctl that a director's kernel has another value of and does not take its own again. The
/// mounts are over files that each network namespace has for itself.
struct Stuck {
    namespace: Namespace,
    /// Where it can be written still.
    beside: PathBuf,
}

impl Stuck {
    const SYSCTL: &str = "/proc/sys/net/ipv4/vs/sloppy_tcp";

    fn new(director: &Director) -> Result<Self> {
        let stuck = Self {
            namespace: director.namespace().clone(),
            beside: director.directory().join("sloppy_tcp"),
        };
        // It can only be read before it changes, or the agent would repair it in between.
        stuck.run(
            ": >\"$1\"; mount --bind \"$0\" \"$1\"; mount --bind \"$0\" \"$0\"
             mount -o remount,bind,ro \"$0\"; echo 0 >\"$1\"",
        )?;
        Ok(stuck)
    }

    fn run(&self, script: &str) -> Result<()> {
        let mut command = Command::new("sh");
        command
            .args(["-ec", script, Self::SYSCTL])
            .arg(&self.beside);
        self.namespace.run(&mut command).map(drop)
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        if let Err(error) = self.run("echo 1 >\"$1\"; umount \"$0\"; umount \"$1\"") {
            say(format_args!("e2e: the mounts stay: {error:#}"));
        }
    }
}

/// Nothing fails: the director that would not take over the others' connections withdraws by
/// itself, the controller tells which it is, and it announces again when it is as the others.
fn director_differs(lab: &mut Lab) -> Result<Phase> {
    let mut stuck = None;
    let phase = phase("one director differs", lab, |lab| {
        stuck = Some(Stuck::new(&lab.directors[3])?);
        lab.switch
            .wait_for_fib(VIP, &lab.next_hops([1, 2, 3]), SOON)
    })?;
    let status = lab.directors[3].agent_status()?;
    let reason = status.vips.first().context("d4 has no VIP")?.reason.code();
    // The cause of the difference, where it is known; otherwise it would be `digest-mismatch`.
    ensure!(reason == "sysctl-refused", "d4 withdrew for {reason}");
    controller_tells(lab, &["d4"], "error: differs: ")?;
    drop(stuck);
    lab.switch.wait_for_fib(VIP, &lab.all_next_hops(), SOON)?;
    controller_tells(lab, &[], "info: differs no more: ")?;
    Ok(phase)
}

/// Waits until the controller says of these directors, and of no other, that they differ: in its
/// view, as a problem, in its metrics, and as the latest event on d4's placement.
fn controller_tells(lab: &Lab, directors: &[&str], event: &str) -> Result<()> {
    let count = directors.len();
    let metric = format!(
        "isopath_digest_mismatch{{cluster=\"{CLUSTER}\",service=\"tcp:{VIP}:80\"}} {count}\n"
    );
    let what = format!("the controller to tell that {directors:?} differ");
    wait::until(what, SOON, || {
        let view = lab.controller.view()?;
        let placements = view.services.iter().filter_map(|it| it.placement.as_ref());
        let differs = |it: &&DirectorPlacement| it.agreement == Agreement::Differs;
        let found: Vec<String> = placements
            .flat_map(|it| it.directors.iter().filter(differs))
            .map(|it| it.director.to_string())
            .collect();
        let is_problem = |name: &&str| {
            let object = format!("placement on director {name}");
            view.problems.iter().any(|it| it.object == object)
        };
        let problems = directors.iter().filter(|name| is_problem(name)).count();
        let metrics = lab.controller.request("GET", "/metrics", None)?.body;
        let events = lab.controller.request("GET", "/api/v1/events", None)?.body;
        let events: Vec<EventView> = serde_json::from_str(&events)
            .with_context(|| format!("reading the events: {events}"))?;
        let latest = events
            .iter()
            .find(|it| it.object == "placement on director d4")
            .map(|it| format!("{}: {}", it.severity.as_str(), it.what));
        let told = found == directors
            && problems == count
            && metrics.contains(&metric)
            && latest.as_ref().is_some_and(|it| it.starts_with(event));
        Ok(Probe::when(told, (), || {
            let metrics = metrics.lines().filter(|it| it.contains("digest_mismatch{"));
            let metrics: Vec<&str> = metrics.collect();
            format!("{found:?}, {problems} problems, {metrics:?}, {latest:?}")
        }))
    })
}

fn print(phases: &[Phase]) {
    let hops = |fib: &BTreeSet<Ipv4Addr>| {
        fib.iter()
            .map(Ipv4Addr::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    say(format_args!(
        "{:24} {:>8} {:>6} {:>8}  next hops",
        "phase", "requests", "failed", "took"
    ));
    for Phase {
        what,
        tally,
        before,
        after,
        took,
    } in phases
    {
        let (failed, took) = (tally.failures(), format!("{:.1} s", took.as_secs_f64()));
        let sent = tally.answers() + failed;
        say(format_args!(
            "{what:24} {sent:8} {failed:6} {took:>8}  before {}",
            hops(before)
        ));
        say(format_args!("{:50}  after  {}", "", hops(after)));
        for (why, count) in &tally.failed {
            say(format_args!("{:24} {count} x {why}", ""));
        }
    }
}
