//! The vocabulary of ubique.
//!
//! One service file describes an anycast service; this crate turns it into a [`Service`] or into
//! diagnostics, and owns the words every other crate speaks: sites, prefixes, upstreams, checks,
//! the one announcement policy, scenarios, emulated Internets and catchments.
//!
//! Deliberately absent: files, clocks, threads, sockets. Callers read the file and pass its text.
//! Start at [`service::Service`].

#![forbid(unsafe_code)]

pub mod catchment;
pub mod change;
pub mod check;
pub mod diagnostic;
pub mod internet;
pub mod location;
pub mod net;
pub mod policy;
pub mod quantity;
pub mod read;
pub mod router;
pub mod scenario;
pub mod service;
pub mod traffic;

pub use diagnostic::{Diagnostic, Parsed, Severity};
pub use ipnet::{IpNet, Ipv4Net, Ipv6Net};
pub use net::{AddressFamily, Asn, Community, ExtendedCommunity, Family, LargeCommunity, Prefix, Relation};
pub use read::MAX_FILE_BYTES;
pub use read::schema::{internet_schema, scenario_schema, service_schema};
