//! TLS over time: sessions that are resumed, certificates that change under connections that live on, and clients that show
//! certificates of their own.

use crate::{
    harness::*,
    tls::{Authority, BOTH, connect, shown, with_tls},
};
use http::Request;
use quorate::{
    gateway::{AccessLog, Settings},
    listen::{Certificates, ClientAuthorities},
};
use rcgen::{
    CertificateParams, CertificateRevocationListParams, DnType, KeyIdMethod, KeyPair, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, crypto::aws_lc_rs, version};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
};
use tokio_rustls::TlsConnector;

fn open() -> Request<AnyBody> {
    Request::get("/open/x").header("host", "api.test").body(full("")).unwrap()
}

/// Asks once over a new connection; whether its session was resumed.
async fn resumes(cluster: &Cluster, connector: &TlsConnector) -> bool {
    let stream = connect(cluster, connector, "api.test").await.unwrap();
    let kind = stream.get_ref().1.handshake_kind().unwrap();
    // An answer comes after the tickets.
    assert_eq!(Client::http1(stream).await.ask(open()).await.status, 200);
    kind == HandshakeKind::Resumed
}

#[tokio::test]
async fn sessions_resume_on_every_worker_and_over_a_reload() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let settings = Settings { workers: 4, ..with_tls(vec![authority.certificate(&["api.test"])]) };
    let cluster = Cluster::start_with(settings, &resources(&upstream.url())).await;
    for version in [&version::TLS13, &version::TLS12] {
        let connector = authority.client(&[], &[version]);
        assert!(!resumes(&cluster, &connector).await);
        for round in 0..3 {
            for _ in 0..8 {
                assert!(resumes(&cluster, &connector).await, "{version:?}, after {round} reloads");
            }
            cluster.gateway.reload_certificates(shown(vec![authority.certificate(&["api.test"])])).unwrap();
        }
    }
}

#[tokio::test]
async fn connections_live_on_when_certificates_change() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let cluster =
        Cluster::start_with(with_tls(vec![authority.certificate(&["api.test"])]), &resources(&upstream.url())).await;
    let one = connect(&cluster, &authority.client(&["http/1.1"], BOTH), "api.test").await.unwrap();
    let two = connect(&cluster, &authority.client(&["h2"], BOTH), "api.test").await.unwrap();
    let (mut one, mut two) = (Client::http1(one).await, Client::http2(two).await);
    let mut certificates = Vec::new();
    for _ in 0..5 {
        let renewed = authority.certificate(&["api.test"]);
        certificates.push(renewed.chain[0].to_vec());
        cluster.gateway.reload_certificates(shown(vec![renewed])).unwrap();
        assert_eq!(one.ask(open()).await.status, 200);
        let over_two = Request::get("https://api.test/open/x").body(full("")).unwrap();
        assert_eq!(two.ask(over_two).await.status, 200);
        // Whoever comes now sees the new one.
        let stream = connect(&cluster, &authority.client(&[], BOTH), "api.test").await.unwrap();
        assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec(), *certificates.last().unwrap());
        assert_eq!(cluster.gateway.expiries()[0].certificate, "api.test");
    }
}

/// A client's certificate, and what it takes to show it.
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

fn client_certificate(authority: &Authority, name: &str, serial: u64) -> Shown {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://test/{name}").try_into().unwrap())];
    params.serial_number = Some(SerialNumber::from(serial));
    let certificate = params.signed_by(&key, &authority.0).unwrap();
    Shown { chain: vec![certificate.der().clone()], key }
}

fn revoked(authority: &Authority, serials: &[u64]) -> CertificateRevocationListDer<'static> {
    let revoked_certs = serials.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2124, 1, 1),
        crl_number: SerialNumber::from(1u64),
        issuing_distribution_point: None,
        revoked_certs: revoked_certs.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&authority.0).unwrap().into()
}

fn connector(
    servers: &Authority,
    shown: Option<&Shown>,
    version: &'static rustls::SupportedProtocolVersion,
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(servers.0.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        None => builder.with_no_client_auth(),
        Some(shown) => {
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(shown.key.serialize_der()));
            builder.with_client_auth_cert(shown.chain.clone(), key).unwrap()
        }
    };
    TlsConnector::from(Arc::new(config))
}

/// Whether a client is served: over TLS 1.3 it learns only after its own handshake that it is not.
async fn is_served(cluster: &Cluster, connector: &TlsConnector) -> bool {
    let Ok(stream) = connect(cluster, connector, "api.test").await else { return false };
    match Client::http1(stream).await.send(open()).await {
        Ok(response) => response.status() == 200,
        Err(_) => false,
    }
}

struct Scene {
    servers: Authority,
    clients: Authority,
    cluster: Cluster,
    _upstream: Upstream,
}

impl Scene {
    async fn start(required: bool, access_log: AccessLog) -> Self {
        let (servers, clients) = (Authority::new(), Authority::new());
        let upstream = Upstream::echo().await;
        let mut settings = Settings { access_log, ..with_tls(Vec::new()) };
        settings.tls.as_mut().unwrap().1 = Self::certificates(&servers, &clients, Vec::new(), required);
        let cluster = Cluster::start_with(settings, &resources(&upstream.url())).await;
        Self { servers, clients, cluster, _upstream: upstream }
    }

    fn certificates(
        servers: &Authority,
        clients: &Authority,
        revoked: Vec<CertificateRevocationListDer<'static>>,
        required: bool,
    ) -> Certificates {
        let clients = ClientAuthorities { authorities: vec![clients.0.der().clone()], revoked, required };
        Certificates { clients: Some(clients), ..shown(vec![servers.certificate(&["api.test"])]) }
    }

    fn revoke(&self, serials: &[u64]) {
        let lists = vec![revoked(&self.clients, serials)];
        self.cluster
            .gateway
            .reload_certificates(Self::certificates(&self.servers, &self.clients, lists, true))
            .unwrap();
    }
}

#[tokio::test]
async fn clients_must_show_a_certificate_where_it_is_required() {
    let scene = Scene::start(true, AccessLog::Off).await;
    let good = client_certificate(&scene.clients, "orders", 1);
    let strange = client_certificate(&Authority::new(), "orders", 1);
    for version in [&version::TLS13, &version::TLS12] {
        let with = |shown| connector(&scene.servers, shown, version);
        assert!(is_served(&scene.cluster, &with(Some(&good))).await);
        assert!(!is_served(&scene.cluster, &with(None)).await);
        assert!(!is_served(&scene.cluster, &with(Some(&strange))).await);
    }
}

#[tokio::test]
async fn who_shows_a_certificate_is_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let scene = Scene::start(false, AccessLog::File(file.clone())).await;
    let good = client_certificate(&scene.clients, "orders", 1);
    let strange = client_certificate(&Authority::new(), "orders", 1);
    let with = |shown| connector(&scene.servers, shown, &version::TLS13);
    assert!(is_served(&scene.cluster, &with(None)).await);
    assert!(!is_served(&scene.cluster, &with(Some(&strange))).await, "optional is not anything");
    let known = with(Some(&good));
    assert!(is_served(&scene.cluster, &known).await && is_served(&scene.cluster, &known).await);
    until("three lines", || lines(&file).len() == 3).await;
    let lines = lines(&file);
    let who: Vec<_> = lines.iter().filter_map(|line| line.get("client_certificate")?.as_str()).collect();
    // A resumed session knows it too.
    assert!(who.len() == 2 && who.iter().all(|subject| subject.contains("CN=orders")), "{lines:#?}");
    let sha256: Vec<_> = lines.iter().filter_map(|line| line.get("client_certificate_sha256")?.as_str()).collect();
    assert!(sha256.iter().all(|text| text.len() == 64), "{lines:#?}");
}

fn lines(file: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_its_session_is_not_resumed() {
    let scene = Scene::start(true, AccessLog::Off).await;
    let (one, two) = (client_certificate(&scene.clients, "one", 1), client_certificate(&scene.clients, "two", 2));
    for version in [&version::TLS13, &version::TLS12] {
        let (one, two) =
            (connector(&scene.servers, Some(&one), version), connector(&scene.servers, Some(&two), version));
        scene.revoke(&[]);
        for _ in 0..2 {
            assert!(is_served(&scene.cluster, &one).await && is_served(&scene.cluster, &two).await);
        }
        scene.revoke(&[1]);
        assert!(!is_served(&scene.cluster, &one).await, "{version:?}");
        assert!(is_served(&scene.cluster, &two).await, "{version:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_no_list_is_about_is_refused_where_there_are_lists() {
    let scene = Scene::start(true, AccessLog::Off).await;
    // Of another name, by which lists are found.
    let others = Authority::named("others");
    let with = |lists| {
        let authorities = vec![scene.clients.0.der().clone(), others.0.der().clone()];
        let clients = ClientAuthorities { authorities, revoked: lists, required: true };
        Certificates { clients: Some(clients), ..shown(vec![scene.servers.certificate(&["api.test"])]) }
    };
    let (one, other) = (client_certificate(&scene.clients, "one", 1), client_certificate(&others, "other", 1));
    for (lists, is_other_served) in [(Vec::new(), true), (vec![revoked(&scene.clients, &[])], false)] {
        scene.cluster.gateway.reload_certificates(with(lists)).unwrap();
        for version in [&version::TLS13, &version::TLS12] {
            assert!(is_served(&scene.cluster, &connector(&scene.servers, Some(&one), version)).await);
            let served = is_served(&scene.cluster, &connector(&scene.servers, Some(&other), version)).await;
            assert_eq!(served, is_other_served, "{version:?}");
        }
    }
}

#[tokio::test]
async fn a_session_does_not_outlive_its_clients_certificate() {
    let scene = Scene::start(true, AccessLog::Off).await;
    let good = client_certificate(&scene.clients, "orders", 1);
    for version in [&version::TLS13, &version::TLS12] {
        scene.cluster.clock.wall_ms.store(NOW_MS, Ordering::SeqCst);
        let client = connector(&scene.servers, Some(&good), version);
        assert!(is_served(&scene.cluster, &client).await && is_served(&scene.cluster, &client).await);
        // After the year 4096, in which the certificate ends.
        scene.cluster.clock.wall_ms.store(67_200_000_000_000, Ordering::SeqCst);
        assert!(!is_served(&scene.cluster, &client).await, "{version:?}");
    }
}
