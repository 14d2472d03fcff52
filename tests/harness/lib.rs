//! What the black-box tests stand on: clusters of real processes, the admin command line, an HTTP client, an upstream, and waiting
//! for conditions. It knows the outside of the product alone: programs, files, ports. Here a failure is a panic with a text that
//! says what was expected of the product.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "the harness is test code: it fails by panicking"
)]

pub mod admin;
pub mod balancer;
pub mod client;
pub mod cluster;
pub mod ctl;
pub mod dev;
pub mod free_port;
pub mod json;
pub mod load;
pub mod permit;
pub mod process;
pub mod programs;
pub mod runtime;
pub mod upstream;
pub mod wait;
pub mod witness;

pub use client::{Answer, Client, Connection};
pub use cluster::Cluster;
pub use ctl::{Ctl, Ran};
pub use dev::{Dev, DevOptions};
pub use upstream::Upstream;
pub use wait::{eventually, eventually_within};
