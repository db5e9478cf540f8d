//! Address families with their SAFI (RFC 4760): what routes a session carries.

use std::fmt;

use serde::{Deserialize, Serialize};

pub use ubique_model::net::AddressFamily;

/// A set of address families.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "Vec<AddressFamily>", from = "Vec<AddressFamily>")]
pub struct AddressFamilies(u8);

impl AddressFamilies {
    /// The empty set.
    pub const NONE: AddressFamilies = AddressFamilies(0);

    /// IPv4 and IPv6 unicast.
    pub const UNICAST: AddressFamilies = AddressFamilies(0b0011);

    /// Every family ubique knows.
    pub const ALL: AddressFamilies = AddressFamilies(0b1111);

    /// One.
    pub fn only(family: impl Into<AddressFamily>) -> AddressFamilies {
        [family.into()].into_iter().collect()
    }

    /// Whether `family` is in it.
    pub fn contains(self, family: impl Into<AddressFamily>) -> bool {
        self.0 & 1 << family.into() as u8 != 0
    }

    /// Puts `family` in.
    pub fn insert(&mut self, family: impl Into<AddressFamily>) {
        self.0 |= 1 << family.into() as u8;
    }

    /// Takes `family` out.
    pub fn remove(&mut self, family: impl Into<AddressFamily>) {
        self.0 &= !(1 << family.into() as u8);
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(self, other: AddressFamilies) -> AddressFamilies {
        AddressFamilies(self.0 & other.0)
    }

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its members, in the order of [`AddressFamily::ALL`].
    pub fn iter(self) -> impl Iterator<Item = AddressFamily> {
        AddressFamily::ALL.into_iter().filter(move |&family| self.contains(family))
    }
}

impl<F: Into<AddressFamily>> FromIterator<F> for AddressFamilies {
    fn from_iter<I: IntoIterator<Item = F>>(families: I) -> AddressFamilies {
        let mut set = AddressFamilies::NONE;
        families.into_iter().for_each(|family| set.insert(family));
        set
    }
}

impl From<AddressFamilies> for Vec<AddressFamily> {
    fn from(families: AddressFamilies) -> Vec<AddressFamily> {
        families.iter().collect()
    }
}

impl From<Vec<AddressFamily>> for AddressFamilies {
    fn from(families: Vec<AddressFamily>) -> AddressFamilies {
        families.into_iter().collect()
    }
}

impl fmt::Debug for AddressFamilies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
