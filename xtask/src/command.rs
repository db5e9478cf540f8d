//! Running programs with their output shown.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

/// Root of the workspace.
pub fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map_or(manifest.clone(), PathBuf::from)
}

/// Runs cargo in the workspace; the error names what failed.
pub fn cargo(arguments: &[&str]) -> Result<(), String> {
    run(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), arguments)
}

/// Runs a program in the workspace and says how long it took.
pub fn run(program: impl AsRef<OsStr>, arguments: &[&str]) -> Result<(), String> {
    let program = program.as_ref();
    let shown = format!("{} {}", program.to_string_lossy(), arguments.join(" "));
    eprintln!("» {shown}");
    let start = Instant::now();
    let status =
        Command::new(program).args(arguments).current_dir(root()).status().map_err(|e| format!("{shown}: {e}"))?;
    eprintln!("» {:.1} s", start.elapsed().as_secs_f64());
    if status.success() { Ok(()) } else { Err(format!("{shown}: {status}")) }
}

/// Whether a program is on the PATH or at one of Debian's places for daemons.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into(), "/usr/lib/frr".into()])
        .any(|directory| directory.join(program).is_file())
}
