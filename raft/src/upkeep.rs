//! What goes on beside the log: checkpoints, snapshot files (behind which openraft cuts the log), the watch over the
//! disk's room, and the gauges. Writing happens on blocking threads; one such task at a time.

use crate::{node::Node, status::Role, timing::Upkeep, vault::VaultError};
use machine::At;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// How often to look.
const LOOK: Duration = Duration::from_millis(500);

/// The disk is asked for its room this often.
const DISK_LOOK: Duration = Duration::from_secs(2);

/// A leader looks this often whether its date is right.
const CLOCK_LOOK: Duration = Duration::from_secs(2);

/// What has gathered since the last checkpoint and the last snapshot.
struct Gathered {
    checkpoint_bytes: u64,
    checkpoint_at: Instant,
    snapshot_bytes: u64,
}

/// Keeps house until the node stops.
pub(crate) async fn keep(node: Arc<Node>) {
    let mut stopping = node.watch_stopping();
    let mut gathered = Gathered { checkpoint_bytes: 0, checkpoint_at: Instant::now(), snapshot_bytes: 0 };
    let (mut disk_at, mut clock_at) = (Instant::now(), Instant::now());
    node.disk.look();
    while !*stopping.borrow_and_update() {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            changed = stopping.changed() => if changed.is_err() { return },
        }
        if disk_at.elapsed() >= DISK_LOOK {
            node.disk.look();
            disk_at = Instant::now();
        }
        if !node.disk_low() {
            checkpoint_if_due(&node, &mut gathered).await;
            snapshot_if_due(&node, &mut gathered).await;
        }
        gauge(&node);
        if clock_at.elapsed() >= CLOCK_LOOK {
            node.lead_with_right_date().await;
            clock_at = Instant::now();
        }
    }
}

async fn checkpoint_if_due(node: &Arc<Node>, gathered: &mut Gathered) {
    let appended = node.appended_bytes();
    let much = appended.saturating_sub(gathered.checkpoint_bytes) >= node.upkeep.checkpoint_bytes;
    if much || gathered.checkpoint_at.elapsed() >= node.upkeep.checkpoint_every {
        gathered.checkpoint_bytes = appended;
        gathered.checkpoint_at = Instant::now();
        if let Err(error) = checkpoint(node).await {
            // It may fail: the log is the truth. The next one is written whole.
            tracing::warn!(%error, "no checkpoint could be written");
        }
    }
}

/// Writes what has changed since the last checkpoint.
pub(crate) async fn checkpoint(node: &Arc<Node>) -> Result<(), VaultError> {
    let (vault, applied) = (Arc::clone(&node.vault), node.applied());
    let began = Instant::now();
    let written = vault.blocking().run(move || vault.checkpoint(&applied)).await;
    let Ok(written) = written else { return Ok(()) };
    let records = written?;
    if records > 0 {
        metrics::histogram!("quorate_raft_checkpoint_seconds").record(began.elapsed().as_secs_f64());
        tracing::debug!(records, "checkpoint");
    }
    Ok(())
}

async fn snapshot_if_due(node: &Arc<Node>, gathered: &mut Gathered) {
    let appended = node.appended_bytes();
    let held = node.vault.newest();
    let (at, bytes) = held.map_or((0, 0), |held| (held.stored.index, held.stored.bytes));
    let applied = node.applied();
    let entries = applied.index().saturating_sub(at);
    let Upkeep { snapshot_bytes, snapshot_entries, .. } = node.upkeep;
    let much = appended.saturating_sub(gathered.snapshot_bytes) >= snapshot_bytes.max(bytes);
    if entries == 0 || !(much || entries >= snapshot_entries) {
        return;
    }
    gathered.snapshot_bytes = appended;
    let vault = Arc::clone(&node.vault);
    let began = Instant::now();
    let written = vault.blocking().run(move || vault.order(&applied)).await;
    match written {
        Ok(Ok(held)) => {
            metrics::histogram!("quorate_raft_snapshot_seconds").record(began.elapsed().as_secs_f64());
            tracing::debug!(index = held.stored.index, bytes = held.stored.bytes, "snapshot");
            if node.engine.snapshot().await.is_err() {
                tracing::debug!("raft has ended: the log is not cut");
            }
        }
        Ok(Err(error)) => tracing::warn!(%error, "no snapshot could be written: the log is not cut"),
        Err(error) => tracing::warn!(%error, "no snapshot could be written: the log is not cut"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges")]
fn gauge(node: &Node) {
    let local = node.local();
    for (role, label) in [
        (Role::Leader, "leader"),
        (Role::Follower, "follower"),
        (Role::Candidate, "candidate"),
        (Role::Learner, "learner"),
    ] {
        metrics::gauge!("quorate_raft_role", "role" => label).set(if local.role == role { 1.0 } else { 0.0 });
    }
    metrics::gauge!("quorate_raft_term").set(local.term as f64);
    metrics::gauge!("quorate_raft_last_index").set(local.last_index as f64);
    metrics::gauge!("quorate_raft_commit_index").set(local.committed as f64);
    metrics::gauge!("quorate_raft_applied_index").set(local.applied as f64);
    metrics::gauge!("quorate_raft_enforced_index").set(local.enforced as f64);
    metrics::gauge!("quorate_raft_lag").set(local.last_index.saturating_sub(local.enforced) as f64);
    metrics::gauge!("quorate_raft_failed").set(if local.failed.is_some() { 1.0 } else { 0.0 });
    metrics::gauge!("quorate_lease_remaining_seconds").set(local.authority_ms as f64 / 1000.0);
    let offset_ms = node.clock.utc_ms() as f64 - node.time().wall.0 as f64;
    metrics::gauge!("quorate_clock_offset_seconds").set(if node.time() == At::default() {
        0.0
    } else {
        offset_ms / 1000.0
    });
    let holds = node.allowances().holds();
    metrics::gauge!("quorate_limit_slots").set(holds.slots as f64);
    metrics::gauge!("quorate_limit_waiting").set(holds.waiting as f64);
    metrics::gauge!("quorate_limit_stranded_tokens").set(holds.tokens as f64);
    metrics::gauge!("quorate_disk_low").set(if local.disk_low { 1.0 } else { 0.0 });
}
