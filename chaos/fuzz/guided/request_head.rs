//! `request_head` under libFuzzer. What it does is in `src/request_head.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::request_head::run(bytes));
