//! `ubique_fuzz::TARGETS`, "mrt".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("mrt", input));
