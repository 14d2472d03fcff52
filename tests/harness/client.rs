//! An HTTP client for tests: blocking, one request a call or several on one connection, HTTP/1.1 and HTTP/2, plain and TLS. It never
//! retries, follows or decodes anything.

use crate::{json::Value, runtime::runtime};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio_rustls::TlsConnector;

/// Longer than any timeout of the product that a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where and how to send requests.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    version: Version,
    patience: Duration,
}

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    target: String,
    host: String,
    headers: HeaderMap,
    body: Bytes,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The version that was spoken.
    pub version: Version,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// An open connection.
pub struct Connection {
    patience: Duration,
    sender: Sender,
    scheme: &'static str,
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// A GET of this path and query.
pub fn get(target: &str) -> Call {
    call("GET", target)
}

/// A request with this method, path and query.
pub fn call(method: &str, target: &str) -> Call {
    Call {
        method: method.parse().expect("a method"),
        target: target.to_owned(),
        host: "localhost".to_owned(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
    }
}

impl Call {
    /// With an API key in `X-Api-Key`.
    #[must_use]
    pub fn key(self, key: &str) -> Self {
        self.header("x-api-key", key)
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("a header name");
        self.headers.append(name, HeaderValue::from_str(value).expect("a header value"));
        self
    }

    /// For this host.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.host = host.to_owned();
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

impl Client {
    /// HTTP/1.1 over TCP to `host:port`, where the host is an IP address.
    pub fn new(address: &str) -> Self {
        Self {
            address: address.parse().unwrap_or_else(|error| panic!("{address}: {error}")),
            tls: None,
            version: Version::HTTP_11,
            patience: PATIENCE,
        }
    }

    /// Waits no longer than this for a connection, and no longer than this for an answer.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The same over TLS, trusting the certificates of a PEM file alone; the server is asked for as `localhost`.
    #[must_use]
    pub fn tls(mut self, authorities: &Path) -> Self {
        runtime();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(authorities).expect("a PEM file of certificates") {
            roots.add(certificate.expect("a certificate")).expect("an authority");
        }
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        self.tls = Some((Arc::new(config), ServerName::try_from("localhost").expect("a name")));
        self
    }

    /// HTTP/2: by prior knowledge over TCP, by ALPN over TLS.
    #[must_use]
    pub fn http2(mut self) -> Self {
        self.version = Version::HTTP_2;
        self
    }

    /// Opens a connection.
    pub fn connect(&self) -> Result<Connection, String> {
        runtime().block_on(async {
            tokio::time::timeout(self.patience, self.open())
                .await
                .unwrap_or_else(|_| Err("connecting: too slow".to_owned()))
        })
    }

    /// Sends one request on a connection of its own; panics if no answer comes.
    pub fn send(&self, call: Call) -> Answer {
        let text = format!("{} {}", call.method, call.target);
        self.try_send(call).unwrap_or_else(|error| panic!("{text} to {}: {error}", self.address))
    }

    /// Sends one request on a connection of its own.
    pub fn try_send(&self, call: Call) -> Result<Answer, String> {
        self.connect()?.try_send(call)
    }

    async fn open(&self) -> Result<Connection, String> {
        let tcp = tokio::net::TcpStream::connect(self.address).await.map_err(|error| format!("connecting: {error}"))?;
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let sender = match &self.tls {
            None => self.handshake(TokioIo::new(tcp)).await?,
            Some((config, name)) => {
                let mut config = ClientConfig::clone(config);
                let protocol: &[u8] = if self.version == Version::HTTP_2 { b"h2" } else { b"http/1.1" };
                config.alpn_protocols = vec![protocol.to_vec()];
                let connector = TlsConnector::from(Arc::new(config));
                let stream =
                    connector.connect(name.clone(), tcp).await.map_err(|error| format!("TLS handshake: {error}"))?;
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol), "ALPN must choose what was offered");
                self.handshake(TokioIo::new(stream)).await?
            }
        };
        Ok(Connection { patience: self.patience, sender, scheme })
    }

    async fn handshake<S>(&self, stream: S) -> Result<Sender, String>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        if self.version == Version::HTTP_2 {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), stream).await.map_err(|error| error.to_string())?;
            tokio::spawn(connection);
            Ok(Sender::Two(sender))
        } else {
            let (sender, connection) = http1::handshake(stream).await.map_err(|error| error.to_string())?;
            tokio::spawn(connection);
            Ok(Sender::One(sender))
        }
    }
}

impl Connection {
    /// Sends a request; panics if no answer comes.
    pub fn send(&mut self, call: Call) -> Answer {
        let text = format!("{} {}", call.method, call.target);
        self.try_send(call).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// Sends a request.
    pub fn try_send(&mut self, call: Call) -> Result<Answer, String> {
        runtime().block_on(async {
            tokio::time::timeout(self.patience, self.exchange(call))
                .await
                .unwrap_or_else(|_| Err("no answer".to_owned()))
        })
    }

    /// Sends several requests at once on an HTTP/2 connection.
    pub fn send_together(&mut self, calls: Vec<Call>) -> Vec<Result<Answer, String>> {
        let Sender::Two(sender) = &self.sender else { panic!("only HTTP/2 sends several at once") };
        runtime().block_on(async {
            let patience = self.patience;
            let tasks: Vec<_> = calls
                .into_iter()
                .map(|call| {
                    let mut one = Self { patience, sender: Sender::Two(sender.clone()), scheme: self.scheme };
                    tokio::spawn(async move {
                        tokio::time::timeout(patience, one.exchange(call))
                            .await
                            .unwrap_or_else(|_| Err("no answer".to_owned()))
                    })
                })
                .collect();
            let mut answers = Vec::new();
            for task in tasks {
                answers.push(task.await.unwrap_or_else(|error| Err(error.to_string())));
            }
            answers
        })
    }

    async fn exchange(&mut self, call: Call) -> Result<Answer, String> {
        let mut request = Request::builder().method(call.method);
        request = match &self.sender {
            Sender::One(_) => request.uri(call.target).header("host", call.host),
            Sender::Two(_) => {
                request.uri(format!("{}://{}{}", self.scheme, call.host, call.target)).version(Version::HTTP_2)
            }
        };
        let mut request = request.body(Full::new(call.body)).map_err(|error| error.to_string())?;
        request.headers_mut().extend(call.headers);
        let response = match &mut self.sender {
            Sender::One(sender) => {
                sender.ready().await.map_err(|error| format!("connection: {error:?}"))?;
                sender.send_request(request).await
            }
            Sender::Two(sender) => {
                sender.ready().await.map_err(|error| format!("connection: {error:?}"))?;
                sender.send_request(request).await
            }
        }
        .map_err(|error| format!("sending: {error:?}"))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| format!("body: {error:?}"))?.to_bytes();
        Ok(Answer { status: head.status.as_u16(), version: head.version, headers: head.headers, body })
    }
}

impl Answer {
    /// A header's value, if it is there exactly once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().and_then(|value| value.to_str().ok());
        assert!(values.next().is_none(), "{name} is there more than once: {:?}", self.headers);
        value
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Expects the upstream's answer.
    pub fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{self}");
        self
    }

    /// Expects a problem document with this status and type; returns the document.
    pub fn problem(&self, status: u16, name: &str) -> Value {
        assert_eq!(self.status, status, "{self}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self}");
        let problem = self.json();
        let kind = problem["type"].as_str().unwrap_or_default();
        assert!(kind == name || kind.ends_with(&format!("/{name}")) || kind.ends_with(&format!(":{name}")), "{self}");
        assert_eq!(problem["status"], status, "{self}");
        problem
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}\n{}", self.status, self.headers, self.text())
    }
}

/// Sends bytes as they are and reads until the peer closes or is silent for a while.
pub fn raw(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("the listener accepts");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout can be set");
    // The peer may refuse before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        answer.extend_from_slice(&piece[..count]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}
