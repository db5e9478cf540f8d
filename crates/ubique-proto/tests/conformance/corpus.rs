//! Messages of others: of public fuzzing campaigns, of route collectors, and sound ones with one octet changed.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use ubique_proto::bgp::message::Notification;
use ubique_proto::bgp::speaker::DownReason;

use crate::agree::agree;
use crate::live::{Kind, Live};
use crate::oracle::{Session, Verdict, judge};
use crate::table::{From, attributes, open, update, wrapped};

/// Messages in the archive.
const CORPUS: usize = 1787;

/// A path of the shared data, or `None` with a line that says what is skipped.
fn shared(path: &str) -> Option<PathBuf> {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(path);
    if !full.exists() {
        eprintln!("skipped: {} is not there", full.display());
        return None;
    }
    Some(full)
}

/// Names and octets.
fn corpus() -> Option<Vec<(String, Vec<u8>)>> {
    let file = std::fs::File::open(shared("badinput/bgp-messages.tar.gz")?).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut all = vec![];
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().into_owned();
        if entry.header().entry_type().is_file() && path.extension().is_none_or(|e| e != "md") {
            let mut octets = vec![];
            entry.read_to_end(&mut octets).unwrap();
            all.push((path.display().to_string(), octets));
        }
    }
    Some(all)
}

fn sessions() -> impl Iterator<Item = (From, Session)> {
    [From::External, From::Internal, From::Old].into_iter().map(|from| {
        (
            from,
            Session {
                four_octet_as: from != From::Old,
                external: !from.internal(),
                ipv4: true,
                ipv6: true,
                longest: 65_535,
            },
        )
    })
}

/// Feeds a stream message by message and holds what happens against the oracle. Says how it ended.
fn play(stream: &[u8], from: From, session: Session) -> &'static str {
    let mut live = Live::new(from, Kind::Edge);
    let mut routes = live.received();
    let mut rest = stream;
    loop {
        let (verdict, length) = judge(rest, session);
        let (message, tail) = rest.split_at(length.min(rest.len()));
        live.receive(message.to_vec());
        rest = tail;
        match verdict {
            Verdict::Reset(allowed) => {
                let Some(Some(Notification { code, subcode, .. })) = live.ended else {
                    panic!("no NOTIFICATION where one of {allowed:?} belongs");
                };
                assert!(allowed.contains(&(code, subcode)), "{code}/{subcode} where one of {allowed:?} belongs");
                return "reset";
            }
            Verdict::Closed => {
                assert_eq!(live.ended, Some(None));
                assert!(matches!(live.reason, Some(DownReason::Received(_))));
                return "closed by the neighbour";
            }
            Verdict::Routes(change) => {
                routes.retain(|prefix| !change.withdrawn.contains(prefix));
                routes.extend(change.announced);
            }
            Verdict::Fine | Verdict::Wait => {}
        }
        assert_eq!(live.ended, None, "{:?}", live.reason);
        assert_eq!(live.received(), routes);
        if rest.is_empty() {
            assert_eq!(live.passed_on, Vec::<u8>::new());
            live.lives_on();
            return "survived";
        }
    }
}

/// Each stream against one kind of neighbour after the other, or against all.
fn play_all(streams: &[(String, Vec<u8>)], all: bool) -> BTreeMap<&'static str, usize> {
    let mut ends = BTreeMap::new();
    for (n, (name, stream)) in streams.iter().enumerate() {
        for (from, session) in sessions().skip(if all { 0 } else { n % 3 }).take(if all { 3 } else { 1 }) {
            let run = std::panic::catch_unwind(|| play(stream, from, session));
            let end = run.unwrap_or_else(|_| panic!("{name}, {from:?}: {stream:02x?}"));
            *ends.entry(end).or_insert(0) += 1;
        }
    }
    ends
}

#[test]
fn a_live_session_answers_fuzzing_corpora_as_the_oracle_does() {
    let Some(corpus) = corpus() else { return };
    assert_eq!(corpus.len(), CORPUS);
    println!("as they are: {:?}", play_all(&corpus, true));
    // Nearly all stop at a broken header. With a right one they get further.
    let updates: Vec<(String, Vec<u8>)> = corpus
        .iter()
        .flat_map(|(name, octets)| {
            let whole = wrapped(2, &octets[..octets.len().min(4077)]);
            let body = wrapped(2, &octets[octets.len().min(19)..octets.len().min(4096)]);
            [(format!("{name} as a body"), whole), (format!("{name} behind another header"), body)]
        })
        .collect();
    println!("as UPDATEs: {:?}", play_all(&updates, false));
    // And as path attributes before a sound route.
    let attributes: Vec<(String, Vec<u8>)> = corpus
        .iter()
        .map(|(name, octets)| {
            let field = [
                &attributes("pref origin path hop", From::External),
                &octets[octets.len().min(23)..octets.len().min(3000)],
            ]
            .concat();
            (format!("{name} as attributes"), update(&[], &field, &[24, 203, 0, 113]))
        })
        .collect();
    println!("as attributes: {:?}", play_all(&attributes, false));
}

/// The same on a machine without the corpora: every message of ours with every octet changed, cut off, and doubled.
#[test]
fn one_octet_wrong() {
    let reach = "pref origin path hop med C0080400010002 reach C00706FBF60A000002 C0200C000000010000000200000003";
    let sound = [
        wrapped(4, &[]),
        open(&[2, 2, 2, 0]),
        update(&[8, 10], &attributes(reach, From::External), &[24, 203, 0, 113]),
    ];
    let mut streams = vec![];
    for message in sound {
        for at in 0..message.len() {
            for change in [0x01, 0x02, 0x10, 0x40, 0x80, 0xff] {
                let mut wrong = message.clone();
                wrong[at] ^= change;
                streams.push((format!("octet {at} ^ {change:#x}"), wrong));
            }
            streams.push((format!("cut off at {at}"), message[..at].to_vec()));
            streams.push((format!("octet {at} twice"), [&message[..=at], &message[at..]].concat()));
        }
    }
    println!("{:?}", play_all(&streams, true));
}

/// Every UPDATE of the collectors' recordings, as the codec and as the oracle read it.
#[test]
fn recorded_updates_mean_the_same_to_the_oracle() {
    let Some(root) = shared("mrt") else { return };
    let mut count = 0;
    for folder in ["bgpdump", "bgpkit", "mrtparse"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            for message in messages(&path) {
                for (_, session) in sessions() {
                    agree(&message, session);
                }
                count += 1;
            }
        }
    }
    println!("{count} messages");
    assert!(count > 10_000, "{count} messages");
}

/// Whole BGP messages of a file, wherever they are: sixteen octets of ones, a length and a type.
fn messages(path: &Path) -> Vec<Vec<u8>> {
    let mut octets = vec![];
    let file = std::fs::File::open(path).unwrap();
    if path.extension().is_some_and(|e| e == "gz") {
        // Some files are cut off on purpose: what came before counts.
        let _ = flate2::read::MultiGzDecoder::new(file).take(8 << 20).read_to_end(&mut octets);
    } else {
        let _ = file.take(8 << 20).read_to_end(&mut octets);
    }
    let (mut all, mut at) = (vec![], 0);
    while let Some(header) = octets.get(at..at + 19) {
        let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
        match octets.get(at..at + length) {
            Some(message) if header[..16] == [0xff; 16] && length >= 19 => {
                all.push(message.to_vec());
                at += length;
            }
            _ => at += 1,
        }
    }
    all
}
