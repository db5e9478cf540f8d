//! The site in the clock of TCP timestamps (RFC 7323).
//!
//! A server's timestamp clock runs at 1 kHz from a value of its choice. Ours are the wall clock, in ms, plus the code of the
//! site in the upper eight bits. The client echoes it (TSecr), and whoever receives the echo takes its own wall clock off:
//! what is left is the code and, below it, how long ago the server said it. So the clock stays a clock: monotonic, one
//! tick a millisecond; round-trip times, PAWS and Eifel see nothing unusual (bits that replaced the clock's own would
//! not do: kernels refuse an echo that is not exactly what they sent).
//!
//! Clocks of sites may differ by [`SLACK_MS`]. A connection may be idle for [`IDLE_MS`]: after that the echo reads as that of no
//! site, for hours, and the owner must be asked for. The shorter that is, the fewer echoes that somebody made up are taken for a
//! site's: one in 2,048 for each site there is.

use super::{Mask, Site};

/// Bits below the code.
const SHIFT: u32 = 24;

/// By how much the clocks of two sites may differ, ms.
pub const SLACK_MS: u32 = 300_000;

/// Bits of how old an echo may be.
const AGE_BITS: u32 = 21;

/// The longest silence of a server after which its site can still be told, ms: half an hour.
pub const IDLE_MS: u32 = (1 << AGE_BITS) - SLACK_MS - 1;

/// The timestamp (TSval) a server at `site` sends at this moment. `wall_ms`: its wall clock, ms since 1970.
pub fn encode(wall_ms: u64, site: Site, mask: Mask) -> u32 {
    (wall_ms as u32).wrapping_add(u32::from(site.code().wrapping_add(mask.code)) << SHIFT)
}

/// The site whose timestamp a client echoes (TSecr). `wall_ms`: the wall clock of whoever asks. `None`: no site's.
pub fn decode(echo: u32, wall_ms: u64, mask: Mask) -> Option<Site> {
    // How far the echo is ahead of our clock: the code, less its age, which is between −SLACK_MS and IDLE_MS.
    let ahead = echo.wrapping_sub(wall_ms as u32);
    let shifted = ahead.wrapping_add(IDLE_MS);
    let is_fresh = shifted & ((1 << SHIFT) - 1) < 1 << AGE_BITS;
    let code = ((shifted >> SHIFT) as u8).wrapping_sub(mask.code);
    Site::of_code(code).filter(|_| is_fresh)
}
