//! Raft between peers: the serving side.
use futures::stream::BoxStream;
use proto::peer::{Message, SnapshotPiece, raft_server::Raft};
use tonic::{Request, Response, Status, Streaming};
/// Serves raft to peers.
#[derive(Clone)]
pub struct RaftService;
#[tonic::async_trait]
impl Raft for RaftService {
    type AppendStream = BoxStream<'static, Result<Message, Status>>;
    async fn append(&self, _: Request<Streaming<Message>>) -> Result<Response<Self::AppendStream>, Status> {
        Err(Status::unavailable("not yet"))
    }
    async fn vote(&self, _: Request<Message>) -> Result<Response<Message>, Status> {
        Err(Status::unavailable("not yet"))
    }
    async fn transfer_leader(&self, _: Request<Message>) -> Result<Response<Message>, Status> {
        Err(Status::unavailable("not yet"))
    }
    async fn snapshot(&self, _: Request<Streaming<SnapshotPiece>>) -> Result<Response<Message>, Status> {
        Err(Status::unavailable("not yet"))
    }
}
