//! The keys of a scenario file.

use std::time::Duration;

use crate::read::formats::{BIT_RATE, FREE, NAME};
use crate::read::spec::{Field, Format, Need, Spec, Type, Variant, Variants};

/// Most steps of a scenario.
pub const MAX_STEPS: usize = 256;
/// Most `lands` expectations of a step.
pub const MAX_LANDS: usize = 1024;
/// Most times as often as at first that a crowd asks; the prober stops at one query each millisecond.
pub const MAX_TIMES: u32 = 1000;

/// Most `[[session]]`.
pub const MAX_SESSIONS: usize = 64;
/// Most sessions at once from a vantage point to an address, of one `[[session]]`.
pub const MAX_COUNT: u32 = 1000;
/// Longest transfer, KiB: 4 GiB.
pub const MAX_SIZE_KIB: u32 = 4 << 20;

const INTERNET: Format = Format { what: "a path", pattern: None, example: "internet.toml" };
const SITE: Format = Format { what: "a site", pattern: Some("^@?[a-z0-9-]+$"), example: "busiest" };
const SITE_NAME: Format = Format { what: "a site name", pattern: NAME.pattern, example: "lon" };
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
/// Outages are stated up to a day, so that "any outage" can be written.
const DAY: Duration = Duration::from_secs(24 * 3600);

const fn field(key: &'static str, ty: Type, need: Need, doc: &'static str) -> Field {
    Field { key, ty, need, doc }
}

/// A scenario file.
pub(crate) static FILE: Spec = Spec {
    doc: "A ubique scenario: timed steps and what must hold after each.",
    fields: &[
        field("name", Type::Text(&NAME), Need::Required, "Short name."),
        field(
            "internet",
            Type::Text(&INTERNET),
            Need::Described("the embedded Internet"),
            "The Internet file it plays on, relative to this file.",
        ),
        field(
            "query-every",
            Type::Duration { min: MS, max: MAX_QUERY_EVERY },
            Need::Text("5ms"),
            "Interval between two queries of a vantage point; outages are known to this precision.",
        ),
        field(
            "session",
            Type::Tables { spec: &SESSION, max: MAX_SESSIONS },
            Need::Optional,
            "Sessions that vantage points hold from the first convergence to the end, with a stand-in service that each site has for them.",
        ),
        field(
            "step",
            Type::Tables { spec: &STEP, max: MAX_STEPS },
            Need::Optional,
            "What happens, in order; at least one.",
        ),
    ],
    variants: None,
    later: &[],
};

/// Longest interval of queries: who lands where is told by those of the last second.
const MAX_QUERY_EVERY: Duration = Duration::from_millis(50);

static STEP: Spec = Spec {
    doc: "An action, then a time of observation, then expectations.",
    fields: &[
        field(
            "label",
            Type::Text(&NAME),
            Need::Described("the action, with a number from its second appearance on"),
            "Unique name of the step.",
        ),
        field("action", Type::Tag, Need::Required, "What is done."),
        field(
            "for",
            Type::Duration { min: Duration::ZERO, max: HOUR },
            Need::Text("0s"),
            "How long the vantage points are observed afterwards.",
        ),
        field("expect", Type::Table(&EXPECT), Need::Optional, "What must hold; absent ones do not matter."),
    ],
    variants: Some(&ACTIONS),
    later: &[],
};

const VANTAGE: Type = Type::Text(&FREE);

static SESSION: Spec = Spec {
    doc: "Sessions of one kind, to every service address. One that is lost is counted, with how it ended, and opened anew.",
    fields: &[
        field("kind", Type::Tag, Need::Required, "What kind of sessions."),
        field(
            "vantages",
            Type::List { item: &VANTAGE, min: 1, max: MAX_LANDS },
            Need::Described("all vantage points"),
            "Names of the vantage points that hold them.",
        ),
        field(
            "count",
            Type::Integer { min: 1, max: MAX_COUNT as i64 },
            Need::Integer(1),
            "So many at once, from each of these vantage points to each service address.",
        ),
        field(
            "port",
            Type::Integer { min: 1, max: u16::MAX as i64 },
            Need::Described("the first of `tcp-ports` or `quic-ports` of the service's [sessions], else 8480"),
            "Port at the service addresses, TCP or UDP, that nothing else at a site listens on.",
        ),
    ],
    variants: Some(&KINDS),
    later: &[],
};

const fn every(default: &'static str, doc: &'static str) -> Field {
    field("every", Type::Duration { min: MS, max: MAX_SESSION_EVERY }, Need::Text(default), doc)
}

/// Longest interval of messages: what is silent for longer counts as lost.
const MAX_SESSION_EVERY: Duration = Duration::from_secs(1);
const MESSAGES: &[Field] = &[every("20ms", "Interval of messages, each way.")];
const BULK: &[Field] = &[
    field(
        "size-kib",
        Type::Integer { min: 1, max: MAX_SIZE_KIB as i64 },
        Need::Integer(1024),
        "Length of a transfer, KiB; then the next one begins. Every octet is checked at the other end.",
    ),
    field("rate", Type::Text(&BIT_RATE), Need::Text("4Mbit/s"), "Pace of the sender: a lab has one machine for all."),
];

const fn kind(name: &'static str, doc: &'static str, fields: &'static [Field]) -> Variant {
    Variant { name, doc, fields }
}

static KINDS: Variants = Variants {
    tag: "kind",
    list: &[
        kind(
            "tcp-short",
            "Connections over TCP, one after the other: a request, its answer, the end.",
            &[every("100ms", "A connection each so often.")],
        ),
        kind("tcp", "A connection over TCP with messages both ways.", MESSAGES),
        kind("upload", "Bulk from the client, over TCP.", BULK),
        kind("download", "Bulk to the client, over TCP.", BULK),
        kind("tls", "A connection over TLS 1.3 with messages both ways.", MESSAGES),
        kind(
            "quic",
            "A connection over QUIC with messages both ways; identifiers say the site where the service has [sessions].",
            MESSAGES,
        ),
    ],
    later: &[],
};

static EXPECT: Spec = Spec {
    doc: "What must hold at the end of the step.",
    fields: &[
        field(
            "outage-median",
            Type::Duration { min: Duration::ZERO, max: DAY },
            Need::Optional,
            "Median outage over the vantage points that landed on the site is at most this.",
        ),
        field(
            "outage-worst",
            Type::Duration { min: Duration::ZERO, max: DAY },
            Need::Optional,
            "The longest outage of any vantage point is at most this.",
        ),
        field(
            "lost",
            Type::Integer { min: 0, max: i64::MAX },
            Need::Optional,
            "At most so many queries are lost over all vantage points.",
        ),
        field(
            "sessions-lost",
            Type::Integer { min: 0, max: i64::MAX },
            Need::Optional,
            "At most so many sessions are lost from this step to the next, over all vantage points.",
        ),
        field(
            "sessions-stall",
            Type::Duration { min: Duration::ZERO, max: DAY },
            Need::Optional,
            "No session waits longer than this for what is due: to be open, an answer, a message, content.",
        ),
        field(
            "control-lost",
            Type::Integer { min: 1, max: i64::MAX },
            Need::Optional,
            "At least so many sessions are lost in the same step without the data plane: the scenario is played without it first.",
        ),
        field(
            "answered",
            Type::Boolean,
            Need::Optional,
            "Every vantage point lands somewhere (true), or some do not (false).",
        ),
        field(
            "evacuated",
            Type::Boolean,
            Need::Optional,
            "Nobody lands on the site of the step (true), or somebody does (false).",
        ),
        field(
            "lands",
            Type::Map { value: &SITE_NAME, max: MAX_LANDS },
            Need::Optional,
            "Vantage point = site it lands on.",
        ),
    ],
    variants: None,
    later: &[],
};

/// Keys of actions on a site.
const AT_SITE: &[Field] = &[field(
    "site",
    Type::Text(&SITE),
    Need::Required,
    "\"busiest\" (most vantage points among those no earlier step touched), a name, or \"@LABEL\": the site of an earlier step.",
)];

const fn at_site(name: &'static str, doc: &'static str) -> Variant {
    Variant { name, doc, fields: AT_SITE }
}

static ACTIONS: Variants = Variants {
    tag: "action",
    list: &[
        Variant {
            name: "converge",
            doc: "Wait until every session is up, routing is quiet and every vantage point is answered.",
            fields: &[field(
                "within",
                Type::Duration { min: MS, max: HOUR },
                Need::Text("60s"),
                "Give up after this time: the scenario has failed.",
            )],
        },
        Variant { name: "wait", doc: "Only observe.", fields: &[] },
        Variant {
            name: "crowd",
            doc: "A vantage point asks more often from now on, at most once each millisecond: a flash crowd. Not over HTTP.",
            fields: &[
                field("vantage", Type::Text(&FREE), Need::Required, "Name of the vantage point."),
                field(
                    "times",
                    Type::Integer { min: 1, max: MAX_TIMES as i64 },
                    Need::Required,
                    "So many times as often as at first; 1: the crowd is gone.",
                ),
            ],
        },
        Variant {
            name: "divert",
            doc: "A network sends what goes to the service by way of another neighbour, as when its preference changes: \
                  routes flip while every site is well. BGP is not told.",
            fields: &[
                field("network", Type::Asn, Need::Required, "The network."),
                field(
                    "to",
                    Type::Asn,
                    Need::Described("what BGP says again"),
                    "The neighbour, which must have told it a route to the service.",
                ),
            ],
        },
        at_site("kill-service", "SIGKILL the service's processes."),
        at_site("hang-service", "SIGSTOP the service's processes: it hangs."),
        at_site(
            "fail-check",
            "The file `/run/ubique/failing/SITE` appears: an `exec` check can look at it, and be wrong.",
        ),
        at_site("pass-check", "The file is gone again."),
        at_site("resume-service", "SIGCONT the service's processes."),
        at_site("start-service", "Start the service anew."),
        at_site("kill-agent", "SIGKILL the agent."),
        at_site("stop-agent", "SIGTERM the agent."),
        at_site("start-agent", "Start the agent anew."),
        at_site("drain", "`ubique drain`."),
        at_site("undrain", "`ubique undrain`."),
        at_site("freeze-site", "SIGSTOP every process of the site, as a machine that hangs."),
        at_site("thaw-site", "SIGCONT them."),
        at_site("cut-site", "Drop every frame on the site's links, without any link going down."),
        at_site("restore-site", "The site's links carry frames again."),
    ],
    later: &[],
};

/// The names of all actions.
#[cfg(test)]
pub(crate) fn action_names() -> impl Iterator<Item = &'static str> {
    ACTIONS.list.iter().map(|variant| variant.name)
}
