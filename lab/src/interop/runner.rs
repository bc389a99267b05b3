//! Takes cells, several at the same time.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::rig::Rig;
use super::{Cell, Outcome, Report, Step, steps};
use crate::topology::print_logs;

/// A cell to try, and the steps to take in it.
#[derive(Debug, Clone)]
pub struct Task {
    /// The cell.
    pub cell: Cell,
    /// In the order of [`Step::ALL`], from the first two on.
    pub steps: Vec<Step>,
}

impl Task {
    /// All steps in a cell.
    pub fn whole(cell: Cell) -> Self {
        let steps = Step::ALL.to_vec();
        Self { cell, steps }
    }
}

/// Does the tasks, `jobs` at the same time: they mostly wait. Each report goes to `progress` as
/// it comes; all of them are returned in the order of the tasks.
pub fn run(tasks: &[Task], jobs: usize, progress: &(dyn Fn(&Report) + Sync)) -> Vec<Report> {
    let next = Mutex::new(tasks.iter().enumerate());
    let reports = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let work = || {
            loop {
                let taken = next.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((index, task)) = taken else { break };
                let report = take(task, index);
                progress(&report);
                let mut reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
                reports.push((index, report));
            }
        };
        for _ in 0..jobs.max(1) {
            scope.spawn(work);
        }
    });
    let mut reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    reports.sort_by_key(|(index, _)| *index);
    reports.into_iter().map(|(_, report)| report).collect()
}

/// Takes one cell on a rig of its own; what fails there is the cell's outcome.
fn take(task: &Task, index: usize) -> Report {
    let mut report = Report {
        cell: task.cell,
        outcome: Outcome::Passed,
        steps: Vec::new(),
    };
    // Unique on the machine, and short: it becomes part of socket paths.
    let name = format!("interop-{}-{index}", std::process::id());
    report.outcome = match Rig::new(&name, task.cell) {
        Ok(mut rig) => {
            let refusal = check(&rig);
            let outcome = refusal.unwrap_or_else(|| walk(&mut rig, &task.steps, &mut report.steps));
            if let Outcome::Failed { .. } = outcome {
                print_logs(&rig.directory());
            }
            outcome
        }
        Err(error) => failed(None, &error),
    };
    report
}

/// Lets the peer check its configuration; an outcome when the steps make no sense after that.
fn check(rig: &Rig) -> Option<Outcome> {
    match (rig.switch.refusal(), rig.cell.is_refused_by_peer()) {
        (Ok(None), false) => None,
        (Ok(Some(words)), true) => Some(Outcome::NotSupported(words)),
        (Ok(None), true) => {
            let seen = "the peer takes a configuration that it is said to refuse".to_owned();
            Some(Outcome::Failed { step: None, seen })
        }
        (Ok(Some(words)), false) => {
            let seen = format!("the peer refuses its configuration: {words}");
            Some(Outcome::Failed { step: None, seen })
        }
        (Err(error), _) => Some(failed(None, &error)),
    }
}

fn walk(rig: &mut Rig, wanted: &[Step], done: &mut Vec<(Step, Duration)>) -> Outcome {
    for &step in wanted {
        let start = Instant::now();
        if let Err(error) = steps::take(rig, step) {
            return failed(Some(step), &error);
        }
        done.push((step, start.elapsed()));
    }
    Outcome::Passed
}

fn failed(step: Option<Step>, error: &anyhow::Error) -> Outcome {
    Outcome::Failed {
        step,
        seen: format!("{error:#}"),
    }
}
