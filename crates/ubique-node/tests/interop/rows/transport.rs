//! Transport and the end of sessions.

use ubique_model::{Family, Prefix};
use ubique_node::bgp::Key;
use ubique_node::bgp::Range;
use ubique_proto::bgp::family::AddressFamilies;
use ubique_proto::bgp::message::Notification;
use ubique_proto::bgp::notification::{cease, code};
use ubique_proto::bgp::speaker::{DownReason, In};
use ubique_sys::process::Signal;

use super::basic::announced;
use crate::cell::{Cell, Pair};
use crate::lab;
use crate::matrix::{Cannot, Proof, Row};
use crate::peer::{Kind, Opens, Setup};
use crate::us::{self, Ours, PEER};

pub const ROWS: &[Row] = &[
    Row::new("md5", "the session comes up with the same TCP MD5 key on both sides (RFC 2385)", md5),
    Row::new(
        "md5-wrong",
        "it does not with another key: the kernel that was called counts three refused segments",
        md5_wrong,
    ),
    Row::new("tcp-ao", "segments are authenticated with TCP-AO (RFC 5925)", no_ao).but(&[
        Cannot::new(Kind::Bird, "no TCP-AO in 2.0", Proof::Rejects("authentication ao;")),
        Cannot::new(Kind::Frr, "no TCP-AO", Proof::Rejects(" neighbor 192.0.2.2 tcp-ao keychain site")),
        Cannot::new(Kind::Gobgp, "no TCP-AO in 3.10", Proof::Rejects("[neighbors.tcp-ao.config]\nkeychain = \"site\"\n")),
        Cannot::new(Kind::Openbgpd, "no TCP-AO", Proof::Rejects(" tcp ao keychain site")),
        Cannot::new(Kind::Exabgp, "no TCP-AO in 4.2", Proof::Rejects("tcp-ao-keyid 1;")),
    ]),
    Row::new("gtsm", "both sides take packets with TTL 255 only (RFC 5082): the session comes up with it", gtsm),
    Row::new(
        "gtsm-wrong",
        "only we do: what the peer sends with its usual TTL is dropped, as our kernel counts, and no session comes up",
        gtsm_wrong,
    ),
    Row::new(
        "dynamic",
        "we know no neighbour, but a range of addresses and an AS: the peer calls from it, gets our route, and is forgotten when it is gone",
        dynamic,
    ),
    Row::new("link-local", "both ends of the session are link-local addresses", link_local).only(Family::Ipv6).but(&[
        Cannot::new(
            Kind::Exabgp,
            "no link-local neighbours: an address with its interface is no address in its configuration",
            Proof::Run(no_scope),
        ),
    ]),
    Row::new(
        "shutdown-ours",
        "we end the session with words (RFC 9003); the peer shows or logs them",
        shutdown_ours,
    )
    .but(&[Cannot::new(
        Kind::Exabgp,
        "4.2.21 cannot decode a NOTIFICATION with a shutdown communication under Python 3: the session ends, the words are lost",
        Proof::Run(undecoded),
    )]),
    Row::new("shutdown-theirs", "the peer ends it with words; we report them", shutdown_theirs).but(&[Cannot::new(
        Kind::Exabgp,
        "`teardown` takes a number, no words; its shutdown communication is always `Administrative Shutdown`",
        Proof::Run(own_words),
    )]),
    Row::new(
        "hold-theirs",
        "the peer freezes (SIGSTOP): after the hold time of 3 s we end the session, 4/0, and have dropped its routes",
        peer_frozen,
    ),
    Row::new(
        "hold-ours",
        "we freeze: the peer says that the hold timer expired and has dropped our route",
        we_freeze,
    ),
];

const KEY: &str = "correct-horse";

/// Segments the kernel must have refused before a key counts as wrong.
const REFUSED: u64 = 3;

/// The hold time of the rows that wait for it, the least there is.
const HOLD_S: u32 = 3;

/// OpenBGPD puts no key on its listeners under Linux.
fn opens(cell: &Cell) -> Opens {
    if cell.kind == Kind::Openbgpd { Opens::Peer } else { Opens::Us }
}

fn md5(cell: &Cell) {
    let mut pair = cell.up(&Setup { password: Some(KEY), opens: opens(cell), ..cell.setup() });
    announced(cell, &mut pair);
    assert_eq!(wrong_keys(cell), 0);
}

fn md5_wrong(cell: &Cell) {
    let setup = Setup { password: Some(KEY), opens: opens(cell), ..cell.setup() };
    let mut pair = cell.start_with(&setup, |ours| ours.endpoints[0].key = Some(Key::Md5(us::secret("wrong-horse"))));
    pair.until_true("segments were refused", |_| wrong_keys(cell) >= REFUSED);
    assert!(!pair.us.established() && !pair.peer.established());
    assert_eq!(pair.us.status().counters.messages_in, 0);
}

/// Segments with a wrong key, as counted by both kernels.
fn wrong_keys(cell: &Cell) -> u64 {
    counter("TCPMD5Failure") + cell.ns.run(|| counter("TCPMD5Failure")).unwrap()
}

/// A counter of TCP in the namespace of the calling thread.
fn counter(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let place = names.split(' ').position(|known| known == name).unwrap();
    values.split(' ').nth(place).unwrap().parse().unwrap()
}

fn gtsm(cell: &Cell) {
    // ExaBGP sets the TTL of connections it opens only.
    let opens = if cell.kind == Kind::Exabgp { Opens::Peer } else { Opens::Us };
    let mut pair = cell.up_with(&Setup { gtsm: true, opens, ..cell.setup() }, secured);
    announced(cell, &mut pair);
}

fn secured(ours: &mut Ours) {
    ours.endpoints[0].ttl = 255;
    ours.endpoints[0].min_ttl = 255;
}

fn gtsm_wrong(cell: &Cell) {
    let mut pair = cell.start_with(&cell.setup(), secured);
    pair.until_true("packets were dropped", |_| counter("TCPMinTTLDrop") >= REFUSED);
    assert!(!pair.us.established() && !pair.peer.established());
    assert_eq!(pair.us.status().counters.messages_in, 0);
}

fn dynamic(cell: &Cell) {
    let setup = Setup { opens: Opens::Peer, ..cell.setup() };
    let prefix = Prefix::new(setup.theirs.parse().unwrap(), if cell.family == Family::Ipv4 { 24 } else { 64 }).unwrap();
    let mut pair = cell.up_with(&setup, |ours| {
        let (peer, endpoint) = (ours.speaker.peers.remove(0), ours.endpoints.remove(0));
        ours.ranges = vec![Range { prefix: prefix.trunc(), asns: vec![peer.asn], limit: 2, peer, endpoint }];
    });
    announced(cell, &mut pair);
    pair.signal_peer(Signal::Kill);
    pair.until_true("it is forgotten", |p| p.us.driver().speaker().peer(PEER).is_none());
}

/// None of the peers has it.
fn no_ao(cell: &Cell) {
    unreachable!("{} has no TCP-AO", cell.kind);
}

fn link_local(cell: &Cell) {
    let [ours, theirs] = lab::LINK_LOCAL;
    let mut setup = Setup { theirs: theirs.to_owned(), ours: format!("{ours}%{}", lab::LINK), ..cell.setup() };
    if cell.kind == Kind::Frr {
        setup.ours = ours.to_owned();
        setup.zebra = true;
        setup.extra = format!(" neighbor {ours} interface {}", lab::LINK);
    }
    let mut pair = cell.up_with(&setup, |ours| {
        ours.endpoints[0].interface = Some(lab::LINK.to_owned());
        ours.endpoints[0].local = lab::LINK_LOCAL[0].parse().ok();
        ours.peer().families = AddressFamilies::only(Family::Ipv6);
    });
    let route = announced(cell, &mut pair);
    // Two addresses are sent (RFC 2545 §3); some peers show the one they use.
    assert!([cell.ours(), ours].iter().any(|a| route.next_hop.starts_with(a)), "{route:?}");
}

fn no_scope(cell: &Cell) {
    let [ours, theirs] = lab::LINK_LOCAL;
    let setup = Setup { theirs: theirs.to_owned(), ours: format!("{ours}%{}", lab::LINK), ..cell.setup() };
    crate::peers::rejects_all(cell, &setup);
}

const WORDS: &str = "site ams: disk swap";

fn shutdown_ours(cell: &Cell) {
    let mut pair = cell.up(&cell.setup());
    announced(cell, &mut pair);
    let subcode = cease::ADMINISTRATIVE_SHUTDOWN;
    pair.us.handle(In::StopPeer { peer: PEER, subcode, message: WORDS.into() });
    pair.until_true("the peer has our words", |p| (p.peer.said() + &p.peer.log()).contains(WORDS));
    pair.until_true("our route is gone", |p| p.peer.route(cell.our_prefix()).is_none());
}

/// The NOTIFICATION the peer ended the session with.
fn received(pair: &mut Pair) -> Notification {
    match pair.until_ended() {
        DownReason::Received(notification) => notification,
        other => panic!("not ended by the peer: {other:?}"),
    }
}

fn shutdown_theirs(cell: &Cell) {
    assert_eq!(their_words(cell), WORDS);
}

/// ExaBGP's are not those it was given.
fn own_words(cell: &Cell) {
    assert_eq!(their_words(cell), "Administrative Shutdown");
}

fn their_words(cell: &Cell) -> String {
    let mut pair = cell.up(&cell.setup());
    pair.peer.shut_down(WORDS);
    let notification = received(&mut pair);
    assert_eq!((notification.code, notification.subcode), (code::CEASE, cease::ADMINISTRATIVE_SHUTDOWN));
    notification.shutdown_communication().unwrap().unwrap_or_default().to_owned()
}

fn undecoded(cell: &Cell) {
    let mut pair = cell.up(&cell.setup());
    announced(cell, &mut pair);
    let subcode = cease::ADMINISTRATIVE_SHUTDOWN;
    pair.us.handle(In::StopPeer { peer: PEER, subcode, message: WORDS.into() });
    pair.until_true("it cannot decode them", |p| p.peer.said().contains("can not decode"));
    pair.until_true("our route is gone", |p| p.peer.route(cell.our_prefix()).is_none());
}

fn peer_frozen(cell: &Cell) {
    let theirs = crate::peer::Theirs::new(cell.their_prefix());
    let mut pair = cell.up(&Setup { hold_time_s: HOLD_S, announce: vec![theirs], ..cell.setup() });
    pair.until_true("we have its route", |p| p.us.route(cell.their_prefix()).is_some());
    pair.signal_peer(Signal::Stop);
    let reason = pair.until_ended();
    assert_eq!(reason, DownReason::Sent(Notification::new(code::HOLD_TIMER_EXPIRED, 0)));
    assert!(pair.us.route(cell.their_prefix()).is_none());
    pair.signal_peer(Signal::Cont);
    pair.until_up();
}

fn we_freeze(cell: &Cell) {
    let mut pair = cell.up(&Setup { hold_time_s: HOLD_S, ..cell.setup() });
    announced(cell, &mut pair);
    // Our side does not run meanwhile; its sockets stay open.
    crate::lab::until("the peer has given us up", || (!pair.peer.established()).then_some(()));
    crate::lab::until("our route is gone", || pair.peer.route(cell.our_prefix()).is_none().then_some(()));
    crate::lab::until("it says why", || {
        let said = pair.peer.said() + &pair.peer.log();
        let letters: String = said.to_lowercase().chars().filter(char::is_ascii_lowercase).collect();
        letters.contains("holdtimerexpired").then_some(())
    });
    let reason = pair.until_ended();
    assert_eq!(reason, DownReason::Received(Notification::new(code::HOLD_TIMER_EXPIRED, 0)));
}
