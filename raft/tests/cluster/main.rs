//! Clusters of several nodes in one process, over the real peer protocol on loopback.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that panics has failed"
)]

mod bootstrap;
mod failover;
mod fence;
mod harness;
mod limits;
mod members;
mod restart;
mod writes;
