//! What keys cost: memory of one in a state of many, and the time of what touches many of them.
//!
//! `cargo run --release -p machine --example key_memory -- [import|create|restore] [KEYS] [CONSUMERS]`: one way in one process,
//! because memory that was freed stays with the process. `import` makes keys in large batches, `create` one by one (so
//! that a remembered request and an audit entry come with each), `restore` from records, as after a restart.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "an example that measures"
)]

use machine::{
    Actor, Command, Entry, Name, Outcome, Proposal, Record, RecordKey, RequestId, State,
    bucket::Terms,
    command::{Initialize, Precondition},
    consumer::ConsumerSpec,
    key::{ImportedKey, Key, KeyFields, KeyId, KeyOrigin, Secret, SecretHash},
    member::MemberSpec,
    resource::Change,
    settings::Settings,
    time::{At, Tick, Wall},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

/// As the node has it: what a key costs depends on how an allocator rounds.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const START: u64 = 1_700_000_000_000;
const BATCH: u64 = 10_000;
const LOOKUPS: u64 = 1_000_000;

/// A state and what the next proposal needs.
#[derive(Default)]
struct Cluster {
    state: State,
    index: u64,
    consumers: u64,
}

impl Cluster {
    /// Applies a command that has been through the bytes of a log entry, as all have.
    fn apply(&mut self, actor: Actor, command: Command) {
        self.index += 1;
        let at = At { tick: Tick(self.index), wall: Wall(START + self.index) };
        let request = RequestId { issued: at.wall, random: u128::from(self.index) };
        let entry = through_bytes(&Entry {
            at,
            terms: Terms::default(),
            proposals: vec![Proposal { request, actor, command }],
            acquires: Vec::new(),
        });
        for applied in self.state.apply_entry(self.index, &entry).applied {
            assert!(!matches!(applied.outcome, Outcome::Refused(_)), "{applied:?}");
        }
    }

    fn ask(&mut self, command: Command) {
        self.apply(Actor::Operator(name("root")), command);
    }

    fn begin(consumers: u64) -> Self {
        let mut cluster = Self { consumers, ..Self::default() };
        cluster.apply(Actor::Bootstrap, Command::Initialize(Box::new(first())));
        let spec = ConsumerSpec { roles: BTreeSet::new(), attributes: BTreeMap::new() };
        for first in (0..consumers).step_by(10_000) {
            let numbers = first..consumers.min(first + 10_000);
            let changes = numbers.map(|number| Change::PutConsumer { name: consumer(number), spec: spec.clone() });
            let validated_against = cluster.state.registry.resources_revision;
            cluster.ask(Command::ApplyResources { validated_against, changes: changes.collect() });
        }
        cluster
    }

    fn create(&self, number: u64) -> Command {
        let ImportedKey { id, consumer, label, scopes, hash, not_after } = self.imported(number);
        Command::CreateKey { id, consumer, label, scopes, hash, not_after }
    }

    fn imported(&self, number: u64) -> ImportedKey {
        ImportedKey {
            id: id(number),
            consumer: consumer(number % self.consumers),
            label: None,
            scopes: ["orders.read", "orders.write"].into_iter().map(name).collect(),
            hash: SecretHash(
                [number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes(); 4].concat().try_into().unwrap(),
            ),
            not_after: Some(Wall(START * 2)),
        }
    }

    /// The record of a key that was issued.
    fn record(&self, number: u64) -> (RecordKey, Record) {
        let ImportedKey { id, consumer, scopes, hash, not_after, .. } = self.imported(number);
        let key = KeyFields {
            id,
            consumer,
            label: None,
            scopes: Some(Arc::new(scopes)),
            origin: KeyOrigin::Issued,
            current: Secret { hash, not_after },
            previous: None,
            created_at: Wall(START),
            revoked_at: None,
            revision: 1,
        };
        (RecordKey::Key(id), Record::Key(key.into()))
    }
}

fn main() {
    let way = std::env::args().nth(1).unwrap_or_else(|| "import".to_owned());
    let keys: u64 = std::env::args().nth(2).map_or(100_000, |keys| keys.parse().unwrap());
    let consumers: u64 = std::env::args().nth(3).map_or(100, |consumers| consumers.parse().unwrap());
    let mut cluster = Cluster::begin(consumers);
    let before = resident_bytes();
    let start = Instant::now();
    match way.as_str() {
        "import" => {
            for batch in (0..keys).step_by(usize::try_from(BATCH).unwrap()) {
                let batch = (batch..keys.min(batch + BATCH)).map(|number| cluster.imported(number)).collect();
                cluster.ask(Command::ImportKeys(batch));
            }
        }
        "create" => {
            for number in 0..keys {
                let create = cluster.create(number);
                cluster.ask(create);
            }
        }
        "restore" => {
            let records: Vec<_> = cluster.state.records().collect();
            let keys = (0..keys).map(|number| through_bytes(&cluster.record(number)));
            cluster.state = State::from_records(records.into_iter().chain(keys)).unwrap();
        }
        _ => panic!("import, create or restore"),
    }
    let elapsed = start.elapsed();
    let used = resident_bytes().saturating_sub(before);
    let state = &cluster.state;
    assert_eq!(state.registry.keys.len() as u64, keys);
    println!("{way}: {keys} keys, {} bytes each, in {elapsed:?}", used / keys);
    println!("  of which {} in a `Key`", size_of::<Key>());
    println!("  with {} requests and {} audit entries", state.requests.len(), state.audit.len());

    // Numbers in no order, so that hardly anything is in the processor's caches.
    let numbers: Vec<u64> = (0..LOOKUPS).map(|turn| turn.wrapping_mul(0x5851_f42d_4c95_7f2d) % keys).collect();
    let start = Instant::now();
    let found = numbers.iter().filter(|number| state.registry.keys.get(&id(**number)).is_some()).count();
    println!("  finding a key by its id: {} ns", start.elapsed().as_nanos() / u128::from(LOOKUPS));
    let hashes: Vec<SecretHash> = numbers.iter().map(|number| cluster.imported(*number).hash).collect();
    let start = Instant::now();
    let by_hash = hashes.iter().filter(|hash| state.registry.key_of_hash(hash).is_some()).count();
    println!(
        "  looking for a hash: {} ns, {found} and {by_hash} found",
        start.elapsed().as_nanos() / u128::from(LOOKUPS)
    );

    let earlier = state.clone();
    let start = Instant::now();
    cluster.ask(Command::RevokeKey { id: id(1), precondition: Precondition::Any });
    println!("  one revocation beside a clone: {:?}", start.elapsed());
    let start = Instant::now();
    let changes = cluster.state.changes_since(&earlier).len();
    println!("  its {changes} differences: {:?}", start.elapsed());
    let start = Instant::now();
    machine::invariant::check(&cluster.state).unwrap();
    println!("  all invariants: {:?}", start.elapsed());
    let validated_against = cluster.state.registry.resources_revision;
    let changes = vec![Change::DeleteConsumer { name: consumer(0) }];
    let its_keys = cluster.state.registry.keys_of(&consumer(0)).count();
    let (start, ran) = (Instant::now(), ran());
    cluster.ask(Command::ApplyResources { validated_against, changes });
    let ran = self::ran().saturating_sub(ran);
    println!("  deleting a consumer with {its_keys} keys: {:?}, {ran:?} of it at work", start.elapsed());
    let start = Instant::now();
    drop(earlier);
    println!("  letting go of the state before: {:?}", start.elapsed());
}

/// Spread as random ones are.
fn id(number: u64) -> KeyId {
    let mut id = [0; 10];
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    KeyId(id)
}

fn consumer(number: u64) -> Name {
    name(&format!("customer-{number:04}"))
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn first() -> Initialize {
    Initialize {
        cluster: [1; 16],
        feature_level: 1,
        settings: Settings::default(),
        authority_sha256: [1; 32],
        authority_pem: String::new(),
        member: MemberSpec {
            name: name("n1"),
            address: String::new(),
            gateway_address: String::new(),
            gateway_tls_address: String::new(),
            ops_address: String::new(),
            zone: None,
            version: String::new(),
            feature_level_max: 1,
        },
        operator: name("root"),
        operator_certificate_sha256: [1; 32],
        operator_not_after: Wall(u64::MAX),
        join_token_hash: [1; 32],
        join_token_not_after: Wall(START),
    }
}

/// A copy that shares nothing with the original, as decoding makes it.
fn through_bytes<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let bytes = bincode::serde::encode_to_vec(value, bincode::config::standard()).unwrap();
    bincode::serde::decode_from_slice(&bytes, bincode::config::standard()).unwrap().0
}

/// Processor time of this thread, which others on the machine do not stretch.
fn ran() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// Memory of this process, in pages of 4 KiB as Linux counts them.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
