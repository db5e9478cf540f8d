//! Programs into the kernel, onto interfaces, and what they are told while they run.

mod cookies;
mod flood;

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bytemuck::bytes_of;
use libbpf_rs::query::{ProgInfoIter, ProgramInfo};
use libbpf_rs::{
    MapCore, MapFlags, MapHandle, Object, ProgramInput, TC_EGRESS, TC_INGRESS, TcAttachPoint, TcHook, TcHookBuilder,
    Xdp, XdpFlags,
};
use ubique_proto::sessions::{Flow, Site};

pub use self::flood::Flood;
use crate::adopt::{attached, detach_tc};
use crate::layout::{Live, NO_SITE, RawConfig, RawSite};
use crate::{Config, Counter, Counters, Error, Former, Mode, Notes, Peer, Program, Run, Tier, object};

impl Program {
    pub(crate) const ALL: [Program; 6] =
        [Program::Ingress, Program::Egress, Program::Pass, Program::Forward, Program::Undo, Program::Adopt];

    /// Its name in the kernel; also how we know our own.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Program::Ingress => "ubique_ingress",
            Program::Egress => "ubique_egress",
            Program::Pass => "ubique_pass",
            Program::Forward => "ubique_forward",
            Program::Undo => "ubique_undo",
            Program::Adopt => "ubique_adopt",
        }
    }
}

/// Where ours stands among filters of tc.
pub(crate) const TC_HANDLE: u32 = 0x5542;
pub(crate) const TC_PRIORITY: u32 = 1;

/// Run once, to learn which jiffy the monotonic clock began in.
const CLOCK: &str = "ubique_clock";
/// The least that BPF_PROG_TEST_RUN takes for a frame.
const FRAME_MIN: usize = 14;

impl Mode {
    fn flags(self) -> XdpFlags {
        match self {
            Mode::Native => XdpFlags::DRV_MODE,
            Mode::Generic => XdpFlags::SKB_MODE,
        }
    }
}

/// A data plane: programs and maps in the kernel.
pub struct Edge {
    object: Object,
    programs: Vec<(Program, OwnedFd)>,
    sites: MapHandle,
    counts: MapHandle,
    data: MapHandle,
    flows: MapHandle,
    live: Live,
    needs_egress: bool,
    adopts: bool,
    /// Numbers of programs that ours may take the place of.
    former: Vec<u32>,
}

/// Programs on one interface. They stay there until [`Attachment::detach`], whatever becomes of the process.
pub struct Attachment {
    interface: i32,
    mode: Mode,
    program: OwnedFd,
    egress: Option<TcHook>,
    adopt: Option<TcHook>,
}

/// Room for what a packet grows by.
const GROWTH: usize = 256;

impl Edge {
    /// Loads the programs; nothing happens to any packet yet.
    ///
    /// # Errors
    /// [`Error::NotPermitted`], [`Error::Config`], [`Error::Cookies`] where only another tier can be had, or what the kernel said.
    pub fn load(config: &Config) -> Result<Edge, Error> {
        Edge::load_tier(config, None)
    }

    /// The same, going on with the cache and the counters of a program that is on an interface.
    ///
    /// # Errors
    /// As [`Edge::load`].
    pub fn load_after(config: &Config, former: &Former) -> Result<Edge, Error> {
        Edge::load_tier(config, Some(former))
    }

    fn load_tier(config: &Config, former: Option<&Former>) -> Result<Edge, Error> {
        if config.tier != Tier::Cookies {
            return Edge::load_object(config, object::base(), former);
        }
        cookies::check_switches()?;
        Edge::load_object(config, object::adopt(), former).map_err(cookies::explain)
    }

    /// The same, with [`Program::Forward`] and [`Program::Undo`].
    ///
    /// # Errors
    /// As [`Edge::load`].
    pub fn load_for_measurement(config: &Config) -> Result<Edge, Error> {
        Edge::load_object(config, object::bench(), None)
    }

    fn load_object(config: &Config, octets: &[u8], former: Option<&Former>) -> Result<Edge, Error> {
        let mut open = object::open(octets)?;
        if let Some(former) = former {
            former.bequeath(&mut open)?;
        }
        let raw = RawConfig::new(config, tick_ns())?;
        for mut map in open.maps_mut() {
            if map.name().to_string_lossy().ends_with(".rodata") {
                map.set_initial_value(bytes_of(&raw)).map_err(|error| kernel("configuring the programs", &error))?;
            }
        }
        let mut object = object::load(open)?;
        let tick_at_0 = run(&mut object, CLOCK, &[0; FRAME_MIN], 1)?.action;
        let map = |name: &str| {
            let found = object.maps().find(|map| map.name().to_string_lossy().ends_with(name));
            let handle = found.and_then(|map| MapHandle::try_from(&map).ok());
            handle.ok_or_else(|| Error::Load(format!("the object has no map {name}")))
        };
        let (sites, counts, data, flows) = (map("sites")?, map("counts")?, map(".data")?, map("flows")?);
        let live = Live::new(config.clock_base_ms, tick_at_0.into());
        let programs = programs(&object)?;
        let adopts = programs.iter().any(|(program, _)| *program == Program::Adopt);
        let needs_egress = config.tier == Tier::Timestamps || config.reply_through;
        let former = Vec::new();
        let mut edge = Edge { object, programs, sites, counts, data, flows, live, needs_egress, adopts, former };
        edge.store_live()?;
        Ok(edge)
    }

    /// Programs with these numbers are ours, from before: the kernel does not tell everybody their names.
    pub fn follow(&mut self, former: Vec<u32>) {
        self.former = former;
    }

    /// The kernel's number of the program for what arrives.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn program_number(&self) -> Result<u32, Error> {
        let mut info = libbpf_sys::bpf_prog_info::default();
        let mut length = size_of_val(&info) as u32;
        let program = self.program(Program::Ingress)?.as_raw_fd();
        // SAFETY: the kernel writes at most `length` octets, the size of `info`, whose pointers are null.
        let refused = unsafe { libbpf_sys::bpf_prog_get_info_by_fd(program, &raw mut info, &raw mut length) };
        if refused != 0 {
            let source = std::io::Error::from_raw_os_error(refused.saturating_neg());
            return Err(Error::Kernel { what: "asking for the number of a program".into(), source });
        }
        Ok(info.id)
    }

    /// Programs on the interface with this index. `mode`: `None` takes the fastest the driver has. Ours from before are replaced,
    /// without a packet in between that neither sees.
    ///
    /// # Errors
    /// [`Error::Occupied`], or what the kernel said.
    pub fn attach(&self, interface: u32, mode: Option<Mode>) -> Result<Attachment, Error> {
        let index = interface as i32;
        let xdp = Xdp::new(self.program(Program::Ingress)?);
        self.occupied(interface)?;
        let is_first = attached(interface)? == 0;
        let modes: &[Mode] = mode.as_ref().map_or(&[Mode::Native, Mode::Generic], std::slice::from_ref);
        let mut refusal = None;
        for mode in modes {
            match xdp.attach(index, mode.flags()) {
                Ok(()) => {
                    let on_tc = |wanted, program, point| self.on_tc(wanted, program, point, index);
                    let egress = on_tc(self.needs_egress, Program::Egress, TC_EGRESS);
                    let both = egress.and_then(|egress| Ok((egress, on_tc(self.adopts, Program::Adopt, TC_INGRESS)?)));
                    let (egress, adopt) = both.inspect_err(|_| {
                        // One of them alone harms every connection. Former ones on tc go well with ours.
                        if is_first {
                            let _ = xdp.detach(index, mode.flags());
                        }
                    })?;
                    let program = self.program(Program::Ingress)?.try_clone_to_owned();
                    let program =
                        program.map_err(|source| Error::Kernel { what: "keeping a program".into(), source })?;
                    return Ok(Attachment { interface: index, mode: *mode, program, egress, adopt });
                }
                Err(error) => refusal = Some(error),
            }
        }
        let refusal = refusal.map_or_else(String::new, |error| error.to_string());
        let source = std::io::Error::other(refusal);
        Err(Error::Kernel { what: format!("attaching to {}", name_of(index)), source })
    }

    /// A program of tc, where it is needed; where it is not, none of a former life stays.
    fn on_tc(
        &self,
        is_wanted: bool,
        program: Program,
        point: TcAttachPoint,
        interface: i32,
    ) -> Result<Option<TcHook>, Error> {
        if !is_wanted {
            detach_tc(interface, point);
            return Ok(None);
        }
        self.attach_tc(program, point, interface).map(Some)
    }

    fn attach_tc(&self, program: Program, point: TcAttachPoint, interface: i32) -> Result<TcHook, Error> {
        let mut builder = TcHookBuilder::new(self.program(program)?);
        builder.ifindex(interface).replace(true).handle(TC_HANDLE).priority(TC_PRIORITY);
        let mut hook = builder.hook(point);
        let what = || format!("attaching {} to {}", program.name(), name_of(interface));
        hook.create().map_err(|error| kernel(&what(), &error))?;
        hook.attach().map_err(|error| kernel(&what(), &error))
    }

    /// A program that lets everything pass, natively: the other end of a veth must have one, or loses what ours sends back.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn attach_pass(&self, interface: u32) -> Result<(), Error> {
        let xdp = Xdp::new(self.program(Program::Pass)?);
        let index = interface as i32;
        xdp.attach(index, XdpFlags::DRV_MODE)
            .map_err(|error| kernel(&format!("attaching to {}", name_of(index)), &error))
    }

    /// What is known of another site; `None`: there is no such site.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn set_peer(&mut self, site: Site, peer: Option<&Peer>) -> Result<(), Error> {
        let raw = peer.map_or_else(bytemuck::Zeroable::zeroed, RawSite::new);
        let key = u32::from(site.number()).to_ne_bytes();
        self.sites.update(&key, bytes_of(&raw), MapFlags::ANY).map_err(|error| kernel("telling of a site", &error))?;
        let bit = 1 << site.number();
        match peer.is_some_and(|peer| peer.up) {
            true => self.live.up |= bit,
            false => self.live.up &= !bit,
        }
        self.store_live()
    }

    /// The wall clock at 0 of the monotonic clock, ms since 1970, as it is now.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn set_wall_base(&mut self, ms: u64) -> Result<(), Error> {
        self.live.wall_base_ms = ms;
        self.store_live()
    }

    /// Where new connections go, if that site is up.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn drain_to(&mut self, site: Option<Site>) -> Result<(), Error> {
        self.live.drain_to = site.map_or(NO_SITE, Site::number);
        self.store_live()
    }

    /// With [`Tier::Cookies`]: whether SYNs are answered by cookies, or left to the kernel as long as it would lose them.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn answer_syns(&mut self, answers: bool) -> Result<(), Error> {
        self.live.no_cookies = u8::from(!answers);
        self.store_live()
    }

    /// Remembers the owner of a connection whose packets do not tell, as if it had said so itself.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn remember(&mut self, flow: &Flow, owner: Site) -> Result<(), Error> {
        let updated = self.flows.update(&flow.octets(), &[owner.number()], MapFlags::ANY);
        updated.map_err(|error| kernel("remembering an owner", &error))
    }

    /// What was decided so far.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn counters(&self) -> Result<Counters, Error> {
        let mut counts = Vec::with_capacity(Counter::ALL.len());
        for counter in 0..Counter::ALL.len() as u32 {
            let values = self.counts.lookup_percpu(&counter.to_ne_bytes(), MapFlags::ANY);
            let values = values.map_err(|error| kernel("reading counters", &error))?.unwrap_or_default();
            let value = |octets: &Vec<u8>| octets.first_chunk().map_or(0, |octets| u64::from_ne_bytes(*octets));
            counts.push(values.iter().map(value).sum());
        }
        Ok(Counters(counts))
    }

    /// What other sites asked for and is here, as the program notes it.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn found(&self) -> Result<Notes, Error> {
        let mut maps = self.object.maps();
        let map = maps.find(|map| map.name() == OsStr::new("found"));
        Notes::new(&map.ok_or_else(|| Error::Load("the object has no map found".into()))?)
    }

    /// Runs a program on a frame, `repeat` times in place: for tests and measurements; no packet goes anywhere.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn run(&mut self, program: Program, frame: &[u8], repeat: u32) -> Result<Run, Error> {
        run(&mut self.object, program.name(), frame, repeat)
    }

    fn program(&self, program: Program) -> Result<BorrowedFd<'_>, Error> {
        let found = self.programs.iter().find(|(known, _)| *known == program);
        let missing = || Error::Load(format!("the object has no program {}", program.name()));
        found.map(|(_, program)| program.as_fd()).ok_or_else(missing)
    }

    /// Refuses an interface that somebody else has.
    fn occupied(&self, interface: u32) -> Result<(), Error> {
        let id = attached(interface)?;
        if id == 0 || self.former.contains(&id) || id == self.program_number()? {
            return Ok(());
        }
        let name = ProgInfoIter::default().find(|program: &ProgramInfo| program.id == id).map(|program| program.name);
        let name = name.map(|name| name.to_string_lossy().into_owned());
        if name.as_deref() == Some(Program::Ingress.name()) {
            return Ok(());
        }
        let name = name.map_or_else(String::new, |name| format!("{name}, "));
        Err(Error::Occupied { interface: name_of(interface as i32), program: format!("{name}number {id}") })
    }

    fn store_live(&mut self) -> Result<(), Error> {
        let key = 0_u32.to_ne_bytes();
        self.data
            .update(&key, bytes_of(&self.live), MapFlags::ANY)
            .map_err(|error| kernel("telling the programs", &error))
    }
}

impl Attachment {
    /// How it is attached.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Takes the programs off; packets are the kernel's alone from then on.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn detach(mut self) -> Result<(), Error> {
        let what = || format!("detaching from {}", name_of(self.interface));
        let xdp = Xdp::new(self.program.as_fd());
        xdp.detach(self.interface, self.mode.flags()).map_err(|error| kernel(&what(), &error))?;
        for hook in [&mut self.egress, &mut self.adopt].into_iter().flatten() {
            hook.detach().map_err(|error| kernel(&what(), &error))?;
        }
        Ok(())
    }
}

fn programs(object: &Object) -> Result<Vec<(Program, OwnedFd)>, Error> {
    let mut programs = Vec::new();
    for program in object.progs() {
        let known = Program::ALL.into_iter().find(|known| program.name() == OsStr::new(known.name()));
        if let Some(name) = known {
            let fd = program.as_fd().try_clone_to_owned();
            programs.push((name, fd.map_err(|source| Error::Kernel { what: "keeping a program".into(), source })?));
        }
    }
    Ok(programs)
}

/// Runs a program of an object on a frame.
pub(crate) fn run(object: &mut Object, name: &str, frame: &[u8], repeat: u32) -> Result<Run, Error> {
    let found = object.progs_mut().find(|program| program.name() == OsStr::new(name));
    let program = found.ok_or_else(|| Error::Load(format!("the object has no program {name}")))?;
    let mut out = vec![0; frame.len() + GROWTH];
    let input = ProgramInput { data_in: Some(frame), data_out: Some(&mut out), repeat, ..ProgramInput::default() };
    let output = program.test_run(input).map_err(|error| kernel("running a program", &error))?;
    let packet = output.data.map_or_else(Vec::new, |data| data.to_vec());
    Ok(Run { action: output.return_value, packet, duration: output.duration })
}

/// Between two of the kernel's jiffies: the resolution of the clocks that they drive (`KTIME_LOW_RES`).
fn tick_ns() -> u64 {
    let tick = rustix::time::clock_getres(rustix::time::ClockId::MonotonicCoarse);
    tick.tv_nsec.unsigned_abs()
}

pub(crate) fn name_of(interface: i32) -> String {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None);
    let name = socket.and_then(|socket| rustix::net::netdevice::index_to_name(socket, interface as u32));
    name.unwrap_or_else(|_| format!("interface {interface}"))
}

pub(crate) fn kernel(what: &str, error: &libbpf_rs::Error) -> Error {
    Error::Kernel { what: what.to_owned(), source: std::io::Error::other(error.to_string()) }
}
