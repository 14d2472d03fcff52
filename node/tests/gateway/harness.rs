//! What the tests share: a cluster of one that applies commands, upstreams, and small clients.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, client::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use machine::{
    At, Command, Name, Outcome, Proposal, RequestId, State, Tick, View, Wall,
    command::{Actor, Initialize, Precondition},
    key::KeyId,
    member::{MemberSpec, NodeId},
    settings::Settings as ClusterSettings,
};
use quorate::{
    clock::SystemClock,
    credential::Credential,
    gateway::{self, AccessLog, Caps, Handle, Settings},
    resource::{self, Plan},
};
use raft::{AllowanceCaps, Allowances, Authority, Pace};
use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Longer than anything takes on a busy machine; what does not come by then does not come.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub type AnyBody = BoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

pub fn full(text: impl Into<Bytes>) -> AnyBody {
    Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// Waits for something that must come.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    soon(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub struct TestClock {
    pub wall_ms: AtomicU64,
}

impl gateway::Clock for TestClock {
    fn boot_us(&self) -> u64 {
        SystemClock.boot_us()
    }
    fn time(&self) -> At {
        At { tick: Tick(42), wall: Wall(self.wall_ms.load(Ordering::SeqCst)) }
    }
}

/// A cluster of one, and its gateway.
pub struct Cluster {
    pub state: State,
    pub index: u64,
    pub gateway: Handle,
    pub clock: Arc<TestClock>,
}

pub const NOW_MS: u64 = 1_800_000_000_000;

pub fn settings() -> Settings {
    Settings {
        plain: Some("127.0.0.1:0".parse().unwrap()),
        tls: None,
        workers: 2,
        trusted_proxies: Vec::new(),
        names_node: true,
        access_log: AccessLog::Off,
        caps: Caps::default(),
        authority: Arc::new(Authority::until(u64::MAX)),
        allowances: allowances(7, AllowanceCaps::default()),
    }
}

/// The ledger of a node, whom nobody answers unless a [`crate::bank::Bank`] serves it.
pub fn allowances(node: NodeId, caps: AllowanceCaps) -> Arc<Allowances> {
    let pace = Pace {
        cycle_us: 1_000,
        renew_us: 200_000,
        election_us: 100_000,
        idle_us: 1_000_000,
        patience_us: 1_000_000,
        return_us: 100_000,
    };
    Arc::new(Allowances::new(node, 1, pace, caps, Arc::new(SystemClock)))
}

impl Cluster {
    pub async fn start(resources: &str) -> Self {
        Self::start_with(settings(), resources).await
    }

    pub async fn start_with(settings: Settings, resources: &str) -> Self {
        let clock = Arc::new(TestClock { wall_ms: AtomicU64::new(NOW_MS) });
        let gateway = gateway::start(settings, 7, clock.clone(), Arc::new(View::default())).unwrap();
        let mut cluster = Self { state: State::default(), index: 0, gateway, clock };
        let name = |text: &str| Name::new(text).unwrap();
        let member = MemberSpec {
            name: name("n1"),
            address: "127.0.0.1:1".into(),
            gateway_address: String::new(),
            gateway_tls_address: String::new(),
            ops_address: String::new(),
            zone: None,
            version: "0".into(),
            feature_level_max: 1,
        };
        let initialize = Initialize {
            cluster: [1; 16],
            feature_level: 1,
            settings: ClusterSettings::default(),
            authority_sha256: [2; 32],
            authority_pem: "pem".into(),
            member,
            operator: name("root"),
            operator_certificate_sha256: [3; 32],
            operator_not_after: Wall(NOW_MS * 2),
            join_token_hash: [4; 32],
            join_token_not_after: Wall(NOW_MS * 2),
        };
        cluster.done(Actor::Bootstrap, Command::Initialize(Box::new(initialize))).await;
        cluster.apply(resources).await;
        cluster
    }

    /// Applies a command and publishes what it made.
    pub async fn done(&mut self, actor: Actor, command: Command) {
        self.index += 1;
        let now = Wall(self.clock.wall_ms.load(Ordering::SeqCst));
        let request = RequestId { issued: now, random: u128::from(self.index) };
        let at = At { tick: Tick(self.index), wall: now };
        let applied = self.state.apply(self.index, at, &Proposal { request, actor, command });
        assert!(!matches!(applied.outcome, Outcome::Refused(_)), "{applied:?}");
        self.publish().await;
    }

    pub async fn command(&mut self, command: Command) {
        self.done(Actor::Operator(Name::new("root").unwrap()), command).await;
    }

    pub async fn publish(&self) {
        let view = View { index: self.index, at: self.state.at, registry: self.state.registry.clone() };
        self.gateway.publish(Arc::new(view)).await;
    }

    pub async fn apply(&mut self, text: &str) {
        let file = resource::parse("test", text).unwrap_or_else(|places| panic!("{places:#?}"));
        let plan = resource::plan(&self.state.registry, &file, false).unwrap_or_else(|places| panic!("{places:#?}"));
        let Plan { changes, validated_against, .. } = plan;
        self.command(Command::ApplyResources { validated_against, changes }).await;
    }

    pub async fn create_key(&mut self, consumer: &str, not_after: Option<Wall>, scopes: &[&str]) -> Credential {
        let credential = Credential::generate().unwrap();
        self.command(Command::CreateKey {
            id: credential.id(),
            consumer: Name::new(consumer).unwrap(),
            label: None,
            scopes: scopes.iter().map(|scope| Name::new(scope).unwrap()).collect(),
            hash: credential.hash(),
            not_after,
        })
        .await;
        credential
    }

    /// Has a key that was made elsewhere.
    #[allow(dead_code, reason = "a benchmark compares gateways under one key")]
    pub async fn adopt_key(&mut self, text: &str, consumer: &str) {
        let credential = Credential::parse(text).unwrap();
        self.command(Command::CreateKey {
            id: credential.id(),
            consumer: Name::new(consumer).unwrap(),
            label: None,
            scopes: Default::default(),
            hash: credential.hash(),
            not_after: None,
        })
        .await;
    }

    pub async fn revoke_key(&mut self, id: KeyId) {
        self.command(Command::RevokeKey { id, precondition: Precondition::Any }).await;
    }

    pub fn address(&self) -> SocketAddr {
        self.gateway.addresses().plain.unwrap()
    }
}

/// An HTTP/1.1 server that does what a test wants.
pub struct Upstream {
    pub address: SocketAddr,
    /// Connections that it accepted.
    pub accepted: Arc<AtomicUsize>,
}

impl Upstream {
    pub async fn start<F, R>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<AnyBody>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let (counter, answer) = (accepted.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, answer.clone()));
            }
        });
        Self { address, accepted }
    }

    /// One that says what it was asked.
    pub async fn echo() -> Self {
        Self::start(echo).await
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

pub async fn serve<S, F, R>(stream: S, answer: Arc<F>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<AnyBody>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = answer.clone();
        async move { Ok::<_, Infallible>(answer(request).await) }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// What was asked, in JSON.
pub async fn echo(request: Request<Incoming>) -> Response<AnyBody> {
    let (parts, body) = request.into_parts();
    let length = body.collect().await.map(|body| body.to_bytes().len()).unwrap_or(usize::MAX);
    let headers: Vec<(String, String)> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let json = serde_json::json!({
        "method": parts.method.as_str(), "target": parts.uri.to_string(), "headers": headers, "body_length": length,
    });
    Response::builder().header("content-type", "application/json").body(full(json.to_string())).unwrap()
}

/// One upstream `u`, a route for everything that policies permit to role `reader`, and consumer `acme` in it.
pub fn resources(url: &str) -> String {
    format!(
        "upstreams: {{ u: {{ targets: ['{url}'] }} }}
consumers: {{ acme: {{ roles: [reader] }} }}
routes:
  all: {{ paths: ['/{{*rest}}'], upstream: u }}
  open: {{ paths: ['/open/{{*rest}}'], upstream: u, authenticate: [none] }}
policies:
  readers: permit(principal in Role::\"reader\", action, resource);
"
    )
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The name of a problem, checked to be one.
    pub fn problem(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let json = self.json();
        assert_eq!(json["status"], self.status.as_u16());
        assert_eq!(json["request_id"].as_str().unwrap(), self.headers["x-request-id"].to_str().unwrap());
        // Seven, but where a test has another node.
        assert!(matches!(self.headers["x-quorate-node"].to_str().unwrap(), "7" | "8"));
        format!("{} {}", self.status.as_u16(), json["type"].as_str().unwrap())
    }

    /// A header as an echoing upstream received it.
    pub fn received(&self, name: &str) -> Option<String> {
        let json = self.json();
        let found: Vec<&str> = json["headers"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|pair| pair[0] == name)
            .map(|pair| pair[1].as_str().unwrap())
            .collect();
        (!found.is_empty()).then(|| found.join(" | "))
    }
}

/// A client connection that is kept.
pub enum Client {
    Http1(conn::http1::SendRequest<AnyBody>),
    Http2(conn::http2::SendRequest<AnyBody>),
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::http1(TcpStream::connect(address).await.unwrap()).await
    }

    pub async fn http1<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Self {
        let (sender, connection) = conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self::Http1(sender)
    }

    pub async fn http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Self {
        let (sender, connection) = conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self::Http2(sender)
    }

    pub async fn send(&mut self, mut request: Request<AnyBody>) -> Result<Response<Incoming>, hyper::Error> {
        match self {
            Self::Http1(sender) => {
                if !request.headers().contains_key("host") {
                    request.headers_mut().insert("host", "api.test".parse().unwrap());
                }
                sender.ready().await?;
                soon("an answer", sender.send_request(request)).await
            }
            Self::Http2(sender) => {
                if request.uri().authority().is_none() {
                    *request.uri_mut() = format!("http://api.test{}", request.uri()).parse().unwrap();
                }
                sender.ready().await?;
                soon("an answer", sender.send_request(request)).await
            }
        }
    }

    pub async fn ask(&mut self, request: Request<AnyBody>) -> Reply {
        let (parts, body) = self.send(request).await.unwrap().into_parts();
        let body = soon("a body", body.collect()).await.unwrap().to_bytes();
        Reply { status: parts.status, headers: parts.headers, body }
    }

    pub async fn get(&mut self, path: &str, key: &str) -> Reply {
        self.ask(get(path, key)).await
    }
}

pub fn get(path: &str, key: &str) -> Request<AnyBody> {
    let request = Request::builder().uri(path);
    let request = if key.is_empty() { request } else { request.header("x-api-key", key) };
    request.body(full("")).unwrap()
}

/// One request on a connection of its own.
pub async fn ask(address: SocketAddr, request: Request<AnyBody>) -> Reply {
    Client::connect(address).await.ask(request).await
}

/// Sends bytes as they are and reads what comes until the gateway closes.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut reply = Vec::new();
    let _ = soon("the end of the connection", stream.read_to_end(&mut reply)).await;
    String::from_utf8_lossy(&reply).into_owned()
}
