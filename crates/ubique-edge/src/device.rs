//! What the driver of an interface can do for the programs.

use std::mem::size_of;

use libbpf_sys::{bpf_xdp_query, bpf_xdp_query_opts};

use crate::program::Device;

/// Of `enum netdev_xdp_act` (linux/netdev.h).
const BASIC: u64 = 1;
const NDO_XMIT: u64 = 4;

/// `None`: the kernel does not tell (Linux before 6.3), or there is no such interface.
pub fn device(interface: u32) -> Option<Device> {
    let mut answer = bpf_xdp_query_opts { sz: size_of::<bpf_xdp_query_opts>() as u64, ..Default::default() };
    // SAFETY: libbpf writes at most `sz` octets of `answer`.
    let refused = unsafe { bpf_xdp_query(interface as i32, 0, &raw mut answer) };
    let features = Some(answer.feature_flags).filter(|features| refused == 0 && *features != 0);
    features.map(|features| Device { native: features & BASIC != 0, transmits: features & NDO_XMIT != 0 })
}
