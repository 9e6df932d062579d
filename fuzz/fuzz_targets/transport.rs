//! See `handfast_fuzz::transport`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| handfast_fuzz::transport(data));
