//! `peer_message` under libFuzzer. What it does is in `src/peer_message.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::peer_message::run(bytes));
