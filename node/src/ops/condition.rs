//! How this node is: what the health checks ask, put together from what runs.

use super::metrics;
use crate::{admin::admins_end, clock::SystemClock, config::Settings, gateway, pki::trust::Trust};
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// How this node is. The parts come in as they start.
pub struct Condition {
    name: String,
    zone: Option<String>,
    data_dir: PathBuf,
    recorder: Option<metrics::Metrics>,
    node: OnceLock<(u64, [u8; 16])>,
    raft: OnceLock<raft::Handle>,
    trust: OnceLock<Trust>,
    gateway: OnceLock<gateway::Handle>,
    draining: AtomicBool,
}

/// Why a node should get no traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// It has not got so far.
    #[error("the node is starting")]
    Starting,
    /// It does not know yet what was acknowledged while it was away.
    #[error("the node has not caught up with the cluster yet")]
    CatchingUp,
    /// It holds no authority: no leader that a majority follows has answered it for longer than a lease lasts.
    #[error("the node is isolated: it hears of no leader")]
    Isolated,
    /// It was removed.
    #[error("the node has been removed from the cluster")]
    Removed,
    /// Raft has stopped.
    #[error("consensus has failed on this node: its log says why")]
    Failed,
    /// It is stopping.
    #[error("the node is draining")]
    Draining,
}

impl NotReady {
    /// As JSON names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::CatchingUp => "catching_up",
            Self::Isolated => "isolated",
            Self::Removed => "removed",
            Self::Failed => "failed",
            Self::Draining => "draining",
        }
    }
}

impl Condition {
    /// Of a node that starts.
    #[must_use]
    pub fn new(settings: &Settings, recorder: Option<metrics::Metrics>) -> Self {
        Self {
            name: settings.name.to_string(),
            zone: settings.zone.clone(),
            data_dir: settings.data_dir.clone(),
            recorder,
            node: OnceLock::new(),
            raft: OnceLock::new(),
            trust: OnceLock::new(),
            gateway: OnceLock::new(),
            draining: AtomicBool::new(false),
        }
    }

    /// Who it is.
    pub fn is_node(&self, node: u64, cluster: [u8; 16], trust: Trust) {
        let _ = self.node.set((node, cluster));
        let _ = self.trust.set(trust);
    }

    /// Consensus runs.
    pub fn has_raft(&self, raft: raft::Handle) {
        let _ = self.raft.set(raft);
    }

    /// The data plane serves, by everything that was acknowledged before.
    pub fn has_gateway(&self, gateway: gateway::Handle) {
        let _ = self.gateway.set(gateway);
    }

    /// It stops: no new traffic should come.
    pub fn drains(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether it should get traffic.
    ///
    /// # Errors
    /// Why not.
    pub fn ready(&self) -> Result<(), NotReady> {
        if self.draining.load(Ordering::Acquire) {
            return Err(NotReady::Draining);
        }
        let local = self.raft.get().ok_or(NotReady::Starting)?.local();
        if local.failed.is_some() {
            return Err(NotReady::Failed);
        }
        if local.session == raft::Session::Removed {
            return Err(NotReady::Removed);
        }
        if self.gateway.get().is_none() {
            return Err(NotReady::CatchingUp);
        }
        if local.authority_ms == 0 {
            return Err(NotReady::Isolated);
        }
        Ok(())
    }

    /// Whether any route can answer.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        let (Some(raft), Some(gateway)) = (self.raft.get(), self.gateway.get()) else { return false };
        let local = raft.local();
        local.failed.is_none() && (local.authority_ms > 0 || gateway.status().serves_isolated)
    }

    pub(super) fn metrics(&self) -> String {
        let Some(recorder) = &self.recorder else { return String::new() };
        ::metrics::gauge!("quorate_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        ::metrics::gauge!("quorate_ready").set(if self.ready().is_ok() { 1.0 } else { 0.0 });
        if let Some(shown) = self.trust.get().and_then(|trust| trust.shown().ok()) {
            ::metrics::gauge!("quorate_certificate_expiry_timestamp_seconds")
                .set(metrics::number(shown.not_after_ms / 1000));
        }
        if let Some(end) = self.raft.get().and_then(|raft| admins_end(&raft.view().registry)) {
            ::metrics::gauge!("quorate_admin_access_expiry_timestamp_seconds").set(metrics::number(end.0 / 1000));
        }
        recorder.render()
    }

    /// How far this node is, and digests of its state. Its authority is looked at first: what it decides by is not older
    /// than what it says here. `None` where no digests are kept. Blocks.
    pub(super) fn debug_state(&self) -> Option<Value> {
        let raft = self.raft.get()?;
        let local = raft.local();
        let decides_by = self.gateway.get().map(|gateway| gateway.status().revision);
        let digests = raft.digests().ok().flatten()?;
        let view = raft.view();
        let shown: Vec<Value> = digests
            .into_iter()
            .map(|(index, digest)| json!({ "index": index, "digest": hex::encode(digest) }))
            .collect();
        Some(json!({
            "id": local.node,
            // Without a data plane nothing is admitted, whatever the lease says.
            "authority_ms": if decides_by.is_some() { local.authority_ms } else { 0 },
            "enforced_revision": decides_by,
            "revision": view.registry.revision,
            "raft": { "enforced": local.enforced, "applied": raft.local().applied },
            "state_digests": shown,
        }))
    }

    pub(super) fn status(&self) -> Value {
        let ready = self.ready();
        let mut status = json!({
            "name": self.name,
            "zone": self.zone,
            "version": env!("CARGO_PKG_VERSION"),
            "data_dir": self.data_dir,
            "ready": ready.is_ok(),
            "not_ready": ready.err().map(NotReady::as_str),
            "serving": self.is_serving(),
            "disk_free_bytes": storage::layout::free_bytes(&self.data_dir).ok(),
        });
        let mut add = |key: &str, value: Value| {
            if let Some(object) = status.as_object_mut() {
                object.insert(key.to_owned(), value);
            }
        };
        if let Some((utc_ms, boot_us)) = SystemClock.wrong_by() {
            add("unsafe_test_faults", json!({ "utc_ahead_ms": utc_ms, "boot_ahead_us": boot_us }));
        }
        if let Some((node, cluster)) = self.node.get() {
            add("id", json!(node));
            add("cluster", json!(hex::encode(cluster)));
        }
        if let Some(raft) = self.raft.get() {
            let local = raft.local();
            let view = raft.view();
            add("revision", json!(view.registry.revision));
            add("authority_ms", json!(local.authority_ms));
            add("feature_level", json!(view.registry.feature_level));
            add(
                "raft",
                json!({
                    "role": role(local.role),
                    "voter": local.voter,
                    "term": local.term,
                    "leader": local.leader,
                    "leader_heard_ms": local.leader_heard_ms,
                    "last_index": local.last_index,
                    "committed": local.committed,
                    "applied": local.applied,
                    "enforced": local.enforced,
                    "snapshot": local.snapshot,
                    "session": match local.session {
                        raft::Session::Seeking => "seeking",
                        raft::Session::Open => "open",
                        raft::Session::Removed => "removed",
                    },
                    "disk_low": local.disk_low,
                    "failed": local.failed,
                }),
            );
        }
        if let Some(shown) = self.trust.get().and_then(|trust| trust.shown().ok()) {
            add(
                "certificate",
                json!({
                    "authority_sha256": hex::encode(shown.authority_sha256),
                    "not_after_ms": shown.not_after_ms,
                }),
            );
        }
        if let Some(gateway) = self.gateway.get() {
            let gateway = gateway.status();
            add(
                "gateway",
                json!({
                    "enforced": gateway.enforced,
                    "connections": gateway.connections,
                    "in_flight": gateway.in_flight,
                    "unreadable": gateway.unreadable,
                }),
            );
        }
        status
    }
}

/// As JSON names it.
const fn role(role: raft::Role) -> &'static str {
    match role {
        raft::Role::Leader => "leader",
        raft::Role::Follower => "follower",
        raft::Role::Candidate => "candidate",
        raft::Role::Learner => "learner",
    }
}

impl std::fmt::Debug for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Condition").field("ready", &self.ready()).finish_non_exhaustive()
    }
}
