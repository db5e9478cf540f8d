//! `ubique_fuzz::TARGETS`, "bmp".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("bmp", input));
