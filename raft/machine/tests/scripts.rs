//! Golden scripts: `tests/scripts/<noun>/<scenario>.txt`. A script is blocks of commands, each followed by `---` and
//! what they print. `UPDATE_GOLDEN=1 cargo test -p machine --test scripts` writes what they print now.
//!
//! After every command the runner also asks for the invariants, and that the state survives being written as records,
//! as a whole and as differences. The language of the scripts is in `script/language.rs`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a script that cannot be run is a failed test")]

#[path = "script/language.rs"]
mod language;
#[path = "script/show.rs"]
mod show;

use language::World;
use std::{
    fs,
    path::{Path, PathBuf},
};

#[test]
fn scripts_print_what_they_should() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1");
    let scripts = scripts_in(&folder);
    assert!(scripts.len() > 20, "only {} scripts found", scripts.len());
    let mut wrong = Vec::new();
    for script in scripts {
        let golden = fs::read_to_string(&script).unwrap();
        let printed = run(&golden).unwrap_or_else(|problem| panic!("{}: {problem}", script.display()));
        if update {
            fs::write(&script, printed).unwrap();
        } else if printed != golden {
            wrong.push(format!("{}:\n{}", script.display(), first_difference(&golden, &printed)));
        }
    }
    assert!(wrong.is_empty(), "\n{}\nRun again with UPDATE_GOLDEN=1 if this is meant.", wrong.join("\n"));
}

/// Every noun that has commands has a folder of scripts.
#[test]
fn every_noun_has_scripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    for noun in [
        "audit",
        "authority",
        "bucket",
        "cluster",
        "consumer",
        "join_token",
        "key",
        "limit",
        "member",
        "operator",
        "request",
        "resource",
        "settings",
    ] {
        assert!(!scripts_in(&folder.join(noun)).is_empty(), "there is no script in {noun}/");
    }
}

fn scripts_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(scripts_in(&path));
        } else if path.extension().is_some_and(|extension| extension == "txt") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The script with the output that its commands print now.
fn run(golden: &str) -> Result<String, String> {
    let mut world = World::default();
    let mut printed = String::new();
    let mut lines = golden.lines().enumerate();
    let mut has_commands = false;
    while let Some((number, line)) = lines.next() {
        if line == "---" {
            // What was printed before ends at the next empty line.
            for (_, old) in lines.by_ref() {
                if old.is_empty() {
                    break;
                }
            }
            printed.push_str("---\n");
            printed.push_str(&world.take_output());
            printed.push('\n');
            has_commands = false;
        } else {
            printed.push_str(line);
            printed.push('\n');
            if !line.is_empty() && !line.starts_with('#') {
                world.run(line).map_err(|problem| format!("line {}: {line}: {problem}", number + 1))?;
                has_commands = true;
            }
        }
    }
    if has_commands {
        return Err("the last commands have no `---`".to_owned());
    }
    Ok(format!("{}\n", printed.trim_end()))
}

fn first_difference(golden: &str, printed: &str) -> String {
    let (mut golden, mut printed) = (golden.lines(), printed.lines());
    for number in 1.. {
        match (golden.next(), printed.next()) {
            (None, None) => break,
            (expected, found) if expected == found => {}
            (expected, found) => {
                return format!(
                    "  line {number}\n    expected {}\n    found    {}",
                    expected.unwrap_or("the end"),
                    found.unwrap_or("the end")
                );
            }
        }
    }
    "  only the end of the file differs".to_owned()
}
