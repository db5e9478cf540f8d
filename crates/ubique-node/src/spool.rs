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
mod tests;
