//! The site in the initial sequence number (RFC 9293 §3.4.1), for clients that do not offer timestamps.
//!
//! Above [`COOKIE_BITS`] bits for a SYN cookie (RFC 4987 §3.6) stands the code of the site, and the whole is masked. A client
//! acknowledges octets from there on, so the code can be read until the server has sent [`REACH`] octets: the four codes
//! that each site owns are as many steps of 16 MiB.

use super::{Mask, SPACING, Site};

/// Bits below the code.
const SHIFT: u32 = 24;

/// Bits that are free for a cookie.
pub const COOKIE_BITS: u32 = 22;

/// Octets a server may send until its site can no longer be told from an acknowledgement number, whatever the cookie.
pub const REACH: u32 = ((SPACING as u32) << SHIFT) - (1 << COOKIE_BITS) - 1;

/// The initial sequence number of a server at `site`. `cookie`: its lower [`COOKIE_BITS`] bits.
pub fn encode(site: Site, cookie: u32, mask: Mask) -> u32 {
    let cookie = cookie & ((1 << COOKIE_BITS) - 1);
    (u32::from(site.code()) << SHIFT | cookie).wrapping_add(mask.sequence)
}

/// The site of which a client acknowledges octets. Every number is some site's: whether it has such a connection, that
/// site must tell.
pub fn decode(acknowledgement: u32, mask: Mask) -> Site {
    let code = (acknowledgement.wrapping_sub(mask.sequence) >> SHIFT) as u8;
    Site(code / SPACING)
}

/// The cookie that the first acknowledgement of a connection returns.
pub fn cookie(acknowledgement: u32, mask: Mask) -> u32 {
    acknowledgement.wrapping_sub(1).wrapping_sub(mask.sequence) & ((1 << COOKIE_BITS) - 1)
}

/// Whether the octet before the acknowledged ones can be the SYN of a server at `site`: only then it is worth a look at the
/// [`cookie`]. The bits between code and cookie are 0 there, ten bits in all.
pub fn is_initial(acknowledgement: u32, site: Site, mask: Mask) -> bool {
    let initial = acknowledgement.wrapping_sub(1).wrapping_sub(mask.sequence);
    initial >> COOKIE_BITS == u32::from(site.code()) << (SHIFT - COOKIE_BITS)
}
