//! Doors for fuzzing: bytes from a log, a snapshot or a peer, taken through everything that reads them here, and back.
//! Only built with the feature `fuzzing`; the targets, and what they check of what comes out, are in `chaos/fuzz`.

use crate::{
    codec::{
        self,
        form::{
            AppendEntriesRequest, AppendForm, AppendedForm, EntryForm, PayloadForm, PlaceForm, SnapshotHeadForm,
            StreamAppendResult, TransferForm, TransferLeaderRequest, TransferLeaderResponse, TransferredForm, VoteForm,
            VoteReplyForm, VoteRequest, VoteRequestForm, VoteResponse,
        },
    },
    forward,
    session::table::{Said, Table},
    status::Observed,
    types::{LogEntry, SnapshotMeta, TypeConfig, Vote},
    vault,
};
use machine::{Entry, State};
use proto::peer::{self, ProposeReply, Report};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt::Debug, sync::Arc, time::Duration};
use storage::snapshot::Reader;

/// A whole record around a content: mutated bytes would nearly always end at the checksum.
#[must_use]
pub fn record(content: &[u8]) -> Vec<u8> {
    codec::record_of(content)
}

/// What a record holds, if its content can be read. What was read is written and read again: the same.
///
/// # Panics
/// If it is not the same.
pub fn value<T: DeserializeOwned + Serialize + PartialEq + Debug>(content: &[u8]) -> Option<T> {
    let value: T = codec::decode(&record(content)).ok()?;
    match codec::encode(&value) {
        Ok(written) => assert_eq!(codec::decode::<T>(&written).as_ref(), Ok(&value), "it is read as something else"),
        // A form of fewer bytes than the record it came from cannot be too large.
        Err(error) => assert_eq!(error.to_string(), "", "what was read cannot be written"),
    }
    Some(value)
}

/// The proposals in an entry of the log, if these bytes are one.
///
/// # Panics
/// If the entry that raft gets is not the one that was written.
#[must_use]
pub fn log_entry(content: &[u8]) -> Option<Arc<Entry>> {
    let form: EntryForm = value(content)?;
    let entry = LogEntry::try_from(form).ok()?;
    let form = EntryForm::from(&entry);
    let again = LogEntry::try_from(form.clone()).ok();
    assert_eq!(again.as_ref().map(EntryForm::from).as_ref(), Some(&form), "an entry changes on its way");
    match form.payload {
        PayloadForm::Proposals(entry) => Some(entry),
        PayloadForm::Blank | PayloadForm::Membership(_) => None,
    }
}

/// How many kinds of messages [`raft_message`] knows.
pub const RAFT_MESSAGES: u8 = 8;

/// A message between nodes in raft's own protocol, of the kind with this number.
///
/// # Panics
/// If what raft gets is not what was sent.
pub fn raft_message(kind: u8, content: &[u8]) {
    match kind % RAFT_MESSAGES {
        0 => {
            let Some(form) = value::<AppendForm>(content) else { return };
            let Ok(request) = AppendEntriesRequest::<TypeConfig>::try_from(form) else { return };
            let form = AppendForm::from(&request);
            let again = AppendEntriesRequest::<TypeConfig>::try_from(form.clone()).ok();
            assert_eq!(again.as_ref().map(AppendForm::from), Some(form), "an append changes on its way");
        }
        1 => same(content, |form: &AppendedForm| {
            AppendedForm::from(&StreamAppendResult::<TypeConfig>::from(form.clone()))
        }),
        2 => same(content, |form: &VoteRequestForm| {
            VoteRequestForm::new(&VoteRequest::<TypeConfig>::from(form.clone()), form.preliminary)
        }),
        3 => same(content, |form: &VoteReplyForm| VoteReplyForm::from(&VoteResponse::<TypeConfig>::from(form.clone()))),
        4 => same(content, |form: &TransferForm| {
            TransferForm::from(&TransferLeaderRequest::<TypeConfig>::from(form.clone()))
        }),
        5 => same(content, |form: &TransferredForm| {
            TransferredForm::from(&TransferLeaderResponse::<TypeConfig>::from(form.clone()))
        }),
        6 => same(content, |form: &VoteForm| VoteForm::from(&Vote::from(*form))),
        _ => {
            let Some(head) = value::<SnapshotHeadForm>(content) else { return };
            // A membership that raft does not take is refused before the snapshot is installed.
            let _: Result<SnapshotMeta, _> = head.place.try_into();
        }
    }
}

fn same<F: DeserializeOwned + Serialize + PartialEq + Debug>(content: &[u8], there_and_back: impl Fn(&F) -> F) {
    if let Some(form) = value::<F>(content) {
        assert_eq!(there_and_back(&form), form, "a message changes on its way");
    }
}

/// A leader's answer to a proposal.
pub fn proposed(reply: &ProposeReply) {
    drop(forward::proposed(reply));
}

/// What the leader says of a member.
///
/// # Panics
/// If it changes on its way.
pub fn observed(message: peer::Observed) {
    let observed = Observed::from(message);
    assert_eq!(Observed::from(peer::Observed::from(observed.clone())), observed);
}

/// What members report, one after the other, as the leader's table takes it.
pub fn reports(reports: Vec<Report>) {
    let mut table = Table::open(1, Duration::from_secs(1));
    for report in reports {
        let (node, now_us) = (report.node, report.sequence);
        let said = Said {
            enforced: report.enforced,
            utc_ms: report.utc_ms,
            authority_sha256: report.certificate_authority_sha256.into(),
            not_after_ms: report.certificate_not_after_ms,
            disk_low: report.disk_low,
            leaving: report.leaving,
        };
        table.report(node, now_us, said);
        table.utc_ms([node, 1, 2].into_iter(), u64::MAX);
        table.silent_us(node, 0);
        table.reachable(node, now_us.wrapping_add(1));
    }
}

/// The state in a snapshot file, if a node would take it in.
#[must_use]
pub fn snapshot(reader: Reader) -> Option<State> {
    let place: PlaceForm = codec::decode(reader.head()).ok()?;
    let _: SnapshotMeta = place.try_into().ok()?;
    vault::state_of(reader).ok()
}

/// The key and the value of a record of the state, as checkpoints and snapshots hold it.
#[must_use]
pub fn stored(key: &machine::RecordKey, record: &machine::Record) -> Option<(Vec<u8>, Vec<u8>)> {
    Some((codec::encode_plain(key).ok()?, codec::encode(record).ok()?.into()))
}
