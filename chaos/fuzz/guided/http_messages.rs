//! `http_messages` under libFuzzer. What it does is in `src/http_messages.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::http_messages::run(bytes));
