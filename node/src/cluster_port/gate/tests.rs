//! Who gets through the gate.

use super::*;
use crate::cluster_port::PeerCertificate;
use machine::{
    Name, Registry,
    authority::{Authority, Phase},
    member::{Member, Standing},
    operator::{Operator, Role},
};
use std::sync::Arc;

const CLUSTER: [u8; 16] = [7; 16];
const AUTHORITY: [u8; 32] = [1; 32];
const APPEND: &str = "/quorate.peer.v1.Raft/Append";
const LIST_KEYS: &str = "/quorate.admin.v1.Keys/List";
const CREATE_KEY: &str = "/quorate.admin.v1.Keys/Create";
const REMOVE: &str = "/quorate.admin.v1.Members/Remove";

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Members 1 (eligible) and 2 (leaving); 3 was forgotten; the next one is 4. One operator of each role.
fn view() -> View {
    let mut registry = Registry { cluster: CLUSTER, next_member: 4, ..Registry::default() };
    for (id, standing) in [(1, Standing::Eligible), (2, Standing::Leaving)] {
        let member = Member {
            id,
            name: name(&format!("n{id}")),
            address: String::new(),
            gateway_address: String::new(),
            gateway_tls_address: String::new(),
            ops_address: String::new(),
            zone: None,
            version: String::new(),
            feature_level_max: 1,
            standing,
            joined_at: Wall(0),
            revision: 1,
        };
        registry.members.insert(id, Arc::new(member));
    }
    let authority = Authority {
        sha256: AUTHORITY,
        certificate_pem: String::new(),
        phase: Phase::Active,
        added_at: Wall(0),
        revision: 1,
    };
    registry.authorities.insert(AUTHORITY, Arc::new(authority));
    for (who, role, fingerprint) in
        [("viewer", Role::Viewer, 10), ("operator", Role::Operator, 11), ("admin", Role::Admin, 12)]
    {
        let operator = Operator {
            name: name(who),
            role,
            certificate_sha256: [fingerprint; 32],
            not_after: Wall(1000),
            created_at: Wall(0),
            revoked_at: None,
            revision: 1,
        };
        registry.operators.insert(name(who), Arc::new(operator));
    }
    View { index: 5, at: machine::At::default(), registry }
}

fn peer(speaker: Option<Speaker>, sha256: [u8; 32], sponsor: Option<[u8; 32]>) -> Peer {
    let certificate =
        Some(PeerCertificate { speaker, sha256, sponsors: sponsor.into_iter().collect(), chain: Vec::new() });
    Peer { address: "127.0.0.1:1".parse().unwrap(), certificate }
}

fn node(id: NodeId) -> Peer {
    peer(Some(Speaker::Node { cluster: CLUSTER, id }), [id as u8; 32], Some(AUTHORITY))
}

fn operator(who: &str, fingerprint: u8) -> Peer {
    // Who signed an operator does not matter: the registry names the very certificate.
    peer(Some(Speaker::Operator { name: name(who) }), [fingerprint; 32], None)
}

fn code(path: &str, peer: Option<&Peer>, view: &View) -> Code {
    decide(path, peer, CLUSTER, view, Wall(10)).map_or_else(|problem| Status::from(problem).code(), |_| Code::Ok)
}

#[test]
fn who_may_call_what() {
    let view = view();
    let nobody = Peer { address: "127.0.0.1:1".parse().unwrap(), certificate: None };
    let cases = [
        (JOIN, &nobody, Code::Ok),
        (APPEND, &nobody, Code::Unauthenticated),
        (LIST_KEYS, &nobody, Code::Unauthenticated),
        ("/grpc.reflection.v1.ServerReflection/Info", &nobody, Code::Unauthenticated),
        (APPEND, &node(1), Code::Ok),
        (APPEND, &node(2), Code::Ok),
        (APPEND, &node(3), Code::NotFound),
        (APPEND, &node(4), Code::Ok),
        (LIST_KEYS, &node(1), Code::PermissionDenied),
        (LIST_KEYS, &operator("viewer", 10), Code::Ok),
        (CREATE_KEY, &operator("viewer", 10), Code::PermissionDenied),
        (CREATE_KEY, &operator("operator", 11), Code::Ok),
        (REMOVE, &operator("operator", 11), Code::PermissionDenied),
        (REMOVE, &operator("admin", 12), Code::Ok),
        (APPEND, &operator("admin", 12), Code::PermissionDenied),
        ("/quorate.peer.v1.Enrol/AuthorityKey", &operator("admin", 12), Code::PermissionDenied),
        ("/quorate.admin.v1.Keys/Unheard", &operator("admin", 12), Code::PermissionDenied),
        (LIST_KEYS, &operator("viewer", 12), Code::Unauthenticated),
        (LIST_KEYS, &operator("stranger", 10), Code::Unauthenticated),
        (LIST_KEYS, &peer(None, [12; 32], Some(AUTHORITY)), Code::Unauthenticated),
    ];
    for (path, peer, expected) in cases {
        assert_eq!(code(path, Some(peer), &view), expected, "{path} by {peer:?}");
    }
    assert_eq!(code(APPEND, None, &view), Code::Unauthenticated);
}

#[test]
fn a_node_of_another_cluster_or_authority_is_refused() {
    let view = view();
    let of_another = peer(Some(Speaker::Node { cluster: [8; 16], id: 1 }), [1; 32], Some(AUTHORITY));
    assert_eq!(code(APPEND, Some(&of_another), &view), Code::Unauthenticated);
    for authority in [None, Some([2; 32])] {
        let untrusted = peer(Some(Speaker::Node { cluster: CLUSTER, id: 1 }), [1; 32], authority);
        assert_eq!(code(APPEND, Some(&untrusted), &view), Code::Unauthenticated);
    }
}

#[test]
fn an_operator_loses_access_by_revocation_and_by_time() {
    let mut view = view();
    let late = decide(LIST_KEYS, Some(&operator("viewer", 10)), CLUSTER, &view, Wall(1000));
    assert_eq!(Status::from(late.unwrap_err()).message(), "the certificate of operator viewer has expired");

    let mut revoked = (**view.registry.operators.get(&name("viewer")).unwrap()).clone();
    revoked.revoked_at = Some(Wall(5));
    view.registry.operators.insert(name("viewer"), Arc::new(revoked));
    assert_eq!(code(LIST_KEYS, Some(&operator("viewer", 10)), &view), Code::Unauthenticated);
}

#[test]
fn before_the_first_entry_nodes_of_the_cluster_may_speak() {
    let empty = View::default();
    assert_eq!(code(APPEND, Some(&node(9)), &empty), Code::Ok);
    assert_eq!(code(LIST_KEYS, Some(&operator("admin", 12)), &empty), Code::Unauthenticated);
}
