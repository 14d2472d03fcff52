//! The real binary against nodes in this process, over real mutual TLS: what it prints, how it exits, and what it sends
//! when nodes fail. `UPDATE_GOLDEN=1` accepts new texts.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

#[path = "cli/node.rs"]
mod node;
#[path = "cli/pki.rs"]
mod pki;

use node::{Act, EXPORT, NOW_MS, Node, problem};
use pki::Authority;
use proto::admin::{Place, WriteOptions};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tonic::{Code, Status};

/// Far longer than anything here takes; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(120);

/// A directory with a context, and an authority.
struct Bench {
    dir: TempDir,
    authority: Arc<Authority>,
}

/// How the binary ended.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("no JSON: {} {}", self.stdout, self.stderr))
    }

    fn error(&self) -> Value {
        serde_json::from_str::<Value>(&self.stderr).unwrap_or_else(|_| panic!("no JSON: {}", self.stderr))["error"]
            .clone()
    }
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), authority: Arc::new(Authority::new("cluster")) }
    }

    async fn node(&self, script: impl IntoIterator<Item = Act>) -> Node {
        Node::start(&self.authority, script).await
    }

    fn context(&self, endpoints: &[&str]) {
        let endpoints: Vec<String> = endpoints.iter().map(|&endpoint| endpoint.to_owned()).collect();
        self.authority.context(self.dir.path(), &self.authority.pem, &endpoints);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quoratectl"));
        command
            .args(line.split(' ').filter(|word| !word.is_empty()))
            .current_dir(&self.dir)
            .env_clear()
            .env("HOME", self.dir.path())
            .env("QUORATE_CONTEXT", "context.toml")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, line: &str) -> Ran {
        self.run_with(line, "").await
    }

    async fn run_with(&self, line: &str, input: &str) -> Ran {
        let mut child = self.command(line).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that does not read its input has closed it.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect(line).unwrap();
        Ran {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A bench with one node that answers.
async fn bench() -> (Bench, Node) {
    let bench = Bench::new();
    let node = bench.node([]).await;
    bench.context(&[&node.address]);
    (bench, node)
}

/// An address at which nobody listens.
async fn nobody() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), text, "{name}; UPDATE_GOLDEN=1 accepts it");
}

fn id(options: &Option<WriteOptions>) -> (Vec<u8>, u64) {
    let options = options.clone().unwrap();
    assert_eq!(options.request_random.len(), 16);
    (options.request_random, options.request_issued_ms)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_prints_what_it_promises() {
    let (bench, _node) = bench().await;
    bench.write("gateway.yaml", EXPORT);
    bench.write("keys.csv", &format!("sha256,consumer,scopes\n{},acme,read write\n", "ab".repeat(32)));
    for (name, line) in [
        ("cluster-status", "cluster status"),
        ("cluster-transfer-leader", "cluster transfer-leader 2"),
        ("cluster-join-token", "cluster join-token --expires 2h"),
        ("cluster-clock", "cluster clock"),
        ("cluster-settings", "cluster settings"),
        ("cluster-settings-set", "cluster settings set --voters 5 --learner-expiry 2h"),
        ("cluster-finalize-upgrade", "cluster finalize-upgrade"),
        ("members-list", "members list"),
        ("members-demote", "members demote node-2"),
        ("members-remove", "members remove 3"),
        ("operators-list", "operators list"),
        ("operators-revoke", "operators revoke bob"),
        ("ca-status", "ca status"),
        ("keys-create", "keys create --consumer acme --name ci --scopes read,write --expires 90d"),
        ("keys-create-no-wait", "keys create --consumer acme --no-wait"),
        ("keys-list", "keys list"),
        ("keys-show", "keys show k2"),
        ("keys-rotate", "keys rotate k1 --overlap 7d"),
        ("keys-revoke", "keys revoke k1"),
        ("keys-import", "keys import keys.csv"),
        ("consumers-list", "consumers list"),
        ("consumers-get", "consumers get acme"),
        ("consumers-disable", "consumers disable acme"),
        ("consumers-enable", "consumers enable acme"),
        ("routes-list", "routes list"),
        ("routes-get", "routes get orders"),
        ("upstreams-delete", "upstreams delete orders"),
        ("limits-list", "limits list"),
        ("limits-get", "limits get burst"),
        ("limits-delete", "limits delete burst"),
        ("limits-usage", "limits usage burst --subject acme,blue"),
        ("limits-usage-quota", "limits usage plan --subject qk_abcdefghijklmn27_secret"),
        ("limits-usage-overflow", "limits usage burst --overflow"),
        ("policies-get", "policies get readers"),
        ("issuers-list", "issuers list"),
        ("apply", "apply -f gateway.yaml"),
        ("apply-dry-run", "apply -f gateway.yaml --dry-run"),
        ("diff", "diff -f gateway.yaml"),
        ("validate", "validate -f gateway.yaml"),
        ("export", "export"),
        ("explain", "explain --key-id k1 GET https://api.example.com/orders/7"),
        ("explain-limits", "explain --key-id k1 POST https://api.example.com/orders/7"),
        ("audit", "audit --since 2h --actor admin"),
    ] {
        let in_yaml = [
            "cluster-status",
            "keys-create",
            "keys-list",
            "policies-get",
            "limits-usage",
            "limits-usage-quota",
            "apply",
            "export",
        ]
        .contains(&name);
        for format in ["table", "json", "yaml"].into_iter().take(if in_yaml { 3 } else { 2 }) {
            let ran = bench.run(&format!("{line} -o {format}")).await;
            assert_eq!(ran.code, 0, "{line}: {}", ran.stderr);
            if format == "json" {
                ran.json();
                assert_eq!(ran.stderr, "", "{line}");
            }
            let both =
                if ran.stderr.is_empty() { ran.stdout } else { format!("{}--- stderr\n{}", ran.stdout, ran.stderr) };
            golden(&format!("{name}.{format}.txt"), &both);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_find_the_promised_fields() {
    let (bench, _node) = bench().await;
    let created = bench.run("keys create --consumer acme -o json").await.json();
    assert_eq!(created["id"], "k1");
    assert_eq!(created["key"], "qk_k1_secret");
    assert_eq!(created["expires_at"], Value::Null);
    assert_eq!(created["revision"], 12);
    assert_eq!(created["fence"][2], serde_json::json!({"node": 3, "state": "pending"}));
    assert_eq!(created["elapsed_ms"], 4);
    let created = bench.run("keys create --consumer acme --expires 1d -o json").await.json();
    assert_eq!(created["expires_at"], "2026-01-02T00:00:00Z");
    let listed = bench.run("keys list -o json").await.json();
    assert_eq!((&listed[0]["state"], &listed[1]["state"]), (&"active".into(), &"revoked".into()));
    let status = bench.run("cluster status -o json").await.json();
    assert_eq!((&status["leader"], &status["nodes"][2]["reachable"]), (&1.into(), &false.into()));
    let revoked = bench.run("keys revoke k1 --no-wait -o json").await.json();
    assert_eq!(revoked["fence"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_is_asked_for_by_its_parts_and_a_secret_stays_here() {
    let (bench, node) = bench().await;
    let ran = bench.run("limits usage plan --subject qk_abcdefghijklmn27_secret -o json").await;
    assert_eq!(ran.json()["subject"], "abcdefghijklmn27");
    assert_eq!(ran.json()["outstanding"], serde_json::json!([]));
    let ran = bench.run("limits usage burst --subject acme --subject a,b -o json").await;
    assert_eq!(ran.json()["subject"], "acme,a,b");
    assert_eq!(ran.json()["outstanding"][1], serde_json::json!({"node": 3, "amount": 5}));
    let sent: Vec<String> = node.calls().iter().map(|call| call.request.clone()).collect();
    assert!(sent.iter().any(|text| text.contains("abcdefghijklmn27")), "{sent:?}");
    assert!(sent.iter().all(|text| !text.contains("secret")), "{sent:?}");

    let before = node.calls().len();
    for (line, says) in [
        ("limits usage burst", "limit burst counts by consumer,header:x-tenant: whose bucket is meant?"),
        ("limits usage burst --subject acme", "a subject of it has 2 parts, not 1"),
        ("limits usage plan --subject hunter2", "a part of --subject is neither the id of a key nor a whole key"),
    ] {
        let ran = bench.run(&format!("{line} -o json")).await;
        assert_eq!(ran.code, 2, "{line}");
        let error = ran.error();
        assert!(error["message"].as_str().unwrap().contains(says), "{error}");
        assert!(!ran.stderr.contains("hunter2"));
    }
    // The limit was read, and no more.
    assert_eq!(node.calls().len(), before + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_says_how_it_is_wanted() {
    let (bench, node) = bench().await;
    bench.run("keys create --consumer acme --if-revision 7 --no-wait --timeout 3s").await;
    bench.run("keys create --consumer acme").await;
    let calls = node.calls();
    let (first, second) = (calls[0].write.clone().unwrap(), calls[1].write.clone().unwrap());
    assert_eq!([calls[0].method, calls[1].method], ["keys.create"; 2]);
    assert_eq!((first.if_revision, first.no_wait), (Some(7), true));
    assert!(first.fence_timeout_ms <= 2_000, "the answer must come before the deadline");
    assert_eq!((second.if_revision, second.no_wait), (None, false));
    assert!(second.fence_timeout_ms <= 10_000 && second.fence_timeout_ms > 5_000);
    assert_ne!(first.request_random, second.request_random);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_failure_has_its_exit_code() {
    let bench = Bench::new();
    for (code, kind, exit) in [
        (Code::NotFound, "not_found", 1),
        (Code::InvalidArgument, "invalid", 1),
        (Code::FailedPrecondition, "in_use", 1),
        (Code::ResourceExhausted, "disk_full", 1),
        (Code::PermissionDenied, "not_permitted", 4),
        (Code::Unauthenticated, "unauthenticated", 4),
        (Code::Aborted, "conflict", 5),
        (Code::AlreadyExists, "already_exists", 5),
    ] {
        let node = bench.node([problem(code, kind, "the reason").into()]).await;
        bench.context(&[&node.address]);
        let ran = bench.run("consumers delete acme -o json").await;
        assert_eq!((ran.code, ran.stdout.as_str()), (exit, ""), "{kind}");
        assert_eq!((&ran.error()["type"], &ran.error()["message"]), (&kind.into(), &"the reason".into()));
        assert_eq!(node.calls().len(), 1, "{kind} stands");
    }
    bench.context(&[&nobody().await]);
    let ran = bench.run("cluster status -o json").await;
    assert_eq!((ran.code, &ran.error()["type"]), (3, &"unreachable".into()));
    for line in ["frobnicate -o json", "keys create -o json", "keys rotate k1 --overlap soon -o json"] {
        let ran = bench.run(line).await;
        assert_eq!((ran.code, &ran.error()["type"]), (2, &"usage".into()), "{line}");
    }
    let ran = bench.run("cluster status --context nowhere.toml").await;
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("nowhere.toml cannot be read"), "{}", ran.stderr);
    assert_eq!(bench.run("--help").await.code, 0);
    assert_eq!(bench.run("--version").await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_leader_is_waited_for_and_then_said() {
    let bench = Bench::new();
    let without = || -> Act { problem(Code::Unavailable, "no_leader", "there is no leader").into() };
    let node = bench.node([without(), without()]).await;
    bench.context(&[&node.address]);
    assert_eq!(bench.run("keys revoke k1").await.code, 0);
    let calls = node.calls();
    assert_eq!(calls.len(), 3);
    assert!(calls.iter().all(|call| id(&call.write) == id(&calls[0].write)));

    let node = bench.node(std::iter::repeat_with(without).take(1000)).await;
    bench.context(&[&node.address]);
    let ran = bench.run("keys revoke k1 --timeout 5s -o json").await;
    assert_eq!((ran.code, &ran.error()["type"]), (3, &"no_leader".into()));
    assert!(ran.error()["message"].as_str().unwrap().contains("nothing was done"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_is_asked_when_one_is_gone() {
    let bench = Bench::new();
    let node = bench.node([]).await;
    bench.context(&[&nobody().await, &node.address]);
    assert_eq!(bench.run("cluster status").await.code, 0);
    assert_eq!(bench.run("keys create --consumer acme").await.code, 0);
    bench.context(&["127.0.0.1:1"]);
    assert_eq!(bench.run(&format!("cluster status --endpoint {}", node.address)).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_accepts_and_says_nothing_is_passed_over() {
    let bench = Bench::new();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let node = bench.node([]).await;
    bench.context(&[&silent.local_addr().unwrap().to_string(), &node.address]);
    assert_eq!(bench.run("keys create --consumer acme").await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_carries_the_same_request_id() {
    let bench = Bench::new();
    let unavailable = Act::Refuse(Status::unavailable("the leader is gone"));
    for act in [unavailable, Act::Die] {
        let (first, second) = (bench.node([act]).await, bench.node([]).await);
        bench.context(&[&first.address, &second.address]);
        let ran = bench.run("keys create --consumer acme -o json").await;
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let (before, after) = (first.calls(), second.calls());
        assert_eq!((before.len(), after.len()), (1, 1));
        assert_eq!(id(&before[0].write), id(&after[0].write));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_date_is_corrected_once_by_the_clusters() {
    let bench = Bench::new();
    let outdated = || -> Act {
        let mut problem = problem(Code::FailedPrecondition, "outdated_request", "the request is a year old");
        problem.1.cluster_wall_ms = NOW_MS;
        problem.into()
    };
    let node = bench.node([outdated()]).await;
    bench.context(&[&node.address]);
    assert_eq!(bench.run("keys create --consumer acme").await.code, 0);
    let calls = node.calls();
    assert_eq!(calls.len(), 2);
    assert_ne!(id(&calls[0].write).0, id(&calls[1].write).0);
    assert_eq!(id(&calls[1].write).1, NOW_MS);

    let node = bench.node([outdated(), outdated()]).await;
    bench.context(&[&node.address]);
    assert_eq!(bench.run("keys create --consumer acme").await.code, 1);
    assert_eq!(node.calls().len(), 2, "once");

    // After an answer that was lost, a second id could do the thing twice.
    let node = bench.node([Act::Refuse(Status::unavailable("lost")), outdated()]).await;
    bench.context(&[&node.address]);
    let ran = bench.run("keys create --consumer acme").await;
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("may have taken effect"), "{}", ran.stderr);
    assert_eq!(id(&node.calls()[0].write), id(&node.calls()[1].write));
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_is_not_failed() {
    let bench = Bench::new();
    for act in [Act::Hang, problem(Code::DeadlineExceeded, "unknown", "no majority answered").into()] {
        let node = bench.node([act, Act::Hang]).await;
        bench.context(&[&node.address]);
        let ran = bench.run("keys create --consumer acme --timeout 1s").await;
        assert_eq!(ran.code, 3);
        assert!(ran.stderr.contains("it may have happened"), "{}", ran.stderr);
        assert!(ran.stderr.contains("quoratectl keys list --consumer acme"), "{}", ran.stderr);
        assert!(ran.stdout.is_empty());
    }
    let node = bench.node([Act::Hang]).await;
    bench.context(&[&node.address]);
    let ran = bench.run("keys revoke k1 --timeout 1s -o json").await;
    assert_eq!((ran.code, &ran.error()["type"]), (3, &"outcome_unknown".into()));
    assert!(ran.error()["hint"].as_str().unwrap().contains("quoratectl keys show k1"));
    // What only reads cannot have changed anything.
    let node = bench.node([Act::Hang]).await;
    bench.context(&[&node.address]);
    let ran = bench.run("keys list --timeout 1s -o json").await;
    assert_eq!((ran.code, &ran.error()["type"]), (3, &"timed_out".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_told_apart() {
    let bench = Bench::new();
    let node = bench.node([]).await;
    let stranger = Authority::new("stranger");
    // An operator of another cluster.
    stranger.context(bench.dir.path(), &bench.authority.pem, std::slice::from_ref(&node.address));
    let ran = bench.run("keys create --consumer acme --timeout 5s -o json").await;
    assert_eq!((ran.code, &ran.error()["type"]), (4, &"certificate_refused".into()), "{}", ran.stderr);
    // A node of another cluster.
    bench.authority.context(bench.dir.path(), &stranger.pem, std::slice::from_ref(&node.address));
    let ran = bench.run("cluster status").await;
    assert_eq!(ran.code, 3);
    assert!(ran.stderr.contains("invalid peer certificate"), "{}", ran.stderr);
    assert!(node.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_in_a_file_have_their_places() {
    let bench = Bench::new();
    // Many: they travel in a header.
    let mut refusal = problem(Code::InvalidArgument, "invalid", "gateway.yaml has 200 mistakes");
    refusal.1.places = (1..=200)
        .map(|line| Place {
            file: "gateway.yaml".into(),
            line,
            column: 7,
            field: format!("routes.orders{line}.upstream"),
            message: "no upstream `order` is in the file or in the cluster; did you mean `orders`?".into(),
        })
        .collect();
    let node = bench.node([refusal.into()]).await;
    bench.context(&[&node.address]);
    bench.write("gateway.yaml", "routes: {}");
    let ran = bench.run("apply -f gateway.yaml").await;
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 201);
    assert!(ran.stderr.contains("\n  gateway.yaml:200:7: routes.orders200.upstream: no upstream `order`"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_can_be_applied() {
    let (bench, node) = bench().await;
    let exported = bench.run("export").await.stdout;
    assert_eq!(exported, EXPORT);
    assert_eq!(bench.run_with("apply -f - --prune", &exported).await.code, 0);
    let request = node.calls().last().unwrap().request.clone();
    assert!(request.contains(&format!("{EXPORT:?}")) && request.contains("prune: true"), "{request}");
    assert!(request.contains("<stdin>"));
    let json = bench.run("export -o json").await.json();
    assert_eq!(json["routes"]["health"]["policies"], "off", "no boolean");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_operator_can_use_its_context() {
    let (bench, node) = bench().await;
    let ran = bench.run("operators create bob --role viewer --expires 30d -o json").await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!((&ran.json()["context"], &ran.json()["role"]), (&"bob.toml".into(), &"viewer".into()));
    let mode = std::fs::metadata(bench.path("bob.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let request = node.calls()[0].request.clone();
    assert!(request.contains("CERTIFICATE REQUEST") && !request.contains("PRIVATE KEY"));
    assert_eq!(bench.run("cluster status --context bob.toml").await.code, 0);
    // It is not overwritten, and nobody is created whose key is then lost.
    let ran = bench.run("operators create bob --role admin").await;
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("exists already"));
    assert_eq!(node.calls().len(), 2);
    // Devices are written to: the caller keeps the context.
    let ran = bench.run("operators create bob --role admin --out /dev/stderr").await;
    assert!(ran.code == 0 && ran.stderr.contains("BEGIN PRIVATE KEY"), "{}", ran.stderr);
    // A name from the contexts' directory.
    std::fs::create_dir_all(bench.path(".config/quorate/contexts")).unwrap();
    let named = ".config/quorate/contexts/bob.toml";
    assert_eq!(bench.run(&format!("operators create bob --role admin --out {named}")).await.code, 0);
    assert_eq!(bench.run("cluster status --context bob").await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_operator_leaves_no_file() {
    let bench = Bench::new();
    let node = bench.node([problem(Code::AlreadyExists, "already_exists", "there is a bob").into()]).await;
    bench.context(&[&node.address]);
    assert_eq!(bench.run("operators create bob --role viewer").await.code, 5);
    let left: Vec<_> = std::fs::read_dir(bench.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["context.toml"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_changes_what_the_context_trusts() {
    let (bench, _node) = bench().await;
    let trusted = || {
        let text = std::fs::read_to_string(bench.path("context.toml")).unwrap();
        let table: toml::Table = toml::from_str(&text).unwrap();
        table["ca_pem"].as_str().unwrap().matches("BEGIN CERTIFICATE").count()
    };
    assert_eq!(trusted(), 1);
    let ran = bench.run("ca rotate -o json").await;
    assert_eq!((ran.code, &ran.json()["context_updated"]), (0, &"context.toml".into()));
    assert_eq!(trusted(), 2);
    assert_eq!(bench.run("cluster status").await.code, 0);
    let ran = bench.run("ca rotate --finish").await;
    assert_eq!(ran.code, 0);
    assert!(ran.stdout.contains("context.toml now says what to trust"), "{}", ran.stdout);
    assert_eq!(trusted(), 1);
    assert_eq!(bench.run("cluster status").await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_whole_or_is_not_there() {
    let (bench, _node) = bench().await;
    let ran = bench.run("snapshot save a.snapshot -o json").await;
    assert_eq!((ran.code, &ran.json()["bytes"]), (0, &12.into()));
    assert_eq!(std::fs::read(bench.path("a.snapshot")).unwrap(), b"first,second");
    let mode = std::fs::metadata(bench.path("a.snapshot")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let ran = bench.run("snapshot save a.snapshot").await;
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("exists already"), "{}", ran.stderr);

    let node = bench.node([Act::BreakOff]).await;
    let ran = bench.run(&format!("snapshot save b.snapshot --endpoint {} -o json", node.address)).await;
    assert_eq!((ran.code, &ran.error()["type"]), (3, &"broken_off".into()));
    let left: Vec<_> = std::fs::read_dir(bench.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("b.")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_checked_before_it_is_sent() {
    let (bench, node) = bench().await;
    bench.write("bad.csv", "sha256,consumer\nxyz,acme\n");
    let ran = bench.run("keys import bad.csv").await;
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("bad.csv:2: sha256: not 64 hexadecimal digits"), "{}", ran.stderr);
    assert!(node.calls().is_empty());
    let line = format!("{{\"sha256\":\"{}\",\"consumer\":\"acme\"}}\n", "ab".repeat(32));
    let ran = bench.run_with("keys import - -o json", &line.repeat(2_001)).await;
    assert_eq!((ran.code, &ran.json()["imported"]), (0, &2001.into()));
    let calls = node.calls();
    assert_eq!(calls.len(), 2);
    assert_ne!(id(&calls[0].write), id(&calls[1].write));
}

#[tokio::test(flavor = "multi_thread")]
async fn following_the_audit_goes_on_after_a_break() {
    let (bench, node) = bench().await;
    let mut child = bench.command("audit --follow -o json").spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for number in 1..=4 {
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["number"], number);
    }
    child.kill().await.unwrap();
    assert!(node.calls()[1].request.contains("after: 2"), "{:?}", node.calls());
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_need_no_cluster() {
    let bench = Bench::new();
    for shell in ["bash", "zsh", "fish"] {
        let ran = bench.run(&format!("completions {shell}")).await;
        assert_eq!(ran.code, 0);
        assert!(ran.stdout.contains("quoratectl") && ran.stdout.contains("transfer-leader"), "{shell}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_can_be_explained_without_showing_it_to_other_users() {
    let (bench, node) = bench().await;
    assert_eq!(bench.run_with("explain --key - GET /orders", "qk_k1_secret\n").await.code, 0);
    assert!(node.calls()[0].request.contains("key: \"qk_k1_secret\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn help_is_stable() {
    let bench = Bench::new();
    golden("help.txt", &bench.run("--help").await.stdout);
    golden("help-keys-create.txt", &bench.run("keys create --help").await.stdout);
}
