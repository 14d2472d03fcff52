//! Who changed what.

use super::{Admin, problem::Problem};
use futures::{StreamExt, stream::BoxStream};
use machine::{Actor, audit::AuditEntry as Entry};
use proto::admin::{AuditEntry, ReadAuditRequest, audit_server::Audit};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Entries that are read at a time.
const PAGE: usize = 500;
/// Entries on their way to a client that is slow.
const QUEUE: usize = 64;

#[tonic::async_trait]
impl Audit for Admin {
    type ReadStream = BoxStream<'static, Result<AuditEntry, Status>>;

    async fn read(&self, request: Request<ReadAuditRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let wanted = request.into_inner();
        self.raft().read().await.map_err(Problem::from)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        // It ends with the client's interest, or with the log's end.
        tokio::spawn(send(self.raft().clone(), wanted, sender));
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }
}

async fn send(raft: raft::Handle, wanted: ReadAuditRequest, sender: mpsc::Sender<Result<AuditEntry, Status>>) {
    let mut views = raft.watch();
    let mut next = wanted.after.saturating_add(1);
    loop {
        views.mark_unchanged();
        loop {
            let page = raft.audit(next, PAGE);
            let Some((last, _)) = page.entries.last() else { break };
            next = last.saturating_add(1);
            for (number, entry) in page.entries.iter().filter(|(_, entry)| is_wanted(entry, &wanted)) {
                if sender.send(Ok(to_message(*number, entry))).await.is_err() {
                    return;
                }
            }
        }
        if !wanted.follow {
            return;
        }
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return },
            () = sender.closed() => return,
        }
    }
}

fn is_wanted(entry: &Arc<Entry>, wanted: &ReadAuditRequest) -> bool {
    entry.at.0 >= wanted.since_ms && (wanted.actor.is_empty() || actor(&entry.actor) == wanted.actor)
}

fn to_message(number: u64, entry: &Entry) -> AuditEntry {
    AuditEntry {
        number,
        at_ms: entry.at.0,
        actor: actor(&entry.actor),
        action: entry.action.clone(),
        subject: entry.subject.clone(),
        from_revision: entry.from_revision,
        to_revision: entry.to_revision,
    }
}

/// As people know it.
fn actor(actor: &Actor) -> String {
    match actor {
        Actor::Operator(name) => name.to_string(),
        Actor::Node(id) => format!("node-{id}"),
        Actor::Bootstrap => "bootstrap".to_owned(),
    }
}
