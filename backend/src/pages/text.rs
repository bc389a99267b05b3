//! How numbers, moments and ages read on a page.

use std::fmt;

use askama::Template;
use askama::filters::HtmlSafe;
use jiff::{SignedDuration, Timestamp};

/// A count: grouped up to 99,999 and rounded to thousands or millions above, so that a
/// column keeps its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scaled, unit) = match self.0 {
            0..100_000 => (self.0, ""),
            100_000..100_000_000 => (self.0.saturating_add(500) / 1_000, " k"),
            _ => (self.0.saturating_add(500_000) / 1_000_000, " M"),
        };
        let digits = scaled.to_string();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        f.write_str(unit)
    }
}

/// A count that somebody reported, or `–` while nobody has: what is not known is never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reported(pub(crate) Option<Count>);

impl Reported {
    /// `count` where something `is_known` about it.
    pub(crate) fn when(is_known: bool, count: u64) -> Self {
        Self(is_known.then_some(Count(count)))
    }
}

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(count) => count.fmt(f),
            None => f.write_str("–"),
        }
    }
}

/// A moment, shown as the time of day in UTC, with the date when that is not today's.
#[derive(Template, Debug, Clone, Copy)]
#[template(path = "part/moment.html")]
pub(crate) struct Moment {
    at: Timestamp,
    now: Timestamp,
}

impl Moment {
    pub(crate) fn new(at: Timestamp, now: Timestamp) -> Self {
        Self { at, now }
    }

    fn datetime(self) -> String {
        datetime(self.at)
    }

    fn text(self) -> String {
        clock(self.at, self.now)
    }
}

/// What it shows depends on `now` only across midnight, which is no change worth sending.
impl PartialEq for Moment {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl HtmlSafe for Moment {}

/// The time since a moment, such as `4m12s`. The page counts it on by itself.
#[derive(Template, Debug, Clone, Copy)]
#[template(path = "part/age.html")]
pub(crate) struct Age {
    since: Timestamp,
    now: Timestamp,
}

impl Age {
    pub(crate) fn new(since: Timestamp, now: Timestamp) -> Self {
        Self { since, now }
    }

    fn datetime(self) -> String {
        datetime(self.since)
    }

    fn clock(self) -> String {
        clock(self.since, self.now)
    }

    fn text(self) -> String {
        age(self.now.as_second() - self.since.as_second())
    }
}

/// Two ages of one moment are the same age looked at twice. Moments that a report's delay
/// may have moved apart are one.
impl PartialEq for Age {
    fn eq(&self, other: &Self) -> bool {
        self.since.duration_since(other.since).abs() < SignedDuration::from_secs(2)
    }
}

impl HtmlSafe for Age {}

/// RFC 3339 in whole seconds, as the `datetime` attribute takes it.
fn datetime(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn clock(at: Timestamp, now: Timestamp) -> String {
    let format = if datetime(at)[..10] == datetime(now)[..10] {
        "%H:%M:%SZ"
    } else {
        "%m-%d %H:%M:%SZ"
    };
    at.strftime(format).to_string()
}

/// Two units, the larger first. `app.js` has the same rule.
fn age(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    if days > 0 {
        format!("{days}d{hours:02}h")
    } else if hours > 0 {
        format!("{hours}h{minutes:02}m")
    } else if minutes > 0 {
        format!("{minutes}m{rest:02}s")
    } else {
        format!("{rest}s")
    }
}

/// `1 director`, `3 directors`.
pub(crate) fn plural(count: usize, noun: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{end}")
}

/// `d1`, `d1 and d2`, `d1, d2 and d3`.
pub(crate) fn and_list<T: fmt::Display>(items: &[T]) -> String {
    match items {
        [] => String::new(),
        [only] => only.to_string(),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(T::to_string).collect();
            format!("{} and {last}", first.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_and_keep_their_width() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (12_408, "12,408"),
            (99_999, "99,999"),
            (124_400, "124 k"),
            (1_240_000, "1,240 k"),
            (124_000_000, "124 M"),
        ];
        for (count, text) in cases {
            assert_eq!(Count(count).to_string(), text);
        }
        assert!(Count(u64::MAX).to_string().ends_with(" M"));
    }

    #[test]
    fn ages_show_two_units_and_never_run_backwards() {
        let cases = [
            (-5, "0s"),
            (12, "12s"),
            (252, "4m12s"),
            (60, "1m00s"),
            (11_040, "3h04m"),
            (442_800, "5d03h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn a_moment_of_another_day_carries_its_date() {
        let now: Timestamp = "2026-03-02T00:00:10Z".parse().unwrap();
        let today = "2026-03-02T00:00:01.5Z".parse().unwrap();
        let yesterday = "2026-03-01T23:59:59Z".parse().unwrap();
        assert_eq!(clock(today, now), "00:00:01Z");
        assert_eq!(clock(yesterday, now), "03-01 23:59:59Z");
        assert_eq!(
            Age::new(yesterday, now).to_string().trim(),
            r#"<time class="age" datetime="2026-03-01T23:59:59Z" title="03-01 23:59:59Z" data-age>11s</time>"#
        );
    }

    #[test]
    fn lists_read_as_people_write_them() {
        assert_eq!(and_list::<&str>(&[]), "");
        assert_eq!(and_list(&["d1"]), "d1");
        assert_eq!(and_list(&["d1", "d2", "d3"]), "d1, d2 and d3");
        assert_eq!(plural(1, "director"), "1 director");
        assert_eq!(plural(0, "director"), "0 directors");
    }
}
