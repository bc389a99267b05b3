//! What is measured, what it must reach, and what was found.

use serde::Serialize;

use crate::bench::figures::{Spread, Unit};

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Figure {
    /// From the start of the program until the kernel has the whole set.
    Full,
    /// From the signal after one weight was changed in the file until the kernel has it.
    Reload,
    /// The memory with the whole set.
    Memory,
    /// A reconcile that finds nothing to do.
    Unchanged,
    /// All real servers read once in the quickest way there is, and nothing else done: what a
    /// reconcile cannot be quicker than.
    Reading,
    /// A reconcile that changes one weight.
    OneWeight,
    /// The changes that it makes in the kernel.
    OneWeightChanges,
    /// Connections that broke when a director was taken out of service.
    Drained,
    /// When its daemons were killed.
    Killed,
    /// When its interfaces went down.
    PoweredOff,
    /// When it came back from one of these.
    Back,
    /// Slots of the `mh` table in which two directors of different histories differ.
    Slots,
    /// Clients that two such directors send to different real servers.
    Clients,
}

/// Whose number it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Who {
    /// Our agent, with the profile that several directors share where connections are counted.
    Isopath,
    /// Our agent with `rr` and without `sloppy_tcp`.
    IsopathStateful,
    /// `ipvsadm -R`.
    Ipvsadm,
    /// keepalived; where connections are counted, a primary and a backup by VRRP.
    Keepalived,
}

impl Who {
    /// The table's columns.
    pub(super) const ALL: [Self; 4] = [
        Self::Isopath,
        Self::Ipvsadm,
        Self::Keepalived,
        Self::IsopathStateful,
    ];

    /// The column's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Isopath => "isopath",
            Self::IsopathStateful => "rr, not sloppy",
            Self::Ipvsadm => "ipvsadm",
            Self::Keepalived => "keepalived",
        }
    }
}

/// What our number must not exceed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Limit {
    /// This share of the least median of the others.
    ShareOfOthers(f64),
    /// This share of our own [`Figure::Full`].
    ShareOfFull(f64),
    /// Nothing: it is there to be compared with.
    Nothing,
    /// Each single number must be this.
    Exactly(f64),
}

impl Figure {
    /// All, in the table's order.
    pub(super) const ALL: [Self; 13] = [
        Self::Full,
        Self::Unchanged,
        Self::Reading,
        Self::OneWeight,
        Self::OneWeightChanges,
        Self::Reload,
        Self::Memory,
        Self::Drained,
        Self::Killed,
        Self::PoweredOff,
        Self::Back,
        Self::Slots,
        Self::Clients,
    ];

    /// The line's name.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Full => "1,000 services × 20 real servers from empty",
            Self::Unchanged => "no-op reconcile of the same set",
            Self::Reading => "… of it the reading of all real servers, at least",
            Self::OneWeight => "reconcile of one changed weight",
            Self::OneWeightChanges => "… changes in the kernel",
            Self::Reload => "one weight changed in the file → in the kernel",
            Self::Memory => "PSS with the set",
            Self::Drained => "connections broken of 200: director drained",
            Self::Killed => "… killed by SIGKILL",
            Self::PoweredOff => "… powered off",
            Self::Back => "… added back",
            Self::Slots => "mh slots that differ between directors",
            Self::Clients => "… clients sent to different real servers",
        }
    }

    /// What its numbers are.
    pub(super) fn unit(self) -> Unit {
        match self {
            Self::Full => Unit::Seconds,
            Self::Reload | Self::Unchanged | Self::Reading | Self::OneWeight => Unit::Milliseconds,
            Self::Memory => Unit::Mebibytes,
            Self::OneWeightChanges
            | Self::Drained
            | Self::Killed
            | Self::PoweredOff
            | Self::Back
            | Self::Slots
            | Self::Clients => Unit::Count,
        }
    }

    /// What ours must reach.
    pub(super) fn limit(self) -> Limit {
        match self {
            Self::Full => Limit::ShareOfOthers(0.6),
            Self::Reload => Limit::ShareOfOthers(0.1),
            Self::Memory => Limit::ShareOfOthers(1.0),
            Self::Unchanged | Self::OneWeight => Limit::ShareOfFull(0.05),
            Self::Reading => Limit::Nothing,
            Self::OneWeightChanges => Limit::Exactly(1.0),
            Self::Drained
            | Self::Killed
            | Self::PoweredOff
            | Self::Back
            | Self::Slots
            | Self::Clients => Limit::Exactly(0.0),
        }
    }
}

/// What one program reached in one line.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Series {
    /// The line.
    pub(super) figure: Figure,
    /// The column.
    pub(super) who: Who,
    /// The numbers in the order they were taken: seconds, mebibytes or a count.
    pub(super) values: Vec<f64>,
    /// How many numbers there must be.
    pub(super) wanted: usize,
    /// What went wrong, one for each repetition that failed.
    pub(super) failures: Vec<String>,
    /// What else is to be known of a number, such as how connections broke.
    pub(super) notes: Vec<String>,
}

impl Series {
    pub(super) fn new(figure: Figure, who: Who, wanted: usize) -> Self {
        Self {
            figure,
            who,
            values: Vec::new(),
            wanted,
            failures: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The least, the middle and the greatest.
    pub(super) fn spread(&self) -> Option<Spread> {
        Spread::of(&self.values)
    }
}

/// The limit of our median as a number, where the others' numbers say it.
pub(super) fn bound(all: &[Series], figure: Figure) -> Option<f64> {
    let median = |series: &Series| Some(series.spread()?.median);
    match figure.limit() {
        Limit::Exactly(value) => Some(value),
        Limit::ShareOfFull(share) => {
            let full = find(all, Figure::Full, Who::Isopath)?;
            Some(median(full)? * share)
        }
        Limit::ShareOfOthers(share) => {
            let others = all
                .iter()
                .filter(|series| series.figure == figure && series.who != Who::Isopath);
            let least = others.filter_map(median).min_by(f64::total_cmp)?;
            Some(least * share)
        }
        Limit::Nothing => None,
    }
}

pub(super) fn find(all: &[Series], figure: Figure, who: Who) -> Option<&Series> {
    all.iter()
        .find(|series| (series.figure, series.who) == (figure, who))
}

/// Why our lines are missed; none when all are reached. A line that was asked for and has no
/// number is missed, and so is one whose others have none to compare with.
pub(super) fn missed(all: &[Series]) -> Vec<String> {
    let mut missed = Vec::new();
    for series in all.iter().filter(|series| series.who == Who::Isopath) {
        let mut say = |text: String| missed.push(format!("{}: {text}", series.figure.title()));
        if let Some(first) = series.failures.first() {
            say(format!("{} failed, first {first}", series.failures.len()));
        }
        if series.values.len() < series.wanted {
            say(format!("{} of {}", series.values.len(), series.wanted));
        }
        let Some(spread) = series.spread() else {
            continue;
        };
        match (series.figure.limit(), bound(all, series.figure)) {
            (Limit::Exactly(wanted), _) => {
                let off = series.values.iter().filter(|value| **value != wanted);
                let off = off.count();
                if off > 0 {
                    let of = series.values.len();
                    say(format!("{off} of {of} are not {wanted}"));
                }
            }
            (Limit::Nothing, _) => {}
            (_, None) => say("there is nothing to compare with".to_owned()),
            (_, Some(limit)) if spread.median > limit => {
                say(format!("median {:.4} is above {limit:.4}", spread.median));
            }
            (_, Some(_)) => {}
        }
    }
    missed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(figure: Figure, who: Who, values: &[f64]) -> Series {
        Series {
            values: values.to_vec(),
            ..Series::new(figure, who, values.len())
        }
    }

    #[test]
    fn the_faster_of_the_others_and_our_own_full_time_set_the_limits() {
        let all = |ours: f64, (unchanged, one): (f64, f64)| {
            missed(&[
                series(Figure::Full, Who::Isopath, &[ours, ours, 9.0]),
                series(Figure::Full, Who::Ipvsadm, &[12.0]),
                series(Figure::Full, Who::Keepalived, &[10.0, 11.0]),
                series(Figure::Unchanged, Who::Isopath, &[unchanged]),
                series(Figure::Reading, Who::Isopath, &[0.4]),
                series(Figure::OneWeight, Who::Isopath, &[one]),
            ])
        };
        assert_eq!(all(6.0, (0.3, 0.3)), Vec::<String>::new());
        let lines = all(6.4, (0.3, 0.3));
        assert!(
            lines.len() == 1 && lines[0].contains("above 6.3"),
            "{lines:?}"
        );
        for (unchanged, one) in [(0.4, 0.3), (0.3, 0.4)] {
            let lines = all(6.0, (unchanged, one));
            assert!(
                lines.len() == 1 && lines[0].contains("above 0.3"),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn one_broken_connection_in_one_run_is_missed_and_the_others_may_break_all() {
        let rr = series(Figure::Killed, Who::IsopathStateful, &[150.0; 3]);
        let ours =
            |values: &[f64]| missed(&[rr.clone(), series(Figure::Killed, Who::Isopath, values)]);
        assert_eq!(ours(&[0.0, 0.0, 0.0]), Vec::<String>::new());
        assert!(ours(&[0.0, 1.0, 0.0])[0].contains("1 of 3 are not 0"));
    }

    #[test]
    fn what_was_not_measured_or_has_nobody_beside_it_is_missed() {
        let alone = missed(&[series(Figure::Memory, Who::Isopath, &[5.0])]);
        assert!(alone[0].contains("nothing to compare"), "{alone:?}");
        let few = Series {
            wanted: 3,
            failures: vec!["no answer".to_owned()],
            ..series(Figure::Drained, Who::Isopath, &[0.0])
        };
        let lines = missed(&[few]);
        assert!(lines[0].contains("no answer"), "{lines:?}");
        assert!(lines[1].contains("1 of 3"), "{lines:?}");
    }
}
