//! `ubique_fuzz::TARGETS`, "actions".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("actions", input));
