//! Bad input is refused with its place and its cause, and changes nothing.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use isopath_api::problem::Problem;
use isopath_lab::binaries;
use isopath_lab::cluster::declaration;
use isopath_lab::controller::CLUSTER;
use isopath_lab::plan::{self, VIP};
use isopath_lab::process::Process;
use isopath_lab::topology::{Lab, Spec};
use isopath_lab::wait::{self, Probe};

const SOON: Duration = Duration::from_secs(15);

#[test]
fn a_malformed_file_ends_each_daemon_with_2_and_the_place() -> Result<()> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let cases = [
        (
            "[director]\nname = \"d1\"\nrouter_id = \"10.0.1\"\n",
            ":3:13: ",
            "10.0.1",
        ),
        (
            "[director]\nname = \"d1\"\nrouter_id = \"10.0.1.2\"\nhold = 1\n",
            ":4:1: ",
            "hold",
        ),
        ("[director\n", ":1:", "]"),
    ];
    for (number, (text, place, words)) in cases.into_iter().enumerate() {
        let file = directory.join(format!("malformed-{number}.toml"));
        std::fs::write(&file, text)?;
        for (program, verb) in [
            ("isopath-agent", "run"),
            ("isopath-agent", "check"),
            ("isopath-speaker", "run"),
        ] {
            let mut command = Command::new(binaries::find(program)?);
            let output = command.args([verb, "--config"]).arg(&file).output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            let place = format!("{}{place}", file.display());
            ensure!(
                output.status.code() == Some(2),
                "{program} {verb} ended with {} on {text:?}: {said}",
                output.status
            );
            ensure!(
                said.contains(&place) && said.contains(words),
                "{program} {verb} does not say {place:?} and {words:?}: {said}"
            );
        }
    }
    Ok(())
}

#[test]
fn what_a_controller_refuses_changes_nothing() -> Result<()> {
    let Some(spec) = Spec::for_test("refuse") else {
        return Ok(());
    };
    Lab::with(
        Spec {
            directors: 2,
            real_servers: 1,
            ..spec
        },
        |lab| {
            lab.start(1, &mut |_| {})?;
            malformed_declarations(lab)?;
            second_agent(lab)
        },
    )
}

/// Each is answered with 422 and a pointer to the fault; revision and routes stay.
fn malformed_declarations(lab: &Lab) -> Result<()> {
    let mut monitor = lab.switch.monitor()?;
    let revision = lab.controller.view()?.revision;
    let good = serde_json::to_value(declaration(&lab.spec, 1))?;
    let edited = |pointer: &str, value: serde_json::Value| -> Result<String> {
        let mut body = good.clone();
        *body.pointer_mut(pointer).context(pointer.to_owned())? = value;
        Ok(body.to_string())
    };
    let cases = [
        (edited("/service/0/port", 0.into())?, "/service/0/port"),
        (
            edited("/service/0/scheduler", "random".into())?,
            "/service/0/scheduler",
        ),
        (
            edited("/director/1/router_id", "10.0.1.2".into())?,
            "/director/1/router_id",
        ),
        (edited("/max_paths", 1.into())?, "/director"),
        (
            edited("/service/0/vip", "10.99.0.2".into())?,
            "/service/0/vip",
        ),
    ];
    for (body, pointer) in cases {
        let answer =
            lab.controller
                .request("PUT", &format!("/api/v1/clusters/{CLUSTER}"), Some(&body))?;
        ensure!(answer.status == 422, "{pointer}: answered with {answer:?}");
        let problem: Problem = serde_json::from_str(&answer.body).context("reading the refusal")?;
        ensure!(
            problem
                .errors
                .iter()
                .any(|fault| fault.pointer.starts_with(pointer)),
            "{pointer} is not named: {problem:?}"
        );
    }
    let after = lab.controller.view()?.revision;
    ensure!(
        after == revision,
        "a refused declaration made revision {after} of {revision}"
    );
    monitor
        .expect_quiet(VIP.0, Duration::from_secs(2))
        .context("after refused declarations")
}

/// An agent that says it is d1 while d1's own agent lives: refused, shown on both sides, and
/// d1 goes on.
fn second_agent(lab: &Lab) -> Result<()> {
    let mut monitor = lab.switch.monitor()?;
    // It runs beside the controller, where its speaker finds no uplink to announce over.
    let namespace = lab.controller.namespace();
    let directory = lab.directory().join("second");
    std::fs::create_dir_all(&directory)?;
    let first = &lab.directors[0];
    let text = first
        .config(&lab.source()?)
        .replace(
            &first.directory().display().to_string(),
            &directory.display().to_string(),
        )
        .replace(&plan::director_management(1).to_string(), "127.0.0.1");
    let file = directory.join("agent.toml");
    std::fs::write(&file, text)?;
    let mut command = Command::new(binaries::find("isopath-agent")?);
    command.args(["run", "--config"]).arg(&file);
    let log = directory.join("agent.log");
    let mut second = Process::spawn(namespace, "a second agent of d1", &log, &mut command)?;

    wait::until("the second agent in the cluster's problems", SOON, || {
        let problems = lab.controller.view()?.problems;
        let shown = problems
            .iter()
            .any(|problem| problem.cause.contains("second agent"));
        Ok(Probe::when(shown, (), || {
            format!("{problems:?}; its log: {}", second.log_tail(5))
        }))
    })?;
    wait::until("the refusal in the second agent's log", SOON, || {
        second.expect_running()?;
        let log = second.log_tail(50);
        Ok(Probe::when(log.contains("refused"), (), || log))
    })?;
    monitor
        .expect_quiet(VIP.0, Duration::from_secs(2))
        .context("beside a second agent of d1")
}
