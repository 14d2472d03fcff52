//! Rules of the house that a lint cannot see: which crate may know which, what a file looks like, what the pure core must not touch.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Over this, look for the missing noun.
const LINES_MAX: usize = 700;

/// What a crate must not depend on, by the manifest: each foreign world is known by one crate.
const NEVER: [(&str, &[&str]); 6] = [
    (
        "raft/machine",
        &[
            "tokio", "openraft", "sled", "tracing", "rand", "jiff", "bytes", "tonic", "hyper", "storage", "raft",
            "proto",
        ],
    ),
    ("storage", &["openraft", "machine", "raft", "proto", "tokio", "tonic", "hyper", "clap"]),
    ("proto", &["machine", "raft", "storage", "quorate", "hyper", "clap", "openraft", "sled"]),
    ("raft", &["hyper", "clap", "sled", "quorate", "rustls", "cedar-policy"]),
    ("node", &["sled", "openraft", "quoratectl"]),
    ("admin-cli", &["quorate", "raft", "storage", "machine", "openraft", "sled"]),
];

/// Words that the sources of a folder must not hold, with the files that may all the same.
const BANNED: [(&str, &[&str], &str, &[&str]); 4] = [
    (
        "raft/machine/src",
        &["HashMap", "HashSet", "f32", "f64", "std::time", "std::thread", "std::fs", "std::net", "std::env"],
        "the core is deterministic and touches nothing outside",
        &[],
    ),
    (
        "raft/src",
        &["openraft::"],
        "openraft's types live behind adapt, types and the codec's forms of them",
        &["adapt", "adapt.rs", "types.rs", "form.rs"],
    ),
    ("node/src", &["openraft::", "sled::"], "node knows neither by name", &[]),
    ("node/src", &["clock_gettime", "SystemTime::now"], "clocks are read in clock.rs alone", &["clock.rs"]),
];

#[test]
fn every_source_file_opens_with_what_lives_in_it() {
    let without: Vec<PathBuf> =
        sources().into_iter().filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path).collect();
    assert!(without.is_empty(), "these files do not open with `//!`: {without:#?}");
}

#[test]
fn no_source_file_is_too_long() {
    let long: Vec<(PathBuf, usize)> = sources()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .collect();
    assert!(long.is_empty(), "longer than {LINES_MAX} lines: {long:#?}");
}

#[test]
fn modules_are_name_rs_beside_a_folder_of_that_name() {
    let named: Vec<PathBuf> = sources().into_keys().filter(|path| path.ends_with("mod.rs")).collect();
    assert!(named.is_empty(), "mod.rs where name.rs should be: {named:#?}");
}

#[test]
fn nothing_is_left_to_be_done() {
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["X", "XX"].concat()];
    let mut left = Vec::new();
    for (path, text) in sources() {
        for (line, content) in text.lines().enumerate() {
            if marks.iter().any(|mark| content.contains(mark.as_str())) {
                left.push(format!("{}:{}: {}", path.display(), line + 1, content.trim()));
            }
        }
    }
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn each_foreign_world_is_known_by_one_crate() {
    for (folder, never) in NEVER {
        let file = root().join(folder).join("Cargo.toml");
        let manifest: toml::Table = fs::read_to_string(&file).expect("a manifest").parse().expect("TOML");
        let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table).cloned().unwrap_or_default();
        for name in never {
            assert!(!dependencies.contains_key(*name), "{folder} must not depend on {name}");
        }
    }
}

#[test]
fn what_is_banned_stays_out() {
    let mut found = Vec::new();
    for (folder, words, reason, but) in BANNED {
        let folder = root().join(folder);
        for (path, text) in sources() {
            let Ok(inside) = root().join(&path).strip_prefix(&folder).map(Path::to_path_buf) else { continue };
            let excepted = inside.components().any(|part| but.contains(&part.as_os_str().to_str().unwrap_or_default()));
            if excepted || inside.ends_with("tests.rs") {
                continue;
            }
            // What a module's tests do at its end is their business.
            let product = text.split("#[cfg(test)]").next().unwrap_or_default();
            for (line, content) in product.lines().enumerate() {
                let code = content.split("//").next().unwrap_or_default();
                if words.iter().any(|word| holds_word(code, word)) {
                    found.push(format!("{}:{}: {reason}: {}", path.display(), line + 1, content.trim()));
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Whether a line of code holds a word that is not part of a longer one.
fn holds_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let is_part = |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
        !is_part(before) && (word.ends_with(':') || !is_part(after))
    })
}

/// Every source file below the crates, by its path from the root.
fn sources() -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for folder in ["node", "raft", "storage", "proto", "admin-cli", "tests", "chaos"] {
        collect(&root().join(folder), &mut found);
    }
    assert!(found.len() > 40, "the crates are where this test looks for them");
    found
}

fn collect(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.map(|entry| entry.expect("readable").path()) {
        if entry.is_dir() && !entry.ends_with("target") {
            collect(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let name = entry.strip_prefix(root()).expect("below the root").to_path_buf();
            found.insert(name, fs::read_to_string(&entry).expect("UTF-8"));
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}
