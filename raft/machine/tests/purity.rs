//! The crate stays pure: nothing in its sources reads a clock, does I/O, draws random numbers, uses floating point or
//! iterates in an order that differs between runs. What a lint cannot see is looked for in the text.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Words that have no place in code that must do the same on every node, with the reason.
const BANNED: [(&str, &str); 21] = [
    ("HashMap", "its order differs between processes: use imbl::OrdMap or BTreeMap"),
    ("HashSet", "its order differs between processes: use imbl::OrdSet or BTreeSet"),
    ("RandomState", "its order differs between processes"),
    ("SystemTime", "time arrives inside the command"),
    ("Instant", "time arrives inside the command"),
    ("f32", "rounding may differ between machines: use integers"),
    ("f64", "rounding may differ between machines: use integers"),
    ("rand", "what is random is made by the node that takes the request"),
    ("getrandom", "what is random is made by the node that takes the request"),
    ("tokio", "apply never waits"),
    ("async", "apply never waits"),
    ("thread", "apply is one thread's business"),
    ("Mutex", "the state is a plain value"),
    ("RwLock", "the state is a plain value"),
    ("RefCell", "the state is a plain value"),
    ("atomic", "the state is a plain value"),
    ("env", "nodes differ in their environment"),
    ("fs", "no I/O here"),
    ("net", "no I/O here"),
    ("tracing", "apply is silent"),
    ("println", "apply is silent"),
];

#[test]
fn sources_use_nothing_that_differs_between_nodes() {
    let mut found = Vec::new();
    for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for (word, reason) in BANNED.iter().filter(|(word, _)| has_word(code, word)) {
                found.push(format!("{}:{}: {word}: {reason}", file.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_source_says_what_it_is_for() {
    for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//!"), "{} does not open with //!", file.display());
    }
}

/// The dependencies of the crate are few, and none of them touches the world.
#[test]
fn dependencies_are_pure() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let names: Vec<_> = dependencies.lines().filter_map(|line| line.split(['.', ' ', '=']).next()).collect();
    let names: Vec<_> = names.into_iter().filter(|name| !name.is_empty()).collect();
    assert_eq!(names, ["imbl", "serde", "thiserror"]);
}

fn has_word(code: &str, word: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    code.match_indices(word).any(|(start, _)| {
        let (before, after) = (&code[..start], &code[start + word.len()..]);
        !before.ends_with(is_part) && !after.starts_with(is_part)
    })
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
