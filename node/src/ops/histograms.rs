//! Histograms that count into fixed buckets. The exporter's own keep every sample until somebody drains them: at a hundred
//! thousand requests a second that costs more than a request's other records together, in time and in memory. Counters and
//! gauges stay with the exporter, and so do the rules of its text format.

use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{
    PrometheusRecorder,
    formatting::{sanitize_label_key, sanitize_label_value, write_type_line},
};
use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// From ten microseconds, a stage of a request, to ten seconds, a request that timed out.
static SECONDS: [f64; 19] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Numbers of things.
static COUNTS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 512.0, 2048.0];
/// Sums are kept in millionths, so that they can be added to without a lock: they wrap after half a million years of
/// seconds.
const SUM_SCALE: f64 = 1e6;

/// The recorder of the process: the exporter's, but for histograms.
pub(super) struct Recording {
    exporter: PrometheusRecorder,
    histograms: Histograms,
}

/// All histograms, by name and labels.
#[derive(Clone, Default)]
pub(super) struct Histograms(Arc<Mutex<BTreeMap<String, Series>>>);

type Series = BTreeMap<String, Arc<Buckets>>;

/// One histogram.
struct Buckets {
    bounds: &'static [f64],
    /// Values up to the bound of the same place, and those beyond all.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Recording {
    pub(super) const fn new(exporter: PrometheusRecorder, histograms: Histograms) -> Self {
        Self { exporter, histograms }
    }
}

impl Recorder for Recording {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.exporter.describe_counter(name, unit, description);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.exporter.describe_gauge(name, unit, description);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.exporter.describe_histogram(name, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.exporter.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.exporter.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.histograms.get(key))
    }
}

impl Histograms {
    fn get(&self, key: &Key) -> Arc<Buckets> {
        let mut labels = String::new();
        for label in key.labels() {
            let comma = if labels.is_empty() { "" } else { "," };
            let (name, value) = (sanitize_label_key(label.key()), sanitize_label_value(label.value()));
            let _ = write!(labels, "{comma}{name}=\"{value}\"");
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let series = all.entry(key.name().to_owned()).or_default();
        Arc::clone(series.entry(labels).or_insert_with(|| Arc::new(Buckets::new(key.name()))))
    }

    /// Writes all of them in the text format.
    pub(super) fn render(&self, text: &mut String) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, series) in all.iter() {
            write_type_line(text, name, None, None, "histogram");
            for (labels, buckets) in series {
                buckets.render(name, labels, text);
            }
            text.push('\n');
        }
    }
}

impl Buckets {
    fn new(name: &str) -> Self {
        let bounds: &[f64] = if name.ends_with("_seconds") { &SECONDS } else { &COUNTS };
        Self { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    fn render(&self, name: &str, labels: &str, text: &mut String) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut total = 0_u64;
        for (place, count) in self.counts.iter().enumerate() {
            total = total.saturating_add(count.load(Relaxed));
            let _ = match self.bounds.get(place) {
                Some(bound) => writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}"),
                None => writeln!(text, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {total}"),
            };
        }
        let sum = super::metrics::number(self.sum.load(Relaxed)) / SUM_SCALE;
        let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
        let _ = writeln!(text, "{name}_sum{open}{labels}{close} {sum}\n{name}_count{open}{labels}{close} {total}");
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(place) {
            count.fetch_add(1, Relaxed);
        }
        // What is negative or no number saturates to 0.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
        self.sum.fetch_add((value * SUM_SCALE) as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics::Label;

    #[test]
    fn what_is_recorded_is_in_its_bucket_and_in_the_sum() {
        let histograms = Histograms::default();
        let key = Key::from_parts("wait_seconds", vec![Label::new("route", "a\"b")]);
        let one = histograms.get(&key);
        // Whoever asks for it again goes on with it.
        let again = histograms.get(&key);
        for value in [0.000_01, 0.000_011, 0.3, 11.0] {
            one.record(value);
        }
        again.record(f64::NAN);
        histograms.get(&Key::from_name("things")).record(3.0);
        let mut text = String::new();
        histograms.render(&mut text);
        for line in [
            "# TYPE wait_seconds histogram",
            "wait_seconds_bucket{route=\"a\\\"b\",le=\"0.00001\"} 2",
            "wait_seconds_bucket{route=\"a\\\"b\",le=\"0.000025\"} 3",
            "wait_seconds_bucket{route=\"a\\\"b\",le=\"0.25\"} 3",
            "wait_seconds_bucket{route=\"a\\\"b\",le=\"0.5\"} 4",
            "wait_seconds_bucket{route=\"a\\\"b\",le=\"10\"} 4",
            "wait_seconds_bucket{route=\"a\\\"b\",le=\"+Inf\"} 5",
            "wait_seconds_sum{route=\"a\\\"b\"} 11.300021",
            "wait_seconds_count{route=\"a\\\"b\"} 5",
            "things_bucket{le=\"2\"} 0",
            "things_bucket{le=\"4\"} 1",
            "things_sum 3",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
    }
}
