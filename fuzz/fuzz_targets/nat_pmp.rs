//! See `handfast_fuzz::nat_pmp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| handfast_fuzz::nat_pmp(data));
