//! The recorder behind the `metrics` facade. Everybody else only counts.

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::{sync::OnceLock, time::Duration};

/// From ten microseconds, a stage of a request, to ten seconds, a request that timed out.
const SECONDS: [f64; 19] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Numbers of things.
const COUNTS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 512.0, 2048.0];
/// Undrained histograms grow without bound.
const UPKEEP: Duration = Duration::from_secs(1);

/// Installs the recorder. Must be done before anything keeps a handle of a metric; a second call finds the first one's.
pub fn start() -> Option<PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    RECORDER
        .get_or_init(|| {
            PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
                .and_then(|builder| builder.set_buckets(&COUNTS))
                .and_then(PrometheusBuilder::install_recorder)
                .inspect_err(|error| tracing::error!(%error, "metrics are not available"))
                .ok()
        })
        .clone()
}

/// Keeps the recorder's memory bounded; ends when it is aborted.
pub async fn keep_up(recorder: PrometheusHandle) {
    let mut every = tokio::time::interval(UPKEEP);
    loop {
        every.tick().await;
        recorder.run_upkeep();
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are doubles; these numbers stay far below 2^53")]
pub(super) const fn number(value: u64) -> f64 {
    value as f64
}
