//! BMP and MRT against decoders made by others (tshark, bgpdump) and against what vendors' routers sent.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bmp;
mod mrt;
mod pcap;

use std::path::PathBuf;
use std::process::Command;

/// A scratch file, removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, octets: &[u8]) -> Scratch {
        let path = std::env::temp_dir().join(format!("ubique-{}-{name}", std::process::id()));
        std::fs::write(&path, octets).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What a program prints; `None`, with a line that says so, when it is not installed.
fn printed(program: &str, arguments: &[&str]) -> Option<String> {
    let output = match Command::new(program).args(arguments).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: {program} cannot be started: {error}");
            return None;
        }
    };
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}
