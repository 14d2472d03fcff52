//! `admin_message` under libFuzzer. What it does is in `src/admin_message.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::admin_message::run(bytes));
