//! `ubique_fuzz::TARGETS`, "replay".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("replay", input));
