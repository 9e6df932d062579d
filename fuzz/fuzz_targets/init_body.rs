//! See `handfast_fuzz::init_body`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| handfast_fuzz::init_body(data));
