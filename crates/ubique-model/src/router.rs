//! Specification of an embedded router of the lab: what `ubique internal routers` is told to run.
//!
//! JSON between two processes of one version, not a user format.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::net::{Asn, Prefix, Relation};

/// All embedded routers of one lab: one process runs them, each in its own network namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoutersSpec {
    /// Unix socket that answers [`crate::router`] queries as JSON lines.
    pub socket: PathBuf,
    /// Seed of all jitter.
    pub seed: u64,
    /// The routers.
    pub routers: Vec<RouterSpec>,
}

/// One router: a BGP speaker with Gao-Rexford policy that installs its best routes in the kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouterSpec {
    /// Its AS.
    pub asn: Asn,
    /// Name of the network, for people.
    pub name: String,
    /// BGP identifier.
    pub router_id: Ipv4Addr,
    /// Path of its network namespace.
    pub netns: PathBuf,
    /// Prefixes it originates.
    pub originate: Vec<Prefix>,
    /// Its neighbours.
    pub neighbors: Vec<NeighborSpec>,
}

/// A neighbour of an embedded router.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NeighborSpec {
    /// Our address; the session's family is its family.
    pub local_address: IpAddr,
    /// The neighbour's address.
    pub address: IpAddr,
    /// The neighbour's AS.
    pub asn: Asn,
    /// What the neighbour is to us.
    pub relation: Relation,
    /// Proposed hold time.
    pub hold_time: Duration,
    /// Wait for the neighbour to connect.
    pub passive: bool,
}
