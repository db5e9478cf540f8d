//! `ubique_fuzz::TARGETS`, "notification".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("notification", input));
