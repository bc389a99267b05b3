//! A lab leaves nothing behind, however it ends.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use isopath_lab::topology::{Lab, Spec};
use isopath_lab::wait::{self, Probe};
use isopath_lab::{forward, http, registry};
use rustix::process::{Pid, Signal, kill_process};

const SOON: Duration = Duration::from_secs(30);

/// A small lab whose switch and real server run.
fn small(spec: Spec) -> Result<Lab> {
    let mut lab = Lab::new(Spec {
        directors: 1,
        real_servers: 1,
        ..spec
    })?;
    lab.switch.start()?;
    lab.real_servers[0].start()?;
    Ok(lab)
}

/// The namespaces and files of the lab called `name`.
fn left(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for directory in ["/run/netns", registry::ROOT, "/var/run/frr"] {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        found.extend(names.filter(|entry| entry.contains(name)));
    }
    found
}

#[test]
fn a_dropped_lab_is_gone() -> Result<()> {
    let Some(spec) = Spec::for_test("drop") else {
        return Ok(());
    };
    let name = spec.name.clone();
    let mut lab = small(spec)?;
    let pids: Vec<u32> = lab.processes().map(|process| process.pid()).collect();
    ensure!(
        !left(&name).is_empty(),
        "the lab has no namespace or file to be found by"
    );
    drop(lab);
    ensure!(left(&name).is_empty(), "still there: {:?}", left(&name));
    for pid in pids {
        ensure!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "process {pid} still runs"
        );
    }
    Ok(())
}

#[test]
fn a_door_leads_from_the_machine_into_a_namespace() -> Result<()> {
    let Some(spec) = Spec::for_test("door") else {
        return Ok(());
    };
    let lab = small(spec)?;
    let listener = forward::listen((Ipv4Addr::LOCALHOST, 0).into())?;
    let door = listener.local_addr()?;
    let server = &lab.real_servers[0];
    forward::forward(listener, &lab.client, (server.address(), 80).into());
    for _ in 0..3 {
        let answer = http::get(door, "/")?;
        ensure!(
            answer.body.trim() == server.name(),
            "through the door came {answer:?}"
        );
    }
    Ok(())
}

#[test]
fn two_labs_of_one_name_are_refused() -> Result<()> {
    let Some(spec) = Spec::for_test("twice") else {
        return Ok(());
    };
    let first = Lab::new(Spec {
        directors: 0,
        real_servers: 0,
        ..spec.clone()
    })?;
    let error = Lab::new(spec)
        .err()
        .context("a second lab of the same name was made")?;
    ensure!(
        error.to_string().contains("runs a lab"),
        "{error:#} does not say why"
    );
    ensure!(
        first.client.ip(["link show eth0"]).is_ok(),
        "the first lab was harmed"
    );
    Ok(())
}

/// The process that the next two tests end: it makes a lab and waits.
#[test]
fn a_lab_for_another_test_to_end() -> Result<()> {
    let Ok(name) = std::env::var(CHILD) else {
        return Ok(());
    };
    let _lab = small(Spec::new(name))?;
    loop {
        std::thread::park();
    }
}

/// The environment variable that makes the test above do its work: the name of its lab.
const CHILD: &str = "ISOPATH_LAB_CHILD";

/// Starts this program again with a lab called `name`, and waits until nginx runs in it: that
/// process, and nginx's id.
fn start(name: &str) -> Result<(Child, String)> {
    let child = Command::new(std::env::current_exe()?)
        .args(["--exact", "a_lab_for_another_test_to_end"])
        .env(CHILD, name)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let running = Path::new(registry::ROOT).join(name).join("rs1/nginx.pid");
    let nginx = wait::until("nginx in the lab of another process", SOON, || {
        // nginx makes the file before it writes its id there.
        let id = std::fs::read_to_string(&running).unwrap_or_default();
        let id = id.trim().to_owned();
        Ok(Probe::when(!id.is_empty(), id, || {
            format!("{:?}", left(name))
        }))
    })?;
    Ok((child, nginx))
}

#[test]
fn an_interrupted_lab_is_gone() -> Result<()> {
    let Some(spec) = Spec::for_test("signal") else {
        return Ok(());
    };
    let (mut child, _) = start(&spec.name)?;
    kill_process(Pid::from_child(&child), Signal::INT)?;
    let status = child.wait()?;
    ensure!(
        status.code() == Some(130),
        "after SIGINT the lab's process ended with {status}"
    );
    ensure!(
        left(&spec.name).is_empty(),
        "still there: {:?}",
        left(&spec.name)
    );
    Ok(())
}

#[test]
fn a_lab_whose_process_was_killed_is_taken_down_afterwards() -> Result<()> {
    let Some(spec) = Spec::for_test("crash") else {
        return Ok(());
    };
    let (mut child, nginx) = start(&spec.name)?;
    // Of a process that has ended and that nobody has waited for, this link cannot be read.
    let nginx = Path::new("/proc").join(nginx).join("exe");
    // Any lab that starts removes those of dead processes, other tests' labs too: not before this
    // one has been looked at.
    let alone = registry::alone()?;
    child.kill()?;
    child.wait()?;
    ensure!(
        nginx.read_link().is_ok(),
        "nginx ended with the lab's process: the test proves nothing"
    );
    drop(alone);
    registry::take_down(&spec.name)?;
    ensure!(
        left(&spec.name).is_empty(),
        "still there: {:?}",
        left(&spec.name)
    );
    ensure!(
        nginx.read_link().is_err(),
        "nginx of the killed lab still runs"
    );
    Ok(())
}
