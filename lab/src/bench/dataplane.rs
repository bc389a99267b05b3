//! `isopath-lab bench dataplane`: how fast a director's kernel gets its services from us, from
//! `ipvsadm -R` and from keepalived, and which connections outlive a director.
//!
//! It needs IPVS, and runs itself in a virtual machine where this kernel has none. The rows run
//! one after another, since each of them takes all of the machine; one that fails takes no other
//! with it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::table::{number, print_aligned, print_markdown, suffix};
use super::write;
use crate::binaries;
use crate::report::say;
use crate::vm::{self, VmSpec};

mod echo;
mod figures;
mod flows;
mod full;
mod programs;
mod rig;
mod set;
mod slots;
mod survive;
mod vrrp;

use figures::{Figure, Limit, Series, Who};

/// Which part of the table is measured, and how often.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Only these rows.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Row>,
    /// Repetitions of each measurement; a third as many of those that fill the kernel and of the
    /// tables.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    reps: u16,
    /// Print the table as Markdown.
    #[arg(long)]
    markdown: bool,
    /// Where the results go as JSON.
    #[arg(long, default_value = "target/bench-dataplane.json")]
    json: PathBuf,
    /// What the labs' names begin with.
    #[arg(long, default_value = "bench")]
    name: String,
    /// Run on this kernel, never in a virtual machine.
    #[arg(long, hide = true)]
    direct: bool,
}

/// What is measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Row {
    /// The whole set from empty.
    Full,
    /// What our agent says of its reconciles.
    Reconcile,
    /// One weight changed in the file.
    Reload,
    /// Memory with the set.
    Memory,
    /// Long-lived connections through four directors.
    Connections,
    /// Tables of directors with different histories.
    Slots,
}

impl Row {
    const ALL: [Self; 6] = [
        Self::Full,
        Self::Reconcile,
        Self::Reload,
        Self::Memory,
        Self::Connections,
        Self::Slots,
    ];
}

/// What has been found so far.
#[derive(Debug, Default)]
struct Lines {
    series: Vec<Series>,
    /// Rows that could not be measured at all.
    lost: Vec<String>,
}

impl Lines {
    fn add(&mut self, series: impl IntoIterator<Item = Series>) {
        self.series.extend(series);
    }

    /// Measures some rows; when that fails, the others go on.
    fn measure(&mut self, what: &str, work: impl FnOnce(&mut Self) -> Result<()>) {
        if let Err(error) = work(self) {
            let why = format!("{what} was not measured: {error:#}");
            say(&why);
            self.lost.push(why);
        }
    }

    fn missed(&self) -> Vec<String> {
        let mut missed = self.lost.clone();
        missed.extend(figures::missed(&self.series));
        missed
    }
}

/// What is written as JSON.
#[derive(Serialize)]
struct Report<'a> {
    repetitions: u16,
    series: &'a [Series],
    missed: &'a [String],
}

/// Measures, prints the table, writes the JSON; whether every line was reached.
///
/// # Errors
/// The results cannot be written, or no virtual machine can be had where one is needed.
pub fn dataplane(options: &Options) -> Result<bool> {
    if !options.direct && !vm::kernel_has_ipvs() {
        say("this kernel has no IPVS: the benchmark runs in a small virtual machine");
        return in_machine(options);
    }
    let rows: Vec<Row> = Row::ALL
        .into_iter()
        .filter(|row| options.only.is_empty() || options.only.contains(row))
        .collect();
    let mut lines = Lines::default();
    let repetitions = usize::from(options.reps);
    let of_one = [Row::Full, Row::Reconcile, Row::Reload, Row::Memory];
    if rows.iter().any(|row| of_one.contains(row)) {
        let name = format!("{}-full", options.name);
        lines.measure("the whole set", |lines| {
            full::full(&name, fewer(repetitions), &rows, lines)
        });
        keep(options, &lines)?;
    }
    if rows.contains(&Row::Connections) {
        survive::connections(&options.name, repetitions, &mut lines);
        keep(options, &lines)?;
    }
    if rows.contains(&Row::Slots) {
        lines.measure("the tables of mh", |lines| {
            slots::slots(&options.name, fewer(repetitions), lines)
        });
    }
    print(&lines.series, options.markdown);
    say(EXPLAINED);
    keep(options, &lines)?;
    let missed = lines.missed();
    for line in &missed {
        say(format_args!("MISSED: {line}"));
    }
    Ok(missed.is_empty())
}

/// The repetitions of what takes a minute and varies little, so that all of it takes less than
/// half an hour on an emulated processor.
fn fewer(repetitions: usize) -> usize {
    repetitions.div_ceil(3)
}

/// What the numbers of the table are.
const EXPLAINED: &str = "\
Minimum/median/maximum. Connections: those of 200 that got a reset, an end or an error, or got no \
byte back within 20 s of the moment at which the network had converged; each event is a number. \
isopath is the stateless profile with `mh`; keepalived is a primary and a backup by VRRP. \
docs/DATAPLANE.md says what each line is.";

/// Writes what there is so far, so that an end before the last row loses no other.
fn keep(options: &Options, lines: &Lines) -> Result<()> {
    let report = Report {
        repetitions: options.reps,
        series: &lines.series,
        missed: &lines.missed(),
    };
    write(&options.json, &report)
}

/// Has what is measured, and what it is measured with, run from the machine's memory.
const IN_MEMORY: &str = include_str!("../../../scripts/in-memory");

/// The programs of others.
const OTHERS: [&str; 8] = [
    "bash",
    "ip",
    "ipvsadm",
    "keepalived",
    "nginx",
    "sh",
    "/usr/lib/frr/zebra",
    "/usr/lib/frr/ospfd",
];

/// Runs this same program in a virtual machine that may write where the results go.
fn in_machine(options: &Options) -> Result<bool> {
    let own = std::env::current_exe().context("finding the path of this program")?;
    let own = own.to_str().context("this program's path is not UTF-8")?;
    let json = std::path::absolute(&options.json).context("making the JSON's path absolute")?;
    let directory = json.parent().unwrap_or(Path::new("/")).to_owned();
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("making {}", directory.display()))?;
    let agent = binaries::find("isopath-agent")?;
    let programs = agent.parent().unwrap_or(Path::new("/")).to_str();
    let programs = programs.context("the path of the programs is not UTF-8")?;
    let mut command: Vec<String> = ["bash", "-c", IN_MEMORY, "in-memory", programs]
        .into_iter()
        .chain(OTHERS)
        .chain(["--", own, "bench", "dataplane"])
        .map(str::to_owned)
        .collect();
    command.push("--direct".to_owned());
    command.push(format!("--reps={}", options.reps));
    command.push(format!("--name={}", options.name));
    command.push(format!("--json={}", json.display()));
    for row in &options.only {
        let value = row.to_possible_value();
        let value = value.context("a row without a name")?;
        command.push(format!("--only={}", value.get_name()));
    }
    if options.markdown {
        command.push("--markdown".to_owned());
    }
    let spec = VmSpec {
        command,
        writable: vec![directory],
        ..VmSpec::default()
    };
    Ok(vm::run(&spec, &mut |step| say(step))? == 0)
}

fn print(series: &[Series], markdown: bool) {
    let columns: Vec<Who> = Who::ALL
        .into_iter()
        .filter(|who| series.iter().any(|it| it.who == *who))
        .collect();
    let mut head = vec!["what".to_owned()];
    head.extend(columns.iter().map(|who| who.name().to_owned()));
    head.push("isopath must".to_owned());
    let mut rows = vec![head];
    for figure in Figure::ALL {
        if series.iter().all(|it| it.figure != figure) {
            continue;
        }
        let mut row = vec![figure.title().to_owned()];
        let cells = columns
            .iter()
            .map(|who| figures::find(series, figure, *who));
        row.extend(cells.map(|series| series.map_or_else(|| "–".to_owned(), cell)));
        row.push(must(series, figure));
        rows.push(row);
    }
    if markdown {
        print_markdown(&rows);
    } else {
        print_aligned(&rows);
    }
}

fn cell(series: &Series) -> String {
    let unit = series.figure.unit();
    let mut text = series.spread().map_or_else(
        || "none".to_owned(),
        |spread| {
            let [min, median, max] =
                [spread.min, spread.median, spread.max].map(|value| number(unit, value));
            let suffix = suffix(unit);
            format!("{min}/{median}/{max}{suffix}")
        },
    );
    if !series.failures.is_empty() {
        text.push_str(&format!(", {} FAILED", series.failures.len()));
    }
    text
}

fn must(series: &[Series], figure: Figure) -> String {
    let unit = figure.unit();
    let bound = figures::bound(series, figure).map_or_else(String::new, |bound| {
        format!(" = {}{}", number(unit, bound), suffix(unit))
    });
    match figure.limit() {
        Limit::ShareOfOthers(share) => format!("≤ {share} × the others' least{bound}"),
        Limit::ShareOfFull(share) => format!("≤ {} % of its full time{bound}", share * 100.0),
        Limit::Nothing => "–".to_owned(),
        Limit::Exactly(value) => format!("{value} each time"),
    }
}
