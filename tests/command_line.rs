//! The programs' own texts and habits, where users and scripts rely on them.

use crate::shared::{ctl, dev};
use std::process::Command;
use tests::{cluster::quorate, programs};

#[test]
fn both_programs_say_what_they_are() {
    for program in [programs::quorate(), programs::quoratectl()] {
        let version = Command::new(program).arg("--version").output().unwrap();
        assert!(version.status.success());
        assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
        let help = Command::new(program).arg("--help").output().unwrap();
        assert!(help.status.success() && !help.stdout.is_empty());
        assert_eq!(Command::new(program).arg("frobnicate").output().unwrap().status.code(), Some(2));
    }
    for verb in ["dev", "init", "join", "run", "check"] {
        assert_eq!(quorate(&[verb, "--help"]).code, 0, "{verb}");
    }
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = Command::new(programs::quoratectl()).args(["completions", shell]).output().unwrap();
        assert!(ran.status.success() && ran.stdout.len() > 1000, "{shell}");
    }
}

#[test]
fn tables_yaml_and_json_say_the_same() {
    let json = ctl().json(["members", "list"]);
    let table = ctl().run(["members", "list"]);
    let yaml = ctl().run(["-o", "yaml", "members", "list"]);
    for output in [&table, &yaml] {
        assert_eq!(output.code, 0, "{output}");
        for node in &dev().ready().nodes {
            assert!(output.stdout.contains(&node.cluster), "{output}");
        }
    }
    assert_eq!(json.as_array().map(Vec::len), Some(3));
}

#[test]
fn errors_for_people_are_no_json() {
    let ran = ctl().run(["keys", "create", "--consumer", "nobody"]);
    assert_eq!(ran.code, 1, "{ran}");
    assert!(ran.stderr.contains("nobody") && !ran.stderr.contains('{'), "{ran}");
    assert!(ran.stdout.is_empty(), "{ran}");
}

#[test]
fn without_a_context_it_says_how_to_get_one() {
    let empty = tempfile::tempdir().unwrap();
    let ran = Command::new(programs::quoratectl())
        .args(["cluster", "status"])
        .env_remove("QUORATE_CONTEXT")
        .env("QUORATE_HOME", empty.path())
        .env("HOME", empty.path())
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&ran.stderr).contains("context"));
}

#[test]
fn a_context_in_the_environment_is_used() {
    let ran = Command::new(programs::quoratectl())
        .args(["-o", "json", "cluster", "status"])
        .env("QUORATE_CONTEXT", ctl().context())
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn a_snapshot_is_saved_and_never_over_another_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("backup.quorate");
    let arguments = ["snapshot".as_ref(), "save".as_ref(), file.as_os_str()];
    ctl().json(arguments);
    assert!(std::fs::metadata(&file).unwrap().len() > 100);
    let again = ctl().run_json(arguments);
    assert_ne!(again.code, 0, "{again}");
}
