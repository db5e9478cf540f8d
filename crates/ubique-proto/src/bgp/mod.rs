//! BGP-4 (RFC 4271) as an announcing edge and as a router of the lab.

pub mod attributes;
pub mod family;
pub mod flowspec;
pub mod message;
pub mod notification;
pub mod rib;
pub mod session;
pub mod speaker;
pub mod wire;
