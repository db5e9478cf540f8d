//! Address families with their SAFI (RFC 4760): what routes a session carries.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Family;

/// AFI and SAFI of a kind of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AddressFamily {
    /// AFI 1, SAFI 1.
    Ipv4Unicast,
    /// AFI 2, SAFI 1.
    Ipv6Unicast,
    /// AFI 1, SAFI 133 (RFC 8955).
    Ipv4FlowSpec,
    /// AFI 2, SAFI 133 (RFC 8956).
    Ipv6FlowSpec,
}

impl AddressFamily {
    /// All that ubique knows.
    pub const ALL: [AddressFamily; 4] = [
        AddressFamily::Ipv4Unicast,
        AddressFamily::Ipv6Unicast,
        AddressFamily::Ipv4FlowSpec,
        AddressFamily::Ipv6FlowSpec,
    ];

    /// Unicast routes of `family`.
    pub fn unicast(family: Family) -> AddressFamily {
        match family {
            Family::Ipv4 => AddressFamily::Ipv4Unicast,
            Family::Ipv6 => AddressFamily::Ipv6Unicast,
        }
    }

    /// FlowSpec rules about packets of `family`.
    pub fn flowspec(family: Family) -> AddressFamily {
        match family {
            Family::Ipv4 => AddressFamily::Ipv4FlowSpec,
            Family::Ipv6 => AddressFamily::Ipv6FlowSpec,
        }
    }

    /// The family of its prefixes.
    pub fn family(self) -> Family {
        match self {
            AddressFamily::Ipv4Unicast | AddressFamily::Ipv4FlowSpec => Family::Ipv4,
            AddressFamily::Ipv6Unicast | AddressFamily::Ipv6FlowSpec => Family::Ipv6,
        }
    }

    /// Whether its routes are unicast.
    pub fn is_unicast(self) -> bool {
        matches!(self, AddressFamily::Ipv4Unicast | AddressFamily::Ipv6Unicast)
    }

    /// Its numbers (RFC 4760 §3).
    pub fn afi_safi(self) -> (u16, u8) {
        match self {
            AddressFamily::Ipv4Unicast => (1, 1),
            AddressFamily::Ipv6Unicast => (2, 1),
            AddressFamily::Ipv4FlowSpec => (1, 133),
            AddressFamily::Ipv6FlowSpec => (2, 133),
        }
    }

    /// As the service file writes it; unicast has no suffix there.
    pub fn word(self) -> &'static str {
        match self {
            AddressFamily::Ipv4Unicast => "ipv4",
            AddressFamily::Ipv6Unicast => "ipv6",
            AddressFamily::Ipv4FlowSpec => "ipv4-flowspec",
            AddressFamily::Ipv6FlowSpec => "ipv6-flowspec",
        }
    }

    /// The one with these numbers, if ubique knows it.
    pub fn from_afi_safi(afi: u16, safi: u8) -> Option<AddressFamily> {
        AddressFamily::ALL.into_iter().find(|family| family.afi_safi() == (afi, safi))
    }
}

impl From<Family> for AddressFamily {
    fn from(family: Family) -> AddressFamily {
        AddressFamily::unicast(family)
    }
}

impl fmt::Display for AddressFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AddressFamily::Ipv4Unicast => "ipv4 unicast",
            AddressFamily::Ipv6Unicast => "ipv6 unicast",
            AddressFamily::Ipv4FlowSpec => "ipv4 flowspec",
            AddressFamily::Ipv6FlowSpec => "ipv6 flowspec",
        })
    }
}
