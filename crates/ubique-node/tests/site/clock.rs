//! An agent whose wall clock is set under it.

use std::fs;
use std::path::{Path, PathBuf};

/// Stands between a program and the kernel's wall clock.
pub const FAKETIME: &str = "/usr/bin/faketime";

/// The wall clock of a process: what a file says is added to the machine's.
pub struct Clock {
    file: PathBuf,
    library: String,
}

impl Clock {
    pub fn new(name: &str) -> Clock {
        // Where Debian keeps the library, by architecture.
        let places = fs::read_dir("/usr/lib").unwrap().flatten();
        let library = places.map(|place| place.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
        let library = library.expect("faketime is installed with its library").display().to_string();
        let clock = Clock { file: Path::new("/run").join(format!("clock-{name}")), library };
        clock.set_by(0);
        clock
    }

    /// Ahead of the machine's clock, s.
    pub fn set_by(&self, ahead_s: i64) {
        // The library may read it at any moment: never a half.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{ahead_s:+}")).unwrap();
        fs::rename(new, &self.file).unwrap();
    }

    /// What a process needs in its environment to go by it.
    pub fn variables(&self) -> [(&str, &str); 5] {
        [
            ("LD_PRELOAD", &self.library),
            ("FAKETIME_TIMESTAMP_FILE", self.file.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("FAKETIME_DISABLE_SHM", "1"),
        ]
    }
}
