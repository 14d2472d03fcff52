//! A cluster whose certificates are signed outside: its authority's key is in this test and nowhere else.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustix::process::Signal;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tests::{
    Upstream,
    client::get,
    cluster::{Node, example, printed_context, printed_token, quorate},
    ctl::{Ctl, Ran},
    eventually,
    json::{find, list, text},
    permit::Permit,
};

/// An authority, which signs whatever a request asks for.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    key_pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        let key_pem = key.serialize_pem();
        Self { issuer: Issuer::new(params, key), pem, key_pem }
    }

    /// Signs the request in a file, changed in some way; the certificate is beside it.
    fn sign_changed(&self, request: &Path, change: impl FnOnce(&mut CertificateSigningRequestParams)) -> PathBuf {
        let text = fs::read_to_string(request).unwrap_or_else(|error| panic!("{}: {error}", request.display()));
        let mut wanted = CertificateSigningRequestParams::from_pem(&text).unwrap();
        wanted.params.not_before = date_time_ymd(2020, 1, 1);
        wanted.params.not_after = date_time_ymd(2090, 1, 1);
        change(&mut wanted);
        let file = request.with_extension("pem");
        fs::write(&file, wanted.signed_by(&self.issuer).unwrap().pem()).unwrap();
        file
    }

    fn sign(&self, request: &Path) -> PathBuf {
        self.sign_changed(request, |_| {})
    }
}

fn path(file: &Path) -> &str {
    file.to_str().expect("UTF-8")
}

fn refused(ran: &Ran, says: &str) {
    assert_ne!(ran.code, 0, "{ran}");
    assert!(ran.stderr.contains(says), "{says:?} is not in {ran}");
}

/// Each certificate in turn that is wrong in its own way, and what is said of it.
fn refuse_each(authority: &Authority, request: &Path, subject: &str, give: impl Fn(&Path) -> Ran) {
    let stranger = Authority::new("a stranger");
    let another = request.with_file_name("another.csr");
    let key = KeyPair::generate().unwrap();
    let wanted = CertificateSigningRequestParams::from_pem(&fs::read_to_string(request).unwrap()).unwrap();
    fs::write(&another, wanted.params.serialize_request(&key).unwrap().pem().unwrap()).unwrap();

    let file = stranger.sign(request);
    let told = give(&file);
    refused(&told, "the cluster's authority did not sign it");
    assert!(told.stderr.contains(path(&file)), "the file is named: {told}");
    let wrong_name = |wanted: &mut CertificateSigningRequestParams| {
        wanted.params.distinguished_name.push(DnType::CommonName, "node-77");
    };
    refused(&give(&authority.sign_changed(request, wrong_name)), &format!("it must be for {subject}"));
    let expired = |wanted: &mut CertificateSigningRequestParams| wanted.params.not_after = date_time_ymd(2021, 2, 3);
    refused(&give(&authority.sign_changed(request, expired)), "it has expired at 2021-02-03T00:00:00Z");
    refused(&give(&authority.sign(&another)), "it is for another key");
}

#[test]
fn init_takes_only_the_certificates_that_it_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("outside");
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, &authority.pem).unwrap();
    let requests = folder.path().join("requests");
    let node = Node::prepare(folder.path(), "n1", "");

    refused(&node.quorate("init", &["--ca-certificate", path(&ca)]), "--csr-out");
    let begin = || node.quorate("init", &["--ca-certificate", path(&ca), "--csr-out", path(&requests)]);
    let begun = begin();
    assert_eq!(begun.code, 0, "{begun}");
    assert!(begun.stdout.contains("node.csr") && begun.stdout.contains("operator.csr"), "{begun}");
    assert_eq!(begin().stdout, begun.stdout, "done again, it is the same cluster");
    refused(&node.quorate("init", &[]), "it waits for the certificate of node 1");
    refused(&node.quorate("run", &[]), "it waits for the certificate of node 1");

    let operator = folder.path().join("operator.pem");
    fs::rename(authority.sign(&requests.join("operator.csr")), &operator).unwrap();
    let finish = |certificate: &Path, operator: &Path| {
        node.quorate("init", &["--certificate", path(certificate), "--operator-certificate", path(operator)])
    };
    refuse_each(&authority, &requests.join("node.csr"), "CN=node-1", |certificate| finish(certificate, &operator));
    let certificate = authority.sign(&requests.join("node.csr"));
    refuse_each(&authority, &requests.join("operator.csr"), "CN=admin", |operator| finish(&certificate, operator));
    assert!(!node.data_dir().join("node.json").exists() && !node.data_dir().join("pki/node.pem").exists());

    let done = finish(&certificate, &operator);
    assert_eq!(done.code, 0, "{done}");
    printed_token(&done);
    assert_eq!(finish(&certificate, &operator).code, 0, "done again, nothing happens");
    let kept: Vec<_> =
        fs::read_dir(node.data_dir().join("pki")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(kept.iter().all(|name| name == "node.pem" || name == "authorities.pem"), "{kept:?}");
}

#[test]
fn an_authority_outside_signs_a_whole_cluster() {
    let _permit = Permit::take();
    let upstream = Upstream::echo();
    let folder = tempfile::tempdir().unwrap();
    let (authority, file) = (Authority::new("outside"), |name: &str| folder.path().join(name));
    fs::write(file("ca.pem"), &authority.pem).unwrap();

    // The first node.
    let mut first = Node::prepare(folder.path(), "n1", "");
    let begun = first.quorate("init", &["--ca-certificate", path(&file("ca.pem")), "--csr-out", path(&file("first"))]);
    assert_eq!(begun.code, 0, "{begun}");
    let certificate = authority.sign(&file("first/node.csr"));
    let operator = authority.sign(&file("first/operator.csr"));
    let done = first.quorate("init", &["--certificate", path(&certificate), "--operator-certificate", path(&operator)]);
    assert_eq!(done.code, 0, "{done}");
    let context = printed_context(&done);
    first.run();
    first.wait_ready();
    let peer = first.cluster.clone();
    let ctl = Ctl::new(&context).at(&[&peer]);
    ctl.apply(&example(&upstream.url()));

    // Two more, one of them after all that can go wrong.
    let mut nodes = vec![first];
    for name in ["n2", "n3"] {
        let mut node = Node::prepare(folder.path(), name, "");
        let token = text(&ctl.json_soon(&["cluster", "join-token"]), "token").to_owned();
        let request = file(&format!("{name}.csr"));
        if name == "n3" {
            let unaware = node.quorate("join", &["--peer", &peer, "--token", &token]);
            refused(&unaware, "the certificates of this cluster are signed outside (join with --csr-out FILE");
        }
        let reserve = || node.quorate("join", &["--peer", &peer, "--token", &token, "--csr-out", path(&request)]);
        let reserved = reserve();
        assert_eq!(reserved.code, 0, "{reserved}");
        let finish = |certificate: &Path| node.quorate("join", &["--certificate", path(certificate)]);
        if name == "n3" {
            assert_eq!(reserve().stdout, reserved.stdout, "done again, it is the same node");
            refuse_each(&authority, &request, "CN=node-3", finish);
            // A number that is reserved does not hold up the others.
            let made = ctl.json_soon(&["keys", "create", "--consumer", "acme"]);
            let revoked = ctl.json_soon(&["keys", "revoke", text(&made, "id")]);
            let part = find(list(&revoked, "fence"), "node", 3);
            assert!(part.is_none_or(|part| text(part, "state") == "expired"), "{revoked}");
            assert!(!node.data_dir().join("node.json").exists() && !node.data_dir().join("pki/node.pem").exists());
        }
        // It is time to renew this one in this decade and the next.
        let old = |wanted: &mut CertificateSigningRequestParams| {
            wanted.params.not_before = date_time_ymd(1990, 1, 1);
            wanted.params.not_after = date_time_ymd(2040, 1, 1);
        };
        let finished = finish(&authority.sign_changed(&request, old));
        assert_eq!(finished.code, 0, "{finished}");
        node.run();
        node.wait_ready();
        nodes.push(node);
    }
    let addresses: Vec<&str> = nodes.iter().map(|node| node.cluster.as_str()).collect();
    let ctl = Ctl::new(&context).at(&addresses);
    eventually("three voters", || {
        let status = ctl.json_soon(&["cluster", "status"]);
        let voting = list(&status, "nodes").iter().filter(|node| node["role"] != "learner").count();
        if voting == 3 { Ok(()) } else { Err(status.to_string()) }
    });

    // It is a cluster like any other.
    let made = ctl.json(["keys", "create", "--consumer", "acme"]);
    for node in &nodes {
        node.client().send(get("/guarded/x").key(text(&made, "key"))).ok();
        let kept = fs::read_dir(node.data_dir().join("pki")).unwrap().map(|file| file.unwrap().file_name());
        let kept: Vec<_> = kept.collect();
        assert!(kept.iter().all(|name| name == "node.pem" || name == "authorities.pem"), "{kept:?}");
    }

    eventually("a reminder", || {
        let log = nodes[1].process.as_ref().unwrap().stderr();
        if log.contains("is to be renewed outside") { Ok(()) } else { Err(log) }
    });

    // A number that was reserved and never used is given back.
    let fourth = Node::prepare(folder.path(), "n4", "");
    let token = text(&ctl.json_soon(&["cluster", "join-token"]), "token").to_owned();
    let csr = file("n4.csr");
    let reserved = fourth.quorate("join", &["--peer", &peer, "--token", &token, "--csr-out", path(&csr)]);
    assert_eq!(reserved.code, 0, "{reserved}");
    ctl.json_soon(&["members", "remove", "n4"]);
    eventually("it is forgotten", || {
        let members = ctl.json_soon(&["members", "list"]);
        if find(list(&members, ""), "name", "n4").is_none() { Ok(()) } else { Err(members.to_string()) }
    });

    // Nobody can sign, and what to do instead is said.
    let rotated = ctl.run_json(["ca", "rotate"]).refused(1);
    assert_eq!(text(&rotated, "type"), "signed_outside", "{rotated}");
    let ann = file("ann.toml");
    let created = ctl.run_json(["operators", "create", "ann", "--role", "viewer", "--out", path(&ann)]).refused(1);
    assert!(created.to_string().contains("--certificate FILE"), "{created}");

    register_an_operator(&authority, &ctl, folder.path());
    renew(&authority, &mut nodes, &ctl, folder.path());
}

#[test]
fn a_cluster_that_signs_itself_wants_nothing_signed_but_takes_operators() {
    let _permit = Permit::take();
    let folder = tempfile::tempdir().unwrap();
    let (authority, file) = (Authority::new("its own"), |name: &str| folder.path().join(name));
    fs::write(file("ca.pem"), &authority.pem).unwrap();
    fs::write(file("ca.key"), &authority.key_pem).unwrap();
    let mut first = Node::prepare(folder.path(), "n1", "");
    let given = ["--ca-certificate", path(&file("ca.pem")), "--ca-key", path(&file("ca.key"))].map(str::to_owned);
    let prepared = first.quorate("init", &given.each_ref().map(String::as_str));
    assert_eq!(prepared.code, 0, "{prepared}");
    first.run();
    first.wait_ready();
    let ctl = Ctl::new(printed_context(&prepared)).at(&[&first.cluster]);

    let token = text(&ctl.json_soon(&["cluster", "join-token"]), "token").to_owned();
    let second = Node::prepare(folder.path(), "n2", "");
    let join = ["--peer", &first.cluster, "--token", &token];
    let asked = second.quorate("join", &[&join[..], &["--csr-out", path(&file("n2.csr"))]].concat());
    refused(&asked, "join without --csr-out; the token was not spent");
    assert!(!file("n2.csr").exists());
    let joined = second.quorate("join", &join);
    assert_eq!(joined.code, 0, "{joined}");
    refused(&certificate(&second, "request", &["--csr-out", path(&file("n2.csr"))]), "they renew themselves");
    register_an_operator(&authority, &ctl, folder.path());
}

/// An operator whose key and certificate were made elsewhere.
fn register_an_operator(authority: &Authority, ctl: &Ctl, folder: &Path) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "ann");
    params.distinguished_name.push(DnType::OrganizationalUnitName, "operator");
    let request = folder.join("ann.csr");
    fs::write(&request, params.serialize_request(&key).unwrap().pem().unwrap()).unwrap();
    let context = folder.join("ann.toml");
    let create = |name: &str, certificate: &Path| {
        let out = path(&context);
        ctl.run_json([
            "operators",
            "create",
            name,
            "--role",
            "viewer",
            "--certificate",
            path(certificate),
            "--out",
            out,
        ])
    };
    let refused = create("ann", &Authority::new("a stranger").sign(&request)).refused(1);
    assert!(refused.to_string().contains("the cluster's authority did not sign it"), "{refused}");
    let certificate = authority.sign(&request);
    let refused = create("bob", &certificate).refused(1);
    assert!(refused.to_string().contains("it must be for CN=bob, OU=operator"), "{refused}");
    assert!(!context.exists(), "nothing is left of what was refused");

    create("ann", &certificate).done();
    fs::write(folder.join("ann.key"), key.serialize_pem()).unwrap();
    let ann = Ctl::new(&context);
    ann.json_soon(&["cluster", "status"]);
    ann.run_json(["cluster", "join-token"]).refused(4);
}

/// Runs `quorate certificate VERB`.
fn certificate(node: &Node, verb: &str, arguments: &[&str]) -> Ran {
    let config = node.config();
    quorate(&[&["certificate", verb, "--config", path(&config)], arguments].concat())
}

/// A running node gets another certificate, and one that is no good changes nothing.
fn renew(authority: &Authority, nodes: &mut [Node], ctl: &Ctl, folder: &Path) {
    let request = folder.join("renewal.csr");
    let node = &nodes[1];
    let asked = certificate(node, "request", &["--csr-out", path(&request)]);
    assert_eq!(asked.code, 0, "{asked}");
    let install = |file: &Path| certificate(node, "install", &["--certificate", path(file)]);
    let in_use = node.data_dir().join("pki/node.pem");
    let before = fs::read(&in_use).unwrap();
    refuse_each(authority, &request, "CN=node-2", install);
    assert_eq!(fs::read(&in_use).unwrap(), before);

    let year = |wanted: &mut CertificateSigningRequestParams| wanted.params.not_after = date_time_ymd(2091, 1, 1);
    let installed = install(&authority.sign_changed(&request, year));
    assert_eq!(installed.code, 0, "{installed}");
    let ends = |place: usize| {
        let status = ctl.json_soon(&["ca", "status"]);
        let node = list(&status, "nodes").iter().find(|node| node["node"] == place).cloned();
        node.unwrap_or_else(|| panic!("no node {place}: {status}"))["expires_at"].to_string()
    };
    nodes[1].process.as_mut().unwrap().signal(Signal::HUP);
    eventually("the new certificate is shown", || {
        let ends = ends(2);
        if ends.contains("2091-01-01") { Ok(()) } else { Err(ends) }
    });

    // A file that another hand has put there is not taken.
    let other = fs::read(nodes[2].data_dir().join("pki/node.pem")).unwrap();
    let good = fs::read(&in_use).unwrap();
    let in_use = nodes[1].data_dir().join("pki/node.pem");
    fs::write(&in_use, other).unwrap();
    let process = nodes[1].process.as_mut().unwrap();
    process.signal(Signal::HUP);
    eventually("it is refused", || {
        let log = process.stderr() + &process.stdout();
        if log.contains("the node's certificate stays as it was") { Ok(()) } else { Err(log) }
    });
    assert!(ends(2).contains("2091-01-01"));
    fs::write(&in_use, good).unwrap();
    assert_eq!(nodes[1].stop(), Some(0));
    nodes[1].run();
    nodes[1].wait_ready();
    let metrics = nodes[1].ops().send(get("/metrics")).ok().text();
    let line = metrics.lines().find(|line| line.starts_with("quorate_certificate_expiry_timestamp_seconds")).unwrap();
    let seconds: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((seconds - 3_818_448_000.0).abs() < 1.0, "{line}");
}
