//! `ubique_fuzz::TARGETS`, "bfd".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("bfd", input));
