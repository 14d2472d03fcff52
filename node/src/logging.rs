//! What the node says about itself, to standard error. The access log is not here: it has its own writer.

use crate::config::{Log, value::LogFormat};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// Starts logging. A second call changes nothing.
pub fn start(log: &Log) {
    // The level was checked with the other settings.
    let mut filter: Targets = log.level.parse().unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO));
    if let Ok(level) = log.level.parse::<LevelFilter>() {
        // At info the engine tells of every step it takes. Who wants to read that names it: `info,openraft=info`.
        filter = filter.with_target("openraft", level.min(LevelFilter::WARN));
    }
    let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let layer = match log.format {
        LogFormat::Text => layer.with_target(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
}
