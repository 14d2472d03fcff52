//! `quoratectl snapshot`: backups of the whole replicated state. Their format is the nodes' business: here they are bytes, and
//! to look into one is left to the program `quorate`, of the same release as the nodes.

use crate::exit::{Exit, Failure};
use crate::file::Aside;
use crate::render::{Answer, Block, Format, Printer};
use crate::session::Session;
use proto::admin::SaveSnapshotRequest;
use proto::admin::snapshots_client::SnapshotsClient;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Writes a backup into a new file.
pub async fn save(session: &Session, path: PathBuf) -> Result<Answer, Failure> {
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

/// Has `quorate` look into a snapshot file, and prints what it says.
pub fn inspect(file: &Path, printer: Printer) -> Result<(), Failure> {
    let output = if printer.format() == Format::Table { "text" } else { "json" };
    let beside =
        std::env::current_exe().ok().map(|own| own.with_file_name("quorate")).filter(|program| program.is_file());
    let program = beside.unwrap_or_else(|| PathBuf::from("quorate"));
    let ran = Command::new(&program).args(["snapshot", "inspect", "--output", output, "--"]).arg(file).output();
    let ran = ran.map_err(|error| {
        let message = format!("cannot run {}, which knows the format of snapshots: {error}", program.display());
        Failure::local(message).with_hint("put quorate beside quoratectl or on the PATH, or run it on a node")
    })?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        let message = said.trim().trim_start_matches("quorate: ").to_owned();
        let hint =
            "restore or keep another backup; if it was saved by a newer release, use the quorate of that release";
        return Err(Failure::new(Exit::Refused, "bad_snapshot", message, hint));
    }
    let said = String::from_utf8_lossy(&ran.stdout);
    if output == "text" {
        return printer.raw(&said);
    }
    let data: serde_json::Value =
        serde_json::from_str(&said).map_err(|_| Failure::malformed("what quorate says of the snapshot"))?;
    printer.answer(&Answer::new(data, Vec::new()))
}

fn broken_off(why: &str) -> Failure {
    let hint = "no file was written; call it again";
    Failure::new(Exit::Unreachable, "broken_off", format!("the snapshot broke off: {why}"), hint)
}
