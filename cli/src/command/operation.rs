//! `isopath operation`: drains and undrains, followed, listed, shown and cancelled.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use isopath_api::operation::{OperationState, OperationView, StepState};
use reqwest::Method;

use super::{print, print_json};
use crate::args::{Args, OperationVerb};
use crate::controller::Controller;
use crate::failure::{Failure, INTERRUPTED, STILL_DRAINING};
use crate::table::{count, printable};

/// How often the operation is looked at.
const PERIOD: Duration = Duration::from_millis(200);
/// How often a line says that nothing changed.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) fn run(args: &Args, verb: &OperationVerb) -> Result<ExitCode, Failure> {
    let controller = Controller::new(&args.target)?;
    match verb {
        OperationVerb::List { state, kind, limit } => {
            let mut path = format!("/operations?limit={limit}");
            let cluster = args.target.cluster.as_ref().map(ToString::to_string);
            for (name, value) in [("cluster", &cluster), ("state", state), ("kind", kind)] {
                if let Some(value) = value {
                    path.push_str(&format!("&{name}={value}"));
                }
            }
            let all: Vec<OperationView> = controller.get(&path)?;
            if args.json {
                print_json("isopath.operations/1", "operations", &all)?;
            } else {
                let lines = all.iter().map(|it| format!("{}  {}", it.id, line(it)));
                print(&lines.collect::<String>())?;
            }
            Ok(ExitCode::SUCCESS)
        }
        OperationVerb::Show { id } => {
            let operation: OperationView = controller.get(&format!("/operations/{id}"))?;
            show(args, &operation)?;
            Ok(ExitCode::SUCCESS)
        }
        OperationVerb::Cancel { id, wait, timeout } => {
            let path = format!("/operations/{id}/cancel");
            let mut operation: OperationView =
                controller.send::<(), _>(Method::POST, &path, None)?;
            let mut code = ExitCode::SUCCESS;
            if *wait {
                let done = OperationState::Cancelled;
                code = follow(&controller, &mut operation, done, *timeout)?;
            }
            show(args, &operation)?;
            Ok(code)
        }
    }
}

/// Prints an operation with its steps.
pub(super) fn show(args: &Args, operation: &OperationView) -> Result<(), Failure> {
    if args.json {
        return print_json("isopath.operation/1", "operation", operation);
    }
    print(&text(operation))
}

fn text(operation: &OperationView) -> String {
    let mut text = line(operation);
    for step in &operation.steps {
        let mark = match step.state {
            StepState::Ahead => " ",
            StepState::Now => ">",
            StepState::Done => "x",
            StepState::Skipped => "-",
            StepState::Overdue => "!",
        };
        let evidence = printable(&step.evidence);
        text.push_str(&format!(
            "  [{mark}] {:<11} {evidence}\n",
            step.step.as_str()
        ));
    }
    for target in &operation.targets {
        let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), count);
        text.push_str(&format!(
            "  {}: generation {} of {}, {} active, {} inactive, {} packets/s\n",
            target.director,
            number(target.acked_gen),
            target.need_gen,
            number(target.active),
            number(target.inactive),
            number(target.vip_pps),
        ));
    }
    text.push_str(&format!(
        "  asked for by {}{}; {} at {}\n",
        printable(&operation.requested_by),
        match operation.reason.as_str() {
            "" => String::new(),
            reason => format!(": {}", printable(reason)),
        },
        operation.on_deadline.as_str(),
        operation.deadline_at,
    ));
    text
}

/// Follows an operation to its end; says on stderr what changes.
pub(super) fn follow(
    controller: &Controller,
    operation: &mut OperationView,
    wanted: OperationState,
    timeout: Duration,
) -> Result<ExitCode, Failure> {
    let interrupted = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&interrupted))?;
    let deadline = Instant::now() + timeout;
    let mut said = Instant::now();
    eprint!("{}", line(operation));
    while !operation.state.is_terminal() {
        let id = &operation.id;
        if interrupted.load(Ordering::Relaxed) {
            eprintln!("Not waiting any more. It goes on: isopath operation show {id}");
            return Ok(ExitCode::from(INTERRUPTED));
        }
        if Instant::now() >= deadline {
            eprintln!("It is not done yet and goes on: isopath operation show {id}");
            return Ok(ExitCode::from(STILL_DRAINING));
        }
        std::thread::sleep(PERIOD);
        let now: OperationView = controller.get(&format!("/operations/{id}"))?;
        let changed = (now.state, &now.detail) != (operation.state, &operation.detail);
        *operation = now;
        if changed || said.elapsed() >= HEARTBEAT {
            eprint!("{}", line(operation));
            said = Instant::now();
        }
    }
    Ok(if operation.state == wanted {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn line(operation: &OperationView) -> String {
    let blocked = match operation.blocked_by.as_slice() {
        [] => String::new(),
        by => format!(" by {}", by.join(", ")),
    };
    format!(
        "{} {}  {}{blocked}  {}\n",
        operation.kind,
        operation.target,
        operation.state.as_str(),
        printable(&operation.detail)
    )
}
