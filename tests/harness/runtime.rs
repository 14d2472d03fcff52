//! The one runtime behind the blocking faces of the client and the upstream.

use std::sync::OnceLock;
use tokio::runtime::{Builder, Runtime};

/// Shared by all tests of the process.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
    })
}
