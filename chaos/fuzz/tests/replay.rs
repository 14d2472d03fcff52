//! Every target over its seeds, and over seeded mutations of them for a few seconds: without coverage, on any toolchain.
//! `QUORATE_FUZZ_SECONDS` asks for more time, `QUORATE_FUZZ_SEED` for other mutations, `QUORATE_FUZZ_INPUT` for the one
//! input in a file. What fails is written beside the crate, in `artifacts/`, and named.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it did"
)]

use fuzz::{ALL, Target, mutate::Mutations};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    time::{Duration, Instant},
};

/// No input may take this long, on whatever machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn number(variable: &str, without: u64) -> u64 {
    std::env::var(variable).map_or(without, |text| text.parse().expect("a number"))
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The seeds of a target, and those that are only read: `slow-` ones take so long that nothing else would be tried.
fn seeds(target: &Target) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let folder = folder("seeds").join(target.name);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    // In the same order everywhere, or the same number would make other mutations.
    files.sort();
    let (slow, quick): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|file| file.file_name().unwrap().to_str().unwrap().starts_with("slow-"));
    let read = |files: Vec<PathBuf>| files.into_iter().map(|file| fs::read(file).unwrap()).collect();
    (read(quick), read(slow))
}

/// Runs a target on a thread of its own, which says what it is about to try: one that hangs is seen as well.
fn take(target: Target) {
    let (trying, tried) = channel();
    // As much stack as a thread of the product has: inputs that nest deeply must not overflow it.
    let worker = std::thread::Builder::new().stack_size(2 << 20).spawn(move || work(target, &trying)).unwrap();
    let mut last = Vec::new();
    let failed = loop {
        match tried.recv_timeout(PATIENCE) {
            Ok(input) => last = input,
            Err(RecvTimeoutError::Timeout) => break "did not end",
            Err(RecvTimeoutError::Disconnected) if worker.join().is_ok() => return,
            Err(RecvTimeoutError::Disconnected) => break "panicked",
        }
    };
    let file = folder("artifacts").join(format!("{}-{:08x}", target.name, crc32(&last)));
    fs::create_dir_all(folder("artifacts")).unwrap();
    fs::write(&file, &last).unwrap();
    panic!("{} {failed} on {} bytes: {}", target.name, last.len(), file.display());
}

fn work(target: Target, trying: &Sender<Vec<u8>>) {
    let attempt = |input: &[u8]| {
        trying.send(input.to_vec()).unwrap();
        (target.run)(input);
    };
    if let Ok(file) = std::env::var("QUORATE_FUZZ_INPUT") {
        return attempt(&fs::read(file).unwrap());
    }
    attempt(&[]);
    let (seeds, slow) = seeds(&target);
    assert!(!seeds.is_empty(), "{} has no seeds", target.name);
    seeds.iter().chain(&slow).for_each(|seed| attempt(seed));
    let (seed, until) =
        (number("QUORATE_FUZZ_SEED", 1), Instant::now() + Duration::from_secs(number("QUORATE_FUZZ_SECONDS", 3)));
    let mut mutations = Mutations::of(seed);
    let mut runs = 0_u64;
    while Instant::now() < until {
        attempt(&mutations.mutate(&seeds, target.words));
        runs += 1;
    }
    println!("{}: {} seeds, {runs} mutations by {seed}", target.name, seeds.len() + slow.len());
}

/// Names a file after what is in it.
fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |sum: u32, byte| sum.rotate_left(5) ^ u32::from(*byte).wrapping_mul(0x9e37_79b1))
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                take(*ALL.iter().find(|target| target.name == stringify!($name)).unwrap());
            }
        )*

        #[test]
        fn every_target_runs_both_ways() {
            let names: Vec<&str> = ALL.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
            let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
            for name in names {
                assert!(manifest.contains(&format!("path = \"guided/{name}.rs\"")), "{name} has no guided program");
            }
        }
    };
}

targets! {
    log_record
    snapshot_records
    snapshot_file
    log_segments
    checkpoint
    peer_message
    admin_message
    resource_file
    http_messages
    request_path
    request_head
}
