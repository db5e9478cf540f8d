//! What is written reads back the same, for generated messages of every kind and neighbour.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use ubique_model::{Asn, Community, Family, LargeCommunity, Prefix};
use ubique_proto::bgp::attributes::{Aggregator, AsPath, Attributes, NextHop, Origin, RawAttribute, Segment};
use ubique_proto::bgp::family::AddressFamily;
use ubique_proto::bgp::message::{
    AddPath, Capability, GracefulRestart, LongLived, Message, Nlri, Notification, Open, Role,
};
use ubique_proto::bgp::wire::{
    DecodeContext, MAX_EXTENDED_MESSAGE, encode_end_of_rib, encode_keepalive, encode_notification, encode_open,
    encode_route_refresh, encode_updates,
};

use crate::support::{context, decode_all, sender};

fn asn() -> impl Strategy<Value = Asn> {
    prop_oneof![1..=65535u32, 65536..=u32::MAX].prop_map(Asn)
}

fn segment(internal: bool) -> impl Strategy<Value = Segment> {
    (0..if internal { 4 } else { 2 }, vec(asn(), 1..=12)).prop_map(|(kind, ases)| match kind {
        0 => Segment::Sequence(ases),
        1 => Segment::Set(ases),
        2 => Segment::ConfedSequence(ases),
        _ => Segment::ConfedSet(ases),
    })
}

/// Paths a context carries without loss: AS4_PATH has no room for confederation segments.
fn as_path(ctx: DecodeContext) -> impl Strategy<Value = AsPath> {
    vec(segment(!ctx.external && ctx.four_octet_as), 0..5).prop_map(AsPath)
}

fn address() -> impl Strategy<Value = Ipv4Addr> {
    (1..224u8, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| Ipv4Addr::new(a, b, c, d))
}

fn unknown() -> impl Strategy<Value = Vec<RawAttribute>> {
    // Those whose shape is not judged.
    let code = prop_oneof![11..=13u8, 19..=21u8, 27..=28u8, 30..=31u8, 33..=34u8, 36..=39u8, 41..=127u8, 129..=254u8];
    vec((code, vec(any::<u8>(), 0..300)), 0..3).prop_map(|mut all| {
        all.sort();
        all.dedup_by_key(|(code, _)| *code);
        all.into_iter().map(|(code, value)| RawAttribute { flags: 0xe0, code, value }).collect()
    })
}

prop_compose! {
    fn attributes(ctx: DecodeContext)(
        origin in prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)],
        as_path in as_path(ctx),
        med in option::of(any::<u32>()),
        local_pref in option::of(any::<u32>()),
        atomic_aggregate in any::<bool>(),
        aggregator in option::of((asn(), any::<u32>())),
        communities in vec(any::<u32>().prop_map(Community), 0..80),
        extended_communities in vec(any::<[u8; 8]>(), 0..5),
        large_communities in btree_set(any::<[u32; 3]>(), 0..25),
        originator_id in option::of(any::<u32>()),
        cluster_list in vec(any::<u32>(), 0..4),
        only_to_customer in option::of(asn()),
        unknown in unknown(),
    ) -> Attributes {
        let internal = !ctx.external;
        Attributes {
            origin,
            as_path,
            med,
            local_pref: internal.then(|| local_pref.unwrap_or(100)),
            atomic_aggregate,
            aggregator: aggregator.map(|(asn, id)| Aggregator { asn, router_id: id.into() }),
            communities,
            extended_communities,
            large_communities: large_communities.into_iter().map(LargeCommunity).collect(),
            originator_id: originator_id.filter(|_| internal).map(Ipv4Addr::from),
            cluster_list: cluster_list.into_iter().filter(|_| internal).map(Ipv4Addr::from).collect(),
            only_to_customer,
            unknown,
        }
    }
}

fn prefix(family: Family) -> BoxedStrategy<Nlri> {
    match family {
        Family::Ipv4 => {
            (address(), 0..=32u8).prop_map(|(a, len)| Prefix::new(a.into(), len).unwrap().trunc().into()).boxed()
        }
        // 2000::/3, and the default route.
        Family::Ipv6 => (any::<u128>(), 0..=128u8)
            .prop_map(|(a, len)| {
                let a = Ipv6Addr::from(a >> 3 | 1 << 125);
                Prefix::new(a.into(), len).unwrap().trunc().into()
            })
            .boxed(),
    }
}

fn next_hop(family: Family) -> BoxedStrategy<NextHop> {
    match family {
        Family::Ipv4 => address().prop_map(NextHop::V4).boxed(),
        Family::Ipv6 => (any::<u128>(), option::of(any::<u64>()))
            .prop_map(|(global, local)| NextHop::V6 {
                global: Ipv6Addr::from(global >> 3 | 1 << 125),
                link_local: local.map(|id| Ipv6Addr::from(0xfe80_u128 << 112 | u128::from(id))),
            })
            .boxed(),
    }
}

fn capability() -> impl Strategy<Value = Capability> {
    let families = || prop::sample::subsequence(AddressFamily::ALL.to_vec(), 0..=4);
    let able = || prop::sample::select(vec![AddPath::Receive, AddPath::Send, AddPath::Both]);
    let role =
        [Role::Provider, Role::RouteServer, Role::RouteServerClient, Role::Customer, Role::Peer, Role::Unknown(9)];
    prop_oneof![
        prop::sample::subsequence(vec![AddressFamily::Ipv4Unicast, AddressFamily::Ipv4FlowSpec], 0..=2)
            .prop_map(Capability::ExtendedNextHop),
        Just(Capability::ExtendedMessage),
        prop::sample::select(role.to_vec()).prop_map(Capability::Role),
        (any::<[bool; 3]>(), 0..4096u64, families()).prop_map(
            |([restarting, notification, kept], seconds, families)| {
                Capability::GracefulRestart(GracefulRestart {
                    restarting,
                    notification,
                    restart_time: Duration::from_secs(seconds),
                    families: families.into_iter().map(|family| (family, kept)).collect(),
                })
            }
        ),
        (families(), able())
            .prop_map(|(families, able)| Capability::AddPath(families.into_iter().map(|f| (f, able)).collect())),
        Just(Capability::EnhancedRouteRefresh),
        (families(), any::<bool>(), 0..1 << 24).prop_map(|(families, forwarding, seconds)| {
            let stale_time = Duration::from_secs(seconds as u64);
            let it = |family| LongLived { family, forwarding, stale_time };
            Capability::LongLivedGracefulRestart(families.into_iter().map(it).collect())
        }),
    ]
}

#[derive(Debug)]
struct Routes {
    ctx: DecodeContext,
    withdrawn: Vec<Nlri>,
    attributes: Attributes,
    next_hop: NextHop,
    announced: Vec<Nlri>,
}

fn routes() -> impl Strategy<Value = Routes> {
    let families = prop::sample::select(vec![Family::Ipv4, Family::Ipv6]);
    let paths = prop::sample::subsequence(vec![Family::Ipv4, Family::Ipv6], 0..=2);
    (any::<[bool; 4]>(), families, paths)
        .prop_map(|([four, external, extended, over_ipv6], family, paths)| {
            let mut ctx = DecodeContext { add_path: paths.into_iter().collect(), ..context(four, external) };
            if extended {
                ctx.max_message = MAX_EXTENDED_MESSAGE;
            }
            if over_ipv6 {
                ctx.extended_next_hop.insert(Family::Ipv4);
            }
            (ctx, family, if over_ipv6 { Family::Ipv6 } else { family })
        })
        .prop_flat_map(|(ctx, family, hop)| {
            let nlri = move |family| {
                let path_id = if ctx.add_path.contains(family) { 0..=u32::MAX } else { 0..=0 };
                (prefix(family), path_id).prop_map(|(it, path_id)| Nlri { path_id, ..it })
            };
            (
                Just(ctx),
                vec(nlri(Family::Ipv4), 0..900),
                vec(nlri(Family::Ipv6), 0..300),
                attributes(ctx),
                next_hop(hop),
                vec(nlri(family), 0..1200),
            )
        })
        .prop_map(|(ctx, mut withdrawn, withdrawn6, attributes, next_hop, announced)| {
            withdrawn.extend(withdrawn6);
            Routes { ctx, withdrawn, attributes, next_hop, announced }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn updates(r in routes(), step in 1..5000usize) {
        let mut stream = Vec::new();
        let announced = Some((&r.attributes, r.next_hop, r.announced.as_slice()));
        encode_updates(&r.withdrawn, announced, &sender(&r.ctx), &mut stream).unwrap();
        let (mut withdrawn, mut back) = (vec![], vec![]);
        let (mut octets, mut messages) = (0, 0);
        for message in decode_all(&stream, step, &r.ctx) {
            let Message::Update(update) = message.unwrap() else { panic!("not an UPDATE") };
            prop_assert_eq!(&update.faults, &vec![]);
            prop_assert_eq!(update.end_of_rib, None);
            prop_assert_eq!(update.attributes.is_some(), !update.announced.is_empty());
            if let Some(attributes) = &update.attributes {
                prop_assert_eq!(attributes.as_ref(), &r.attributes);
            }
            withdrawn.extend(update.withdrawn);
            for reach in update.announced {
                prop_assert_eq!(reach.next_hop, r.next_hop);
                back.extend(reach.prefixes);
            }
            messages += 1;
        }
        prop_assert_eq!(&withdrawn, &r.withdrawn);
        prop_assert_eq!(&back, &r.announced);
        // Only the last message of a kind may have room left: at most three kinds here.
        let mut rest = stream.as_slice();
        let mut with_room = 0;
        while !rest.is_empty() {
            let length = usize::from(u16::from_be_bytes([rest[16], rest[17]]));
            prop_assert!(length <= r.ctx.max_message);
            with_room += usize::from(length + 17 + 4 + 4 <= r.ctx.max_message);
            octets += length;
            rest = &rest[length..];
        }
        prop_assert_eq!(octets, stream.len());
        prop_assert!(with_room <= 3, "{} of {} messages have room", with_room, messages);
    }

    #[test]
    fn opens(
        asn in asn(),
        hold_time_s in prop_oneof![Just(0), 3..=u16::MAX],
        id in 1..=u32::MAX,
        families in vec(prop::sample::select(&AddressFamily::ALL), 0..3),
        understood in vec(capability(), 0..8),
        others in vec((72..=255u8, vec(any::<u8>(), 0..=255)), 0..14),
        step in 1..100usize,
    ) {
        let mut capabilities: Vec<Capability> = families.into_iter().map(Capability::Multiprotocol).collect();
        capabilities.push(Capability::RouteRefresh);
        capabilities.extend(understood);
        capabilities.extend(others.into_iter().map(|(code, value)| Capability::Unknown { code, value }));
        capabilities.push(Capability::FourOctetAs(asn));
        let open = Open { asn, hold_time_s, router_id: id.into(), capabilities };
        let mut stream = Vec::new();
        encode_open(&open, &mut stream);
        prop_assert_eq!(decode_all(&stream, step, &context(false, true)), vec![Ok(Message::Open(open))]);
    }

    #[test]
    fn notifications(code: u8, subcode: u8, data in vec(any::<u8>(), 0..4075), step in 1..100usize) {
        let notification = Notification { code, subcode, data };
        let mut stream = Vec::new();
        encode_notification(&notification, &mut stream);
        prop_assert!(!notification.describe().is_empty());
        prop_assert_eq!(
            decode_all(&stream, step, &context(true, true)),
            vec![Ok(Message::Notification(notification))]
        );
    }

    /// Sound UPDATEs with octets changed: never a panic, and what is announced always has attributes.
    #[test]
    fn damaged_updates(
        r in routes(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        step in 1..5000usize,
    ) {
        let mut stream = Vec::new();
        let few = &r.announced[..r.announced.len().min(20)];
        let withdrawn = &r.withdrawn[..r.withdrawn.len().min(20)];
        encode_updates(withdrawn, Some((&r.attributes, r.next_hop, few)), &sender(&r.ctx), &mut stream).unwrap();
        prop_assume!(!stream.is_empty());
        for (at, octet) in damage {
            let at = at.index(stream.len());
            stream[at] = octet;
        }
        for ctx in crate::support::contexts() {
            let results = decode_all(&stream, step, &ctx);
            prop_assert_eq!(&results, &decode_all(&stream, stream.len(), &ctx));
            for result in results {
                match result {
                    Ok(Message::Update(u)) => {
                        let any = !u.announced.is_empty() || !u.flows_announced.is_empty();
                        prop_assert_eq!(u.attributes.is_some(), any);
                    }
                    Ok(_) => {}
                    Err(notification) => prop_assert!((1..=7).contains(&notification.code)),
                }
            }
        }
    }

    /// Whatever comes, in whatever pieces: the same result as in one piece, and no panic.
    #[test]
    fn any_octets(mut stream in vec(any::<u8>(), 0..600), kind in 0..7u8, step in 1..50usize, framed: bool) {
        if framed {
            let length = stream.len() as u16 + 19;
            let mut head = vec![0xff; 16];
            head.extend_from_slice(&length.to_be_bytes());
            head.push(kind);
            stream.splice(0..0, head);
        }
        for ctx in crate::support::contexts() {
            prop_assert_eq!(decode_all(&stream, step, &ctx), decode_all(&stream, stream.len(), &ctx));
        }
    }
}

#[test]
fn the_rest() {
    let mut stream = Vec::new();
    encode_keepalive(&mut stream);
    encode_route_refresh(AddressFamily::Ipv6Unicast, 0, &mut stream);
    encode_end_of_rib(AddressFamily::Ipv4Unicast, &mut stream);
    encode_end_of_rib(AddressFamily::Ipv6Unicast, &mut stream);
    for step in 1..stream.len() {
        let all: Vec<Message> =
            decode_all(&stream, step, &context(true, true)).into_iter().map(Result::unwrap).collect();
        let [keepalive, refresh, Message::Update(v4), Message::Update(v6)] = all.as_slice() else {
            panic!("{all:?}");
        };
        assert_eq!(*keepalive, Message::Keepalive);
        assert_eq!(*refresh, Message::RouteRefresh { afi: 2, subtype: 0, safi: 1 });
        assert_eq!(
            (v4.end_of_rib, v6.end_of_rib),
            (Some(AddressFamily::Ipv4Unicast), Some(AddressFamily::Ipv6Unicast))
        );
        assert!(v4.faults.is_empty() && v6.faults.is_empty());
    }
}
