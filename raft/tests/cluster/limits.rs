//! Limits over real nodes: what all of them admit together, and what that costs in log entries.

use crate::harness::{Cluster, PATIENCE, Real, done, name, operator, request, until};
use futures::future::join_all;
use machine::{
    Command,
    allowance::{Acquire, BucketId},
    limit::{Quota, Rate, Rule, Window},
    resource::Change,
};
use proto::peer::{Report, leader_client::LeaderClient};
use raft::{Allowances, Clock, Fence, Session, Slot, Usage, Verdict, admit};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use tonic::Code;

/// As the gateway waits.
const WAIT: Duration = Duration::from_millis(250);

/// Beyond this, a refusal is for the rest of the window.
const FOR_GOOD_US: u64 = 60_000_000;

fn quota(amount: u64) -> Rule {
    Rule::Quota(Quota { amount, window: Window::Month })
}

fn rate(tokens: u64, burst: u64) -> Rule {
    Rule::Rate(Rate { tokens, period_us: 1_000_000, burst })
}

fn id(limit: &str) -> BucketId {
    BucketId { limit: name(limit), subject: b"acme".as_slice().into() }
}

/// Writes a limit.
async fn put(cluster: &Cluster, limit: &str, rule: Rule) {
    let node = cluster.anybody();
    let validated_against = node.read().await.unwrap().registry.resources_revision;
    let bytes = format!("{rule:?}").into_bytes().into();
    let changes = vec![Change::PutLimit { name: name(limit), bytes, rule }];
    let command = Command::ApplyResources { validated_against, changes };
    done(node.propose(request(), operator(), command, Fence::Within(PATIENCE)).await.unwrap());
}

/// A worker of a node with requests under one limit.
struct Worker {
    allowances: Arc<Allowances>,
    parts: Vec<(Arc<Slot>, u64)>,
}

impl Worker {
    fn of(cluster: &Cluster, node: u64, limit: &str, burst: u64) -> Self {
        Self::under(cluster, node, &[(limit, burst)])
    }

    /// With requests under several limits.
    fn under(cluster: &Cluster, node: u64, limits: &[(&str, u64)]) -> Self {
        let allowances = cluster.node(node).allowances();
        let part = |(limit, burst): &(&str, u64)| (allowances.slot(&id(limit), *burst).unwrap(), 1);
        let parts = limits.iter().map(part).collect();
        Self { allowances, parts }
    }

    async fn request(&self) -> Verdict {
        match admit(&self.parts, Real.boot_us()) {
            Verdict::Dry => self.allowances.wait(&self.parts, WAIT).await,
            verdict => verdict,
        }
    }

    /// Makes requests until the limit is used up for good; returns how many were admitted.
    async fn use_up(&self) -> u64 {
        self.until_refused_for(FOR_GOOD_US).await
    }

    async fn until_refused_for(&self, long_us: u64) -> u64 {
        let mut admitted = 0;
        tokio::time::timeout(PATIENCE, async {
            loop {
                match self.request().await {
                    Verdict::Admitted { .. } => admitted += 1,
                    Verdict::Refused { retry_us } if retry_us > long_us => return,
                    Verdict::Refused { retry_us } => tokio::time::sleep(Duration::from_micros(retry_us)).await,
                    Verdict::Dry => {}
                }
            }
        })
        .await
        .expect("the limit is used up some time");
        admitted
    }
}

async fn usage(cluster: &Cluster, limit: &str) -> Usage {
    until("usage", async || cluster.anybody().usage(&id(limit)).await.ok()).await
}

fn last_index(cluster: &Cluster) -> u64 {
    cluster.running().map(|(_, running)| running.handle.local().last_index).max().unwrap()
}

/// Waits until nothing has been written for so long.
async fn quiet_for(cluster: &Cluster, quiet: Duration) -> u64 {
    let (mut last, mut since) = (last_index(cluster), Instant::now());
    until("nothing to be written", async || {
        let now = last_index(cluster);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() >= quiet).then_some(last)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_a_quota_is_admitted_by_all_nodes_together_and_then_refused_from_memory() {
    let cluster = Cluster::of(3).await;
    put(&cluster, "plan", quota(300)).await;
    let workers: Vec<_> = (0..9).map(|number| Worker::of(&cluster, number % 3 + 1, "plan", 300)).collect();
    let admitted = join_all(workers.iter().map(Worker::use_up)).await;
    assert_eq!(admitted.iter().sum::<u64>(), 300, "{admitted:?}");

    let index = quiet_for(&cluster, Duration::from_millis(1_500)).await;
    for worker in &workers {
        for _ in 0..100 {
            assert!(matches!(worker.request().await, Verdict::Refused { retry_us } if retry_us > FOR_GOOD_US));
        }
    }
    assert_eq!(quiet_for(&cluster, Duration::from_millis(1_500)).await, index, "a used up limit costs no entry");
    let used = usage(&cluster, "plan").await;
    assert_eq!((used.limit_value, used.available, used.outstanding), (300, 0, vec![]));
    assert!(used.window_end.is_some());

    // More of it is known at once, though every node has been told to come back next month.
    put(&cluster, "plan", quota(320)).await;
    let admitted = join_all(workers.iter().map(Worker::use_up)).await;
    assert_eq!(admitted.iter().sum::<u64>(), 20, "{admitted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_under_two_limits_spends_of_both_or_of_none() {
    let cluster = Cluster::of(3).await;
    put(&cluster, "narrow", quota(50)).await;
    put(&cluster, "wide", quota(200)).await;
    let limits = [("narrow", 50), ("wide", 200)];
    let workers: Vec<_> = (0..6).map(|number| Worker::under(&cluster, number % 3 + 1, &limits)).collect();
    let admitted = join_all(workers.iter().map(Worker::use_up)).await;
    assert_eq!(admitted.iter().sum::<u64>(), 50, "{admitted:?}");
    let wide = until("what was not spent to be given back", async || {
        let wide = usage(&cluster, "wide").await;
        wide.outstanding.is_empty().then_some(wide)
    })
    .await;
    assert_eq!(wide.available, 150);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_asked_without_a_session_is_asked_again_when_there_is_one() {
    let mut cluster = Cluster::of_one().await;
    // These give no request up within this test.
    cluster.timing.lease = PATIENCE * 10;
    cluster.join().await;
    let node = cluster.join().await;
    cluster.all_vote(3).await;
    put(&cluster, "plan", quota(10)).await;
    cluster.links.isolate(node, true);
    until("the session to end", async || (cluster.node(node).local().session != Session::Open).then_some(())).await;
    let worker = Worker::of(&cluster, node, "plan", 10);
    let waits = async { worker.allowances.wait(&worker.parts, PATIENCE).await };
    let heals = async {
        until("the question", async || worker.allowances.is_asking().then_some(())).await;
        cluster.links.isolate(node, false);
    };
    let (verdict, ()) = tokio::join!(waits, heals);
    assert!(matches!(verdict, Verdict::Admitted { .. }), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_spent_stays_spent_when_every_node_crashes() {
    let mut cluster = Cluster::of(3).await;
    put(&cluster, "plan", quota(60)).await;
    let mut admitted = 0;
    for node in 1..=3 {
        let worker = Worker::of(&cluster, node, "plan", 60);
        for _ in 0..10 {
            admitted += u64::from(matches!(worker.request().await, Verdict::Admitted { .. }));
        }
    }
    for node in 1..=3 {
        cluster.crash(node).await;
    }
    for node in 1..=3 {
        cluster.start(node).await;
    }
    cluster.leader().await;
    let workers: Vec<_> = (1..=3).map(|node| Worker::of(&cluster, node, "plan", 60)).collect();
    let later = join_all(workers.iter().map(|worker| worker.until_refused_for(1_000_000))).await;
    // What nodes held then is lost until the window ends: what they had spent of it, the cluster cannot know.
    let later = later.iter().sum::<u64>();
    assert!(later > 0 && admitted + later <= 60, "{admitted} before and {later} after");
}

/// Requests of all nodes, with the instants at which they were admitted.
async fn saturate(cluster: &Cluster, limit: &str, burst: u64, over: &Arc<AtomicBool>, admitted: &Arc<Mutex<Vec<u64>>>) {
    let workers = (0..6).map(|number| {
        let worker = Worker::of(cluster, number % 3 + 1, limit, burst);
        let (over, admitted) = (Arc::clone(over), Arc::clone(admitted));
        tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                match worker.request().await {
                    Verdict::Admitted { at_us } => admitted.lock().unwrap().push(at_us),
                    Verdict::Refused { retry_us } => {
                        tokio::time::sleep(Duration::from_micros(retry_us.min(20_000))).await;
                    }
                    Verdict::Dry => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
}

/// The most that was ever admitted beyond the rate: a bucket with so much burst would have let it pass.
fn burst_of(admitted: &mut [u64], tokens: u64) -> f64 {
    admitted.sort_unstable();
    let (mut level, mut most, mut last) = (0.0_f64, 0.0_f64, 0);
    for at_us in admitted {
        level = (level - (*at_us - last) as f64 * tokens as f64 / 1e6).max(0.0) + 1.0;
        most = most.max(level);
        last = *at_us;
    }
    most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_holds_in_every_interval_while_the_leader_is_cut_off_and_comes_back() {
    const TOKENS: u64 = 400;
    const BURST: u64 = 100;
    let cluster = Cluster::of(3).await;
    put(&cluster, "rate", rate(TOKENS, BURST)).await;
    let (over, admitted) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let count = || admitted.lock().unwrap().len();
    let disturb = async {
        for _ in 0..2 {
            let before = count();
            until("the rate to flow", async || (count() > before + 600).then_some(())).await;
            let leader = cluster.leader().await;
            let others = [1, 2, 3].into_iter().filter(|id| *id != leader);
            cluster.links.isolate(leader, true);
            until("another leader", async || {
                let mut led = others.clone().map(|id| cluster.node(id).local().leader);
                led.all(|now| now.is_some_and(|now| now != leader)).then_some(())
            })
            .await;
            let before = count();
            until("the others to be served", async || (count() > before + 200).then_some(())).await;
            cluster.links.isolate(leader, false);
        }
        let before = count();
        until("everybody to be served", async || (count() > before + 400).then_some(())).await;
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(saturate(&cluster, "rate", BURST, &over, &admitted), disturb);
    let mut admitted = admitted.lock().unwrap().clone();
    let burst = burst_of(&mut admitted, TOKENS);
    assert!(burst <= BURST as f64, "{} requests needed a burst of {burst}", admitted.len());
    assert!(burst_of(&mut admitted, TOKENS / 2) > BURST as f64, "so few that a lower rate would not have been noticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stopping_node_holds_is_back_for_the_others() {
    let mut cluster = Cluster::of(3).await;
    put(&cluster, "plan", quota(100_000)).await;
    let leader = cluster.leader().await;
    for stops in [leader, leader % 3 + 1] {
        let before = usage(&cluster, "plan").await.available;
        let worker = Worker::of(&cluster, stops, "plan", 100_000);
        let mut admitted = 0;
        // A steady demand gets an allowance ahead of it.
        until("an allowance", async || {
            for _ in 0..10 {
                admitted += u64::from(matches!(worker.request().await, Verdict::Admitted { .. }));
            }
            let used = usage(&cluster, "plan").await;
            used.outstanding.iter().any(|(node, amount)| *node == stops && *amount > 20).then_some(())
        })
        .await;
        cluster.stop(stops).await;
        let used = usage(&cluster, "plan").await;
        assert_eq!((used.available, used.outstanding), (before - admitted, vec![]), "node {stops}");
        cluster.start(stops).await;
        cluster.all_vote(3).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_do_not_grow_with_requests_and_an_idle_cluster_writes_none() {
    let cluster = Cluster::of(3).await;
    put(&cluster, "wide", rate(1_000_000, 1_000_000)).await;
    let workers: Vec<_> = (1..=3).map(|node| Worker::of(&cluster, node, "wide", 1_000_000)).collect();
    let mut written = Vec::new();
    for each in [1, 10] {
        quiet_for(&cluster, Duration::from_millis(500)).await;
        let before = last_index(&cluster);
        let admitted = AtomicU64::new(0);
        // As many rounds as the other time, however long they take.
        join_all(workers.iter().map(async |worker| {
            for _ in 0..300 {
                for _ in 0..each {
                    let verdict = worker.request().await;
                    admitted.fetch_add(u64::from(matches!(verdict, Verdict::Admitted { .. })), Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }))
        .await;
        assert!(admitted.load(Ordering::Relaxed) > 850 * each, "nearly everything: {admitted:?} of {}", 900 * each);
        written.push(last_index(&cluster) - before);
    }
    assert!(written[1] <= written[0] * 2 + 20, "entries at one and ten times the requests: {written:?}");
    assert!(written[1] < 200, "{written:?} for 9000 requests");

    // What is not used is given back, and then nothing is written any more.
    let index = quiet_for(&cluster, Duration::from_secs(3)).await;
    assert_eq!(usage(&cluster, "wide").await.outstanding, []);
    assert_eq!(last_index(&cluster), index);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_serves_nobody_in_another_name_and_ends_at_garbage() {
    let cluster = Cluster::of_one().await;
    put(&cluster, "plan", quota(10)).await;
    let address = &cluster.seats[&1].address;
    let mut client = LeaderClient::connect(format!("http://{address}")).await.unwrap();
    let acquire = Acquire { node: 2, incarnation: 1, request: 1, reports: Vec::new(), wants: Vec::new() };
    let record = raft::codec::encode(&acquire).unwrap();
    let cases = [
        (record.slice(1..), Code::InvalidArgument),
        (record.clone(), Code::PermissionDenied),
        (vec![0; 16 * 1024 * 1024].into(), Code::ResourceExhausted),
    ];
    for (acquire, code) in cases {
        let report = Report { node: 1, acquire, ..Report::default() };
        let mut advice = client.session(futures::stream::iter([report])).await.unwrap().into_inner();
        assert_eq!(advice.message().await.unwrap_err().code(), code);
    }
    // And goes on serving others.
    assert!(matches!(Worker::of(&cluster, 1, "plan", 10).request().await, Verdict::Admitted { .. }));
}
