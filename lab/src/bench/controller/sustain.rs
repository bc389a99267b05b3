//! Many agents that report each second: whether every report arrives, how soon it is accepted,
//! and what the controller costs meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::process::pss;

use super::figures::{Line, Must, Unit};
use super::fleet::Fleet;
use super::rig::{Rig, SOON, cpu, peak_rss};

/// Between two looks at what the controller costs.
const LOOK: Duration = Duration::from_secs(1);
/// Over how many looks its processor time is a number of the table.
const WINDOW: usize = 10;

/// What was found.
#[derive(Debug)]
pub(super) struct Sustained {
    agents: usize,
    /// Reports that were sent.
    sent: u64,
    /// Reports that were refused, not answered, or whose number the controller does not show.
    lost: u64,
    why: Vec<String>,
    accepts: Vec<f64>,
    /// Processor time a second, of the controller and of the agents.
    cores: Vec<f64>,
    own_cores: f64,
    /// In bytes: resident, the proportional set, and that before the first agent came.
    peak: u64,
    pss: Vec<f64>,
    idle: u64,
}

/// Lets the agents report for so long. `idle` is the controller's memory before they came.
pub(super) async fn sustain(
    rig: &mut Rig,
    fleet: &mut Fleet,
    (seconds, idle): (u32, u64),
) -> Result<Sustained> {
    fleet.resume();
    let pid = rig.process()?.pid();
    fleet.take_accepts();
    let before: u64 = fleet.known().map(|(_, known)| known.sent).sum();
    let failed_before: u64 = fleet.known().map(|(_, known)| known.failed).sum();
    let (begun, own) = (Instant::now(), cpu(std::process::id())?);
    let mut times = vec![(begun, cpu(pid)?)];
    let mut sets = Vec::new();
    for second in 1..=seconds {
        let next = begun + LOOK * second;
        tokio::time::sleep(next.saturating_duration_since(Instant::now())).await;
        times.push((Instant::now(), cpu(pid)?));
        sets.push(pss(pid)? as f64);
        fleet.forget();
    }
    let own_cores = (cpu(std::process::id())? - own) / begun.elapsed().as_secs_f64();
    let accepts = fleet.take_accepts();
    fleet.pause().await?;
    let sent: u64 = fleet.known().map(|(_, known)| known.sent).sum();
    let failed: u64 = fleet.known().map(|(_, known)| known.failed).sum();
    let unseen = unseen(rig, fleet).await?;
    let why = fleet.known().flat_map(|(_, known)| known.why).take(3);
    Ok(Sustained {
        agents: fleet.agents.len(),
        sent: sent - before,
        lost: failed - failed_before + unseen.iter().map(|(_, lost)| lost).sum::<u64>(),
        why: why
            .chain(unseen.into_iter().map(|(text, _)| text))
            .collect(),
        accepts,
        cores: cores(&times),
        own_cores,
        peak: peak_rss(pid)?,
        pss: sets,
        idle,
    })
}

/// The controller's processor time a second, one number for each window.
fn cores(times: &[(Instant, f64)]) -> Vec<f64> {
    let ends: Vec<_> = times.iter().step_by(WINDOW).collect();
    let ends = if ends.len() < 2 {
        times.first().into_iter().chain(times.last()).collect()
    } else {
        ends
    };
    let rate = |pair: &[&(Instant, f64)]| {
        let [(from, before), (to, after)] = [pair[0], pair[1]];
        (after - before) / (*to - *from).as_secs_f64()
    };
    ends.windows(2).map(rate).collect()
}

/// Acknowledged reports that the controller's view does not know of.
async fn unseen(rig: &mut Rig, fleet: &Fleet) -> Result<Vec<(String, u64)>> {
    let mut missing = Vec::new();
    let mut view = None;
    for (agent, known) in fleet.known() {
        let current = match view.take() {
            Some((cluster, view)) if cluster == agent.cluster => view,
            _ => rig.view(agent.cluster).await?,
        };
        let name = format!("d{}", agent.n);
        let director = current.directors.iter().find(|d| d.name.as_str() == name);
        let director = director.with_context(|| format!("there is no {name}"))?;
        let shown = &director.reports;
        if shown.last_sequence != Some(known.sent) || shown.accepted < known.acknowledged {
            let lost = known.acknowledged.saturating_sub(shown.accepted).max(1);
            let place = agent.place;
            missing.push((format!("agent {place}: {known}; shown {shown:?}"), lost));
        }
        view = Some((agent.cluster, current));
    }
    Ok(missing)
}

impl Sustained {
    const MEBIBYTE: f64 = 1_048_576.0;

    /// The lines, with what must hold of the full number of agents, or without.
    pub(super) fn lines(&self, limited: bool) -> Vec<Line> {
        let must = |must: Must| if limited { must } else { Must::Nothing };
        let count = self.agents;
        let what = |what: &str| format!("{count} agents: {what}");
        let mebibytes = |bytes: &[f64]| -> Vec<f64> {
            bytes.iter().map(|bytes| bytes / Self::MEBIBYTE).collect()
        };
        vec![
            Line::new(
                what(&format!("of {} reports lost", self.sent)),
                Unit::Count,
                [self.lost as f64],
                Must::Exactly(0.0),
            ),
            Line::new(
                what("a report until its answer"),
                Unit::Milliseconds,
                self.accepts.clone(),
                match limited {
                    true => Must::P99(0.050),
                    // So that the table shows the same of it.
                    false => Must::P99(f64::INFINITY),
                },
            ),
            Line::new(
                what("the controller's processor time"),
                Unit::Cores,
                self.cores.clone(),
                must(Must::Max(1.0)),
            ),
            Line::new(
                what("its memory, PSS"),
                Unit::Mebibytes,
                mebibytes(&self.pss),
                must(Must::Max(300.0)),
            ),
            Line::new(
                what("its memory, RSS at most"),
                Unit::Mebibytes,
                mebibytes(&[self.peak as f64]),
                must(Must::Max(300.0)),
            ),
            Line::new(
                what("the agents' own processor time"),
                Unit::Cores,
                [self.own_cores],
                Must::Nothing,
            ),
        ]
    }

    /// Why reports were lost.
    pub(super) fn why(&self) -> &[String] {
        &self.why
    }

    /// Processor time a second for each agent.
    fn cpu_per_agent(&self) -> f64 {
        let cores: f64 = self.cores.iter().sum();
        cores / self.cores.len() as f64 / self.agents as f64
    }

    /// The bytes that each agent added.
    fn memory_per_agent(&self) -> f64 {
        let pss = self.pss.iter().copied().fold(0.0, f64::max);
        (pss - self.idle as f64) / self.agents as f64
    }

    /// How much more each agent costs than with `fewer` of them.
    pub(super) fn growth(&self, fewer: &Self) -> Vec<Line> {
        let (many, few) = (self.agents, fewer.agents);
        let title = |what: &str| format!("{what} for each of {many} agents ÷ of {few}");
        vec![
            Line::new(
                title("processor time"),
                Unit::Ratio,
                [self.cpu_per_agent() / fewer.cpu_per_agent()],
                Must::Max(NOISE),
            ),
            Line::new(
                title("memory above an empty controller's"),
                Unit::Ratio,
                [self.memory_per_agent() / fewer.memory_per_agent()],
                Must::Max(NOISE),
            ),
        ]
    }
}

/// Not worse than linear is 1; what two runs of the same differ by comes on top.
const NOISE: f64 = 1.1;

/// Waits until every agent is there for the first time.
pub(super) async fn arrive(fleet: &Fleet, begun: Instant) -> Result<()> {
    fleet.complete(begun, SOON).await?;
    ensure!(
        fleet.known().all(|(_, known)| known.failed == 0),
        "reports failed while the agents came: {:?}",
        fleet.known().flat_map(|(_, known)| known.why).next()
    );
    Ok(())
}
