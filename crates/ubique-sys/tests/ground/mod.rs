//! Namespaces and links for the tests of sockets and routes.
#![allow(dead_code, reason = "each test program uses what it needs")]

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ubique_sys::netlink::Netlink;
use ubique_sys::netns::NetNs;

pub fn namespace(name: &str) -> NetNs {
    NetNs::create_at(&path_of(name)).unwrap()
}

pub fn path_of(name: &str) -> PathBuf {
    Path::new("/run/ubique/ns").join(name)
}

/// Two namespaces with a veth `l0` between them: 10.0.0.0/31 and fd00::/127.
pub fn pair() -> (NetNs, NetNs) {
    let ends = (namespace("a"), namespace("b"));
    let mut netlink = Netlink::open().unwrap();
    netlink.add_veth(("l0", Some(&ends.0)), ("l0", Some(&ends.1))).unwrap();
    for (ns, addresses) in [(&ends.0, ["10.0.0.0/31", "fd00::/127"]), (&ends.1, ["10.0.0.1/31", "fd00::1/127"])] {
        let mut netlink = Netlink::open_in(ns).unwrap();
        let index = netlink.link_index("l0").unwrap();
        netlink.set_up(index).unwrap();
        for address in addresses {
            assert!(netlink.add_address(index, address.parse().unwrap()).unwrap());
        }
    }
    ends
}

pub fn readable(fd: impl AsFd, timeout_ms: i64) -> bool {
    let timeout = Timespec { tv_sec: timeout_ms / 1000, tv_nsec: timeout_ms % 1000 * 1_000_000 };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap() > 0
}
