//! What a data plane leaves to its successor, in a small file beside the admin socket.
//!
//! Programs stay on their interfaces when the agent ends, and connections go on. The next agent must go on with the same clock of
//! timestamps, and know which programs are ours: the kernel tells both to CAP_SYS_ADMIN only, which an agent does not have. The file is
//! written before a program is attached, so that after a crash at any instruction it names every program that may be there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::state::replace_file;

/// Identifies a boot: a random number of the kernel's.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Life {
    /// The boot it was in: monotonic clock, programs and interfaces are of this one.
    boot: String,
    /// The wall clock at 0 of the monotonic one as timestamps say it, ms since 1970.
    pub clock_base_ms: u64,
    /// The same as it was gone by of late; `None`: not written by those who went by no clock of their own.
    #[serde(default)]
    pub wall_base_ms: Option<u64>,
    /// How connections carry their site, as [`tier_word`](super::tier_word) says it: as long as they live, it must be so.
    pub tcp: String,
    /// Programs that may be on interfaces, by number.
    pub programs: Vec<u32>,
    /// Names of interfaces they may be on.
    pub interfaces: Vec<String>,
}

/// This boot; empty where the machine does not tell one from another.
fn boot() -> String {
    fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned()
}

impl Life {
    /// Of a data plane that begins.
    pub fn new(clock_base_ms: u64) -> Life {
        Life {
            boot: boot(),
            clock_base_ms,
            wall_base_ms: None,
            tcp: String::new(),
            programs: vec![],
            interfaces: vec![],
        }
    }

    /// What the last one of this boot left at `path`.
    pub fn read(path: &Path) -> Option<Life> {
        let text = fs::read(path).ok()?;
        let life: Life = serde_json::from_slice(&text).ok()?;
        (!life.boot.is_empty() && life.boot == boot()).then_some(life)
    }

    /// Leaves it at `path`: after a crash there is the old one or this one.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        replace_file(path, &serde_json::to_vec(self)?)
    }
}

/// Where a data plane leaves it: beside the agent's admin socket.
pub(crate) fn path_beside(socket: &Path) -> PathBuf {
    socket.with_extension("sessions")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_of_this_boot_is_read() {
        let path = std::env::temp_dir().join(format!("ubique-life-{}.sessions", std::process::id()));
        assert_eq!(Life::read(&path), None);
        let life =
            Life { programs: vec![7, 9], interfaces: vec!["eth0".into()], tcp: "cookie".into(), ..Life::new(17) };
        life.write(&path).unwrap();
        assert_eq!(Life::read(&path), Some(life.clone()));
        Life { boot: "another".into(), ..life }.write(&path).unwrap();
        assert_eq!(Life::read(&path), None);
        fs::write(&path, "{").unwrap();
        assert_eq!(Life::read(&path), None);
        fs::remove_file(&path).unwrap();
    }
}
