//! The keys of `[level]`, `[[shed]]`, `[flap]` and `[guard]`.

use std::time::Duration;

use super::{HOUR, MAX_COMMUNITIES, MAX_PREFIXES, MAX_PREPEND, RELATIONS, field, plain};
use crate::read::formats::*;
use crate::read::spec::{Need, Spec, Type};

/// Prepends of a degraded site unless the file says otherwise.
pub const DEGRADED_PREPEND: u8 = 3;
/// Most steps against overload.
pub const MAX_SHED: usize = 16;
/// Most words of a list of upstreams.
const MAX_SELECTORS: usize = 64;
/// Highest penalties and threshold (RFC 2439 §4.2 names no limit; routers stop at 20,000).
const MAX_PENALTY: i64 = 1_000_000;

const OFF: Need = Need::Described("false");
const PENALTY: Type = Type::Integer { min: 0, max: MAX_PENALTY };

/// The own keys of a table, then those of every action.
macro_rules! action {
    ($($own:expr,)*) => {
        &[
            $($own,)*
            field(
                "prepend",
                Type::Integer { min: 0, max: MAX_PREPEND as i64 },
                Need::Integer(0),
                "So many more appearances of our AS, on top of the neighbour's own `prepend`.",
            ),
            field(
                "med",
                Type::Integer { min: 0, max: u32::MAX as i64 },
                Need::Optional,
                "MULTI_EXIT_DISC, instead of the neighbour's own.",
            ),
            field(
                "communities",
                Type::List { item: &Type::Text(&COMMUNITY), min: 0, max: MAX_COMMUNITIES },
                Need::Described("none"),
                "Further communities.",
            ),
            field(
                "large-communities",
                Type::List { item: &Type::Text(&LARGE_COMMUNITY), min: 0, max: MAX_COMMUNITIES },
                Need::Described("none"),
                "Further large communities.",
            ),
            field("withdraw", Type::Boolean, OFF, "Nothing is announced."),
            field(
                "blackhole",
                Type::Boolean,
                OFF,
                "The service addresses are announced as host routes, too, with BLACKHOLE (RFC 7999) and NO_EXPORT: \
                 the neighbour drops what it would send to them.",
            ),
            field(
                "more-specifics",
                Type::List { item: &Type::Text(&PREFIX), min: 0, max: MAX_PREFIXES },
                Need::Described("none"),
                "Longer prefixes within the service's that are announced, too.",
            ),
        ]
    };
}

pub(super) static ACTION: Spec = plain("What a neighbour is told, on top of its own attributes.", action!());

pub(super) static LEVEL: Spec = plain(
    "What neighbours are told of a site that is not healthy.",
    &[
        field(
            "degraded",
            Type::Table(&ACTION),
            Need::Described("{ prepend = 3 }"),
            "While the site serves, but others should be preferred.",
        ),
        field("failed", Type::Table(&ACTION), Need::Described("{ withdraw = true }"), "While the site does not serve."),
    ],
);

pub(super) static SHED: Spec = plain(
    "A step against overload, on top of the steps before it. Load alone never withdraws a site.",
    action!(field(
        "upstreams",
        Type::List { item: &Type::AsnOr(RELATIONS), min: 1, max: MAX_SELECTORS },
        Need::Described("all"),
        "Whom it concerns: relations or AS numbers.",
    ),),
);

pub(super) static FLAP: Spec = plain(
    "What the damping of upstreams (RFC 2439, RFC 7196) is assumed to hold against us: announcements wait until one \
     more withdrawal fits in. A withdrawal never waits.",
    &[
        field(
            "half-life",
            Type::Duration { min: Duration::from_secs(1), max: Duration::from_secs(24 * 3600) },
            Need::Text("15m"),
            "After so long the penalty is half of what it was.",
        ),
        field("suppress", PENALTY, Need::Integer(6000), "Penalty above which a route is suppressed."),
        field("withdrawal", PENALTY, Need::Integer(1000), "Penalty of a withdrawal."),
        field("change", PENALTY, Need::Integer(500), "Penalty of a change of attributes."),
    ],
);

pub(super) static GUARD: Spec = plain(
    "What keeps the service reachable.",
    &[
        field(
            "last-site",
            Type::Duration { min: Duration::ZERO, max: HOUR },
            Need::Text("3s"),
            "How long after a withdrawal for failed health the route of another site must be seen; if there is none, \
             this was the last site, and it announces again as last resort. 0s: the guard is off.",
        ),
        field(
            "retry",
            Type::Duration { min: Duration::from_secs(1), max: HOUR },
            Need::Text("30s"),
            "How long a site of last resort waits before it tries again to withdraw; doubled each time in vain, up to 1h.",
        ),
        field(
            "start",
            Type::Boolean,
            Need::Described("true"),
            "The first announcement waits for an answer on each service address that no check asks.",
        ),
    ],
);
