//! Bytes that were written once and must stay readable, and be written the same way again. A fixture never changes: a
//! new shape gets a new file. With `QUORATE_FREEZE=1` missing files are written.

use super::{decode, encode, form::*};
use machine::{
    Actor, At, Command, Entry, Name, Outcome, Proposal, RequestId, Tick, Wall,
    allowance::{Acquire, Answer, BucketId, Grant, Part, Scarce, Want},
    bucket::{Spent, Terms},
    command::{Initialize, Precondition},
    key::{KeyId, SecretHash},
    member::{MemberSpec, Standing},
    operator::Role,
    outcome::{Noun, Refusal},
    resource::{Change, Kind},
    settings::Settings,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeSet, fmt::Debug, path::Path, sync::Arc};

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(file: &str, value: &T) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frozen").join(file);
    let written = encode(value).unwrap();
    if !path.exists() && std::env::var_os("QUORATE_FREEZE").is_some() {
        std::fs::write(&path, &written).unwrap();
    }
    let frozen = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(decode::<T>(&frozen).unwrap(), *value, "{file} is read as something else");
    assert_eq!(written, frozen, "{file} would be written differently now");
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

const ID: LogIdForm = LogIdForm { term: 3, node: 2, index: 300 };
const VOTE: VoteForm = VoteForm { term: 70_000, node: 5, committed: true };

fn spec() -> MemberSpec {
    MemberSpec {
        name: name("n1"),
        address: "node1:7400".into(),
        gateway_address: "node1:8080".into(),
        gateway_tls_address: String::new(),
        ops_address: "node1:9400".into(),
        zone: Some("a".into()),
        version: "0.1.0".into(),
        feature_level_max: 1,
    }
}

fn commands() -> Vec<(Actor, Command)> {
    let root = || Actor::Operator(name("root"));
    vec![
        (
            Actor::Bootstrap,
            Command::Initialize(Box::new(Initialize {
                cluster: [7; 16],
                feature_level: 1,
                settings: Settings { voters: 3, learner_expiry_ms: 86_400_000, audit_entries_max: 100_000 },
                authority_sha256: [1; 32],
                authority_pem: "pem".into(),
                member: spec(),
                operator: name("root"),
                operator_certificate_sha256: [2; 32],
                operator_not_after: Wall(1_900_000_000_000),
                join_token_hash: [3; 32],
                join_token_not_after: Wall(1_800_000_000_000),
            })),
        ),
        (
            root(),
            Command::ApplyResources {
                validated_against: 9,
                changes: vec![Change::PutDocument {
                    kind: Kind::Route,
                    name: name("orders"),
                    bytes: b"{}".as_slice().into(),
                }],
            },
        ),
        (
            root(),
            Command::CreateKey {
                id: KeyId([4; 10]),
                consumer: name("acme"),
                label: Some("build".into()),
                scopes: BTreeSet::from([name("read")]),
                hash: SecretHash([5; 32]),
                not_after: Some(Wall(1_700_000_000_000)),
            },
        ),
        (root(), Command::RevokeKey { id: KeyId([4; 10]), precondition: Precondition::Any }),
        (
            root(),
            Command::CreateOperator {
                name: name("eve"),
                role: Role::Viewer,
                certificate_sha256: [6; 32],
                not_after: Wall(5),
            },
        ),
        (Actor::Node(2), Command::AdmitMember { token_hash: [8; 32], spec: spec(), learner: true }),
        (root(), Command::SetStanding { id: 2, standing: Standing::Leaving }),
        (Actor::Node(1), Command::ForgetMember { id: 2 }),
        (Actor::Node(1), Command::Nothing),
    ]
}

fn proposal((number, (actor, command)): (usize, (Actor, Command))) -> Proposal {
    let random = u128::MAX - number as u128;
    Proposal { request: RequestId { issued: Wall(1_600_000_000_000), random }, actor, command }
}

fn acquire() -> Acquire {
    let bucket = BucketId { limit: name("plan"), subject: b"acme".as_slice().into() };
    let reports = vec![(bucket.clone(), Spent { allowance: 70_001, spent: 300, close: true })];
    let wants = vec![Want { parts: vec![Part { bucket, cost: 3 }], waiting: 4, ahead: 500 }];
    Acquire { node: 2, incarnation: u64::MAX, request: 600, reports, wants }
}

fn granted() -> Answer {
    let bucket = BucketId { limit: name("plan"), subject: b"acme".as_slice().into() };
    let grant = Grant { bucket: bucket.clone(), allowance: 70_002, amount: 504, ttl_us: 2_000_000, left: 70_004 };
    Answer { grants: vec![grant], scarce: vec![Scarce { bucket, due_us: 300_000 }] }
}

fn membership() -> StoredMembershipForm {
    StoredMembershipForm {
        set_by: Some(LogIdForm { term: 1, node: 1, index: 0 }),
        membership: MembershipForm {
            voters: vec![BTreeSet::from([1, 2]), BTreeSet::from([1, 2, 3])],
            addresses: [(1, "node1:7400"), (2, "node2:7400"), (3, "node3:7400")]
                .map(|(id, address)| (id, address.to_owned()))
                .into(),
        },
    }
}

fn entries() -> Vec<EntryForm> {
    let proposals = commands().into_iter().enumerate().map(proposal).collect();
    let at = At { tick: Tick(123_456_789), wall: Wall(1_600_000_000_001) };
    let terms = Terms { ttl_us: 2_000_000, margin_us: 1_000 };
    let entry = Entry { at, terms, proposals, acquires: vec![acquire()] };
    vec![
        EntryForm { id: ID, payload: PayloadForm::Blank },
        EntryForm { id: ID, payload: PayloadForm::Proposals(Arc::new(entry)) },
        EntryForm { id: ID, payload: PayloadForm::Membership(membership().membership) },
    ]
}

#[test]
fn what_lies_on_disks_stays_readable() {
    for (file, entry) in ["entry-blank-1", "entry-proposals-1", "entry-membership-1"].iter().zip(entries()) {
        check(file, &entry);
    }
    check("log-id-1", &ID);
    check("committed-1", &Some(ID));
    check("vote-1", &VOTE);
    let at = At { tick: Tick(5), wall: Wall(6) };
    let place = PlaceForm { last: Some(ID), membership: membership(), cluster: [7; 16], revision: 42, at };
    check("place-1", &place);
}

#[test]
fn what_peers_say_stays_readable() {
    let append = AppendForm { vote: VOTE, previous: Some(ID), committed: None, entries: entries() };
    check("append-1", &append);
    check("appended-1", &[AppendedForm::Matched(Some(ID)), AppendedForm::Conflict(ID), AppendedForm::HigherVote(VOTE)]);
    check("vote-request-1", &VoteRequestForm { preliminary: true, vote: VOTE, last: Some(ID), transfer: false });
    check("vote-reply-1", &VoteReplyForm { vote: VOTE, granted: true, last: None });
    check("transfer-1", &TransferForm { from: VOTE, to: 3, last: Some(ID) });
    let behind = TransferredForm::Behind { expected: Some(ID), actual: None };
    let changed = TransferredForm::VoteChanged { expected: VOTE, actual: VOTE };
    check("transferred-1", &[TransferredForm::Accepted, changed, behind]);
    let place = PlaceForm { last: Some(ID), membership: membership(), ..PlaceForm::default() };
    check("snapshot-head-1", &SnapshotHeadForm { vote: VOTE, place, bytes: 1 << 40 });
    check("spec-1", &spec());
    check("acquire-1", &acquire());
    check("answer-1", &granted());
    let refused = Outcome::Refused(Refusal::Conflict { noun: Noun::Key, expected: 3, actual: 4 });
    check("outcome-1", &[Outcome::Done { revision: 8 }, Outcome::Admitted { revision: 9, id: 3 }, refused]);
}
