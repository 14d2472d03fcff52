//! `checkpoint` under libFuzzer. What it does is in `src/checkpoint.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::checkpoint::run(bytes));
