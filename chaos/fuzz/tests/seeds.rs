//! Makes the seeds: what the product itself writes, one of each kind. Run by hand when a format or a target changes:
//!
//!     cargo test -p fuzz --test seeds -- --ignored
//!
//! Files of other names (what fuzzing has found) stay as they are.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use bytes::Bytes;
use fuzz::{base, checkpoint, pieces};
use machine::{Actor, Command, Entry, Name, Outcome, Proposal, RequestId, bucket::Terms, member::MemberSpec};
use prost::Message;
use proto::{admin, peer};
use serde::Serialize;
use std::{fs, path::Path, sync::Arc, sync::mpsc::channel, time::Duration};
use storage::{
    Error, Log, LogSettings, Record,
    fs::{Fs, Simulated},
    snapshot::Snapshots,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().parent().unwrap()
}

fn put(target: &str, name: &str, bytes: &[u8]) {
    let folder = root().join("chaos/fuzz/seeds").join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), bytes).unwrap();
}

fn with(choice: u8, rest: &[u8]) -> Vec<u8> {
    [&[choice], rest].concat()
}

/// What a record holds: the record without version and checksum.
fn content(value: &impl Serialize) -> Vec<u8> {
    raft::codec::encode(value).unwrap()[5..].to_vec()
}

fn frozen(name: &str) -> Vec<u8> {
    fs::read(root().join("raft/tests/frozen").join(name)).unwrap()[5..].to_vec()
}

/// A log entry as the log holds it: its id, which variant, and the proposals.
fn log_entry(index: u64, entry: &Entry) -> Vec<u8> {
    content(&(3_u64, 2_u64, index, 1_u32, entry))
}

#[test]
#[ignore = "makes files to be committed"]
fn log_record() {
    let entries: Vec<Vec<u8>> = (1..).zip(base::entries()).map(|(index, entry)| log_entry(index, entry)).collect();
    put("log_record", "cluster", &with(1, &pieces::join(entries.iter().map(Vec::as_slice))));
    for name in ["entry-blank-1", "entry-membership-1", "entry-proposals-1"] {
        put("log_record", name, &with(0, &pieces::join([frozen(name).as_slice()])));
    }
    let at = base::state().at;
    let mut commands: Vec<_> = fs::read_dir(root().join("raft/machine/tests/frozen"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("command-"))
        .collect();
    commands.sort();
    for (random, path) in (1_000..).zip(commands) {
        let bytes = hex::decode(fs::read_to_string(&path).unwrap().split_whitespace().collect::<String>()).unwrap();
        let (command, _): (Command, usize) =
            bincode::serde::decode_from_slice(&bytes, bincode::config::standard()).unwrap();
        let actor = Actor::Operator(Name::new("root").unwrap());
        let proposal = Proposal { request: RequestId { issued: at.wall, random }, actor, command };
        let entry = Entry { at, terms: Terms::default(), proposals: vec![proposal], acquires: Vec::new() };
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        put("log_record", &name, &with(0, &pieces::join([log_entry(100, &entry).as_slice()])));
    }
    let again: Vec<Vec<u8>> = base::entries().iter().rev().take(2).map(|entry| log_entry(7, entry)).collect();
    put("log_record", "acquires", &with(0, &pieces::join(again.iter().map(Vec::as_slice))));
}

#[test]
#[ignore = "makes files to be committed"]
fn snapshots() {
    let place = frozen("place-1");
    let records: Vec<(Vec<u8>, Vec<u8>)> =
        base::state().records().map(|(key, record)| raft::fuzzing::stored(&key, &record).unwrap()).collect();
    let parts = records.iter().flat_map(|(key, value)| [key.as_slice(), &value[5..]]);
    put("snapshot_records", "cluster", &pieces::join(std::iter::once(place.as_slice()).chain(parts)));
    let without = records.iter().skip(3).flat_map(|(key, value)| [key.as_slice(), &value[5..]]);
    put("snapshot_records", "without-a-consumer", &pieces::join(std::iter::once(place.as_slice()).chain(without)));

    let fs = Simulated::new();
    let snapshots = Snapshots::open_on(Arc::new(fs.clone()), Path::new("/s")).unwrap();
    for (name, count) in [("empty", 0), ("few", 3), ("many", 2_000_u32)] {
        let mut writer = snapshots.write(u64::from(count), Bytes::from_static(b"head")).unwrap();
        for number in 0..count {
            writer.put(&number.to_be_bytes(), &[0; 7]).unwrap();
        }
        let stored = writer.finish().unwrap();
        let mut bytes = vec![0; stored.bytes as usize];
        fs.open(&stored.path).unwrap().read_at(&mut bytes, 0).unwrap();
        for how in [0, 1] {
            put("snapshot_file", &format!("{name}-{how}"), &with(how, &bytes));
        }
    }
}

fn asked(call: impl FnOnce(Box<dyn FnOnce(Result<(), Error>) + Send>)) {
    let (done, wait) = channel();
    call(Box::new(move |result| done.send(result).unwrap()));
    wait.recv().unwrap().unwrap();
}

#[test]
#[ignore = "makes files to be committed"]
fn log_segments() {
    let settings = LogSettings {
        segment_bytes: 700,
        idle_mark: Duration::from_secs(3600),
        reserve_bytes: 0,
        ..Default::default()
    };
    for (name, purged) in [("log", None), ("purged", Some(4))] {
        let fs = Simulated::new();
        let log = Log::open_on(Arc::new(fs.clone()), Path::new("/log"), settings.clone()).unwrap();
        let record = |index: u64| Record { index, bytes: Bytes::from(format!("entry {index}")) };
        asked(|done| log.save_vote(Bytes::from_static(b"vote"), done));
        asked(|done| log.append((1..=6).map(record).collect(), done));
        asked(|done| log.truncate_from(5, done));
        asked(|done| log.append((5..=12).map(record).collect(), done));
        if let Some(index) = purged {
            asked(|done| log.purge_to(index, Bytes::from_static(b"marker"), done));
        }
        log.save_committed(Bytes::from_static(b"committed"));
        asked(|done| log.append((13..=20).map(record).collect(), done));
        drop(log);
        let mut names = fs.list(Path::new("/log")).unwrap();
        names.sort();
        let segments: Vec<Vec<u8>> = names
            .iter()
            .map(|name| {
                let file = fs.open(&Path::new("/log").join(name)).unwrap();
                let mut bytes = vec![0; file.len().unwrap() as usize];
                file.read_at(&mut bytes, 0).unwrap();
                bytes
            })
            .collect();
        for how in [0, 1] {
            let bytes = with(how, &pieces::join(segments.iter().map(Vec::as_slice)));
            put("log_segments", &format!("{name}-{how}"), &bytes);
            let last = with(how, &pieces::join(segments.last().map(Vec::as_slice)));
            put("log_segments", &format!("{name}-last-{how}"), &last);
        }
    }
}

#[test]
#[ignore = "makes files to be committed"]
fn checkpoints() {
    let edits = [
        ("flipped", checkpoint::edit(0, 1, 3_000, 4, 0)),
        ("cut", checkpoint::edit(1, 1, 9_000, 0, 0)),
        ("zeroed", checkpoint::edit(2, 1, 20_000, 0, 255)),
        ("longer", checkpoint::edit(3, 1, 0, 255, 255)),
        ("missing", checkpoint::edit(4, 0, 0, 0, 0)),
        ("moved", checkpoint::edit(5, 1, 600, 9, 200)),
    ];
    put("checkpoint", "sound", &[]);
    for (name, edit) in edits {
        put("checkpoint", name, &edit);
    }
}

#[test]
#[ignore = "makes files to be committed"]
fn peer_messages() {
    let raft = [
        "append-1",
        "appended-1",
        "vote-request-1",
        "vote-reply-1",
        "transfer-1",
        "transferred-1",
        "vote-1",
        "snapshot-head-1",
    ];
    for (kind, name) in (0..).zip(raft) {
        put("peer_message", name, &with(kind, &frozen(name)));
    }
    let kinds = raft::fuzzing::RAFT_MESSAGES;
    let proposal = base::entries()[1].proposals[0].clone();
    put("peer_message", "proposal", &with(kinds, &content(&proposal)));
    let acquires: Vec<Vec<u8>> = base::entries().iter().flat_map(|entry| &entry.acquires).map(content).collect();
    put("peer_message", "acquires", &with(kinds + 1, &pieces::join(acquires.iter().map(Vec::as_slice))));
    put("peer_message", "acquire-1", &with(kinds + 1, &pieces::join([frozen("acquire-1").as_slice()])));
    let mut state = base::state().clone();
    let mut entry = base::entries().last().unwrap().clone();
    entry.acquires[0].request += 1;
    let answers: Vec<Vec<u8>> = state.apply_entry(99, &entry).answers.iter().map(content).collect();
    let answers = answers.iter().cycle().take(4).map(Vec::as_slice);
    put("peer_message", "answers", &with(kinds + 2, &pieces::join(answers)));
    put("peer_message", "answer-1", &with(kinds + 2, &pieces::join([frozen("answer-1").as_slice()])));
    put("peer_message", "outcome", &with(kinds + 3, &content(&Outcome::Admitted { revision: 9, id: 3 })));
    put("peer_message", "spec-1", &with(kinds + 4, &frozen("spec-1")));
    let piece = peer::SnapshotPiece { head: frozen("snapshot-head-1").into(), data: Bytes::from_static(b"data") };
    put("peer_message", "piece", &with(kinds + 5, &piece.encode_to_vec()));
    let propose = peer::ProposeRequest { proposal: content(&proposal).into(), fence_timeout_ms: 9, timeout_ms: 8 };
    put("peer_message", "propose", &with(kinds + 6, &propose.encode_to_vec()));
    let outcome = raft::codec::encode(&Outcome::Done { revision: 8 }).unwrap();
    let fence = vec![peer::Fenced { node: 3, state: 1 }, peer::Fenced { node: 4, state: 9 }];
    let reply = peer::ProposeReply { outcome, index: 7, fence, ..Default::default() };
    put("peer_message", "proposed", &with(kinds + 7, &reply.encode_to_vec()));
    let report =
        peer::Report { node: 2, enforced: 9, utc_ms: 1 << 40, sequence: 3, disk_low: true, ..Default::default() };
    let report = report.encode_to_vec();
    put("peer_message", "reports", &with(kinds + 8, &pieces::join([report.as_slice(), &report])));
    let advice = peer::Advice { leader: 1, term: 2, committed: 3, tick_us: 4, lease_ttl_us: 5, ..Default::default() };
    put("peer_message", "advice", &with(kinds + 9, &advice.encode_to_vec()));
    let member = peer::Observed { node: 3, clock_offset_ms: Some(-4), authority_ms: Some(5), ..Default::default() };
    let observed = peer::ObserveReply { members: vec![member], settled: true, ..Default::default() };
    put("peer_message", "observed", &with(kinds + 10, &observed.encode_to_vec()));
    let join = peer::JoinReply { node: 3, certificate_pem: "pem".to_owned(), ..Default::default() };
    put("peer_message", "joined", &with(kinds + 11, &join.encode_to_vec()));
}

#[test]
#[ignore = "makes files to be committed"]
fn admin_messages() {
    let write = Some(admin::WriteOptions {
        request_random: vec![7; 16],
        request_issued_ms: base::state().at.wall.0,
        if_revision: Some(4),
        ..Default::default()
    });
    let acme = || "acme".to_owned();
    let (_, request_pem) = quorate::pki::authority::request().unwrap();
    let id = machine::key::KeyId([1; 10]).to_string();
    let create = admin::CreateKeyRequest {
        write: write.clone(),
        consumer: acme(),
        name: "phone".to_owned(),
        scopes: vec!["read".to_owned()],
        ttl_ms: 9,
    };
    let key = admin::ImportKey { sha256: "ab".repeat(32), consumer: acme(), ..Default::default() };
    let import = admin::ImportKeysRequest { write: write.clone(), keys: vec![key.clone(), key] };
    let rotate = admin::RotateKeyRequest { write: write.clone(), id: id.clone(), overlap_ms: 5 };
    let revoke = admin::RevokeKeyRequest { write: write.clone(), id: id.clone() };
    let operator = admin::CreateOperatorRequest {
        write: write.clone(),
        name: "adam".to_owned(),
        role: "admin".to_owned(),
        certificate_request_pem: request_pem.clone(),
        ttl_ms: 1 << 41,
        ..Default::default()
    };
    let enabled = admin::SetConsumerEnabledRequest { write: write.clone(), name: acme(), enabled: false };
    let delete =
        admin::DeleteResourceRequest { write: write.clone(), kind: "policy".to_owned(), name: "gold".to_owned() };
    let member = admin::MemberRequest { write: write.clone(), member: "n2".to_owned() };
    let token = admin::CreateJoinTokenRequest { write, ttl_ms: 1 << 41 };
    let spec = MemberSpec {
        name: Name::new("n9").unwrap(),
        address: "n9:1".to_owned(),
        gateway_address: String::new(),
        gateway_tls_address: String::new(),
        ops_address: String::new(),
        zone: None,
        version: "1".to_owned(),
        feature_level_max: 1,
    };
    let join = peer::JoinRequest {
        token: quorate::pki::token::JoinToken::create([3; 32]).unwrap().text().to_string(),
        certificate_request_pem: request_pem,
        spec: serde_json::to_vec(&spec).unwrap().into(),
        request_random: vec![8; 16].into(),
        request_issued_ms: base::state().at.wall.0,
        ..Default::default()
    };
    let list = admin::ListKeysRequest { consumer: acme(), after: id.clone(), state: "active".to_owned(), limit: 2 };
    let get = admin::GetResourceRequest { kind: "route".to_owned(), name: "orders".to_owned() };
    let explain = admin::ExplainRequest {
        method: "GET".to_owned(),
        url: "http://shop.example/orders/1?q=%41".to_owned(),
        key_id: id,
        ..Default::default()
    };
    let usage =
        admin::LimitUsageRequest { name: "near".to_owned(), subject: vec!["192.0.2.1".to_owned()], overflow: false };
    let all = [
        ("create-key", create.encode_to_vec()),
        ("import-keys", import.encode_to_vec()),
        ("rotate-key", rotate.encode_to_vec()),
        ("revoke-key", revoke.encode_to_vec()),
        ("create-operator", operator.encode_to_vec()),
        ("set-enabled", enabled.encode_to_vec()),
        ("delete", delete.encode_to_vec()),
        ("remove-member", member.encode_to_vec()),
        ("create-join-token", token.encode_to_vec()),
        ("join", join.encode_to_vec()),
        ("list-keys", list.encode_to_vec()),
        ("get", get.encode_to_vec()),
        ("explain", explain.encode_to_vec()),
        ("limit-usage", usage.encode_to_vec()),
    ];
    assert_eq!(all.len(), usize::from(quorate::fuzzing::ADMIN_VERBS));
    for (verb, (name, bytes)) in (0..).zip(&all) {
        put("admin_message", name, &with(verb, bytes));
    }
}

#[test]
#[ignore = "makes files to be committed"]
fn resource_files() {
    put("resource_file", "base.yaml", base::RESOURCES.as_bytes());
    for entry in fs::read_dir(root().join("node/tests/resource_files")).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.extension().is_some_and(|extension| extension == "yaml") {
            put("resource_file", entry.file_name().unwrap().to_str().unwrap(), &fs::read(&entry).unwrap());
        }
    }
    // Read, and not mutated: they take as long as anything may.
    // Each alias stands for ten of the one before.
    let mut laughs = "a0: &a0 lol\n".to_owned();
    for level in 1..12 {
        let ten = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs.push_str(&format!("a{level}: &a{level} [{ten}]\n"));
    }
    put("resource_file", "slow-laughs.yaml", laughs.as_bytes());
    put("resource_file", "slow-nested.yaml", "[".repeat(20_000).as_bytes());
    let deep = format!("policies: {{p: 'permit(principal, action, resource) when {{ {}true }};'}}", "!".repeat(5_000));
    put("resource_file", "slow-deep-policy.yaml", deep.as_bytes());
    let deep = "(".repeat(5_000);
    let deep = format!("policies: {{p: 'permit(principal, action, resource) when {{ {deep}true }};'}}");
    put("resource_file", "slow-deeper-policy.yaml", deep.as_bytes());
}
