//! Figures in the text format of Prometheus (version 0.0.4).
//!
//! A [`Family`] is a name, what it means, and samples that are told apart by labels. Invariant: a family's name and labels
//! are the program's own words, and so is their number: nothing here comes from a client.

use crate::engine::Histogram;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;

/// What all names begin with.
const PREFIX: &str = "weft";
/// The content type of what [`render`] gives.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// One metric with all its samples.
#[derive(Debug)]
pub struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    samples: Vec<(Labels, Value)>,
}

/// Names of labels and their values.
pub type Labels = Vec<(&'static str, String)>;

#[derive(Debug)]
enum Value {
    Whole(u64),
    Real(f64),
    Distribution {
        sum: f64,
        count: u64,
        /// Greatest value, and how many are in this bucket and in no smaller one.
        buckets: Vec<(f64, u64)>,
    },
}

impl Family {
    /// What only rises. Its name is served with `_total` behind it.
    pub fn counter(name: &'static str, help: &'static str) -> Family {
        Family::new(name, help, MetricType::Counter)
    }

    /// What rises and falls.
    pub fn gauge(name: &'static str, help: &'static str) -> Family {
        Family::new(name, help, MetricType::Gauge)
    }

    /// How often values of about a size came.
    pub fn histogram(name: &'static str, help: &'static str) -> Family {
        Family::new(name, help, MetricType::Histogram)
    }

    fn new(name: &'static str, help: &'static str, kind: MetricType) -> Family {
        Family {
            name,
            help,
            kind,
            samples: Vec::new(),
        }
    }

    /// Adds the only sample.
    pub fn only(self, value: u64) -> Family {
        self.with(Labels::new(), value)
    }

    pub fn with(mut self, labels: Labels, value: u64) -> Family {
        self.samples.push((labels, Value::Whole(value)));
        self
    }

    pub fn with_real(mut self, labels: Labels, value: f64) -> Family {
        self.samples.push((labels, Value::Real(value)));
        self
    }

    /// Adds a histogram of values of which `units_per_one` make one of what is served.
    pub fn with_histogram<const FIRST: u32, const BUCKETS: usize>(
        mut self,
        labels: Labels,
        histogram: &Histogram<FIRST, BUCKETS>,
        units_per_one: f64,
    ) -> Family {
        let bound = |bound: Option<u64>| bound.map_or(f64::INFINITY, |bound| bound as f64 / units_per_one);
        let distribution = Value::Distribution {
            sum: histogram.sum() as f64 / units_per_one,
            count: histogram.count(),
            buckets: histogram
                .buckets()
                .map(|(upper, count)| (bound(upper), count))
                .collect(),
        };
        self.samples.push((labels, distribution));
        self
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(self.name, self.help, None, self.kind)?;
        for (labels, value) in &self.samples {
            match labels[..] {
                [] => self.encode_value(&mut family, value)?,
                _ => self.encode_value(&mut family.encode_family(labels)?, value)?,
            }
        }
        Ok(())
    }

    fn encode_value(&self, encoder: &mut MetricEncoder<'_>, value: &Value) -> fmt::Result {
        let is_counter = self.kind == MetricType::Counter;
        match value {
            Value::Whole(value) if is_counter => encoder.encode_counter::<NoLabelSet, _, f64>(value, None),
            Value::Real(value) if is_counter => encoder.encode_counter::<NoLabelSet, _, f64>(value, None),
            Value::Whole(value) => encoder.encode_gauge(value),
            Value::Real(value) => encoder.encode_gauge(value),
            Value::Distribution { sum, count, buckets } => {
                encoder.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)
            }
        }
    }
}

/// The families as text.
pub fn render(families: Vec<Family>) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Families(families)));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry).expect("a string takes all that is written to it");
    text
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|family| family.encode(&mut encoder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_told_as_prometheus_reads_them() {
        let histogram = Histogram::<10, 3>::default();
        for value in [1000, 1024, 1500, 9000] {
            histogram.observe(value);
        }
        let core = |core: &str| vec![("core", core.to_owned())];
        let families = vec![
            Family::counter("things", "Things that came").only(3),
            Family::gauge("busy_ratio", "How busy")
                .with_real(core("0"), 0.5)
                .with(core("1"), 1),
            Family::histogram("wait_seconds", "How long").with_histogram(core("0"), &histogram, 1000.0),
            Family::counter("nothing", "What did not come"),
        ];
        let expected = "\
# HELP weft_things_total Things that came
# TYPE weft_things_total counter
weft_things_total 3
# HELP weft_busy_ratio How busy
# TYPE weft_busy_ratio gauge
weft_busy_ratio{core=\"0\"} 0.5
weft_busy_ratio{core=\"1\"} 1
# HELP weft_wait_seconds How long
# TYPE weft_wait_seconds histogram
weft_wait_seconds_bucket{core=\"0\",le=\"1.024\"} 2
weft_wait_seconds_bucket{core=\"0\",le=\"2.048\"} 3
weft_wait_seconds_bucket{core=\"0\",le=\"+Inf\"} 4
weft_wait_seconds_sum{core=\"0\"} 12.524
weft_wait_seconds_count{core=\"0\"} 4
# HELP weft_nothing_total What did not come
# TYPE weft_nothing_total counter
";
        assert_eq!(render(families), expected);
    }
}
