//! What the kernel keeps, and what it complains of.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use libbpf_rs::query::{MapInfoIter, ProgInfoIter};

/// At some moment.
pub struct Kernel {
    /// Numbers of programs with our names, and of all maps that belong to one.
    pub programs: BTreeSet<u32>,
    pub maps: BTreeSet<u32>,
    pub slab_mib: f64,
    pub percpu_mib: f64,
}

const NAME: &str = "ubique_";

impl Kernel {
    pub fn now() -> Kernel {
        let ours = ProgInfoIter::default().filter(|info| info.name.to_string_lossy().starts_with(NAME));
        let names = ["sites", "counts", "flows", "returns", "openings", "found", "recent", "scratch"];
        let maps = MapInfoIter::default().filter(|info| names.iter().any(|name| info.name.to_string_lossy() == *name));
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap();
        let mib = |name: &str| {
            let line = memory.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
        };
        Kernel {
            programs: ours.map(|info| info.id).collect(),
            maps: maps.map(|info| info.id).collect(),
            slab_mib: mib("SUnreclaim:"),
            percpu_mib: mib("Percpu:"),
        }
    }

    /// Once all that came since `before` is gone, or it takes too long: namespaces are taken down behind the scenes.
    pub fn settled(before: &Kernel, limit: Duration) -> Kernel {
        let start = Instant::now();
        loop {
            let now = Kernel::now();
            if now.programs.is_subset(&before.programs) && now.maps.is_subset(&before.maps) || start.elapsed() > limit {
                return now;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// How many of the numbers were not there before the soak, and are still there two rounds later: others on the machine may load programs
    /// with the same names, which come and go.
    pub fn left_since(&self, rounds: &[Kernel], of: fn(&Kernel) -> &BTreeSet<u32>, before: &Kernel) -> f64 {
        let earlier = &rounds[rounds.len().saturating_sub(3)];
        let left = of(self).intersection(of(earlier)).filter(|number| !of(before).contains(number));
        left.count() as f64
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kernel { programs, maps, slab_mib, percpu_mib } = self;
        let (programs, maps) = (programs.len(), maps.len());
        write!(f, "{programs} programs, {maps} maps, {slab_mib:.1} MiB of slab, {percpu_mib:.1} MiB per processor")
    }
}

/// The kernel's log from some moment on.
pub struct Messages(Option<File>);

/// LOG_WARNING of syslog(3): this and what is worse.
const WARNING: u32 = 4;

impl Messages {
    pub fn from_now() -> Messages {
        let open = File::options().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg");
        let log = open.and_then(|mut log| log.seek(SeekFrom::End(0)).map(|_| log));
        Messages(log.inspect_err(|error| eprintln!("the kernel's log cannot be read: {error}")).ok())
    }

    /// What came since and is a warning or worse.
    pub fn warnings(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut record = vec![0; 8192];
        // One record a call, "PRIORITY,NUMBER,TIME,FLAGS;TEXT"; those that were overwritten are an error, and left out.
        let Some(log) = &mut self.0 else { return lines };
        loop {
            match log.read(&mut record) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]).into_owned();
                    let priority = text.split(',').next().and_then(|number| number.parse::<u32>().ok());
                    // Loading programs is audited, and audit says when it cannot keep pace.
                    if priority.is_some_and(|priority| priority & 7 <= WARNING) && !text.contains("kauditd") {
                        lines.push(text.trim_end().to_owned());
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(_) => return lines,
            }
        }
    }
}
