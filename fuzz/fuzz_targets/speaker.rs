//! `ubique_fuzz::TARGETS`, "speaker".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("speaker", input));
