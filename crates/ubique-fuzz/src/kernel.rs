//! Replies and events of the kernel: routes, links, addresses, sockets.

/// Octets: one datagram.
pub(crate) fn kernel(input: &[u8]) {
    let understood = ubique_sys::netlink::understand(input);
    // Each has a header of its own.
    assert!(understood <= input.len() / 16);
}
