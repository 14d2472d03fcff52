//! `snapshot_file` under libFuzzer. What it does is in `src/snapshot_file.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::snapshot_file::run(bytes));
