//! What a room has to tell Prometheus. Rooms count in plain atomics; when Prometheus asks, each writes its figures into one
//! table, name, help and value on one line. Nothing is registered, nothing is locked, and counting allocates nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

/// Upper bounds of the buckets of all latencies, in nanoseconds: 10 µs to 10 s.
const BOUNDS_NANOS: [u64; 17] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
];

/// How long something took, each time. Counting is two relaxed additions; short times find their bucket first.
#[derive(Debug)]
pub struct Latency {
    buckets: [AtomicU64; BOUNDS_NANOS.len() + 1],
    nanos: AtomicU64,
}

impl Default for Latency {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BOUNDS_NANOS.len() + 1], nanos: AtomicU64::new(0) }
    }
}

impl Latency {
    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let (bucket, nanos) = self.place(took);
        count(bucket);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// As [`Self::observe`], where all are counted by one and the same thread; see [`add_alone`].
    pub fn observe_alone(&self, took: Duration) {
        let (bucket, nanos) = self.place(took);
        add_alone(bucket, 1);
        add_alone(&self.nanos, nanos);
    }

    fn place(&self, took: Duration) -> (&AtomicU64, u64) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let at = BOUNDS_NANOS.iter().position(|&bound| nanos <= bound).unwrap_or(BOUNDS_NANOS.len());
        (&self.buckets[at], nanos)
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(read).sum()
    }

    fn collect(&self) -> Histogram {
        let mut histogram = Histogram::default();
        let mut count = 0;
        let mut buckets = Vec::with_capacity(self.buckets.len());
        for (bucket, bound) in self.buckets.iter().zip(&BOUNDS_NANOS) {
            count += read(bucket);
            let mut cumulative = Bucket::default();
            cumulative.set_cumulative_count(count);
            cumulative.set_upper_bound(*bound as f64 / 1e9);
            buckets.push(cumulative);
        }
        // The last one has no bound: the encoder writes it as +Inf, from the count.
        histogram.set_sample_count(count + read(&self.buckets[BOUNDS_NANOS.len()]));
        histogram.set_bucket(buckets);
        histogram.set_sample_sum(read(&self.nanos) as f64 / 1e9);
        histogram
    }
}

/// Adds one.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Adds to a counter that one thread alone writes, and all may read. An addition that others could come between locks the
/// memory, and waits until all that was written before has got there: dear where a click has just gone into the journal.
pub fn add_alone(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

/// What a counter says.
pub fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// The table for one answer to Prometheus. A label's value is one of few that the program knows, never a client's text.
#[derive(Default)]
pub struct Figures {
    families: Vec<MetricFamily>,
}

impl Figures {
    /// A count since the start.
    pub fn counter(&mut self, name: &str, help: &str, total: u64) {
        self.counters(name, help, [], [([], total)]);
    }

    /// Counts since the start, by labels.
    pub fn counters<const L: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; L],
        rows: impl IntoIterator<Item = ([&'static str; L], u64)>,
    ) {
        let metrics = rows.into_iter().map(|(values, total)| {
            let mut metric = Metric::from_label(pairs(labels, values));
            let mut counter = Counter::default();
            counter.set_value(total as f64);
            metric.set_counter(counter);
            metric
        });
        self.add(name, help, MetricType::COUNTER, metrics.collect());
    }

    /// What is the case now.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help, [], [([], value)]);
    }

    /// What is the case now, by labels.
    pub fn gauges<const L: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; L],
        rows: impl IntoIterator<Item = ([&'static str; L], f64)>,
    ) {
        let metrics = rows.into_iter().map(|(values, value)| {
            let mut metric = Metric::from_label(pairs(labels, values));
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
            metric
        });
        self.add(name, help, MetricType::GAUGE, metrics.collect());
    }

    /// How long something took.
    pub fn latency(&mut self, name: &str, help: &str, latency: &Latency) {
        self.latencies(name, help, [], [([], latency)]);
    }

    /// How long things took, by labels.
    pub fn latencies<'l, const L: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; L],
        rows: impl IntoIterator<Item = ([&'static str; L], &'l Latency)>,
    ) {
        let metrics = rows.into_iter().map(|(values, latency)| {
            let mut metric = Metric::from_label(pairs(labels, values));
            metric.set_histogram(latency.collect());
            metric
        });
        self.add(name, help, MetricType::HISTOGRAM, metrics.collect());
    }

    /// What one of the crate's own collectors has.
    pub fn collected(&mut self, families: Vec<MetricFamily>) {
        self.families.extend(families);
    }

    /// Appends everything, by name, in the text format 0.0.4.
    pub fn write(mut self, out: &mut Vec<u8>) {
        self.families.sort_by(|a, b| a.name().cmp(b.name()));
        debug_assert!(self.families.windows(2).all(|pair| pair[0].name() != pair[1].name()), "a name twice");
        if let Err(error) = TextEncoder::new().encode(&self.families, out) {
            tracing::error!(%error, "metrics could not be written");
        }
    }

    fn add(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        // What has no row yet would be an error of the encoder's.
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
}

fn pairs<const L: usize>(names: [&str; L], values: [&'static str; L]) -> Vec<LabelPair> {
    let pair = |(name, value): (&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    names.into_iter().zip(values).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(figures: Figures) -> String {
        let mut out = Vec::new();
        figures.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn figures_stand_by_name_with_help_and_type() {
        let mut figures = Figures::default();
        figures.gauge("b", "Second", 1.5);
        figures.counters("a_total", "First", ["kind"], [(["x"], 2), (["y"], 0)]);
        figures.counters("none_total", "No row", ["kind"], []);
        let expect = "# HELP a_total First\n# TYPE a_total counter\na_total{kind=\"x\"} 2\na_total{kind=\"y\"} 0\n\
                      # HELP b Second\n# TYPE b gauge\nb 1.5\n";
        assert_eq!(text(figures), expect);
    }

    #[test]
    fn buckets_resolve_microseconds_and_seconds() {
        let latency = Latency::default();
        for micros in [3, 10, 11, 80, 2_000_000, 60_000_000] {
            latency.observe(Duration::from_micros(micros));
        }
        let mut figures = Figures::default();
        figures.latency("t_seconds", "Time", &latency);
        let text = text(figures);
        for line in [
            r#"t_seconds_bucket{le="0.00001"} 2"#,
            r#"t_seconds_bucket{le="0.000025"} 3"#,
            r#"t_seconds_bucket{le="0.0001"} 4"#,
            r#"t_seconds_bucket{le="1"} 4"#,
            r#"t_seconds_bucket{le="2.5"} 5"#,
            r#"t_seconds_bucket{le="+Inf"} 6"#,
            "t_seconds_sum 62.000104",
            "t_seconds_count 6",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert_eq!(latency.count(), 6);
        assert!(BOUNDS_NANOS.is_sorted());
    }
}
