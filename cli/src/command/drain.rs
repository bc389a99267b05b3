//! `isopath drain` and `undrain`.

use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use isopath_api::ids::{ClusterName, DirectorName};
use isopath_api::view::{ClusterView, DrainRequest, OperationState, OperationView};
use reqwest::Method;

use super::{print, print_json};
use crate::args::{Args, DirectorChange};
use crate::controller::Controller;
use crate::failure::{Failure, INTERRUPTED, STILL_DRAINING};
use crate::table::{count, printable};

/// How often the operation is looked at.
const PERIOD: Duration = Duration::from_millis(200);
/// How often a line says that nothing changed.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) fn drain(
    args: &Args,
    director: &DirectorName,
    change: &DirectorChange,
    override_guards: &[String],
) -> Result<ExitCode, Failure> {
    let controller = Controller::new(&args.target)?;
    let cluster = controller.cluster(&args.target)?;
    let view: ClusterView = controller.get(&format!("/clusters/{cluster}"))?;
    eprint!("{}", preview(&view, director)?);
    confirm(change, director)?;
    let request = DrainRequest {
        reason: change.reason.clone(),
        override_guards: override_guards.to_vec(),
    };
    run(
        args,
        &controller,
        &cluster,
        director,
        "drain",
        &request,
        change,
    )
}

pub(super) fn undrain(
    args: &Args,
    director: &DirectorName,
    change: &DirectorChange,
) -> Result<ExitCode, Failure> {
    let controller = Controller::new(&args.target)?;
    let cluster = controller.cluster(&args.target)?;
    let request = DrainRequest {
        reason: change.reason.clone(),
        override_guards: Vec::new(),
    };
    run(
        args,
        &controller,
        &cluster,
        director,
        "undrain",
        &request,
        change,
    )
}

/// What the drain leaves, from what the controller knows now.
fn preview(view: &ClusterView, director: &DirectorName) -> Result<String, Failure> {
    let Some(drained) = view.directors.iter().find(|other| other.name == *director) else {
        let names: Vec<_> = view
            .directors
            .iter()
            .map(|other| other.name.as_str())
            .collect();
        return Err(Failure::NotFound(format!(
            "cluster {} has no director {director}; it has: {}",
            view.name,
            names.join(", ")
        )));
    };
    let mut text = String::new();
    for vip in view.vips.iter().filter(|vip| vip.real.contains(director)) {
        text.push_str(&format!(
            "Draining {director} leaves {} on {} of {} directors.\n",
            vip.vip,
            vip.real.len() - 1,
            view.directors.len()
        ));
    }
    text.push_str(&format!(
        "{} active connections here.\n",
        count(drained.active)
    ));
    Ok(text)
}

fn confirm(change: &DirectorChange, director: &DirectorName) -> Result<(), Failure> {
    if change.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "there is no terminal to ask on; say --yes".to_owned(),
        ));
    }
    eprint!("Drain {director}? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::Refused("not drained".to_owned())),
    }
}

fn run(
    args: &Args,
    controller: &Controller,
    cluster: &ClusterName,
    director: &DirectorName,
    verb: &str,
    request: &DrainRequest,
    change: &DirectorChange,
) -> Result<ExitCode, Failure> {
    let path = format!("/clusters/{cluster}/directors/{director}/{verb}");
    let mut operation: OperationView = controller.send(Method::POST, &path, Some(request))?;
    let mut code = ExitCode::SUCCESS;
    if change.wait {
        code = wait(controller, &mut operation, verb, change.timeout)?;
    }
    if args.json {
        print_json("isopath.operation/1", "operation", &operation)?;
    } else {
        print(&line(&operation))?;
    }
    Ok(code)
}

/// Follows the operation to its end; says on stderr what changes.
fn wait(
    controller: &Controller,
    operation: &mut OperationView,
    verb: &str,
    timeout: Duration,
) -> Result<ExitCode, Failure> {
    let interrupted = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&interrupted))?;
    let deadline = Instant::now() + timeout;
    let mut said = Instant::now();
    eprint!("{}", line(operation));
    while !operation.state.is_terminal() {
        if interrupted.load(Ordering::Relaxed) {
            eprintln!("Not waiting any more. The {verb} goes on: isopath status");
            return Ok(ExitCode::from(INTERRUPTED));
        }
        if Instant::now() >= deadline {
            eprintln!("The {verb} is not done yet and goes on: isopath status");
            return Ok(ExitCode::from(STILL_DRAINING));
        }
        std::thread::sleep(PERIOD);
        let now: OperationView = controller.get(&format!("/operations/{}", operation.id))?;
        let changed = (now.state, &now.detail) != (operation.state, &operation.detail);
        *operation = now;
        if changed || said.elapsed() >= HEARTBEAT {
            eprint!("{}", line(operation));
            said = Instant::now();
        }
    }
    Ok(match operation.state {
        OperationState::Succeeded => ExitCode::SUCCESS,
        OperationState::Cancelled | OperationState::Applying | OperationState::Settling => {
            ExitCode::FAILURE
        }
    })
}

fn line(operation: &OperationView) -> String {
    format!(
        "{} {}  {}  {}\n",
        operation.kind,
        operation.director,
        operation.state.as_str(),
        printable(&operation.detail)
    )
}
