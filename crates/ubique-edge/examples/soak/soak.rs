//! Rounds, each in a sandbox of its own, and rows about all of them.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use ubique_edge::Tier;

use crate::attacks::{self, Siege};
use crate::net::{Family, SITES};
use crate::runner;
use crate::traffic::Fate;
use crate::watch::{Kernel, Messages};

/// One lab: long enough for some of everything.
const ROUND: Duration = Duration::from_secs(30);
/// Connections of a flood through another site wait, and sockets are told by retransmissions: nothing waits longer than these.
const PATIENCE: Duration = Duration::from_secs(20);
/// New connections while a site drains.
const NEW: usize = 4;
/// How long what the kernel frees later may take.
const SETTLE: Duration = Duration::from_secs(20);
/// What the kernel may keep more after all than after the first rounds, MiB: what other work on a machine takes, too.
const GROWTH_MAX_MIB: f64 = 16.0;

/// What a round did, in the order it is told to the parent.
#[derive(Clone, Copy, Default)]
struct Report {
    connections: u64,
    lost: u64,
    resets: u64,
    sieges: u64,
    restarts: u64,
    longest_ms: u64,
}

impl Report {
    fn numbers(&self) -> [u64; 6] {
        [self.connections, self.lost, self.resets, self.sieges, self.restarts, self.longest_ms]
    }

    fn of(numbers: &[u64]) -> Option<Report> {
        let [connections, lost, resets, sieges, restarts, longest_ms] = *numbers else { return None };
        Some(Report { connections, lost, resets, sieges, restarts, longest_ms })
    }
}

/// Attacks, drains and restarts until it is time.
fn round(family: Family, tier: Tier, length: Duration) -> Report {
    let end = Instant::now() + length;
    let mut lab = attacks::lab(family, tier);
    let mut report = Report::default();
    while Instant::now() < end {
        Siege::new(&lab, family, format!("{tier:?} {family:?}"), PATIENCE).all();
        report.sieges += 1;
        lab.planes[0].drain_to(Some(1));
        lab.tick(NEW);
        lab.planes[0].drain_to(None);
        for number in 0..SITES {
            lab.planes[number].restart(&lab.net, number);
            lab.flip((number + 1) % SITES);
            report.restarts += 1;
        }
        lab.flip(0);
    }
    let summary = lab.finish();
    report.connections = summary.connections as u64;
    report.lost = summary.lost as u64;
    report.resets = lab.seen().iter().filter(|record| record.fate == Fate::Reset).count() as u64;
    report.longest_ms = summary.longest.as_millis() as u64;
    eprintln!("{tier:?} {family:?}: {} sieges, {summary}", report.sieges);
    report
}

/// `None`: it failed, and said why.
fn in_sandbox(family: Family, tier: Tier, length: Duration) -> Option<Report> {
    let (mut from, to) = std::io::pipe().unwrap();
    let sandbox = runner::in_sandbox(|| {
        let text = round(family, tier, length).numbers().map(|number| number.to_string()).join(" ");
        (&to).write_all(text.as_bytes()).unwrap();
    });
    drop(to);
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    sandbox?.wait().unwrap();
    Report::of(&text.split(' ').map_while(|number| number.parse().ok()).collect::<Vec<_>>())
}

/// Rows as `cargo xtask bench` reads them: name, value, goal; all are counts.
pub fn main(length: Duration) {
    let before = Kernel::now();
    let mut messages = Messages::from_now();
    let start = Instant::now();
    let mut kernels = Vec::new();
    let (mut all, mut rounds, mut failed) = (Report::default(), 0, 0);
    let kinds = [Tier::Cookies, Tier::Timestamps].map(|tier| Family::BOTH.map(|family| (tier, family)));
    for (tier, family) in kinds.concat().into_iter().cycle() {
        let left = length.saturating_sub(start.elapsed());
        if left.is_zero() {
            break;
        }
        rounds += 1;
        match in_sandbox(family, tier, ROUND.min(left)) {
            Some(report) => {
                all = Report {
                    connections: all.connections + report.connections,
                    lost: all.lost + report.lost,
                    resets: all.resets + report.resets,
                    sieges: all.sieges + report.sieges,
                    restarts: all.restarts + report.restarts,
                    longest_ms: all.longest_ms.max(report.longest_ms),
                };
            }
            None => failed += 1,
        }
        let kernel = Kernel::settled(&before, SETTLE);
        eprintln!("after {:.0} s: {kernel}", start.elapsed().as_secs_f64());
        kernels.push(kernel);
    }
    let row = |name: &str, value: f64, goal: &str, unit: &str| {
        println!("soak of the data plane: {name}\t{value:.1}\t{goal}\t\t{unit}")
    };
    row("rounds, each with a lab of its own", f64::from(rounds), "", "");
    row("rounds that failed", f64::from(failed), "0", "");
    row("connections", all.connections as f64, "", "");
    row("connections lost", all.lost as f64, "0", "");
    row("resets seen by clients", all.resets as f64, "0", "");
    row("sieges (10 kinds of 20,000 packets)", all.sieges as f64, "", "");
    row("programs replaced", all.restarts as f64, "", "");
    row("longest wait of a connection", all.longest_ms as f64, "", "ms");
    let last = kernels.last().unwrap();
    row("BPF programs of ours left behind", last.left_since(&kernels, |kernel| &kernel.programs, &before), "0", "");
    row("BPF maps of ours left behind", last.left_since(&kernels, |kernel| &kernel.maps, &before), "0", "");
    let first = &kernels[(kernels.len() - 1).min(3)];
    let grown = |of: fn(&Kernel) -> f64| of(last) - of(first);
    let goal = GROWTH_MAX_MIB.to_string();
    row("slab that cannot be freed grown after the first rounds", grown(|kernel| kernel.slab_mib), &goal, "MiB");
    row("memory for each processor grown", grown(|kernel| kernel.percpu_mib), &goal, "MiB");
    let warnings = messages.warnings();
    warnings.iter().for_each(|line| eprintln!("kernel: {line}"));
    row("warnings of the kernel", warnings.len() as f64, "0", "");
}
