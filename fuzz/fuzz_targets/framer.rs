//! `ubique_fuzz::TARGETS`, "framer".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("framer", input));
