//! What an idle connection of a client costs a node in memory. A program to be run by hand, not a test:
//!
//!     cargo bench -p tests --bench idle_connections             # 5,000 of each kind
//!     cargo bench -p tests --bench idle_connections -- 1000
//!
//! Each connection has served one request over HTTP/1.1, and is then left alone; once plain, once over TLS 1.3.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement fails by panicking and answers on standard output"
)]

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{fs, thread::sleep, time::Duration};
use tests::{Client, Cluster, Connection, Upstream, client::get, free_port::free_port, process::resident_bytes};

/// Connections of each kind; the first ones are not counted: they find buffers that were never touched before.
const WARM: usize = 250;
const COUNTED: usize = 5_000;
/// Longer than the gateway leaves a connection as it was.
const REST: Duration = Duration::from_secs(15);

fn main() {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).expect("a limit can be raised to the maximum");
    let counted = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(COUNTED);
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let [chain, key] = ["chain.pem", "key.pem"].map(|name| folder.path().join(name));
    fs::write(&chain, made.cert.pem()).expect("a file");
    fs::write(&key, made.signing_key.serialize_pem()).expect("a file");
    println!("{:<28}{:>12}{:>16}", "idle connections", "count", "bytes each");
    for name in ["plain", "TLS 1.3"] {
        // A node of its own: what one kind has left behind is not used again by the other.
        let address = format!("127.0.0.1:{}", free_port());
        let files = format!("{}:{}", chain.display(), key.display());
        let upstream = Upstream::echo();
        let cluster = Cluster::start_with(
            1,
            &[
                ("QUORATE_GATEWAY_TLS_BIND", address.as_str()),
                ("QUORATE_GATEWAY_TLS_CERTIFICATES", files.as_str()),
                ("QUORATE_GATEWAY_IDLE_TIMEOUT", "1h"),
                ("QUORATE_GATEWAY_CONNECTIONS_MAX", "40000"),
                ("QUORATE_GATEWAY_CONNECTIONS_PER_ADDRESS_MAX", "40000"),
            ],
        );
        cluster.apply_example(&upstream.url());
        let node = cluster.node(1);
        let pid = node.process.as_ref().expect("it runs").pid();
        let settled = || {
            sleep(REST);
            resident_bytes(pid)
        };
        let client = if name == "plain" { node.client() } else { Client::new(&address).tls(&chain) };
        let mut kept = open(&client, WARM);
        let before = settled();
        kept.extend(open(&client, counted));
        let each = settled().saturating_sub(before) / counted as u64;
        println!("{name:<28}{counted:>12}{each:>16}");
        for connection in kept.iter_mut().step_by(500) {
            connection.send(get("/open/again")).ok();
        }
    }
}

fn open(client: &Client, count: usize) -> Vec<Connection> {
    (0..count)
        .map(|_| {
            let mut connection = client.connect().expect("a connection");
            connection.send(get("/open/x")).ok();
            connection
        })
        .collect()
}
