//! The `load` check: how busy the site is, as the kernel counts it or a command or page tells.
//!
//! Rates are differences between two polls; the first poll has none and measures zero. Numbers are thousandths of the
//! metric's unit. Files of `/proc` answer at once: no thread is needed.

use std::fs;
use std::net::IpAddr;
use std::time::Instant;

use ubique_model::check::Metric;
use ubique_sys::sockdiag::listeners;

use super::exec::Exec;
use super::http::Http;
use super::{quote, words};

/// Thousandths of a unit in a unit.
const THOUSANDTHS: f64 = 1000.0;

/// A `load` check.
pub(super) struct Load {
    source: Source,
    /// Counters at the last poll.
    last: Option<(Instant, Counted)>,
}

enum Source {
    Packets(Option<String>),
    Datagrams,
    Cpu,
    Backlog(u16),
    Drops,
    Command(Box<Exec>),
    Page(Box<Http>),
}

/// What has been counted so far, and of how much; the second for shares only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    count: u64,
    whole: u64,
}

impl Load {
    pub(super) fn new(metric: &Metric, service: &[IpAddr]) -> Result<Load, String> {
        let source = match metric {
            Metric::Packets { interface } => Source::Packets(interface.clone()),
            Metric::Datagrams => Source::Datagrams,
            Metric::Cpu => Source::Cpu,
            Metric::Backlog { port } => Source::Backlog(*port),
            Metric::Drops => Source::Drops,
            Metric::Command(command) => Source::Command(Box::new(Exec::new(command)?)),
            Metric::Page(page) => {
                let server = page.target.servers(service).first().copied().ok_or("there is no server to ask")?;
                Source::Page(Box::new(Http::new(server, page)?))
            }
        };
        Ok(Load { source, last: None })
    }

    /// Thousandths of the metric's unit.
    pub(super) async fn poll(&mut self) -> Result<u64, String> {
        match &mut self.source {
            Source::Backlog(port) => {
                let sockets = listeners(*port).map_err(|e| words(&e))?;
                let longest = sockets.iter().map(|s| u64::from(s.queue)).max().unwrap_or(0);
                return Ok(longest * THOUSANDTHS as u64);
            }
            Source::Command(exec) => return number(&exec.run().await?),
            Source::Page(http) => return number(&http.fetch(true).await.map_err(|e| e.words)?),
            Source::Packets(_) | Source::Datagrams | Source::Cpu | Source::Drops => {}
        }
        let now = (Instant::now(), self.count()?);
        let value = self.last.map_or(0, |last| self.value(last, now));
        self.last = Some(now);
        Ok(value)
    }

    fn value(&self, (then, before): (Instant, Counted), (now, after): (Instant, Counted)) -> u64 {
        let count = after.count.saturating_sub(before.count) as f64;
        let value = match self.source {
            Source::Cpu => 100.0 * count / after.whole.saturating_sub(before.whole).max(1) as f64,
            _ => count / now.duration_since(then).as_secs_f64().max(f64::EPSILON),
        };
        thousandths(value)
    }

    fn count(&self) -> Result<Counted, String> {
        let plain = |count| Counted { count, whole: 0 };
        Ok(match &self.source {
            Source::Packets(interface) => plain(packets(&read("/proc/net/dev")?, interface.as_deref())?),
            Source::Datagrams => plain(sum_of("InDatagrams", "Udp6InDatagrams")?),
            Source::Cpu => cpu(&read("/proc/stat")?)?,
            Source::Drops => {
                let listen = table(&read("/proc/net/netstat")?, "TcpExt", "ListenDrops").unwrap_or(0);
                plain(sum_of("RcvbufErrors", "Udp6RcvbufErrors")?.saturating_add(listen))
            }
            Source::Backlog(_) | Source::Command(_) | Source::Page(_) => plain(0),
        })
    }
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))
}

/// A counter of UDP over both families; a kernel without IPv6 has only one.
fn sum_of(v4: &str, v6: &str) -> Result<u64, String> {
    let first = table(&read("/proc/net/snmp")?, "Udp", v4).ok_or_else(|| format!("/proc/net/snmp has no {v4}"))?;
    let second = read("/proc/net/snmp6").ok().and_then(|text| named(&text, v6));
    Ok(first.saturating_add(second.unwrap_or(0)))
}

/// A number of a file whose lines come in pairs: `Udp: InDatagrams NoPorts …`, then `Udp: 12 0 …`.
fn table(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(':'));
    let (names, values) = (lines.next()?, lines.next()?);
    let place = names.split_ascii_whitespace().position(|n| n == name)?;
    values.split_ascii_whitespace().nth(place)?.parse().ok()
}

/// A number of a file with a name and a number in each line.
fn named(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Received packets of one interface, or of all but the loopback.
fn packets(text: &str, interface: Option<&str>) -> Result<u64, String> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let wanted = |name: &str| interface.map_or(name != "lo", |interface| interface == name);
    let mut found = lines
        .filter(|(name, _)| wanted(name.trim()))
        .filter_map(|(_, numbers)| numbers.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
        .peekable();
    match interface {
        Some(interface) if found.peek().is_none() => Err(format!("there is no interface {interface}")),
        _ => Ok(found.fold(0, u64::saturating_add)),
    }
}

/// Time of all processors in use, and all of it: `cpu user nice system idle iowait irq softirq steal …`.
fn cpu(text: &str) -> Result<Counted, String> {
    let line = text.lines().next().and_then(|line| line.strip_prefix("cpu ")).ok_or("/proc/stat has no line of cpu")?;
    // guest time, after steal, is part of user time already.
    let times: Vec<u64> = line.split_ascii_whitespace().take(8).map_while(|n| n.parse().ok()).collect();
    let idle = times.get(3..5).ok_or("/proc/stat is too short")?.iter().sum::<u64>();
    let whole = times.iter().fold(0, |sum: u64, time| sum.saturating_add(*time));
    Ok(Counted { count: whole.saturating_sub(idle), whole })
}

/// The number a text consists of.
fn number(text: &[u8]) -> Result<u64, String> {
    let said = std::str::from_utf8(text).ok().and_then(|t| t.trim().parse::<f64>().ok());
    match said.filter(|n| n.is_finite() && *n >= 0.0) {
        Some(number) => Ok(thousandths(number)),
        None => Err(format!("{:?} is not a number", quote(text))),
    }
}

/// Saturates.
fn thousandths(value: f64) -> u64 {
    (value * THOUSANDTHS).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_the_kernel_are_read() {
        let snmp = "Ip: Forwarding\nIp: 1\nUdp: InDatagrams NoPorts RcvbufErrors\nUdp: 12 3 7\nUdpLite: InDatagrams\n";
        assert_eq!(table(snmp, "Udp", "RcvbufErrors"), Some(7));
        assert_eq!(table(snmp, "Udp", "InDatagrams"), Some(12));
        assert_eq!(table(snmp, "Udp", "Nothing"), None);
        let snmp6 = "Udp6InDatagrams                 \t9\nUdp6InErrors 2\n";
        assert_eq!(named(snmp6, "Udp6InDatagrams"), Some(9));
        let dev = "Inter-| Receive\n face |bytes packets\n    lo: 100 10 0\n  eth0: 200 20 0\n  eth1:300 30 0\n";
        assert_eq!(packets(dev, None), Ok(50));
        assert_eq!(packets(dev, Some("eth1")), Ok(30));
        assert_eq!(packets(dev, Some("eth9")), Err("there is no interface eth9".into()));
        let stat = "cpu  10 0 20 60 10 0 0 0 5 0\ncpu0 1 2 3\n";
        assert_eq!(cpu(stat), Ok(Counted { count: 30, whole: 100 }));
        assert!(cpu("intr 1\n").is_err() && cpu("cpu 1 2\n").is_err());
    }

    #[test]
    fn this_machine_has_all_counters() {
        for metric in [Metric::Packets { interface: None }, Metric::Datagrams, Metric::Cpu, Metric::Drops] {
            let load = Load::new(&metric, &[]).unwrap();
            assert!(load.count().is_ok(), "{metric:?}: {:?}", load.count());
        }
    }

    #[test]
    fn rates_and_shares_are_of_the_time_between_polls() {
        let at = |count, whole| Counted { count, whole };
        let then = Instant::now();
        let now = then + std::time::Duration::from_millis(500);
        let load = |metric| Load::new(&metric, &[]).unwrap();
        let (rate, share) = (load(Metric::Datagrams), load(Metric::Cpu));
        assert_eq!(rate.value((then, at(1000, 0)), (now, at(1500, 0))), 1_000_000, "1000/s");
        assert_eq!(share.value((then, at(100, 1000)), (now, at(175, 1100))), 75_000, "75 %");
        assert_eq!(rate.value((then, at(1000, 0)), (now, at(3, 0))), 0, "a counter that began anew");
    }

    #[test]
    fn numbers_are_numbers() {
        assert_eq!(number(b" 12.5\n"), Ok(12_500));
        for text in [&b""[..], b"many", b"-1", b"NaN", b"inf", b"1 2", b"\xff"] {
            assert!(number(text).unwrap_err().ends_with("is not a number"));
        }
    }
}
