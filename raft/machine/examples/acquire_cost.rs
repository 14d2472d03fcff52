//! What limits cost the replicated state: time and bytes of an entry that serves many buckets, and memory of buckets that
//! were used once.
//!
//! `cargo run --release -p machine --example acquire_cost -- [plenty|scarce|shared|cold] [BUCKETS] [NODES]`: one way in one
//! process, because memory that was freed stays with the process. `plenty` renews hot buckets, `scarce` divides what does
//! not suffice, `shared` adds one limit that all requests share, `cold` gives each bucket one request.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "an example that measures"
)]

use machine::{
    Actor, Command, Effects, Entry, Name, Outcome, Proposal, RequestId, State,
    allowance::{Acquire, Answer, BucketId, Part, Want},
    bucket::{Bucket, Spent, Terms},
    command::Initialize,
    limit::{Rate, Rule},
    member::{MemberSpec, NodeId},
    resource::Change,
    settings::Settings,
    time::{At, Tick, Wall},
};
use std::time::Duration;

/// As the node has it: what a bucket costs depends on how an allocator rounds.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const START: u64 = 1_700_000_000_000;
const TERMS: Terms = Terms { ttl_us: 2_000_000, margin_us: 1_000 };

/// A state, the time, and what was measured of its entries.
struct Cluster {
    state: State,
    /// What readers hold: the state after the entry before.
    readers: State,
    index: u64,
    now_us: u64,
    spent: Spending,
}

#[derive(Default)]
struct Spending {
    entries: u32,
    bytes: u64,
    decode: Duration,
    apply: Duration,
    changes: Duration,
    records: usize,
}

impl Cluster {
    fn begin(nodes: u64, limits: &[(&str, Rule)]) -> Self {
        let state = State::default();
        let mut cluster = Self { readers: state.clone(), state, index: 0, now_us: 0, spent: Spending::default() };
        let root = Actor::Operator(name("root"));
        cluster.ask(Actor::Bootstrap, Command::Initialize(Box::new(first())));
        for node in 2..=nodes {
            let hash = [u8::try_from(node).unwrap(); 32];
            cluster.ask(root.clone(), Command::CreateJoinToken { hash, not_after: Wall(START * 2) });
            let spec = MemberSpec { name: name(&format!("n{node}")), ..first().member };
            cluster.ask(Actor::Node(1), Command::AdmitMember { token_hash: hash, spec, learner: false });
        }
        let put = |(limit, rule): &(&str, Rule)| Change::PutLimit {
            name: name(limit),
            bytes: b"{}".as_slice().into(),
            rule: *rule,
        };
        let changes = limits.iter().map(put).collect();
        cluster.ask(root, Command::ApplyResources { validated_against: 0, changes });
        cluster
    }

    fn ask(&mut self, actor: Actor, command: Command) {
        let request = RequestId { issued: Wall(START), random: u128::from(self.index) };
        let effects = self.enter(vec![Proposal { request, actor, command }], Vec::new());
        assert!(!matches!(effects.applied[0].outcome, Outcome::Refused(_)), "{effects:?}");
    }

    /// Applies an entry that has been through the bytes of the log, beside a reader that holds the state before it, and
    /// looks at what has changed, as a checkpoint does.
    fn enter(&mut self, proposals: Vec<Proposal>, acquires: Vec<Acquire>) -> Effects {
        self.index += 1;
        let at = At { tick: Tick(self.now_us), wall: Wall(START + self.now_us / 1_000) };
        let entry = Entry { at, terms: TERMS, proposals, acquires };
        let bytes = bincode::serde::encode_to_vec(&entry, bincode::config::standard()).unwrap();
        drop(entry);
        let start = busy();
        let (entry, _): (Entry, _) = bincode::serde::decode_from_slice(&bytes, bincode::config::standard()).unwrap();
        self.spent.decode += busy().saturating_sub(start);
        let start = busy();
        let effects = self.state.apply_entry(self.index, &entry);
        self.spent.apply += busy().saturating_sub(start);
        let start = busy();
        self.spent.records += self.state.changes_since(&self.readers).len();
        self.spent.changes += busy().saturating_sub(start);
        self.spent.bytes += bytes.len() as u64;
        self.spent.entries += 1;
        self.readers = self.state.clone();
        effects
    }

    /// Forgets what was measured until now.
    fn measured(&mut self) -> Spending {
        std::mem::take(&mut self.spent)
    }
}

impl Spending {
    fn print(&self, what: &str) {
        let entries = self.entries.max(1);
        println!(
            "{what}: {entries} entries; each {} bytes, decoded in {:?}, applied in {:?}, its {} differences in {:?}",
            self.bytes / u64::from(entries),
            self.decode / entries,
            self.apply / entries,
            self.records / entries as usize,
            self.changes / entries
        );
    }
}

/// A node that reports all that it was granted as spent, and wants the same again.
struct Node {
    id: NodeId,
    request: u64,
    answer: Answer,
}

impl Node {
    const fn new(id: NodeId) -> Self {
        Self { id, request: 0, answer: Answer { grants: Vec::new(), scarce: Vec::new() } }
    }

    fn acquire(&mut self, wants: Vec<Want>) -> Acquire {
        self.request += 1;
        let grants = std::mem::take(&mut self.answer.grants);
        let spent = |allowance: u64, spent: u64| Spent { allowance, spent, close: true };
        let reports = grants.into_iter().map(|grant| (grant.bucket, spent(grant.allowance, grant.amount))).collect();
        Acquire { node: self.id, incarnation: self.id, request: self.request, reports, wants }
    }
}

fn main() {
    let way = std::env::args().nth(1).unwrap_or_else(|| "plenty".to_owned());
    let number = |place: usize, otherwise: u64| std::env::args().nth(place).map_or(otherwise, |n| n.parse().unwrap());
    let nodes = number(3, 3);
    match way.as_str() {
        "plenty" => rounds(number(2, 10_000), nodes, 100_000, &["key"], 1, 300),
        "scarce" => rounds(number(2, 10_000), nodes, 100, &["key"], 200, 0),
        "shared" => rounds(number(2, 10_000), nodes, 1_000, &["key", "all"], 2, 0),
        "cold" => cold(number(2, 1_000_000), nodes),
        _ => panic!("plenty, scarce, shared or cold"),
    }
}

/// Every node asks for every bucket in each of some entries, a second apart.
fn rounds(buckets: u64, nodes: u64, burst: u64, limits: &[&str], waiting: u64, ahead: u64) {
    let rule = Rule::Rate(Rate { tokens: burst, period_us: 1_000_000, burst });
    let mut cluster = Cluster::begin(nodes, &[("key", rule), ("all", rule)]);
    let mut members: Vec<Node> = (1..=nodes).map(Node::new).collect();
    let part = |limit: &str, subject: u64| {
        let subject = if limit == "all" { b"all".to_vec() } else { format!("customer-{subject:08}").into_bytes() };
        Part { bucket: BucketId { limit: name(limit), subject: subject.into() }, cost: 1 }
    };
    let want = |subject: u64| Want { parts: limits.iter().map(|limit| part(limit, subject)).collect(), waiting, ahead };
    let wants: Vec<Want> = (0..buckets).map(want).collect();
    for round in 0..12 {
        cluster.now_us += 1_000_000;
        if round == 2 {
            cluster.measured();
        }
        let acquires = members.iter_mut().map(|node| node.acquire(wants.clone())).collect();
        let answers = cluster.enter(Vec::new(), acquires).answers;
        members.iter_mut().zip(answers).for_each(|(node, answer)| node.answer = answer);
    }
    cluster.measured().print(&format!("{buckets} buckets on {nodes} nodes"));
    let granted = members.iter().flat_map(|node| &node.answer.grants);
    println!(
        "  of the last: {} grants, {} scarce",
        granted.count(),
        members.iter().map(|it| it.answer.scarce.len()).sum::<usize>()
    );
    machine::invariant::check(&cluster.state).unwrap();
}

/// Each bucket gets one request, of a thousand new ones in each entry; then it is given back, and swept away.
fn cold(buckets: u64, nodes: u64) {
    const AT_ONCE: u64 = 1_000;
    let rule = Rule::Rate(Rate { tokens: 1, period_us: 60_000_000, burst: 10 });
    let mut cluster = Cluster::begin(nodes, &[("key", rule)]);
    let mut members: Vec<Node> = (1..=nodes).map(Node::new).collect();
    let before = resident_bytes();
    cluster.measured();
    let mut held = Vec::new();
    for first in (0..buckets).step_by(AT_ONCE as usize) {
        let node = &mut members[(first / AT_ONCE % nodes) as usize];
        let want = |number: u64| {
            let subject = format!("customer-{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into_bytes();
            let bucket = BucketId { limit: name("key"), subject: subject.into() };
            Want { parts: vec![Part { bucket, cost: 1 }], waiting: 1, ahead: 0 }
        };
        let acquire = node.acquire((first..buckets.min(first + AT_ONCE)).map(want).collect());
        let answers = cluster.enter(Vec::new(), vec![acquire]).answers;
        held.push((node.id, node.request, answers.into_iter().next().unwrap()));
    }
    cluster.measured().print("cold buckets");
    let used = |cluster: &Cluster| {
        let count = cluster.state.buckets.buckets.len() as u64;
        println!(
            "  {count} buckets, {} bytes each (with the node's answers)",
            resident_bytes().saturating_sub(before) / count
        );
    };
    used(&cluster);
    println!("  of which {} in a `Bucket`", size_of::<Bucket>());
    for (node, request, answer) in held {
        let mut node = Node { id: node, request: request + 1_000_000, answer };
        let closing = node.acquire(Vec::new());
        cluster.enter(Vec::new(), vec![closing]);
    }
    cluster.measured().print("given back");
    used(&cluster);
    let start = busy();
    machine::invariant::check(&cluster.state).unwrap();
    println!("  all invariants: {:?}", busy().saturating_sub(start));
    cluster.now_us += 3_600_000_000;
    while !cluster.state.buckets.buckets.is_empty() {
        cluster.now_us += 5_000;
        cluster.enter(Vec::new(), Vec::new());
    }
    cluster.measured().print("swept");
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

/// Memory of this process, in pages of 4 KiB as Linux counts them.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Time that this thread has had a processor: on a busy machine the clock on the wall says something else.
fn busy() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}
