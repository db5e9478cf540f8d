//! The BGP codec: messages, streams, what is written and read again.

use std::net::Ipv6Addr;
use std::time::Duration;

use ubique_model::{Asn, Community, Family, LargeCommunity, Prefix};
use ubique_proto::bgp::attributes::{Aggregator, AsPath, Attributes, NextHop, Origin, RawAttribute, Segment};
use ubique_proto::bgp::family::{AddressFamilies, AddressFamily};
use ubique_proto::bgp::message::{
    AddPath, Capability, GracefulRestart, LongLived, Message, Nlri, Notification, Open, Role, Treatment, Update,
};
use ubique_proto::bgp::wire::{
    DecodeContext, EncodeContext, FRAMER_CAPACITY, Framer, HEADER_LEN, MAX_EXTENDED_MESSAGE, MAX_MESSAGE, decode,
    encode_end_of_rib, encode_keepalive, encode_notification, encode_open, encode_route_refresh, encode_updates,
};

use crate::agree::agree;
use crate::oracle::Session;
use crate::rng::{Rng, feed};

/// Faults of one message that are kept at most.
const MAX_FAULTS: usize = 16;

fn families(bits: u8) -> AddressFamilies {
    AddressFamily::ALL.into_iter().enumerate().filter(|(n, _)| bits & 1 << n != 0).map(|(_, family)| family).collect()
}

/// Any that can be negotiated.
fn context(rng: &mut Rng) -> DecodeContext {
    let (flags, sets) = (rng.octet(), rng.octet());
    DecodeContext {
        four_octet_as: flags & 1 == 0,
        external: flags & 2 == 0,
        families: families(!sets),
        add_path: if flags & 4 == 0 { AddressFamilies::NONE } else { families(sets >> 4) },
        extended_next_hop: if flags & 8 == 0 { AddressFamilies::NONE } else { families(0b0101) },
        max_message: if flags & 16 == 0 { MAX_MESSAGE } else { MAX_EXTENDED_MESSAGE },
    }
}

/// The sender's side of it.
fn sender(ctx: &DecodeContext) -> EncodeContext {
    EncodeContext {
        four_octet_as: ctx.four_octet_as,
        external: ctx.external,
        add_path: ctx.add_path,
        extended_next_hop: ctx.extended_next_hop,
        max_message: ctx.max_message,
    }
}

fn wrapped(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0xff; 16];
    message.extend(((HEADER_LEN + body.len()) as u16).to_be_bytes());
    message.push(kind);
    message.extend(body);
    message
}

/// Octets: context, kind of message (0: header included), then the message.
pub(crate) fn message(input: &[u8]) {
    let mut rng = feed(input);
    let ctx = context(&mut rng);
    let kind = rng.below(7) as u8;
    let rest = rng.rest();
    let message = if kind == 0 { rest } else { wrapped(kind, &rest) };
    let result = decode(&message, &ctx);
    judge(&result, &ctx);
    if ctx.add_path.is_empty() && ctx.extended_next_hop.is_empty() {
        judged_twice(&message, &ctx);
    }
    if let Ok(message) = result {
        again(&message, &ctx);
    }
}

/// The same as the oracle of the conformance tests says, which knows unicast families only.
fn judged_twice(message: &[u8], ctx: &DecodeContext) {
    agree(
        message,
        Session {
            four_octet_as: ctx.four_octet_as,
            external: ctx.external,
            ipv4: ctx.families.contains(Family::Ipv4),
            ipv6: ctx.families.contains(Family::Ipv6),
            longest: ctx.max_message,
        },
    );
}

/// What holds for anything read.
fn judge(result: &Result<Message, Notification>, ctx: &DecodeContext) {
    match result {
        Err(notification) => {
            assert!(matches!(notification.code, 1..=3 | 7), "{notification:?}");
            assert!(notification.data.len() <= MAX_EXTENDED_MESSAGE);
            assert!(notification.describe().is_ascii());
        }
        Ok(Message::Update(update)) => judge_update(update, ctx),
        Ok(Message::Open(open)) => {
            assert!(open.asn.0 != 0 && !open.router_id.is_unspecified() && !matches!(open.hold_time_s, 1 | 2));
        }
        Ok(Message::Notification(notification)) => assert!(!notification.describe().contains(char::is_control)),
        Ok(Message::Keepalive | Message::RouteRefresh { .. }) => {}
    }
}

fn judge_update(update: &Update, ctx: &DecodeContext) {
    let announces = !update.announced.is_empty() || !update.flows_announced.is_empty();
    assert_eq!(update.attributes.is_some(), announces, "attributes belong to what is announced");
    assert!(update.announced.len() <= 2 && update.faults.len() <= MAX_FAULTS);
    let withdraws = update.faults.iter().any(|fault| fault.treatment == Treatment::TreatAsWithdraw);
    assert!(!withdraws || !announces, "treat-as-withdraw announces nothing");
    assert!(update.faults.iter().all(|fault| !fault.reason.is_empty()));
    let announced = update.announced.iter().flat_map(|reach| &reach.prefixes);
    for nlri in announced.chain(&update.withdrawn) {
        let family = AddressFamily::from(Family::of(&nlri.prefix));
        assert!(ctx.families.contains(family), "{nlri} is of no family agreed upon");
        assert!(nlri.path_id == 0 || ctx.add_path.contains(family), "{nlri} without RFC 7911");
        assert_eq!(nlri.prefix, nlri.prefix.trunc(), "host bits");
    }
    for reach in &update.announced {
        assert!(!reach.prefixes.iter().any(|nlri| update.withdrawn.contains(nlri)), "announced and withdrawn");
        let ipv6_hop = reach.next_hop.address().is_ipv6();
        for nlri in &reach.prefixes {
            let family = Family::of(&nlri.prefix);
            let crossed = ipv6_hop && family == Family::Ipv4;
            assert!(!crossed || ctx.extended_next_hop.contains(family), "{nlri} without RFC 8950");
            assert!(ipv6_hop || family == Family::Ipv4, "{nlri} with an IPv4 next hop");
        }
    }
    for flow in update.flows_announced.iter().chain(&update.flows_withdrawn) {
        assert!(ctx.families.contains(AddressFamily::flowspec(flow.family)));
    }
    if let Some(attributes) = &update.attributes {
        assert!(!attributes.as_path.ases().any(|asn| asn == Asn(0)), "RFC 7607");
        let internal = attributes.local_pref.is_some() || attributes.originator_id.is_some();
        assert!(!ctx.external || (!internal && attributes.cluster_list.is_empty()), "of an internal neighbour");
        let transitive = |raw: &RawAttribute| raw.flags & 0xc0 == 0xc0;
        assert!(attributes.unknown.iter().all(transitive), "RFC 4271 §5: others are not kept");
    }
}

fn one(octets: &[u8], ctx: &DecodeContext) -> Message {
    decode(octets, ctx).unwrap_or_else(|error| panic!("what we write is refused: {error} for {octets:02x?}"))
}

/// What was read, written by us, reads the same.
fn again(message: &Message, ctx: &DecodeContext) {
    let mut out = Vec::new();
    match message {
        Message::Open(open) => {
            // What does not fit or is not known may be lost at first, not twice.
            encode_open(open, &mut out);
            let Message::Open(second) = one(&out, ctx) else { panic!("not an OPEN") };
            let (mut out, asn) = (Vec::new(), second.asn);
            encode_open(&second, &mut out);
            assert_eq!(one(&out, ctx), Message::Open(second));
            assert_eq!(asn, open.asn);
        }
        Message::Notification(notification) => {
            encode_notification(notification, &mut out);
            let Message::Notification(second) = one(&out, ctx) else { panic!("not a NOTIFICATION") };
            assert_eq!((second.code, second.subcode), (notification.code, notification.subcode));
            assert!(notification.data.starts_with(&second.data));
        }
        Message::Keepalive => {
            encode_keepalive(&mut out);
            assert_eq!(one(&out, ctx), *message);
        }
        Message::RouteRefresh { afi, subtype, safi } => {
            if let Some(family) = AddressFamily::from_afi_safi(*afi, *safi) {
                encode_route_refresh(family, *subtype, &mut out);
                assert_eq!(one(&out, ctx), *message);
            }
        }
        Message::Update(update) => update_again(update, ctx),
    }
}

fn update_again(update: &Update, ctx: &DecodeContext) {
    if let Some(family) = update.end_of_rib {
        let mut out = Vec::new();
        encode_end_of_rib(family, &mut out);
        let Message::Update(second) = one(&out, ctx) else { panic!("not an UPDATE") };
        assert_eq!(second.end_of_rib, Some(family));
        return;
    }
    let mut withdrawn = vec![];
    for second in written(&update.withdrawn, None, ctx).unwrap_or_default() {
        withdrawn.extend(second.withdrawn);
    }
    let sorted = |mut list: Vec<Nlri>| {
        list.sort();
        list
    };
    assert_eq!(sorted(withdrawn), sorted(update.withdrawn.clone()));
    let Some(attributes) = &update.attributes else { return };
    for reach in &update.announced {
        // AS_PATH and AS4_PATH together can be longer than what came.
        let Some(back) = written(&[], Some((attributes, reach.next_hop, &reach.prefixes)), ctx) else { continue };
        let mut prefixes = vec![];
        for second in back {
            assert_eq!(second.faults, [], "what we write has no faults");
            let same = same_for(attributes, ctx);
            assert_eq!(second.attributes.as_deref(), same.as_ref().or(second.attributes.as_deref()));
            assert!(second.announced.iter().all(|it| it.next_hop == reach.next_hop));
            prefixes.extend(second.announced.into_iter().flat_map(|it| it.prefixes));
        }
        assert_eq!(prefixes, reach.prefixes);
    }
}

/// The attributes as they come back, where that is simple: 2-octet neighbours do not carry confederation segments
/// beside AS_TRANS (RFC 6793 §4.2.2).
fn same_for(attributes: &Attributes, ctx: &DecodeContext) -> Option<Attributes> {
    let confederation =
        attributes.as_path.0.iter().any(|s| matches!(s, Segment::ConfedSequence(_) | Segment::ConfedSet(_)));
    (ctx.four_octet_as || !confederation).then(|| {
        let mut same = attributes.clone();
        // Written in order of their types (RFC 4271 §5).
        same.unknown.sort_by_key(|raw| raw.code);
        same
    })
}

type Routes<'a> = Option<(&'a Attributes, NextHop, &'a [Nlri])>;

/// Written and read; `None` when it cannot be sent.
fn written(withdrawn: &[Nlri], routes: Routes<'_>, ctx: &DecodeContext) -> Option<Vec<Update>> {
    let mut out = Vec::new();
    encode_updates(withdrawn, routes, &sender(ctx), &mut out).ok()?;
    let messages = stream(&out, out.len(), ctx).into_iter();
    Some(
        messages
            .map(|result| match result {
                Ok(Message::Update(update)) => update,
                other => panic!("not an UPDATE: {other:?}"),
            })
            .collect(),
    )
}

/// The messages of a stream that comes in pieces.
fn stream(octets: &[u8], piece: usize, ctx: &DecodeContext) -> Vec<Result<Message, Notification>> {
    let mut framer = Framer::new();
    let mut all = Vec::new();
    for mut piece in octets.chunks(piece.max(1)) {
        while !piece.is_empty() {
            let taken = framer.push(piece);
            piece = &piece[taken..];
            let before = all.len();
            all.extend(std::iter::from_fn(|| framer.next(ctx)));
            assert!(taken > 0 || all.len() > before, "a full framer that gives nothing");
        }
    }
    all
}

/// Octets: context, size of pieces, then the stream. However it is cut, the same messages come out.
pub(crate) fn framer(input: &[u8]) {
    let mut rng = feed(input);
    let ctx = context(&mut rng);
    let piece = 1 + rng.below(64) as usize;
    let repeat = rng.one_in(16);
    let mut octets = rng.rest();
    if repeat && !octets.is_empty() {
        // More than it holds.
        octets = octets.repeat(2 * FRAMER_CAPACITY / octets.len() + 1);
    }
    let whole = stream(&octets, octets.len(), &ctx);
    assert_eq!(whole, stream(&octets, piece, &ctx));
    let errors = whole.iter().filter(|result| result.is_err()).count();
    assert!(errors <= 1 && (errors == 0 || whole.last().is_some_and(Result::is_err)), "something after an error");
    whole.iter().for_each(|result| judge(result, &ctx));
}

/// Octets: a NOTIFICATION. Its words fit a log line, its communication a message.
pub(crate) fn notification(input: &[u8]) {
    let mut rng = feed(input);
    let (code, subcode) = (rng.octet(), rng.octet());
    let rest = rng.rest();
    let received = Notification::with_data(code, subcode, rest.clone());
    assert!(!received.describe().contains(char::is_control) && !received.to_string().contains(char::is_control));
    let _ = received.shutdown_communication();
    if let Some(cause) = received.hard_reset_cause() {
        assert!(!cause.describe().contains(char::is_control));
    }
    let words = String::from_utf8_lossy(&rest);
    let ours = Notification::cease(subcode, &words);
    assert_eq!(ours.code, 6);
    let said = ours.shutdown_communication();
    assert!(said.as_ref().is_ok_and(|said| said.is_none_or(|said| words.starts_with(said))), "{said:?}");
    let mut out = Vec::new();
    encode_notification(&ours, &mut out);
    assert_eq!(one(&out, &DecodeContext::INITIAL), Message::Notification(ours));
}

/// Octets: a structured message. What is written reads the same, to the last field.
pub(crate) fn roundtrip(input: &[u8]) {
    let mut rng = feed(input);
    let ctx = DecodeContext { families: AddressFamilies::ALL, ..context(&mut rng) };
    if rng.one_in(8) {
        let open = open(&mut rng);
        let mut out = Vec::new();
        encode_open(&open, &mut out);
        return assert_eq!(one(&out, &ctx), Message::Open(open));
    }
    let family = Family::ALL[rng.below(2) as usize];
    let attributes = attributes(&mut rng, &ctx);
    let next_hop = next_hop(&mut rng, family);
    let withdrawn: Vec<Nlri> = (0..rng.below(40)).map(|_| nlri(&mut rng, family, &ctx)).collect();
    let mut announced: Vec<Nlri> = (0..rng.below(40)).map(|_| nlri(&mut rng, family, &ctx)).collect();
    announced.retain(|nlri| !withdrawn.contains(nlri));
    let routes = Some((&attributes, next_hop, announced.as_slice()));
    let Some(updates) = written(&withdrawn, routes, &ctx) else { return };
    let (mut taken, mut given) = (vec![], vec![]);
    for update in updates {
        judge_update(&update, &ctx);
        assert_eq!(update.faults, []);
        if let Some(back) = &update.attributes {
            assert_eq!(**back, attributes);
        }
        taken.extend(update.withdrawn);
        assert!(update.announced.iter().all(|reach| reach.next_hop == next_hop));
        given.extend(update.announced.into_iter().flat_map(|reach| reach.prefixes));
    }
    assert_eq!((taken, given), (withdrawn, announced));
}

fn open(rng: &mut Rng) -> Open {
    let asn = asn(rng);
    let mut capabilities: Vec<Capability> = (0..rng.below(8)).map(|_| capability(rng)).collect();
    capabilities.push(Capability::FourOctetAs(asn));
    let (hold_time_s, router_id) = (3 + rng.below(65_533) as u16, [10, 0, 0, rng.octet()].into());
    Open { asn, hold_time_s, router_id, capabilities }
}

fn capability(rng: &mut Rng) -> Capability {
    let all = AddressFamily::ALL;
    let seconds = |rng: &mut Rng, bits: u32| Duration::from_secs(rng.below(1 << bits));
    match rng.below(10) {
        0 => Capability::Multiprotocol(all[rng.below(4) as usize]),
        1 => Capability::RouteRefresh,
        2 => Capability::ExtendedNextHop(vec![all[2 * rng.below(2) as usize]]),
        3 => Capability::ExtendedMessage,
        4 => Capability::Role([Role::Provider, Role::Customer, Role::Peer, Role::Unknown(9)][rng.below(4) as usize]),
        5 => Capability::GracefulRestart(GracefulRestart {
            restarting: rng.one_in(2),
            notification: rng.one_in(2),
            restart_time: seconds(rng, 12),
            families: all.into_iter().filter(|_| rng.one_in(2)).map(|family| (family, family.is_unicast())).collect(),
        }),
        6 => {
            let able = [AddPath::Receive, AddPath::Send, AddPath::Both];
            Capability::AddPath(all.into_iter().map(|family| (family, able[rng.below(3) as usize])).collect())
        }
        7 => Capability::EnhancedRouteRefresh,
        8 => Capability::LongLivedGracefulRestart(vec![LongLived {
            family: all[rng.below(4) as usize],
            forwarding: rng.one_in(2),
            stale_time: seconds(rng, 24),
        }]),
        _ => Capability::Unknown { code: 128 + rng.below(100) as u8, value: rng.octets(255) },
    }
}

fn nlri(rng: &mut Rng, family: Family, ctx: &DecodeContext) -> Nlri {
    let prefix = match family {
        Family::Ipv4 => {
            let octets = [1 + rng.below(223) as u8, rng.octet(), rng.octet(), rng.octet()];
            Prefix::new(octets.into(), rng.below(33) as u8)
        }
        Family::Ipv6 => {
            let mut octets = [0; 16];
            octets[..8].copy_from_slice(&rng.next_u64().to_be_bytes());
            octets[8..].copy_from_slice(&rng.next_u64().to_be_bytes());
            octets[0] = 0x20 | octets[0] & 0x1f;
            Prefix::new(octets.into(), rng.below(129) as u8)
        }
    };
    let prefix = prefix.unwrap_or_else(|error| panic!("{error}")).trunc();
    let path_id = if ctx.add_path.contains(family) { rng.next_u64() as u32 } else { 0 };
    Nlri { prefix, path_id }
}

fn next_hop(rng: &mut Rng, family: Family) -> NextHop {
    match family {
        Family::Ipv4 => NextHop::V4([1 + rng.below(126) as u8, rng.octet(), rng.octet(), rng.octet()].into()),
        Family::Ipv6 => NextHop::V6 {
            global: Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(rng.next_u64())),
            link_local: rng.one_in(2).then(|| Ipv6Addr::from(0xfe80_u128 << 112 | u128::from(rng.next_u64()))),
        },
    }
}

fn asn(rng: &mut Rng) -> Asn {
    Asn(if rng.one_in(2) { 1 + rng.below(65_535) as u32 } else { 65_536 + rng.below(1 << 31) as u32 })
}

fn attributes(rng: &mut Rng, ctx: &DecodeContext) -> Attributes {
    let internal = !ctx.external;
    let kinds = if internal && ctx.four_octet_as { 4 } else { 2 };
    let segments = (0..rng.below(4)).map(|_| {
        let kind = rng.below(kinds);
        let ases = (0..1 + rng.below(20)).map(|_| asn(rng)).collect();
        match kind {
            0 => Segment::Sequence(ases),
            1 => Segment::Set(ases),
            2 => Segment::ConfedSequence(ases),
            _ => Segment::ConfedSet(ases),
        }
    });
    let as_path = AsPath(segments.collect());
    let mut large: Vec<LargeCommunity> = (0..rng.below(4)).map(|n| LargeCommunity([n as u32, 1, 2])).collect();
    large.dedup();
    Attributes {
        as_path,
        origin: [Origin::Igp, Origin::Egp, Origin::Incomplete][rng.below(3) as usize],
        med: rng.one_in(2).then(|| rng.next_u64() as u32),
        local_pref: internal.then(|| rng.next_u64() as u32),
        atomic_aggregate: rng.one_in(2),
        aggregator: rng.one_in(3).then(|| Aggregator { asn: asn(rng), router_id: [10, 0, 0, rng.octet()].into() }),
        communities: (0..rng.below(100)).map(|_| Community(rng.next_u64() as u32)).collect(),
        extended_communities: (0..rng.below(8)).map(|_| rng.next_u64().to_be_bytes()).collect(),
        large_communities: large,
        originator_id: (internal && rng.one_in(3)).then(|| [10, 0, 1, rng.octet()].into()),
        cluster_list: (0..if internal { rng.below(4) } else { 0 }).map(|_| [10, 0, 2, rng.octet()].into()).collect(),
        unknown: unknown(rng),
        ..Attributes::originated()
    }
}

/// Of types that no one uses.
fn unknown(rng: &mut Rng) -> Vec<RawAttribute> {
    (0..rng.below(3)).map(|n| RawAttribute { flags: 0xe0, code: 200 + n as u8, value: rng.octets(300) }).collect()
}
