//! The site in the clock of TCP timestamps (RFC 7323).
//!
//! A server's timestamp clock runs at 1 kHz from a value of its choice. Ours are the wall clock, in ms, plus the code of the
//! site in the upper eight bits. The client echoes it (TSecr), and whoever receives the echo takes its own wall clock off:
//! what is left is the code and, below it, how long ago the server said it. So the clock stays a clock: monotonic, one
//! tick a millisecond; round-trip times, PAWS and Eifel see nothing unusual (bits that replaced the clock's own would
//! not do: kernels refuse an echo that is not exactly what they sent).
//!
//! Clocks of sites may differ by [`SLACK_MS`]. An echo is believed for [`IDLE_MS`]. The shorter that is, the fewer echoes that somebody
//! made up are taken for a site's: one in 2,048 for each site there is. Until [`OLD_MS`] it still says whom to ask ([`decode_old`]);
//! after that it reads as that of no site, for three times as long.

use super::{Mask, Site};

/// Bits below the code.
const SHIFT: u32 = 24;

/// By how much the clocks of two sites may differ, ms.
pub const SLACK_MS: u32 = 300_000;

/// Bits of how old an echo may be.
const AGE_BITS: u32 = 21;

/// The longest silence of a server after which its site can still be told, ms: half an hour.
pub const IDLE_MS: u32 = (1 << AGE_BITS) - SLACK_MS - 1;

/// The longest silence of a server after which its site can be guessed, ms: four and a half hours.
pub const OLD_MS: u32 = (1 << SHIFT) - SLACK_MS - 1;

/// The timestamp (TSval) a server at `site` sends at this moment. `wall_ms`: its wall clock, ms since 1970.
pub fn encode(wall_ms: u64, site: Site, mask: Mask) -> u32 {
    (wall_ms as u32).wrapping_add(u32::from(site.code().wrapping_add(mask.code)) << SHIFT)
}

/// The site whose timestamp a client echoes (TSecr). `wall_ms`: the wall clock of whoever asks. `None`: no site's, or an old one.
pub fn decode(echo: u32, wall_ms: u64, mask: Mask) -> Option<Site> {
    let is_fresh = ahead(echo, wall_ms).wrapping_add(IDLE_MS) & ((1 << SHIFT) - 1) < 1 << AGE_BITS;
    code(echo, wall_ms, mask, IDLE_MS).filter(|_| is_fresh)
}

/// The same, also for a connection that was idle for up to [`OLD_MS`]: to be asked, not to be believed.
pub fn decode_old(echo: u32, wall_ms: u64, mask: Mask) -> Option<Site> {
    code(echo, wall_ms, mask, OLD_MS)
}

/// How far an echo is ahead of our clock: the code, less its age.
fn ahead(echo: u32, wall_ms: u64) -> u32 {
    echo.wrapping_sub(wall_ms as u32)
}

/// The site, of an echo whose age is between −[`SLACK_MS`] and `idle_ms`.
fn code(echo: u32, wall_ms: u64, mask: Mask, idle_ms: u32) -> Option<Site> {
    let code = (ahead(echo, wall_ms).wrapping_add(idle_ms) >> SHIFT) as u8;
    Site::of_code(code.wrapping_sub(mask.code))
}
