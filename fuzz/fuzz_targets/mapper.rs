//! See `handfast_fuzz::mapper`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| handfast_fuzz::mapper(data));
