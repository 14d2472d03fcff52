//! A running member.
#![expect(clippy::unused_async, clippy::unused_self, reason = "the body lands next")]
use crate::{
    handle::{AuditPage, Backup, Fence, ProposeError, ReadError, Services, TransferError, Written},
    start::{Start, StartError},
    status::{LocalStatus, Observation, Role, Session},
};
use machine::{
    Actor, At, Command, Outcome, RequestId, View,
    command::Initialize,
    member::{MemberSpec, NodeId},
};
use std::sync::Arc;
use tokio::sync::watch;

pub(crate) struct Node {
    pub(crate) id: NodeId,
    view: watch::Sender<Arc<View>>,
}

impl Node {
    pub(crate) async fn start(start: Start) -> Result<Arc<Self>, StartError> {
        Ok(Arc::new(Self { id: start.node, view: watch::Sender::new(Arc::default()) }))
    }
    pub(crate) async fn bootstrap(&self, _: Initialize) -> Result<Outcome, ProposeError> {
        Err(ProposeError::NoLeader)
    }
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }
    pub(crate) fn time(&self) -> At {
        At::default()
    }
    pub(crate) async fn propose(&self, _: RequestId, _: Actor, _: Command, _: Fence) -> Result<Written, ProposeError> {
        Err(ProposeError::NoLeader)
    }
    pub(crate) async fn read(&self) -> Result<Arc<View>, ReadError> {
        Err(ReadError::NoLeader)
    }
    pub(crate) async fn observe(&self) -> Result<Observation, ReadError> {
        Err(ReadError::NoLeader)
    }
    pub(crate) fn local(&self) -> LocalStatus {
        LocalStatus {
            node: self.id,
            role: Role::Learner,
            term: 0,
            leader: None,
            voter: false,
            last_index: 0,
            committed: 0,
            applied: 0,
            enforced: 0,
            snapshot: 0,
            session: Session::Seeking,
            leader_heard_ms: None,
            at: At::default(),
            disk_low: false,
            failed: None,
        }
    }
    pub(crate) async fn transfer_leader(&self, _: Option<NodeId>) -> Result<NodeId, TransferError> {
        Err(TransferError::NoLeader)
    }
    pub(crate) fn services(&self) -> Services {
        Services {
            raft: proto::peer::raft_server::RaftServer::new(crate::RaftService),
            leader: proto::peer::leader_server::LeaderServer::new(crate::LeaderService),
        }
    }
    pub(crate) async fn snapshot(&self) -> Result<Backup, ReadError> {
        Err(ReadError::NoLeader)
    }
    pub(crate) fn audit(&self, _: u64, _: usize) -> AuditPage {
        AuditPage::default()
    }
    pub(crate) async fn failed(&self) -> String {
        std::future::pending().await
    }
    pub(crate) fn set_spec(&self, _: MemberSpec) {}
    pub(crate) async fn stop(&self) {}
}
