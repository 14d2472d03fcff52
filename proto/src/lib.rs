//! The wire formats: the admin API, which is public and only ever grows, and the peer protocol between nodes.

/// The admin API, version 1.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; the proto files carry the comments")]
pub mod admin {
    tonic::include_proto!("quorate.admin.v1");
}

/// The peer protocol, version 1.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; the proto files carry the comments")]
pub mod peer {
    tonic::include_proto!("quorate.peer.v1");
}
