//! The HTTPS listener of a node: certificates that end, and that are changed while it runs.

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustix::process::Signal;
use std::{fs, path::Path, time::Duration};
use tests::{Client, Cluster, Upstream, admin::now_ms, client::get, eventually, free_port::free_port};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Writes a certificate of `localhost` that signs itself, and its key; says when it ends, in seconds since 1970.
fn write(folder: &Path, days: u32) -> u64 {
    let end = Duration::from_secs(now_ms() / 1000) + DAY * days;
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_after = date_time_ymd(1970, 1, 1) + end;
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    fs::write(folder.join("chain.pem"), certificate.pem()).unwrap();
    fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    end.as_secs()
}

#[test]
fn a_certificate_that_ends_soon_is_named_and_changed_under_open_connections() {
    let folder = tempfile::tempdir().unwrap();
    let first_end = write(folder.path(), 10);
    let [chain, key] = ["chain.pem", "key.pem"].map(|name| folder.path().join(name));
    let address = format!("127.0.0.1:{}", free_port());
    let files = format!("{}:{}", chain.display(), key.display());
    let upstream = Upstream::echo();
    let cluster = Cluster::start_with(
        1,
        &[("QUORATE_GATEWAY_TLS_BIND", address.as_str()), ("QUORATE_GATEWAY_TLS_CERTIFICATES", files.as_str())],
    );
    cluster.apply_example(&upstream.url());
    let node = cluster.node(1);
    let process = node.process.as_ref().unwrap();
    eventually("the log says that the certificate ends", || {
        let log = process.stderr();
        if log.contains("ends soon") && log.contains("localhost") { Ok(()) } else { Err(log) }
    });
    let expires = |end: u64| {
        let text = node.ops().send(get("/metrics")).text();
        let line = format!("quorate_gateway_certificate_expiry_timestamp_seconds{{certificate=\"localhost\"}} {end}");
        if text.lines().any(|one| one == line) { Ok(()) } else { Err(text) }
    };
    eventually("the metric says when", || expires(first_end));

    let mut one = Client::new(&address).tls(&chain).connect().unwrap();
    let mut two = Client::new(&address).tls(&chain).http2().connect().unwrap();
    one.send(get("/open/x")).ok();
    two.send(get("/open/x")).ok();
    let second_end = write(folder.path(), 100);
    tests::process::signal(process.pid(), Signal::HUP);
    eventually("the new certificate is in force", || expires(second_end));
    one.send(get("/open/x")).ok();
    two.send(get("/open/x")).ok();
    // Whoever trusts the new one alone is served: it is what new connections see.
    Client::new(&address).tls(&chain).send(get("/open/x")).ok();
}
