//! Admin writes per second beside etcd's: key creation through three nodes, and puts through three etcd nodes, by the same client on
//! the same machine in the same run. A program to be run by hand, not a test:
//!
//!     ETCD=/path/to/etcd cargo bench -p tests --bench admin_writes
//!
//! Both sides: default durability, a closed loop of clients over one HTTP/2 connection to each node, one second to warm up, then five.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement fails by panicking and answers on standard output"
)]

use proto::admin::{CreateKeyRequest, keys_client::KeysClient};
use std::{
    future::Future,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tests::{Cluster, admin, free_port::free_port, process::Process, runtime::runtime};
use tonic::transport::{Channel, Endpoint};

const CLIENTS: [usize; 3] = [1, 16, 128];
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(5);
const VALUE_BYTES: usize = 256;

fn main() {
    println!("| what | clients | per second | p50 ms | p99 ms |\n| --- | ---: | ---: | ---: | ---: |");
    if let Some(etcd) = std::env::var_os("ETCD") {
        measure_etcd(Path::new(&etcd));
    } else {
        println!("(no etcd: set ETCD to its program)");
    }
    measure_quorate();
}

fn measure_quorate() {
    let cluster = Cluster::start(3);
    cluster.ctl().apply("consumers:\n  load: {}\n");
    let context = cluster.ctl().context().to_path_buf();
    let channels: Vec<Channel> = runtime().block_on(async {
        let mut channels = Vec::new();
        for node in &cluster.nodes {
            channels.push(admin::connect(&context, &node.cluster).await);
        }
        channels
    });
    for no_wait in [false, true] {
        let what =
            if no_wait { "quorate keys create, committed" } else { "quorate keys create, enforced on every node" };
        for clients in CLIENTS {
            measure(what, clients, &channels, move |channel: Channel, _| async move {
                let write = proto::admin::WriteOptions { no_wait, ..admin::write_options() };
                let request =
                    CreateKeyRequest { write: Some(write), consumer: "load".to_owned(), ..CreateKeyRequest::default() };
                KeysClient::new(channel).create(request).await.map(|_| ()).map_err(|status| status.to_string())
            });
        }
    }
}

fn measure_etcd(program: &Path) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let ports: Vec<(u16, u16)> = (0..3).map(|_| (free_port(), free_port())).collect();
    let initial = ports.iter().enumerate().map(|(place, (_, peer))| format!("e{place}=http://127.0.0.1:{peer}"));
    let initial = initial.collect::<Vec<_>>().join(",");
    let nodes: Vec<Process> = ports
        .iter()
        .enumerate()
        .map(|(place, (client, peer))| start_etcd(program, directory.path(), place, *client, *peer, &initial))
        .collect();
    let channels: Vec<Channel> = runtime().block_on(async {
        let mut channels = Vec::new();
        for (client, _) in &ports {
            let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{client}")).expect("an address");
            channels.push(connect(&endpoint).await);
        }
        channels
    });
    for clients in CLIENTS {
        measure("etcd put", clients, &channels, |channel, number| async move {
            let put = Put { key: format!("/k/{:05}", number % 10_000).into_bytes(), value: vec![b'x'; VALUE_BYTES] };
            let mut client = tonic::client::Grpc::new(channel);
            client.ready().await.map_err(|error| error.to_string())?;
            let path = http::uri::PathAndQuery::from_static("/etcdserverpb.KV/Put");
            let codec = tonic_prost::ProstCodec::<Put, Done>::default();
            client.unary(tonic::Request::new(put), path, codec).await.map(|_| ()).map_err(|status| status.to_string())
        });
    }
    drop(nodes);
}

fn start_etcd(program: &Path, directory: &Path, place: usize, client: u16, peer: u16, initial: &str) -> Process {
    let data: PathBuf = directory.join(place.to_string());
    let mut command = Command::new(program);
    command
        .args(["--name", &format!("e{place}"), "--data-dir"])
        .arg(data)
        .args(["--listen-client-urls", &format!("http://127.0.0.1:{client}")])
        .args(["--advertise-client-urls", &format!("http://127.0.0.1:{client}")])
        .args(["--listen-peer-urls", &format!("http://127.0.0.1:{peer}")])
        .args(["--initial-advertise-peer-urls", &format!("http://127.0.0.1:{peer}")])
        .args(["--initial-cluster", initial, "--initial-cluster-state", "new", "--log-level", "error"]);
    Process::start(command, &directory.join(format!("etcd{place}")))
}

/// `etcdserverpb.PutRequest`, as far as it is used.
#[derive(Clone, PartialEq, prost::Message)]
struct Put {
    #[prost(bytes, tag = "1")]
    key: Vec<u8>,
    #[prost(bytes, tag = "2")]
    value: Vec<u8>,
}

/// Any answer.
#[derive(Clone, PartialEq, prost::Message)]
struct Done {}

/// Waits until the node listens.
async fn connect(endpoint: &Endpoint) -> Channel {
    let started = Instant::now();
    loop {
        match endpoint.connect().await {
            Ok(channel) => return channel,
            Err(error) if started.elapsed() > Duration::from_secs(30) => panic!("{error:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// A closed loop of clients; prints a row.
fn measure<R>(
    what: &str,
    clients: usize,
    channels: &[Channel],
    request: impl Fn(Channel, u64) -> R + Clone + Send + Sync + 'static,
) where
    R: Future<Output = Result<(), String>> + Send,
{
    let start = Instant::now();
    let (warm, end) = (start + WARM_UP, start + WARM_UP + MEASURED);
    let mut latencies: Vec<Duration> = runtime().block_on(async {
        let tasks: Vec<_> = (0..clients)
            .map(|client| {
                let (channel, request) = (channels[client % channels.len()].clone(), request.clone());
                tokio::spawn(async move {
                    let mut latencies = Vec::new();
                    let mut number = client as u64 * 1_000_003;
                    while Instant::now() < end {
                        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        let sent = Instant::now();
                        request(channel.clone(), number >> 33).await.unwrap_or_else(|error| panic!("{error}"));
                        if sent >= warm {
                            latencies.push(sent.elapsed());
                        }
                    }
                    latencies
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.expect("no client panics"));
        }
        all
    });
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() * percent / 100).min(latencies.len() - 1)].as_secs_f64() * 1e3;
    let rate = latencies.len() as f64 / MEASURED.as_secs_f64();
    println!("| {what} | {clients} | {rate:.0} | {:.2} | {:.2} |", at(50), at(99));
}
