//! Which processes a unit of systemd has: those of its control group.
//!
//! Asking systemd would be a process (`systemctl`) or a D-Bus client for each poll; the control group is a directory of
//! the unit's name, costs a few reads, and its processes are held by pidfds, whose end is an event. What counts is that
//! something runs: a unit that is active without processes (`RemainAfterExit`) is not.

use std::fs;
use std::path::{Path, PathBuf};

/// Where control groups are: version 2, the same beside version 1, and systemd's own of version 1.
const ROOTS: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];

/// Slices within slices that are searched, and groups within a unit.
const DEPTH: usize = 6;

/// Directories that are looked at: a bound for trees that nobody expects.
const DIRECTORIES: usize = 20_000;

/// Processes of a unit that are told.
const PROCESSES: usize = 64;

/// The processes of a unit; empty when it has none, or is not there.
pub(super) fn processes(unit: &str) -> Vec<u32> {
    let roots = ROOTS.iter().map(Path::new);
    roots.map(|root| processes_below(root, unit)).find(|pids| !pids.is_empty()).unwrap_or_default()
}

fn processes_below(root: &Path, unit: &str) -> Vec<u32> {
    // Most units are here: no search.
    let usual = root.join("system.slice").join(unit);
    let group = if usual.is_dir() { Some(usual) } else { find(root, unit) };
    let mut pids = Vec::new();
    if let Some(group) = group {
        collect(&group, DEPTH, &mut pids);
    }
    pids
}

/// The directory of the unit: below slices only, which is where systemd puts units.
fn find(root: &Path, unit: &str) -> Option<PathBuf> {
    let mut level = vec![root.to_owned()];
    let mut seen = 0;
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for directory in level.iter().flat_map(|parent| directories(parent)) {
            seen += 1;
            let name = directory.file_name().unwrap_or_default();
            if name == unit {
                return Some(directory);
            }
            if directory.extension().is_some_and(|e| e == "slice" || e == "service") && seen < DIRECTORIES {
                next.push(directory);
            }
        }
        level = next;
    }
    None
}

fn directories(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

fn collect(group: &Path, depth: usize, pids: &mut Vec<u32>) {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let room = PROCESSES - pids.len();
    // A process of another PID namespace is told as 0.
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0).take(room));
    if depth > 0 && pids.len() < PROCESSES {
        directories(group).iter().for_each(|below| collect(below, depth - 1, pids));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_found_in_slices_with_the_processes_of_their_groups() {
        let root = std::env::temp_dir().join(format!("ubique-unit-{}", std::process::id()));
        let write = |path: &str, pids: &str| {
            let directory = root.join(path);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("cgroup.procs"), pids).unwrap();
        };
        write("system.slice/nsd.service", "11\n12\n");
        write("system.slice/system-knot.slice/knot@ams.service", "");
        write("system.slice/system-knot.slice/knot@ams.service/main", "21\n0\n");
        write("system.slice/dead.service", "");
        write("elsewhere/hidden.service", "31\n");
        let found = |unit: &str| processes_below(&root, unit);
        assert_eq!(found("nsd.service"), [11, 12]);
        assert_eq!(found("knot@ams.service"), [21]);
        assert!(found("dead.service").is_empty());
        assert!(found("hidden.service").is_empty(), "units are in slices");
        assert!(found("none.service").is_empty());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_crowd_is_bounded() {
        let root = std::env::temp_dir().join(format!("ubique-crowd-{}", std::process::id()));
        let unit = root.join("system.slice/crowd.service");
        fs::create_dir_all(unit.join("more")).unwrap();
        let crowd: String = (1..=1000).map(|pid| format!("{pid}\n")).collect();
        fs::write(unit.join("cgroup.procs"), &crowd).unwrap();
        fs::write(unit.join("more/cgroup.procs"), &crowd).unwrap();
        assert_eq!(processes_below(&root, "crowd.service").len(), PROCESSES);
        fs::remove_dir_all(root).unwrap();
    }
}
