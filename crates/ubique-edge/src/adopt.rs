//! Programs of ours that are on an interface already: an agent that begins again goes on where its predecessor was.
//!
//! The kernel shows maps of other programs to CAP_SYS_ADMIN only. Without it a cache and counters begin anew, and what must not change
//! (`clock_base_ms`) the agent has to remember by itself.

use std::collections::BTreeSet;
use std::mem::offset_of;
use std::os::fd::AsFd;

use libbpf_rs::query::{ProgInfoIter, ProgInfoQueryOptions, ProgramInfo};
use libbpf_rs::{
    MapCore, MapFlags, MapHandle, OpenObject, TC_EGRESS, TC_INGRESS, TcAttachPoint, TcHookBuilder, Xdp, XdpFlags,
};

use crate::Error;
use crate::layout::RawConfig;
use crate::loader::{TC_HANDLE, TC_PRIORITY, kernel, name_of};

/// Maps that a successor goes on with.
const INHERITED: [&str; 4] = ["flows", "returns", "openings", "counts"];

/// What a running program is made of.
pub struct Former {
    clock_base_ms: u64,
    config: Vec<u8>,
    maps: Vec<MapHandle>,
}

impl Former {
    /// Of the program with this number; `None`: there is none, it is not ours, or the kernel does not show it to us.
    pub fn of(program: u32) -> Option<Former> {
        let options = ProgInfoQueryOptions::default().include_map_ids(true);
        let info = ProgInfoIter::with_query_opts(options).find(|info| info.id == program)?;
        if info.name != crate::Program::Ingress.name() {
            return None;
        }
        let maps: Vec<MapHandle> = info.map_ids.iter().filter_map(|id| MapHandle::from_map_id(*id).ok()).collect();
        let config = maps.iter().find_map(config_of)?;
        let base = config.get(offset_of!(RawConfig, clock_base_ms)..)?.first_chunk()?;
        Some(Former { clock_base_ms: u64::from_ne_bytes(*base), config, maps })
    }

    /// How many programs and maps the kernel has that were configured as this one was, wherever they are: of those that took each
    /// other's place, no more than one life's.
    pub fn loaded(&self) -> (usize, usize) {
        let options = ProgInfoQueryOptions::default().include_map_ids(true);
        let alike = |info: &ProgramInfo| {
            let known = crate::Program::ALL.iter().any(|program| info.name == program.name());
            let mut maps = info.map_ids.iter().filter_map(|id| MapHandle::from_map_id(*id).ok());
            known && maps.any(|map| config_of(&map).is_some_and(|config| config == self.config))
        };
        let programs: Vec<ProgramInfo> = ProgInfoIter::with_query_opts(options).filter(alike).collect();
        let maps: BTreeSet<u32> = programs.iter().flat_map(|info| info.map_ids.iter().copied()).collect();
        (programs.len(), maps.len())
    }

    /// [`Config::clock_base_ms`](crate::Config) of the program.
    pub fn clock_base_ms(&self) -> u64 {
        self.clock_base_ms
    }

    /// Has the maps of `open` be those of the program, where they are alike.
    pub(crate) fn bequeath(&self, open: &mut OpenObject) -> Result<(), Error> {
        for mut map in open.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            let alike = |former: &&MapHandle| {
                former.name() == map.name()
                    && former.map_type() == map.map_type()
                    && (former.key_size(), former.value_size()) == (map.key_size(), map.value_size())
                    && former.max_entries() == map.max_entries()
            };
            let former = self.maps.iter().find(alike).filter(|_| INHERITED.contains(&name.as_str()));
            if let Some(former) = former {
                map.reuse_fd(former.as_fd()).map_err(|error| kernel("going on with a map", &error))?;
            }
        }
        Ok(())
    }
}

/// What a program was configured with, where the map is that of a program of ours.
fn config_of(map: &MapHandle) -> Option<Vec<u8>> {
    let is_config = map.name().to_string_lossy().ends_with(".rodata");
    is_config.then(|| map.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY).ok()?)?
}

/// The number of the XDP program on an interface; 0: there is none.
///
/// # Errors
/// What the kernel said.
pub fn attached(interface: u32) -> Result<u32, Error> {
    let what = || format!("asking what is attached to {}", name_of(interface as i32));
    // Any descriptor will do to ask.
    let any = std::io::stderr();
    let xdp = Xdp::new(any.as_fd());
    xdp.query_id(interface as i32, XdpFlags::NONE).map_err(|error| kernel(&what(), &error))
}

/// Whether a program of ours is on an interface, by its name; `None`: the kernel does not tell us names.
pub fn is_ours(program: u32) -> Option<bool> {
    let mut programs = ProgInfoIter::default().filter(|info: &ProgramInfo| info.id == program);
    programs.next().map(|info| info.name == crate::Program::Ingress.name())
}

/// Takes the program with this number off an interface, and the one for what leaves; `false`: another one is there, or none.
///
/// # Errors
/// What the kernel said.
pub fn detach(interface: u32, program: u32) -> Result<bool, Error> {
    if program == 0 || attached(interface)? != program {
        return Ok(false);
    }
    let index = interface as i32;
    // Any descriptor will do to take off what is there, in whichever mode: one of the two is refused, or does nothing.
    let any = std::io::stderr();
    let xdp = Xdp::new(any.as_fd());
    let tried = [XdpFlags::DRV_MODE, XdpFlags::SKB_MODE].map(|mode| xdp.detach(index, mode));
    detach_tc(index, TC_EGRESS);
    detach_tc(index, TC_INGRESS);
    match tried.into_iter().find_map(Result::err) {
        Some(error) if attached(interface)? == program => {
            Err(kernel(&format!("detaching from {}", name_of(index)), &error))
        }
        _ => Ok(true),
    }
}

/// Takes ours off tc, if it is there.
pub(crate) fn detach_tc(interface: i32, point: TcAttachPoint) {
    let any = std::io::stderr();
    let mut builder = TcHookBuilder::new(any.as_fd());
    builder.ifindex(interface).replace(true).handle(TC_HANDLE).priority(TC_PRIORITY);
    // That there is none is no news.
    let _ = builder.hook(point).detach();
}
