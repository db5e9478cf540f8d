//! An emulated Internet: networks, links, exchange points and vantage points, as an Internet file describes it.

mod graph;
mod parse;
pub mod spec;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::location::Location;
use crate::net::{Asn, Relation};

/// An emulated Internet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Internet {
    /// Its name.
    pub name: String,
    /// `[[as]]`: the networks, one router each.
    pub networks: Vec<Network>,
    /// `[[link]]`: links between two networks, including those an `[[ixp]]` entry implies.
    pub links: Vec<Link>,
    /// `[[ixp]]`: the exchange points.
    pub ixps: Vec<Ixp>,
    /// `[[vantage]]`: where clients are.
    pub vantages: Vec<Vantage>,
}

/// A network (AS).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Its AS number.
    pub asn: Asn,
    /// Its name.
    pub name: String,
    /// Where its router stands.
    pub location: Location,
}

/// A link between two networks with one BGP session for each family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// One end.
    pub a: Asn,
    /// The other end.
    pub b: Asn,
    /// What `b` is to `a`: [`Relation::Customer`] when `a` sells transit to `b`, or [`Relation::Peer`].
    pub relation: Relation,
    /// One-way delay when stated; otherwise it follows from geography.
    pub delay: Option<Duration>,
    /// Probability that a frame is lost, 0 to 1.
    pub loss: f64,
    /// Capacity in bits per second; `None`: unlimited.
    pub rate_bits_per_s: Option<u64>,
    /// The exchange point it crosses, by name.
    pub ixp: Option<String>,
}

/// An exchange point: its members peer with each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ixp {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub location: Location,
    /// Its members.
    pub members: Vec<Asn>,
}

/// A vantage point: a client in a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vantage {
    /// Unique name, usually a city.
    pub name: String,
    /// Its network.
    pub asn: Asn,
    /// Where it is.
    pub location: Location,
}

#[cfg(test)]
mod tests;
