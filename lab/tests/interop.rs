//! The cells of the interop matrix in which every pair of values meets; `make interop` takes all.

use anyhow::{Result, ensure};
use isopath_lab::interop::runner::{self, Task};
use isopath_lab::interop::{Outcome, Step, covering};
use isopath_lab::report;
use isopath_lab::topology::Spec;

#[test]
fn every_pair_of_values_meets_in_a_cell_that_works() -> Result<()> {
    if Spec::for_test("interop").is_none() {
        return Ok(());
    }
    let mut tasks: Vec<Task> = covering::pairs().into_iter().map(Task::whole).collect();
    // The peers' timers take time, so the cells share the two cuts between them.
    for (index, task) in tasks.iter_mut().enumerate() {
        let other = [Step::CutAtSwitch, Step::CutAtDirector][index % 2];
        task.steps.retain(|step| *step != other);
    }
    // All at the same time, for what takes long is those timers.
    let reports = runner::run(&tasks, tasks.len(), &|report| report::say(report));
    let failed: Vec<String> = reports
        .iter()
        .filter(|report| report.outcome != Outcome::Passed)
        .map(ToString::to_string)
        .collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}
