//! Hardware addresses of frames that are made here; those of a link take their place.

pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
