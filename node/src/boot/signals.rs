//! What ends a node, and what makes it read its certificates again.

use super::gateway_settings::load_certificates;
use crate::{
    clock::SystemClock,
    config::Settings,
    gateway,
    pki::{PkiError, identity::Identity, outside::Holder, trust::Trust},
};
use std::{io, time::Duration};
use tokio::{
    io::AsyncReadExt,
    signal::unix::{Signal, SignalKind, signal},
};

/// Why a node ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Somebody wants it.
    Told {
        /// Without waiting for load balancers.
        in_a_hurry: bool,
    },
    /// The cluster has removed it.
    Removed,
    /// Consensus has failed on this machine.
    Failed(String),
}

/// Signals that end a node. They are received from the start, so that none is missed.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    stop_with_stdin: bool,
}

impl Signals {
    pub(super) fn receive(stop_with_stdin: bool) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            stop_with_stdin,
        })
    }

    /// Resolves when the node is to end.
    pub(super) async fn ending(&mut self, raft: &raft::Handle) -> Ending {
        let stop_with_stdin = self.stop_with_stdin;
        tokio::select! {
            _ = self.terminate.recv() => Ending::Told { in_a_hurry: false },
            _ = self.interrupt.recv() => Ending::Told { in_a_hurry: false },
            () = end_of_stdin(), if stop_with_stdin => Ending::Told { in_a_hurry: true },
            reason = raft.failed() => Ending::Failed(reason),
            () = removal(raft) => Ending::Removed,
        }
    }

    /// Resolves when the node is told to end once more.
    pub(super) async fn again(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn end_of_stdin() {
    let mut stdin = tokio::io::stdin();
    let mut bytes = [0; 64];
    while matches!(stdin.read(&mut bytes).await, Ok(read) if read > 0) {}
}

async fn removal(raft: &raft::Handle) {
    let mut every = tokio::time::interval(Duration::from_millis(500));
    loop {
        every.tick().await;
        if raft.local().session == raft::Session::Removed {
            tracing::warn!(
                "the cluster has removed this node: it stops; to bring it back, empty its data directory and join again"
            );
            return;
        }
    }
}

/// Reads certificates again on each SIGHUP, and opens the access log anew.
pub(super) async fn reload_on_hangup(
    settings: Settings,
    identity: Identity,
    trust: Trust,
    gateway: gateway::Handle,
    clock: SystemClock,
) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            tracing::error!(%error, "SIGHUP will not be noticed");
            return;
        }
    };
    while hangup.recv().await.is_some() {
        match reload_own(&identity, &trust, clock) {
            Ok(()) => tracing::info!("the node's certificate has been read again"),
            Err(error) => tracing::error!(%error, "the node's certificate stays as it was"),
        }
        match load_certificates(&settings) {
            Ok(Some(certificates)) => match gateway.reload_certificates(certificates) {
                Ok(()) => tracing::info!("the certificates have been read again"),
                Err(error) => tracing::error!(%error, "the gateway's certificates stay as they were"),
            },
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "the gateway's certificates stay as they were"),
        }
        gateway.reopen_access_log();
    }
}

/// Reads the node's own certificate again, and takes it if peers will.
fn reload_own(identity: &Identity, trust: &Trust, clock: SystemClock) -> Result<(), PkiError> {
    let holder = Holder::Node { cluster: &identity.cluster, id: identity.node };
    trust.reload(|node, authorities| {
        holder.check(&node.leaf, Some(&node.key), authorities, clock.utc_ms()).map(drop).map_err(|error| {
            PkiError::Certificate(format!("the certificate in the data directory cannot be used: {error}"))
        })
    })
}
