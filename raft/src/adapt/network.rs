//! openraft's calls to a peer, over the peer protocol. Appends are pipelined on one stream ([`super::append`]); a stream
//! that has entries on the way and hears nothing for an election's time is given up, so that a hung peer is dialed anew.

use super::append::{Appends, End};
use crate::{
    applied::Applied,
    codec::{
        self, CodecError,
        form::{SnapshotHeadForm, TransferForm, TransferredForm, VoteForm, VoteReplyForm, VoteRequestForm},
    },
    peers::{Link, Peers},
    types::{LeaderId, Peer, TypeConfig, Vote},
    vault::{Held, Offered, Vault},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, future::BoxFuture, stream::BoxStream};
use machine::member::NodeId;
use openraft::{
    OptionalSend, RPCTypes, RaftNetworkFactory, Snapshot,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::{Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption},
    raft::{
        AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse,
        VoteRequest, VoteResponse,
    },
};
use proto::peer::{Message, SnapshotPiece, raft_client::RaftClient};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use storage::fs::File;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, transport::Channel};

/// The largest message of the peer protocol: one log entry is smaller, and no batch that is sent is larger unless it is
/// one entry.
pub(crate) const MESSAGE_BYTES_MAX: usize = 24 * 1024 * 1024;

/// Bytes of a snapshot file sent at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// Pieces read ahead of the network.
const PIECES_AHEAD: usize = 4;

/// A snapshot of which no byte moves for so long is given up; taking it in (one piece, at the end) is within it too.
const SNAPSHOT_STALL: Duration = Duration::from_secs(60);

/// After a peer could not be reached, appends wait for so long.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(100);

/// Makes the clients to all peers.
pub(crate) struct Network {
    pub(crate) node: NodeId,
    pub(crate) peers: Arc<Peers>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) applied: watch::Receiver<Arc<Applied>>,
    /// An append that is not answered for so long breaks its stream.
    pub(crate) stall: Duration,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: NodeId, _: &Peer) -> Client {
        Client {
            node: self.node,
            target,
            peers: Arc::clone(&self.peers),
            vault: Arc::clone(&self.vault),
            applied: self.applied.clone(),
            stall: self.stall,
        }
    }
}

/// The client to one peer.
pub(crate) struct Client {
    node: NodeId,
    target: NodeId,
    peers: Arc<Peers>,
    vault: Arc<Vault>,
    applied: watch::Receiver<Arc<Applied>>,
    stall: Duration,
}

type Failure = RPCError<TypeConfig>;

impl Client {
    async fn link(&self) -> Result<(RaftClient<Channel>, Link), Failure> {
        let link = self.peers.link(self.target).await.map_err(|error| Unreachable::new(&error))?;
        let client = RaftClient::new(link.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok((client, link))
    }

    fn timed_out(&self, action: RPCTypes, timeout: Duration) -> Failure {
        RPCError::Timeout(Timeout { action, id: self.node, target: self.target, timeout })
    }

    /// One request and one answer, within the time that openraft gives.
    async fn ask<F>(
        &self,
        action: RPCTypes,
        option: &RPCOption,
        call: impl FnOnce(RaftClient<Channel>) -> F,
    ) -> Result<Bytes, Failure>
    where
        F: Future<Output = Result<tonic::Response<Message>, Status>>,
    {
        let within = option.soft_ttl();
        let exchange = async {
            let (client, link) = self.link().await?;
            call(client).await.map_err(|status| failure(&self.peers, &link, &status))
        };
        match tokio::time::timeout(within, exchange).await {
            Ok(answer) => Ok(answer?.into_inner().body),
            Err(_) => Err(self.timed_out(action, within)),
        }
    }

    async fn request_vote(
        &self,
        request: &VoteRequest<TypeConfig>,
        preliminary: bool,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        let body = codec::encode(&VoteRequestForm::new(request, preliminary)).map_err(garbled)?;
        let answer = self.ask(RPCTypes::Vote, option, |mut client| async move { client.vote(Message { body }).await });
        let form: VoteReplyForm = codec::decode(&answer.await?).map_err(garbled)?;
        Ok(form.into())
    }

    async fn send_snapshot(&self, vote: Vote, held: &Held) -> Result<Vote, Failure> {
        self.verify(held).await?;
        let head = SnapshotHeadForm { vote: (&vote).into(), place: held.place.clone(), bytes: held.stored.bytes };
        let head = codec::encode(&head).map_err(garbled)?;
        let (mut client, link) = self.link().await?;
        let moved = Arc::new(AtomicU64::new(0));
        let pieces = pieces(head, Arc::clone(&self.vault), held.clone(), Arc::clone(&moved));
        let call = client.snapshot(pieces);
        tokio::pin!(call);
        let mut before = 0;
        let answer = loop {
            tokio::select! {
                answer = &mut call => break answer,
                () = tokio::time::sleep(SNAPSHOT_STALL) => {
                    let now = moved.load(Ordering::Relaxed);
                    if now == before {
                        self.peers.complain(&link);
                        return Err(self.timed_out(RPCTypes::InstallSnapshot, SNAPSHOT_STALL));
                    }
                    before = now;
                }
            }
        };
        match answer {
            Ok(answer) => {
                let vote: VoteForm = codec::decode(&answer.into_inner().body).map_err(garbled)?;
                Ok(vote.into())
            }
            Err(status) => Err(failure(&self.peers, &link, &status)),
        }
    }

    /// Reads the file whole before a byte is sent: a newcomer must not be stopped by damage on this disk. A damaged
    /// file is written anew, and the next attempt sends that.
    async fn verify(&self, held: &Held) -> Result<(), Failure> {
        let (vault, held, applied) = (Arc::clone(&self.vault), held.clone(), Arc::clone(&self.applied.borrow()));
        let verified = self.vault.blocking().run(move || vault.renew_if_damaged(&held, &applied)).await;
        match verified {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(Unreachable::from_string("the snapshot file was damaged and is written anew").into()),
            Ok(Err(error)) => Err(Unreachable::new(&error).into()),
            Err(error) => Err(Unreachable::new(&error).into()),
        }
    }
}

/// The bytes of a snapshot file as messages, read a few pieces ahead.
fn pieces(
    head: Bytes,
    vault: Arc<Vault>,
    held: Held,
    moved: Arc<AtomicU64>,
) -> impl Stream<Item = SnapshotPiece> + Send + 'static {
    let (send, receive) = mpsc::channel(PIECES_AHEAD);
    tokio::spawn(async move {
        let path = held.stored.path.clone();
        // When it fails, the stream ends early; the peer sees that the file is not whole.
        if let Err(error) = send_pieces(head, &vault, held, moved, &send).await {
            tracing::warn!(%error, file = %path.display(), "snapshot file");
        }
    });
    ReceiverStream::new(receive)
}

async fn send_pieces(
    mut head: Bytes,
    vault: &Arc<Vault>,
    held: Held,
    moved: Arc<AtomicU64>,
    send: &mpsc::Sender<SnapshotPiece>,
) -> io::Result<()> {
    let on = vault.blocking();
    let vault = Arc::clone(vault);
    let file: Arc<dyn File> = on.run(move || vault.file(&held)).await??.into();
    let mut offset = 0_u64;
    loop {
        let from = Arc::clone(&file);
        let read = on.run(move || {
            let mut data = vec![0; PIECE_BYTES];
            let read = from.read_at(&mut data, offset)?;
            data.truncate(read);
            io::Result::Ok(data)
        });
        let data = read.await??;
        if data.is_empty() {
            return Ok(());
        }
        offset = offset.saturating_add(data.len() as u64);
        let piece = SnapshotPiece { head: std::mem::take(&mut head), data: data.into() };
        if send.send(piece).await.is_err() {
            return Ok(());
        }
        moved.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a failed call means for openraft. It waits a little longer before the next call to an unreachable peer.
fn failure(peers: &Peers, link: &Link, status: &Status) -> Failure {
    peers.blame(link, status);
    RPCError::Unreachable(Unreachable::from_string(format!("{:?}: {}", status.code(), status.message())))
}

fn garbled(error: CodecError) -> Failure {
    RPCError::Network(NetworkError::new(&error))
}

impl NetStreamAppend<TypeConfig> for Client {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, Failure>>, Failure>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let (appends, requests) = Appends::new(input, self.stall);
            let (mut client, link) = match self.link().await {
                Ok(linked) => linked,
                Err(error) => {
                    // openraft's own pause begins only once it has handed out a request.
                    tokio::time::sleep(UNREACHABLE_PAUSE).await;
                    return Err(error);
                }
            };
            let answers = match tokio::time::timeout(self.stall, client.append(requests)).await {
                Ok(Ok(answers)) => answers.into_inner(),
                Ok(Err(status)) => return Err(failure(&self.peers, &link, &status)),
                Err(_) => {
                    self.peers.complain(&link);
                    return Err(self.timed_out(RPCTypes::AppendEntries, self.stall));
                }
            };
            let this: &Self = self;
            let results = appends.results(answers, move |end| match end {
                End::Failed(status) => failure(&this.peers, &link, &status),
                End::Silent => {
                    this.peers.complain(&link);
                    this.timed_out(RPCTypes::AppendEntries, this.stall)
                }
                End::Garbled(error) => garbled(error),
                End::Unanswered(count) => {
                    let what = format!("the peer has ended the stream with {count} appends unanswered");
                    Unreachable::from_string(what).into()
                }
                End::Hollow => RPCError::Network(NetworkError::from_string(
                    "what the peer was to be sent is no longer in the log; it is looked at anew",
                )),
            });
            Ok(results.boxed())
        })
    }
}

impl NetVote<TypeConfig> for Client {
    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        self.request_vote(&request, false, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        self.request_vote(&request, true, &option).await
    }
}

impl NetSnapshot<TypeConfig> for Client {
    type SnapshotData = Offered;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<LeaderId, NodeId, Peer, Offered>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let Offered::Held(held) = snapshot.snapshot else {
            let unreachable = Unreachable::from_string("the snapshot is still on its way in");
            return Err(StreamingError::Unreachable(unreachable));
        };
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, &held) => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(RPCError::Timeout(error)) => Err(StreamingError::Timeout(error)),
                Err(RPCError::Network(error)) => Err(StreamingError::Network(error)),
                Err(RPCError::Unreachable(error)) => Err(StreamingError::Unreachable(error)),
                Err(RPCError::RemoteError(error)) => match error.source {},
            },
        }
    }
}

impl NetTransferLeader<TypeConfig> for Client {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Failure> {
        let body = codec::encode(&TransferForm::from(&request)).map_err(garbled)?;
        let answer = self.ask(RPCTypes::TransferLeader, &option, |mut client| async move {
            client.transfer_leader(Message { body }).await
        });
        let form: TransferredForm = codec::decode(&answer.await?).map_err(garbled)?;
        Ok(form.into())
    }
}

impl NetBackoff<TypeConfig> for Client {
    fn backoff(&self) -> Option<Backoff> {
        let pauses = [50_u64, 100, 200, 400].map(Duration::from_millis).into_iter();
        Some(Backoff::new(pauses.chain(std::iter::repeat(Duration::from_millis(500)))))
    }
}
