//! The session of a node with the leader.
pub(crate) mod server;
