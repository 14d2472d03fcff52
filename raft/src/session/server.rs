//! What nodes ask of the leader: the serving side.
use futures::stream::BoxStream;
use proto::peer::{
    Advice, ObserveReply, ObserveRequest, ProposeReply, ProposeRequest, ReadIndexReply, ReadIndexRequest, Report,
    TransferToReply, TransferToRequest, leader_server::Leader,
};
use tonic::{Request, Response, Status, Streaming};
/// Serves the leader's part to members.
#[derive(Clone)]
pub struct LeaderService;
#[tonic::async_trait]
impl Leader for LeaderService {
    type SessionStream = BoxStream<'static, Result<Advice, Status>>;
    async fn propose(&self, _: Request<ProposeRequest>) -> Result<Response<ProposeReply>, Status> {
        Err(Status::unavailable("not yet"))
    }
    async fn read_index(&self, _: Request<ReadIndexRequest>) -> Result<Response<ReadIndexReply>, Status> {
        Err(Status::unavailable("not yet"))
    }
    async fn session(&self, _: Request<Streaming<Report>>) -> Result<Response<Self::SessionStream>, Status> {
        Err(Status::unavailable("not yet"))
    }
    async fn observe(&self, _: Request<ObserveRequest>) -> Result<Response<ObserveReply>, Status> {
        Err(Status::unavailable("not yet"))
    }
    async fn transfer_to(&self, _: Request<TransferToRequest>) -> Result<Response<TransferToReply>, Status> {
        Err(Status::unavailable("not yet"))
    }
}
