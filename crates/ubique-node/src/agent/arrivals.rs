//! The site's own traffic while a drain watches it: packets counted by the kernel, senders by samples, connections.
//!
//! It costs nothing while nobody drains: the sockets exist only as long as a [`Counting`] does. While they do, the kernel
//! runs a compiled filter twice for each packet, and at most about [`SAMPLES_PER_S`] headers a second are copied.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::MissedTickBehavior;
use ubique_proto::actions::drain::{Client, In, NAMED, SAMPLE_EVERY, SENDERS_PER_SAMPLE, Sample};
use ubique_proto::actions::senders::{Sender, Senders};
use ubique_sys::arrivals::Arrivals;
use ubique_sys::sockdiag;

/// How often headers are taken out of the kernel's queue: it has room for a quarter of a second.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Headers looked at each second, about; with fewer packets than that all are.
const SAMPLES_PER_S: f64 = 2000.0;

/// How often connections are counted: the kernel walks all of them.
const CONNECTIONS_EVERY: Duration = Duration::from_secs(2);

/// Counts until it is dropped.
pub(super) struct Counting(AbortHandle);

impl Drop for Counting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whether packets can be counted here.
///
/// # Errors
/// Why not, in words.
pub(super) fn possible(what: &What) -> Result<(), String> {
    open(what).map(drop)
}

/// What is counted.
pub(super) struct What {
    pub addresses: Vec<IpAddr>,
    /// On these interfaces alone; empty: on all but the loopback.
    pub interfaces: Vec<u32>,
}

fn open(what: &What) -> Result<Arrivals, String> {
    Arrivals::open(&what.addresses, &what.interfaces).map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => "packets cannot be counted: that needs CAP_NET_RAW".to_owned(),
        _ => format!("packets cannot be counted: {error}"),
    })
}

/// Starts to count; what there is to tell goes to `news`. Must be called on the runtime.
pub(super) fn start(what: What, news: mpsc::Sender<In>) -> Counting {
    let task = tokio::task::spawn_local(async move {
        if let Err(why) = count(&what, &news).await {
            // The loop that would hear it may have gone.
            let _ = news.send(In::Uncounted(why)).await;
        }
    });
    Counting(task.abort_handle())
}

async fn count(what: &What, news: &mpsc::Sender<In>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("packets cannot be counted any longer: {error}");
    let mut arrivals = open(what)?;
    let mut connections = Connections::new(what.addresses.clone());
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut began, mut senders) = (Instant::now(), Senders::default());
    loop {
        tick.tick().await;
        arrivals.samples(|source| senders.add(source, 1)).map_err(failed)?;
        connections.look().await;
        let window = began.elapsed();
        if window < SAMPLE_EVERY {
            continue;
        }
        let packets = arrivals.count().map_err(failed)?;
        let every = (packets as f64 / window.as_secs_f64() / SAMPLES_PER_S).ceil();
        arrivals.sample_every(every as u32).map_err(failed)?;
        let (open, clients) = connections.last.clone().unzip();
        let clients = clients.unwrap_or_default();
        let sample = Sample { window, packets, connections: open, clients, senders: scaled(&senders, packets) };
        if news.send(In::Sample(sample)).await.is_err() {
            return Ok(());
        }
        (began, senders) = (Instant::now(), Senders::default());
    }
}

/// The heaviest senders, with their share of all packets rather than of those looked at.
fn scaled(senders: &Senders, packets: u64) -> Vec<Sender> {
    let factor = packets.max(senders.total()) as f64 / senders.total().max(1) as f64;
    let scale = |count: u64| (count as f64 * factor).round() as u64;
    let heaviest = senders.heaviest(SENDERS_PER_SAMPLE).into_iter();
    heaviest.map(|s| Sender { packets: scale(s.packets), uncertain: scale(s.uncertain), ..s }).collect()
}

/// How many connections are open, and who has most of them.
type Open = (u64, Vec<Client>);

/// Counted beside the loop: with many of them it takes a while.
struct Connections {
    addresses: Vec<IpAddr>,
    running: Option<JoinHandle<Option<Open>>>,
    asked: Option<Instant>,
    last: Option<Open>,
}

fn open_connections(addresses: &[IpAddr]) -> Option<Open> {
    let mut clients = Senders::default();
    let count = sockdiag::connections(addresses, |remote| clients.add(remote, 1)).ok()?;
    let heaviest = clients.heaviest(NAMED).into_iter();
    Some((count, heaviest.map(|c| Client { prefix: c.prefix, connections: c.packets }).collect()))
}

impl Connections {
    fn new(addresses: Vec<IpAddr>) -> Connections {
        Connections { addresses, running: None, asked: None, last: None }
    }

    /// Takes a result that is there, and asks again when it is time.
    async fn look(&mut self) {
        if let Some(running) = self.running.take_if(|running| running.is_finished()) {
            self.last = running.await.ok().flatten();
        }
        if self.running.is_none() && self.asked.is_none_or(|asked| asked.elapsed() >= CONNECTIONS_EVERY) {
            let addresses = self.addresses.clone();
            self.asked = Some(Instant::now());
            self.running = Some(tokio::task::spawn_blocking(move || open_connections(&addresses)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_are_scaled_to_all_packets() {
        let mut senders = Senders::default();
        senders.add("203.0.113.7".parse().expect("an address"), 30);
        senders.add("192.0.2.7".parse().expect("an address"), 10);
        let packets: Vec<u64> = scaled(&senders, 4000).iter().map(|s| s.packets).collect();
        assert_eq!(packets, [3000, 1000]);
        let packets: Vec<u64> = scaled(&senders, 39).iter().map(|s| s.packets).collect();
        assert_eq!(packets, [30, 10], "a packet that came after the count");
        assert_eq!(scaled(&Senders::default(), 5), []);
    }
}
