//! The benchmark of the controller still works: a few agents for a moment, whatever the times.

use anyhow::{Context as _, Result, ensure};
use isopath_lab::bench::controller;

#[test]
fn every_row_with_agents_can_be_measured_and_loses_nothing() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("isopath-smoke-{}", std::process::id()));
    std::fs::create_dir_all(&directory).context("making a directory")?;
    let wrong = controller::smoke("smoke", &directory);
    std::fs::remove_dir_all(&directory).context("removing the directory")?;
    let wrong = wrong?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
