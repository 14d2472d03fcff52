//! `resource_file` under libFuzzer. What it does is in `src/resource_file.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::resource_file::run(bytes));
