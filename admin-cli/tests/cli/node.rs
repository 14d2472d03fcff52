//! A node as the admin command line sees it: the admin API with canned answers over real mutual TLS, and a script of
//! what goes wrong.

use crate::pki::Authority;
use futures::stream::{self, BoxStream, StreamExt};
use prost::Message;
use proto::admin::audit_server::{Audit, AuditServer};
use proto::admin::ca_server::{Ca, CaServer};
use proto::admin::cluster_server::{Cluster, ClusterServer};
use proto::admin::keys_server::{Keys, KeysServer};
use proto::admin::members_server::{Members, MembersServer};
use proto::admin::operators_server::{Operators, OperatorsServer};
use proto::admin::resources_server::{Resources, ResourcesServer};
use proto::admin::snapshots_server::{Snapshots, SnapshotsServer};
use proto::admin::*;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use tonic::{Code, Request, Response, Status};

/// What goes wrong with a call.
pub enum Act {
    /// It is refused.
    Refuse(Status),
    /// It never ends.
    Hang,
    /// The stream that answers it breaks off.
    BreakOff,
    /// The node is gone, and every connection to it breaks.
    Die,
}

/// A call as it arrived.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: &'static str,
    pub write: Option<WriteOptions>,
    pub request: String,
}

/// A running node. Its tasks end with the test's runtime.
#[derive(Clone)]
pub struct Node {
    pub address: String,
    inner: Arc<Inner>,
}

struct Inner {
    authority: Arc<Authority>,
    script: Mutex<VecDeque<Act>>,
    calls: Mutex<Vec<Call>>,
    dead: watch::Sender<bool>,
}

/// A refusal with problem details.
pub fn problem(code: Code, kind: &str, message: &str) -> Refusal {
    Refusal(code, Problem { r#type: kind.into(), message: message.into(), ..Problem::default() })
}

/// A code and its problem details.
pub struct Refusal(Code, pub Problem);

impl From<Refusal> for Act {
    fn from(Refusal(code, problem): Refusal) -> Self {
        Act::Refuse(Status::with_details(code, "see the details", problem.encode_to_vec().into()))
    }
}

impl Node {
    /// Starts one that follows a script and then answers.
    pub async fn start(authority: &Arc<Authority>, script: impl IntoIterator<Item = Act>) -> Self {
        let serving = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let back = serving.local_addr().unwrap();
        let inner = Arc::new(Inner {
            authority: Arc::clone(authority),
            script: Mutex::new(script.into_iter().collect()),
            calls: Mutex::default(),
            dead: watch::Sender::new(false),
        });
        let node = Self { address: front.local_addr().unwrap().to_string(), inner };
        tokio::spawn(serve(node.clone(), serving, TlsAcceptor::from(authority.node())));
        // Connections go through a piece of wire that can be cut.
        let dead = node.inner.dead.subscribe();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = front.accept().await {
                let mut dead = dead.clone();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(back).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = dead.wait_for(|dead| *dead) => {}
                    }
                });
            }
        });
        node
    }

    /// The calls that arrived, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.inner.calls.lock().unwrap().clone()
    }

    async fn gate(
        &self,
        method: &'static str,
        write: Option<&WriteOptions>,
        request: &impl Debug,
    ) -> Result<(), Status> {
        let call = Call { method, write: write.cloned(), request: format!("{request:?}") };
        self.inner.calls.lock().unwrap().push(call);
        let act = self.inner.script.lock().unwrap().pop_front();
        match act {
            None | Some(Act::BreakOff) => Ok(()),
            Some(Act::Refuse(status)) => Err(status),
            Some(Act::Hang) => std::future::pending().await,
            Some(Act::Die) => {
                self.inner.dead.send_replace(true);
                std::future::pending().await
            }
        }
    }

    async fn write(
        &self,
        method: &'static str,
        write: &Option<WriteOptions>,
        request: &impl Debug,
    ) -> Result<WriteResult, Status> {
        let write = write.as_ref().ok_or_else(|| Status::invalid_argument("no write options"))?;
        self.gate(method, Some(write), request).await?;
        let states: &[&str] = if write.no_wait { &[] } else { &["applied", "expired", "pending"] };
        let fence = (1..).zip(states).map(|(node, state)| FenceNode { node, state: (*state).into() }).collect();
        Ok(WriteResult { revision: 12, fence, elapsed_ms: 4 })
    }
}

async fn serve(node: Node, listener: TcpListener, tls: TlsAcceptor) {
    let incoming = stream::unfold((listener, tls), |(listener, tls)| async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            if let Ok(stream) = tls.accept(tcp).await {
                return Some((Ok::<_, std::io::Error>(Io(stream)), (listener, tls)));
            }
        }
    });
    tonic::transport::Server::builder()
        .add_service(KeysServer::new(node.clone()))
        .add_service(ClusterServer::new(node.clone()))
        .add_service(MembersServer::new(node.clone()))
        .add_service(OperatorsServer::new(node.clone()))
        .add_service(CaServer::new(node.clone()))
        .add_service(SnapshotsServer::new(node.clone()))
        .add_service(ResourcesServer::new(node.clone()))
        .add_service(AuditServer::new(node))
        .serve_with_incoming(incoming)
        .await
        .unwrap();
}

struct Io(TlsStream<TcpStream>);

impl Connected for Io {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// 2026-01-01T00:00:00Z.
pub const NOW_MS: u64 = 1_767_225_600_000;
const DAY_MS: u64 = 86_400_000;
/// What `export` answers. Its names are sorted, as the JSON made of it is.
pub const EXPORT: &str = "\
routes:
  health:
    paths: [/health]
    policies: off
upstreams:
  orders:
    targets: [\"http://10.0.0.5\"]
";

type Answer<T> = Result<Response<T>, Status>;

fn key(id: &str, state: &str) -> KeyInfo {
    KeyInfo {
        id: id.into(),
        consumer: "acme".into(),
        state: state.into(),
        name: "ci".into(),
        scopes: vec!["read".into(), "write".into()],
        created_at_ms: NOW_MS,
        expires_at_ms: if state == "active" { 0 } else { NOW_MS + DAY_MS },
        revoked_at_ms: if state == "revoked" { NOW_MS } else { 0 },
        previous_expires_at_ms: 0,
        revision: 7,
        imported: false,
    }
}

#[tonic::async_trait]
impl Keys for Node {
    async fn create(&self, request: Request<CreateKeyRequest>) -> Answer<CreateKeyReply> {
        let request = request.into_inner();
        let result = Some(self.write("keys.create", &request.write, &request).await?);
        let expires_at_ms = if request.ttl_ms == 0 { 0 } else { NOW_MS + request.ttl_ms };
        let (id, key) = ("k1".into(), "qk_k1_secret".into());
        Ok(Response::new(CreateKeyReply { result, id, key, consumer: request.consumer, expires_at_ms }))
    }

    async fn list(&self, request: Request<ListKeysRequest>) -> Answer<ListKeysReply> {
        let request = request.into_inner();
        self.gate("keys.list", None, &request).await?;
        // Two pages.
        Ok(Response::new(match request.after.as_str() {
            "" => ListKeysReply { keys: vec![key("k1", "active")], more: true },
            _ => ListKeysReply { keys: vec![key("k2", "revoked")], more: false },
        }))
    }

    async fn show(&self, request: Request<ShowKeyRequest>) -> Answer<KeyInfo> {
        let request = request.into_inner();
        self.gate("keys.show", None, &request).await?;
        Ok(Response::new(key(&request.id, "revoked")))
    }

    async fn rotate(&self, request: Request<RotateKeyRequest>) -> Answer<CreateKeyReply> {
        let request = request.into_inner();
        let result = Some(self.write("keys.rotate", &request.write, &request).await?);
        let (key, consumer) = ("qk_k1_other".into(), "acme".into());
        Ok(Response::new(CreateKeyReply { result, id: request.id, key, consumer, expires_at_ms: 0 }))
    }

    async fn revoke(&self, request: Request<RevokeKeyRequest>) -> Answer<WriteResult> {
        let request = request.into_inner();
        Ok(Response::new(self.write("keys.revoke", &request.write, &request).await?))
    }

    async fn import(&self, request: Request<ImportKeysRequest>) -> Answer<ImportKeysReply> {
        let request = request.into_inner();
        let result = Some(self.write("keys.import", &request.write, &request).await?);
        let ids = (1..=request.keys.len()).map(|number| format!("i{number}")).collect();
        Ok(Response::new(ImportKeysReply { result, ids }))
    }
}

#[tonic::async_trait]
impl Cluster for Node {
    async fn status(&self, request: Request<StatusRequest>) -> Answer<StatusReply> {
        self.gate("cluster.status", None, &request.into_inner()).await?;
        let node = |id: u64, role: &str| NodeStatus {
            id,
            name: format!("node-{id}"),
            role: role.into(),
            reachable: id != 3,
            applied: 40,
            lag: if id == 3 { 9 } else { 0 },
            authority_ms: None,
            version: "0.1.0".into(),
            address: format!("10.0.0.{id}:7400"),
            clock_offset_ms: (id != 3).then_some(-3),
            zone: String::new(),
        };
        Ok(Response::new(StatusReply {
            leader: 1,
            term: 4,
            revision: 40,
            cluster: "c0ffee".into(),
            feature_level: 1,
            feature_level_max: 1,
            nodes: vec![node(1, "leader"), node(2, "voter"), node(3, "learner")],
            admins_end_ms: 0,
        }))
    }

    async fn transfer_leader(&self, request: Request<TransferLeaderRequest>) -> Answer<TransferLeaderReply> {
        let request = request.into_inner();
        self.gate("cluster.transfer_leader", None, &request).await?;
        Ok(Response::new(TransferLeaderReply { leader: request.to.max(1), term: 5 }))
    }

    async fn create_join_token(&self, request: Request<CreateJoinTokenRequest>) -> Answer<CreateJoinTokenReply> {
        let request = request.into_inner();
        let result = Some(self.write("cluster.join_token", &request.write, &request).await?);
        let expires_at_ms = NOW_MS + request.ttl_ms;
        Ok(Response::new(CreateJoinTokenReply { result, token: "qj_secret.ca".into(), expires_at_ms }))
    }

    async fn clock(&self, request: Request<ClockRequest>) -> Answer<ClockReply> {
        self.gate("cluster.clock", None, &request.into_inner()).await?;
        let nodes = vec![NodeClock { node: 1, offset_ms: Some(2) }, NodeClock { node: 2, offset_ms: None }];
        Ok(Response::new(ClockReply { tick_us: 5_000_000, wall_ms: NOW_MS, nodes }))
    }

    async fn get_settings(&self, request: Request<GetSettingsRequest>) -> Answer<Settings> {
        self.gate("cluster.get_settings", None, &request.into_inner()).await?;
        Ok(Response::new(Settings { voters: 3, learner_expiry_ms: DAY_MS, audit_entries_max: 1000, revision: 2 }))
    }

    async fn put_settings(&self, request: Request<PutSettingsRequest>) -> Answer<WriteResult> {
        let request = request.into_inner();
        Ok(Response::new(self.write("cluster.put_settings", &request.write, &request).await?))
    }

    async fn finalize_upgrade(&self, request: Request<FinalizeUpgradeRequest>) -> Answer<FinalizeUpgradeReply> {
        let request = request.into_inner();
        let result = Some(self.write("cluster.finalize_upgrade", &request.write, &request).await?);
        Ok(Response::new(FinalizeUpgradeReply { result, feature_level: 2 }))
    }
}

#[tonic::async_trait]
impl Members for Node {
    async fn list(&self, request: Request<ListMembersRequest>) -> Answer<ListMembersReply> {
        self.gate("members.list", None, &request.into_inner()).await?;
        let member = MemberInfo {
            id: 1,
            name: "node-1".into(),
            role: "leader".into(),
            address: "10.0.0.1:7400".into(),
            gateway_address: "10.0.0.1:8080".into(),
            gateway_tls_address: String::new(),
            ops_address: "10.0.0.1:9400".into(),
            zone: "a".into(),
            version: "0.1.0".into(),
            standing: "eligible".into(),
            joined_at_ms: NOW_MS,
            revision: 1,
        };
        Ok(Response::new(ListMembersReply { members: vec![member] }))
    }

    async fn promote(&self, request: Request<MemberRequest>) -> Answer<WriteResult> {
        let request = request.into_inner();
        Ok(Response::new(self.write("members.promote", &request.write, &request).await?))
    }

    async fn demote(&self, request: Request<MemberRequest>) -> Answer<WriteResult> {
        let request = request.into_inner();
        Ok(Response::new(self.write("members.demote", &request.write, &request).await?))
    }

    async fn remove(&self, request: Request<MemberRequest>) -> Answer<WriteResult> {
        let request = request.into_inner();
        Ok(Response::new(self.write("members.remove", &request.write, &request).await?))
    }
}

#[tonic::async_trait]
impl Operators for Node {
    async fn create(&self, request: Request<CreateOperatorRequest>) -> Answer<CreateOperatorReply> {
        let request = request.into_inner();
        let result = Some(self.write("operators.create", &request.write, &request).await?);
        Ok(Response::new(CreateOperatorReply {
            result,
            certificate_pem: self.inner.authority.certify(&request.certificate_request_pem),
            authorities_pem: self.inner.authority.pem.clone(),
            addresses: vec![self.address.clone()],
            expires_at_ms: NOW_MS + request.ttl_ms,
        }))
    }

    async fn list(&self, request: Request<ListOperatorsRequest>) -> Answer<ListOperatorsReply> {
        self.gate("operators.list", None, &request.into_inner()).await?;
        let operator = OperatorInfo {
            name: "admin".into(),
            role: "admin".into(),
            state: "active".into(),
            created_at_ms: NOW_MS,
            expires_at_ms: NOW_MS + 90 * DAY_MS,
            certificate_sha256: "ab".repeat(32),
            revision: 1,
        };
        Ok(Response::new(ListOperatorsReply { operators: vec![operator] }))
    }

    async fn revoke(&self, request: Request<RevokeOperatorRequest>) -> Answer<WriteResult> {
        let request = request.into_inner();
        Ok(Response::new(self.write("operators.revoke", &request.write, &request).await?))
    }
}

fn authorities() -> CaStatusReply {
    let authority = |byte: &str, phase: &str| AuthorityInfo {
        sha256: byte.repeat(32),
        phase: phase.into(),
        added_at_ms: NOW_MS,
        expires_at_ms: NOW_MS + 3650 * DAY_MS,
    };
    let node = NodeCertificate {
        node: 1,
        reachable: true,
        authority_sha256: "aa".repeat(32),
        expires_at_ms: NOW_MS + 30 * DAY_MS,
    };
    CaStatusReply { authorities: vec![authority("aa", "retiring"), authority("bb", "active")], nodes: vec![node] }
}

#[tonic::async_trait]
impl Ca for Node {
    async fn status(&self, request: Request<CaStatusRequest>) -> Answer<CaStatusReply> {
        self.gate("ca.status", None, &request.into_inner()).await?;
        Ok(Response::new(authorities()))
    }

    async fn rotate(&self, request: Request<CaRotateRequest>) -> Answer<CaRotateReply> {
        let request = request.into_inner();
        let result = Some(self.write("ca.rotate", &request.write, &request).await?);
        let authorities_pem = format!("{}{}", self.inner.authority.pem, Authority::new("next").pem);
        Ok(Response::new(CaRotateReply { result, status: Some(authorities()), authorities_pem }))
    }

    async fn finish(&self, request: Request<CaFinishRequest>) -> Answer<CaRotateReply> {
        let request = request.into_inner();
        let result = Some(self.write("ca.finish", &request.write, &request).await?);
        let authorities_pem = self.inner.authority.pem.clone();
        Ok(Response::new(CaRotateReply { result, status: Some(authorities()), authorities_pem }))
    }
}

#[tonic::async_trait]
impl Snapshots for Node {
    type SaveStream = BoxStream<'static, Result<SnapshotPiece, Status>>;

    async fn save(&self, request: Request<SaveSnapshotRequest>) -> Answer<Self::SaveStream> {
        let breaks = matches!(self.inner.script.lock().unwrap().front(), Some(Act::BreakOff));
        self.gate("snapshots.save", None, &request.into_inner()).await?;
        let piece = |text: &'static [u8]| Ok(SnapshotPiece { data: text.to_vec() });
        let end = breaks.then(|| Err(Status::unavailable("the node is stopping")));
        Ok(Response::new(stream::iter([piece(b"first,"), piece(b"second")].into_iter().chain(end)).boxed()))
    }
}

#[tonic::async_trait]
impl Resources for Node {
    async fn apply(&self, request: Request<ApplyRequest>) -> Answer<ApplyReply> {
        let request = request.into_inner();
        let change = |action: &str, kind: &str, diff: &str| ResourceChange {
            kind: kind.into(),
            name: "orders".into(),
            action: action.into(),
            diff: diff.into(),
        };
        let changes = vec![
            change("create", "upstream", "+targets: [\"http://10.0.0.5\"]\n"),
            change("update", "route", "-paths: [/a]\n+paths: [/b]\n"),
        ];
        let file = request.file.clone().unwrap_or_default();
        let warnings = vec![Place {
            file: file.name,
            line: 3,
            column: 5,
            field: "routes.orders".into(),
            message: "nobody may use it".into(),
        }];
        let result = if request.dry_run {
            self.gate("resources.diff", None, &request).await?;
            WriteResult { revision: 11, ..WriteResult::default() }
        } else {
            self.write("resources.apply", &request.write, &request).await?
        };
        Ok(Response::new(ApplyReply { result: Some(result), changes, warnings }))
    }

    async fn validate(&self, request: Request<ValidateRequest>) -> Answer<ValidateReply> {
        self.gate("resources.validate", None, &request.into_inner()).await?;
        Ok(Response::new(ValidateReply { resources: 3, warnings: vec![] }))
    }

    async fn export(&self, request: Request<ExportRequest>) -> Answer<ExportReply> {
        self.gate("resources.export", None, &request.into_inner()).await?;
        Ok(Response::new(ExportReply { text: EXPORT.into(), revision: 12 }))
    }

    async fn list(&self, request: Request<ListResourcesRequest>) -> Answer<ListResourcesReply> {
        let request = request.into_inner();
        self.gate("resources.list", None, &request).await?;
        let names: &[&str] = if request.kind == "limit" { &["burst", "plan"] } else { &["orders"] };
        let resources = names.iter().map(|name| resource(&request.kind, name)).collect();
        Ok(Response::new(ListResourcesReply { resources }))
    }

    async fn get(&self, request: Request<GetResourceRequest>) -> Answer<ResourceInfo> {
        let request = request.into_inner();
        self.gate("resources.get", None, &request).await?;
        Ok(Response::new(resource(&request.kind, &request.name)))
    }

    async fn delete(&self, request: Request<DeleteResourceRequest>) -> Answer<WriteResult> {
        let request = request.into_inner();
        Ok(Response::new(self.write("resources.delete", &request.write, &request).await?))
    }

    async fn set_consumer_enabled(&self, request: Request<SetConsumerEnabledRequest>) -> Answer<WriteResult> {
        let request = request.into_inner();
        Ok(Response::new(self.write("resources.set_consumer_enabled", &request.write, &request).await?))
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Answer<ExplainReply> {
        let request = request.into_inner();
        self.gate("resources.explain", None, &request).await?;
        if request.method == "POST" {
            let limit = |limit: &str, subject: &str, per: &str, rule: &str, mode: &str| LimitUse {
                limit: limit.into(),
                subject: subject.into(),
                per: per.into(),
                rule: rule.into(),
                cost: 3,
                mode: mode.into(),
                scope: "cluster".into(),
            };
            return Ok(Response::new(ExplainReply {
                allowed: true,
                stage: "forward".into(),
                reason: "permitted by writers".into(),
                route: "orders".into(),
                consumer: "acme".into(),
                policies: vec!["writers".into()],
                limits: vec![
                    limit("burst", "acme,<ip>", "consumer,ip", "100/s, burst 200", "enforce"),
                    limit("plan", "k1", "key", "10000/day", "shadow"),
                ],
                upstream: "orders".into(),
            }));
        }
        Ok(Response::new(ExplainReply {
            allowed: false,
            stage: "authorize".into(),
            reason: "no policy permits it".into(),
            route: "orders".into(),
            consumer: "acme".into(),
            ..ExplainReply::default()
        }))
    }

    async fn limit_usage(&self, request: Request<LimitUsageRequest>) -> Answer<LimitUsageReply> {
        let request = request.into_inner();
        self.gate("resources.limit_usage", None, &request).await?;
        let outstanding = vec![Outstanding { node: 1, amount: 20 }, Outstanding { node: 3, amount: 5 }];
        let is_quota = request.name == "plan";
        Ok(Response::new(LimitUsageReply {
            limit: request.name,
            subject: if request.overflow { "(overflow)".into() } else { request.subject.join(",") },
            rule: if is_quota { "10000/day" } else { "100/s, burst 200" }.into(),
            mode: "enforce".into(),
            limit_value: if is_quota { 10_000 } else { 200 },
            available: 150,
            outstanding: if is_quota { vec![] } else { outstanding },
            window_end_ms: is_quota.then_some(NOW_MS + DAY_MS),
            reset_ms: is_quota.then_some(DAY_MS),
        }))
    }
}

fn resource(kind: &str, name: &str) -> ResourceInfo {
    let json = match kind {
        "consumer" => "{\"roles\":[\"reader\"]}",
        "route" => "{\"methods\":[\"GET\"],\"paths\":[\"/orders/{*rest}\"],\"upstream\":\"orders\"}",
        "limit" if name == "plan" => "{\"quota\":\"10000/day\",\"per\":\"key\",\"mode\":\"shadow\"}",
        "limit" => {
            "{\"rate\":\"100/s\",\"burst\":200,\"per\":[\"consumer\",\"header:x-tenant\"],\"max_subjects\":1000}"
        }
        "policy" => "\"permit(principal, action, resource);\\n\"",
        _ => "{\"targets\":[\"http://10.0.0.5\"]}",
    };
    ResourceInfo { kind: kind.into(), name: name.into(), revision: 9, json: json.into(), enabled: true, keys: 2 }
}

#[tonic::async_trait]
impl Audit for Node {
    type ReadStream = BoxStream<'static, Result<AuditEntry, Status>>;

    async fn read(&self, request: Request<ReadAuditRequest>) -> Answer<Self::ReadStream> {
        let request = request.into_inner();
        self.gate("audit.read", None, &request).await?;
        let entry = |number: u64| AuditEntry {
            number,
            at_ms: NOW_MS,
            actor: "admin".into(),
            action: "key.create".into(),
            subject: format!("key k{number}"),
            from_revision: (number > 1).then_some(number + 4),
            to_revision: number + 5,
        };
        // Two at a time: to see more, a follower has to come again.
        let entries = [request.after + 1, request.after + 2].map(|number| Ok(entry(number)));
        Ok(Response::new(stream::iter(entries).boxed()))
    }
}
