//! See `handfast_fuzz::nat`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| handfast_fuzz::nat(data));
