//! What is measured, what it must reach, and what was found.

use std::time::Duration;

use serde::Serialize;

use crate::switch::SwitchKind;

use super::speaker::SpeakerKind;

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Figure {
    /// From a start under a new router id until the next hop is in the FIB and stable.
    ColdStart,
    /// From a start right after a SIGKILL until the next hop is stable.
    CrashStart,
    /// For how long it was out of the FIB meanwhile.
    CrashStartAbsent,
    /// From the start of the operator's command to the FIB, after a quiet time.
    Announce,
    /// The same for a withdrawal.
    Withdraw,
    /// From the command that takes back another one, 0.8 s later.
    Opposite,
    /// [`Self::Announce`] with the VIP as an AS-external-LSA.
    AnnounceExternal,
    /// [`Self::Withdraw`] with the VIP as an AS-external-LSA.
    WithdrawExternal,
    /// [`Self::Opposite`] with the VIP as an AS-external-LSA.
    OppositeExternal,
    /// From a SIGKILL to the FIB, with BFD at 3 × 50 ms.
    CrashBfd,
    /// From a SIGTERM to the FIB.
    Stop,
    /// From the start until all of 10,000 AS-external-LSAs are acknowledged.
    Load,
    /// The processor's time for that.
    LoadCpu,
    /// The memory then.
    LoadMemory,
    /// The memory of one idle speaker with BFD at 50 ms.
    IdleMemory,
    /// Restarts of the agent that did not move the route.
    AgentRestart,
    /// Planned restarts of the speaker that did not move the route.
    Upgrade,
    /// How late the latest Hello left a starved speaker.
    StarvedHello,
    /// How late its latest BFD packet left.
    StarvedBfd,
}

/// What the numbers of a figure are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Unit {
    /// Seconds, shown in milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Mebibytes.
    Mebibytes,
    /// How often it went well.
    Times,
    /// A number of things.
    Count,
}

/// The limits that our speaker must keep with FRR as the switch, or everywhere.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Required {
    /// Of the median, in the figure's unit.
    pub(super) median: Option<f64>,
    /// Of the greatest.
    pub(super) max: Option<f64>,
    /// How often it must go well.
    pub(super) times: Option<usize>,
}

impl Figure {
    /// All, in the table's order.
    pub(super) const ALL: [Self; 19] = [
        Self::ColdStart,
        Self::CrashStart,
        Self::CrashStartAbsent,
        Self::Announce,
        Self::Withdraw,
        Self::Opposite,
        Self::AnnounceExternal,
        Self::WithdrawExternal,
        Self::OppositeExternal,
        Self::CrashBfd,
        Self::Stop,
        Self::Load,
        Self::LoadCpu,
        Self::LoadMemory,
        Self::IdleMemory,
        Self::AgentRestart,
        Self::Upgrade,
        Self::StarvedHello,
        Self::StarvedBfd,
    ];

    /// The line's name.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::ColdStart => "cold start with a new router id → stable",
            Self::CrashStart => "start after SIGKILL → stable",
            Self::CrashStartAbsent => "… out of the FIB meanwhile",
            Self::Announce => "announce, adjacency quiet",
            Self::Withdraw => "withdraw, adjacency quiet",
            Self::Opposite => "the opposite change 0.8 s later",
            Self::AnnounceExternal => "announce, type 5",
            Self::WithdrawExternal => "withdraw, type 5",
            Self::OppositeExternal => "the opposite change 0.8 s later, type 5",
            Self::CrashBfd => "SIGKILL, BFD 3 × 50 ms",
            Self::Stop => "SIGTERM of the speaker",
            Self::Load => "10,000 type 5 LSAs: start → all acknowledged",
            Self::LoadCpu => "… processor time",
            Self::LoadMemory => "… PSS",
            Self::IdleMemory => "idle PSS, BFD 50 ms",
            Self::AgentRestart => "agent restarted, route unmoved",
            Self::Upgrade => "speaker upgraded, route unmoved",
            Self::StarvedHello => "starved: latest Hello",
            Self::StarvedBfd => "starved: latest BFD packet",
        }
    }

    /// What its numbers are.
    pub(super) fn unit(self) -> Unit {
        match self {
            Self::ColdStart
            | Self::CrashStart
            | Self::Opposite
            | Self::OppositeExternal
            | Self::Load
            | Self::LoadCpu => Unit::Seconds,
            Self::CrashStartAbsent
            | Self::Announce
            | Self::Withdraw
            | Self::AnnounceExternal
            | Self::WithdrawExternal
            | Self::CrashBfd
            | Self::Stop
            | Self::StarvedHello
            | Self::StarvedBfd => Unit::Milliseconds,
            Self::LoadMemory | Self::IdleMemory => Unit::Mebibytes,
            Self::AgentRestart | Self::Upgrade => Unit::Times,
        }
    }

    /// Whether a flap makes the line a missed one.
    pub(super) fn forbids_flaps(self) -> bool {
        matches!(self, Self::ColdStart | Self::CrashStart)
    }

    /// What our speaker must reach with this switch. BIRD computes routes once a second, which
    /// bounds most lines from below: there the other director's figure is the measure.
    pub(super) fn required(self, switch: SwitchKind) -> Required {
        let median = |median| Required {
            median: Some(median),
            ..Required::default()
        };
        let both = |median, max| Required {
            median: Some(median),
            max: Some(max),
            times: None,
        };
        match (self, switch) {
            (Self::ColdStart, SwitchKind::Frr) => both(1.0, 1.5),
            (Self::CrashStart, SwitchKind::Frr) => median(1.5),
            (Self::Announce | Self::Withdraw, SwitchKind::Frr) => median(0.016),
            (Self::Opposite, SwitchKind::Frr) => both(0.4, 1.2),
            (Self::OppositeExternal, SwitchKind::Frr) => median(0.4),
            (Self::CrashBfd, SwitchKind::Frr) => median(0.145),
            (Self::Stop, SwitchKind::Frr) => median(0.013),
            (Self::Load, SwitchKind::Frr) => median(1.5),
            (Self::Load, SwitchKind::Bird) => median(1.0),
            (Self::LoadCpu, _) => median(0.05),
            (Self::LoadMemory, _) => median(9.5),
            (Self::IdleMemory, _) => median(4.0),
            (Self::AgentRestart | Self::Upgrade, _) => Required {
                times: Some(20),
                ..Required::default()
            },
            // A BFD packet that is a whole interval late is as good as lost.
            (Self::StarvedBfd, _) => Required {
                max: Some(0.05),
                ..Required::default()
            },
            (
                Self::ColdStart
                | Self::CrashStart
                | Self::Announce
                | Self::Withdraw
                | Self::Opposite
                | Self::OppositeExternal
                | Self::CrashBfd
                | Self::Stop,
                SwitchKind::Bird,
            )
            | (
                Self::CrashStartAbsent
                | Self::AnnounceExternal
                | Self::WithdrawExternal
                | Self::StarvedHello,
                _,
            ) => Required::default(),
        }
    }

    /// Whose medians ours must not exceed, within the noise.
    pub(super) fn rivals(self, switch: SwitchKind) -> &'static [SpeakerKind] {
        match (self, switch) {
            (Self::CrashBfd, SwitchKind::Frr) => &[SpeakerKind::Frr, SpeakerKind::Bird],
            // BIRD's own figure is what "idle" was asked for by, with 4 MB beside it.
            (Self::IdleMemory | Self::LoadCpu | Self::LoadMemory, _) => &[],
            (_, SwitchKind::Bird) => &[SpeakerKind::Bird],
            (_, SwitchKind::Frr) => &[],
        }
    }
}

/// What one speaker reached in one line with one switch.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Series {
    /// The line.
    pub(super) figure: Figure,
    /// The numbers in the order they were taken: seconds, mebibytes, or 1 for each time.
    pub(super) values: Vec<f64>,
    /// How often the next hop left the FIB after it had come, for each number of a start.
    pub(super) flaps: Vec<u32>,
    /// What went wrong, one for each repetition that failed.
    pub(super) failures: Vec<String>,
}

impl Series {
    pub(super) fn new(figure: Figure) -> Self {
        Self {
            figure,
            values: Vec::new(),
            flaps: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// A line that could not be measured at all.
    pub(super) fn failed(figure: Figure, why: String) -> Self {
        Self {
            failures: vec![why],
            ..Self::new(figure)
        }
    }

    pub(super) fn push(&mut self, time: Duration, flaps: Option<u32>) {
        self.values.push(time.as_secs_f64());
        self.flaps.extend(flaps);
    }

    pub(super) fn push_bytes(&mut self, bytes: u64) {
        self.values.push(bytes as f64 / f64::from(1 << 20));
    }

    pub(super) fn count(&mut self) {
        self.values.push(1.0);
    }

    /// The least, the middle and the greatest.
    pub(super) fn spread(&self) -> Option<Spread> {
        Spread::of(&self.values)
    }
}

/// How numbers are spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    /// The least.
    pub(super) min: f64,
    /// The middle one, or the mean of the two in the middle.
    pub(super) median: f64,
    /// The greatest.
    pub(super) max: f64,
}

impl Spread {
    /// Of these numbers; nothing where there are none.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        } else {
            sorted[middle]
        };
        Some(Self { min, median, max })
    }
}

/// All lines of one speaker with one switch.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Column {
    /// The switch's suite.
    pub(super) switch: SwitchKind,
    /// The director's.
    pub(super) speaker: SpeakerKind,
    /// The lines that were measured.
    pub(super) series: Vec<Series>,
}

impl Column {
    /// A line.
    pub(super) fn series(&self, figure: Figure) -> Option<&Series> {
        self.series.iter().find(|series| series.figure == figure)
    }
}

/// What the noise of two medians may make of equal speakers: BIRD's second is sampled at a few
/// phases only.
const NOISE: f64 = 1.1;
const NOISE_WITH_BIRD: f64 = 0.1;
const NOISE_WITH_FRR: f64 = 0.01;

/// Why our lines are missed; none when all are reached.
pub(super) fn missed(columns: &[Column]) -> Vec<String> {
    let mut missed = Vec::new();
    for column in columns {
        if column.speaker != SpeakerKind::Isopath {
            continue;
        }
        let switch = column.switch;
        for series in &column.series {
            let title = series.figure.title();
            let mut say = |text: String| missed.push(format!("{switch} switch: {title}: {text}"));
            if let Some(first) = series.failures.first() {
                say(format!("{} failed, first {first}", series.failures.len()));
            }
            judge(series, switch, &mut say);
            for rival in series.figure.rivals(switch) {
                let theirs = columns
                    .iter()
                    .find(|other| (other.switch, other.speaker) == (switch, *rival))
                    .and_then(|other| other.series(series.figure)?.spread());
                judge_rival(series, switch, *rival, theirs, &mut say);
            }
        }
    }
    missed
}

fn judge(series: &Series, switch: SwitchKind, say: &mut dyn FnMut(String)) {
    let required = series.figure.required(switch);
    if let Some(times) = required.times
        && series.values.len() < times
    {
        say(format!("{} of {times}", series.values.len()));
    }
    let flaps: u32 = series.flaps.iter().sum();
    if series.figure.forbids_flaps() && flaps > 0 {
        say(format!("{flaps} flaps"));
    }
    let Some(spread) = series.spread() else {
        return;
    };
    for (what, found, limit) in [
        ("median", spread.median, required.median),
        ("max", spread.max, required.max),
    ] {
        if let Some(limit) = limit
            && found > limit
        {
            say(format!("{what} {found:.4} is above {limit}"));
        }
    }
}

fn judge_rival(
    series: &Series,
    switch: SwitchKind,
    rival: SpeakerKind,
    theirs: Option<Spread>,
    say: &mut dyn FnMut(String),
) {
    let noise = match switch {
        SwitchKind::Frr => NOISE_WITH_FRR,
        SwitchKind::Bird => NOISE_WITH_BIRD,
    };
    if let (Some(ours), Some(theirs)) = (series.spread(), theirs)
        && ours.median > theirs.median * NOISE + noise
    {
        say(format!(
            "median {:.4} is above {}'s {:.4}",
            ours.median,
            rival.name(),
            theirs.median
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(speaker: SpeakerKind, figure: Figure, values: &[f64], flaps: u32) -> Column {
        let series = Series {
            values: values.to_vec(),
            flaps: vec![flaps],
            ..Series::new(figure)
        };
        Column {
            switch: SwitchKind::Frr,
            speaker,
            series: vec![series],
        }
    }

    #[test]
    fn a_line_is_missed_by_its_median_its_maximum_a_flap_or_a_failure() {
        let cold = |values: &[f64], flaps| {
            missed(&[column(
                SpeakerKind::Isopath,
                Figure::ColdStart,
                values,
                flaps,
            )])
        };
        assert_eq!(cold(&[0.1, 0.9, 1.4], 0), Vec::<String>::new());
        assert!(cold(&[0.1, 1.1, 1.4], 0)[0].contains("median 1.1"));
        assert!(cold(&[0.1, 0.9, 1.6], 0)[0].contains("max 1.6"));
        assert!(cold(&[0.1, 0.9, 1.4], 1)[0].contains("1 flaps"));
        let mut failed = column(SpeakerKind::Isopath, Figure::ColdStart, &[0.1], 0);
        failed.series[0].failures.push("no route".to_owned());
        assert!(missed(&[failed])[0].contains("no route"));
    }

    #[test]
    fn only_our_lines_are_judged_and_rivals_within_the_noise() {
        let bird = column(SpeakerKind::Bird, Figure::CrashBfd, &[0.12], 0);
        let ours = |value| column(SpeakerKind::Isopath, Figure::CrashBfd, &[value], 0);
        assert_eq!(missed(&[bird.clone(), ours(0.14)]), Vec::<String>::new());
        let lines = missed(&[bird, ours(0.144)]);
        assert!(
            lines.len() == 1 && lines[0].contains("bird's 0.12"),
            "{lines:?}"
        );
        let slow = column(SpeakerKind::Frr, Figure::ColdStart, &[12.0], 3);
        assert_eq!(missed(&[slow]), Vec::<String>::new());
    }

    #[test]
    fn a_count_below_the_required_one_is_missed() {
        let all = [1.0; 20];
        let few = |count: usize| {
            missed(&[column(
                SpeakerKind::Isopath,
                Figure::Upgrade,
                &all[..count],
                0,
            )])
        };
        assert_eq!(few(20), Vec::<String>::new());
        assert!(few(19)[0].contains("19 of 20"));
    }
}
