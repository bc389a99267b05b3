//! A controller that is ended and started again under its agents.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use isopath_api::desired::AdminState;
use isopath_api::view::{ClusterSummary, State};
use rustix::process::Signal;

use super::agent::Wanted;
use super::figures::{Line, Must, Unit};
use super::fleet::Fleet;
use super::rig::{Rig, SOON};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// What became of one restart.
#[derive(Debug)]
struct Restarted {
    /// From the signal until every agent was back and the controller showed all of it well.
    took: f64,
    /// States that agents were told and that differ from those before.
    differing: usize,
    /// Of them, those that withdraw something.
    withdrawn: usize,
}

/// Ends the controller so often by each signal.
pub(super) async fn restarts(rig: &mut Rig, fleet: &mut Fleet, count: u16) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::KILL, "SIGKILL")] {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(restart(rig, fleet, signal).await?);
        }
        let values = |of: fn(&Restarted) -> f64| -> Vec<f64> { all.iter().map(of).collect() };
        let agents = fleet.agents.len();
        lines.push(Line::new(
            format!("{name} and a start until {agents} agents are back and all is shown well"),
            Unit::Seconds,
            values(|it| it.took),
            Must::Max(10.0),
        ));
        lines.push(Line::new(
            format!("{name}: agents told to withdraw"),
            Unit::Count,
            values(|it| it.withdrawn as f64),
            Must::Exactly(0.0),
        ));
        lines.push(Line::new(
            format!("{name}: agents told another state or generation than before"),
            Unit::Count,
            values(|it| it.differing as f64),
            Must::Exactly(0.0),
        ));
    }
    Ok(lines)
}

async fn restart(rig: &mut Rig, fleet: &mut Fleet, signal: Signal) -> Result<Restarted> {
    fleet.acknowledged(Instant::now(), SOON).await?;
    all_well(rig, Instant::now()).await?;
    fleet.forget();
    let before: BTreeMap<usize, Wanted> = fleet
        .known()
        .filter_map(|(agent, known)| Some((agent.place, known.wanted?)))
        .collect();
    let begun = Instant::now();
    rig.end(signal)?;
    rig.spawn().await?;
    let mut told = Vec::new();
    loop {
        while let Ok(heard) = fleet.heard.try_recv() {
            told.push(heard);
        }
        if fleet.known().all(|(_, known)| known.is_complete(begun)) {
            break;
        }
        if begun.elapsed() > SOON {
            bail!("not all agents came back within {SOON:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
    all_well(rig, begun).await?;
    let took = begun.elapsed().as_secs_f64();
    while let Ok(heard) = fleet.heard.try_recv() {
        told.push(heard);
    }
    let differing = told
        .iter()
        .filter(|heard| before.get(&heard.agent) != Some(&heard.wanted));
    let withdrawn = differing
        .clone()
        .filter(|heard| heard.wanted.admin != AdminState::Active);
    Ok(Restarted {
        took,
        differing: differing.clone().count(),
        withdrawn: withdrawn.count(),
    })
}

/// Waits until the controller shows every cluster as Up with all of its directors.
async fn all_well(rig: &mut Rig, begun: Instant) -> Result<()> {
    loop {
        let clusters = rig.clusters().await?;
        let is_well =
            |of: &ClusterSummary| of.state == State::Up && of.directors_up == of.directors;
        let Some(ill) = clusters.iter().find(|of| !is_well(of)) else {
            return Ok(());
        };
        if begun.elapsed() > SOON {
            bail!("cluster {} is not well: {}", ill.name, ill.verdict);
        }
        tokio::time::sleep(LOOK).await;
    }
}
