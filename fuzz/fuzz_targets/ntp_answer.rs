//! `ubique_fuzz::TARGETS`, "ntp_answer".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("ntp_answer", input));
