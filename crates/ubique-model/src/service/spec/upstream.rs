//! The keys of `[[site.upstream]]` and `[[site.dynamic]]`.

use std::time::Duration;

use super::action::ACTION;
use super::{MAX_ASNS, MAX_COMMUNITIES, MAX_DYNAMIC, MAX_PREPEND, RELATIONS, field, plain};
use crate::read::formats::*;
use crate::read::spec::{Later, Need, Spec, Type};

/// Route kinds a session can carry.
pub(crate) const FAMILIES: &[&str] = &["ipv4", "ipv6", "ipv4-flowspec", "ipv6-flowspec"];
/// Roles of RFC 9234.
const ROLES: &[&str] = &["provider", "rs", "rs-client", "customer", "peer"];
/// Algorithms of RFC 5926.
const AO_ALGORITHMS: &[&str] = &["hmac-sha-1-96", "aes-128-cmac-96"];

const SECOND: Duration = Duration::from_secs(1);
/// Restart Time has 12 bits (RFC 4724 §3).
const MAX_RESTART_TIME: Duration = Duration::from_secs(4095);
/// Long-lived Stale Time has 24 bits (RFC 9494 §3.1).
const MAX_LONG_LIVED: Duration = Duration::from_secs((1 << 24) - 1);

const OFF: Need = Need::Described("false");

/// The own keys of a table, then those of every session.
macro_rules! session {
    ($($own:expr,)*) => {
        &[
            $($own,)*
            field(
                "bfd",
                Type::Switch(&BFD),
                OFF,
                "BFD: each side notices within milliseconds that the other is lost (RFC 5880, 5881; with `multihop` RFC 5883).",
            ),
            field("relation", Type::Choice(RELATIONS), Need::Text("transit"), "What the neighbour is to us."),
            field(
                "families",
                Type::List { item: &Type::Choice(FAMILIES), min: 1, max: FAMILIES.len() },
                Need::Described("unicast routes of the family of the session"),
                "What is exchanged: the prefixes of these families are announced over the session.",
            ),
            field(
                "hold-time",
                Type::Duration { min: Duration::ZERO, max: Duration::from_secs(65535) },
                Need::Text("9s"),
                "Proposed hold time: whole seconds, 0 or at least 3 (RFC 4271).",
            ),
            field(
                "multihop",
                Type::Integer { min: 1, max: 255 },
                Need::Described("1"),
                "IP TTL, for an eBGP neighbour more than one hop away.",
            ),
            field(
                "ttl-security",
                Type::Integer { min: 1, max: 254 },
                Need::Optional,
                "Hops to the neighbour: packets from further away are dropped (GTSM, RFC 5082). Both ends need it.",
            ),
            field("password-file", Type::Text(&PATH), Need::Optional, "File with the TCP MD5 secret (RFC 2385)."),
            field("tcp-ao", Type::Table(&TCP_AO), Need::Optional, "TCP-AO (RFC 5925), where the kernel has it."),
            field(
                "max-prefix",
                Type::Integer { min: 1, max: u32::MAX as i64 },
                Need::Optional,
                "More prefixes than this in one family end the session (RFC 4486); absent: further ones are not kept.",
            ),
            field(
                "keep-routes",
                Type::Integer { min: 0, max: 10_000_000 },
                Need::Integer(super::KEEP_ROUTES as i64),
                "Received routes kept for `ubique routes`; those to the service's own prefixes come on top.",
            ),
            field(
                "role",
                Type::Choice(ROLES),
                Need::Optional,
                "Our role (RFC 9234): `customer` of a transit, `peer` of a peer, `rs-client` of a route server.",
            ),
            field("strict-role", Type::Boolean, OFF, "The neighbour must announce its role, too (RFC 9234)."),
            field(
                "graceful-restart",
                Type::Table(&GRACEFUL_RESTART),
                Need::Described("off"),
                "Graceful restart (RFC 4724, 8538): the neighbour keeps our routes while the agent is away.",
            ),
            field(
                "next-hop",
                Type::Table(&NEXT_HOP),
                Need::Described("our addresses on the session"),
                "Next hops of what is announced.",
            ),
            field(
                "next-hop-unchanged",
                Type::Boolean,
                OFF,
                "Routes passed on to an internal neighbour keep their next hop.",
            ),
            field("extended-next-hop", Type::Boolean, OFF, "Offer IPv6 next hops for IPv4 routes (RFC 8950)."),
            field("add-path", Type::Boolean, OFF, "Offer to receive several paths to a prefix (RFC 7911)."),
            field(
                "route-reflector-client",
                Type::Boolean,
                OFF,
                "The internal neighbour is our route-reflector client (RFC 4456).",
            ),
            field(
                "communities",
                Type::List { item: &Type::Text(&COMMUNITY), min: 0, max: MAX_COMMUNITIES },
                Need::Described("none"),
                "Communities on every announcement to this neighbour: numbers, well-known words, or requests like \"cogent:no-peers\" (docs/communities.md).",
            ),
            field(
                "extended-communities",
                Type::List { item: &Type::Text(&EXTENDED_COMMUNITY), min: 0, max: MAX_COMMUNITIES },
                Need::Described("none"),
                "Extended communities likewise: route targets `rt:`, route origins `ro:`, any other as 16 digits.",
            ),
            field(
                "large-communities",
                Type::List { item: &Type::Text(&LARGE_COMMUNITY), min: 0, max: MAX_COMMUNITIES },
                Need::Described("none"),
                "Large communities likewise.",
            ),
            field(
                "prepend",
                Type::Integer { min: 0, max: MAX_PREPEND as i64 },
                Need::Integer(0),
                "How often our AS is prepended in addition to its one regular appearance.",
            ),
            field("med", Type::Integer { min: 0, max: u32::MAX as i64 }, Need::Optional, "MULTI_EXIT_DISC."),
            field(
                "degraded",
                Type::Table(&ACTION),
                Need::Described("`[level.degraded]`"),
                "What this neighbour is told instead of `[level.degraded]`; same keys.",
            ),
            field(
                "failed",
                Type::Table(&ACTION),
                Need::Described("`[level.failed]`"),
                "What this neighbour is told instead of `[level.failed]`; same keys.",
            ),
            field(
                "full-view",
                Type::Boolean,
                Need::Described("believed once it has shown one"),
                "true: it shows us its routes to other sites, even while we announce with GRACEFUL_SHUTDOWN; \
                 false: it never does, and the last-site guard pings the service addresses through it instead.",
            ),
        ]
    };
}

static TCP_AO: Spec = plain(
    "A TCP-AO key (RFC 5925), the same for both directions.",
    &[
        field("key-file", Type::Text(&PATH), Need::Required, "File with the secret, at most 80 octets."),
        field("send-id", Type::Integer { min: 0, max: 255 }, Need::Integer(1), "KeyID in what we send."),
        field("receive-id", Type::Integer { min: 0, max: 255 }, Need::Integer(1), "KeyID in what we receive."),
        field("algorithm", Type::Choice(AO_ALGORITHMS), Need::Text("hmac-sha-1-96"), "As RFC 5926 calls it."),
    ],
);

static GRACEFUL_RESTART: Spec = plain(
    "Graceful restart; off unless written.",
    &[
        field(
            "restart-time",
            Type::Duration { min: SECOND, max: MAX_RESTART_TIME },
            Need::Text("120s"),
            "How long the neighbour keeps our routes while the agent is away; whole seconds.",
        ),
        field(
            "long-lived",
            Type::Duration { min: SECOND, max: MAX_LONG_LIVED },
            Need::Optional,
            "How much longer it keeps them as routes of last resort (RFC 9494); whole seconds.",
        ),
    ],
);

static NEXT_HOP: Spec = plain(
    "Next hops of what is announced: a third party on the shared subnet, or ours of the other family.",
    &[
        field("ipv4", Type::Text(&ADDRESS), Need::Optional, "Of IPv4 routes."),
        field("ipv6", Type::Text(&ADDRESS), Need::Optional, "Of IPv6 routes."),
    ],
);

/// Fastest and slowest packets of BFD that can be asked for.
const BFD_INTERVAL: Type = Type::Duration { min: Duration::from_millis(10), max: Duration::from_secs(60) };

static BFD: Spec = plain(
    "BFD; the slower side of each direction counts.",
    &[
        // 150 ms x 3: half a second with BIRD's defaults, 0.9 s with FRR's (which send and expect every 300 ms).
        field("interval", BFD_INTERVAL, Need::Text("150ms"), "Interval of the packets we send."),
        field(
            "receive",
            BFD_INTERVAL,
            Need::Described("`interval`"),
            "Shortest interval at which the neighbour may send.",
        ),
        field(
            "multiplier",
            Type::Integer { min: 1, max: 255 },
            Need::Integer(3),
            "So many packets in a row must be lost before the neighbour gives us up.",
        ),
    ],
);

pub(super) static UPSTREAM: Spec = Spec {
    doc: "A BGP neighbour of a site.",
    fields: session![
        field("asn", Type::Asn, Need::Required, "Its AS; the service's own makes the session internal."),
        field("address", Type::Text(&ADDRESS), Need::Required, "Its address; a link-local one needs `interface`."),
        field(
            "local-address",
            Type::Text(&ADDRESS),
            Need::Described("what the kernel's route to `address` picks"),
            "Our address on the session.",
        ),
        field("interface", Type::Text(&INTERFACE), Need::Optional, "Interface the session is bound to."),
        field("port", Type::Integer { min: 1, max: 65535 }, Need::Integer(179), "Its TCP port."),
        field("passive", Type::Boolean, OFF, "It connects to us, never we to it."),
    ],
    variants: None,
    later: &[PASSWORD],
};

pub(super) static DYNAMIC: Spec = Spec {
    doc: "Neighbours known by their range only: whoever connects to us from it is one while its session lasts.",
    fields: session![
        field("range", Type::Text(&PREFIX), Need::Required, "Where they connect from."),
        field(
            "asns",
            Type::List { item: &Type::Asn, min: 1, max: MAX_ASNS },
            Need::Required,
            "The ASes they may be in.",
        ),
        field("limit", Type::Integer { min: 1, max: MAX_DYNAMIC as i64 }, Need::Integer(16), "Most of them at a time.",),
    ],
    variants: None,
    later: &[PASSWORD],
};

const PASSWORD: Later = Later {
    word: "password",
    what: "a password in the service file",
    instead: "put the secret into a file that only root reads, and name it: password-file = \"/etc/ubique/upstream.md5\"",
};
