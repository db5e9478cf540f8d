//! `ubique replay`: a journal made here, whole, cut off, damaged and falsified.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::rc::Rc;
use std::time::Duration;

use ubique_model::policy::Level;
use ubique_proto::Time;
use ubique_proto::journal::{Body, CoreId, MAGIC, Parsed, Record, Recorded, Segment, Sink, parse};
use ubique_proto::site::{In, Site, SiteConfig};

#[derive(Clone, Default)]
struct Memory(Rc<RefCell<Vec<u8>>>);

impl Sink for Memory {
    fn write(&self, _segment: u64, record: Vec<u8>) -> bool {
        self.0.borrow_mut().extend(record);
        true
    }

    fn segment(&self) -> Option<u64> {
        Some(0)
    }

    fn full_outputs(&self) -> bool {
        true
    }

    fn snapshot_max(&self) -> usize {
        usize::MAX
    }
}

/// A site that comes up and is drained.
fn journal() -> Vec<u8> {
    let memory = Memory::default();
    let names = ["0.1.0", "resolver", "lon"].map(str::to_owned);
    let [version, service, site] = names;
    let segment = Segment { version, service, site, wall_ns: 1_795_248_930_000_000_000, number: 0 };
    memory.write(0, Record { time: Time(1_000), body: Body::Segment(segment) }.encode());
    let config = SiteConfig::new(Duration::from_secs(5), Duration::ZERO);
    let mut core: Recorded<Site, Memory> = Recorded::new(Time(1_000), config, Some(memory.clone()));
    let inputs = [
        In::Start,
        In::AddressesAdded,
        In::Verdict { level: Level::Healthy, answers: true, cause: "all checks are up".into() },
        In::Drain { reason: "new disks".into() },
    ];
    for (second, input) in (1..).zip(inputs) {
        core.handle_input(Time(second * 1_000_000_000), input);
        while core.poll_output().is_some() {}
    }
    [&MAGIC[..], &memory.0.borrow()].concat()
}

struct File(PathBuf);

impl File {
    fn new(name: &str, octets: &[u8]) -> File {
        let path = std::env::temp_dir().join(format!("ubique-replay-{}-{name}", std::process::id()));
        std::fs::write(&path, octets).unwrap();
        File(path)
    }

    fn replay(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ubique"));
        let Output { status, stdout, stderr } = command.arg("replay").arg(&self.0).args(arguments).output().unwrap();
        (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_sound_journal_is_the_same_and_reads_well() {
    let file = File::new("sound", &journal());
    let (code, out, err) = file.replay(&[]);
    assert_eq!(code, 0, "{out}{err}");
    for expected in
        ["file 0 of resolver lon", "Drain { reason: \"new disks\" }", "  → Withdraw { cause: \"drained: new disks\" }"]
    {
        assert!(out.contains(expected), "{expected} not in\n{out}");
    }
    assert!(err.contains("4 inputs and deadlines") && err.contains("the same"), "{err}");
    assert!(out.lines().all(|line| line.chars().count() <= 120), "{out}");
    let (code, out, _) = file.replay(&["--output", "json", "--from", "3.5", "--core", "site"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, json["schema_version"].as_u64()), (0, Some(1)));
    assert_eq!(json["records"].as_array().unwrap().len(), 2, "the last input and its outputs: {out}");
    assert_eq!(json["summary"]["complete"], true);
    let (code, out, _) = file.replay(&["--quiet"]);
    assert_eq!((code, out.as_str()), (0, ""));
}

#[test]
fn a_record_that_was_cut_off_is_told_and_tolerated() {
    let octets = journal();
    let (code, _, err) = File::new("cut", &octets[..octets.len() - 3]).replay(&["--quiet"]);
    assert_eq!(code, 0);
    assert!(err.contains("cut off"), "{err}");
}

#[test]
fn what_differs_is_shown() {
    let octets = journal();
    let (mut rest, mut out, mut changed) = (&octets[MAGIC.len()..], MAGIC.to_vec(), false);
    while let Parsed::Record(mut record, used) = parse(rest) {
        if let Body::Outputs { core: CoreId::Site, hash, .. } = &mut record.body
            && !std::mem::replace(&mut changed, true)
        {
            *hash ^= 1;
        }
        out.extend(record.encode());
        rest = &rest[used..];
    }
    let (code, text, err) = File::new("false", &out).replay(&["--differences"]);
    assert_eq!(code, 1);
    for expected in
        ["DIFFERS: the answer to record 3", "input     Site(Start)", "expected  ", "got       Site(AddAddresses)"]
    {
        assert!(text.contains(expected), "{expected} not in\n{text}");
    }
    assert!(err.contains("1 difference\n"), "{err}");
}

#[test]
fn what_is_no_journal_is_refused() {
    let mut damaged = journal();
    damaged[MAGIC.len() + 20] ^= 1;
    for (name, octets) in [("empty", vec![]), ("text", b"[service]\nname = 1\n".to_vec()), ("damaged", damaged)] {
        let (code, _, err) = File::new(name, &octets).replay(&[]);
        assert_eq!(code, 2, "{name}: {err}");
        assert!(err.contains("ubique: "), "{err}");
    }
}
