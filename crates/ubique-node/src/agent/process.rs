//! What the agent costs: the `process_*` metrics that every Prometheus client library has.

use std::fs;

use super::metrics::Exposition;
use super::site::Agent;
use crate::clock::{unix_seconds, wall};

/// Fields of `/proc/self/stat` after the name of the program, which may contain anything (proc(5)).
struct Stat {
    cpu_seconds: f64,
    threads: u64,
    virtual_bytes: u64,
    resident_bytes: u64,
}

fn stat() -> Option<Stat> {
    parse(&fs::read_to_string("/proc/self/stat").ok()?)
}

fn parse(text: &str) -> Option<Stat> {
    let (_, after) = text.rsplit_once(')')?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    // The state, the third of proc(5), is the first here.
    let number = |place: usize| fields.get(place - 3)?.parse::<u64>().ok();
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    Some(Stat {
        cpu_seconds: (number(14)? + number(15)?) as f64 / ticks as f64,
        threads: number(20)?,
        virtual_bytes: number(23)?,
        resident_bytes: number(24)? * rustix::param::page_size() as u64,
    })
}

impl Agent {
    /// What this process costs; what `/proc` does not tell is left out.
    pub(super) fn process_metrics(&self, out: &mut Exposition) {
        if let Some(stat) = stat() {
            out.family("process_cpu_seconds_total", "counter", "CPU time used, user and system.");
            out.sample("process_cpu_seconds_total", &[], stat.cpu_seconds);
            out.family("process_resident_memory_bytes", "gauge", "Memory in use.");
            out.sample("process_resident_memory_bytes", &[], stat.resident_bytes);
            out.family("process_virtual_memory_bytes", "gauge", "Address space in use.");
            out.sample("process_virtual_memory_bytes", &[], stat.virtual_bytes);
            out.family("process_threads", "gauge", "Threads.");
            out.sample("process_threads", &[], stat.threads);
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            out.family("process_open_fds", "gauge", "Open file descriptors.");
            // Without the one that looks.
            out.sample("process_open_fds", &[], open.count().saturating_sub(1));
        }
        if let Some(most) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
            out.family("process_max_fds", "gauge", "Most open file descriptors.");
            out.sample("process_max_fds", &[], most);
        }
        out.family("process_start_time_seconds", "gauge", "When the process started.");
        out.sample("process_start_time_seconds", &[], unix_seconds(wall(self.began)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_program_may_contain_anything() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 6 0 1 1000000 25 1 1";
        let stat = parse(text).unwrap();
        assert_eq!((stat.cpu_seconds, stat.threads, stat.virtual_bytes), (2.0, 6, 1_000_000));
        assert_eq!(stat.resident_bytes, 25 * rustix::param::page_size() as u64);
        assert!(parse("7 (a").is_none() && parse("7 (a) S 1").is_none());
        assert!(self::stat().unwrap().threads >= 1);
    }
}
