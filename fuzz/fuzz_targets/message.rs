//! See `handfast_fuzz::message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| handfast_fuzz::message(data));
