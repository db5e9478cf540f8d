//! `ubique_fuzz::TARGETS`, "dns_answer".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("dns_answer", input));
