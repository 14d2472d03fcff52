//! Fuzz targets: plain functions over bytes, one file each. A target takes whatever bytes it is given, does what the
//! product would do with them, and panics where a promise does not hold: nothing that a disk, a peer, an operator or a
//! stranger hands in may panic, hang, or be read as something else than was written.
//!
//! They run in two ways. On the stable toolchain `tests/replay.rs` takes each over its committed seeds and over seeded
//! mutations of them for a few seconds, in every build. With `cargo +nightly fuzz` (`guided/`) libFuzzer looks for hours,
//! guided by coverage; docs/testing.md says how. What it finds is fixed, and its input is kept among the seeds.

#![allow(clippy::expect_used, clippy::panic, reason = "a target fails by panicking")]

pub mod admin_message;
pub mod base;
pub mod checkpoint;
pub mod http_messages;
pub mod log_record;
pub mod log_segments;
pub mod mutate;
pub mod peer_message;
pub mod pieces;
pub mod request_head;
pub mod request_path;
pub mod resource_file;
pub mod snapshot_file;
pub mod snapshot_records;

/// A fuzz target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Of its file, its seeds and its program.
    pub name: &'static str,
    /// Takes any bytes; panics if something is broken.
    pub run: fn(&[u8]),
    /// Words that mutations put in: bytes alone would never make them.
    pub words: &'static [&'static str],
}

/// All targets.
pub const ALL: [Target; 11] = [
    Target { name: "log_record", run: log_record::run, words: &["root", "acme", "orders"] },
    Target { name: "snapshot_records", run: snapshot_records::run, words: &["root", "acme", "orders"] },
    Target { name: "snapshot_file", run: snapshot_file::run, words: &[] },
    Target { name: "log_segments", run: log_segments::run, words: &[] },
    Target { name: "checkpoint", run: checkpoint::run, words: &[] },
    Target { name: "peer_message", run: peer_message::run, words: &["acme", "burst"] },
    Target {
        name: "admin_message",
        run: admin_message::run,
        words: &["acme", "orders", "burst", "route", "consumer", "GET", "http://"],
    },
    Target { name: "resource_file", run: resource_file::run, words: resource_file::WORDS },
    Target { name: "http_messages", run: http_messages::run, words: http_messages::WORDS },
    Target { name: "request_path", run: request_path::run, words: request_path::WORDS },
    Target { name: "request_head", run: request_head::run, words: request_head::WORDS },
];
