//! What all gateways get: the upstream, a certificate, the clients' keys, and a folder for their configurations.

use crate::{row::CLIENTS, upstream};
use std::{
    fmt::Write,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};
use tempfile::TempDir;

/// A limit that no row comes near: requests a second for each client.
pub const RATE: u64 = 1_000_000;

/// What all gateways get.
#[derive(Debug)]
pub struct Site {
    /// Where requests go.
    pub upstream: SocketAddr,
    /// The clients' API keys, none of them like another, all of one length.
    pub keys: Vec<String>,
    /// The certificate of `localhost`, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Both in one file, as HAProxy wants them.
    pub certificate_and_key: PathBuf,
    directory: TempDir,
    folders: AtomicU32,
}

impl Site {
    /// With the upstream running.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let both = format!("{certificate}{key}");
        Self {
            upstream: upstream::start(),
            keys: (0..CLIENTS as u64).map(client_key).collect(),
            certificate: write(directory.path(), "certificate.pem", &certificate),
            key: write(directory.path(), "key.pem", &key),
            certificate_and_key: write(directory.path(), "both.pem", &both),
            directory,
            folders: AtomicU32::new(0),
        }
    }

    /// A new folder for what a peer needs.
    pub fn folder(&self, peer: &str) -> PathBuf {
        let folder = self.directory.path().join(format!("{peer}-{}", self.folders.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&folder).expect("a folder");
        folder
    }

    /// A file with a line for each key: what stands before it, the key, what stands behind it with the client's number in place of `#`.
    pub fn key_file(&self, folder: &Path, before: &str, after: &str) -> PathBuf {
        let mut text = String::new();
        for (number, key) in self.keys.iter().enumerate() {
            writeln!(text, "{before}{key}{}", after.replace('#', &number.to_string())).expect("a String");
        }
        write(folder, "keys", &text)
    }
}

/// Writes a file; where it is.
pub fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}

/// Looks random, and is the same in every run (splitmix64).
fn client_key(number: u64) -> String {
    let word = |seed: u64| {
        let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    };
    format!("ak_{:016x}{:016x}", word(2 * number + 1), word(2 * number + 2))
}
