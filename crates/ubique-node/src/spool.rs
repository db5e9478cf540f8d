//! Files that a thread writes: bounded, started anew at a size, and never waited for.
//!
//! A [`Spool`] takes records from any thread into a bounded queue; its thread appends them to a file, as many at a time as
//! are there. At the configured size the file becomes `path.1`, that one `path.2`, and so on; the last one goes. A file
//! that was there before becomes `path.1`, too. A queue that is full loses records, which are counted; a file that
//! cannot be written (a full disk) ends the recording, is said once, and is tried again after [`RETRY`].
//!
//! What is recorded is wanted most when things go wrong, so nothing old goes before there is something new: a file is begun
//! as `path.new`, and files move on when it has taken its first records. Stubs take no places: after a failure a file that
//! holds less than [`STUB_BYTES`] is replaced, and so is that of an agent that was started again and again
//! ([`Writer::is_loop`]).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use ubique_model::service::RotatedFile;

/// Octets that may wait for the thread; beyond, records are lost until half of them are written. A second of a fast
/// upstream's full table.
const QUEUE_BYTES: u64 = 16 << 20;

/// Records that may wait: what small ones cost beside their octets.
const QUEUE_RECORDS: usize = 1 << 16;

/// Octets written at a time.
const BATCH_BYTES: usize = 256 << 10;

/// After the first record the thread waits so long for others, to write them together: a thread that is woken for each
/// costs the loop more than the record. 128 MB/s at least can be written, and a killed process loses so much at its end.
const GATHER: Duration = Duration::from_millis(2);

/// After a failure the file is tried again this much later.
const RETRY: Duration = Duration::from_secs(60);

/// A shorter file is replaced when recording goes on after a failure: a full disk must not turn the files over.
const STUB_BYTES: u64 = 1 << 20;

/// Starts that follow each other faster than this are a loop.
const LOOP: Duration = Duration::from_secs(60);

/// Owner and group may read: what neighbours send is nobody else's business.
const MODE: u32 = 0o640;

/// Octets waiting in all spools of the process.
static WAITING: AtomicU64 = AtomicU64::new(0);

/// Waits until every record is written, but not longer than `limit`: for the end of a process that panics. Takes no lock.
pub(crate) fn last_words(limit: Duration) {
    let begin = Instant::now();
    while WAITING.load(Ordering::Acquire) > 0 && begin.elapsed() < limit {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Where a spool writes.
pub(crate) struct SpoolConfig {
    /// What it is, for logs: `journal`.
    pub what: &'static str,
    /// The newest file.
    pub path: PathBuf,
    /// Size at which the next one is started, octets.
    pub size: u64,
    /// Files kept.
    pub files: u32,
    /// What the file of this number begins with.
    pub header: Box<dyn Fn(u64) -> Vec<u8> + Send>,
}

impl SpoolConfig {
    pub(crate) fn new(
        what: &'static str,
        file: &RotatedFile,
        service: &str,
        site: &str,
        header: Box<dyn Fn(u64) -> Vec<u8> + Send>,
    ) -> SpoolConfig {
        let path = crate::admin::socket_path(&file.path, service, site);
        SpoolConfig { what, path, size: u64::from(file.size_mib) << 20, files: file.files, header }
    }
}

enum Job {
    Record(u64, Vec<u8>),
    /// The file of this number begins.
    Next(u64),
}

/// Numbers of a spool since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Octets taken.
    pub octets: u64,
    /// Records lost.
    pub lost: u64,
    /// Files that could not be written.
    pub failures: u64,
}

#[derive(Default)]
struct Shared {
    /// Number of the present file, and octets given to it.
    segment: AtomicU64,
    filled: AtomicU64,
    /// Some thread is about to begin the next file.
    turning: AtomicBool,
    waiting: AtomicU64,
    choked: AtomicBool,
    broken: AtomicBool,
    octets: AtomicU64,
    lost: AtomicU64,
    failures: AtomicU64,
}

/// The writing end of the queue. Clones, in whatever thread, write to the same file; none ever waits for another: a thread
/// that was interrupted in the middle of a record would hold up BFD.
#[derive(Clone)]
pub(crate) struct Spool {
    queue: SyncSender<Job>,
    shared: Arc<Shared>,
    size: u64,
}

impl Spool {
    /// Starts the thread. Whether the file can be written shows, and is said, there.
    pub(crate) fn start(config: SpoolConfig) -> io::Result<Spool> {
        let (queue, jobs) = sync_channel(QUEUE_RECORDS);
        let shared = Arc::new(Shared::default());
        let size = config.size;
        let mut writer = Writer::new(config, shared.clone());
        thread::Builder::new().name(writer.config.what.replace(' ', "-")).spawn(move || writer.run(&jobs))?;
        Ok(Spool { queue, shared, size })
    }

    /// Number of the present file; `None`: nothing can be written now.
    pub(crate) fn segment(&self) -> Option<u64> {
        let shared = &self.shared;
        if shared.broken.load(Ordering::Acquire) {
            return None;
        }
        if shared.choked.load(Ordering::Acquire) {
            if shared.waiting.load(Ordering::Acquire) > QUEUE_BYTES / 2 {
                return None;
            }
            shared.choked.store(false, Ordering::Release);
        }
        Some(shared.segment.load(Ordering::Acquire))
    }

    /// Hands a record made for a segment to the thread. False: it is lost.
    pub(crate) fn write(&self, segment: u64, record: Vec<u8>) -> bool {
        let octets = record.len() as u64;
        let shared = &self.shared;
        let present = shared.segment.load(Ordering::Acquire) == segment;
        let room = shared.waiting.load(Ordering::Acquire) < QUEUE_BYTES;
        if !present || !room || !self.send(Job::Record(segment, record), octets) {
            shared.lost.fetch_add(1, Ordering::Relaxed);
            shared.choked.store(true, Ordering::Release);
            return false;
        }
        shared.octets.fetch_add(octets, Ordering::Relaxed);
        if shared.filled.fetch_add(octets, Ordering::AcqRel) + octets >= self.size {
            self.turn(segment);
        }
        true
    }

    /// Begins the file after this one, unless another thread does. Without room in the queue the file becomes a little
    /// longer: the next record tries again. What another thread sends for this one meanwhile is lost with it.
    fn turn(&self, segment: u64) {
        let shared = &self.shared;
        if shared.turning.swap(true, Ordering::AcqRel) {
            return;
        }
        if shared.segment.load(Ordering::Acquire) == segment && self.send(Job::Next(segment + 1), 0) {
            shared.filled.store(0, Ordering::Release);
            shared.segment.fetch_max(segment + 1, Ordering::AcqRel);
        }
        shared.turning.store(false, Ordering::Release);
    }

    fn send(&self, job: Job, octets: u64) -> bool {
        self.shared.waiting.fetch_add(octets, Ordering::AcqRel);
        WAITING.fetch_add(octets, Ordering::AcqRel);
        match self.queue.try_send(job) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.waiting.fetch_sub(octets, Ordering::AcqRel);
                WAITING.fetch_sub(octets, Ordering::AcqRel);
                false
            }
        }
    }

    /// Octets after which the next file is started.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn counters(&self) -> Counters {
        Counters {
            octets: self.shared.octets.load(Ordering::Relaxed),
            lost: self.shared.lost.load(Ordering::Relaxed),
            failures: self.shared.failures.load(Ordering::Relaxed),
        }
    }

    /// Whether everything taken so far is written.
    pub(crate) fn is_written(&self) -> bool {
        self.shared.waiting.load(Ordering::Acquire) == 0
    }
}

/// The thread's side.
struct Writer {
    config: SpoolConfig,
    shared: Arc<Shared>,
    file: Option<File>,
    /// The file is `path.new` still: what happens to `path` when it has taken its first records.
    begun: Option<Old>,
    segment: u64,
    retry: Option<Instant>,
}

/// What becomes of the newest file when there is a newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Old {
    MovesOn,
    IsReplaced,
}

impl Writer {
    fn new(config: SpoolConfig, shared: Arc<Shared>) -> Writer {
        Writer { config, shared, file: None, begun: None, segment: 0, retry: None }
    }

    fn run(&mut self, jobs: &Receiver<Job>) {
        let old = if self.is_loop() { Old::IsReplaced } else { Old::MovesOn };
        let opened = self.begin(old);
        self.check(opened);
        let mut batch = Vec::new();
        loop {
            let wait = self.retry.map_or(RETRY, |at| at.saturating_duration_since(Instant::now()));
            match jobs.recv_timeout(wait) {
                Ok(job) => {
                    thread::sleep(GATHER);
                    self.take(job, jobs, &mut batch);
                }
                Err(RecvTimeoutError::Timeout) => self.mend(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Carries out a job, and with it the records that follow it already.
    fn take(&mut self, job: Job, jobs: &Receiver<Job>, batch: &mut Vec<u8>) {
        let mut taken = 0;
        let mut job = Some(job);
        batch.clear();
        while let Some(Job::Record(segment, record)) = job {
            taken += record.len() as u64;
            // One made for a file that has ended would be misread in the next.
            if segment == self.segment {
                batch.extend_from_slice(&record);
            } else {
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
            }
            job = if batch.len() < BATCH_BYTES { jobs.try_recv().ok() } else { None };
        }
        if !batch.is_empty()
            && let Some(file) = &mut self.file
        {
            let written = file.write_all(batch).and_then(|()| self.establish());
            self.check(written);
        }
        batch.shrink_to(2 * BATCH_BYTES);
        self.shared.waiting.fetch_sub(taken, Ordering::AcqRel);
        WAITING.fetch_sub(taken, Ordering::AcqRel);
        // One that was begun after a failure meanwhile has that number already.
        if let Some(Job::Next(segment)) = job
            && segment > self.segment
        {
            self.segment = segment;
            let opened = self.begin(Old::MovesOn);
            self.check(opened);
        }
    }

    /// Starts the next file, as `path.new`.
    fn begin(&mut self, old: Old) -> io::Result<()> {
        self.file = None;
        let path = &self.config.path;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let new = suffixed(path, "new");
        remove(&new)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&new)?;
        file.write_all(&(self.config.header)(self.segment))?;
        self.file = Some(file);
        self.begun = Some(old);
        Ok(())
    }

    /// The file that was begun has records: it takes its place, and the others move on by one.
    fn establish(&mut self) -> io::Result<()> {
        let Some(old) = self.begun.take() else {
            return Ok(());
        };
        let path = &self.config.path;
        if old == Old::MovesOn {
            let at = |number: u32| if number == 0 { path.clone() } else { numbered(path, number) };
            for number in (1..self.config.files).rev() {
                move_on(&at(number - 1), &at(number))?;
            }
        }
        fs::rename(suffixed(path, "new"), path)
    }

    /// Whether the two files before were begun a moment ago by agents that ended at once: the third of a loop, and those
    /// after it, replace each other, so that what led into the loop stays.
    fn is_loop(&self) -> bool {
        // One that was full was not ended by an end of the agent.
        let young = |path: &Path, limit| {
            let short = fs::metadata(path).is_ok_and(|m| m.len() < self.config.size);
            short && age(path).is_some_and(|age| age < limit)
        };
        young(&self.config.path, LOOP) && young(&numbered(&self.config.path, 1), 2 * LOOP)
    }

    fn check(&mut self, done: io::Result<()>) {
        let Err(error) = done else { return };
        self.file = None;
        if self.begun.take().is_some() {
            // It holds nothing, and the disk may be full.
            let _ = remove(&suffixed(&self.config.path, "new"));
        }
        self.shared.failures.fetch_add(1, Ordering::Relaxed);
        let said_before = self.shared.broken.swap(true, Ordering::AcqRel);
        if !said_before {
            let (what, path) = (self.config.what, self.config.path.display());
            tracing::error!(%path, %error, "the {what} cannot be written: nothing is recorded until it can");
        }
        self.retry = Some(Instant::now() + RETRY);
    }

    /// Tries a file that failed again, under a new number: everything must be told anew.
    fn mend(&mut self) {
        if self.retry.take().is_none() {
            return;
        }
        self.shared.filled.store(0, Ordering::Release);
        self.segment = self.shared.segment.fetch_add(1, Ordering::AcqRel) + 1;
        let short = fs::metadata(&self.config.path).is_ok_and(|m| m.len() < STUB_BYTES.min(self.config.size));
        match self.begin(if short { Old::IsReplaced } else { Old::MovesOn }) {
            Ok(()) => {
                self.shared.broken.store(false, Ordering::Release);
                tracing::info!(path = %self.config.path.display(), "the {} is written again", self.config.what);
            }
            failed => self.check(failed),
        }
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    suffixed(path, &number.to_string())
}

fn suffixed(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{end}"));
    name.into()
}

/// How long ago a file was begun; `None`: there is none, or its file system does not tell.
fn age(path: &Path) -> Option<Duration> {
    // One from the future was begun before the clock was set.
    Some(fs::metadata(path).ok()?.created().ok()?.elapsed().unwrap_or(Duration::MAX))
}

fn move_on(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("ubique-spool-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn spool(&self, size: u64, files: u32) -> Spool {
            let header = Box::new(|segment| format!("<{segment}>").into_bytes());
            Spool::start(SpoolConfig { what: "test", path: self.0.join("a/file"), size, files, header }).unwrap()
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.0.join("a").join(name)).unwrap_or_default()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn until(what: &str, mut done: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !done() {
            assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn say(spool: &Spool, words: &str) -> bool {
        spool.segment().is_some_and(|segment| spool.write(segment, words.into()))
    }

    #[test]
    fn files_move_on_and_the_last_goes() {
        let folder = Folder::new("rotate");
        let spool = folder.spool(4, 3);
        for words in ["aa", "bb", "cc", "dd", "ee", "ff", "gg", "hh", "ii"] {
            assert!(say(&spool, words));
        }
        until("written", || folder.read("file") == "<4>ii");
        assert_eq!((folder.read("file.1"), folder.read("file.2")), ("<3>gghh".into(), "<2>eeff".into()));
        assert!(!folder.0.join("a/file.3").exists());
        drop(spool);
        let spool = folder.spool(4, 3);
        until("a new one is begun", || folder.read("file.new") == "<0>");
        assert_eq!(folder.read("file"), "<4>ii", "which is empty so far");
        assert!(say(&spool, "jj"));
        until("it has taken its place", || folder.read("file") == "<0>jj");
        assert_eq!((folder.read("file.1"), folder.read("file.2")), ("<4>ii".into(), "<3>gghh".into()));
        assert_eq!(spool.counters(), Counters { octets: 2, ..Counters::default() });
    }

    #[test]
    fn agents_that_end_at_once_again_and_again_leave_what_was_before_them() {
        let folder = Folder::new("loop");
        fs::write(folder.0.join("probe"), "").unwrap();
        if age(&folder.0.join("probe")).is_none() {
            eprintln!("skipped: this file system does not tell when a file was begun");
            return;
        }
        for life in ["first", "second", "third", "fourth", "fifth"] {
            let spool = folder.spool(100, 3);
            assert!(say(&spool, life));
            until("written", || folder.read("file") == format!("<0>{life}"));
        }
        assert_eq!((folder.read("file.1"), folder.read("file.2")), ("<0>first".into(), String::new()));
        // A file that was full was not begun by a start.
        fs::write(folder.0.join("a/file.1"), [b'x'; 100]).unwrap();
        let spool = folder.spool(100, 3);
        assert!(say(&spool, "sixth"));
        until("written", || folder.read("file") == "<0>sixth");
        assert_eq!(folder.read("file.1"), "<0>fifth");
    }

    #[test]
    fn one_file_is_replaced() {
        let folder = Folder::new("one");
        let spool = folder.spool(2, 1);
        assert!(say(&spool, "aa") && say(&spool, "b"));
        until("replaced", || folder.read("file") == "<1>b");
        assert_eq!(fs::read_dir(folder.0.join("a")).unwrap().count(), 1);
    }

    #[test]
    fn a_record_for_a_file_that_ended_is_lost() {
        let folder = Folder::new("late");
        let spool = folder.spool(2, 3);
        let segment = spool.segment().unwrap();
        assert!(spool.write(segment, b"aa".to_vec()));
        assert!(!spool.write(segment, b"late".to_vec()));
        assert_eq!(spool.counters().lost, 1);
        until("the next one is begun", || folder.read("file.new") == "<1>");
    }

    /// The loop and BFD: what each writes for a file stands in that file or is counted as lost.
    #[test]
    fn threads_that_write_at_once_never_mix_files() {
        let folder = Folder::new("threads");
        let spool = folder.spool(64, 1_000);
        let write = |spool: Spool| {
            let (mut taken, mut refused) = (0, 0);
            for _ in 0..500 {
                let Some(segment) = spool.segment() else { continue };
                let taken_now = spool.write(segment, format!("{segment};").into_bytes());
                *(if taken_now { &mut taken } else { &mut refused }) += 1;
            }
            (taken, refused)
        };
        let threads: Vec<_> = (0..3).map(|_| spool.clone()).map(|spool| thread::spawn(move || write(spool))).collect();
        let (mut taken, mut refused) = (0, 0);
        for thread in threads {
            let (more, fewer) = thread.join().unwrap();
            taken += more;
            refused += fewer;
        }
        until("written", || spool.is_written());
        let (mut found, mut files) = (0, 0);
        for entry in fs::read_dir(folder.0.join("a")).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            let (head, records) = text.strip_prefix('<').unwrap().split_once('>').unwrap();
            assert!(records.split_terminator(';').all(|record| record == head), "{text}");
            found += records.split_terminator(';').count() as u64;
            files += 1;
        }
        let lost = spool.counters().lost;
        println!("{found} of {taken} in {files} files, {refused} refused");
        assert_eq!(found, taken + refused - lost);
        assert!(files > 10 && found > 1_000, "{found} in {files} files, {lost} lost");
    }

    /// Nothing can be written where a file stands in the place of the directory.
    #[test]
    fn what_cannot_be_written_is_counted_and_nothing_waits() {
        let folder = Folder::new("broken");
        fs::write(folder.0.join("a"), "no directory").unwrap();
        let spool = folder.spool(100, 2);
        until("it is seen", || spool.segment().is_none());
        assert!(!say(&spool, "lost"));
        assert_eq!(spool.counters().failures, 1);
        assert!(spool.is_written());
    }

    /// `/dev/full` takes nothing: a full disk.
    #[test]
    fn a_full_disk_ends_the_recording() {
        let folder = Folder::new("full");
        let header = Box::new(|_| vec![]);
        let path = folder.0.join("file");
        let config = SpoolConfig { what: "test", path, size: 1 << 20, files: 2, header };
        let shared = Arc::new(Shared::default());
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut writer = Writer { file: Some(full), ..Writer::new(config, shared.clone()) };
        let (_queue, jobs) = sync_channel(1);
        let record = |writer: &mut Writer| {
            shared.waiting.fetch_add(3, Ordering::AcqRel);
            WAITING.fetch_add(3, Ordering::AcqRel);
            writer.take(Job::Record(writer.segment, b"abc".to_vec()), &jobs, &mut vec![]);
        };
        record(&mut writer);
        assert!(shared.broken.load(Ordering::Acquire) && writer.file.is_none() && writer.retry.is_some());
        assert_eq!(shared.waiting.load(Ordering::Acquire), 0);
        writer.mend();
        assert!(!shared.broken.load(Ordering::Acquire) && writer.file.is_some(), "there is room again");
        assert_eq!(writer.segment, 1, "cores are asked for their state");
        record(&mut writer);
        let read = |name: &str| fs::read_to_string(folder.0.join(name)).unwrap_or_default();
        assert_eq!(read("file"), "abc");
        // Again and again there is room for the beginning of a file and for nothing else.
        for _ in 0..3 {
            writer.check(Err(io::ErrorKind::StorageFull.into()));
            writer.mend();
            writer.file = Some(OpenOptions::new().write(true).open("/dev/full").unwrap());
            record(&mut writer);
            assert!(!folder.0.join("file.new").exists() && writer.retry.is_some());
        }
        assert_eq!((read("file"), read("file.1")), ("abc".into(), String::new()), "nothing has moved");
        // Or for a stub.
        for _ in 0..3 {
            writer.mend();
            record(&mut writer);
            writer.check(Err(io::ErrorKind::StorageFull.into()));
        }
        assert_eq!((read("file"), read("file.1")), ("abc".into(), String::new()), "stubs replace each other");
        fs::write(folder.0.join("file"), vec![b'x'; STUB_BYTES as usize]).unwrap();
        writer.mend();
        record(&mut writer);
        assert_eq!((read("file"), read("file.1").len()), ("abc".into(), STUB_BYTES as usize));
    }

    #[test]
    fn a_queue_that_is_full_loses_and_counts() {
        let (queue, _jobs) = sync_channel(2);
        let spool = Spool { queue, shared: Arc::new(Shared::default()), size: u64::MAX };
        assert!(say(&spool, "1") && say(&spool, "2"));
        assert!(!say(&spool, "3"), "nobody reads");
        assert_eq!((spool.counters().lost, spool.counters().octets), (1, 2));
        let (queue, _jobs) = sync_channel(9);
        let spool = Spool { queue, shared: Arc::new(Shared::default()), size: u64::MAX };
        assert!(spool.write(0, vec![0; QUEUE_BYTES as usize]));
        assert!(!say(&spool, "too much waits"));
        assert_eq!(spool.segment(), None, "until half of it is written");
        WAITING.fetch_sub(QUEUE_BYTES + 2, Ordering::AcqRel);
    }
}
