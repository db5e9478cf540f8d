//! The few operations that replacing a file takes, so that a test can stop between any two of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::beside;

/// Who may read it: reasons of drains are nobody else's business.
const MODE: u32 = 0o640;

/// Operations on files, each of which a crash can come after.
pub(super) trait Disk {
    /// An open file.
    type File;
    /// An empty file that is not there yet, or is emptied.
    fn create(&mut self, path: &Path) -> io::Result<Self::File>;
    /// Appends.
    fn write(&mut self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;
    /// What was written is on the disk.
    fn sync(&mut self, file: &mut Self::File) -> io::Result<()>;
    /// Over whatever has that name.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// The names in the directory of `path` are on the disk.
    fn sync_directory(&mut self, path: &Path) -> io::Result<()>;
}

/// Replaces the file at `path`: after a crash anywhere in here it is the old one or the new one, after `Ok` the new one.
pub(super) fn replace<D: Disk>(disk: &mut D, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = beside(path, "new");
    let mut file = disk.create(&new)?;
    disk.write(&mut file, bytes)?;
    disk.sync(&mut file)?;
    disk.rename(&new, path)?;
    disk.sync_directory(path)
}

/// The machine's.
pub(super) struct RealDisk;

impl RealDisk {
    /// The first octets of a file, at most `limit`.
    pub(super) fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        File::open(path)?.take(limit).read_to_end(&mut text)?;
        Ok(text)
    }
}

impl Disk for RealDisk {
    type File = File;

    fn create(&mut self, path: &Path) -> io::Result<File> {
        let open = || OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(path);
        match (open(), path.parent()) {
            (Err(error), Some(directory)) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(directory)?;
                open()
            }
            (outcome, _) => outcome,
        }
    }

    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&mut self, file: &mut File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_directory(&mut self, path: &Path) -> io::Result<()> {
        let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    }
}
