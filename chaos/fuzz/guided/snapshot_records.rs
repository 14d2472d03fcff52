//! `snapshot_records` under libFuzzer. What it does is in `src/snapshot_records.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::snapshot_records::run(bytes));
