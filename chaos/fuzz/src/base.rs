//! The cluster that hostile entries, records and requests meet: a little of everything, and the entries that made it.

use machine::{
    Actor, Command, Entry, Name, Outcome, Proposal, RequestId, State, View,
    allowance::{Acquire, BucketId, Part, Want},
    bucket::{Spent, Terms},
    command::{Initialize, Precondition},
    key::{ImportedKey, KeyId, SecretHash},
    member::{MemberSpec, Standing},
    operator::Role,
    settings::Settings,
    time::{At, Tick, Wall},
};
use std::{collections::BTreeSet, sync::OnceLock};

/// The instant at which it begins.
const START_MS: u64 = 1_700_000_000_000;
const HOUR_MS: u64 = 60 * 60 * 1000;

/// What its operators wrote.
pub const RESOURCES: &str = "\
consumers:
  acme: {roles: [gold], tier: three}
  burst: {}
upstreams:
  orders: {targets: [http://127.0.0.1:9000, http://127.0.0.1:9001]}
limits:
  each: {rate: 5/s, burst: 10, per: key}
  daily: {quota: 1000/day, per: [route, consumer]}
  near: {rate: 100/s, per: ip, max_subjects: 100}
  local: {rate: 9/s, per: route, scope: node}
routes:
  orders:
    hosts: [shop.example, '*.shop.example']
    paths: [/orders/*, '/orders']
    methods: [GET, POST]
    upstream: orders
    limits: [each, daily]
  open: {paths: [/], upstream: orders, authenticate: [none], limits: [near, local]}
policies:
  gold: 'permit(principal in Role::\"gold\", action, resource == Route::\"orders\") when { context.method == \"GET\" };'
";

/// Makes the entries of a cluster, one after the other.
struct Story {
    state: State,
    entries: Vec<Entry>,
}

impl Story {
    fn at(&self) -> At {
        let ms = self.entries.len() as u64 * 100;
        At { tick: Tick(ms * 1000), wall: Wall(START_MS + ms) }
    }

    fn propose(&mut self, actor: Actor, command: Command) {
        let at = self.at();
        let request = RequestId { issued: at.wall, random: self.entries.len() as u128 };
        let proposals = vec![Proposal { request, actor, command }];
        self.apply(Entry { at, terms: Terms::default(), proposals, acquires: Vec::new() });
    }

    fn acquire(&mut self, acquires: Vec<Acquire>) {
        let terms = Terms { ttl_us: 2_000_000, margin_us: 1_000 };
        self.apply(Entry { at: self.at(), terms, proposals: Vec::new(), acquires });
    }

    fn apply(&mut self, entry: Entry) {
        let effects = self.state.apply_entry(self.entries.len() as u64, &entry);
        let refused = effects.applied.iter().find(|applied| matches!(applied.outcome, Outcome::Refused(_)));
        assert_eq!(refused, None, "the cluster to meet is sound");
        self.entries.push(entry);
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn spec(number: u8) -> MemberSpec {
    MemberSpec {
        name: name(&format!("n{number}")),
        address: format!("n{number}:7400"),
        gateway_address: format!("n{number}:8080"),
        gateway_tls_address: String::new(),
        ops_address: format!("n{number}:9400"),
        zone: (number == 2).then(|| "b".to_owned()),
        version: "0.1.0".to_owned(),
        feature_level_max: 1,
    }
}

fn first() -> Initialize {
    Initialize {
        cluster: [7; 16],
        feature_level: 1,
        settings: Settings { audit_entries_max: 30, ..Settings::default() },
        authority_sha256: [0; 32],
        authority_pem: "pem".to_owned(),
        member: spec(1),
        operator: name("root"),
        operator_certificate_sha256: [100; 32],
        operator_not_after: Wall(START_MS + 24_000 * HOUR_MS),
        join_token_hash: [0; 32],
        join_token_not_after: Wall(START_MS + 24 * HOUR_MS),
    }
}

fn tell() -> Story {
    let root = || Actor::Operator(name("root"));
    let wall = |hours: u64| Wall(START_MS + hours * HOUR_MS);
    let mut story = Story { state: State::default(), entries: Vec::new() };
    story.propose(Actor::Bootstrap, Command::Initialize(Box::new(first())));
    let file = quorate::resource::parse("base.yaml", RESOURCES).expect("the resources are sound");
    let plan = quorate::resource::plan(&story.state.registry, &file, false).expect("they make a whole");
    story.propose(root(), Command::ApplyResources { validated_against: plan.validated_against, changes: plan.changes });
    let scopes = BTreeSet::from([name("read"), name("write")]);
    story.propose(
        root(),
        Command::CreateKey {
            id: KeyId([1; 10]),
            consumer: name("acme"),
            label: Some("phone".to_owned()),
            scopes: scopes.clone(),
            hash: SecretHash([1; 32]),
            not_after: None,
        },
    );
    story.propose(
        root(),
        Command::RotateKey {
            id: KeyId([1; 10]),
            hash: SecretHash([2; 32]),
            overlap_ms: HOUR_MS,
            not_after: Some(wall(100)),
            precondition: Precondition::Any,
        },
    );
    let imported = |number: u8| ImportedKey {
        id: KeyId([number; 10]),
        consumer: name("burst"),
        label: None,
        scopes: scopes.clone(),
        hash: SecretHash([number; 32]),
        not_after: None,
    };
    story.propose(root(), Command::ImportKeys((10..14).map(imported).collect()));
    story.propose(root(), Command::RevokeKey { id: KeyId([11; 10]), precondition: Precondition::Any });
    let (role, not_after) = (Role::Viewer, wall(1_000));
    let certificate_sha256 = [101; 32];
    story.propose(root(), Command::CreateOperator { name: name("eve"), role, certificate_sha256, not_after });
    for number in 2..5 {
        let hash = [number; 32];
        story.propose(root(), Command::CreateJoinToken { hash, not_after: wall(2) });
        let admit = Command::AdmitMember { token_hash: hash, spec: spec(number), learner: number == 4 };
        story.propose(Actor::Node(1), admit);
    }
    story.propose(root(), Command::SetStanding { id: 3, standing: Standing::Leaving });
    story.propose(root(), Command::AddAuthority { sha256: [5; 32], certificate_pem: "next".to_owned() });
    story.acquire(vec![acquire(1, 1, &[]), acquire(2, 1, &[])]);
    let reports = [(bucket("each", &[1; 10]), Spent { allowance: 1, spent: 2, close: false })];
    story.acquire(vec![acquire(1, 2, &reports)]);
    story
}

/// A bucket of the cluster.
#[must_use]
pub fn bucket(limit: &str, subject: &[u8]) -> BucketId {
    BucketId { limit: name(limit), subject: subject.into() }
}

fn acquire(node: u64, request: u64, reports: &[(BucketId, Spent)]) -> Acquire {
    let part = |limit: &str| Part { bucket: bucket(limit, &[1; 10]), cost: 1 };
    let wants = vec![
        Want { parts: vec![part("each"), part("daily")], waiting: 2, ahead: 3 },
        Want { parts: vec![part("near")], waiting: 0, ahead: 5 },
    ];
    Acquire { node, incarnation: 9, request, reports: reports.to_vec(), wants }
}

fn story() -> &'static Story {
    static STORY: OnceLock<Story> = OnceLock::new();
    STORY.get_or_init(tell)
}

/// The cluster's state.
#[must_use]
pub fn state() -> &'static State {
    &story().state
}

/// The entries that made it.
#[must_use]
pub fn entries() -> &'static [Entry] {
    &story().entries
}

/// What its nodes read.
#[must_use]
pub fn view() -> View {
    let State { at, registry, .. } = state();
    View { index: entries().len() as u64, at: *at, registry: registry.clone() }
}
