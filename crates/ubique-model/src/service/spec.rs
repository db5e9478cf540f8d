//! The keys of a service file: names, types, defaults, limits.

mod action;
mod admin;
mod sessions;
mod upstream;

use std::time::Duration;

pub use action::{DEGRADED_PREPEND, MAX_SHED};
use action::{FLAP, GUARD, LEVEL, SHED};
use admin::API;
pub use admin::MAX_CLIENTS;
use sessions::SESSIONS;
pub use sessions::{MAX_SESSION_INTERFACES, MAX_SESSION_PORTS, MAX_SESSION_SITES, SESSIONS_MTU, SESSIONS_PORT};
pub(crate) use upstream::FAMILIES;
use upstream::{DYNAMIC, UPSTREAM};

use crate::check::spec::{CHECK, CHECK_GROUP, COMMAND, MAX_GROUPS};
use crate::read::formats::*;
use crate::read::spec::{Field, Need, Spec, Type};

/// Most prefixes of a service.
pub const MAX_PREFIXES: usize = 64;
/// Most addresses of a service.
pub const MAX_ADDRESSES: usize = 64;
/// Most checks of a service.
pub const MAX_CHECKS: usize = 64;
/// Most sites of a service.
pub const MAX_SITES: usize = 1024;
/// Most upstreams of a site.
pub const MAX_UPSTREAMS: usize = 64;
/// Most communities of each kind for an upstream.
pub const MAX_COMMUNITIES: usize = 64;
/// Most ranges of dynamic neighbours of a site.
pub const MAX_RANGES: usize = 16;
/// Most dynamic neighbours of a range at a time.
pub const MAX_DYNAMIC: u16 = 256;
/// Most neighbours of a site, upstreams and the limits of all its ranges together: each may cost some descriptors and
/// kilobytes.
pub const MAX_NEIGHBOURS: usize = 1024;
/// Most ASes of a range.
pub const MAX_ASNS: usize = 64;
/// Routes of an upstream that are kept unless the file says otherwise: a full table must not grow the agent.
pub const KEEP_ROUTES: u32 = 20_000;
/// Most words of a command.
pub const MAX_COMMAND_WORDS: usize = 256;
/// Most additional appearances of our AS in a path.
pub const MAX_PREPEND: u8 = 16;
/// Most BMP collectors.
pub const MAX_COLLECTORS: usize = 8;
/// Longest file of messages or inputs, MiB.
pub const MAX_FILE_MIB: u32 = 4096;
/// Most files of a kind kept.
pub const MAX_FILES: u32 = 1000;

/// Relations an upstream can have.
pub(crate) const RELATIONS: &[&str] = &["transit", "peer", "route-server", "internal"];

pub(crate) const fn field(key: &'static str, ty: Type, need: Need, doc: &'static str) -> Field {
    Field { key, ty, need, doc }
}

pub(crate) const fn plain(doc: &'static str, fields: &'static [Field]) -> Spec {
    Spec { doc, fields, variants: None, later: &[] }
}

const HOUR: Duration = Duration::from_secs(3600);

/// A service file.
pub(crate) static FILE: Spec = plain(
    "A ubique service file: one anycast service, its checks, its sites and their upstreams.",
    &[
        field("service", Type::Table(&SERVICE), Need::Required, "What is announced."),
        field("agent", Type::Table(&AGENT), Need::Optional, "How `ubique run` behaves."),
        field("rehearse", Type::Table(&REHEARSE), Need::Optional, "What `ubique rehearse` starts as the service."),
        field(
            "check",
            Type::Tables { spec: &CHECK, max: MAX_CHECKS },
            Need::Optional,
            "What makes a site fit to serve.",
        ),
        field(
            "group",
            Type::Tables { spec: &CHECK_GROUP, max: MAX_GROUPS },
            Need::Optional,
            "Checks that count together: all, any, or enough of them.",
        ),
        field("level", Type::Table(&LEVEL), Need::Optional, "What upstreams are told of a site that is not healthy."),
        field(
            "shed",
            Type::Tables { spec: &SHED, max: MAX_SHED },
            Need::Optional,
            "Steps against overload, in order; each adds to the ones before.",
        ),
        field(
            "flap",
            Type::Switch(&FLAP),
            Need::Described("true"),
            "Announcements keep within what the damping of upstreams forgives.",
        ),
        field("guard", Type::Table(&GUARD), Need::Optional, "What keeps the service reachable."),
        field(
            "sessions",
            Type::Table(&SESSIONS),
            Need::Optional,
            "Connections survive a route change; absent: they do not.",
        ),
        field(
            "site",
            Type::Tables { spec: &SITE, max: MAX_SITES },
            Need::Optional,
            "The places that announce; at least one.",
        ),
    ],
);

static SERVICE: Spec = plain(
    "What is announced.",
    &[
        field("name", Type::Text(&NAME), Need::Required, "Short name, used in logs, metrics and paths."),
        field("asn", Type::Asn, Need::Required, "The AS that originates the prefixes."),
        field(
            "prefixes",
            Type::List { item: &Type::Text(&PREFIX), min: 1, max: MAX_PREFIXES },
            Need::Required,
            "Prefixes every site announces.",
        ),
        field(
            "addresses",
            Type::List { item: &Type::Text(&ADDRESS), min: 1, max: MAX_ADDRESSES },
            Need::Required,
            "Addresses clients talk to, on the loopback of each healthy site; each lies in one of the prefixes.",
        ),
    ],
);

static AGENT: Spec = plain(
    "How `ubique run` behaves.",
    &[
        field(
            "socket",
            Type::Text(&SOCKET),
            Need::Text("/run/ubique/{service}-{site}.sock"),
            "Admin socket; {service} and {site} are replaced.",
        ),
        field(
            "state",
            Type::Text(&SOCKET),
            Need::Text("/var/lib/ubique/{service}-{site}.state"),
            "File of what survives a restart: drains, timed actions, the memory of flapping; {service} and {site} are replaced.",
        ),
        field(
            "socket-mode",
            Type::Choice(&["0600", "0660", "0666"]),
            Need::Text("0660"),
            "Mode of the admin socket: who may connect, and so read. Acting takes more: see `admin-group`.",
        ),
        field(
            "admin-group",
            Type::Text(&GROUP),
            Need::Optional,
            "Group whose members may act (drain, …), beside root and the agent's own user; the socket is given to it. A name of /etc/group, or a number.",
        ),
        field("api", Type::Table(&API), Need::Optional, "The same requests over HTTPS; absent: none."),
        field(
            "metrics",
            Type::Text(&ENDPOINT),
            Need::Optional,
            "Address and port of the Prometheus endpoint; absent: none.",
        ),
        field(
            "graceful-shutdown",
            Type::Duration { min: Duration::ZERO, max: HOUR },
            Need::Text("1s"),
            "How long `ubique drain` announces with GRACEFUL_SHUTDOWN (RFC 8326) before it withdraws; 0s: withdraw at once.",
        ),
        field(
            "drain",
            Type::Duration { min: Duration::ZERO, max: HOUR },
            Need::Text("5s"),
            "How long the service goes on serving after a withdrawal before its addresses are removed.",
        ),
        field(
            "drain-hook",
            COMMAND,
            Need::Optional,
            "Command that has the service shorten its connections when a drain begins, and is run again when the site is wanted back; \
             not a shell, killed with its group after 10 s. It finds UBIQUE_SERVICE, UBIQUE_SITE, UBIQUE_REASON and UBIQUE_DRAIN \
             (begin, end) in its environment.",
        ),
        field(
            "confirm-share",
            Type::Integer { min: 0, max: 100 },
            Need::Integer(50),
            "An operator's action that moves more of the service's traffic at this site than so many per cent must be confirmed; 100: none.",
        ),
        field(
            "watchdog",
            Type::Duration { min: Duration::from_millis(100), max: Duration::from_secs(60) },
            Need::Text("1s"),
            "How long an essential thread may stall before the agent is ended, so that upstreams move on.",
        ),
        field(
            "sandbox",
            Type::Boolean,
            Need::Described("true"),
            "Give up capabilities and system calls that are not needed; programs of `exec` checks inherit that. See docs/install.md.",
        ),
        field(
            "bmp",
            Type::Tables { spec: &BMP, max: MAX_COLLECTORS },
            Need::Optional,
            "Collectors that follow the BGP sessions over BMP.",
        ),
        field("mrt", Type::Table(&MRT), Need::Optional, "BGP messages sent and received, as MRT files."),
        field("journal", Type::Table(&JOURNAL), Need::Optional, "Inputs of all cores, for `ubique replay`."),
    ],
);

static BMP: Spec = plain(
    "A collector that follows the BGP sessions over BMP (RFC 7854, RFC 8671).",
    &[
        field("collector", Type::Text(&ENDPOINT), Need::Required, "Address and port it listens on."),
        field(
            "statistics",
            Type::Duration { min: Duration::ZERO, max: HOUR },
            Need::Text("60s"),
            "Interval of Statistics Reports; 0s: none.",
        ),
    ],
);

const SIZE_MIB: Type = Type::Integer { min: 1, max: MAX_FILE_MIB as i64 };
const FILES: Type = Type::Integer { min: 1, max: MAX_FILES as i64 };

static MRT: Spec = plain(
    "BGP messages sent and received, as MRT files (RFC 6396, BGP4MP_ET).",
    &[
        field(
            "path",
            Type::Text(&SOCKET),
            Need::Text("/var/lib/ubique/{service}-{site}.mrt"),
            "The newest file; {service} and {site} are replaced. The one before it ends in .1, and so on.",
        ),
        field("size-mib", SIZE_MIB, Need::Integer(64), "Size at which the next file is started, MiB."),
        field("files", FILES, Need::Integer(8), "Files kept."),
    ],
);

static JOURNAL: Spec = plain(
    "Inputs of all cores: `ubique replay` runs them again, to the same outputs.",
    &[
        field(
            "path",
            Type::Text(&SOCKET),
            Need::Text("/var/lib/ubique/{service}-{site}.journal"),
            "The newest file; {service} and {site} are replaced. The one before it ends in .1, and so on.",
        ),
        field("size-mib", SIZE_MIB, Need::Integer(64), "Size at which the next file is started, MiB."),
        field("files", FILES, Need::Integer(4), "Files kept."),
        field(
            "outputs",
            Type::Choice(&["hash", "full"]),
            Need::Text("hash"),
            "What is kept of outputs: a running hash, which proves that a replay is equal, or all of them.",
        ),
    ],
);

static REHEARSE: Spec = plain(
    "What `ubique rehearse` starts as the service on each site.",
    &[
        field(
            "command",
            Type::List { item: &Type::Text(&WORD), min: 0, max: MAX_COMMAND_WORDS },
            Need::Described("the built-in DNS responder"),
            "Program and arguments; {site}, {address}, {directory} (of this file) and {run} (the site's own, empty) are replaced.",
        ),
        field(
            "ask",
            Type::Choice(&["dns", "http", "ntp"]),
            Need::Text("dns"),
            "What vantage points ask, and what names the site: dns, NSID or `id.server CH TXT` (port 53); http, the header \
             X-Served-By of `GET /` (port 80); ntp, the reference identifier of a stratum 1 server (port 123).",
        ),
        field(
            "agent",
            Type::List { item: &Type::Text(&WORD), min: 0, max: MAX_COMMAND_WORDS },
            Need::Described("`ubique run`"),
            "Another agent, to compare; {site}, {asn}, {address}, {upstream}, {upstream-asn} and {local} are replaced.",
        ),
    ],
);

static SITE: Spec = plain(
    "One place that announces the service.",
    &[
        field("name", Type::Text(&NAME), Need::Required, "Short unique name."),
        field("location", Type::Text(&LOCATION), Need::Required, "\"City, CC\", an IATA code, or \"LAT,LON\"."),
        field("capacity", Type::Table(&CAPACITY), Need::Optional, "What it can carry."),
        field(
            "router-id",
            Type::Text(&ROUTER_ID),
            Need::Described("derived from the first IPv4 local address, or from the site's index"),
            "BGP identifier.",
        ),
        field(
            "unicast",
            Type::List { item: &Type::Text(&ADDRESS), min: 1, max: 2 },
            Need::Optional,
            "Its own addresses, where the other sites reach it: one of a family at most. Required with `[sessions]`, where any two sites \
             have a family in common.",
        ),
        field(
            "number",
            Type::Integer { min: 0, max: MAX_SESSION_SITES as i64 - 1 },
            Need::Described("the CRC-32 of its name, modulo 64"),
            "Its number in packets with `[sessions]`, no other site's. When it changes, connections that are open survive no route change.",
        ),
        field(
            "upstream",
            Type::Tables { spec: &UPSTREAM, max: MAX_UPSTREAMS },
            Need::Optional,
            "Its BGP neighbours; at least one, or one [[site.dynamic]].",
        ),
        field(
            "dynamic",
            Type::Tables { spec: &DYNAMIC, max: MAX_RANGES },
            Need::Optional,
            "Ranges of addresses that further neighbours may connect from.",
        ),
    ],
);

static CAPACITY: Spec = plain(
    "What a site can carry.",
    &[
        field("bits", Type::Text(&BIT_RATE), Need::Optional, "Bits per second."),
        field("queries", Type::Text(&QUERY_RATE), Need::Optional, "Queries per second."),
    ],
);
