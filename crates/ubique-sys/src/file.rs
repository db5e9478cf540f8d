//! Files read at once or not at all.

use std::io::IoSliceMut;
use std::path::Path;

use rustix::fs::{CWD, FsWord, Mode, OFlags, ResolveFlags, fstatfs, openat2};
use rustix::io::{ReadWriteFlags, preadv2, read};

/// `f_type` of a file system in memory (statfs(2)): it knows no reads that must not wait, and needs none.
const TMPFS_MAGIC: FsWord = 0x0102_1994;

/// The beginning of a file, at most `limit` octets, when it is at hand: on tmpfs, or in the page cache. `None`: a disk, a
/// server or a process would have to be waited for, or it cannot be read at all; an ordinary read tells which. Linux 5.12
/// or later; `None` before.
pub fn read_at_once(path: &Path, limit: usize) -> Option<Vec<u8>> {
    let how = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = openat2(CWD, path, how, Mode::empty(), ResolveFlags::CACHED).ok()?;
    let mut octets = vec![0; limit];
    let count = match fstatfs(&file).ok()?.f_type {
        TMPFS_MAGIC => read(&file, &mut octets),
        _ => preadv2(&file, &mut [IoSliceMut::new(&mut octets)], 0, ReadWriteFlags::NOWAIT),
    };
    octets.truncate(count.ok()?);
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_at_hand_is_read_and_nothing_is_waited_for() {
        let path = std::env::temp_dir().join(format!("ubique-at-once-{}", std::process::id()));
        fs::write(&path, "4711\n").unwrap();
        // Just written, so it is cached; not every file system can say so.
        let read = read_at_once(&path, 64);
        assert!(read.is_none() || read.as_deref() == Some(b"4711\n"), "{read:?}");
        assert!(read_at_once(&path, 2).is_none_or(|beginning| beginning == b"47"));
        fs::remove_file(&path).unwrap();
        assert_eq!(read_at_once(&path, 64), None);
        rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(read_at_once(&path, 64).unwrap_or_default(), b"", "nobody writes into this pipe");
        fs::remove_file(&path).unwrap();
    }
}
