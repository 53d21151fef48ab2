#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sordini_fuzz::patterns(data));
