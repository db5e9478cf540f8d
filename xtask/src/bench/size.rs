//! Size of the static binary: what an operator copies to a site.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Row;
use crate::command::root;
use crate::setup;

/// The most it may take, MiB.
const GOAL_MIB: f64 = 15.0;

/// Program header type of the interpreter: the dynamic loader's path. A static binary has none.
const PT_INTERP: u32 = 3;

/// Builds `ubique` statically for this machine, proves that it is static and runs, and measures it.
pub fn run() -> Result<Vec<Row>, String> {
    let octets = std::fs::metadata(build()?).map_err(|e| e.to_string())?.len();
    Ok(vec![Row::new("size: stripped static binary", octets as f64 / f64::from(1 << 20), "MiB", Some(GOAL_MIB))])
}

/// Builds `ubique` statically for this machine, with no path of it inside, and proves that it is static and runs.
pub fn build() -> Result<PathBuf, String> {
    let target = host()?;
    let directory = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into);
    let mut arguments = vec!["build", "--release", "--locked", "--package", "ubique", "--target", &target];
    if setup::data_plane().is_empty() {
        eprintln!("there is no clang or no libelf: the program is built without the data plane of [sessions]");
    } else {
        arguments.extend(["--features", "sessions"]);
    }
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let places = [(Some(root()), "/ubique"), (home, "/cargo")];
    flags.extend(
        places.into_iter().filter_map(|(from, to)| Some(format!("--remap-path-prefix={}={to}", from?.display()))),
    );
    eprintln!("» CARGO_ENCODED_RUSTFLAGS='{}' cargo {}", flags.join(" "), arguments.join(" "));
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(&arguments)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .current_dir(root())
        .status()
        .map_err(|e| format!("cargo: {e}"))?;
    if !status.success() {
        return Err(format!("the static build: {status}"));
    }
    let binary = directory.join(&target).join("release/ubique");
    let octets = std::fs::read(&binary).map_err(|e| format!("{}: {e}", binary.display()))?;
    if is_dynamic(&octets).ok_or("the binary is no 64-bit ELF file")? {
        return Err("the binary needs a dynamic loader".into());
    }
    works(&binary)?;
    Ok(binary)
}

/// The target triple of this machine.
pub fn host() -> Result<String, String> {
    let output = Command::new("rustc").arg("-vV").output().map_err(|e| format!("rustc: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc does not name its host".into())
}

/// Whether a little-endian 64-bit ELF file names an interpreter; `None`: it is none.
pub fn is_dynamic(elf: &[u8]) -> Option<bool> {
    let number = |at: usize, octets: usize| -> Option<usize> {
        let field = elf.get(at..at + octets)?;
        Some(field.iter().rev().fold(0, |all, &octet| all << 8 | usize::from(octet)))
    };
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (headers, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let kinds: Option<Vec<usize>> = (0..count).map(|i| number(headers + i * size, 4)).collect();
    Some(kinds?.contains(&(PT_INTERP as usize)))
}

/// Reads a service file with it.
fn works(binary: &Path) -> Result<(), String> {
    let status = Command::new(binary)
        .args(["check", "examples/quickstart.toml"])
        .current_dir(root())
        .status()
        .map_err(|e| format!("{}: {e}", binary.display()))?;
    if status.success() { Ok(()) } else { Err(format!("the static binary fails: {status}")) }
}
