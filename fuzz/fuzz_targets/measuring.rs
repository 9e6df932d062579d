//! See `handfast_fuzz::measuring`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| handfast_fuzz::measuring(data));
