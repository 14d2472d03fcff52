//! TLS on both sides.

use crate::harness::*;
use http::Request;
use quorate::{
    gateway::Settings,
    listen::{Certificate, Certificates},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::aws_lc_rs, version};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

pub struct Authority(pub CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        Self::named("authority")
    }

    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn certificate(&self, names: &[&str]) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
        Certificate {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        }
    }

    pub fn client(&self, protocols: &[&str], versions: &[&'static rustls::SupportedProtocolVersion]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

pub const BOTH: &[&rustls::SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];

pub fn shown(certificates: Vec<Certificate>) -> Certificates {
    Certificates { shown: certificates.into_iter().map(Arc::new).collect(), clients: None }
}

pub fn with_tls(certificates: Vec<Certificate>) -> Settings {
    let mut with = settings();
    let certificates = shown(certificates);
    with.tls = Some(("127.0.0.1:0".parse().unwrap(), certificates));
    with
}

pub async fn connect(cluster: &Cluster, connector: &TlsConnector, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(cluster.gateway.addresses().tls.unwrap()).await.unwrap();
    soon("a handshake", connector.connect(ServerName::try_from(name.to_owned()).unwrap(), stream)).await
}

fn names_shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn both_protocols_and_both_versions() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let mut cluster =
        Cluster::start_with(with_tls(vec![authority.certificate(&["api.test"])]), &resources(&upstream.url())).await;
    let key = cluster.create_key("acme", None, &[]).await;
    for version in [&version::TLS13, &version::TLS12] {
        for protocols in [vec!["h2", "http/1.1"], vec!["http/1.1"], vec![]] {
            let stream = connect(&cluster, &authority.client(&protocols, &[version]), "api.test").await.unwrap();
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            assert_eq!(is_http2, protocols.contains(&"h2"));
            let mut client = if is_http2 { Client::http2(stream).await } else { Client::http1(stream).await };
            let mut request = get("/x", &key.text());
            if is_http2 {
                *request.uri_mut() = "https://api.test/x".parse().unwrap();
            }
            let reply = client.ask(request).await;
            assert_eq!(reply.status, 200, "{protocols:?}");
            assert_eq!(reply.received("x-forwarded-proto").unwrap(), "https");
        }
    }
}

#[tokio::test]
async fn the_certificate_that_fits_is_shown_and_can_be_changed() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let certificates = vec![authority.certificate(&["one.test"]), authority.certificate(&["*.two.test", "two.test"])];
    let cluster = Cluster::start_with(with_tls(certificates), &resources(&upstream.url())).await;
    let client = authority.client(&[], BOTH);
    let one = connect(&cluster, &client, "one.test").await.unwrap();
    let two = connect(&cluster, &client, "a.two.test").await.unwrap();
    assert_ne!(names_shown(&one), names_shown(&two));
    assert_eq!(names_shown(&two), names_shown(&connect(&cluster, &client, "two.test").await.unwrap()));
    // A name that no certificate has gets the first one, and the client judges.
    assert!(connect(&cluster, &client, "three.test").await.is_err());
    // A connection that was made for one host is no way to another that has a certificate of its own.
    let mut kept = Client::http1(one).await;
    let misdirected = Request::get("/open/x").header("host", "a.two.test").body(full("")).unwrap();
    assert_eq!(kept.ask(misdirected).await.problem(), "421 misdirected");
    let fitting = || Request::get("/open/x").header("host", "one.test").body(full("")).unwrap();
    assert_eq!(kept.ask(fitting()).await.status, 200);

    let renewed = shown(vec![authority.certificate(&["three.test"])]);
    cluster.gateway.reload_certificates(renewed).unwrap();
    assert!(connect(&cluster, &client, "three.test").await.is_ok());
    assert_eq!(kept.ask(fitting()).await.status, 200);
    assert!(cluster.gateway.reload_certificates(shown(Vec::new())).is_err());
    assert!(connect(&cluster, &client, "three.test").await.is_ok());
}

#[tokio::test]
async fn a_key_that_is_not_the_certificates_is_refused() {
    let authority = Authority::new();
    let mut wrong = authority.certificate(&["a.test"]);
    wrong.key = authority.certificate(&["a.test"]).key;
    let clock = Arc::new(TestClock { wall_ms: 0.into() });
    let started = quorate::gateway::start(with_tls(vec![wrong]), 1, clock, Arc::new(machine::View::default()));
    assert!(matches!(started, Err(quorate::gateway::StartError::Certificates(_))));
}

#[tokio::test]
async fn bytes_that_are_not_tls_harm_nobody() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let cluster =
        Cluster::start_with(with_tls(vec![authority.certificate(&["a.test"])]), &resources(&upstream.url())).await;
    let reply = raw(cluster.gateway.addresses().tls.unwrap(), b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(!reply.starts_with("HTTP"), "{reply}");
    assert!(connect(&cluster, &authority.client(&[], BOTH), "a.test").await.is_ok());
}

/// An upstream that speaks TLS and says what it was asked.
async fn https_upstream(certificate: Certificate) -> String {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(BOTH)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificate.chain, certificate.key)
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream, Arc::new(echo)).await;
                }
            });
        }
    });
    format!("https://{address}")
}

#[tokio::test]
async fn an_upstream_over_tls_must_be_who_it_is() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let url = https_upstream(authority.certificate(&["backend.internal"])).await;
    let resources = |ca: &Authority, server_name: &str| {
        let pem = ca.0.pem().replace('\n', "\n      ");
        format!(
            "upstreams:
  u:
    targets: ['{url}']
    server_name: {server_name}
    ca: |
      {pem}
routes: {{ open: {{ paths: ['/{{*rest}}'], upstream: u, authenticate: [none] }} }}
"
        )
    };
    let mut cluster = Cluster::start(&resources(&authority, "backend.internal")).await;
    let mut client = Client::connect(cluster.address()).await;
    assert_eq!(client.get("/x", "").await.json()["target"], "/x");
    assert_eq!(client.get("/y", "").await.status, 200);
    cluster.apply(&resources(&authority, "other.internal")).await;
    assert_eq!(client.get("/x", "").await.problem(), "503 upstream-unavailable");
    cluster.apply(&resources(&stranger, "backend.internal")).await;
    assert_eq!(client.get("/x", "").await.problem(), "503 upstream-unavailable");
    cluster.apply(&resources(&authority, "backend.internal")).await;
    assert_eq!(client.get("/x", "").await.status, 200);
}
