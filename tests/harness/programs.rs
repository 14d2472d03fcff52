//! The programs under test, built once by cargo in the profile of the tests, and asked for by name.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The gateway.
pub fn quorate() -> &'static Path {
    &programs().0
}

/// The admin command line.
pub fn quoratectl() -> &'static Path {
    &programs().1
}

/// A program of the machine, such as a load balancer. Where it is missing the caller says that it skips, unless
/// `QUORATE_TESTS_REQUIRE_ALL` is set, as on CI: then that is a failure.
pub fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file());
    if found.is_none() {
        skip(&format!("{name} is not installed"));
    }
    found
}

/// Says that a test is skipped; a failure where everything is required.
pub fn skip(reason: &str) {
    assert!(std::env::var_os("QUORATE_TESTS_REQUIRE_ALL").is_none(), "required and not possible: {reason}");
    eprintln!("SKIPPED: {reason}");
}

fn programs() -> &'static (PathBuf, PathBuf) {
    static PROGRAMS: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let directory = match std::env::var_os("QUORATE_BIN_DIR") {
            Some(directory) => PathBuf::from(directory),
            None => build(),
        };
        let both = (directory.join("quorate"), directory.join("quoratectl"));
        assert!(both.0.is_file() && both.1.is_file(), "no quorate and quoratectl in {}", directory.display());
        both
    })
}

/// Builds both programs where the test program lies: `target/<profile>/deps/cluster-…`.
///
/// As the tests of the whole workspace build them: any other selection of packages unites the features of the
/// dependencies differently, and would build all of those a second time. After `cargo test --workspace` nothing is left
/// to do here.
fn build() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this program");
    let directory = test.ancestors().nth(2).expect("target/<profile>/deps/<program>").to_path_buf();
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["test", "--workspace", "--no-run", "--quiet", "--profile", profile])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .env("CARGO_TARGET_DIR", directory.parent().expect("target"))
        .status()
        .expect("cargo runs");
    assert!(status.success(), "cargo could not build the programs under test");
    directory
}
