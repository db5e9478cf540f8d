//! `ubique_fuzz::TARGETS`, "rib".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("rib", input));
