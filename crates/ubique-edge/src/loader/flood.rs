//! For measurements: SYNs from random addresses, as fast as one processor makes them.

use std::os::fd::AsFd;

use bytemuck::{Pod, Zeroable, bytes_of};
use libbpf_rs::{Object, ProgramInput, Xdp, XdpFlags};

use super::kernel;
use crate::{Error, object};

/// `BPF_F_TEST_XDP_LIVE_FRAMES`: frames go where the program sends them.
const LIVE_FRAMES: u32 = libbpf_sys::BPF_F_TEST_XDP_LIVE_FRAMES;

/// Octets of a SYN over IPv4 with the options that Linux sends.
pub const FRAME: usize = 74;
const IP: usize = 14;
const TCP: usize = 34;

/// `struct flood`
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Raw {
    frame: [u8; 96],
    ip_sum: u32,
    tcp_sum: u32,
    interface: u32,
}

/// A generator, and the end of the answers to what it sent.
pub struct Flood(Object);

impl Flood {
    /// `syn`: the frame that is sent from random addresses of 10.0.0.0/8, through the interface with this index.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn load(syn: &[u8; FRAME], interface: u32) -> Result<Flood, Error> {
        let mut raw = Raw { interface, ..Raw::zeroed() };
        raw.frame[..FRAME].copy_from_slice(syn);
        // Source address; port and sequence number; both checksums.
        for (from, to) in
            [(IP + 12, IP + 16), (TCP, TCP + 2), (TCP + 4, TCP + 8), (IP + 10, IP + 12), (TCP + 16, TCP + 18)]
        {
            raw.frame[from..to].fill(0);
        }
        let sum =
            |octets: &[u8]| octets.chunks(2).map(|two| u32::from(u16::from_le_bytes([two[0], two[1]]))).sum::<u32>();
        raw.ip_sum = sum(&raw.frame[IP..TCP]);
        let length = (FRAME - TCP) as u16;
        raw.tcp_sum = sum(&raw.frame[IP + 16..FRAME]) + sum(&[0, 6]) + sum(&length.to_be_bytes());
        let mut open = object::open(object::flood())?;
        for mut map in open.maps_mut() {
            map.set_initial_value(bytes_of(&raw)).map_err(|error| kernel("configuring the flood", &error))?;
        }
        Ok(Flood(object::load(open)?))
    }

    /// Sends `frames`, on the calling thread's processor.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn send(&mut self, frames: u32) -> Result<(), Error> {
        let syn = [0; FRAME];
        let input = ProgramInput { data_in: Some(&syn), flags: LIVE_FRAMES, repeat: frames, ..ProgramInput::default() };
        let mut programs = self.0.progs_mut();
        let program = programs.find(|program| program.name() == "ubique_flood").ok_or_else(missing)?;
        program.test_run(input).map(|_| ()).map_err(|error| kernel("flooding", &error))
    }

    /// Answers to what was sent end at the interface with this index; everything else passes.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn attach_sink(&self, interface: u32) -> Result<(), Error> {
        let mut programs = self.0.progs();
        let program = programs.find(|program| program.name() == "ubique_sink").ok_or_else(missing)?;
        let attached = Xdp::new(program.as_fd()).attach(interface as i32, XdpFlags::DRV_MODE);
        attached.map_err(|error| kernel("attaching the sink", &error))
    }
}

fn missing() -> Error {
    Error::Load("the flood lacks a program".into())
}
