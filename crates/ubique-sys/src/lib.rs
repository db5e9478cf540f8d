//! ubique-sys: the kernel contact of ubique, and the only crate with `unsafe`.
//!
//! Each module wraps one facility of Linux in a few safe calls and decides nothing. Everything is synchronous;
//! what produces events is non-blocking and has `AsFd`, for the event loop of the caller.
//!
//! - [`sandbox`] and [`netns`]: namespaces, [`netlink`]: links, addresses and routes in them
//! - [`process`]: pidfds and children, [`sockdiag`]: who serves a port and when that socket dies
//! - [`packet`], [`tcp`], [`udp`]: sockets beyond the standard library; [`arrivals`]: packets counted for some addresses;
//!   [`peer`]: who connected a Unix socket
//! - [`mptcp`]: addresses that clients of MPTCP are told
//! - [`xdp`]: what a veth needs beside programs of others
//! - [`file`]: reads that wait for nothing
//! - [`privilege`] and [`seccomp`]: giving up what is not needed
//! - [`watchdog`]: a process that ends us when a thread stalls; [`clock`]: time;
//!   [`priority`]: threads that must run in time; [`memory`]: giving it back
//!
//! Deliberately absent: policy, protocols, async. Linux 5.6 or later (pidfd, `PACKET_IGNORE_OUTGOING`).

pub mod arrivals;
pub mod clock;
pub mod file;
pub mod memory;
mod mmsg;
pub mod mptcp;
pub mod netlink;
pub mod netns;
pub mod packet;
pub mod peer;
pub mod priority;
pub mod privilege;
pub mod process;
pub mod sandbox;
pub mod seccomp;
pub mod sockdiag;
mod sockopt;
pub mod tcp;
pub mod udp;
pub mod watchdog;
pub mod xdp;
