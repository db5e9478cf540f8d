//! The rehearsal lab: a scenario played on an emulated Internet with the real binary.
//!
//! [`plan`] turns an Internet and a service into names, addresses, links and delays, purely. [`build`] makes
//! that real as network namespaces and veth pairs; [`wire`] moves the frames between them with the delay, loss
//! and rate of each link; [`routers`] runs the BGP routers of the networks, embedded or as BIRD or FRR processes;
//! [`world`] ties these together and holds the sites' agents and services. [`dns`] is the built-in service,
//! [`probe`] the clients, [`sessions`] what they hold open meanwhile, [`measure`], [`explain`] and [`report`] turn what they saw into answers, and [`play`]
//! runs a scenario.
//!
//! Deliberately absent: protocol logic of its own. The lab starts processes and looks at them; BGP, health and
//! the order of announcements live in `ubique-proto`, so that a rehearsal exercises what ships.
//! Start at [`plan::Plan`] and [`world::World`].

#![forbid(unsafe_code)]

pub mod build;
pub mod child;
pub mod control;
pub mod dns;
pub mod explain;
pub mod measure;
pub mod plan;
pub mod play;
pub mod probe;
pub mod report;
pub mod routers;
pub mod sessions;
pub mod wire;
pub mod world;
