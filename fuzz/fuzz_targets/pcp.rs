//! See `handfast_fuzz::pcp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| handfast_fuzz::pcp(data));
