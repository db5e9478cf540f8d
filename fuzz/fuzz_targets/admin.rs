//! `ubique_fuzz::TARGETS`, "admin".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("admin", input));
