//! See `handfast_fuzz::lan`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| handfast_fuzz::lan(data));
