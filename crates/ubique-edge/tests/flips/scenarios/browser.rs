//! A browser over HTTP/3: a hundred connections of one Chromium, each with a download that goes on and requests meanwhile.
//!
//! The page counts chunks, and the route changes when all downloads have got so far: nothing here goes by a clock.

use super::{Clients, Counter, Family, Lab, QUIC_CONNECTIONS, QUIC_FLIPS, Run, SITES, Setup, Tier};
use crate::quic::{Chromium, Servers, number};

/// Of each download, one each [`EVERY_MS`].
const CHUNKS: usize = 40;
const EVERY_MS: u64 = 100;
/// A route change each so many chunks.
const PACE: usize = CHUNKS / (QUIC_FLIPS + 1);
/// After a silence of so long a connection is lost.
const SILENT_MAX_MS: u64 = 5000;
/// Packets that a client may send to the anycast address after it was told of a preferred one: mostly none.
const STRAGGLERS_MAX: u64 = QUIC_CONNECTIONS as u64;

/// The scenarios, for `add`.
pub fn add_all(add: &mut impl FnMut(String, bool, Run)) {
    add("h3_control_v4".into(), false, Box::new(move || control(Family::V4)));
    for family in Family::BOTH {
        add(format!("h3_flips_{family:?}"), true, Box::new(move || flips(family)));
        add(format!("h3_preferred_{family:?}"), true, Box::new(move || preferred(family)));
    }
    add("h3_alone_v6".into(), false, Box::new(move || preferred_alone(Family::V6)));
}

/// What the page reported last, and connections that the servers had.
struct Report {
    text: String,
    connections: Vec<usize>,
}

/// Opens the page, changes the route some times while it downloads, and says what became of it. `None`: nothing to test with.
fn play(lab: &Lab, family: Family, preferred: bool, flips: usize) -> Option<Report> {
    if let Some(why) = Chromium::is_missing() {
        eprintln!("skipped: HTTP/3: {why}");
        return None;
    }
    let servers = Servers::start_h3(&lab.net, family, preferred);
    let query = format!("names={QUIC_CONNECTIONS}&chunks={CHUNKS}&every={EVERY_MS}&silent={SILENT_MAX_MS}");
    let mut page = Chromium::start(&lab.net, family, &servers, &query);
    let mut flipped = 0;
    let text = loop {
        let said = page.next();
        if said.contains("\"connections\"") {
            break said;
        }
        while flipped < flips && number(&said, "chunks") as usize >= (flipped + 1) * PACE {
            flipped += 1;
            lab.net.flip(flipped % SITES);
        }
    };
    drop(page);
    let connections = servers.connections();
    println!(
        "  HTTP/3 {family:?}, preferred address {preferred}, {flipped} flips: {text}, at the sites {connections:?}"
    );
    assert_eq!(flipped, flips, "the route was to change more often");
    Some(Report { text, connections })
}

impl Report {
    fn is(&self, name: &str, count: usize) -> bool {
        number(&self.text, name) as usize == count
    }

    /// Everything came, over the connections of the beginning: the browser may have made one more than it needed.
    fn assert_nothing_lost(&self) {
        assert!(
            self.is("opened", QUIC_CONNECTIONS) && self.is("lost", 0) && self.is("reconnected", 0),
            "{}",
            self.text
        );
        assert_eq!(self.connections[1..], [0; SITES - 1], "connections were made anew");
    }
}

/// Without the data plane one route change loses every connection.
fn control(family: Family) {
    let lab = Lab::new(family, Clients::Timestamps, None, None);
    let Some(report) = play(&lab, family, false, 1) else { return };
    assert!(report.is("opened", QUIC_CONNECTIONS) && report.is("lost", QUIC_CONNECTIONS), "{}", report.text);
}

fn forwarded(lab: &Lab) -> u64 {
    lab.counters().iter().map(|counters| counters[Counter::ForwardId]).sum()
}

fn flips(family: Family) {
    let lab = Lab::new(family, Clients::Timestamps, Some(Setup::new(Tier::Off, family)), None);
    let Some(report) = play(&lab, family, false, QUIC_FLIPS) else { return };
    report.assert_nothing_lost();
    assert!(forwarded(&lab) > QUIC_CONNECTIONS as u64, "next to nothing was forwarded");
}

/// The browser moves to the site's own address after the handshake: nothing takes the detour any more.
fn preferred(family: Family) {
    let lab = Lab::new(family, Clients::Timestamps, Some(Setup::new(Tier::Off, family)), None);
    let Some(report) = play(&lab, family, true, QUIC_FLIPS) else { return };
    report.assert_nothing_lost();
    let forwarded = forwarded(&lab);
    println!("  {forwarded} packets forwarded");
    assert!(forwarded <= STRAGGLERS_MAX, "the browser did not move");
}

/// So it needs no data plane, but for what happens before.
fn preferred_alone(family: Family) {
    let lab = Lab::new(family, Clients::Timestamps, None, None);
    let Some(report) = play(&lab, family, true, QUIC_FLIPS) else { return };
    report.assert_nothing_lost();
}
