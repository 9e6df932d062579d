//! See `handfast_fuzz::peers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| handfast_fuzz::peers(data));
