//! What happens with a new View on this node: the TLS settings follow it, then the gateway's workers. Only then does it
//! count as enforced.

use crate::{gateway, pki::trust::Trust};
use machine::View;
use std::sync::{Arc, Mutex, PoisonError};

/// Hands Views on. Clones are the same.
#[derive(Clone)]
pub(super) struct Publishing {
    trust: Trust,
    slot: Arc<Mutex<Slot>>,
}

/// The gateway, once it runs, and the View that it must begin with.
#[derive(Default)]
struct Slot {
    latest: Option<Arc<View>>,
    gateway: Option<gateway::Handle>,
}

impl Publishing {
    pub(super) fn new(trust: Trust) -> Self {
        Self { trust, slot: Arc::default() }
    }

    /// For raft. Before the gateway runs, a View is enforced by there being nobody who could decide otherwise.
    pub(super) fn publish(&self) -> raft::Publish {
        let publishing = self.clone();
        Arc::new(move |view| {
            let publishing = publishing.clone();
            Box::pin(async move {
                if let Err(error) = publishing.trust.follow(&view) {
                    tracing::error!(%error, "the cluster's authorities cannot be used: those before stay in force");
                }
                let gateway = {
                    let mut slot = publishing.slot.lock().unwrap_or_else(PoisonError::into_inner);
                    slot.latest = Some(Arc::clone(&view));
                    slot.gateway.clone()
                };
                if let Some(gateway) = gateway {
                    gateway.publish(view).await;
                }
            })
        })
    }

    /// Starts the gateway with the newest View. The lock makes sure that a View which counts as enforced is one that it
    /// begins with.
    pub(super) fn start<E>(
        &self,
        at_least: Arc<View>,
        start: impl FnOnce(Arc<View>) -> Result<gateway::Handle, E>,
    ) -> Result<gateway::Handle, E> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = match &slot.latest {
            Some(latest) if latest.index > at_least.index => Arc::clone(latest),
            _ => at_least,
        };
        let gateway = start(newest)?;
        slot.gateway = Some(gateway.clone());
        Ok(gateway)
    }
}
