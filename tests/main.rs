//! The product as its users see it: real programs, real ports, no private module.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod admin_flow;
mod bad_input;
mod command_line;
mod documented;
mod draining;
mod failover;
mod full_disk;
mod https;
mod limit_usage;
mod limits;
mod load_balancer;
mod membership;
mod ops;
mod outside_authority;
mod request_flow;
mod resources;
mod restart;
mod revocation;
mod shared;
mod snapshot;
mod wrong_date;
