//! See `handfast_fuzz::advert`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| handfast_fuzz::advert(data));
