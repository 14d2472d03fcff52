//! `request_path` under libFuzzer. What it does is in `src/request_path.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::request_path::run(bytes));
