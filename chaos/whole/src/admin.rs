//! Operators: one client at each node, which makes and revokes keys, switches consumers on and off if they are as expected, changes limits,
//! and reads. What a crash leaves unanswered is asked again elsewhere, under the same request id.

use super::{
    clock::now_us,
    gateway::ROUTES,
    record::{Acknowledged, Read},
    seat::{Cluster, Key, Pending, Phase, Seat, lock},
};
use chaos::history::{
    Admin, AdminOutcome, Credential, Fenced, Limit, Operation, Per, REVOKED, Refused, Route, Rule as Said, Text,
    Version, What,
};
use machine::{
    Actor, Command, Name, Outcome, Refusal, RequestId, View,
    command::Precondition,
    consumer::ConsumerSpec,
    key::{KeyId, SecretHash},
    limit::{Quota, Rate, Rule, Window},
    resource::Change,
};
use raft::{Fence, FenceState, Handle, ProposeError};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// A name that is one.
pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap_or_else(|_| unreachable!("a constant of this crate"))
}

/// The operator.
pub(super) fn operator() -> Option<Actor> {
    Some(Actor::Operator(Name::new("root").ok()?))
}

/// A request id that was not used before.
pub(super) fn request(cluster: &Cluster, handle: &Handle) -> RequestId {
    RequestId { issued: handle.time().wall, random: u128::from(cluster.seed) << 64 | u128::from(cluster.number()) }
}

/// The limits of the beginning.
const LIMITS: [(&str, Rule); 5] = [
    ("rate", rate(40, 30)),
    ("scarce", rate(5, 5)),
    ("plan", quota(300)),
    ("both-rate", rate(30, 20)),
    ("both-plan", quota(200)),
];

/// Consumers whose keys nobody shows: they are switched on and off.
const SWITCHED: [&str; 3] = ["c1", "c2", "c3"];

const fn rate(tokens: u64, burst: u64) -> Rule {
    Rule::Rate(Rate { tokens, period_us: 1_000_000, burst })
}

const fn quota(amount: u64) -> Rule {
    Rule::Quota(Quota { amount, window: Window::Day })
}

fn said(rule: Rule) -> Said {
    match rule {
        Rule::Rate(Rate { tokens, period_us, burst }) => Said::Rate { tokens, period_us, burst },
        Rule::Quota(Quota { amount, .. }) => Said::Quota { amount, window_us: 86_400_000_000 },
    }
}

/// Makes what all runs begin with.
pub(super) async fn found(seat: &Arc<Seat>, handle: &Handle) {
    let began_us = now_us();
    let consumers = SWITCHED.into_iter().chain(["acme"]).map(|consumer| Change::PutConsumer {
        name: name(consumer),
        spec: ConsumerSpec { roles: BTreeSet::new(), attributes: BTreeMap::new() },
    });
    let changes: Vec<Change> = consumers.chain(LIMITS.iter().map(|(limit, rule)| put(limit, *rule))).collect();
    let (id, mut attempts) = (request(&seat.cluster, handle), 0);
    let written = loop {
        attempts += 1;
        let validated_against = handle.view().registry.resources_revision;
        let command = Command::ApplyResources { validated_against, changes: changes.clone() };
        let Some(actor) = operator() else { return };
        match handle.propose(id, actor, command, Fence::None).await {
            Ok(written) => break written,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let revision = match written.outcome {
        Outcome::Done { revision } => revision,
        other => return seat.cluster.record.violated(format!("the first resources were not taken: {other:?}")),
    };
    let record = &seat.cluster.record;
    for consumer in SWITCHED {
        record.event(What::Admin(Admin {
            client: 0,
            node: seat.id,
            began_us,
            attempts,
            request: format!("{:x}", id.random),
            operation: Operation::Put { object: format!("consumer/{consumer}"), value: "on".into(), expected: None },
            ends: Vec::new(),
            audit: None,
            outcome: AdminOutcome::Done { revision, fence: Vec::new() },
        }));
    }
    for (limit, rule) in LIMITS {
        record.note(|known| known.rules.entry(limit).or_default().push(rule));
        record.event(What::Limit(Limit {
            name: Text::from(limit),
            rule: said(rule),
            per: Per::Route,
            began_us,
            known: true,
        }));
    }
    for route in ROUTES {
        record.event(What::Route(Route {
            name: Text::from(route.name),
            limits: route.limits.iter().map(|limit| Text::from(*limit)).collect(),
            cost: 1,
            serves_isolated: false,
        }));
    }
}

fn put(limit: &str, rule: Rule) -> Change {
    Change::PutLimit { name: name(limit), bytes: format!("{rule:?}").into_bytes().into(), rule }
}

/// One client, at one node.
pub(super) async fn work(seat: Arc<Seat>, handle: Handle) {
    let mut phase = seat.cluster.phase.subscribe();
    if phase.wait_for(|phase| *phase >= Phase::Work).await.is_err() {
        return;
    }
    loop {
        let idle_us = seat.between(20_000, 500_000);
        tokio::time::sleep(Duration::from_micros(idle_us)).await;
        if seat.cluster.phase() != Phase::Work {
            return;
        }
        if seat.chance(300) {
            read(&seat, &handle).await;
        } else if let Some(pending) = next(&seat, &handle) {
            write(&seat, &handle, pending).await;
        }
    }
}

/// What to do next: what somebody else could not end, or something new.
fn next(seat: &Arc<Seat>, handle: &Handle) -> Option<Pending> {
    let cluster = &seat.cluster;
    if seat.chance(500)
        && let Some(pending) = lock(&cluster.unknown).pop()
    {
        return Some(pending);
    }
    let id = request(cluster, handle);
    let view = handle.view();
    let pending = |command, operation, key| Some(Pending { request: id, command, operation, key, tried: false });
    match seat.between(0, 99) {
        0..35 => {
            let mut keys = lock(&cluster.keys);
            let key = keys.len();
            let mut bytes = [0; 10];
            bytes[..8].copy_from_slice(&(key as u64 + 1).to_be_bytes());
            keys.push(Key { id: KeyId(bytes), made: false, ending: false, revoked: false });
            drop(keys);
            cluster.record.event(What::Credential(Credential {
                name: Text::from(format!("k{key}#1")),
                key: Text::from(format!("k{key}")),
                key_id: Text::from(KeyId(bytes).to_string()),
                consumer: Text::from("acme"),
            }));
            let mut hash = [9; 32];
            hash[..8].copy_from_slice(&(key as u64).to_be_bytes());
            let command = Command::CreateKey {
                id: KeyId(bytes),
                consumer: name("acme"),
                label: None,
                scopes: BTreeSet::new(),
                hash: SecretHash(hash),
                not_after: None,
            };
            let operation = Operation::Create { object: format!("key/k{key}"), value: "good".into() };
            pending(command, operation, Some(key))
        }
        35..55 => {
            let mut keys = lock(&cluster.keys);
            // One good key stays, so that something can always be admitted.
            let many = keys.iter().filter(|key| key.made && !key.ending).count() > 2;
            let good: Vec<usize> =
                keys.iter().enumerate().filter(|(_, key)| key.made && !key.ending).map(|(at, _)| at).collect();
            let chosen = usize::try_from(seat.between(0, good.len().max(1) as u64 - 1)).unwrap_or(0);
            let key = *good.get(chosen).filter(|_| many)?;
            let held = keys.get_mut(key)?;
            held.ending = true;
            let command = Command::RevokeKey { id: held.id, precondition: Precondition::Any };
            let object = format!("key/k{key}");
            pending(command, Operation::Change { object, value: REVOKED.into(), expected: None }, Some(key))
        }
        55..85 => {
            let consumer = pick(seat, &SWITCHED)?;
            let known = view.registry.consumers.get(&name(consumer))?;
            let enabled = !known.enabled;
            let expected = seat.chance(700).then_some(known.revision);
            let precondition = expected.map_or(Precondition::Any, Precondition::Revision);
            let command = Command::SetConsumerEnabled { name: name(consumer), enabled, precondition };
            let value = if enabled { "on" } else { "off" }.to_owned();
            pending(command, Operation::Change { object: format!("consumer/{consumer}"), value, expected }, None)
        }
        _ => {
            let limit = pick(seat, &["rate", "scarce", "both-rate"])?;
            let rule = match limit {
                "scarce" => rate(seat.between(3, 8), seat.between(2, 8)),
                _ => rate(seat.between(20, 60), seat.between(10, 40)),
            };
            cluster.record.note(|known| known.rules.entry(limit).or_default().push(rule));
            let validated_against = view.registry.resources_revision;
            let command = Command::ApplyResources { validated_against, changes: vec![put(limit, rule)] };
            let object = format!("limit/{limit}");
            cluster.record.event(What::Limit(Limit {
                name: Text::from(limit),
                rule: said(rule),
                per: Per::Route,
                began_us: now_us(),
                known: false,
            }));
            pending(command, Operation::Put { object, value: format!("{rule:?}"), expected: None }, None)
        }
    }
}

fn pick(seat: &Seat, from: &[&'static str]) -> Option<&'static str> {
    from.get(usize::try_from(seat.between(0, from.len() as u64 - 1)).ok()?).copied()
}

/// An operation under way. If the process dies, nobody knows what became of it.
struct UnderWay<'a> {
    seat: &'a Seat,
    pending: Option<Pending>,
    began_us: u64,
}

impl UnderWay<'_> {
    fn over(&mut self, outcome: AdminOutcome) {
        let Some(mut pending) = self.pending.take() else { return };
        let outcome = match outcome {
            // It says nothing of the attempt before.
            AdminOutcome::Failed { why } if pending.tried => AdminOutcome::Unknown { why },
            AdminOutcome::Refused(why) if pending.tried => AdminOutcome::Unknown { why: format!("{why:?}") },
            outcome => outcome,
        };
        pending.tried = true;
        let cluster = &self.seat.cluster;
        let revokes = matches!(pending.command, Command::RevokeKey { .. });
        if let Some(key) = pending.key
            && matches!(outcome, AdminOutcome::Done { .. })
            && let Some(key) = lock(&cluster.keys).get_mut(key)
        {
            key.made = true;
            key.revoked |= revokes;
        }
        cluster.record.note(|known| match &outcome {
            AdminOutcome::Done { .. } => known.figures.writes += 1,
            AdminOutcome::Unknown { .. } => known.figures.unknown += 1,
            _ => known.figures.not_done += 1,
        });
        let ends = pending.key.filter(|_| revokes).map(|key| Text::from(format!("k{key}#1")));
        let is_unknown = matches!(outcome, AdminOutcome::Unknown { .. });
        cluster.record.event(What::Admin(Admin {
            client: u32::try_from(self.seat.id).unwrap_or(0),
            node: self.seat.id,
            began_us: self.began_us,
            attempts: 1,
            request: format!("{:x}", pending.request.random),
            operation: pending.operation.clone(),
            ends: ends.into_iter().collect(),
            audit: None,
            outcome,
        }));
        if is_unknown {
            lock(&cluster.unknown).push(pending);
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.over(AdminOutcome::Unknown { why: "the node died".to_owned() });
    }
}

async fn write(seat: &Arc<Seat>, handle: &Handle, pending: Pending) {
    let Some(actor) = operator() else { return };
    let fence = if seat.chance(800) { Fence::Within(Duration::from_secs(8)) } else { Fence::None };
    let (id, command) = (pending.request, pending.command.clone());
    let mut under_way = UnderWay { seat, pending: Some(pending), began_us: now_us() };
    let written = handle.propose(id, actor, command, fence).await;
    let record = &seat.cluster.record;
    let outcome = match written {
        Ok(written) => {
            let came_to = format!("{:?} at {}", written.outcome, written.index);
            let before =
                record.note(|known| known.outcomes.entry(id.random).or_insert_with(|| came_to.clone()).clone());
            // A refusal is not remembered: asked again, the world may be another.
            if before != came_to && !matches!(written.outcome, Outcome::Refused(_)) && !before.contains("Refused") {
                record.violated(format!("one request was done twice: {before}, and {came_to}"));
            }
            let pends = written.fence.iter().any(|(_, state)| *state == FenceState::Pending);
            let fenced = !written.fence.is_empty() && !pends;
            match written.outcome {
                Outcome::Done { revision } | Outcome::Admitted { revision, .. } => {
                    record.note(|known| {
                        let (index, at_us) = (written.index, now_us());
                        known.acknowledged.push(Acknowledged { index, at_us, fenced });
                    });
                    let fence = written.fence.iter().map(|(node, state)| (*node, fence_of(*state))).collect();
                    AdminOutcome::Done { revision, fence }
                }
                Outcome::Refused(refusal) => refused(&refusal),
            }
        }
        Err(ProposeError::Unknown) => AdminOutcome::Unknown { why: "no answer".to_owned() },
        // This attempt was not done; one before it may have been.
        Err(error) => AdminOutcome::Failed { why: error.to_string() },
    };
    under_way.over(outcome);
}

fn fence_of(state: FenceState) -> Fenced {
    match state {
        FenceState::Applied => Fenced::Applied,
        FenceState::Expired => Fenced::Expired,
        FenceState::ServingIsolated => Fenced::ServingIsolated,
        FenceState::Pending => Fenced::Pending,
    }
}

fn refused(refusal: &Refusal) -> AdminOutcome {
    match refusal {
        Refusal::AlreadyExists { .. } => AdminOutcome::Refused(Refused::AlreadyExists),
        Refusal::NotFound { .. } => AdminOutcome::Refused(Refused::NotFound),
        Refusal::KeyRevoked => AdminOutcome::Refused(Refused::Revoked),
        Refusal::Conflict { noun: machine::outcome::Noun::Resources, .. } => {
            AdminOutcome::Failed { why: "the resources have changed".to_owned() }
        }
        Refusal::Conflict { actual, .. } => AdminOutcome::Refused(Refused::Conflict { actual: Some(*actual) }),
        other => AdminOutcome::Failed { why: other.to_string() },
    }
}

async fn read(seat: &Arc<Seat>, handle: &Handle) {
    let began_us = now_us();
    let Ok(view) = handle.read().await else { return };
    let record = &seat.cluster.record;
    record.note(|known| {
        known.figures.reads += 1;
        known.reads.push(Read { began_us, index: view.index });
    });
    let objects = [pick(seat, &SWITCHED).map(|consumer| format!("consumer/{consumer}")), some_key(seat)];
    for object in objects.into_iter().flatten() {
        let found = found_in(seat, &view, &object);
        record.event(What::Admin(Admin {
            client: u32::try_from(seat.id).unwrap_or(0),
            node: seat.id,
            began_us,
            attempts: 1,
            request: String::new(),
            operation: Operation::Read { object },
            ends: Vec::new(),
            audit: None,
            outcome: AdminOutcome::Found(found),
        }));
    }
}

fn some_key(seat: &Seat) -> Option<String> {
    let keys = lock(&seat.cluster.keys).len() as u64;
    Some(format!("key/k{}", seat.between(0, keys.checked_sub(1)?)))
}

fn found_in(seat: &Seat, view: &View, object: &str) -> Option<Version> {
    let (kind, of) = object.split_once('/')?;
    let (revision, value) = if kind == "consumer" {
        let consumer = view.registry.consumers.get(&Name::new(of).ok()?)?;
        (consumer.revision, if consumer.enabled { "on" } else { "off" })
    } else {
        let id = lock(&seat.cluster.keys).get(of.strip_prefix('k')?.parse::<usize>().ok()?)?.id;
        let key = view.registry.keys.get(&id)?;
        (key.revision, if key.revoked_at().is_some() { REVOKED } else { "good" })
    };
    Some(Version { revision, value: value.to_owned() })
}
