//! Caps on whole collections: what goes over is refused, and what must get through does. Bounds of single values are in
//! the golden scripts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "property/first.rs"]
mod first;

use first::{START, first};
use machine::{
    Actor, Command, Entry, Name, Outcome, Proposal, Refusal, RequestId, State,
    bucket::Terms,
    cap,
    command::Precondition,
    consumer::ConsumerSpec,
    invariant,
    key::{ImportedKey, KeyId, SecretHash},
    member::{MemberSpec, Standing},
    operator::Role,
    outcome::{Field, Noun},
    request::Remembered,
    resource::{Change, Kind},
    time::{At, Tick, Wall},
};
use std::collections::{BTreeMap, BTreeSet};

const MINUTE: u64 = 60_000;

/// A cluster with one consumer, `acme`.
struct Cluster {
    state: State,
    index: u64,
    now: u64,
}

impl Cluster {
    fn new() -> Self {
        let mut cluster = Self { state: State::default(), index: 0, now: START };
        cluster.done_as(Actor::Bootstrap, Command::Initialize(Box::new(first())));
        let spec = ConsumerSpec { roles: BTreeSet::new(), attributes: BTreeMap::new() };
        cluster.apply(vec![Change::PutConsumer { name: name("acme"), spec }]).unwrap();
        cluster
    }

    fn propose(&mut self, actor: Actor, command: Command) -> Outcome {
        self.index += 1;
        let request = RequestId { issued: Wall(self.now), random: u128::from(self.index) << 64 };
        let at = At { tick: Tick(self.index), wall: Wall(self.now) };
        self.state.apply(self.index, at, &Proposal { request, actor, command }).outcome
    }

    fn ask(&mut self, command: Command) -> Result<(), Refusal> {
        match self.propose(Actor::Operator(name("root")), command) {
            Outcome::Refused(refusal) => Err(refusal),
            Outcome::Done { .. } | Outcome::Admitted { .. } => Ok(()),
        }
    }

    fn done_as(&mut self, actor: Actor, command: Command) {
        let outcome = self.propose(actor, command);
        assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    }

    fn apply(&mut self, changes: Vec<Change>) -> Result<(), Refusal> {
        let validated_against = self.state.registry.resources_revision;
        self.ask(Command::ApplyResources { validated_against, changes })
    }

    fn is_sound(&self) {
        assert_eq!(invariant::check(&self.state), Ok(()));
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn hash(number: usize) -> [u8; 32] {
    let mut hash = [0xff; 32];
    hash[..8].copy_from_slice(&number.to_be_bytes());
    hash
}

fn full<T>(noun: Noun, cap: usize) -> Result<T, Refusal> {
    Err(Refusal::CapReached { noun, cap: cap as u64 })
}

fn too_much<T>(what: Field, max: usize) -> Result<T, Refusal> {
    Err(Refusal::OutOfBounds { what, max: max as u64 })
}

fn route(number: usize) -> Change {
    Change::PutDocument { kind: Kind::Route, name: name(&format!("r{number}")), bytes: [0].as_slice().into() }
}

fn imported(number: usize) -> ImportedKey {
    let mut id = [0; 10];
    id[..8].copy_from_slice(&number.to_be_bytes());
    let (id, hash) = (KeyId(id), SecretHash(hash(number)));
    ImportedKey { id, consumer: name("acme"), label: None, scopes: BTreeSet::new(), hash, not_after: None }
}

#[test]
fn documents_of_a_kind() {
    let mut cluster = Cluster::new();
    let most = cap::CHANGES_PER_APPLY_MAX;
    assert_eq!(cluster.apply((0..=most).map(route).collect()), too_much(Field::Changes, most));
    for batch in (0..cap::DOCUMENTS_PER_KIND_MAX).step_by(most) {
        let end = cap::DOCUMENTS_PER_KIND_MAX.min(batch + most);
        assert_eq!(cluster.apply((batch..end).map(route).collect()), Ok(()));
    }
    let (one_more, cap) = (cap::DOCUMENTS_PER_KIND_MAX, cap::DOCUMENTS_PER_KIND_MAX);
    assert_eq!(cluster.apply(vec![route(one_more)]), full(Noun::Document(Kind::Route), cap));
    // Other kinds have room, and what is there can be changed or replaced.
    let policy = Change::PutDocument { kind: Kind::Policy, name: name("p"), bytes: [0].as_slice().into() };
    assert_eq!(cluster.apply(vec![policy]), Ok(()));
    let delete = Change::DeleteDocument { kind: Kind::Route, name: name("r7") };
    assert_eq!(cluster.apply(vec![route(one_more), delete]), Ok(()));
    cluster.is_sound();
}

#[test]
fn keys_of_an_import() {
    let mut cluster = Cluster::new();
    let most = cap::KEYS_PER_IMPORT_MAX;
    assert_eq!(
        cluster.ask(Command::ImportKeys((0..=most).map(imported).collect())),
        too_much(Field::ImportedKeys, most)
    );
    assert_eq!(cluster.ask(Command::ImportKeys((0..most).map(imported).collect())), Ok(()));
    cluster.is_sound();
}

#[test]
fn operators() {
    let mut cluster = Cluster::new();
    let create = |number: usize| Command::CreateOperator {
        name: name(&format!("o{number}")),
        role: Role::Viewer,
        certificate_sha256: hash(number),
        not_after: Wall(u64::MAX),
    };
    for number in 1..cap::OPERATORS_MAX {
        assert_eq!(cluster.ask(create(number)), Ok(()));
    }
    assert_eq!(cluster.ask(create(0)), full(Noun::Operator, cap::OPERATORS_MAX));
    // A revoked one is kept, so it makes no room.
    assert_eq!(cluster.ask(Command::RevokeOperator { name: name("o1") }), Ok(()));
    assert_eq!(cluster.ask(create(0)), full(Noun::Operator, cap::OPERATORS_MAX));
    cluster.is_sound();
}

#[test]
fn members() {
    let mut cluster = Cluster::new();
    let admit = |cluster: &mut Cluster, number: usize| {
        let (token_hash, not_after) = (hash(number), Wall(u64::MAX));
        cluster.ask(Command::CreateJoinToken { hash: token_hash, not_after }).unwrap();
        let spec = MemberSpec { name: name(&format!("m{number}")), ..first().member };
        cluster.ask(Command::AdmitMember { token_hash, spec, learner: true })
    };
    for number in 1..cap::MEMBERS_MAX {
        assert_eq!(admit(&mut cluster, number), Ok(()));
    }
    assert_eq!(admit(&mut cluster, 1000), full(Noun::Member, cap::MEMBERS_MAX));
    // One that is leaving still counts, until it is forgotten.
    assert_eq!(cluster.ask(Command::SetStanding { id: 50, standing: Standing::Leaving }), Ok(()));
    assert_eq!(admit(&mut cluster, 1001), full(Noun::Member, cap::MEMBERS_MAX));
    assert_eq!(cluster.ask(Command::ForgetMember { id: 50 }), Ok(()));
    assert_eq!(admit(&mut cluster, 1002), Ok(()));
    cluster.is_sound();
}

/// Tokens that have ended make room for new ones.
#[test]
fn join_tokens() {
    let mut cluster = Cluster::new();
    let create = |number: usize, not_after: u64| Command::CreateJoinToken {
        hash: hash(number),
        not_after: Wall(START + not_after),
    };
    for number in 1..cap::JOIN_TOKENS_MAX {
        assert_eq!(cluster.ask(create(number, 1000 * MINUTE - number as u64)), Ok(()));
    }
    assert_eq!(cluster.ask(create(5000, MINUTE)), full(Noun::JoinToken, cap::JOIN_TOKENS_MAX));
    cluster.now += 1000 * MINUTE - 1;
    assert_eq!(cluster.ask(create(5000, 2000 * MINUTE)), Ok(()));
    assert!(cluster.state.registry.join_tokens.contains_key(&hash(1)));
    assert!(!cluster.state.registry.join_tokens.contains_key(&hash(cap::JOIN_TOKENS_MAX - 1)));
    cluster.is_sound();
}

/// An entry of many proposals writes many audit entries, and as many old ones go; one that is refused in between touches
/// none of the others.
#[test]
fn audit_entries_of_one_log_entry() {
    let mut cluster = Cluster::new();
    let most = first().settings.audit_entries_max;
    let proposals = (0..10 * most).map(|number| {
        let spec = MemberSpec { version: format!("0.1.{number}"), ..first().member };
        let command = Command::UpdateMember { id: if number % 10 == 0 { 77 } else { 1 }, spec };
        let request = RequestId { issued: Wall(START), random: 1 << 100 | u128::from(number) };
        Proposal { request, actor: Actor::Node(1), command }
    });
    let at = At { tick: Tick(0), wall: Wall(START) };
    let proposals = proposals.collect();
    let entry = Entry { at, terms: Terms::default(), proposals, acquires: Vec::new() };
    let applied = cluster.state.apply_entry(9, &entry).applied;
    for (number, applied) in applied.iter().enumerate() {
        assert_eq!(matches!(applied.outcome, Outcome::Refused(_)), number % 10 == 0, "{number}: {applied:?}");
    }
    assert_eq!(cluster.state.registry.revision, 2 + 9 * most);
    assert_eq!(cluster.state.audit.len() as u64, most);
    cluster.is_sound();
}

/// When the memory of requests is full, admin writes are refused, but never a revocation, and the cluster's own
/// housekeeping goes on. A day later all of them go on, however many requests there were.
#[test]
#[ignore = "remembers four million requests: ten seconds, and half a gigabyte"]
fn requests() {
    let mut cluster = Cluster::new();
    cluster.ask(Command::ImportKeys((0..10).map(imported).collect())).unwrap();
    let remembered = Remembered { outcome: Outcome::Done { revision: 1 }, index: 1 };
    let operators_max = cap::REQUESTS_MAX - cap::REQUESTS_RESERVED;
    let fill = |cluster: &mut Cluster, to: usize| {
        for random in cluster.state.requests.len()..to {
            let request = RequestId { issued: Wall(START), random: random as u128 };
            cluster.state.requests.insert(request, remembered.clone());
        }
    };
    let revoke = |number: usize| Command::RevokeKey { id: imported(number).id, precondition: Precondition::Any };
    let update = |version: &str| Command::UpdateMember {
        id: 1,
        spec: MemberSpec { version: version.to_owned(), ..first().member },
    };
    fill(&mut cluster, operators_max);
    assert_eq!(cluster.ask(Command::ImportKeys(vec![imported(20)])), full(Noun::Request, operators_max));
    assert_eq!(cluster.ask(revoke(1)), Ok(()));
    cluster.done_as(Actor::Node(1), update("0.1.1"));
    fill(&mut cluster, cap::REQUESTS_MAX);
    let refused = cluster.propose(Actor::Node(1), update("0.1.2"));
    assert_eq!(refused, Outcome::Refused(full::<()>(Noun::Request, cap::REQUESTS_MAX).unwrap_err()));
    assert_eq!(cluster.ask(revoke(2)), Ok(()));
    assert_eq!(cluster.state.requests.len(), cap::REQUESTS_MAX);
    cluster.is_sound();
    cluster.now += cap::REQUEST_AGE_MAX_MS + 1;
    // Each request pushes out two old ones, so there is room after as many as are missing.
    for _ in 0..cap::REQUESTS_RESERVED {
        cluster.ask(revoke(3)).unwrap();
    }
    assert_eq!(cluster.ask(Command::ImportKeys(vec![imported(20)])), Ok(()));
    cluster.is_sound();
}
