//! `ubique_fuzz::TARGETS`, "drain".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("drain", input));
