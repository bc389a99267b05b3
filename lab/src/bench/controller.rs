//! `isopath-lab bench controller`: what the controller does for a thousand agents, how soon what
//! an operator asks for reaches them, and what a restart does to them.
//!
//! The controller is the release build with a database on the disk, alone on the loopback of a
//! network namespace. The agents are simulated in one thread of this process, which shares the
//! processors with it: their processor time is a line of the table.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::table::{print_aligned, print_markdown};
use super::write;
use crate::netns::Namespace;
use crate::process::pss;
use crate::registry::Registry;
use crate::report::say;
use crate::topology::complain;

mod agent;
mod figures;
mod fleet;
mod large;
mod push;
mod restart;
mod rig;
mod set;
mod sustain;
mod template;
mod wire;

use figures::{Line, Unit};
use fleet::Fleet;
use rig::Rig;
use set::{DIRECTORS, Shape};
use sustain::{Sustained, arrive, sustain};

/// Which part of the table is measured, and how long.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Only these rows.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<Row>,
    /// How many agents there are at most.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(8..=4000))]
    pub agents: u16,
    /// How many seconds they report; a quarter of it where there are fewer of them.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// How many declarations, drains and questions.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub changes: u16,
    /// How many restarts by each signal.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub restarts: u16,
    /// Print the table as Markdown.
    #[arg(long)]
    pub markdown: bool,
    /// Where the results go as JSON, and the database meanwhile.
    #[arg(long, default_value = "target/bench-controller.json")]
    pub json: PathBuf,
    /// What the labs' names begin with.
    #[arg(long, default_value = "bench")]
    pub name: String,
}

/// What is measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Row {
    /// All agents reporting.
    Sustained,
    /// What an agent costs where there are fewer.
    Growth,
    /// Declarations that reach the agents.
    Declared,
    /// Drains that reach them.
    Drained,
    /// Restarts under all agents.
    Restart,
    /// The view and the metrics of a large cluster.
    Large,
}

/// What has been found.
#[derive(Debug, Default)]
struct Found {
    lines: Vec<Line>,
    /// Rows that could not be measured.
    lost: Vec<String>,
}

impl Found {
    /// Measures some rows; when that fails, the others go on.
    async fn measure(&mut self, what: &str, work: impl AsyncFnOnce(&mut Self) -> Result<()>) {
        eprintln!("isopath-lab: measuring {what}");
        if let Err(error) = work(self).await {
            let why = format!("{what}: not measured: {error:#}");
            say(&why);
            self.lost.push(why);
        }
    }

    fn missed(&self) -> Vec<String> {
        let missed = self.lines.iter().filter_map(Line::missed);
        self.lost.iter().cloned().chain(missed).collect()
    }
}

/// What is written as JSON.
#[derive(Serialize)]
struct Report<'a> {
    agents: u16,
    seconds: u32,
    lines: &'a [Line],
    missed: &'a [String],
}

/// Measures, prints the table, writes the JSON; whether every line was reached.
///
/// # Errors
/// The results cannot be written, or no namespace can be made.
pub fn controller(options: &Options) -> Result<bool> {
    let registry = Registry::open(&format!("{}-controller", options.name))?;
    let found = run(&registry, options, FIRST_RETRY);
    complain(registry.clean());
    let found = found?;
    print(&found.lines, options.markdown);
    say(EXPLAINED);
    let missed = found.missed();
    let report = Report {
        agents: options.agents,
        seconds: options.seconds,
        lines: &found.lines,
        missed: &missed,
    };
    write(&options.json, &report)?;
    for line in &missed {
        say(format_args!("MISSED: {line}"));
    }
    Ok(missed.is_empty())
}

/// How long an agent waits at most before it makes a stream anew for the first time.
const FIRST_RETRY: Duration = Duration::from_secs(5);

/// Runs each row with a few agents for a moment, so that it still works when it is wanted: what
/// was not measured, and what was lost or withdrawn. Times are not looked at.
///
/// # Errors
/// No namespace can be made.
pub fn smoke(name: &str, beside: &Path) -> Result<Vec<String>> {
    let options = Options {
        only: vec![Row::Sustained, Row::Declared, Row::Drained, Row::Restart],
        agents: 16,
        seconds: 2,
        changes: 3,
        restarts: 1,
        markdown: false,
        json: beside.join("bench-controller.json"),
        name: name.to_owned(),
    };
    let registry = Registry::open(&format!("{name}-controller"))?;
    let found = run(&registry, &options, Duration::from_millis(300));
    complain(registry.clean());
    let found = found?;
    let numbers = found.lines.iter().filter(|line| !line.values.is_empty());
    let counted = found.lines.iter().filter(|line| line.is_counted());
    let mut wrong = found.lost.clone();
    wrong.extend(counted.filter_map(Line::missed));
    // One line of each row at least has a number.
    if numbers.count() < found.lines.len() || found.lines.len() < 14 {
        wrong.push(format!("lines are missing: {:?}", found.lines));
    }
    Ok(wrong)
}

/// What the numbers of the table are.
const EXPLAINED: &str = "\
Minimum/median/maximum where it says nothing else. Processor time is taken over 10 s at a time. \
The agents run in one thread beside the controller: a time until an answer has the waiting for a \
processor of both in it. docs/CONTROLLER.md says what each line is.";

fn run(registry: &Arc<Registry>, options: &Options, first_retry: Duration) -> Result<Found> {
    let namespace = Namespace::create(registry, "controller")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("making a runtime")?;
    let mut found = Found::default();
    let bench = Bench {
        namespace: &namespace,
        registry,
        options,
        first_retry,
    };
    // Everything that listens or connects does it from this thread or one that it starts.
    namespace.enter(|| runtime.block_on(bench.all(&mut found)))?;
    Ok(found)
}

struct Bench<'a> {
    namespace: &'a Namespace,
    registry: &'a Arc<Registry>,
    options: &'a Options,
    first_retry: Duration,
}

impl Bench<'_> {
    fn wants(&self, row: Row) -> bool {
        self.options.only.is_empty() || self.options.only.contains(&row)
    }

    async fn all(&self, found: &mut Found) {
        let agents = usize::from(self.options.agents);
        let with_all = [
            Row::Sustained,
            Row::Growth,
            Row::Declared,
            Row::Drained,
            Row::Restart,
        ];
        let mut most = None;
        if with_all.into_iter().any(|row| self.wants(row)) {
            let what = format!("{agents} agents");
            found
                .measure(&what, async |found| self.with_all(found, &mut most).await)
                .await;
        }
        if self.wants(Row::Growth) {
            for count in [agents / 8, agents / 2] {
                let what = format!("{count} agents");
                found
                    .measure(&what, async |found| {
                        self.with_fewer(found, count, most.as_ref()).await
                    })
                    .await;
            }
        }
        if self.wants(Row::Large) {
            found
                .measure("a large cluster", async |found| {
                    self.with_large(found).await
                })
                .await;
        }
    }

    /// A controller with agents, and its memory before they came.
    async fn start(&self, agents: usize, shape: Shape) -> Result<(Rig, Fleet, u64)> {
        let beside = self.options.json.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(beside).context("making the results' directory")?;
        let clusters = agents.div_ceil(usize::from(DIRECTORS));
        let clusters = u16::try_from(clusters).context("too many agents")?;
        let mut rig = Rig::start((self.namespace, self.registry), beside, clusters, shape).await?;
        let idle = pss(rig.process()?.pid())?;
        let begun = Instant::now();
        let fleet = Fleet::start(rig::ADDRESS, &rig.tokens, (agents, self.first_retry))?;
        arrive(&fleet, begun).await?;
        Ok((rig, fleet, idle))
    }

    async fn with_all(&self, found: &mut Found, most: &mut Option<Sustained>) -> Result<()> {
        let options = self.options;
        let (mut rig, mut fleet, idle) = self
            .start(usize::from(options.agents), Shape::USUAL)
            .await?;
        if self.wants(Row::Sustained) || self.wants(Row::Growth) {
            let times = (options.seconds, idle);
            let sustained = sustain(&mut rig, &mut fleet, times).await?;
            found.lines.extend(sustained.lines(true));
            tell(&sustained);
            *most = Some(sustained);
            fleet.resume();
        }
        // The other rows are measured while all agents report.
        if self.wants(Row::Declared) {
            let line = push::declared(&mut rig, &mut fleet, options.changes).await?;
            found.lines.push(line);
        }
        if self.wants(Row::Drained) {
            let line = push::drained(&mut rig, &mut fleet, options.changes).await?;
            found.lines.push(line);
        }
        if self.wants(Row::Restart) {
            let lines = restart::restarts(&mut rig, &mut fleet, options.restarts).await?;
            found.lines.extend(lines);
        }
        rig.process().map(drop)
    }

    async fn with_fewer(
        &self,
        found: &mut Found,
        count: usize,
        most: Option<&Sustained>,
    ) -> Result<()> {
        ensure!(count > 0, "too few agents to take a part of them");
        let (mut rig, mut fleet, idle) = self.start(count, Shape::USUAL).await?;
        let times = (self.options.seconds.div_ceil(4), idle);
        let sustained = sustain(&mut rig, &mut fleet, times).await?;
        found.lines.extend(sustained.lines(false));
        tell(&sustained);
        let most = most.context("there is nothing to compare with")?;
        found.lines.extend(most.growth(&sustained));
        Ok(())
    }

    async fn with_large(&self, found: &mut Found) -> Result<()> {
        let directors = usize::from(DIRECTORS);
        let (mut rig, mut fleet, idle) = self.start(directors, Shape::LARGE).await?;
        let lines = large::large(&mut rig, &fleet, self.options.changes).await?;
        found.lines.extend(lines);
        let times = (self.options.seconds.div_ceil(12), idle);
        let sustained = sustain(&mut rig, &mut fleet, times).await?;
        tell(&sustained);
        let lines = sustained.lines(false).into_iter();
        let interesting = lines.filter(|line| line.unit != Unit::Cores || line.values.len() > 1);
        found.lines.extend(interesting.map(|line| Line {
            what: format!("large cluster, {}", line.what),
            ..line
        }));
        Ok(())
    }
}

fn tell(sustained: &Sustained) {
    for why in sustained.why().iter().take(3) {
        say(format_args!("lost: {why}"));
    }
}

fn print(lines: &[Line], markdown: bool) {
    let head = ["what", "found", "must be"].map(str::to_owned).to_vec();
    let rows = lines
        .iter()
        .map(|line| vec![line.what.clone(), line.cell(), line.wanted()]);
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    if markdown {
        print_markdown(&rows);
    } else {
        print_aligned(&rows);
    }
}
