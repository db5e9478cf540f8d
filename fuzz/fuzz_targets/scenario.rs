//! `ubique_fuzz::TARGETS`, "scenario".

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ubique_fuzz::run("scenario", input));
