//! What the RFCs ask for, written a second time and without the codec: it judges octets and builds no values.
//!
//! A verdict names every NOTIFICATION that is right where a message has several faults and no RFC says which comes
//! first. Unicast routes only, with 4-octet or 2-octet AS numbers, without path identifiers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ubique_model::Prefix;

/// What was negotiated.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    pub four_octet_as: bool,
    pub external: bool,
    pub ipv4: bool,
    pub ipv6: bool,
    /// Longest message but OPEN and KEEPALIVE: 4,096, or 65,535 once we have offered it (RFC 8654 §4).
    pub longest: usize,
}

/// What is to happen in state Established.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The message is not complete: nothing yet.
    Wait,
    /// Taken, or ignored; no route changes.
    Fine,
    /// Routes change, the session stays.
    Routes(Routes),
    /// Ended by the neighbour.
    Closed,
    /// Ended with one of these: error code, subcode.
    Reset(BTreeSet<(u8, u8)>),
}

/// Prefixes taken and taken back, and what was wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    pub announced: BTreeSet<Prefix>,
    pub withdrawn: BTreeSet<Prefix>,
    /// Attributes dropped.
    pub discarded: BTreeSet<u8>,
    /// Attributes for which the routes are withdrawn (RFC 7606 §2).
    pub treated: BTreeSet<u8>,
}

fn reset(code: u8, subcode: u8) -> Verdict {
    Verdict::Reset([(code, subcode)].into())
}

fn number(octets: &[u8]) -> usize {
    octets.iter().fold(0, |n, octet| n << 8 | usize::from(*octet))
}

/// The first message of a stream, and how long it is.
pub fn judge(stream: &[u8], session: Session) -> (Verdict, usize) {
    let Some(header) = stream.get(..19) else { return (Verdict::Wait, stream.len()) };
    // RFC 4271 §6.1
    if header[..16] != [0xff; 16] {
        return (reset(1, 1), stream.len());
    }
    let (length, kind) = (number(&header[16..18]), header[18]);
    let least = [29, 23, 21, 19, 23];
    let Some(least) = kind.checked_sub(1).and_then(|n| least.get(usize::from(n))) else {
        // Which of the two comes first is not said.
        let both = if (19..=session.longest).contains(&length) { vec![(1, 3)] } else { vec![(1, 2), (1, 3)] };
        return (Verdict::Reset(both.into_iter().collect()), stream.len());
    };
    let longest = if matches!(kind, 1 | 4) { 4096 } else { session.longest };
    if length < *least || length > longest || (kind == 4 && length != 19) {
        return (reset(1, 2), stream.len());
    }
    let Some(body) = stream.get(19..length) else { return (Verdict::Wait, stream.len()) };
    let verdict = match kind {
        // RFC 6608 §3, whatever it says.
        1 => reset(5, 3),
        2 => update(body, session),
        3 => Verdict::Closed,
        4 => Verdict::Fine,
        // RFC 2918 §3; RFC 7313 §5.
        _ if length == 23 => Verdict::Fine,
        _ if matches!(body[2], 1 | 2) => reset(7, 1),
        _ => reset(1, 2),
    };
    (verdict, length)
}

/// RFC 4271 §4.3: prefixes, or `None` when the field cannot be read (RFC 7606 §5.3).
fn prefixes(mut field: &[u8], bits: usize) -> Option<Vec<Prefix>> {
    let mut all = vec![];
    while let Some((&length, rest)) = field.split_first() {
        let octets = usize::from(length).div_ceil(8);
        if usize::from(length) > bits || rest.len() < octets {
            return None;
        }
        let mut address = [0; 16];
        address[..octets].copy_from_slice(&rest[..octets]);
        let prefix = if bits == 32 {
            Prefix::new(Ipv4Addr::from(*address.first_chunk::<4>()?).into(), length)
        } else {
            Prefix::new(Ipv6Addr::from(address).into(), length)
        };
        all.push(prefix.ok()?.trunc());
        field = &rest[octets..];
    }
    Some(all)
}

/// A next hop as it came, and prefixes.
type Reach = (Vec<u8>, Vec<Prefix>);

/// Gathers what is wrong with an UPDATE.
#[derive(Default)]
struct Inquest {
    resets: BTreeSet<(u8, u8)>,
    /// Treat-as-withdraw: attribute, and the subcode RFC 4271 had for it.
    withdraws: Vec<(u8, u8)>,
    discarded: BTreeSet<u8>,
    values: BTreeMap<u8, Vec<u8>>,
    seen: BTreeSet<u8>,
}

fn update(body: &[u8], session: Session) -> Verdict {
    let withdrawn_end = 2 + number(&body[..2]);
    let Some(length) = body.get(withdrawn_end..withdrawn_end + 2) else { return reset(3, 1) };
    let attributes_end = withdrawn_end + 2 + number(length);
    let Some(attributes) = body.get(withdrawn_end + 2..attributes_end) else { return reset(3, 1) };
    let mut inquest = Inquest::default();
    let mut read = |field: &[u8]| {
        let read = prefixes(field, 32);
        if read.is_none() {
            inquest.resets.insert((3, 10));
        }
        read.unwrap_or_default()
    };
    let (withdrawn, nlri) = (read(&body[2..withdrawn_end]), read(&body[attributes_end..]));
    inquest.attributes(attributes, session);
    inquest.verdict(withdrawn, nlri, session)
}

impl Inquest {
    fn attributes(&mut self, mut field: &[u8], session: Session) {
        while !field.is_empty() {
            let code = field.get(1).copied().unwrap_or(0);
            let long = field[0] & 0x10 != 0;
            let head = if long { 4 } else { 3 };
            let value = field.get(2..head).and_then(|length| field.get(head..head + number(length)));
            let Some(value) = value else {
                // RFC 7606 §4
                self.withdraws.push((code, 1));
                return;
            };
            if self.seen.insert(code) {
                self.attribute(field[0], code, value, session);
            } else if matches!(code, 14 | 15) {
                // RFC 7606 §3 g
                self.resets.insert((3, 1));
            } else {
                self.discarded.insert(code);
            }
            field = &field[head + value.len()..];
        }
    }

    /// RFC 7606 §3 c, §7, and the RFC of each attribute.
    fn attribute(&mut self, flags: u8, code: u8, value: &[u8], session: Session) {
        let kind = flags & 0xc0;
        let internal_only = matches!(code, 5 | 9 | 10) && session.external;
        let old_only = matches!(code, 17 | 18) && session.four_octet_as;
        if internal_only || old_only {
            self.discarded.insert(code);
            return;
        }
        let right = match code {
            1 | 2 | 3 | 5 | 6 => 0x40,
            4 | 9 | 10 | 14 | 15 | 26 | 29 => 0x80,
            // Never assigned.
            0 | 255 if kind & 0x80 != 0 => return self.discarded.extend([code]),
            7 | 8 | 16 | 17 | 18 | 22 | 23 | 25 | 32 | 35 | 40 | 128 => 0xc0,
            // RFC 4271 §6.3: only well-known ones must be known.
            _ => {
                if kind & 0x80 == 0 {
                    self.resets.insert((3, 2));
                }
                return;
            }
        };
        if kind != right {
            return match code {
                14 | 15 => self.resets.extend([(3, 9)]),
                // RFC 6793 §6; RFC 9012 §13; RFC 7311 §4; RFC 9552 §8.2.2
                17 | 18 | 23 | 26 | 29 => self.discarded.extend([code]),
                _ => self.withdraws.push((code, 4)),
            };
        }
        let long = if session.four_octet_as { 4 } else { 2 };
        let confederations = code == 2 && !session.external;
        let fault = match code {
            1 if value.len() != 1 => Some(5),
            1 => (value[0] > 2).then_some(6),
            2 => (!path(value, long, confederations)).then_some(11),
            3 | 4 | 5 | 9 => (value.len() != 4).then_some(5),
            6 => (!value.is_empty()).then_some(5),
            7 => (value.len() != long + 4 || number(&value[..long]) == 0).then_some(5),
            18 => (value.len() != 8 || number(&value[..4]) == 0).then_some(5),
            17 => (value.is_empty() || !path(value, 4, true)).then_some(11),
            8 | 10 => (value.is_empty() || !value.len().is_multiple_of(4)).then_some(9),
            16 => (value.is_empty() || !value.len().is_multiple_of(8)).then_some(9),
            32 => (value.is_empty() || !value.len().is_multiple_of(12)).then_some(9),
            // RFC 9234 §5
            35 => (value.len() != 4).then_some(5),
            22 | 23 | 25 | 26 | 40 | 128 => (!opaque(code, value, session)).then_some(9),
            _ => None,
        };
        match (fault, code) {
            // A tunnel encapsulation without a tunnel says nothing (RFC 9012 §13).
            (Some(_), 23) if value.is_empty() => self.discarded.extend([code]),
            (Some(_), 6 | 7 | 17 | 18 | 26 | 40) => self.discarded.extend([code]),
            (Some(subcode), _) => self.withdraws.push((code, subcode)),
            (None, _) => self.values.extend([(code, value.to_vec())]),
        }
    }

    /// MP_REACH_NLRI: next hop and prefixes, `None` when it is not of a family in use; whether it names any route.
    fn reach(&mut self, session: Session) -> (Option<Reach>, bool) {
        let Some(value) = self.values.remove(&14) else { return (None, false) };
        let parts = value.get(3).map(|length| 4 + usize::from(*length)).and_then(|end| {
            let hop = value.get(4..end)?;
            // One reserved octet.
            Some((hop.to_vec(), value.get(end + 1..)?))
        });
        let Some((hop, routes)) = parts else {
            self.resets.insert((3, 9));
            return (None, false);
        };
        let named = !routes.is_empty();
        let Some(bits) = bits(&value, session) else { return (None, named) };
        let fits = if bits == 32 { hop.len() == 4 } else { matches!(hop.len(), 16 | 32) };
        match prefixes(routes, bits).filter(|_| fits) {
            Some(routes) => (Some((hop, routes)), named),
            None => {
                self.resets.insert((3, 9));
                (None, false)
            }
        }
    }

    fn unreach(&mut self, session: Session) -> Vec<Prefix> {
        let Some(value) = self.values.remove(&15) else { return vec![] };
        let Some(routes) = value.get(3..) else {
            self.resets.insert((3, 9));
            return vec![];
        };
        let Some(bits) = bits(&value, session) else { return vec![] };
        let read = prefixes(routes, bits);
        if read.is_none() {
            self.resets.insert((3, 9));
        }
        read.unwrap_or_default()
    }

    fn verdict(mut self, mut withdrawn: Vec<Prefix>, mut nlri: Vec<Prefix>, session: Session) -> Verdict {
        let (reach, named) = self.reach(session);
        let unreach = self.unreach(session);
        let reachable = !nlri.is_empty() || named;
        if !session.ipv4 {
            withdrawn.clear();
            nlri.clear();
        }
        withdrawn.extend(unreach);
        // RFC 4271 §6.3, RFC 7606 §7.3: a next hop nobody can have.
        if let Some(hop) = self.values.get(&3).filter(|_| !nlri.is_empty())
            && matches!(hop[0], 0 | 224..)
        {
            self.withdraws.push((3, 8));
        }
        let (hop, routes) = reach.unwrap_or_default();
        let nobody = match hop.len() {
            4 => matches!(hop[0], 0 | 224..),
            _ => hop.get(..16).is_some_and(|hop| hop == [0; 16] || hop[0] == 0xff),
        };
        if nobody && !routes.is_empty() {
            self.withdraws.push((14, 9));
        }
        let (classic, any) = (!nlri.is_empty(), unicast(&nlri) || unicast(&routes));
        for (code, needed) in [(1, any), (2, any), (3, classic), (5, any && !session.external)] {
            // RFC 7606 §3 d
            if needed && !self.seen.contains(&code) {
                self.withdraws.push((code, 3));
            }
        }
        if !self.withdraws.is_empty() && !reachable {
            // RFC 7606 §5.2
            self.resets.extend(self.withdraws.iter().map(|(_, subcode)| (3, *subcode)));
        }
        if !self.resets.is_empty() {
            return Verdict::Reset(self.resets);
        }
        nlri.extend(routes);
        self.routes(withdrawn, nlri)
    }

    fn routes(self, withdrawn: Vec<Prefix>, announced: Vec<Prefix>) -> Verdict {
        let set = |list: Vec<Prefix>| list.into_iter().filter(|prefix| !multicast(prefix)).collect();
        let mut discarded = self.discarded;
        if withdrawn.iter().chain(&announced).any(multicast) {
            discarded.insert(0);
        }
        let (mut withdrawn, mut announced): (BTreeSet<Prefix>, BTreeSet<Prefix>) = (set(withdrawn), set(announced));
        if self.withdraws.is_empty() {
            withdrawn.retain(|prefix| !announced.contains(prefix));
        } else {
            withdrawn.append(&mut announced);
        }
        let treated = self.withdraws.into_iter().map(|(code, _)| code).collect();
        Verdict::Routes(Routes { announced, withdrawn, discarded, treated })
    }
}

/// Length of the addresses of a family in use.
fn bits(value: &[u8], session: Session) -> Option<usize> {
    match value[..3] {
        [0, 1, 1] if session.ipv4 => Some(32),
        [0, 2, 1] if session.ipv6 => Some(128),
        _ => None,
    }
}

fn unicast(prefixes: &[Prefix]) -> bool {
    prefixes.iter().any(|prefix| !multicast(prefix))
}

fn multicast(prefix: &Prefix) -> bool {
    match prefix {
        Prefix::V4(net) => net.prefix_len() >= 4 && net.addr().octets()[0] >> 4 == 0b1110,
        Prefix::V6(net) => net.prefix_len() >= 8 && net.addr().octets()[0] == 0xff,
    }
}

/// Whether an attribute nobody reads here is well formed.
fn opaque(code: u8, value: &[u8], session: Session) -> bool {
    match code {
        // RFC 6514 §5
        22 => value.len() >= 5,
        // RFC 9012 §2: tunnels of sub-TLVs, whose length has two octets from type 128 on.
        23 => {
            let tunnel = |_, sub: &[u8]| records(sub, 1, |kind| if kind < 128 { 1 } else { 2 }, |_, _| true);
            !value.is_empty() && records(value, 2, |_| 2, tunnel)
        }
        // RFC 7606 §7.15
        25 => !value.is_empty() && value.len().is_multiple_of(20),
        // RFC 7311 §3: the length counts all of the TLV.
        26 => aigp(value),
        // RFC 8669 §4: not across the border of a domain.
        40 => {
            let tlv = |kind, value: &[u8]| match kind {
                1 => value.len() == 7,
                3 => value.len() >= 8 && value.len() % 6 == 2,
                _ => true,
            };
            !session.external && !value.is_empty() && records(value, 1, |_| 2, tlv)
        }
        // RFC 6368 §5: an AS, then attributes but those of reachability.
        _ => value.get(4..).is_some_and(attr_set),
    }
}

/// Type, length, value to the end: `kind` octets of type, `length` of length for each type.
fn records(mut field: &[u8], kind: usize, length: fn(usize) -> usize, fits: impl Fn(usize, &[u8]) -> bool) -> bool {
    while !field.is_empty() {
        let Some(head) = field.get(..kind) else { return false };
        let name = number(head);
        let start = kind + length(name);
        let Some(value) = field.get(kind..start).and_then(|l| field.get(start..start + number(l))) else {
            return false;
        };
        if !fits(name, value) {
            return false;
        }
        field = &field[start + value.len()..];
    }
    true
}

fn aigp(mut value: &[u8]) -> bool {
    while !value.is_empty() {
        let length = value.get(1..3).map_or(0, number);
        if length < 3 || length > value.len() || (value[0] == 1 && length != 11) {
            return false;
        }
        value = &value[length..];
    }
    true
}

fn attr_set(mut field: &[u8]) -> bool {
    while !field.is_empty() {
        let head = if field[0] & 0x10 == 0 { 3 } else { 4 };
        let Some(length) = field.get(2..head) else { return false };
        let end = head + number(length);
        if field.len() < end || matches!(field[1], 3 | 14 | 15) {
            return false;
        }
        field = &field[end..];
    }
    true
}

/// RFC 4271 §4.3, RFC 7606 §7.2, RFC 7607, RFC 5065 §5: whether a path is well formed.
fn path(mut value: &[u8], long: usize, confederations: bool) -> bool {
    while let [kind, count, rest @ ..] = value {
        let octets = usize::from(*count) * long;
        let known = matches!(kind, 1 | 2) || (matches!(kind, 3 | 4) && confederations);
        if !known || *count == 0 || rest.len() < octets || rest[..octets].chunks(long).any(|asn| number(asn) == 0) {
            return false;
        }
        value = &rest[octets..];
    }
    value.is_empty()
}
