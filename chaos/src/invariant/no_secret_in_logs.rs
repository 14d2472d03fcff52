//! No secret that the workload ever held stands in anything that the nodes wrote: logs, access logs, metrics, answers of
//! the admin API, data folders.
//!
//! A secret is looked for as its text and as the bytes that the text stands for. Of a key or token only the secret part
//! counts: its id may be known. Of a certificate's key each line of its text counts but the first, which only names the
//! kind of key. Where a secret may be in plain, its line in the history's file of secrets says so.

use super::{Invariant, Verdict};
use crate::history::{History, Secret};
use aho_corasick::AhoCorasick;
use data_encoding::{BASE32_NOPAD, BASE64};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// See above.
#[derive(Clone, Copy, Debug)]
pub struct NoSecretInLogs;

/// Less than this is no secret: it could stand anywhere by chance.
const NEEDLE_BYTES_MIN: usize = 16;
/// Read at a time.
const CHUNK_BYTES: usize = 1024 * 1024;
/// Files that are looked through.
const FILES_MAX: usize = 100_000;

/// Where a secret stands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Leak {
    secret: usize,
    at_byte: u64,
}

impl Invariant for NoSecretInLogs {
    fn name(&self) -> &'static str {
        "no_secret_in_logs"
    }

    fn check(&self, history: &History) -> Verdict {
        let Some(written) = &history.written else {
            return Verdict::Vacuous { why: "nothing that the nodes wrote was kept".to_owned() };
        };
        let needles: Vec<(usize, Vec<u8>)> = history
            .secrets
            .iter()
            .enumerate()
            .flat_map(|(place, secret)| needles(&secret.text).into_iter().map(move |needle| (place, needle)))
            .collect();
        let undecided = |why: String| Verdict::Undecided { why };
        let search = match AhoCorasick::new(needles.iter().map(|(_, needle)| needle)) {
            Ok(search) => search,
            Err(error) => return undecided(format!("the secrets cannot be looked for: {error}")),
        };
        let at_us = history.events.last().map_or(0, |event| event.at_us);
        let mut files = Vec::new();
        if let Err(error) = collect(written, &mut files) {
            return undecided(format!("{}: {error}", written.display()));
        }
        let (mut checked, mut bytes) = (0_u64, 0_u64);
        for path in &files {
            let leaks = File::open(path).and_then(|file| find(file, &search, &needles, &mut bytes));
            let leaks = match leaks {
                Ok(leaks) => leaks,
                Err(error) => return undecided(format!("{}: {error}", path.display())),
            };
            let shown = path.strip_prefix(written).unwrap_or(path);
            let forbidden = leaks.into_iter().find_map(|leak| {
                let secret = history.secrets.get(leak.secret)?;
                (!may_be_in(secret, shown)).then_some((secret, leak.at_byte))
            });
            if let Some((secret, at_byte)) = forbidden {
                let why = format!("{} stands in {} at byte {at_byte}", secret.name, shown.display());
                return Verdict::Violated { at_us, why };
            }
            checked += needles.len() as u64;
        }
        match (checked, bytes) {
            (0, _) => Verdict::Vacuous { why: "there are no secrets, or no files to look for them".to_owned() },
            (_, 0) => Verdict::Vacuous { why: "every file that the nodes wrote is empty".to_owned() },
            (checked, _) => Verdict::Held { checked },
        }
    }
}

fn may_be_in(secret: &Secret, path: &Path) -> bool {
    let shown = format!("/{}", path.display());
    secret.may_be_in.iter().any(|part| shown.contains(part.as_str()))
}

/// What betrays a secret.
fn needles(text: &str) -> Vec<Vec<u8>> {
    let mut needles: Vec<Vec<u8>> = Vec::new();
    if text.contains("-----BEGIN") {
        let body: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect();
        needles.extend(body.iter().skip(1).map(|line| line.as_bytes().to_vec()));
        // Behind the head of a key of any kind come bytes that are random.
        let bytes = BASE64.decode(body.concat().as_bytes()).unwrap_or_default();
        needles.extend(bytes.get(40..64).map(<[u8]>::to_vec));
    } else {
        let secret = text.rsplit('_').next().unwrap_or(text);
        needles.push(secret.as_bytes().to_vec());
        let bytes = BASE32_NOPAD.decode(secret.to_ascii_uppercase().as_bytes()).ok();
        needles.extend(bytes.and_then(|bytes| bytes.get(..32).map(<[u8]>::to_vec)));
    }
    needles.retain(|needle| needle.len() >= NEEDLE_BYTES_MIN);
    needles
}

/// Every file below a folder. Links are not followed.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
        if files.len() > FILES_MAX {
            return Err(io::Error::other("there are too many files"));
        }
    }
    Ok(())
}

/// Every needle in a file, each secret once.
fn find(
    mut from: impl Read,
    search: &AhoCorasick,
    needles: &[(usize, Vec<u8>)],
    bytes: &mut u64,
) -> io::Result<Vec<Leak>> {
    let overlap = needles.iter().map(|(_, needle)| needle.len()).max().unwrap_or(1) - 1;
    let mut leaks: Vec<Leak> = Vec::new();
    let mut buffer: Vec<u8> = Vec::new();
    let mut offset = 0_u64;
    loop {
        let kept = buffer.len();
        let read = from.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut buffer)?;
        if read == 0 {
            return Ok(leaks);
        }
        *bytes += read as u64;
        for found in search.find_overlapping_iter(&buffer) {
            let secret = needles.get(found.pattern().as_usize()).map_or(usize::MAX, |(secret, _)| *secret);
            if leaks.iter().all(|leak| leak.secret != secret) {
                leaks.push(Leak { secret, at_byte: offset + found.start() as u64 });
            }
        }
        // A needle may lie over the border of two reads.
        let keep_from = (kept + read).saturating_sub(overlap);
        buffer.drain(..keep_from);
        offset += keep_from as u64;
    }
}

#[cfg(test)]
mod tests;
