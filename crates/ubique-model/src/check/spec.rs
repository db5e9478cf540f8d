//! The keys of `[[check]]` and `[[group]]`.

use std::time::Duration;

use crate::read::formats::*;
use crate::read::spec::{Field, Need, Spec, Type, Variant, Variants};
use crate::service::spec::{MAX_COMMAND_WORDS, field, plain};

/// Most groups of a service.
pub const MAX_GROUPS: usize = 32;
/// Longest `fall` and `rise`.
pub const MAX_IN_A_ROW: u32 = 1000;
/// Largest weight of a check.
pub const MAX_WEIGHT: u32 = 1000;
/// Largest threshold of a group: every check with the largest weight.
pub const MAX_THRESHOLD: u32 = MAX_WEIGHT * crate::service::spec::MAX_CHECKS as u32;
/// Most things of a kind that one check expects.
pub const MAX_EXPECTED: usize = 16;
/// Largest stratum of a synchronised NTP server (RFC 5905 §7.3).
pub const MAX_STRATUM: u8 = 15;
/// Largest threshold of a check of load; thousandths of it still fit into 64 bits.
pub const MAX_LOAD: u64 = 1_000_000_000_000;
/// Most days a certificate can be asked to be valid for.
pub const MAX_DAYS_LEFT: u32 = 3650;
/// Longest process name the kernel keeps, bytes (`TASK_COMM_LEN` less its NUL).
pub const MAX_COMM_BYTES: usize = 15;

/// RCODE mnemonics a DNS check can expect (RFC 1035 §4.1.1).
pub(crate) const RCODES: &[&str] = &["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];
/// Flags a DNS check can expect.
pub(crate) const FLAGS: &[&str] = &["aa", "ad", "ra", "tc", "no-aa", "no-ad", "no-ra", "no-tc"];
/// What a check of load can measure.
pub(crate) const METRICS: &[&str] = &["packets", "datagrams", "cpu", "backlog", "drops", "command", "page"];

pub(crate) const COMMAND: Type = Type::List { item: &Type::Text(&WORD), min: 1, max: MAX_COMMAND_WORDS };
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
const THRESHOLD: Type = Type::Scalar { format: &THRESHOLD_WORD, min: 1, max: MAX_THRESHOLD as i64 };
const TEXTS: Type = Type::OneOrMore { item: &Type::Text(&FREE), max: MAX_EXPECTED };
const TARGET: Field = field(
    "target",
    Type::Text(&SERVER),
    Need::Required,
    "Server asked: an address with port; \"service:PORT\": every service address; \"loopback:PORT\": the loopback address of \
     each family the service has. All of them must answer.",
);
const SERVER_NAME: Field = field(
    "server-name",
    Type::Text(&HOST),
    Need::Described("`host` where there is one, else the address asked"),
    "Over TLS: name asked for (SNI), which the certificate must have.",
);
const CA_FILE: Field = field(
    "ca-file",
    Type::Text(&CA),
    Need::Described("the authorities this machine believes"),
    "Over TLS: PEM file of the authorities that may have signed the certificate.",
);
const INSECURE: Field = field(
    "insecure",
    Type::Boolean,
    Need::Described("false"),
    "Over TLS: true: any certificate passes, its name and date included.",
);
const URL_FIELD: &str = "http:// or https:// with an address literal, or with `service` or `loopback` as the host: all these \
                         addresses must answer.";

pub(crate) static CHECK_GROUP: Spec = plain(
    "Checks that count together: `group = \"NAME\"` in each of them.",
    &[
        field("name", Type::Text(&NAME), Need::Required, "Unique name."),
        field(
            "healthy",
            THRESHOLD,
            Need::Text("all"),
            "So much weight must be up for the site to be healthy; \"all\": every check; \"any\": one is enough.",
        ),
        field(
            "degraded",
            THRESHOLD,
            Need::Described("as `healthy`: no degraded level"),
            "So much weight must be up for the site to be degraded; with less it has failed.",
        ),
    ],
);

pub(crate) static CHECK: Spec = Spec {
    doc: "One test of the service on its own site.",
    fields: &[
        field("name", Type::Text(&NAME), Need::Described("the kind"), "Unique name of the check."),
        field("kind", Type::Tag, Need::Required, "How it is tested."),
        field(
            "every",
            Type::Duration { min: Duration::from_millis(10), max: HOUR },
            Need::Text("1s"),
            "Interval between the starts of two polls.",
        ),
        field(
            "timeout",
            Type::Duration { min: MS, max: HOUR },
            Need::Described("500ms, or `every` when that is shorter"),
            "A poll without result by then has failed; at most `every`.",
        ),
        field(
            "retry",
            Type::Duration { min: MS, max: HOUR },
            Need::Described("as `every`"),
            "Interval between the starts of two polls once one has failed, until `fall` of them have; shorter than `every`.",
        ),
        field(
            "latency",
            Type::Duration { min: MS, max: HOUR },
            Need::Optional,
            "A right answer that took longer counts as a failure; shorter than `timeout`.",
        ),
        field(
            "fall",
            Type::Integer { min: 1, max: MAX_IN_A_ROW as i64 },
            Need::Integer(3),
            "So many failures in a row turn it down; for load: so many polls at or above `high` mean overload.",
        ),
        field(
            "rise",
            Type::Integer { min: 1, max: MAX_IN_A_ROW as i64 },
            Need::Integer(3),
            "So many successes in a row turn it up; for load: so many polls at or below `low` end the overload.",
        ),
        field(
            "on-failure",
            Type::Choice(&["failed", "degraded"]),
            Need::Described("\"failed\""),
            "What the site is while the check is down.",
        ),
        field("group", Type::Text(&NAME), Need::Optional, "Instead of `on-failure`: the [[group]] that counts it."),
        field(
            "weight",
            Type::Integer { min: 1, max: MAX_WEIGHT as i64 },
            Need::Described("1"),
            "How much it counts in its group.",
        ),
    ],
    variants: Some(&CHECK_KINDS),
    later: &[],
};

static CHECK_KINDS: Variants =
    Variants { tag: "kind", list: &[DNS, HTTP, TCP, TLS, UDP, NTP, PROCESS, SYSTEMD, EXEC, LOAD], later: &[] };

const DNS: Variant = Variant {
    name: "dns",
    doc: "A DNS query is answered as expected.",
    fields: &[
        TARGET,
        field(
            "query",
            Type::Text(&QUERY),
            Need::Required,
            "\"NAME TYPE\" or \"NAME TYPE CLASS\"; the class is IN unless written.",
        ),
        field("expect", Type::Choice(RCODES), Need::Text("NOERROR"), "Expected response code."),
        field(
            "answer",
            TEXTS,
            Need::Optional,
            "Data that a record of the answer must have, each, as zone files write it: an address, a name, a text.",
        ),
        field(
            "answer-contains",
            TEXTS,
            Need::Optional,
            "Text that the data of a record of the answer must contain, each.",
        ),
        field(
            "flags",
            Type::OneOrMore { item: &Type::Choice(FLAGS), max: FLAGS.len() },
            Need::Optional,
            "Flags of the answer that must be set, or clear with \"no-\" in front.",
        ),
        field(
            "transport",
            Type::Choice(&["udp", "tcp", "tls", "https"]),
            Need::Text("udp"),
            "Transport of the query; tls is RFC 7858 (DoT), https RFC 8484 (DoH).",
        ),
        field("path", Type::Text(&URL_PATH), Need::Described("/dns-query"), "Over HTTPS: path asked."),
        SERVER_NAME,
        CA_FILE,
        INSECURE,
    ],
};

const HTTP: Variant = Variant {
    name: "http",
    doc: "An HTTP/1.1 GET is answered as expected.",
    fields: &[
        field("url", Type::Text(&URL), Need::Required, URL_FIELD),
        field("host", Type::Text(&HOST), Need::Described("the address asked"), "Host header."),
        field(
            "expect",
            Type::OneOrMore { item: &Type::Scalar { format: &STATUS, min: 100, max: 599 }, max: MAX_EXPECTED },
            Need::Integer(200),
            "Status codes that pass: 204, \"2xx\", \"200-399\", or a list of such.",
        ),
        field("body", TEXTS, Need::Optional, "Text that the first 64 KiB of the body must contain, each."),
        field(
            "headers",
            Type::Map { value: &FREE, max: MAX_EXPECTED },
            Need::Optional,
            "Headers of the answer and the value each must have.",
        ),
        SERVER_NAME,
        CA_FILE,
        INSECURE,
    ],
};

const TCP: Variant = Variant { name: "tcp", doc: "A TCP connection is accepted.", fields: &[TARGET] };

const TLS: Variant = Variant {
    name: "tls",
    doc: "A TLS handshake succeeds and the certificate is good.",
    fields: &[
        TARGET,
        SERVER_NAME,
        CA_FILE,
        INSECURE,
        field(
            "days-left",
            Type::Integer { min: 0, max: MAX_DAYS_LEFT as i64 },
            Need::Integer(0),
            "The certificate must be valid for so many days more.",
        ),
    ],
};

const UDP: Variant = Variant {
    name: "udp",
    doc: "A UDP payload is answered.",
    fields: &[
        TARGET,
        field("send", Type::Text(&OCTETS), Need::Required, "Payload: text, or \"hex:\" and hexadecimal digits."),
        field("starts", Type::Text(&OCTETS), Need::Optional, "What the answer must begin with, likewise."),
        field("contains", Type::Text(&OCTETS), Need::Optional, "What the answer must contain, likewise."),
    ],
};

const NTP: Variant = Variant {
    name: "ntp",
    doc: "An NTP server is synchronised: no alarm, a good stratum, and on request a small offset to this machine's clock.",
    fields: &[
        TARGET,
        field(
            "stratum",
            Type::Integer { min: 1, max: MAX_STRATUM as i64 },
            Need::Integer(MAX_STRATUM as i64),
            "Largest stratum that passes.",
        ),
        field(
            "offset",
            Type::Duration { min: Duration::from_micros(1), max: HOUR },
            Need::Optional,
            "Largest offset to the clock of this machine that passes; absent: any.",
        ),
    ],
};

const PROCESS: Variant = Variant {
    name: "process",
    doc: "A process runs; give `pidfile` or `process`.",
    fields: &[
        field("pidfile", Type::Text(&PIDFILE), Need::Optional, "File with its process ID."),
        field(
            "process",
            Type::Text(&COMM),
            Need::Optional,
            "Its name as `ps -o comm` shows it (at most 15 bytes), or the file name of its program.",
        ),
    ],
};

const SYSTEMD: Variant = Variant {
    name: "systemd",
    doc: "A unit of systemd has running processes (read from its control group, without a call to systemd).",
    fields: &[field("unit", Type::Text(&UNIT), Need::Required, "Name of the unit, with its ending.")],
};

const EXEC: Variant = Variant {
    name: "exec",
    doc: "A command exits with 0; it is killed with its process group at the timeout.",
    fields: &[field("command", COMMAND, Need::Required, "Program and arguments; no shell.")],
};

const LOAD: Variant = Variant {
    name: "load",
    doc: "How busy the site is. Never makes it unfit: it turns overload on and off, which [[shed]] answers.",
    fields: &[
        field(
            "metric",
            Type::Choice(METRICS),
            Need::Required,
            "`packets`: received per second; `datagrams`: received by UDP sockets per second; `cpu`: percent of all processors; \
             `backlog`: octets waiting in a UDP socket or connections waiting in a TCP listener of `port`, the longest queue; \
             `drops`: datagrams and connections lost to full queues per second; `command`, `page`: a number that one prints.",
        ),
        field("high", Type::Integer { min: 1, max: MAX_LOAD as i64 }, Need::Required, "Overloaded at or above this."),
        field(
            "low",
            Type::Integer { min: 0, max: MAX_LOAD as i64 },
            Need::Described("four fifths of `high`"),
            "No longer at or below this; less than `high`.",
        ),
        field(
            "interface",
            Type::Text(&INTERFACE),
            Need::Described("all but the loopback"),
            "For `packets`: where they are received.",
        ),
        field("port", Type::Integer { min: 1, max: 65535 }, Need::Optional, "For `backlog`: the port."),
        field("command", COMMAND, Need::Optional, "For `command`: program and arguments; no shell."),
        field(
            "url",
            Type::Text(&URL),
            Need::Optional,
            "For `page`: where the number is, e.g. http://127.0.0.1:8053/qps.",
        ),
        SERVER_NAME,
        CA_FILE,
        INSECURE,
    ],
};
