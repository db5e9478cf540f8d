//! `ubique_fuzz::TARGETS`, "site".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("site", input));
