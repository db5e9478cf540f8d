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
