//! `ubique_fuzz::TARGETS`, "health".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("health", input));
