//! `ubique_fuzz::TARGETS`, "pair".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("pair", input));
