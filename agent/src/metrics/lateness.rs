//! How late packets left, as a histogram: the speaker counts, this only passes it on.

use std::collections::{BTreeMap, HashMap};

use isopath_api::paths::Lateness;
use prometheus::core::{Collector, Desc};
use prometheus::proto;

const NAME: &str = "isopath_speaker_packet_late_seconds";
const HELP: &str = "Actual: how long after their time packets left since the speaker started.";

/// The histograms of all kinds of packet.
pub(super) struct Histograms {
    desc: Desc,
    kinds: BTreeMap<String, Lateness>,
}

impl Histograms {
    pub(super) fn new(kinds: &BTreeMap<String, Lateness>) -> prometheus::Result<Self> {
        let labels = vec!["packet".to_owned()];
        Ok(Self {
            desc: Desc::new(NAME.to_owned(), HELP.to_owned(), labels, HashMap::new())?,
            kinds: kinds.clone(),
        })
    }
}

impl Collector for Histograms {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut family = proto::MetricFamily::default();
        family.set_name(NAME.to_owned());
        family.set_help(HELP.to_owned());
        family.set_field_type(proto::MetricType::HISTOGRAM);
        let metrics = self.kinds.iter().map(|(kind, seen)| {
            let mut label = proto::LabelPair::default();
            label.set_name("packet".to_owned());
            label.set_value(kind.clone());
            let mut metric = proto::Metric::from_label(vec![label]);
            metric.set_histogram(histogram(seen));
            metric
        });
        family.set_metric(metrics.collect());
        vec![family]
    }
}

fn histogram(seen: &Lateness) -> proto::Histogram {
    let mut below = 0;
    let buckets = Lateness::BOUNDS_US.iter().zip(&seen.packets);
    let buckets = buckets.map(|(bound, packets)| {
        below += packets;
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(*bound as f64 / 1e6);
        bucket.set_cumulative_count(below);
        bucket
    });
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(seen.packets.iter().sum());
    histogram.set_sample_sum(seen.sum_us as f64 / 1e6);
    histogram
}
