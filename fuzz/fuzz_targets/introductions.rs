//! See `handfast_fuzz::introductions`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| handfast_fuzz::introductions(data));
