//! A live session against the malformed messages of public fuzzing corpora: it goes on, or it ends with the
//! NOTIFICATION that fits; never silently, never with a panic.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ubique_model::{Family, Relation};

use super::fixture::*;
use crate::bgp::session::State;
use crate::bgp::speaker::{ConnId, DownReason, In, Out, PeerId, SessionEvent, Speaker};
use crate::time::Time;

const CONN: ConnId = ConnId(1);

fn established() -> (Speaker, Time) {
    let now = Time(1_000_000_000);
    let mut speaker = Speaker::new(config(1, 1, vec![peer(2, Relation::Peer)]));
    speaker.handle_input(now, In::Start);
    speaker.handle_input(now, In::Connected { peer: PeerId(0), conn: CONN, local: address(1).into() });
    for bytes in [open(2, Family::Ipv4), keepalive()] {
        speaker.handle_input(now, In::Received { conn: CONN, bytes });
    }
    assert!(is_up(&speaker));
    drain(&mut speaker);
    (speaker, now)
}

fn is_up(speaker: &Speaker) -> bool {
    speaker.peers().all(|p| p.state == State::Established)
}

/// Whether an error may be answered so, by the header of the message at fault.
fn fits(message: &[u8], code: u8, subcode: u8) -> bool {
    let marker = message.iter().take(16).all(|octet| *octet == 0xff);
    let kind = message.get(18).copied();
    match (code, subcode) {
        (1, 1) => !marker,
        (1, 2) => marker,
        (1, 3) => !matches!(kind, Some(1..=5)),
        (3, 1..=11) => kind == Some(2),
        (5, 3) => kind == Some(1),
        (7, 1) => kind == Some(5),
        _ => false,
    }
}

/// The first message of a stream, as far as its header can be believed, and the rest.
fn split(stream: &[u8]) -> (&[u8], &[u8]) {
    let length = match stream.get(16..18) {
        Some(l) => usize::from(u16::from_be_bytes([l[0], l[1]])),
        None => stream.len(),
    };
    stream.split_at(length.clamp(19.min(stream.len()), stream.len()))
}

/// Feeds a stream; gives the error code the session ended with.
fn survives(name: &Path, stream: &[u8]) -> Option<u8> {
    let (mut speaker, mut now) = established();
    let mut rest = stream;
    while !rest.is_empty() {
        let (message, tail) = split(rest);
        rest = tail;
        speaker.handle_input(now, In::Received { conn: CONN, bytes: message.to_vec() });
        let ended = drain(&mut speaker).into_iter().find_map(|output| match output {
            Out::Session { event: SessionEvent::Down { reason, .. }, .. } => Some(reason),
            _ => None,
        });
        assert_eq!(ended.is_none(), is_up(&speaker), "{name:?}");
        match ended {
            Some(DownReason::Sent(n)) => {
                assert!(fits(message, n.code, n.subcode), "{name:?}: {n} for {message:02x?}");
                return Some(n.code);
            }
            Some(DownReason::Received(_)) => {
                assert_eq!(message.get(18), Some(&3), "{name:?}");
                return Some(0);
            }
            Some(DownReason::TransportClosed | DownReason::Replaced) => panic!("{name:?}: nobody closed"),
            None => {}
        }
    }
    // It is alive: silence is noticed.
    while is_up(&speaker) {
        now = now.max(speaker.next_deadline().expect("timers run"));
        assert!(now.since(Time(1_000_000_000)) <= Duration::from_secs(9), "{name:?}");
        speaker.handle_deadline(now);
    }
    let down = speaker.peer(PeerId(0)).and_then(|p| p.last_down.cloned());
    assert!(matches!(down, Some(DownReason::Sent(n)) if n.code == 4), "{name:?}");
    None
}

fn files(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("readable").flatten() {
        let path = entry.path();
        if path.is_dir() { files(&path, all) } else { all.push(path) }
    }
}

#[test]
fn fuzzing_corpora() {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/badinput/bgp-messages.tar.gz");
    if !archive.exists() {
        eprintln!("skipped: {} is not there", archive.display());
        return;
    }
    let folder = std::env::temp_dir().join(format!("ubique-badinput-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    let unpacked = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&folder).status();
    assert!(unpacked.expect("tar runs").success());
    let mut all = vec![];
    files(&folder, &mut all);
    all.sort();
    let mut ends = std::collections::BTreeMap::new();
    for path in &all {
        let stream = fs::read(path).expect("readable");
        *ends.entry(survives(path, &stream)).or_insert(0) += 1;
    }
    fs::remove_dir_all(&folder).expect("ours to remove");
    eprintln!("{} streams; ends by error code (None: survived): {ends:?}", all.len());
    assert!(all.len() > 1000, "{} files", all.len());
}

/// The same on a machine without the corpora: every message of ours with every octet changed.
#[test]
fn one_octet_wrong() {
    let sound = [keepalive(), open(2, Family::Ipv4), update(2, &["10.0.0.0/8"], &["10.1.0.0/16"])];
    for message in sound {
        for at in 0..message.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut wrong = message.clone();
                wrong[at] ^= change;
                survives(Path::new(&format!("octet {at} ^ {change:#x}")), &wrong);
            }
        }
    }
}
