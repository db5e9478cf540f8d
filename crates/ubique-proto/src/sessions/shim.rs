//! What stands before a packet on its way from one site to another: UDP (RFC 768) to the other site's unicast address, then a
//! shim, then the packet as it came, from its IP header on.
//!
//! ```text
//!  0               8               16              24            31
//! +-------+-------+---------------+---------------+---------------+
//! |version| kind  | sender        | origin        | receiver      |
//! +-------+-------+---------------+---------------+---------------+
//! | the sender's wall clock, ms, lower 32 bits                    |
//! +---------------------------------------------------------------+
//! | sites that were asked, one bit each; or what Alive asks,      |
//! | and Here returns; else 0                            (8 octets)|
//! +---------------------------------------------------------------+
//! | tag: SipHash-1-3 of the first 8 octets, the next 8 where they |
//! | say something, and 7 of the flow's hash             (8 octets)|
//! +---------------------------------------------------------------+
//! ```
//!
//! The tag binds the shim to one connection, to the two sites and, by the clock, to some minutes: who has no key can neither make one nor
//! use one that he saw for anything but that connection's own packets, sent to the same site once more. Numbers are big-endian, hash and tag little-endian, as C reads them.
//! A packet that was forwarded is never forwarded again, except a [`Kind::Probe`], which goes to each site once.

use super::siphash::siphash13;
use super::timestamp::SLACK_MS;
use super::{Key, SITES_MAX, Site};

/// Octets of a shim.
pub const BYTES: usize = 24;

/// Octets before a packet that is forwarded over IPv6: IPv6 and UDP header, shim.
pub const OVERHEAD_V6: usize = 40 + 8 + BYTES;

/// Octets before a packet that is forwarded over IPv4.
pub const OVERHEAD_V4: usize = 20 + 8 + BYTES;

/// The only one there is.
const VERSION: u8 = 1;

/// Where the tag stands.
const TAG: usize = 16;

/// Octets of the flow's hash that the tag covers: with the length they fill a word of the hash.
const FLOW_BYTES: usize = 7;

/// What the receiving site is to do with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Yours: deliver it.
    Data = 0,
    /// Somebody's: deliver it if it is yours, else ask the next; the origin gets it back when nobody has it.
    Probe = 1,
    /// A new connection, for you to accept: the sender drains.
    New = 2,
    /// The connection you asked about is mine: a [`Flow`](super::Flow) follows instead of a packet.
    Mine = 3,
    /// A reply of mine to a client of yours: send it on from where you are.
    Reply = 4,
    /// Are you there? Answered with [`Kind::Here`] by the data plane itself. Nothing follows.
    Alive = 5,
    /// I am here.
    Here = 6,
}

impl Kind {
    /// `None`: no such kind.
    pub fn of(number: u8) -> Option<Kind> {
        use Kind::{Alive, Data, Here, Mine, New, Probe, Reply};
        [Data, Probe, New, Mine, Reply, Alive, Here].into_iter().find(|kind| *kind as u8 == number)
    }

    /// Whether [`Shim::asked`] says something.
    fn asks(self) -> bool {
        matches!(self, Kind::Probe | Kind::Alive | Kind::Here)
    }
}

/// A shim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shim {
    /// What is to be done.
    pub kind: Kind,
    /// Who sent it last.
    pub sender: Site,
    /// The site that got the packet from its client.
    pub origin: Site,
    /// Whom it is for: another site, which the kernel of one that never heard of the connection would answer by a reset, must not take it.
    pub receiver: Site,
    /// When it was sent: wall clock of `sender`, ms since 1970, lower 32 bits.
    pub wall_ms: u32,
    /// Sites that a [`Kind::Probe`] has been to, bit `n` for site `n`. Of [`Kind::Alive`] any number, which [`Kind::Here`] returns. Of
    /// all others 0.
    pub asked: u64,
}

/// Why a shim is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too short, of another version or of no kind or site there is.
    Form,
    /// Not made with our key for this flow.
    Tag,
    /// Made too long ago, or ahead of our clock, by more than [`SLACK_MS`].
    Time,
}

impl Shim {
    /// `flow`: [`Flow::hash`](super::Flow::hash) of the connection; 0 where nothing follows.
    pub fn encode(&self, key: Key, flow: u64) -> [u8; BYTES] {
        let mut octets = [0; BYTES];
        octets[0] = VERSION << 4 | self.kind as u8;
        octets[1] = self.sender.number();
        octets[2] = self.origin.number();
        octets[3] = self.receiver.number();
        octets[4..8].copy_from_slice(&self.wall_ms.to_be_bytes());
        octets[8..16].copy_from_slice(&self.asked.to_be_bytes());
        let tag = tag(self.kind, key, &octets, flow);
        octets[TAG..].copy_from_slice(&tag);
        octets
    }

    /// The shim at the beginning of `octets`. `flow` as for [`Shim::encode`]; `wall_ms`: our wall clock, ms since 1970.
    ///
    /// # Errors
    /// [`Refusal`]; the tag is looked at before the time. Whether it is for us is the caller's to see.
    pub fn decode(octets: &[u8], key: Key, flow: u64, wall_ms: u64) -> Result<Shim, Refusal> {
        let octets = octets.first_chunk::<BYTES>().ok_or(Refusal::Form)?;
        let [first, sender, origin, receiver, t0, t1, t2, t3, asked @ ..] = octets;
        let asked = asked.first_chunk().map_or(0, |asked| u64::from_be_bytes(*asked));
        let kind = Kind::of(first & 0xf).filter(|kind| kind.asks() || asked == 0);
        let kind = kind.filter(|_| first >> 4 == VERSION);
        let site = |number: &u8| Site::new(*number).ok_or(Refusal::Form);
        let (kind, sender, origin, receiver) =
            (kind.ok_or(Refusal::Form)?, site(sender)?, site(origin)?, site(receiver)?);
        if octets[TAG..] != tag(kind, key, octets, flow) {
            return Err(Refusal::Tag);
        }
        let sent = u32::from_be_bytes([*t0, *t1, *t2, *t3]);
        if !is_fresh(sent, wall_ms) {
            return Err(Refusal::Time);
        }
        Ok(Shim { kind, sender, origin, receiver, wall_ms: sent, asked })
    }

    /// The next site that a probe goes to: the lowest of `up` (bit `n` for site `n`) that was not asked yet. `None`: nobody is left.
    pub fn next(&self, up: u64) -> Option<Site> {
        let left = up & !self.asked;
        Site::new(left.trailing_zeros() as u8).filter(|site| site.number() < SITES_MAX)
    }
}

/// Whether a clock of `sent` differs from ours by no more than [`SLACK_MS`].
fn is_fresh(sent: u32, wall_ms: u64) -> bool {
    (wall_ms as u32).wrapping_sub(sent).wrapping_add(SLACK_MS) <= 2 * SLACK_MS
}

fn tag(kind: Kind, key: Key, octets: &[u8; BYTES], flow: u64) -> [u8; 8] {
    let head = if kind.asks() { &octets[..TAG] } else { &octets[..TAG - 8] };
    siphash13(key, &[head, &flow.to_le_bytes()[..FLOW_BYTES]].concat()).to_le_bytes()
}
