//! See `handfast_fuzz::application`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| handfast_fuzz::application(data));
