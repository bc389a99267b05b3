//! `isopath drain` and `undrain`.

use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;

use isopath_api::ids::ClusterName;
use isopath_api::operation::{
    DrainPreview, DrainRequest, OnDeadline, OperationState, OperationView,
};
use reqwest::Method;

use super::{operation, print, print_json};
use crate::args::{Args, AtDeadline, Change, DrainOptions, DrainTarget};
use crate::controller::Controller;
use crate::failure::Failure;
use crate::table::{count, printable};

impl DrainTarget {
    /// Its path under a cluster's, and what people call it.
    fn path(&self) -> (String, String) {
        let which = &self.which;
        match (&which.director, &which.real_server, &which.vip) {
            (Some(director), _, _) => (format!("directors/{director}"), director.to_string()),
            (None, Some(server), _) => (
                format!("real-servers/{server}"),
                format!("real server {server}"),
            ),
            (None, None, Some(vip)) => (format!("vips/{vip}"), format!("VIP {vip}")),
            // One of them is required.
            (None, None, None) => (String::new(), String::new()),
        }
    }
}

pub(super) fn drain(
    args: &Args,
    target: &DrainTarget,
    change: &Change,
    options: &DrainOptions,
) -> Result<ExitCode, Failure> {
    let controller = Controller::new(&args.target)?;
    let cluster = controller.cluster(&args.target)?;
    let request = DrainRequest {
        reason: change.reason.clone(),
        override_guards: options.override_guards.clone(),
        deadline_s: Some(options.deadline.as_secs()),
        on_deadline: match options.on_deadline {
            AtDeadline::Hold => OnDeadline::Hold,
            AtDeadline::Finish => OnDeadline::Finish,
            AtDeadline::Remove => OnDeadline::Remove,
        },
        immediate: options.immediate,
        service: target.service,
    };
    let (path, name) = target.path();
    let path = format!("/clusters/{cluster}/{path}/drain");
    let preview: DrainPreview = controller.send(
        Method::POST,
        &format!("{path}?dry_run=true"),
        Some(&request),
    )?;
    if options.dry_run {
        if args.json {
            print_json("isopath.preview/1", "preview", &preview)?;
        } else {
            print(&describe(&preview, &name))?;
        }
        return Ok(if preview.admitted {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    eprint!("{}", effect(&preview, &name));
    confirm(change, &name)?;
    run(args, &controller, &path, &request, change)
}

pub(super) fn undrain(
    args: &Args,
    target: &DrainTarget,
    change: &Change,
) -> Result<ExitCode, Failure> {
    let controller = Controller::new(&args.target)?;
    let cluster: ClusterName = controller.cluster(&args.target)?;
    let request = DrainRequest {
        reason: change.reason.clone(),
        service: target.service,
        ..DrainRequest::default()
    };
    let (path, _) = target.path();
    let path = format!("/clusters/{cluster}/{path}/undrain");
    run(args, &controller, &path, &request, change)
}

/// What the drain leaves and moves.
fn effect(preview: &DrainPreview, name: &str) -> String {
    let mut text = String::new();
    for left in preview.left.iter().filter(|left| left.now != left.after) {
        text.push_str(&format!(
            "Draining {name} leaves {} with {} {} of {}.\n",
            left.object, left.after, left.unit, left.now
        ));
    }
    for flows in &preview.flows {
        let director = &flows.director;
        let Some(active) = flows.active else {
            text.push_str(&format!("{director} is silent.\n"));
            continue;
        };
        let share = flows
            .percent
            .map_or_else(String::new, |percent| format!(", {percent:.0} % of all"));
        let rate = flows
            .pps
            .map_or_else(String::new, |pps| format!(", {} packets/s", count(pps)));
        let active = count(active);
        text.push_str(&format!(
            "{active} active connections on {director}{share}{rate}.\n"
        ));
    }
    text
}

fn describe(preview: &DrainPreview, name: &str) -> String {
    let mut text = effect(preview, name);
    for guard in &preview.guards {
        let verdict = match (guard.allows, guard.overridden) {
            (true, _) => "allows it".to_owned(),
            (false, true) => format!("is overridden: {}", printable(&guard.detail)),
            (false, false) => format!("refuses: {}", printable(&guard.detail)),
        };
        text.push_str(&format!("Guard {} {verdict}.\n", guard.guard));
    }
    for step in &preview.steps {
        text.push_str(&format!(
            "{:<11} {}\n",
            step.step.as_str(),
            printable(&step.waits_for)
        ));
    }
    if !preview.admitted {
        text.push_str(&format!(
            "It would be refused: {}\n",
            printable(&preview.refusal)
        ));
    }
    text
}

fn confirm(change: &Change, name: &str) -> Result<(), Failure> {
    if change.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "there is no terminal to ask on; say --yes".to_owned(),
        ));
    }
    eprint!("Drain {name}? [y/N] ");
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
    path: &str,
    request: &DrainRequest,
    change: &Change,
) -> Result<ExitCode, Failure> {
    let mut begun: OperationView = controller.send(Method::POST, path, Some(request))?;
    let mut code = ExitCode::SUCCESS;
    if change.wait {
        let done = OperationState::Succeeded;
        code = operation::follow(controller, &mut begun, done, change.timeout)?;
    }
    operation::show(args, &begun)?;
    Ok(code)
}
