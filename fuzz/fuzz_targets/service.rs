//! `ubique_fuzz::TARGETS`, "service".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("service", input));
