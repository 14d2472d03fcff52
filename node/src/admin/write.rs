//! How a write is made: the client's request id, its precondition and its fence, and what the client is told.

use super::{
    Admin, Caller,
    problem::{Problem, done},
};
use crate::{pki::sha256, resource};
use machine::{Actor, Command, RequestId, View, Wall, command::Precondition};
use proto::admin::{FenceNode, WriteOptions, WriteResult};
use raft::{Fence, FenceState, Written};
use std::{sync::Arc, time::Duration};

/// How long a write waits for the nodes unless the client says otherwise.
const FENCE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that a client may make it wait.
const FENCE_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// How long this node may take to apply what the leader has committed.
const APPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// How a write is to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    /// The client's id of it.
    pub request: RequestId,
    /// What it expects.
    pub if_revision: Option<u64>,
    fence: Fence,
}

impl Write {
    pub(super) fn new(options: Option<WriteOptions>) -> Result<Self, Problem> {
        let options = options.ok_or_else(|| Problem::invalid("the field `write` is missing"))?;
        let random: [u8; 16] = options
            .request_random
            .as_slice()
            .try_into()
            .map_err(|_| Problem::invalid("write.request_random must be 16 random bytes"))?;
        let timeout = match options.fence_timeout_ms {
            0 => FENCE_TIMEOUT,
            ms => Duration::from_millis(u64::from(ms)).min(FENCE_TIMEOUT_MAX),
        };
        Ok(Self {
            request: RequestId { issued: Wall(options.request_issued_ms), random: u128::from_be_bytes(random) },
            if_revision: options.if_revision,
            fence: if options.no_wait { Fence::None } else { Fence::Within(timeout) },
        })
    }

    /// What the client expects of the thing.
    pub(super) fn precondition(&self) -> Precondition {
        self.if_revision.map_or(Precondition::Any, Precondition::Revision)
    }

    /// Another step of the same write. The same step of a retry has the same id.
    pub(super) fn step(&self, name: &str) -> Self {
        Self { request: RequestId { random: u128::from_be_bytes(self.derive(name)), ..self.request }, ..*self }
    }

    /// Bytes that a retry derives again. They follow from what is stored of a request, so they are no secret.
    pub(super) fn derive<const N: usize>(&self, purpose: &str) -> [u8; N] {
        let mut text = self.request.random.to_be_bytes().to_vec();
        text.extend_from_slice(&self.request.issued.0.to_be_bytes());
        text.extend_from_slice(purpose.as_bytes());
        let mut bytes = [0; N];
        bytes.iter_mut().zip(sha256(&text)).for_each(|(to, from)| *to = from);
        bytes
    }

    /// This write, whatever the thing's revision is: where the caller has checked that itself.
    pub(super) const fn without_precondition(self) -> Self {
        Self { if_revision: None, ..self }
    }
}

/// A write that was done.
#[derive(Debug)]
pub(super) struct Done {
    /// The cluster's revision after it.
    pub revision: u64,
    /// The log entry that did it.
    pub index: u64,
    written: Written,
}

impl Done {
    /// For the client.
    pub(super) fn result(&self) -> WriteResult {
        WriteResult {
            revision: self.revision,
            fence: self
                .written
                .fence
                .iter()
                .map(|(node, state)| FenceNode { node: *node, state: fence_state(*state).to_owned() })
                .collect(),
            elapsed_ms: self.written.elapsed_ms,
        }
    }
}

impl Admin {
    /// Has an operator's command done.
    pub(super) async fn write(&self, caller: &Caller, write: &Write, command: Command) -> Result<Done, Problem> {
        let actor = Actor::Operator(caller.name.clone());
        let before = self.raft().view();
        let mut written = self.raft().propose(write.request, actor, command, write.fence).await?;
        if written.fence.iter().any(|(_, state)| *state == FenceState::Expired) {
            // A node without authority serves what the state that it has lets it serve: that of before, or this one.
            let states = [before, self.raft().view()];
            if states.iter().any(|view| resource::serves_isolated(&view.registry)) {
                let expired = written.fence.iter_mut().filter(|(_, state)| *state == FenceState::Expired);
                expired.for_each(|(_, state)| *state = FenceState::ServingIsolated);
            }
        }
        let revision = done(written.outcome.clone(), self.raft().time().wall)?;
        Ok(Done { revision, index: written.index, written })
    }

    /// The state once this node has applied a log entry.
    pub(super) async fn applied(&self, index: u64) -> Result<Arc<View>, Problem> {
        let mut views = self.raft().watch();
        match tokio::time::timeout(APPLY_TIMEOUT, views.wait_for(|view| view.index >= index)).await {
            Ok(Ok(view)) => Ok(Arc::clone(&view)),
            _ => Err(Problem::from(raft::ReadError::Behind)),
        }
    }
}

/// As the protocol names it.
const fn fence_state(state: FenceState) -> &'static str {
    match state {
        FenceState::Applied => "applied",
        FenceState::Expired => "expired",
        FenceState::ServingIsolated => "serving_isolated",
        FenceState::Pending => "pending",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> WriteOptions {
        WriteOptions { request_random: vec![7; 16], request_issued_ms: 5, ..WriteOptions::default() }
    }

    #[test]
    fn steps_are_repeatable_and_differ() {
        let write = Write::new(Some(options())).unwrap();
        assert_eq!(write.step("a").request, write.step("a").request);
        assert_ne!(write.step("a").request, write.step("b").request);
        assert_ne!(write.step("a").request, write.request);
        assert_eq!(write.step("a").request.issued, write.request.issued);
    }

    #[test]
    fn a_request_without_an_id_is_refused() {
        assert!(Write::new(None).is_err());
        assert!(Write::new(Some(WriteOptions { request_random: vec![1], ..options() })).is_err());
    }

    #[test]
    fn fences() {
        assert_eq!(Write::new(Some(options())).unwrap().fence, Fence::Within(FENCE_TIMEOUT));
        let no_wait = WriteOptions { no_wait: true, ..options() };
        assert_eq!(Write::new(Some(no_wait)).unwrap().fence, Fence::None);
        let long = WriteOptions { fence_timeout_ms: u32::MAX, ..options() };
        assert_eq!(Write::new(Some(long)).unwrap().fence, Fence::Within(FENCE_TIMEOUT_MAX));
    }
}
