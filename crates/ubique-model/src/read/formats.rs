//! Forms of texts that several keys share, as the schemas and findings describe them.

use super::spec::Format;

pub(crate) const NAME: Format =
    Format { what: "a name", pattern: Some("^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$"), example: "ams" };
pub(crate) const FREE: Format = Format { what: "a text", pattern: None, example: "Example" };
pub(crate) const LOCATION: Format = Format { what: "a place", pattern: None, example: "Amsterdam, NL" };
pub(crate) const PREFIX: Format =
    Format { what: "a prefix", pattern: Some("^[0-9a-fA-F:.]+/[0-9]{1,3}$"), example: "198.51.100.0/24" };
pub(crate) const ADDRESS: Format =
    Format { what: "an IP address", pattern: Some("^[0-9a-fA-F:.]+$"), example: "192.0.2.1" };
pub(crate) const ENDPOINT: Format = Format {
    what: "an address with port",
    pattern: Some("^([0-9.]+|\\[[0-9a-fA-F:.]+\\]):[0-9]{1,5}$"),
    example: "198.51.100.53:53",
};
pub(crate) const PATH: Format = Format { what: "a path", pattern: None, example: "/etc/ubique/as1299.md5" };
pub(crate) const SECRET: Format = Format { what: "a path", pattern: None, example: "/etc/ubique/sessions.secret" };
pub(crate) const SOCKET: Format = Format { what: "a path", pattern: None, example: "/run/ubique/admin.sock" };
pub(crate) const PEM: Format = Format { what: "a path", pattern: None, example: "/etc/ubique/api.pem" };
pub(crate) const GROUP: Format = Format { what: "a group", pattern: None, example: "ubique" };
pub(crate) const PIDFILE: Format = Format { what: "a path", pattern: None, example: "/run/named.pid" };
pub(crate) const WORD: Format = Format { what: "a text", pattern: None, example: "/usr/bin/true" };
pub(crate) const ROUTER_ID: Format =
    Format { what: "a router ID", pattern: Some("^[0-9.]{7,15}$"), example: "192.0.2.1" };
pub(crate) const INTERFACE: Format =
    Format { what: "an interface name", pattern: Some("^[^ /]{1,15}$"), example: "eth0" };
pub(crate) const COMMUNITY: Format = Format {
    what: "a community",
    pattern: Some(
        "^([0-9]{1,5}:[0-9]{1,5}|[a-z][a-z0-9]*:[a-z0-9-]+|no-export|no-advertise|no-peer|blackhole|graceful-shutdown)$",
    ),
    example: "64500:100",
};
pub(crate) const EXTENDED_COMMUNITY: Format = Format {
    what: "an extended community",
    pattern: Some("^((rt|ro):[0-9.]{1,15}:[0-9]{1,10}|0x[0-9a-fA-F]{16})$"),
    example: "rt:64500:1",
};
pub(crate) const LARGE_COMMUNITY: Format =
    Format { what: "a large community", pattern: Some("^[0-9]{1,10}:[0-9]{1,10}:[0-9]{1,10}$"), example: "64500:1:2" };
pub(crate) const BIT_RATE: Format =
    Format { what: "a bit rate", pattern: Some("^[0-9]+(\\.[0-9]+)? ?[kMGT]?bit/s$"), example: "40Gbit/s" };
pub(crate) const QUERY_RATE: Format =
    Format { what: "a query rate", pattern: Some("^[0-9]+(\\.[0-9]+)? ?[kMGT]?/s$"), example: "1.2M/s" };
pub(crate) const PACKET_RATE: Format =
    Format { what: "a packet rate", pattern: Some("^[0-9]+(\\.[0-9]+)? ?[kMGT]?/s$"), example: "1M/s" };
pub(crate) const QUERY: Format = Format { what: "a DNS query", pattern: None, example: "example.com A" };
pub(crate) const URL: Format =
    Format { what: "a URL", pattern: Some("^https?://"), example: "http://198.51.100.53:80/health" };
pub(crate) const URL_PATH: Format = Format { what: "a path", pattern: Some("^/"), example: "/dns-query" };
pub(crate) const SERVER: Format = Format {
    what: "an address with port",
    pattern: Some("^([0-9.]+|\\[[0-9a-fA-F:.]+\\]|service|loopback):[0-9]{1,5}$"),
    example: "198.51.100.53:53",
};
pub(crate) const CA: Format = Format { what: "a path", pattern: None, example: "/etc/ubique/ca.pem" };
pub(crate) const OCTETS: Format = Format { what: "a text, or octets", pattern: None, example: "hex:1b00" };
pub(crate) const STATUS: Format =
    Format { what: "status codes", pattern: Some("^([1-5]xx|[1-5][0-9]{2}(-[1-5][0-9]{2})?)$"), example: "2xx" };
pub(crate) const THRESHOLD_WORD: Format = Format { what: "a threshold", pattern: Some("^(all|any)$"), example: "all" };
pub(crate) const UNIT: Format = Format { what: "a unit", pattern: None, example: "nsd.service" };
pub(crate) const HOST: Format = Format { what: "a host name", pattern: None, example: "www.example.com" };
pub(crate) const COMM: Format = Format { what: "a process name", pattern: None, example: "nsd" };
