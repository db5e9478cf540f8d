//! `ubique_fuzz::TARGETS`, "journal".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("journal", input));
