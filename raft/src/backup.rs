//! A backup: a snapshot file of the state after everything acknowledged, handed out piece by piece.

use crate::{
    handle::{Backup, ReadError},
    node::Node,
    vault::VaultError,
};
use bytes::Bytes;
use std::{fs::File, io::Read, sync::Arc};
use tokio::sync::mpsc;

/// Bytes handed out at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// Pieces read ahead of whoever takes them.
const PIECES_AHEAD: usize = 4;

type Pieces = mpsc::Sender<Result<Bytes, ReadError>>;

impl Node {
    /// See [`crate::Handle::snapshot`].
    pub(crate) async fn snapshot(&self) -> Result<Backup, ReadError> {
        self.read().await?;
        let (vault, applied) = (Arc::clone(&self.vault), self.applied());
        // Opened at once: a newer snapshot removes this one's name, and not what is open.
        let write = move || -> Result<_, VaultError> {
            let held = vault.snapshot(&applied)?;
            let file = File::open(&held.stored.path).map_err(|error| VaultError::Gone(error.to_string()))?;
            Ok((held, file))
        };
        let (held, file) = match tokio::task::spawn_blocking(write).await {
            Ok(Ok(written)) => written,
            Ok(Err(error)) => return Err(ReadError::Snapshot(error.to_string())),
            Err(error) => return Err(ReadError::Snapshot(error.to_string())),
        };
        let (send, pieces) = mpsc::channel(PIECES_AHEAD);
        // Ends with the file, or when nobody takes the pieces any more.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = read(file, &send) {
                // Nobody listens, or they hear that the backup is no good.
                let _: Result<_, _> = send.blocking_send(Err(ReadError::Snapshot(error.to_string())));
            }
        });
        let index = held.place.last.map_or(0, |last| last.index);
        Ok(Backup { index, revision: held.place.revision, at: held.place.at, bytes: held.stored.bytes, pieces })
    }
}

fn read(mut file: File, send: &Pieces) -> std::io::Result<()> {
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        if file.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece)? == 0 {
            return Ok(());
        }
        if send.blocking_send(Ok(Bytes::from(piece))).is_err() {
            return Ok(());
        }
    }
}
