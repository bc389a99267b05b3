//! The whole set, one weight of it, and memory: our agent, `ipvsadm -R` and keepalived in turn.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::report::say;

use super::figures::{Figure, Series, Who};
use super::programs::{self, Reconciles, fill};
use super::rig::Rig;
use super::set::Set;
use super::{Lines, Row};
use crate::wait::{self, Probe};

/// How often the weight is changed each time that the set is there.
const CHANGES: usize = 4;

/// How long nothing is asked of the agent while it finds nothing to do, once a second.
const ALONE: Duration = Duration::from_secs(20);

/// Fills the kernel so many times with each program; the programs take turns, so that what
/// disturbs the machine disturbs all of them.
///
/// Each fill has a network namespace of its own. One that was emptied is not empty: for two
/// minutes the kernel keeps the real servers that were deleted, in a list through which it looks
/// for each one that is added (`ip_vs_trash_get_dest`), which made a second fill take twice as
/// long as the first, by how much depending on the order.
pub(super) fn full(
    name: &str,
    repetitions: usize,
    wanted: &[Row],
    lines: &mut Lines,
) -> Result<()> {
    let has = |row| wanted.contains(&row);
    let mut all = Collected::new(repetitions, wanted);
    for repetition in 1..=repetitions {
        for who in [Who::Ipvsadm, Who::Keepalived, Who::Isopath] {
            if who == Who::Ipvsadm && !has(Row::Full) {
                continue;
            }
            let done = Rig::new(name).and_then(|rig| {
                all.one(&rig, who, wanted)?;
                rig.clear()
            });
            if let Err(error) = done {
                let why = format!("repetition {repetition}: {error:#}");
                say(format_args!("{}: {why}", who.name()));
                all.fail(who, &why);
            }
        }
    }
    lines.add(all.series);
    Ok(())
}

struct Collected {
    series: Vec<Series>,
}

impl Collected {
    fn new(repetitions: usize, wanted: &[Row]) -> Self {
        let mut series = Vec::new();
        for figure in [
            Figure::Full,
            Figure::Unchanged,
            Figure::Reading,
            Figure::OneWeight,
            Figure::OneWeightChanges,
            Figure::Reload,
            Figure::Memory,
        ] {
            let (who, each): (&[Who], usize) = match figure {
                Figure::Full => (&[Who::Isopath, Who::Ipvsadm, Who::Keepalived], 1),
                Figure::Reload => (&[Who::Isopath, Who::Keepalived], CHANGES),
                Figure::Memory => (&[Who::Isopath, Who::Keepalived], 1),
                _ => (&[Who::Isopath], 1),
            };
            // Without the full time of this run there is no limit for what is a share of it.
            let needed = figure == Figure::Full && wanted.contains(&Row::Reconcile);
            if wanted.contains(&row(figure)) || needed {
                let of = |who: &Who| Series::new(figure, *who, repetitions * each);
                series.extend(who.iter().map(of));
            }
        }
        Self { series }
    }

    fn push(&mut self, figure: Figure, who: Who, value: f64) {
        let mut series = self.series.iter_mut();
        if let Some(series) = series.find(|it| (it.figure, it.who) == (figure, who)) {
            series.values.push(value);
            let (title, name) = (figure.title(), who.name());
            say(format_args!("{title}: {name}: {value:.4}"));
        }
    }

    fn fail(&mut self, who: Who, why: &str) {
        let of_this = self.series.iter_mut().filter(|series| series.who == who);
        for series in of_this {
            series.failures.push(why.to_owned());
        }
    }

    fn one(&mut self, rig: &Rig, who: Who, wanted: &[Row]) -> Result<()> {
        let (mut program, took) = fill(rig, who, Set::STOCK)?;
        self.push(Figure::Full, who, took.as_secs_f64());
        if who == Who::Ipvsadm {
            return program.finish();
        }
        let mut measure = || -> Result<()> {
            program.wait_until_quiet()?;
            // Before anything else is asked of it: an answer of this size takes memory, too.
            self.push(Figure::Memory, who, mebibytes(program.pss()?));
            if wanted.contains(&Row::Reload) {
                for _ in 0..CHANGES {
                    program.wait_until_quiet()?;
                    let took = program.change_weight(rig).context("changing a weight")?;
                    self.push(Figure::Reload, who, took.as_secs_f64());
                }
            }
            if who == Who::Isopath && wanted.contains(&Row::Reconcile) {
                self.reconciles(rig, &mut program)?;
            }
            Ok(())
        };
        let measured = measure();
        program.kill()?;
        measured
    }

    /// What the agent says of ten reconciles or more without a change, and of one with one.
    fn reconciles(&mut self, rig: &Rig, program: &mut programs::Program) -> Result<()> {
        let ask = || programs::reconciles(rig.namespace());
        let until = |what: &str, holds: &dyn Fn(&Reconciles) -> bool| {
            wait::until(what, programs::CHANGE, || {
                let now = ask()?;
                Ok(Probe::when(holds(&now), now, || format!("{now:?}")))
            })
        };
        // The reconcile of the last change may not have ended; after one without a change it has.
        let first = ask()?;
        let before = until("a reconcile", &|now| now.unchanged.0 > first.unchanged.0)?;
        // With such a set its answer keeps the agent busy for seconds: who watches it disturbs
        // what is measured.
        std::thread::sleep(ALONE);
        let quiet = until("ten reconciles", &|now| {
            now.unchanged.0 >= before.unchanged.0 + 10.0
        })?;
        let each = |(a, b): ((f64, f64), (f64, f64))| (b.1 - a.1) / (b.0 - a.0);
        self.push(
            Figure::Unchanged,
            Who::Isopath,
            each((before.unchanged, quiet.unchanged)),
        );
        ensure!(
            quiet.steps == before.steps,
            "the kernel was changed, though nothing was asked for"
        );
        self.push(
            Figure::Reading,
            Who::Isopath,
            rig.time_reading()?.as_secs_f64(),
        );
        let quiet = ask()?;
        program.change_weight(rig).context("changing a weight")?;
        let changed = until("a reconcile with a change", &|now| {
            now.changed.0 > quiet.changed.0 && now.unchanged.0 > quiet.unchanged.0
        })?;
        self.push(
            Figure::OneWeight,
            Who::Isopath,
            each((quiet.changed, changed.changed)),
        );
        self.push(
            Figure::OneWeightChanges,
            Who::Isopath,
            changed.steps - quiet.steps,
        );
        Ok(())
    }
}

fn row(figure: Figure) -> Row {
    match figure {
        Figure::Full => Row::Full,
        Figure::Unchanged | Figure::Reading | Figure::OneWeight | Figure::OneWeightChanges => {
            Row::Reconcile
        }
        Figure::Reload => Row::Reload,
        Figure::Memory => Row::Memory,
        Figure::Drained | Figure::Killed | Figure::PoweredOff | Figure::Back => Row::Connections,
        Figure::Slots | Figure::Clients => Row::Slots,
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
