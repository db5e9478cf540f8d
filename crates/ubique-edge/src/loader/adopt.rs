//! The second object: SYN cookies of our own, which the kernel adopts (`bpf/adopt.bpf.c`, Linux 6.9).
//!
//! Loaded only for [`Tier::Cookies`](crate::Tier::Cookies). Where it cannot be, [`Error::Cookies`] says why, and the agent falls to
//! [`Tier::Timestamps`](crate::Tier::Timestamps).

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use bytemuck::bytes_of;
use libbpf_rs::{MapCore, MapFlags, Object, TC_INGRESS, TcHook, TcHookBuilder};

use super::{Program, TC_HANDLE, TC_PRIORITY, kernel, name_of};
use crate::layout::RawConfig;
use crate::{Error, object};

/// The one map both objects share.
const COUNTS: &str = "counts";
/// Where the first object looks for programs of the second.
const SLOTS: &str = "slots";
/// `SLOT_ANSWER`
const SLOT_ANSWER: u32 = 0;

/// What the kernel must do for connections that our cookies agree on (`net.ipv4`), and by default does.
const SWITCHES: [&str; 4] = ["tcp_syncookies", "tcp_timestamps", "tcp_sack", "tcp_window_scaling"];

/// The programs of the second object.
pub(super) struct Adopt {
    pub(super) object: Object,
    adopt: OwnedFd,
}

impl Adopt {
    /// Loads them beside `base`, which calls them from then on.
    pub(super) fn load(raw: &RawConfig, base: &Object) -> Result<Adopt, Error> {
        check_switches()?;
        let mut open = object::open(object::adopt())?;
        for mut map in open.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            if name.ends_with(".rodata") {
                map.set_initial_value(bytes_of(raw)).map_err(|error| kernel("configuring the programs", &error))?;
            } else if name == COUNTS {
                let counts = find_map(base, COUNTS)?;
                map.reuse_fd(counts.as_fd()).map_err(|error| kernel("sharing counters", &error))?;
            } else if !name.starts_with('.') && !name.contains(".data") && !name.contains(".bss") {
                map.set_autocreate(false).map_err(|error| kernel("leaving out a map", &error))?;
            }
        }
        let loaded = object::load(open).map_err(|error| match error {
            Error::Load(why) => Error::Cookies(format!("the kernel cannot adopt them (Linux 6.9 with BTF can): {why}")),
            other => other,
        })?;
        let answer = program(&loaded, Program::Answer)?;
        let slots = find_map(base, SLOTS)?;
        slots
            .update(&SLOT_ANSWER.to_ne_bytes(), &answer.as_raw_fd().to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| kernel("connecting the programs", &error))?;
        let adopt = program(&loaded, Program::Adopt)?;
        Ok(Adopt { object: loaded, adopt })
    }

    /// What arrives at an interface is looked at for cookies that come back.
    pub(super) fn attach(&self, interface: i32) -> Result<TcHook, Error> {
        let mut builder = TcHookBuilder::new(self.adopt.as_fd());
        builder.ifindex(interface).replace(true).handle(TC_HANDLE).priority(TC_PRIORITY);
        let mut hook = builder.hook(TC_INGRESS);
        let what = || format!("attaching to what arrives at {}", name_of(interface));
        hook.create().map_err(|error| kernel(&what(), &error))?;
        hook.attach().map_err(|error| kernel(&what(), &error))
    }
}

fn program(object: &Object, program: Program) -> Result<OwnedFd, Error> {
    let name = program.name();
    let found = object.progs().find(|program| program.name() == OsStr::new(name));
    let program = found.ok_or_else(|| Error::Load(format!("the object has no program {name}")))?;
    let fd = program.as_fd().try_clone_to_owned();
    fd.map_err(|source| Error::Kernel { what: "keeping a program".into(), source })
}

/// A kernel that is told to do without what a cookie agrees on would refuse the connection.
fn check_switches() -> Result<(), Error> {
    for switch in SWITCHES {
        let path = format!("/proc/sys/net/ipv4/{switch}");
        if std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "0") {
            return Err(Error::Cookies(format!("net.ipv4.{switch} is 0: set it to 1")));
        }
    }
    Ok(())
}

fn find_map<'a>(object: &'a Object, name: &str) -> Result<libbpf_rs::Map<'a>, Error> {
    let found = object.maps().find(|map| map.name() == OsStr::new(name));
    found.ok_or_else(|| Error::Load(format!("the object has no map {name}")))
}
