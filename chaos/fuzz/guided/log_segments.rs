//! `log_segments` under libFuzzer. What it does is in `src/log_segments.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::log_segments::run(bytes));
