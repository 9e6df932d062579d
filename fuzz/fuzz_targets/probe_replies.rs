//! See `handfast_fuzz::probe_replies`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| handfast_fuzz::probe_replies(data));
