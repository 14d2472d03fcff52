//! `quoratectl snapshot save`: a backup of the whole replicated state. Its format is the nodes' business: here it is
//! bytes, and looking into one is done where a node's programs are.

use crate::command_line::SnapshotVerb;
use crate::exit::{Exit, Failure};
use crate::file::Aside;
use crate::render::{Answer, Block};
use crate::session::Session;
use proto::admin::SaveSnapshotRequest;
use proto::admin::snapshots_client::SnapshotsClient;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

/// Does one of its verbs.
pub async fn run(session: &Session, verb: SnapshotVerb) -> Result<Answer, Failure> {
    match verb {
        SnapshotVerb::Save { file } => save(session, file).await,
    }
}

async fn save(session: &Session, path: PathBuf) -> Result<Answer, Failure> {
    #[derive(Serialize)]
    struct Data {
        file: String,
        bytes: u64,
        elapsed_ms: u64,
    }
    if path.symlink_metadata().is_ok() {
        return Err(Failure::usage(format!("{} exists already", path.display()), "name a new file"));
    }
    let began = Instant::now();
    // A snapshot holds the hashes of all credentials.
    let aside = Aside::create(&path, 0o600)?;
    let call = async |channel| SnapshotsClient::new(channel).save(SaveSnapshotRequest {}).await;
    let mut pieces = session.client.read(call).await?;
    let mut bytes = 0u64;
    // However large it is, it is alive while pieces come.
    while let Some(piece) = tokio::time::timeout(session.client.timeout(), pieces.message())
        .await
        .map_err(|_| broken_off("nothing came for too long"))?
        .map_err(|status| broken_off(&session.client.failure(&status).message))?
    {
        aside.write(&piece.data)?;
        bytes = bytes.saturating_add(piece.data.len() as u64);
    }
    if bytes == 0 {
        return Err(broken_off("it is empty"));
    }
    aside.publish()?;
    let file = path.display().to_string();
    let elapsed_ms = crate::duration::millis(began.elapsed());
    let text = format!("{file}: {bytes} bytes ({elapsed_ms} ms).");
    Ok(Answer::new(Data { file, bytes, elapsed_ms }, vec![Block::Text(text)]))
}

fn broken_off(why: &str) -> Failure {
    let hint = "no file was written; call it again";
    Failure::new(Exit::Unreachable, "broken_off", format!("the snapshot broke off: {why}"), hint)
}
