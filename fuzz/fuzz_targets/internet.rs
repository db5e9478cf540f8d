//! `ubique_fuzz::TARGETS`, "internet".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("internet", input));
