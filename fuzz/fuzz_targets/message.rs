//! `ubique_fuzz::TARGETS`, "message".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("message", input));
