//! The data plane over real connections: a gateway in this process, upstreams that misbehave on request, and views built
//! by the real core from real commands. Every test has its own gateway, upstream and ports.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod attacks;
mod bad_clients;
mod bank;
mod bodies;
mod connections;
mod explained;
mod floods;
mod forwarding;
mod harness;
mod isolated;
mod keys;
mod limits;
mod paths;
mod problems;
mod revoked;
mod tls;
mod tls_sessions;
mod upstreams;
