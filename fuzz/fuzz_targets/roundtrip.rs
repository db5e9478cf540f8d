//! `ubique_fuzz::TARGETS`, "roundtrip".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("roundtrip", input));
