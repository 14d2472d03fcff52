//! `log_record` under libFuzzer. What it does is in `src/log_record.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::log_record::run(bytes));
