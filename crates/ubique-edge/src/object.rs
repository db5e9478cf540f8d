//! The compiled programs, and libbpf around them.

use std::sync::Mutex;

use libbpf_rs::{ErrorKind, Object, ObjectBuilder, OpenObject, PrintLevel, set_print};

use crate::Error;

/// libbpf wants ELF headers where 64-bit numbers may stand.
#[repr(align(8))]
struct Aligned<T: ?Sized>(T);

static BASE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/base.bpf.o")));

static BENCH: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/bench.bpf.o")));

/// The same, and what can be repeated for a measurement.
pub fn bench() -> &'static [u8] {
    &BENCH.0
}

/// The programs that keep sessions alive.
pub fn base() -> &'static [u8] {
    &BASE.0
}

static ADOPT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/adopt.bpf.o")));

/// The programs that answer SYNs by cookies of our own.
pub fn adopt() -> &'static [u8] {
    &ADOPT.0
}

static FLOOD: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/flood.bpf.o")));

/// A flood, for measurements.
pub fn flood() -> &'static [u8] {
    &FLOOD.0
}

static VECTORS: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/vectors.bpf.o")));

/// The encodings alone, for tests: a program that reads its input from a frame and writes its output there.
pub struct Vectors(Object);

impl Vectors {
    /// # Errors
    /// What the kernel said.
    pub fn load() -> Result<Vectors, Error> {
        Ok(Vectors(load(open(&VECTORS.0)?)?))
    }

    /// The frame afterwards.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn run(&mut self, frame: &[u8]) -> Result<crate::Run, Error> {
        crate::loader::run(&mut self.0, "vectors", frame, 1)
    }
}

/// Lines of libbpf and of the verifier kept for an error, at most.
const LINES_MAX: usize = 12;

/// What libbpf said last.
static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn note(_level: PrintLevel, text: String) {
    let mut said = SAID.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(String::from);
    said.extend(lines);
    let surplus = said.len().saturating_sub(LINES_MAX);
    said.drain(..surplus);
}

/// Opens an object.
pub fn open(octets: &[u8]) -> Result<OpenObject, Error> {
    set_print(Some((PrintLevel::Warn, note)));
    SAID.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
    ObjectBuilder::default().open_memory(octets).map_err(refused)
}

/// Loads it into the kernel.
pub fn load(object: OpenObject) -> Result<Object, Error> {
    object.load().map_err(refused)
}

fn refused(error: libbpf_rs::Error) -> Error {
    if error.kind() == ErrorKind::PermissionDenied && !may_load() {
        return Error::NotPermitted;
    }
    let said = SAID.lock().unwrap_or_else(std::sync::PoisonError::into_inner).join("; ");
    Error::Load(if said.is_empty() { error.to_string() } else { format!("{error}: {said}") })
}

/// Whether the kernel lets us load anything: the verifier says "permission denied", too.
fn may_load() -> bool {
    libbpf_rs::MapHandle::create(libbpf_rs::MapType::Array, Some("ubique_probe"), 4, 4, 1, &map_options()).is_ok()
}

fn map_options() -> libbpf_sys::bpf_map_create_opts {
    libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        ..Default::default()
    }
}
