//! `ubique_fuzz::TARGETS`, "kernel".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("kernel", input));
