//! The lines of the table: what was found, and what it must be.

use serde::Serialize;

/// What the numbers of a line are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Unit {
    /// Seconds, shown in milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Seconds of processor time in a second.
    Cores,
    /// Mebibytes.
    Mebibytes,
    /// A number of things.
    Count,
    /// How many times another number.
    Ratio,
}

/// What a line must be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "of", content = "limit")]
pub(super) enum Must {
    /// The 99th percentile at most this.
    P99(f64),
    /// The greatest at most this.
    Max(f64),
    /// All exactly this.
    Exactly(f64),
    /// Anything: it is there to be known.
    Nothing,
}

/// A line of the table.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Line {
    /// What was measured.
    pub(super) what: String,
    /// What the numbers are.
    pub(super) unit: Unit,
    /// The numbers in the order they were taken.
    pub(super) values: Vec<f64>,
    /// What they must be.
    pub(super) must: Must,
}

impl Line {
    pub(super) fn new(
        what: impl Into<String>,
        unit: Unit,
        values: impl Into<Vec<f64>>,
        must: Must,
    ) -> Self {
        Self {
            what: what.into(),
            unit,
            values: values.into(),
            must,
        }
    }

    /// What was found, as the table has it.
    pub(super) fn cell(&self) -> String {
        let number = |value: f64| self.number(value);
        let (Some(min), Some(median), Some(max)) =
            (self.quantile(0.0), self.quantile(0.5), self.quantile(1.0))
        else {
            return "none".to_owned();
        };
        let suffix = self.suffix();
        match (self.must, self.values.len()) {
            (_, 1) => format!("{}{suffix}", number(median)),
            (Must::P99(_), _) => {
                let p99 = self.quantile(0.99).unwrap_or(max);
                let (median, p99, max) = (number(median), number(p99), number(max));
                format!("median {median}, p99 {p99}, max {max}{suffix}")
            }
            (Must::Max(_) | Must::Exactly(_) | Must::Nothing, _) => {
                format!("{}/{}/{}{suffix}", number(min), number(median), number(max))
            }
        }
    }

    /// What it must be, as the table has it.
    pub(super) fn wanted(&self) -> String {
        let suffix = self.suffix();
        match self.must {
            Must::P99(limit) if limit.is_infinite() => "–".to_owned(),
            Must::P99(limit) => format!("p99 ≤ {}{suffix}", self.number(limit)),
            Must::Max(limit) => format!("≤ {}{suffix}", self.number(limit)),
            Must::Exactly(value) => self.number(value),
            Must::Nothing => "–".to_owned(),
        }
    }

    /// Why it is missed; nothing when it is not. A line without a number is missed.
    pub(super) fn missed(&self) -> Option<String> {
        let (found, limit) = match self.must {
            Must::P99(limit) => (self.quantile(0.99), limit),
            Must::Max(limit) => (self.quantile(1.0), limit),
            Must::Exactly(value) => {
                let off = self.values.iter().find(|found| **found != value);
                (off.or(self.values.first()).copied(), value)
            }
            Must::Nothing => (Some(0.0), 0.0),
        };
        let reached = match (found, self.must) {
            (None, _) => false,
            (Some(found), Must::Exactly(value)) => found == value,
            (Some(found), Must::P99(_) | Must::Max(_) | Must::Nothing) => found <= limit,
        };
        (!reached).then(|| format!("{}: {}, must be {}", self.what, self.cell(), self.wanted()))
    }

    /// Whether it says how often something happened, which no slow machine is an excuse for.
    pub(super) fn is_counted(&self) -> bool {
        matches!(self.must, Must::Exactly(_))
    }

    /// The smallest value that this share of all does not exceed.
    fn quantile(&self, share: f64) -> Option<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.max(1) - 1).copied()
    }

    fn number(&self, value: f64) -> String {
        match self.unit {
            Unit::Milliseconds => format!("{:.1}", value * 1e3),
            Unit::Seconds | Unit::Cores | Unit::Ratio => format!("{value:.2}"),
            Unit::Mebibytes => format!("{value:.1}"),
            Unit::Count => format!("{value:.0}"),
        }
    }

    fn suffix(&self) -> &'static str {
        match self.unit {
            Unit::Milliseconds => " ms",
            Unit::Seconds => " s",
            Unit::Cores => " cores",
            Unit::Mebibytes => " MiB",
            Unit::Count => "",
            Unit::Ratio => " times",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(values: impl Into<Vec<f64>>, must: Must) -> Line {
        Line::new("it", Unit::Milliseconds, values, must)
    }

    #[test]
    fn one_of_a_hundred_may_be_late_and_two_may_not() {
        let mut values = vec![0.01; 99];
        values.push(0.9);
        assert_eq!(line(values.clone(), Must::P99(0.05)).missed(), None);
        values[0] = 0.06;
        let missed = line(values, Must::P99(0.05)).missed().unwrap();
        let wanted = "it: median 10.0, p99 60.0, max 900.0 ms, must be p99 ≤ 50.0 ms";
        assert_eq!(missed, wanted);
    }

    #[test]
    fn the_worst_counts_where_no_percentile_is_asked_for() {
        assert_eq!(line([0.1, 0.2], Must::Max(0.2)).missed(), None);
        assert!(line([0.1, 0.3], Must::Max(0.2)).missed().is_some());
        assert_eq!(line([0.0, 0.0], Must::Exactly(0.0)).missed(), None);
        assert!(line([0.0, 1.0], Must::Exactly(0.0)).missed().is_some());
        assert_eq!(line([7.0], Must::Nothing).missed(), None);
    }

    #[test]
    fn nothing_found_is_missed() {
        for must in [Must::P99(1.0), Must::Max(1.0), Must::Exactly(0.0)] {
            let missed = line([], must).missed().unwrap();
            assert!(missed.starts_with("it: none, must be"), "{missed}");
        }
    }
}
