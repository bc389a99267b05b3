//! Families of series, built for one scrape.
//!
//! The vectors of the `prometheus` crate keep every series for ever, hash its labels and lock: for
//! what is known as a whole at each scrape its own plain structures are filled instead, so that
//! what is gone has no series and tens of thousands cost some milliseconds. The crate writes them.

use prometheus::proto::MetricType;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily};
use prometheus::{Result, TextEncoder};

/// The families of one scrape.
#[derive(Default)]
pub(super) struct Families {
    families: Vec<MetricFamily>,
    /// Every family, with or without a series: a line of the table in docs/METRICS.md each.
    #[cfg(test)]
    pub(super) described: std::collections::BTreeSet<String>,
}

impl Families {
    /// Adds gauges; nothing where there is no series.
    pub(super) fn gauges<const N: usize, L: Into<String>>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        values: impl IntoIterator<Item = ([L; N], f64)>,
    ) {
        let metric = |(values, value): ([L; N], f64)| {
            let mut metric = Metric::from_label(pairs(labels, values));
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
            metric
        };
        let metrics = values.into_iter().map(metric).collect();
        self.add((name, help), &labels, MetricType::GAUGE, metrics);
    }

    /// Adds counters; nothing where there is no series.
    pub(super) fn counters<const N: usize, L: Into<String>>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        values: impl IntoIterator<Item = ([L; N], u64)>,
    ) {
        let metric = |(values, value): ([L; N], u64)| {
            let mut metric = Metric::from_label(pairs(labels, values));
            let mut counter = Counter::default();
            counter.set_value(value as f64);
            metric.set_counter(counter);
            metric
        };
        let metrics = values.into_iter().map(metric).collect();
        self.add((name, help), &labels, MetricType::COUNTER, metrics);
    }

    /// Adds histograms of seconds: the count below each bound, and the sum.
    pub(super) fn histograms<const N: usize, const B: usize, L: Into<String>>(
        &mut self,
        name: &str,
        help: &str,
        (labels, bounds): ([&str; N], [f64; B]),
        values: impl IntoIterator<Item = ([L; N], Timings<B>)>,
    ) {
        let metric = |(values, timings): ([L; N], Timings<B>)| {
            let mut metric = Metric::from_label(pairs(labels, values));
            metric.set_histogram(timings.histogram(bounds));
            metric
        };
        let metrics = values.into_iter().map(metric).collect();
        self.add((name, help), &labels, MetricType::HISTOGRAM, metrics);
    }

    /// One gauge without labels.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges::<0, String>(name, help, [], [([], value)]);
    }

    fn add(
        &mut self,
        (name, help): (&str, &str),
        labels: &[&str],
        kind: MetricType,
        metrics: Vec<Metric>,
    ) {
        #[cfg(test)]
        self.described.insert(format!(
            "| `{name}` | {} | {} | {help} |",
            format!("{kind:?}").to_lowercase(),
            labels.join(", ")
        ));
        let has_all = |metric: &Metric| metric.get_label().len() == labels.len();
        debug_assert!(metrics.iter().all(has_all), "{name} has other labels");
        // The crate takes a family without a series for a mistake.
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.families.push(family);
    }

    /// The text, by the families' names.
    ///
    /// # Errors
    /// A family without a name, which would be a mistake of this crate.
    pub(super) fn text(mut self) -> Result<String> {
        self.families.sort_by(|a, b| a.name().cmp(b.name()));
        TextEncoder::new().encode_to_string(&self.families)
    }
}

fn pairs<const N: usize, L: Into<String>>(labels: [&str; N], values: [L; N]) -> Vec<LabelPair> {
    let pair = |(name, value): (&str, L)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.into());
        pair
    };
    labels.into_iter().zip(values).map(pair).collect()
}

/// How long something took, over and over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Timings<const B: usize> {
    /// How many took no longer than each bound and longer than the one before.
    pub(super) within: [u64; B],
    /// How many there were.
    pub(super) count: u64,
    /// How long they took together, in seconds.
    pub(super) sum_s: f64,
}

impl<const B: usize> Timings<B> {
    /// None yet.
    pub(super) const NONE: Self = Self {
        within: [0; B],
        count: 0,
        sum_s: 0.0,
    };

    /// One more.
    pub(super) fn add(&mut self, bounds: &[f64; B], seconds: f64) {
        self.count += 1;
        self.sum_s += seconds;
        if let Some(index) = bounds.iter().position(|bound| seconds <= *bound) {
            self.within[index] += 1;
        }
    }

    fn histogram(&self, bounds: [f64; B]) -> Histogram {
        let mut below = 0;
        let buckets = bounds.into_iter().zip(self.within).map(|(bound, count)| {
            below += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(below);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(self.count);
        histogram.set_sample_sum(self.sum_s);
        histogram
    }
}
