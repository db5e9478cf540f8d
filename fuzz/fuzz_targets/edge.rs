//! `ubique_fuzz::TARGETS`, "edge".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("edge", input));
