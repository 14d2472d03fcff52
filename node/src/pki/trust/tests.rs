//! Who gets a TLS connection to whom, through renewals and rotations: real handshakes, in memory.

use super::*;
use crate::{
    clock::SystemClock,
    pki::{
        NODE_LIFE, OPERATOR_LIFE, authority,
        authority::Authority,
        certificate::{Speaker, speaker},
        node_server_name, pinned,
        token::JoinToken,
    },
};
use machine::{
    Name, Registry, Wall,
    authority::{Authority as Registered, Phase},
    operator::{Operator, Role},
};
use rustls_pki_types::{ServerName, pem::PemObject};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const CLUSTER: [u8; 16] = [5; 16];

fn now_ms() -> u64 {
    SystemClock.utc_ms()
}

/// A node's files, signed by this authority, which it trusts together with others.
fn trust(folder: &std::path::Path, id: u64, signer: &Authority, trusted: &[&Authority]) -> Trust {
    trust_at(folder, id, signer, trusted, now_ms())
}

fn trust_at(folder: &std::path::Path, id: u64, signer: &Authority, trusted: &[&Authority], at_ms: u64) -> Trust {
    let store = Store::open(folder.join(format!("pki-{id}"))).unwrap();
    let (key, request) = authority::request().unwrap();
    let signed = signer.sign_node(&request, CLUSTER, id, at_ms).unwrap();
    store.save_node(&key, &signed.pem).unwrap();
    let pem: String = trusted.iter().map(|authority| authority.certificates_pem()).collect();
    store.save_authorities(&pem).unwrap();
    Trust::load(store).unwrap()
}

/// Shakes hands; the client's certificate chain as the server saw it.
async fn shake(
    client: Arc<ClientConfig>,
    server: &Trust,
    server_name: String,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from(server_name).unwrap();
    let connecting = async {
        let mut stream = TlsConnector::from(client).connect(name, near).await.map_err(|error| error.to_string())?;
        // In TLS 1.3 a client learns that its certificate was refused only when it reads.
        let mut byte = [0];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut byte).await.map_err(|error| error.to_string())?;
        Ok::<_, String>(())
    };
    let accepting = async {
        let acceptor = TlsAcceptor::from(Arc::clone(&server.tls().server));
        let mut stream = acceptor.accept(far).await.map_err(|error| error.to_string())?;
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"x").await.map_err(|error| error.to_string())?;
        Ok::<_, String>(stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec())
    };
    let (connected, accepted) = tokio::join!(connecting, accepting);
    connected?;
    accepted
}

async fn reach(from: &Trust, to: &Trust, to_id: u64) -> Result<Vec<CertificateDer<'static>>, String> {
    shake(Arc::clone(&from.tls().client), to, node_server_name(to_id)).await
}

fn view(authorities: &[(&Authority, Phase)], operators: Vec<Operator>) -> Arc<View> {
    let mut registry = Registry { cluster: CLUSTER, next_member: 9, ..Registry::default() };
    for (place, (authority, phase)) in authorities.iter().enumerate() {
        let registered = Registered {
            sha256: authority.sha256(),
            certificate_pem: authority.certificates_pem().to_owned(),
            phase: *phase,
            added_at: Wall(0),
            revision: place as u64,
        };
        registry.authorities.insert(authority.sha256(), Arc::new(registered));
    }
    for operator in operators {
        registry.operators_by_certificate.insert(operator.certificate_sha256, operator.name.clone());
        registry.operators.insert(operator.name.clone(), Arc::new(operator));
    }
    Arc::new(View { index: 1, at: machine::At::default(), registry })
}

#[tokio::test]
async fn members_prove_who_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(CLUSTER, now_ms()).unwrap();
    let one = trust(folder.path(), 1, &authority, &[&authority]);
    let two = trust(folder.path(), 2, &authority, &[&authority]);
    let chain = reach(&one, &two, 2).await.unwrap();
    assert_eq!(speaker(&chain[0]), Some(Speaker::Node { cluster: CLUSTER, id: 1 }));
    assert_eq!(sponsors(&chain[0], &chain[1..], &two.tls().authorities)[0], authority.sha256());
    // Another node than the one that was asked for.
    assert!(reach(&one, &two, 3).await.unwrap_err().contains("not valid for name"));
}

#[tokio::test]
async fn another_authority_and_an_old_certificate_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::create(CLUSTER, now_ms()).unwrap(), Authority::create(CLUSTER, now_ms()).unwrap());
    let one = trust(folder.path(), 1, &ours, &[&ours]);
    let stranger = trust(folder.path(), 2, &theirs, &[&theirs]);
    assert!(reach(&one, &stranger, 2).await.is_err());
    // It believes us, and we do not believe it.
    let believer = trust(folder.path(), 3, &theirs, &[&theirs, &ours]);
    assert!(reach(&believer, &one, 1).await.is_err());

    let long_ago = now_ms() - 2 * u64::try_from(NODE_LIFE.as_millis()).unwrap();
    let old_authority = Authority::create(CLUSTER, long_ago).unwrap();
    let old = trust_at(folder.path(), 4, &old_authority, &[&old_authority, &ours], long_ago);
    let knows_old = trust(folder.path(), 5, &ours, &[&ours, &old_authority]);
    assert!(reach(&old, &knows_old, 5).await.is_err());
}

#[tokio::test]
async fn who_knows_only_the_authority_before_is_bridged() {
    let folder = tempfile::tempdir().unwrap();
    let before = Authority::create(CLUSTER, now_ms()).unwrap();
    let after = before.create_next(CLUSTER, now_ms()).unwrap();
    let lagging = trust(folder.path(), 1, &before, &[&before]);
    let renewed = trust(folder.path(), 2, &after, &[&before, &after]);

    let chain = reach(&renewed, &lagging, 1).await.unwrap();
    let by = sponsors(&chain[0], &chain[1..], &lagging.tls().authorities);
    // It counts by the one before, and will count by the new one once the lagging node hears of it.
    assert!(by.contains(&before.sha256()) && by.contains(&after.sha256()));
    reach(&lagging, &renewed, 2).await.unwrap();

    // Once the one before is retired, what it signed is worth nothing, and what is new goes on.
    renewed.follow(&view(&[(&after, Phase::Active)], Vec::new())).unwrap();
    assert!(reach(&lagging, &renewed, 2).await.is_err());
    let newer = trust(folder.path(), 3, &after, &[&after]);
    reach(&newer, &renewed, 2).await.unwrap();
    reach(&renewed, &newer, 3).await.unwrap();
}

#[tokio::test]
async fn trust_follows_the_registry_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let before = Authority::create(CLUSTER, now_ms()).unwrap();
    let after = before.create_next(CLUSTER, now_ms()).unwrap();
    let node = trust(folder.path(), 1, &before, &[&before]);
    node.follow(&view(&[(&before, Phase::Active), (&after, Phase::Incoming)], Vec::new())).unwrap();
    assert_eq!(node.tls().authorities.len(), 2);
    assert_eq!(Trust::load(node.store().clone()).unwrap().tls().authorities.len(), 2);
    // A state that knows of no cluster yet takes nothing away.
    node.follow(&Arc::new(View::default())).unwrap();
    assert_eq!(node.tls().authorities.len(), 2);
}

#[tokio::test]
async fn a_new_certificate_is_shown_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let before = Authority::create(CLUSTER, now_ms()).unwrap();
    let after = before.create_next(CLUSTER, now_ms()).unwrap();
    let node = trust(folder.path(), 1, &before, &[&before, &after]);
    let other = trust(folder.path(), 2, &after, &[&after]);
    let mut told = node.certificate();
    assert_eq!(told.borrow_and_update().authority_sha256, before.sha256());
    assert!(reach(&node, &other, 2).await.is_err());
    let (key, request) = authority::request().unwrap();
    let signed = after.sign_node(&request, CLUSTER, 1, now_ms()).unwrap();
    node.show(&key, &signed.pem).unwrap();
    assert!(told.has_changed().unwrap());
    assert_eq!(told.borrow_and_update().authority_sha256, after.sha256());
    reach(&node, &other, 2).await.unwrap();
}

#[tokio::test]
async fn an_operator_is_known_by_its_very_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let before = Authority::create(CLUSTER, now_ms()).unwrap();
    let after = before.create_next(CLUSTER, now_ms()).unwrap();
    let node = trust(folder.path(), 1, &after, &[&before, &after]);
    let name = Name::new("alice").unwrap();
    let (key, request) = authority::request().unwrap();
    let signed = before.sign_operator(&request, &name, OPERATOR_LIFE, now_ms()).unwrap();
    let certificate = CertificateDer::from_pem_slice(signed.pem.as_bytes()).unwrap();
    let alice = || {
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let roots = read_all(before.certificates_pem()).unwrap();
        Arc::new(client_config(&roots, vec![certificate.clone()], key).unwrap())
    };
    // The authority that signed her is retired: without an entry in the registry she is nobody.
    node.follow(&view(&[(&after, Phase::Active)], Vec::new())).unwrap();
    assert!(shake(alice(), &node, crate::pki::ANY_NODE.to_owned()).await.is_err());
    let operator = Operator {
        name: name.clone(),
        role: Role::Viewer,
        certificate_sha256: signed.sha256,
        not_after: Wall(u64::MAX),
        created_at: Wall(0),
        revoked_at: None,
        revision: 1,
    };
    node.follow(&view(&[(&after, Phase::Active)], vec![operator])).unwrap();
    // And her context, which knows only the authority before, believes the node by the bridge.
    let chain = shake(alice(), &node, crate::pki::ANY_NODE.to_owned()).await.unwrap();
    assert_eq!(speaker(&chain[0]), Some(Speaker::Operator { name }));
}

#[tokio::test]
async fn a_newcomer_believes_the_cluster_of_its_token_alone() {
    let folder = tempfile::tempdir().unwrap();
    let before = Authority::create(CLUSTER, now_ms()).unwrap();
    let after = before.create_next(CLUSTER, now_ms()).unwrap();
    let other = Authority::create([6; 16], now_ms()).unwrap();
    let node = trust(folder.path(), 1, &after, &[&before, &after]);
    for authority in [&before, &after] {
        let token = JoinToken::create(authority.sha256()).unwrap();
        let (config, met_stranger) = pinned::client_config(token).unwrap();
        shake(Arc::new(config), &node, crate::pki::ANY_NODE.to_owned()).await.unwrap();
        assert!(!met_stranger.load(std::sync::atomic::Ordering::Relaxed));
    }
    let token = JoinToken::create(other.sha256()).unwrap();
    let (config, met_stranger) = pinned::client_config(token).unwrap();
    assert!(shake(Arc::new(config), &node, crate::pki::ANY_NODE.to_owned()).await.is_err());
    assert!(met_stranger.load(std::sync::atomic::Ordering::Relaxed));
}

#[test]
fn a_chain_that_names_an_authority_which_did_not_sign_it_is_no_use_to_a_newcomer() {
    // Anybody can send the certificate of a cluster's authority along: it is public.
    let authority = Authority::create(CLUSTER, now_ms()).unwrap();
    let forger = Authority::create(CLUSTER, now_ms()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let forged = trust(folder.path(), 1, &forger, &[&forger, &authority]);
    let token = JoinToken::create(authority.sha256()).unwrap();
    let (config, _) = pinned::client_config(token).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(runtime.block_on(shake(Arc::new(config), &forged, crate::pki::ANY_NODE.to_owned())).is_err());
}
