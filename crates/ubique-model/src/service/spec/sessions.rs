//! The keys of `[sessions]`.

use super::{field, plain};
use crate::read::formats::*;
use crate::read::spec::{Need, Spec, Type};

/// Most sites of a service with `[sessions]`: so many numbers of sites there are in packets.
pub const MAX_SESSION_SITES: u8 = 64;
/// UDP port between the sites unless the file says otherwise.
pub const SESSIONS_PORT: u16 = 8474;
/// Most ports of a kind.
pub const MAX_SESSION_PORTS: usize = 16;
/// Most interfaces.
pub const MAX_SESSION_INTERFACES: usize = 16;
/// Smallest and largest MTU between sites, bytes: what every IPv6 link carries (RFC 8200 §5), and what is usual for jumbo
/// frames.
pub const SESSIONS_MTU: (u16, u16) = (1280, 9216);

const PORT: Type = Type::Integer { min: 1, max: u16::MAX as i64 };

pub(super) static SESSIONS: Spec = plain(
    "TCP and QUIC connections survive a route change: each packet names the site that has its connection, and a site that it \
     reaches by mistake passes it on, over UDP between the sites' `unicast` addresses.",
    &[
        field(
            "secret-file",
            Type::Text(&SECRET),
            Need::Required,
            "File with the secret, the same at all sites and nowhere else.",
        ),
        field(
            "tcp",
            Type::Choice(&["auto", "cookie", "timestamp", "off"]),
            Need::Text("auto"),
            "How TCP connections carry the number of their site: cookie, in initial sequence numbers and timestamps of our own SYN cookies \
             (Linux 6.9); timestamp, in timestamps alone (Linux 5.10); auto, cookie where kernel and drivers can and `mptcp` is off, else timestamp.",
        ),
        field(
            "tcp-ports",
            Type::List { item: &PORT, min: 1, max: MAX_SESSION_PORTS },
            Need::Described("all that a program listens on"),
            "TCP ports whose SYNs are answered by cookies.",
        ),
        field(
            "quic-ports",
            Type::List { item: &PORT, min: 0, max: MAX_SESSION_PORTS },
            Need::Described("none"),
            "UDP ports that speak QUIC, with connection IDs that carry the number of the site.",
        ),
        field(
            "port",
            PORT,
            Need::Integer(SESSIONS_PORT as i64),
            "UDP port, at the `unicast` addresses, of what sites pass on to each other; firewalls between them let it through.",
        ),
        field(
            "budget",
            Type::Text(&PACKET_RATE),
            Need::Text("1M/s"),
            "Packets a second accepted from each other site; more are dropped, so that a flood at one is not a flood at all.",
        ),
        field(
            "return",
            Type::Choice(&["direct", "through"]),
            Need::Text("direct"),
            "How replies to packets that were passed on travel: direct, to the client; through, back by way of the site that passed them on, \
             where upstreams drop sources that this site does not announce (strict uRPF).",
        ),
        field(
            "mtu",
            Type::Integer { min: SESSIONS_MTU.0 as i64, max: SESSIONS_MTU.1 as i64 },
            Need::Integer(1500),
            "Smallest MTU of all paths between the sites, bytes: TCP segments are kept small enough (MSS) to be passed on whole.",
        ),
        field(
            "mptcp",
            Type::Boolean,
            Need::Described("false"),
            "Clients of MPTCP (RFC 8684) are told the site's `unicast` addresses, and stay with it by themselves; for servers whose sockets speak MPTCP.",
        ),
        field(
            "interfaces",
            Type::List { item: &Type::Text(&INTERFACE), min: 1, max: MAX_SESSION_INTERFACES },
            Need::Described("those of the upstreams' sessions"),
            "Interfaces that packets of clients and sites arrive on, of all sites: each takes those it has.",
        ),
    ],
);
