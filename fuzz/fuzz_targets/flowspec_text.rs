//! `ubique_fuzz::TARGETS`, "flowspec_text".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("flowspec_text", input));
