//! openraft's calls from peers: the serving side of `network`.

use crate::{
    adapt::network::MESSAGE_BYTES_MAX,
    codec::{
        self, CodecError,
        form::{
            AppendForm, AppendedForm, LogIdForm, SnapshotHeadForm, TransferForm, TransferredForm, VoteForm,
            VoteReplyForm, VoteRequestForm,
        },
    },
    disk::Disk,
    ground::Blocking,
    start::{Caller, Callers},
    types::{Raft, Vote},
    vault::{Offered, Vault},
};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use machine::member::NodeId;
use openraft::{
    Snapshot,
    raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest},
};
use proto::peer::{Message, SnapshotPiece, raft_server};
use std::sync::{Arc, Mutex, PoisonError};
use tonic::{Request, Response, Status, Streaming};

/// Serves raft to peers.
#[derive(Clone)]
pub struct RaftService {
    raft: Raft,
    vault: Arc<Vault>,
    disk: Arc<Disk>,
    callers: Callers,
}

impl RaftService {
    pub(crate) fn new(raft: Raft, vault: Arc<Vault>, disk: Arc<Disk>, callers: Callers) -> Self {
        Self { raft, vault, disk, callers }
    }

    pub(crate) fn server(self) -> raft_server::RaftServer<Self> {
        raft_server::RaftServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

/// Who calls, as far as it matters: everybody in tests, a proved peer otherwise.
#[derive(Clone, Copy)]
pub(crate) struct Proved(Option<NodeId>);

impl Proved {
    pub(crate) fn of<T>(request: &Request<T>, callers: Callers) -> Result<Self, Status> {
        match (callers, request.extensions().get::<Caller>()) {
            (Callers::Trusted, _) => Ok(Self(None)),
            (Callers::Proved, Some(Caller(node))) => Ok(Self(Some(*node))),
            (Callers::Proved, None) => Err(Status::unauthenticated("a node certificate is needed here")),
        }
    }

    /// Refuses a peer that speaks in another's name.
    pub(crate) fn speaks_for(self, node: NodeId) -> Result<(), Status> {
        match self.0 {
            Some(caller) if caller != node => {
                Err(Status::permission_denied(format!("node {caller} speaks in the name of node {node}")))
            }
            _ => Ok(()),
        }
    }
}

fn garbled(error: CodecError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn invalid(error: std::io::Error) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Raft has stopped on this node: it can answer nobody any more.
fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("raft has stopped on this node: {error}"))
}

fn message(form: &impl serde::Serialize) -> Result<Message, Status> {
    Ok(Message { body: codec::encode(form).map_err(|error| Status::internal(error.to_string()))? })
}

fn append_request(proved: Proved, message: &Message) -> Result<AppendEntriesRequest<crate::types::TypeConfig>, Status> {
    let form: AppendForm = codec::decode(&message.body).map_err(garbled)?;
    proved.speaks_for(form.vote.node)?;
    form.try_into().map_err(invalid)
}

#[tonic::async_trait]
impl raft_server::Raft for RaftService {
    type AppendStream = BoxStream<'static, Result<Message, Status>>;

    async fn append(&self, request: Request<Streaming<Message>>) -> Result<Response<Self::AppendStream>, Status> {
        let proved = Proved::of(&request, self.callers)?;
        let refused = Arc::new(Mutex::new(None));
        let (noted, room) = (Arc::clone(&refused), Arc::clone(&self.disk));
        // openraft's stream has no place for errors: what is wrong with a request ends it, and is said at the end.
        let requests = tokio_stream::StreamExt::map_while(request.into_inner(), move |received| {
            let decoded = received.and_then(|message| append_request(proved, &message));
            // Behind, but alive and voting: what an append does that meets a full disk is to end the node.
            let decoded = match decoded {
                Ok(request) if !request.entries.is_empty() && room.is_short() => Err(full()),
                decoded => decoded,
            };
            decoded.map_err(|status| *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(status)).ok()
        });
        let answers = self.raft.stream_append(requests).map(|answer| match answer {
            Ok(result) => message(&AppendedForm::from(&result)),
            Err(fatal) => Err(stopped(fatal)),
        });
        let last = stream::once(async move { refused.lock().unwrap_or_else(PoisonError::into_inner).take() })
            .filter_map(async |status| status.map(Err));
        Ok(Response::new(answers.chain(last).boxed()))
    }

    async fn vote(&self, request: Request<Message>) -> Result<Response<Message>, Status> {
        let proved = Proved::of(&request, self.callers)?;
        let form: VoteRequestForm = codec::decode(&request.into_inner().body).map_err(garbled)?;
        proved.speaks_for(form.vote.node)?;
        let preliminary = form.preliminary;
        let request: VoteRequest<_> = form.into();
        let answer = if preliminary { self.raft.pre_vote(request).await } else { self.raft.vote(request).await };
        Ok(Response::new(message(&VoteReplyForm::from(&answer.map_err(stopped)?))?))
    }

    async fn transfer_leader(&self, request: Request<Message>) -> Result<Response<Message>, Status> {
        let proved = Proved::of(&request, self.callers)?;
        let form: TransferForm = codec::decode(&request.into_inner().body).map_err(garbled)?;
        proved.speaks_for(form.from.node)?;
        let request: TransferLeaderRequest<_> = form.into();
        let answer = self.raft.handle_transfer_leader(request).await.map_err(stopped)?;
        Ok(Response::new(message(&TransferredForm::from(&answer))?))
    }

    async fn snapshot(&self, request: Request<Streaming<SnapshotPiece>>) -> Result<Response<Message>, Status> {
        let proved = Proved::of(&request, self.callers)?;
        let mut pieces = request.into_inner();
        let first = pieces.message().await?.ok_or_else(|| Status::invalid_argument("an empty snapshot"))?;
        let head: SnapshotHeadForm = codec::decode(&first.head).map_err(garbled)?;
        proved.speaks_for(head.vote.node)?;
        if self.disk.look() {
            return Err(full());
        }
        let (vault, on) = (Arc::clone(&self.vault), self.vault.blocking());
        let mut incoming = blocking(on, move || vault.receive()).await?.map_err(disk)?;
        let mut piece = Some(first);
        while let Some(SnapshotPiece { data, .. }) = piece {
            if incoming.received() > head.bytes {
                return Err(Status::data_loss("more bytes than were announced"));
            }
            incoming = blocking(on, move || incoming.append(&data).map(|()| incoming)).await?.map_err(disk)?;
            piece = pieces.message().await?;
        }
        if incoming.received() != head.bytes {
            let what = format!("{} of {} bytes of the snapshot have arrived", incoming.received(), head.bytes);
            return Err(Status::data_loss(what));
        }
        let last = head.place.last.map(|last: LogIdForm| last.index);
        tracing::info!(leader = head.vote.node, last, "a snapshot has arrived");
        let vote: Vote = head.vote.into();
        let meta = head.place.try_into().map_err(invalid)?;
        let answer =
            self.raft.install_full_snapshot(vote, Snapshot { meta, snapshot: Offered::Incoming(incoming) }).await;
        Ok(Response::new(message(&VoteForm::from(&answer.map_err(stopped)?.vote))?))
    }
}

async fn blocking<T: Send + 'static>(on: Blocking, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    on.run(work).await.map_err(|_| Status::internal("a blocking task has ended early"))
}

fn full() -> Status {
    disk("there is no room for what is not needed to vote")
}

fn disk(error: impl std::fmt::Display) -> Status {
    Status::resource_exhausted(format!("this disk refuses: {error}"))
}
