//! Backups.

use super::{Admin, problem::Problem};
use futures::{StreamExt, stream::BoxStream};
use proto::admin::{SaveSnapshotRequest, SnapshotPiece, snapshots_server::Snapshots};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Snapshots for Admin {
    type SaveStream = BoxStream<'static, Result<SnapshotPiece, Status>>;

    async fn save(&self, _: Request<SaveSnapshotRequest>) -> Result<Response<Self::SaveStream>, Status> {
        let backup = self.raft().snapshot().await.map_err(Problem::from)?;
        let announced = backup.bytes;
        // Fewer bytes than were announced must not look like a good end.
        let pieces = ReceiverStream::new(backup.pieces).scan(0_u64, |sent, piece| {
            let piece = piece.inspect(|data| {
                *sent = sent.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
            });
            futures::future::ready(Some((piece, *sent)))
        });
        let stream = async_stream(pieces, announced);
        Ok(Response::new(stream))
    }
}

type Piece = (Result<bytes::Bytes, raft::ReadError>, u64);

fn async_stream(
    pieces: impl futures::Stream<Item = Piece> + Send + 'static,
    announced: u64,
) -> BoxStream<'static, Result<SnapshotPiece, Status>> {
    futures::stream::unfold((pieces.boxed(), 0_u64, false), move |(mut pieces, total, ended)| async move {
        if ended {
            return None;
        }
        match pieces.next().await {
            Some((Ok(data), sent)) => Some((Ok(SnapshotPiece { data: data.to_vec() }), (pieces, sent, false))),
            Some((Err(error), _)) => Some((Err(Problem::from(error).into()), (pieces, total, true))),
            None if total != announced => {
                let problem =
                    Problem::internal(format!("the snapshot has {total} bytes of {announced}: it is no good"));
                Some((Err(problem.into()), (pieces, total, true)))
            }
            None => None,
        }
    })
    .boxed()
}
