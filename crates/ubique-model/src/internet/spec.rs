//! The keys of an Internet file.

use std::time::Duration;

use crate::read::formats::{BIT_RATE, FREE, LOCATION, NAME};
use crate::read::spec::{Field, Format, Need, Spec, Type};

/// Most networks.
pub const MAX_NETWORKS: usize = 1000;
/// Most links, including those exchange points imply.
pub const MAX_LINKS: usize = 10_000;
/// Most exchange points.
pub const MAX_IXPS: usize = 100;
/// Most members of an exchange point.
pub const MAX_MEMBERS: usize = 256;
/// Most vantage points.
pub const MAX_VANTAGES: usize = 1000;

const FRACTION: Format = Format { what: "a percentage", pattern: Some("^[0-9]+(\\.[0-9]+)? ?%$"), example: "0.1%" };

const fn field(key: &'static str, ty: Type, need: Need, doc: &'static str) -> Field {
    Field { key, ty, need, doc }
}

const fn plain(doc: &'static str, fields: &'static [Field]) -> Spec {
    Spec { doc, fields, variants: None, later: &[] }
}

/// An Internet file.
pub(crate) static FILE: Spec = plain(
    "An emulated Internet: networks, links, exchange points and vantage points.",
    &[
        field("name", Type::Text(&NAME), Need::Required, "Short name."),
        field(
            "as",
            Type::Tables { spec: &NETWORK, max: MAX_NETWORKS },
            Need::Optional,
            "The networks, one router each; at least one.",
        ),
        field("link", Type::Tables { spec: &LINK, max: MAX_LINKS }, Need::Optional, "Links between two networks."),
        field(
            "ixp",
            Type::Tables { spec: &IXP, max: MAX_IXPS },
            Need::Optional,
            "Exchange points: their members peer with each other.",
        ),
        field("vantage", Type::Tables { spec: &VANTAGE, max: MAX_VANTAGES }, Need::Optional, "Where clients are."),
    ],
);

static NETWORK: Spec = plain(
    "A network.",
    &[
        field("asn", Type::Asn, Need::Required, "Its AS number."),
        field("name", Type::Text(&FREE), Need::Required, "Its name, for people."),
        field("location", Type::Text(&LOCATION), Need::Required, "Where its router stands."),
    ],
);

static LINK: Spec = plain(
    "A link between two networks with one BGP session for each family.",
    &[
        field(
            "between",
            Type::List { item: &Type::Asn, min: 2, max: 2 },
            Need::Required,
            "The two networks; with relation \"transit\" the first sells transit to the second.",
        ),
        field("relation", Type::Choice(&["transit", "peer"]), Need::Required, "\"transit\" or \"peer\"."),
        field(
            "delay",
            Type::Duration { min: Duration::ZERO, max: Duration::from_secs(10) },
            Need::Described("from geography"),
            "One-way delay.",
        ),
        field("loss", Type::Text(&FRACTION), Need::Text("0%"), "Share of frames that are lost."),
        field("rate", Type::Text(&BIT_RATE), Need::Described("unlimited"), "Capacity."),
    ],
);

static IXP: Spec = plain(
    "An exchange point: its members peer with each other, unless they have a link already.",
    &[
        field("name", Type::Text(&FREE), Need::Required, "Unique name."),
        field("location", Type::Text(&LOCATION), Need::Required, "Where it is."),
        field(
            "members",
            Type::List { item: &Type::Asn, min: 2, max: MAX_MEMBERS },
            Need::Required,
            "AS numbers of its members.",
        ),
    ],
);

static VANTAGE: Spec = plain(
    "A vantage point: a client in a network.",
    &[
        field("name", Type::Text(&FREE), Need::Required, "Unique name, usually a city."),
        field("asn", Type::Asn, Need::Required, "Its network."),
        field("location", Type::Text(&LOCATION), Need::Described("that of its network"), "Where it is."),
    ],
);
