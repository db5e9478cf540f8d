//! `ubique_fuzz::TARGETS`, "certificate".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("certificate", input));
