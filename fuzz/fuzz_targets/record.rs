//! See `handfast_fuzz::record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| handfast_fuzz::record(data));
