//! Recorded UPDATEs of route collectors, 1999-2018 (MRT, RFC 6396): no panic, counts, and for the files that come with
//! it, agreement with what another program (bgpdump) read.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;

use ubique_model::{Community, Prefix};
use ubique_proto::bgp::attributes::{Attributes, NextHop, Origin, Segment};
use ubique_proto::bgp::message::{Message, Nlri, Notification, Update};
use ubique_proto::bgp::wire::{DecodeContext, decode, encode_updates};

use crate::support::{EBGP, OLD, decode_all, internal, message, sender, shared};

/// A message as the collector got it.
struct Record {
    four_octet_as: bool,
    message: Vec<u8>,
}

/// What a file may yield at most when inflated.
const FILE_MAX: u64 = 32 << 20;

fn contents(path: &Path) -> Vec<u8> {
    let mut octets = Vec::new();
    let file = std::fs::File::open(path).unwrap();
    if path.extension().is_some_and(|e| e == "gz") {
        // Some files are cut off on purpose: what came before counts.
        let _ = flate2::read::MultiGzDecoder::new(file).take(FILE_MAX).read_to_end(&mut octets);
    } else {
        file.take(FILE_MAX).read_to_end(&mut octets).unwrap();
    }
    octets
}

fn u16_at(octets: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes([*octets.get(at)?, *octets.get(at + 1)?])))
}

/// BGP4MP and BGP4MP_ET messages (RFC 6396 §4.4), and the BGP type of the nineties (appendix B.2).
fn records(file: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    let mut rest = file;
    while let Some((head, tail)) = rest.split_first_chunk::<12>() {
        let (kind, subtype) = (u16_at(head, 4), u16_at(head, 6));
        let length = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
        let Some((body, next)) = tail.split_at_checked(length as usize) else {
            break;
        };
        rest = next;
        let body = if kind == Some(17) { body.get(4..).unwrap_or_default() } else { body };
        let message = match (kind, subtype) {
            (Some(16 | 17), Some(subtype @ (1 | 4 | 8 | 9))) => {
                let four_octet_as = matches!(subtype, 4 | 9);
                let ases = if four_octet_as { 8 } else { 4 };
                let addresses = if u16_at(body, ases + 2) == Some(2) { 32 } else { 8 };
                body.get(ases + 4 + addresses..).map(|m| Record { four_octet_as, message: m.to_vec() })
            }
            // Peer AS and address, local AS and address, the body of an UPDATE.
            (Some(5), Some(1)) => body.get(12..).map(|m| Record { four_octet_as: false, message: self::message(2, m) }),
            _ => None,
        };
        records.extend(message);
    }
    records
}

#[derive(Debug, Default)]
struct Count {
    messages: usize,
    updates: usize,
    announced: usize,
    withdrawn: usize,
    faults: BTreeMap<(u8, String), usize>,
    notifications: BTreeMap<String, usize>,
}

/// An internal session is told by its LOCAL_PREF.
fn read(records: &[Record], mut each: impl FnMut(&Update, bool)) -> Count {
    let mut count = Count::default();
    for record in records {
        let external = !internal(&record.message);
        let ctx = DecodeContext { four_octet_as: record.four_octet_as, external, ..EBGP };
        count.messages += 1;
        match decode(&record.message, &ctx) {
            Ok(Message::Update(update)) => {
                count.updates += 1;
                count.withdrawn += update.withdrawn.len();
                count.announced += update.announced.iter().map(|reach| reach.prefixes.len()).sum::<usize>();
                for fault in &update.faults {
                    *count.faults.entry((fault.code, fault.reason.clone())).or_default() += 1;
                }
                each(&update, external);
            }
            Ok(_) => {}
            Err(notification) => *count.notifications.entry(notification.describe()).or_default() += 1,
        }
    }
    count
}

#[test]
fn collectors_updates_decode() {
    let Some(root) = shared("mrt") else { return };
    let (mut files, mut trips) = (0, 0);
    for folder in ["bgpdump", "bgpkit", "mrtparse"] {
        let mut paths: Vec<_> = std::fs::read_dir(root.join(folder)).unwrap().map(|e| e.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.ends_with(".bgp.gz") {
                continue;
            }
            let records = records(&contents(&path));
            let count = read(&records, |update, external| {
                trips += round_trip(update, &DecodeContext { external, ..EBGP });
                trips += round_trip(update, &DecodeContext { external, ..OLD });
            });
            // The rest are tables, cut off, or broken; see below.
            let broken = ["2000.03", "long_withdrawal", "nlri_mask"].iter().any(|part| name.contains(part));
            let plain = name.contains("updates") && !broken;
            assert!(!plain || count.updates > 0, "{name}: {count:?}");
            assert!(!plain || count.announced + count.withdrawn > 0, "{name}: {count:?}");
            files += usize::from(count.updates > 0);
            println!("{name}: {count:?}");
        }
    }
    println!("{trips} round trips");
    assert!(trips > 300_000, "{trips} round trips only");
    assert!(files >= 20, "UPDATEs in {files} files only");
}

/// What a speaker would send on, written and read again, is what came. Says how many UPDATEs were compared.
fn round_trip(update: &Update, ctx: &DecodeContext) -> usize {
    let mut octets = Vec::new();
    let withdrawn = update.withdrawn.as_slice();
    let mut announced = update.announced.iter();
    let mut one = announced.next();
    encode_updates(withdrawn, None, &sender(ctx), &mut octets).unwrap();
    while let (Some(reach), Some(attributes)) = (one, update.attributes.as_deref()) {
        let routes = Some((attributes, reach.next_hop, reach.prefixes.as_slice()));
        if encode_updates(&[], routes, &sender(ctx), &mut octets).is_err() {
            // AS_PATH and AS4_PATH together can exceed what came with 4-octet numbers alone.
            return 0;
        }
        one = announced.next();
    }
    let (mut withdrawn, mut announced) = (vec![], vec![]);
    for message in decode_all(&octets, octets.len(), ctx) {
        let Ok(Message::Update(back)) = message else { panic!("{message:?}") };
        assert_eq!(back.faults, vec![]);
        assert!(back.attributes.is_none() || back.attributes == update.attributes, "{update:?}");
        withdrawn.extend(back.withdrawn);
        announced.extend(back.announced.into_iter().flat_map(|reach| reach.prefixes));
    }
    let all: Vec<Nlri> = update.announced.iter().flat_map(|reach| reach.prefixes.iter().copied()).collect();
    assert_eq!((withdrawn.len(), announced), (update.withdrawn.len(), all));
    1
}

/// bgpdump's notation of what a route is.
fn lines(update: &Update, lines: &mut Vec<String>) {
    lines.extend(update.withdrawn.iter().map(|prefix| format!("W|{prefix}")));
    let Some(attributes) = &update.attributes else {
        return;
    };
    for reach in &update.announced {
        let about = about(attributes, reach.next_hop);
        lines.extend(reach.prefixes.iter().map(|prefix| format!("A|{prefix}|{about}")));
    }
}

fn about(a: &Attributes, next_hop: NextHop) -> String {
    let join = |ases: &[ubique_model::Asn], by: &str| ases.iter().map(|a| a.to_string()).collect::<Vec<_>>().join(by);
    let path: Vec<String> = a
        .as_path
        .0
        .iter()
        .map(|segment| match segment {
            Segment::Sequence(ases) => join(ases, " "),
            Segment::Set(ases) => format!("{{{}}}", join(ases, ",")),
            Segment::ConfedSequence(ases) => format!("({})", join(ases, " ")),
            Segment::ConfedSet(ases) => format!("[{}]", join(ases, ",")),
        })
        .collect();
    let origin = match a.origin {
        Origin::Igp => "IGP",
        Origin::Egp => "EGP",
        Origin::Incomplete => "INCOMPLETE",
    };
    let med = a.med.unwrap_or(0);
    let local_pref = a.local_pref.unwrap_or(0);
    // bgpdump has words for the well-known ones.
    let community = |c: &Community| match *c {
        Community::NO_EXPORT => "no-export".to_owned(),
        Community::NO_ADVERTISE => "no-advertise".to_owned(),
        Community(0xFFFF_FF03) => "local-AS".to_owned(),
        other => other.to_string(),
    };
    let communities = a.communities.iter().map(community).collect::<Vec<_>>().join(" ");
    let atomic = if a.atomic_aggregate { "AG" } else { "NAG" };
    let aggregator = a.aggregator.map(|it| format!("{} {}", it.asn, it.router_id)).unwrap_or_default();
    format!("{}|{origin}|{}|{local_pref}|{med}|{communities}|{atomic}|{aggregator}", path.join(" "), next_hop.address())
}

/// The same of a line of bgpdump: without time and neighbour, addresses in our spelling.
fn bgpdump_line(line: &str) -> Option<String> {
    let mut f: Vec<&str> = line.split('|').collect();
    let prefix: Prefix = f.get(5)?.parse().ok()?;
    match f[2] {
        "W" => Some(format!("W|{prefix}")),
        "A" => {
            f.resize(14, "");
            let next_hop: IpAddr = f[8].parse().ok()?;
            Some(format!("A|{prefix}|{}|{}|{next_hop}|{}|{}|{}|{}|{}", f[6], f[7], f[9], f[10], f[11], f[12], f[13]))
        }
        _ => None,
    }
}

#[test]
fn agrees_with_bgpdump() {
    let Some(root) = shared("mrt/bgpdump") else {
        return;
    };
    // Lines only we have, and only bgpdump has.
    for (name, own, other) in [
        ("updates.20020722.2238.gz", 0, 0),
        // 151 routes of IPv4 multicast, a family we do not negotiate.
        ("updates.20070211.0141.gz", 0, 151),
        // 21 IPv6 routes with the next hop `::`, withdrawn here.
        ("updates.20071015.1505.gz", 21, 21),
        ("updates.20100722.2015.gz", 0, 0),
        ("updates.20160811.1600.gz", 0, 0),
    ] {
        let mut ours = Vec::new();
        let count = read(&records(&contents(&root.join(name))), |update, _| lines(update, &mut ours));
        let theirs = String::from_utf8(contents(&root.join(format!("{name}.bgp.gz")))).unwrap();
        let mut theirs: Vec<String> = theirs.lines().filter_map(bgpdump_line).collect();
        let total = theirs.len();
        ours.sort();
        theirs.sort();
        let (ours, theirs) = difference(&ours, &theirs);
        println!("{name}: {total} lines, only ours {}, only bgpdump's {}; {count:?}", ours.len(), theirs.len());
        for line in ours.iter().take(5).chain(theirs.iter().take(5)) {
            println!("  {line}");
        }
        assert!(total > 3000, "{name}");
        assert_eq!((ours.len(), theirs.len()), (own, other), "{name}");
        assert!(ours.iter().all(|line| line.starts_with("W|")), "{name}");
    }
}

#[test]
fn broken_records() {
    let Some(root) = shared("mrt/bgpdump") else {
        return;
    };
    let first = |name: &str| decode(&records(&contents(&root.join(name)))[0].message, &OLD);
    // 36,894 octets: no session carries that without RFC 8654.
    assert_eq!(first("updates.long_withdrawal.gz"), Err(Notification::with_data(1, 2, [0x90, 0x1e])));
    // The NLRI end in the middle of a prefix; bgpdump keeps the one before, RFC 7606 §5.3 resets.
    assert_eq!(first("updates.nlri_mask_trailing_bits.gz"), Err(Notification::new(3, 10)));
}

/// What only one of two sorted lists has.
fn difference<'a>(a: &'a [String], b: &'a [String]) -> (Vec<&'a String>, Vec<&'a String>) {
    let (mut only_a, mut only_b) = (vec![], vec![]);
    let (mut i, mut j) = (0, 0);
    loop {
        match (a.get(i), b.get(j)) {
            (None, None) => return (only_a, only_b),
            (Some(x), Some(y)) if x == y => (i, j) = (i + 1, j + 1),
            (Some(x), y) if y.is_none_or(|y| x < y) => {
                only_a.push(x);
                i += 1;
            }
            (_, Some(y)) => {
                only_b.push(y);
                j += 1;
            }
            (Some(_), None) => unreachable!("the guard above holds"),
        }
    }
}
