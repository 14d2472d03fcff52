//! One value of each variant that is ever written, with every field different from its neighbours.

use machine::{
    Actor, Command, Entry, Name, Outcome, Proposal, Record, RecordKey, Refusal, RequestId,
    allowance::{Acquire, Answer, BucketId, Grant, Part, Scarce, Session, Want},
    audit::AuditEntry,
    authority::{Authority, Phase},
    bucket::{Allowance, Bucket, Limit, Spent, Terms},
    command::{Initialize, Precondition},
    consumer::{Consumer, ConsumerSpec},
    key::{ImportedKey, Key, KeyFields, KeyId, KeyOrigin, Secret, SecretHash},
    limit::{Quota, Rate, Rule, Window},
    member::{Member, MemberSpec, Standing},
    operator::{Operator, Role},
    outcome::{Field, Noun},
    record::{ClusterRecord, LedgerRecord},
    request::Remembered,
    resource::{Change, Document, Kind},
    settings::Settings,
    time::{At, Tick, Wall},
    token::JoinToken,
};
use std::{collections::BTreeSet, sync::Arc};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn names(texts: &[&str]) -> BTreeSet<Name> {
    texts.iter().map(|text| name(text)).collect()
}

fn hash(byte: u8) -> SecretHash {
    SecretHash([byte; 32])
}

fn at() -> At {
    At { tick: Tick(1_234_567), wall: Wall(1_700_000_000_123) }
}

fn request() -> RequestId {
    RequestId { issued: Wall(1_700_000_000_001), random: 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff }
}

fn settings() -> Settings {
    Settings { voters: 5, learner_expiry_ms: 86_400_000, audit_entries_max: 1000 }
}

fn spec() -> MemberSpec {
    MemberSpec {
        name: name("n2"),
        address: "n2.example:7400".to_owned(),
        gateway_address: "n2.example:8080".to_owned(),
        gateway_tls_address: "n2.example:8443".to_owned(),
        ops_address: "n2.example:9400".to_owned(),
        zone: Some("east".to_owned()),
        version: "0.1.0".to_owned(),
        feature_level_max: 1,
    }
}

pub(crate) fn entry() -> Entry {
    let of = |command| Proposal { request: request(), actor: Actor::Operator(name("root")), command };
    let proposals = commands().into_iter().map(of).collect();
    Entry { at: at(), terms: Terms { ttl_us: 2_000_001, margin_us: 1_001 }, proposals, acquires: vec![acquire()] }
}

fn bucket_id(limit: &str) -> BucketId {
    BucketId { limit: name(limit), subject: b"acme".as_slice().into() }
}

fn acquire() -> Acquire {
    let part = |limit, cost| Part { bucket: bucket_id(limit), cost };
    Acquire {
        node: 3,
        incarnation: 0x0123_4567_89ab_cdef,
        request: 301,
        reports: vec![
            (bucket_id("burst"), Spent { allowance: 70_001, spent: 302, close: false }),
            (bucket_id("plan"), Spent { allowance: 70_002, spent: 303, close: true }),
        ],
        wants: vec![Want { parts: vec![part("burst", 2), part("plan", 3)], waiting: 4, ahead: 305 }],
    }
}

fn rate() -> Rule {
    Rule::Rate(Rate { tokens: 100, period_us: 1_000_000, burst: 200 })
}

pub(crate) fn rules() -> Vec<Rule> {
    vec![rate(), Rule::Quota(Quota { amount: 10_000, window: Window::Day })]
}

pub(crate) fn windows() -> Vec<Window> {
    vec![Window::Minute, Window::Hour, Window::Day, Window::Month]
}

/// What a node is answered.
pub(crate) fn answer() -> Answer {
    Answer {
        grants: vec![Grant {
            bucket: bucket_id("burst"),
            allowance: 70_003,
            amount: 306,
            ttl_us: 2_000_002,
            left: 70_005,
        }],
        scarce: vec![Scarce { bucket: bucket_id("plan"), due_us: 307_000 }],
    }
}

/// A bucket of a rule that has been changed, with something out.
fn bucket(rule: Rule) -> Bucket {
    let limit = Limit { rule, generation: 5, changed: Tick(1_000_000) };
    let mut bucket = Bucket::full(&limit, at());
    let allowance = Allowance {
        node: 3,
        incarnation: 0x0123_4567_89ab_cdef,
        request: 301,
        granted: 40,
        spent: 0,
        ttl_us: 2_000_001,
        expires: Tick(3_234_568),
        expired: false,
    };
    bucket.grant(70_001, allowance.clone());
    bucket.grant(70_002, Allowance { node: 4, request: 302, granted: 30, ..allowance });
    bucket.book(3, 0x0123_4567_89ab_cdef, Spent { allowance: 70_001, spent: 7, close: false });
    bucket.refill(&limit, At { tick: Tick(1_235_678), ..at() });
    bucket
}

pub(crate) fn actors() -> Vec<Actor> {
    vec![Actor::Operator(name("root")), Actor::Node(300), Actor::Bootstrap]
}

pub(crate) fn preconditions() -> Vec<Precondition> {
    vec![Precondition::Any, Precondition::Revision(70_000)]
}

pub(crate) fn commands() -> Vec<Command> {
    let any = Precondition::Any;
    vec![
        Command::Initialize(Box::new(Initialize {
            cluster: [0xc1; 16],
            feature_level: 1,
            settings: settings(),
            authority_sha256: [0xa0; 32],
            authority_pem: "-----BEGIN CERTIFICATE-----".to_owned(),
            member: spec(),
            operator: name("root"),
            operator_certificate_sha256: [0x0e; 32],
            operator_not_after: Wall(1_800_000_000_000),
            join_token_hash: [0x70; 32],
            join_token_not_after: Wall(1_700_003_600_000),
        })),
        Command::ApplyResources { validated_against: 41, changes: changes() },
        Command::SetConsumerEnabled { name: name("acme"), enabled: true, precondition: Precondition::Revision(42) },
        Command::CreateKey {
            id: KeyId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
            consumer: name("acme"),
            label: Some("nightly job".to_owned()),
            scopes: names(&["read", "write"]),
            hash: hash(0x11),
            not_after: Some(Wall(1_707_776_000_000)),
        },
        Command::RotateKey {
            id: KeyId([2; 10]),
            hash: hash(0x12),
            overlap_ms: 604_800_000,
            not_after: None,
            precondition: any,
        },
        Command::RevokeKey { id: KeyId([3; 10]), precondition: Precondition::Revision(43) },
        Command::ImportKeys(vec![ImportedKey {
            id: KeyId([4; 10]),
            consumer: name("umbrella"),
            label: None,
            scopes: names(&["read"]),
            hash: hash(0x14),
            not_after: Some(Wall(1_800_000_000_001)),
        }]),
        Command::CreateOperator {
            name: name("ada"),
            role: Role::Operator,
            certificate_sha256: [0x0f; 32],
            not_after: Wall(1_800_000_000_002),
        },
        Command::RevokeOperator { name: name("bob") },
        Command::CreateJoinToken { hash: [0x71; 32], not_after: Wall(1_700_003_600_001) },
        Command::AdmitMember { token_hash: [0x72; 32], spec: spec(), learner: true },
        Command::UpdateMember { id: 2, spec: MemberSpec { zone: None, ..spec() } },
        Command::SetStanding { id: 3, standing: Standing::Leaving },
        Command::ForgetMember { id: 4 },
        Command::PutSettings { settings: settings(), precondition: Precondition::Revision(44) },
        Command::RaiseFeatureLevel { level: 2 },
        Command::AddAuthority { sha256: [0xa1; 32], certificate_pem: "pem".to_owned() },
        Command::SetAuthorityPhase { sha256: [0xa2; 32], phase: Phase::Active },
        Command::RemoveAuthority { sha256: [0xa3; 32] },
        Command::Nothing,
    ]
}

pub(crate) fn changes() -> Vec<Change> {
    let spec = ConsumerSpec {
        roles: names(&["reader", "writer"]),
        attributes: [(name("env"), "prod".to_owned())].into_iter().collect(),
    };
    vec![
        Change::PutDocument { kind: Kind::Route, name: name("orders"), bytes: b"{}".as_slice().into() },
        Change::DeleteDocument { kind: Kind::Upstream, name: name("old") },
        Change::PutConsumer { name: name("acme"), spec },
        Change::DeleteConsumer { name: name("umbrella") },
        Change::PutLimit { name: name("burst"), bytes: b"{\"per\":\"key\"}".as_slice().into(), rule: rate() },
    ]
}

pub(crate) fn outcomes() -> Vec<Outcome> {
    vec![
        Outcome::Done { revision: 300 },
        Outcome::Admitted { revision: 301, id: 7 },
        Outcome::Refused(Refusal::TokenUsed { by: 8 }),
    ]
}

pub(crate) fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::NotFound { noun: Noun::Consumer, name: "acme".to_owned() },
        Refusal::AlreadyExists { noun: Noun::Key, name: "aaaaaaaaaaaaaaaa".to_owned() },
        Refusal::Conflict { noun: Noun::Resources, expected: 4, actual: 5 },
        Refusal::CapReached { noun: Noun::JoinToken, cap: 1000 },
        Refusal::OutOfBounds { what: Field::Labels, max: 64 },
        Refusal::KeyRevoked,
        Refusal::TokenUnknown,
        Refusal::TokenUsed { by: 3 },
        Refusal::TokenExpired,
        Refusal::NotPermitted { needed: Role::Admin },
        Refusal::LastAdmin { name: name("root") },
        Refusal::MemberLeaving { id: 2 },
        Refusal::RequestOutdated,
        Refusal::AlreadyInitialized,
        Refusal::NotInitialized,
        Refusal::FeatureLevel { level: 3, node: 2, supported: 1 },
        Refusal::NeedsFeatureLevel { needed: 2 },
        Refusal::AuthorityPhase,
        Refusal::MemberNotLeaving { id: 5 },
        Refusal::LastEligible { id: 6 },
        Refusal::LimitWithoutRule { name: name("burst") },
    ]
}

pub(crate) fn nouns() -> Vec<Noun> {
    vec![
        Noun::Consumer,
        Noun::Key,
        Noun::Document(Kind::Policy),
        Noun::Resources,
        Noun::Operator,
        Noun::Member,
        Noun::JoinToken,
        Noun::Authority,
        Noun::Settings,
        Noun::Request,
    ]
}

pub(crate) fn fields() -> Vec<Field> {
    vec![
        Field::DocumentBytes,
        Field::ApplyBytes,
        Field::Changes,
        Field::ImportedKeys,
        Field::Labels,
        Field::LabelBytes,
        Field::MemberText,
        Field::CertificateBytes,
        Field::Voters,
        Field::AuditEntries,
        Field::FeatureLevel,
        Field::LimitTokens,
        Field::LimitPeriod,
        Field::LimitBurst,
        Field::LimitAmount,
    ]
}

pub(crate) fn kinds() -> Vec<Kind> {
    vec![Kind::Defaults, Kind::Upstream, Kind::Route, Kind::Policy, Kind::Limit, Kind::Issuer]
}

pub(crate) fn roles() -> Vec<Role> {
    vec![Role::Viewer, Role::Operator, Role::Admin]
}

pub(crate) fn standings() -> Vec<Standing> {
    vec![Standing::Eligible, Standing::Learner, Standing::Leaving]
}

pub(crate) fn phases() -> Vec<Phase> {
    vec![Phase::Incoming, Phase::Active, Phase::Retiring]
}

pub(crate) fn key_origins() -> Vec<KeyOrigin> {
    vec![KeyOrigin::Issued, KeyOrigin::Imported]
}

pub(crate) fn record_keys() -> Vec<RecordKey> {
    vec![
        RecordKey::Cluster,
        RecordKey::Consumer(name("acme")),
        RecordKey::Key(KeyId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])),
        RecordKey::Document(Kind::Route, name("orders")),
        RecordKey::Operator(name("root")),
        RecordKey::Member(300),
        RecordKey::JoinToken([0x70; 32]),
        RecordKey::Authority([0xa0; 32]),
        RecordKey::Audit(70_000),
        RecordKey::Request(request()),
        RecordKey::Limit(name("burst")),
        RecordKey::Bucket(bucket_id("burst")),
        RecordKey::NodeSession(300),
        RecordKey::Ledger,
    ]
}

pub(crate) fn records() -> Vec<Record> {
    vec![
        Record::Cluster(ClusterRecord {
            at: at(),
            cluster: [0xc1; 16],
            revision: 300,
            resources_revision: 299,
            feature_level: 1,
            settings: settings(),
            settings_revision: 298,
            next_member: 4,
            next_audit: 297,
        }),
        Record::Consumer(Arc::new(Consumer {
            name: name("acme"),
            roles: names(&["reader"]),
            attributes: [(name("env"), "prod".to_owned())].into_iter().collect(),
            enabled: true,
            revision: 296,
        })),
        Record::Key(Key::from(KeyFields {
            id: KeyId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
            consumer: name("acme"),
            label: Some("nightly".into()),
            scopes: Some(Arc::new(names(&["read"]))),
            origin: KeyOrigin::Imported,
            current: Secret { hash: hash(0x21), not_after: None },
            previous: Some(Box::new(Secret { hash: hash(0x22), not_after: Some(Wall(1_700_000_000_002)) })),
            created_at: Wall(1_700_000_000_003),
            revoked_at: Some(Wall(1_700_000_000_004)),
            revision: 295,
        })),
        Record::Document(Document { bytes: b"{\"a\":1}".as_slice().into(), revision: 294 }),
        Record::Operator(Arc::new(Operator {
            name: name("root"),
            role: Role::Admin,
            certificate_sha256: [0x0e; 32],
            not_after: Wall(1_800_000_000_000),
            created_at: Wall(1_700_000_000_005),
            revoked_at: Some(Wall(1_700_000_000_006)),
            revision: 293,
        })),
        Record::Member(Arc::new(Member {
            id: 2,
            name: name("n2"),
            address: "n2.example:7400".to_owned(),
            gateway_address: "n2.example:8080".to_owned(),
            gateway_tls_address: "n2.example:8443".to_owned(),
            ops_address: "n2.example:9400".to_owned(),
            zone: Some("east".to_owned()),
            version: "0.1.0".to_owned(),
            feature_level_max: 1,
            standing: Standing::Learner,
            joined_at: Wall(1_700_000_000_007),
            revision: 292,
        })),
        Record::JoinToken(JoinToken { hash: [0x70; 32], not_after: Wall(1_700_003_600_000), used_by: Some(2) }),
        Record::Authority(Arc::new(Authority {
            sha256: [0xa0; 32],
            certificate_pem: "pem".to_owned(),
            phase: Phase::Retiring,
            added_at: Wall(1_700_000_000_008),
            revision: 291,
        })),
        Record::Audit(Arc::new(AuditEntry {
            at: Wall(1_700_000_000_009),
            actor: Actor::Node(2),
            action: "key.revoke".to_owned(),
            subject: "aebagbafaydqqcik".to_owned(),
            from_revision: Some(289),
            to_revision: 290,
        })),
        Record::Request(Remembered { outcome: Outcome::Admitted { revision: 288, id: 2 }, index: 1_000_000 }),
        Record::Limit(Limit { rule: rate(), generation: 287, changed: Tick(1_234_566) }),
        Record::Bucket(Arc::new(bucket(rate()))),
        Record::NodeSession(Session { incarnation: 0x0123_4567_89ab_cdef, request: 301 }),
        Record::Ledger(LedgerRecord { next_allowance: 70_004, swept: Some(bucket_id("plan")) }),
    ]
}

/// A bucket of a quota, beside that of a rate in [`records`].
pub(crate) fn quota_bucket() -> Record {
    Record::Bucket(Arc::new(bucket(Rule::Quota(Quota { amount: 10_000, window: Window::Day }))))
}
