//! Random command sequences over few names, so that commands meet each other's results.

use crate::first::{START, first};
use machine::{
    Actor, Command, Entry, Name, Proposal, RequestId, State,
    allowance::{Acquire, BucketId, Part, Want},
    authority::Phase,
    bucket::{Spent, Terms},
    command::Precondition,
    consumer::ConsumerSpec,
    key::{ImportedKey, KeyId, SecretHash},
    limit::{Quota, Rate, Rule, Window},
    member::{MemberSpec, Standing},
    operator::Role,
    resource::{Change, Kind},
    settings::Settings,
    time::{At, Tick, Wall},
};
use proptest::{collection, option, prelude::*, sample::select};

const HOUR: u64 = 60 * 60 * 1000;
const DAY: u64 = 24 * HOUR;

/// What one step of a random history does; [`history`] turns steps into entries.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    elapsed: Elapsed,
    asks: Vec<Ask>,
    terms: Terms,
    acquires: Vec<Acquire>,
}

#[derive(Clone, Debug)]
enum Elapsed {
    Forward(u64),
    Back(u64),
}

#[derive(Clone, Debug)]
struct Ask {
    actor: Actor,
    command: Command,
    /// Validates the resources against the present revision rather than the generated one.
    is_fresh: bool,
    /// A small number makes copies of requests likely.
    retry_of: Option<u128>,
    issued_before_ms: u64,
}

/// Entries that begin with a first entry, mostly.
pub(crate) fn histories() -> impl Strategy<Value = Vec<Entry>> {
    (prop::bool::weighted(0.95), collection::vec(step(), 0..60)).prop_map(|(begins, steps)| history(begins, &steps))
}

/// The entries of a history. Whether an ask is fresh depends on the state that the ones before it made.
fn history(begins: bool, steps: &[Step]) -> Vec<Entry> {
    let mut state = State::default();
    let mut entries = Vec::new();
    let mut now = START;
    let mut next_request = 1_000_000_u128;
    if begins {
        let request = RequestId { issued: Wall(now), random: 0 };
        let command = Command::Initialize(Box::new(first()));
        entries.push(Entry {
            at: at(now),
            terms: Terms::default(),
            proposals: vec![Proposal { request, actor: Actor::Bootstrap, command }],
            acquires: Vec::new(),
        });
    }
    for step in steps {
        now = match step.elapsed {
            Elapsed::Forward(ms) => now.saturating_add(ms),
            Elapsed::Back(ms) => now.saturating_sub(ms),
        };
        for entry in &entries[entries.len().saturating_sub(1)..] {
            state.apply_entry(1, entry);
        }
        let mut proposals = Vec::new();
        for ask in &step.asks {
            let mut command = ask.command.clone();
            if let (Command::ApplyResources { validated_against, .. }, true) = (&mut command, ask.is_fresh) {
                *validated_against = state.registry.resources_revision;
            }
            let request = match ask.retry_of {
                Some(random) => RequestId { issued: Wall(START), random },
                None => {
                    next_request += 1;
                    RequestId { issued: Wall(now.saturating_sub(ask.issued_before_ms)), random: next_request }
                }
            };
            proposals.push(Proposal { request, actor: ask.actor.clone(), command });
        }
        entries.push(Entry { at: at(now), terms: step.terms, proposals, acquires: step.acquires.clone() });
    }
    entries
}

fn at(wall: u64) -> At {
    At { tick: Tick(wall.saturating_sub(START).saturating_mul(1000)), wall: Wall(wall) }
}

fn step() -> impl Strategy<Value = Step> {
    let elapsed = prop_oneof![
        1 => Just(Elapsed::Forward(u64::MAX / 2)),
        100 => (0..5_000_u64).prop_map(Elapsed::Forward),
        20 => (0..2 * HOUR).prop_map(Elapsed::Forward),
        10 => (0..2 * DAY).prop_map(Elapsed::Forward),
        5 => (0..HOUR).prop_map(Elapsed::Back),
    ];
    (elapsed, collection::vec(ask(), 0..4), terms(), collection::vec(acquires(), 0..4))
        .prop_map(|(elapsed, asks, terms, acquires)| Step { elapsed, asks, terms, acquires })
}

fn terms() -> impl Strategy<Value = Terms> {
    let us = || prop_oneof![8 => 0..3_000_000_u64, 1 => any::<u64>()];
    let any = (us(), us()).prop_map(|(ttl_us, margin_us)| Terms { ttl_us, margin_us });
    prop_oneof![4 => Just(Terms { ttl_us: 2_000_000, margin_us: 1_000 }), 1 => any]
}

/// Of members and others, of few processes and buckets; numbers of requests and allowances that often meet.
fn acquires() -> impl Strategy<Value = Acquire> {
    let reports = collection::vec((bucket_ids(), (0..40_u64, 0..12_u64, any::<bool>())), 0..6);
    let wants = collection::vec(wants(), 0..5);
    (0..4_u64, 0..3_u64, 0..40_u64, reports, wants).prop_map(|(node, incarnation, request, reports, wants)| {
        let spent = |(allowance, spent, close)| Spent { allowance, spent, close };
        let reports = reports.into_iter().map(|(id, report)| (id, spent(report))).collect();
        Acquire { node, incarnation, request, reports, wants }
    })
}

fn wants() -> impl Strategy<Value = Want> {
    let amount = || prop_oneof![20 => 0..15_u64, 1 => any::<u64>()];
    let cost = prop_oneof![20 => 1..4_u64, 1 => Just(0), 1 => any::<u64>()];
    let part = (bucket_ids(), cost).prop_map(|(bucket, cost)| Part { bucket, cost }).boxed();
    let parts = prop_oneof![20 => collection::vec(part.clone(), 1..4), 1 => collection::vec(part, 0..12)];
    (parts, amount(), amount()).prop_map(|(parts, waiting, ahead)| Want { parts, waiting, ahead })
}

fn bucket_ids() -> impl Strategy<Value = BucketId> {
    let subjects = prop_oneof![40 => collection::vec(0..2_u8, 1), 1 => Just(vec![7; 257])];
    (names(), subjects).prop_map(|(limit, subject)| BucketId { limit, subject: subject.into() })
}

fn ask() -> impl Strategy<Value = Ask> {
    let actor = prop_oneof![
        30 => Just(Actor::Operator(name("root"))),
        4 => names().prop_map(Actor::Operator),
        6 => (0..4_u64).prop_map(Actor::Node),
        1 => Just(Actor::Bootstrap),
    ];
    let retry_of = prop_oneof![8 => Just(None), 1 => (0..20_u128).prop_map(Some)];
    let issued_before_ms = prop_oneof![20 => Just(0), 1 => 0..2 * DAY];
    (actor, commands(), prop::bool::weighted(0.9), retry_of, issued_before_ms).prop_map(
        |(actor, command, is_fresh, retry_of, issued_before_ms)| Ask {
            actor,
            command,
            is_fresh,
            retry_of,
            issued_before_ms,
        },
    )
}

/// Any command, over few names.
pub(crate) fn commands() -> impl Strategy<Value = Command> {
    prop_oneof![
        1 => Just(Command::Initialize(Box::new(first()))),
        8 => (0..40_u64, collection::vec(changes(), 0..5)).prop_map(|(validated_against, changes)| {
            Command::ApplyResources { validated_against, changes }
        }),
        3 => (names(), any::<bool>(), preconditions())
            .prop_map(|(name, enabled, precondition)| Command::SetConsumerEnabled { name, enabled, precondition }),
        8 => (key_ids(), names(), option::of(labels()), collection::btree_set(names(), 0..3), hashes(), option::of(walls()))
            .prop_map(|(id, consumer, label, scopes, hash, not_after)| Command::CreateKey {
                id, consumer, label, scopes, hash: SecretHash(hash), not_after,
            }),
        5 => (key_ids(), hashes(), durations(), option::of(walls()), preconditions()).prop_map(
            |(id, hash, overlap_ms, not_after, precondition)| Command::RotateKey {
                id, hash: SecretHash(hash), overlap_ms, not_after, precondition,
            }),
        3 => (key_ids(), preconditions()).prop_map(|(id, precondition)| Command::RevokeKey { id, precondition }),
        5 => collection::vec(imported_keys(), 0..4).prop_map(Command::ImportKeys),
        3 => (names(), select(vec![Role::Viewer, Role::Operator, Role::Admin]), hashes(), walls()).prop_map(
            |(name, role, certificate_sha256, not_after)| Command::CreateOperator {
                name, role, certificate_sha256, not_after,
            }),
        2 => prop_oneof![names(), Just(name("root"))].prop_map(|name| Command::RevokeOperator { name }),
        3 => (hashes(), walls()).prop_map(|(hash, not_after)| Command::CreateJoinToken { hash, not_after }),
        4 => (hashes(), specs(), any::<bool>())
            .prop_map(|(token_hash, spec, learner)| Command::AdmitMember { token_hash, spec, learner }),
        2 => (0..6_u64, specs()).prop_map(|(id, spec)| Command::UpdateMember { id, spec }),
        4 => (0..6_u64, select(vec![Standing::Eligible, Standing::Learner, Standing::Leaving]))
            .prop_map(|(id, standing)| Command::SetStanding { id, standing }),
        2 => (0..6_u64).prop_map(|id| Command::ForgetMember { id }),
        2 => (0..9_u8, prop_oneof![0..40_u64, any::<u64>()], preconditions()).prop_map(|(voters, audit, precondition)| {
            let settings = Settings { voters, learner_expiry_ms: 0, audit_entries_max: audit };
            Command::PutSettings { settings, precondition }
        }),
        1 => prop_oneof![0..4_u32, any::<u32>()].prop_map(|level| Command::RaiseFeatureLevel { level }),
        3 => (hashes(), labels())
            .prop_map(|(sha256, certificate_pem)| Command::AddAuthority { sha256, certificate_pem }),
        3 => (hashes(), select(vec![Phase::Incoming, Phase::Active, Phase::Retiring]))
            .prop_map(|(sha256, phase)| Command::SetAuthorityPhase { sha256, phase }),
        2 => hashes().prop_map(|sha256| Command::RemoveAuthority { sha256 }),
        1 => Just(Command::Nothing),
    ]
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (names(), collection::vec(0..4_u8, 0..2), rules())
            .prop_map(|(name, bytes, rule)| Change::PutLimit { name, bytes: bytes.into(), rule }),
        4 => (select(Kind::ALL.to_vec()), names(), collection::vec(0..4_u8, 0..2)).prop_map(|(kind, name, bytes)| {
            Change::PutDocument { kind, name, bytes: bytes.into() }
        }),
        1 => (select(Kind::ALL.to_vec()), names()).prop_map(|(kind, name)| Change::DeleteDocument { kind, name }),
        6 => (names(), collection::btree_set(names(), 0..2), collection::btree_map(names(), labels(), 0..2))
            .prop_map(|(name, roles, attributes)| Change::PutConsumer { name, spec: ConsumerSpec { roles, attributes } }),
        1 => names().prop_map(|name| Change::DeleteConsumer { name }),
    ]
}

/// Small numbers, so that limits are met.
fn rules() -> impl Strategy<Value = Rule> {
    let windows = vec![Window::Minute, Window::Hour, Window::Day, Window::Month];
    let tokens = || prop_oneof![40 => 1..12_u64, 1 => Just(0), 1 => any::<u64>()];
    prop_oneof![
        (tokens(), prop_oneof![20 => 1_000..2_000_000_u64, 1 => any::<u64>()], tokens())
            .prop_map(|(tokens, period_us, burst)| Rule::Rate(Rate { tokens, period_us, burst })),
        (tokens(), select(windows)).prop_map(|(amount, window)| Rule::Quota(Quota { amount, window })),
    ]
}

fn imported_keys() -> impl Strategy<Value = ImportedKey> {
    (key_ids(), names(), collection::btree_set(names(), 0..2), hashes(), option::of(walls())).prop_map(
        |(id, consumer, scopes, hash, not_after)| ImportedKey {
            id,
            consumer,
            label: None,
            scopes,
            hash: SecretHash(hash),
            not_after,
        },
    )
}

fn specs() -> impl Strategy<Value = MemberSpec> {
    (names(), prop_oneof![9 => labels(), 1 => Just("x".repeat(300))], 0..4_u32).prop_map(
        |(name, text, feature_level_max)| MemberSpec { name, zone: Some(text), feature_level_max, ..first().member },
    )
}

fn names() -> impl Strategy<Value = Name> {
    select(vec!["a", "b", "c", "d"]).prop_map(name)
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn labels() -> impl Strategy<Value = String> {
    prop_oneof![20 => select(vec![String::new(), "x".to_owned()]), 1 => Just("x".repeat(2000))]
}

fn key_ids() -> impl Strategy<Value = KeyId> {
    (0..8_u8).prop_map(|number| KeyId([number; 10]))
}

fn hashes() -> impl Strategy<Value = [u8; 32]> {
    (0..8_u8).prop_map(hash)
}

fn hash(number: u8) -> [u8; 32] {
    [number; 32]
}

fn walls() -> impl Strategy<Value = Wall> {
    prop_oneof![8 => START..START + 4 * DAY, 1 => Just(0), 1 => Just(u64::MAX)].prop_map(Wall)
}

fn durations() -> impl Strategy<Value = u64> {
    prop_oneof![2 => Just(0), 8 => 0..3 * DAY, 1 => Just(u64::MAX)]
}

fn preconditions() -> impl Strategy<Value = Precondition> {
    prop_oneof![3 => Just(Precondition::Any), 1 => (0..30_u64).prop_map(Precondition::Revision)]
}
