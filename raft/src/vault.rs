//! Where the applied state rests on disk: the checkpoint, which is quick to write and may be lost, and snapshot files,
//! which may not. Everything here blocks; callers bring their own thread.
//!
//! INVARIANT: the log is cut only up to the newest snapshot file that was read back whole after it was written, and the
//! checkpoint is never behind that file. So a node whose checkpoint folder is gone or damaged comes back from the file
//! and the log, and one whose snapshot file is damaged comes back from the checkpoint. `tests/restart.rs` watches both.
//!
//! A snapshot of a large state is dear, so it is written only when at least as much log has gathered as the last one
//! was large (see `upkeep`); checkpoints are written often, and hold only what has changed.

use crate::{
    applied::Applied,
    codec::{
        self,
        form::{LogIdForm, PlaceForm},
    },
    ground::{Blocking, Ground},
    start::Folders,
    types::lock,
};
use machine::{Record, RecordKey, State};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
    mpsc::sync_channel,
};
use storage::{
    Checkpoint, KeyValue,
    fs::File,
    snapshot::{Incoming, Reader, Snapshots, Stored},
};

/// Records that are handed over to be decoded at a time.
const BATCH_RECORDS: usize = 1024;

/// Batches that may wait to be decoded.
const BATCHES_WAITING: usize = 8;

/// Why the vault cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VaultError {
    /// The disk refused, or holds damage.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// A record is not one.
    #[error(transparent)]
    Codec(#[from] codec::CodecError),
    /// The records are not those of a state.
    #[error(transparent)]
    Records(#[from] machine::record::InvalidRecords),
    /// The snapshot is not the one that was announced.
    #[error("the snapshot is not the one that was announced")]
    Mismatch,
    /// The snapshot file cannot be opened any more.
    #[error("the snapshot file: {0}")]
    Gone(String),
}

impl From<VaultError> for std::io::Error {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Storage(error) => crate::adapt::log::disk(error),
            other => Self::new(std::io::ErrorKind::InvalidData, other),
        }
    }
}

/// A snapshot file, and where the state in it stands.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) stored: Stored,
    pub(crate) place: PlaceForm,
}

/// A snapshot on its way in: a file of ours, or bytes that have just arrived and are not verified yet.
#[derive(Debug)]
pub(crate) enum Offered {
    Held(Held),
    Incoming(Incoming),
}

/// The checkpoint and the snapshot files of one node.
pub(crate) struct Vault {
    snapshots: Snapshots,
    newest: Mutex<Option<Held>>,
    /// Held while a snapshot file is written: one at a time.
    writing: Mutex<()>,
    /// The newest snapshot has just been written for openraft, which is about to ask for it.
    ordered: AtomicBool,
    /// `None` once it is closed.
    checkpoint: Mutex<Option<Slot>>,
    blocking: Blocking,
}

/// The checkpoint, and the state in it: what the next one is compared with. `None` if it must be written whole.
struct Slot {
    store: Checkpoint,
    last: Option<(State, Option<LogIdForm>)>,
}

impl Vault {
    /// Opens the folders and reads the checkpoint. Without one the state is empty, and openraft takes in the newest
    /// snapshot before it goes on with the log.
    pub(crate) fn open(folders: &Folders, ground: &Ground) -> Result<(Self, Applied), VaultError> {
        let snapshots = match ground {
            Ground::System => Snapshots::open(&folders.snapshots)?,
            Ground::Simulated(ground) => Snapshots::open_on(Arc::clone(&ground.files), &folders.snapshots)?,
        };
        let newest = newest(&snapshots)?;
        let (writing, ordered) = (Mutex::new(()), AtomicBool::new(false));
        let (newest, blocking) = (Mutex::new(newest), ground.blocking());
        if let Ground::Simulated(_) = ground {
            let checkpoint = Mutex::new(None);
            return Ok((Self { snapshots, newest, writing, ordered, checkpoint, blocking }, Applied::default()));
        }
        let mut store = Checkpoint::open(&folders.checkpoint)?;
        let (applied, last) = match load(&mut store) {
            Ok(Some(applied)) => {
                let last = (applied.state.clone(), applied.last);
                (applied, Some(last))
            }
            Ok(None) => {
                if let Some(why) = store.discarded() {
                    tracing::warn!(why, "the checkpoint was thrown away: the state is rebuilt from snapshot and log");
                }
                (Applied::default(), None)
            }
            Err(error) => {
                tracing::warn!(%error, "the checkpoint is unusable: the state is rebuilt from snapshot and log");
                (Applied::default(), None)
            }
        };
        let checkpoint = Mutex::new(Some(Slot { store, last }));
        Ok((Self { snapshots, newest, writing, ordered, checkpoint, blocking }, applied))
    }

    /// Where to do what blocks.
    pub(crate) fn blocking(&self) -> Blocking {
        self.blocking
    }

    /// The bytes of a snapshot file.
    pub(crate) fn file(&self, held: &Held) -> Result<Box<dyn File>, VaultError> {
        Ok(self.snapshots.file(&held.stored)?)
    }

    /// The newest snapshot file.
    pub(crate) fn newest(&self) -> Option<Held> {
        lock(&self.newest).clone()
    }

    /// Writes what has changed since the last checkpoint. Returns how many records that were.
    pub(crate) fn checkpoint(&self, applied: &Applied) -> Result<usize, VaultError> {
        let mut slot = lock(&self.checkpoint);
        let Some(slot) = slot.as_mut() else { return Ok(0) };
        let index = |last: Option<LogIdForm>| last.map(|last| last.index);
        if slot.last.as_ref().is_some_and(|(_, last)| index(*last) >= index(applied.last)) {
            return Ok(0);
        }
        let marker = codec::encode(&applied.place())?;
        // Taken out: after an error there is nothing on disk to build on, and the next one is written whole.
        let written = match slot.last.take() {
            Some((before, _)) => {
                let changes = applied
                    .state
                    .changes_since(&before)
                    .into_iter()
                    .map(|(key, record)| {
                        Ok((codec::encode_plain(&key)?, record.map(|record| value(&record)).transpose()?))
                    })
                    .collect::<Result<Vec<_>, VaultError>>()?;
                let written = changes.len();
                slot.store.commit(changes, marker)?;
                written
            }
            None => replace(&mut slot.store, applied, marker)?,
        };
        slot.last = Some((applied.state.clone(), applied.last));
        Ok(written)
    }

    /// Writes a snapshot file of this state, reads it back, and removes older ones.
    pub(crate) fn snapshot(&self, applied: &Applied) -> Result<Held, VaultError> {
        let _writing = lock(&self.writing);
        if let Some(held) = self.newest().filter(|held| held.place.last == applied.last && applied.last.is_some())
            && self.snapshots.read(&held.stored).and_then(Reader::verify).is_ok()
        {
            return Ok(held);
        }
        self.checkpoint(applied)?;
        let place = applied.place();
        let mut writer = self.snapshots.write(applied.index(), codec::encode(&place)?)?;
        for (key, record) in applied.state.records() {
            writer.put(&codec::encode_plain(&key)?, &value(&record)?)?;
        }
        let held = Held { stored: writer.finish()?, place };
        self.snapshots.read(&held.stored)?.verify()?;
        self.keep(&held);
        Ok(held)
    }

    /// Writes a snapshot file for openraft to take note of. Written before it is asked for: a failure in there would
    /// stop the node, and a full disk must not.
    pub(crate) fn order(&self, applied: &Applied) -> Result<Held, VaultError> {
        let held = self.snapshot(applied)?;
        self.ordered.store(true, Ordering::Release);
        Ok(held)
    }

    /// The snapshot that was ordered, or else one that is written now.
    pub(crate) fn deliver(&self, applied: &Applied) -> Result<Held, VaultError> {
        match self.newest().filter(|_| self.ordered.swap(false, Ordering::AcqRel)) {
            Some(held) => Ok(held),
            None => self.snapshot(applied),
        }
    }

    /// Closes the checkpoint: then its folder may be opened again.
    pub(crate) fn close(&self) {
        *lock(&self.checkpoint) = None;
    }

    /// A place for the bytes of a snapshot file from elsewhere.
    pub(crate) fn receive(&self) -> Result<Incoming, VaultError> {
        Ok(self.snapshots.receive()?)
    }

    /// Takes in a snapshot: verifies it, makes it this node's newest, and puts it into the checkpoint.
    pub(crate) fn install(&self, offered: Offered, last: Option<LogIdForm>) -> Result<Applied, VaultError> {
        let stored = match offered {
            Offered::Held(held) => held.stored,
            Offered::Incoming(incoming) => incoming.finish()?,
        };
        let (applied, place) = self.read(&stored)?;
        if place.last != last {
            return Err(VaultError::Mismatch);
        }
        self.keep(&Held { stored, place });
        let mut slot = lock(&self.checkpoint);
        let Some(slot) = slot.as_mut() else { return Ok(applied) };
        // Whole, and not compared with what is there: that may belong to entries that were never committed.
        slot.last = None;
        replace(&mut slot.store, &applied, codec::encode(&applied.place())?)?;
        slot.last = Some((applied.state.clone(), applied.last));
        Ok(applied)
    }

    /// Reads a snapshot file whole, and says whether it is sound. A damaged one is replaced by one of this state.
    pub(crate) fn renew_if_damaged(&self, held: &Held, applied: &Applied) -> Result<bool, VaultError> {
        let Err(error) = self.snapshots.read(&held.stored).and_then(Reader::verify) else { return Ok(true) };
        tracing::error!(%error, "a snapshot file is damaged and written anew: check this disk");
        self.snapshot(applied)?;
        Ok(false)
    }

    fn keep(&self, held: &Held) {
        {
            let mut newest = lock(&self.newest);
            if newest.as_ref().is_some_and(|newest| newest.stored.index > held.stored.index) {
                return;
            }
            *newest = Some(held.clone());
        }
        if let Err(error) = self.snapshots.remove_older_than(held.stored.index) {
            tracing::warn!(%error, "old snapshots could not be removed");
        }
    }

    fn read(&self, stored: &Stored) -> Result<(Applied, PlaceForm), VaultError> {
        let reader = self.snapshots.read(stored)?;
        let place: PlaceForm = codec::decode(reader.head())?;
        Ok((Applied::new(state_of(reader)?, place.last, place.membership.clone()), place))
    }
}

/// The state in a snapshot file, read to the end.
pub(crate) fn state_of(mut reader: Reader) -> Result<State, VaultError> {
    decode_aside(|batch| {
        for record in reader.by_ref().take(BATCH_RECORDS) {
            batch.push(record?);
        }
        Ok(())
    })
}

/// The newest snapshot file whose head can be read. Its records are verified when they are needed.
fn newest(snapshots: &Snapshots) -> Result<Option<Held>, VaultError> {
    for stored in snapshots.list()?.into_iter().rev() {
        let head = snapshots.read(&stored).map_err(VaultError::from);
        match head.and_then(|reader| Ok(codec::decode::<PlaceForm>(reader.head())?)) {
            Ok(place) => return Ok(Some(Held { stored, place })),
            Err(error) => tracing::warn!(%error, file = %stored.path.display(), "a snapshot file is passed over"),
        }
    }
    Ok(None)
}

fn load(store: &mut Checkpoint) -> Result<Option<Applied>, VaultError> {
    let loaded = store.load(|loading| {
        let place: PlaceForm = codec::decode(&loading.marker)?;
        let state = decode_aside(|batch| {
            batch.extend(loading.records.by_ref().take(BATCH_RECORDS));
            Ok(())
        })?;
        Ok(Applied::new(state, place.last, place.membership))
    })?;
    loaded.transpose()
}

/// The state that records make, decoded on a thread of its own while the next ones are read: a node with a million keys starts in
/// little more than half the time. `read` adds a batch of records; the first empty one is the end.
fn decode_aside(mut read: impl FnMut(&mut Vec<KeyValue>) -> Result<(), VaultError>) -> Result<State, VaultError> {
    let (hand_over, batches) = sync_channel::<Vec<KeyValue>>(BATCHES_WAITING);
    std::thread::scope(|scope| {
        let decoding = scope.spawn(move || {
            let mut failed = None;
            let records = batches
                .into_iter()
                .flatten()
                .map_while(|(key, value)| decode(&key, &value).map_err(|error| failed = Some(error)).ok());
            let state = State::from_records(records);
            match failed {
                Some(error) => Err(error),
                None => Ok(state?),
            }
        });
        let failed = loop {
            let mut batch = Vec::with_capacity(BATCH_RECORDS);
            let failed = read(&mut batch).err();
            // Nobody takes it any more after a record that cannot be decoded.
            if failed.is_some() || batch.is_empty() || hand_over.send(batch).is_err() {
                break failed;
            }
        };
        drop(hand_over);
        let state = decoding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        failed.map_or(state, Err)
    })
}

fn replace(store: &mut Checkpoint, applied: &Applied, marker: bytes::Bytes) -> Result<usize, VaultError> {
    let mut failed = None;
    let mut written = 0;
    let records = applied.state.records().map_while(|(key, record)| {
        let encoded = codec::encode_plain(&key).map_err(VaultError::from).and_then(|key| Ok((key, value(&record)?)));
        written += 1;
        encoded.map_err(|error| failed = Some(error)).ok()
    });
    let replaced = store.replace(records, marker);
    if let Some(error) = failed {
        return Err(error);
    }
    replaced?;
    Ok(written)
}

fn value(record: &Record) -> Result<Vec<u8>, VaultError> {
    Ok(codec::encode(record)?.into())
}

fn decode(key: &[u8], value: &[u8]) -> Result<(RecordKey, Record), VaultError> {
    Ok((codec::decode_plain(key)?, codec::decode(value)?))
}
