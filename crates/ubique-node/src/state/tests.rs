//! Crashes after every operation, with everything a disk may have kept or lost of what was not synced; refusals.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::disk::{Disk, replace};
use super::*;

const PATH: &str = "/state/site.state";

/// A disk that loses power after so many operations. What was not synced may be there, in part, or not at all.
#[derive(Clone, Default)]
struct Crashing {
    /// Operations until the power goes.
    left: usize,
    /// Contents: as programs see them, and as they are on the disk.
    files: Vec<(Vec<u8>, Vec<u8>)>,
    /// Names on the disk, and changes of names that are not there yet, in their order.
    names: BTreeMap<PathBuf, usize>,
    pending: Vec<(PathBuf, Option<PathBuf>, usize)>,
    /// A mistake that the test must find: syncs of files that do nothing.
    forgets_to_sync: bool,
}

impl Crashing {
    fn step(&mut self) -> io::Result<()> {
        self.left = self.left.checked_sub(1).ok_or_else(|| io::Error::other("the power is gone"))?;
        Ok(())
    }

    fn names_now(&self, changes: usize) -> BTreeMap<PathBuf, usize> {
        let mut names = self.names.clone();
        for (name, from, file) in &self.pending[..changes] {
            if let Some(from) = from {
                names.remove(from);
            }
            names.insert(name.clone(), *file);
        }
        names
    }

    /// Everything that may be read at `path` after the crash; `None`: nothing is there.
    fn survivors(&self, path: &Path) -> Vec<Option<Vec<u8>>> {
        let mut all = Vec::new();
        for changes in 0..=self.pending.len() {
            let Some(&file) = self.names_now(changes).get(path) else {
                all.push(None);
                continue;
            };
            let (seen, synced) = &self.files[file];
            let torn = [seen.clone(), synced.clone(), seen[..seen.len() / 2].to_vec(), vec![0; seen.len()]];
            let count = if seen == synced { 1 } else { torn.len() };
            all.extend(torn.into_iter().take(count).map(Some));
        }
        all
    }
}

impl Disk for Crashing {
    type File = usize;

    fn create(&mut self, path: &Path) -> io::Result<usize> {
        self.step()?;
        self.files.push(Default::default());
        let file = self.files.len() - 1;
        self.pending.push((path.to_owned(), None, file));
        Ok(file)
    }

    fn write(&mut self, file: &mut usize, bytes: &[u8]) -> io::Result<()> {
        self.step()?;
        self.files[*file].0.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self, file: &mut usize) -> io::Result<()> {
        self.step()?;
        let (seen, synced) = &mut self.files[*file];
        if !self.forgets_to_sync {
            synced.clone_from(seen);
        }
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        let file = self.names_now(self.pending.len())[from];
        self.pending.push((to.to_owned(), Some(from.to_owned()), file));
        Ok(())
    }

    fn sync_directory(&mut self, _path: &Path) -> io::Result<()> {
        self.step()?;
        self.names = self.names_now(self.pending.len());
        self.pending.clear();
        Ok(())
    }
}

fn state(drain: &str) -> State {
    let mut state = State::new("resolver", "ams");
    state.keep("drain", Some(&drain));
    state
}

fn text(state: &State) -> Vec<u8> {
    state.text(UNIX_EPOCH)
}

/// What may be there after a crash in the middle of replacing `old` by `new`: whether all of it is one of them.
fn holds(disk: &Crashing, old: &[u8], new: &[u8], done: bool) -> bool {
    disk.survivors(Path::new(PATH)).iter().all(|there| match there {
        Some(there) => there == new || (there == old && !done),
        None => false,
    })
}

#[test]
fn a_crash_after_any_operation_leaves_the_old_or_the_new() {
    let (old, new) = (text(&state("disk swap")), text(&state("fibre cut")));
    let mut disk = Crashing { left: usize::MAX, ..Crashing::default() };
    replace(&mut disk, Path::new(PATH), &old).unwrap();
    assert!(holds(&disk, b"", &old, true), "what was answered is there");
    let mut crashes = 0;
    for operations in 0.. {
        let mut disk = Crashing { left: operations, ..disk.clone() };
        let done = replace(&mut disk, Path::new(PATH), &new).is_ok();
        assert!(holds(&disk, &old, &new, done), "after {operations} operations");
        crashes += 1;
        if done {
            break;
        }
    }
    assert_eq!(crashes, 6, "five operations, and none");
}

#[test]
fn the_crash_test_finds_a_forgotten_sync() {
    let (old, new) = (text(&state("disk swap")), text(&state("fibre cut")));
    let mut disk = Crashing { left: usize::MAX, ..Crashing::default() };
    replace(&mut disk, Path::new(PATH), &old).unwrap();
    disk.forgets_to_sync = true;
    disk.left = 4;
    let _ = replace(&mut disk, Path::new(PATH), &new);
    assert!(!holds(&disk, &old, &new, false), "a renamed file whose content is lost is neither");
}

#[test]
fn parts_are_read_as_they_were_kept() {
    let kept = state("disk swap");
    let read = State::parse(&text(&kept), "resolver", "ams").unwrap();
    assert_eq!(read.part::<String>("drain").as_deref(), Some("disk swap"));
    assert_eq!(read.part::<String>("actions"), None, "never kept");
    assert_eq!(read.part::<u32>("drain"), None, "lost alone");
    let mut over = read;
    over.keep::<String>("drain", None);
    assert_eq!(over.part::<String>("drain"), None);
}

#[test]
fn what_is_no_state_of_this_site_is_said() {
    let whole = text(&state("disk swap"));
    for length in 0..whole.len() - 1 {
        let cut = State::parse(&whole[..length], "resolver", "ams");
        assert!(matches!(cut, Err(Damage::Malformed(_))) || length + 1 == whole.len(), "{length}");
    }
    assert!(matches!(State::parse(&whole, "resolver", "lon"), Err(Damage::Foreign { .. })));
    let later = br#"{"version": 7, "shape": "unknown"}"#;
    assert!(matches!(State::parse(later, "resolver", "ams"), Err(Damage::Version(7))));
}

/// A directory of its own that goes away.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let place = std::env::temp_dir().join(format!("ubique-state-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        Place(place)
    }

    fn file(&self) -> PathBuf {
        self.0.join("site.state")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn on_a_runtime(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test());
}

#[test]
fn what_is_kept_is_found_and_a_damaged_file_is_set_aside() {
    let place = Place::new("damaged");
    on_a_runtime(async || {
        let (keeper, nothing) = Keeper::start(place.file(), "resolver", "ams");
        assert_eq!(nothing, State::new("resolver", "ams"));
        keeper.keep(&state("disk swap")).kept().await.unwrap();
        keeper.keep(&state("disk swap")).kept().await.unwrap();
        assert_eq!(keeper.error(), None);
    });
    assert_eq!(load(&place.file(), "resolver", "ams").part::<String>("drain").as_deref(), Some("disk swap"));
    std::fs::write(place.file(), b"{\"version\":1,").unwrap();
    assert_eq!(load(&place.file(), "resolver", "ams"), State::new("resolver", "ams"));
    assert_eq!(std::fs::read(beside(&place.file(), "damaged")).unwrap(), b"{\"version\":1,");
    assert!(!place.file().exists());
}

#[test]
fn a_disk_that_refuses_is_told_and_the_last_wish_counts() {
    let place = Place::new("refuses");
    // A directory in the place of the new file: not even root can write that.
    std::fs::create_dir(beside(&place.file(), "new")).unwrap();
    on_a_runtime(async || {
        let (keeper, _) = Keeper::start(place.file(), "resolver", "ams");
        let said = keeper.keep(&state("disk swap")).kept().await.unwrap_err();
        assert!(said.contains("cannot write") && said.contains("site.state"), "{said}");
        assert_eq!(keeper.error(), Some(said));
        std::fs::remove_dir(beside(&place.file(), "new")).unwrap();
        let (first, second) = (keeper.keep(&state("first")), keeper.keep(&state("second")));
        first.kept().await.unwrap();
        second.kept().await.unwrap();
        assert_eq!(keeper.error(), None);
    });
    assert_eq!(load(&place.file(), "resolver", "ams").part::<String>("drain").as_deref(), Some("second"));
}
