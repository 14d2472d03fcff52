//! The recorder behind the `metrics` facade. Everybody else only counts.

use super::histograms::{Histograms, Recording};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;

/// What has been counted so far.
#[derive(Clone)]
pub struct Metrics {
    exporter: PrometheusHandle,
    histograms: Histograms,
}

/// Installs the recorder. Must be done before anything keeps a handle of a metric; a second call finds the first one's.
pub fn start() -> Option<Metrics> {
    static METRICS: OnceLock<Option<Metrics>> = OnceLock::new();
    METRICS
        .get_or_init(|| {
            let exporter = PrometheusBuilder::new().build_recorder();
            let made = Metrics { exporter: exporter.handle(), histograms: Histograms::default() };
            metrics::set_global_recorder(Recording::new(exporter, made.histograms.clone()))
                .inspect_err(|error| tracing::error!(%error, "metrics are not available"))
                .ok()
                .map(|()| made)
        })
        .clone()
}

impl Metrics {
    /// The text that Prometheus reads.
    pub(super) fn render(&self) -> String {
        let mut text = self.exporter.render();
        self.histograms.render(&mut text);
        text
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are doubles; these numbers stay far below 2^53")]
pub(super) const fn number(value: u64) -> f64 {
    value as f64
}
