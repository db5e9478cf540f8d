//! What the tests of the whole program share.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A directory of a test's own that every user can enter.
pub fn work_directory(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("ubique-tests-{}", std::process::id())).join(name);
    fs::create_dir_all(&directory).expect("a directory");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("its mode");
    directory
}

/// Whether a program is on the PATH or where Debian keeps daemons.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into(), "/usr/lib/frr".into()])
        .any(|directory| directory.join(program).is_file())
}
