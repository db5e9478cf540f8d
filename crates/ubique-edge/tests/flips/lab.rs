//! Everything of one scenario: namespaces, data planes, servers and clients, and what became of connections.

use std::time::Duration;

use ubique_edge::{Counter, Counters};

use crate::delay::{DelayBox, Delays};
use crate::net::{Family, Kernel, Net, SITES};
use crate::plane::{self, Plane, Setup};
use crate::runner::wait_until;
use crate::traffic::{Client, Fate, Kind, Record, Server, Summary};

/// In these links nothing takes time: a longer stall is a lost packet, sent again after at least 200 ms.
pub const NO_LOSS: Duration = Duration::from_millis(100);
/// Nothing here takes that long.
pub const SOON_MS: u64 = 10_000;

/// Which clients connect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clients {
    Timestamps,
    NoTimestamps,
    Mixed,
}

impl Clients {
    pub const ALL: [Clients; 3] = [Clients::Timestamps, Clients::NoTimestamps, Clients::Mixed];

    /// Connections of each client namespace.
    pub fn shares(self, count: usize) -> [usize; 2] {
        match self {
            Clients::Timestamps => [count, 0],
            Clients::NoTimestamps => [0, count],
            Clients::Mixed => [count / 2, count - count / 2],
        }
    }
}

/// Everything of one scenario. Fields are dropped in this order.
pub struct Lab {
    pub clients: Vec<Client>,
    pub share: Clients,
    pub servers: Vec<Server>,
    pub planes: Vec<Plane>,
    pub delay: Option<DelayBox>,
    pub net: Net,
    pub before: [Kernel; 2],
}

impl Lab {
    pub fn new(family: Family, share: Clients, setup: Option<Setup>, delays: Option<Delays>) -> Lab {
        let net = Net::new(delays.is_some());
        let mut planes = Vec::new();
        if let Some(setup) = setup {
            planes = (0..SITES).map(|number| Plane::start(&net, number, setup)).collect();
            plane::let_pass(&net, &planes[0]);
            planes.iter().for_each(Plane::ready);
        }
        let delay = delays.map(|delays| DelayBox::start(&net, delays));
        let servers = net.sites.iter().enumerate().map(|(number, ns)| Server::start(ns, number)).collect();
        let clients = net.clients.iter().map(|ns| Client::start(ns, family.service())).collect();
        let before = net.kernel_counters();
        Lab { clients, share, servers, planes, delay, net, before }
    }

    pub fn open(&self, kind: Kind, count: usize) {
        for (client, count) in self.clients.iter().zip(self.share.shares(count)) {
            client.open(kind, count);
        }
    }

    /// What the clients see.
    pub fn seen(&self) -> Vec<Record> {
        self.clients.iter().flat_map(Client::records).collect()
    }

    /// Short connections that are done.
    pub fn short(&self) -> usize {
        let done = |record: &Record| record.kind == Some(Kind::Short) && record.fate == Fate::Done;
        self.seen().into_iter().filter(done).count()
    }

    /// Octets that came back to the sites on ticking connections, or `None` for those that have ended.
    pub fn ticks(&self) -> Vec<Vec<Option<u64>>> {
        let of = |server: &Server| -> Vec<_> {
            let records = server.records();
            let open = |record: &Record| {
                (record.fate == Fate::Open && record.kind == Some(Kind::Ticking)).then_some(record.octets)
            };
            records.iter().map(open).collect()
        };
        self.servers.iter().map(of).collect()
    }

    /// Opens ticking connections and waits until all tick.
    pub fn tick(&self, count: usize) {
        let open = || self.ticks().iter().flatten().filter(|octets| octets.is_some_and(|octets| octets >= 2)).count();
        let before = open();
        self.open(Kind::Ticking, count);
        let lost = || self.seen().iter().any(Record::is_lost);
        let all_tick = wait_until(SOON_MS, || open() >= before + count || lost());
        assert!(all_tick && !lost(), "{} of {count} new connections tick", open() - before);
    }

    /// Ticking connections that begin at all three sites.
    pub fn begin_everywhere(&self, count: usize) {
        for site in 0..SITES {
            self.flip(site);
            self.tick(count / SITES);
        }
    }

    /// To one site after the other; no further once connections stand still.
    pub fn flip_around(&self, flips: usize) {
        (0..flips).all(|flip| self.flip(flip % SITES));
    }

    /// Changes the route, and waits until every ticking connection went on for some ticks or was lost. False: some stand still.
    pub fn flip(&self, to: usize) -> bool {
        const TICKS: u64 = 3;
        self.net.flip(to);
        let before = self.ticks();
        let went_on = || {
            let now = self.ticks();
            let pairs = before.iter().flatten().zip(now.iter().flatten());
            // Without clients any more, or far enough.
            let mut pairs = pairs.filter_map(|(before, now)| Some(((*before)?, (*now)?)));
            pairs.all(|(before, now)| now >= before + TICKS)
        };
        let all = wait_until(SOON_MS, went_on);
        if !all {
            eprintln!("    some connections stand still after the route went to site {to}");
        }
        all
    }

    /// Whether all connections of the clients ended by themselves or by being stopped.
    pub fn finish(&self) -> Summary {
        self.clients.iter().for_each(Client::stop);
        self.ended(SOON_MS);
        let mut summary = Summary::of(&self.clients.iter().collect::<Vec<_>>(), &self.servers);
        summary.late += self.delay.as_ref().map_or(Duration::ZERO, DelayBox::late);
        summary
    }

    pub fn ended(&self, limit_ms: u64) -> bool {
        wait_until(limit_ms, || self.seen().iter().all(|record| record.fate != Fate::Open))
    }

    pub fn counters(&self) -> Vec<Counters> {
        self.planes.iter().map(Plane::counters).collect()
    }

    /// Nothing was lost, and neither programs nor kernels have seen anything they should not.
    pub fn assert_nothing_lost(&self, name: &str, summary: &Summary, bound: Duration) {
        let counters = self.counters();
        let after = self.net.kernel_counters();
        self.print(name, summary, &counters, &after);
        let mut wrong = wrong_decisions(&counters);
        let sent_again = [0, 1].map(|side| after[side].of("RetransSegs") - self.before[side].of("RetransSegs"));
        for (side, ((who, before), after)) in SIDES.iter().zip(&self.before).zip(&after).enumerate() {
            for name in ["TSEcrRejected", "PAWSEstab", "PAWSActive", "EstabResets", "OutRsts"] {
                let grown = after.of(name) - before.of(name);
                let allowed = match name {
                    // What a site sent again in vain may arrive at a socket that is closed.
                    "OutRsts" => sent_again[1] + self.late_ends(who),
                    // What was only slow and is sent again arrives twice, the first behind what is newer.
                    "PAWSEstab" => sent_again[1 - side],
                    _ => 0,
                };
                if grown > allowed {
                    wrong.push(format!("{who}: {name} grew by {grown}"));
                }
            }
        }
        assert_eq!((summary.lost, summary.resets, summary.content_wrong), (0, 0, false), "{name}: {wrong:?}");
        assert!(summary.longest <= bound + summary.late, "{name}: a stall beyond {bound:?}");
        assert_eq!(wrong, [] as [&str; 0], "{name}");
    }

    /// Connections whose client may be told by a reset that all is over, when it is: the site closed first and is in FIN-WAIT-2 or TIME-WAIT,
    /// which claim no packet, so that the client's FIN is nobody's where it arrives at another site and says nothing of its owner.
    pub fn late_ends(&self, who: &str) -> u64 {
        let closed_by_site = |record: &Record| record.kind != Some(Kind::Ticking) && record.fate == Fate::Done;
        let says_nothing = who == "sites" && self.share != Clients::Timestamps;
        if says_nothing { self.seen().into_iter().filter(closed_by_site).count() as u64 } else { 0 }
    }

    /// In one piece: others print, too.
    pub fn print(&self, name: &str, summary: &Summary, counters: &[Counters], after: &[Kernel; 2]) {
        let mut text = format!("  {name}: {summary}\n");
        for record in self.seen().iter().filter(|record| record.is_lost()).take(LOST_SHOWN) {
            text += &format!("    lost: {record:?}\n");
        }
        for (site, counters) in counters.iter().enumerate() {
            let seen: Vec<_> = counters.seen().map(|(counter, count)| format!("{} {count}", counter.word())).collect();
            text += &format!("    site {site}: {}\n", seen.join(", "));
        }
        for ((who, before), after) in SIDES.iter().zip(&self.before).zip(after) {
            let [sent, probes, timeouts] =
                ["RetransSegs", "TCPLossProbes", "TCPTimeouts"].map(|name| after.of(name) - before.of(name));
            text += &format!("    {who}: {sent} segments sent again, {probes} loss probes, {timeouts} timeouts\n");
            if std::env::var_os("UBIQUE_FLIPS_KERNEL").is_some() {
                text += &format!("    {who}: {}\n", after.since(before));
            }
        }
        eprint!("{text}");
    }
}

/// Lost connections that are described.
const LOST_SHOWN: usize = 3;

/// Whose counters of the kernel, in order.
const SIDES: [&str; 2] = ["clients", "sites"];

/// What no site should have decided.
fn wrong_decisions(counters: &[Counters]) -> Vec<String> {
    use Counter::*;
    let mut wrong = Vec::new();
    for counter in [Unowned, OwnerDown, NoRoute, TooBig, ShimForged, ShimStranger, ShimBudget, ShimMalformed] {
        let counts: Vec<_> = counters.iter().map(|counters| counters[counter]).collect();
        if counts.iter().any(|count| *count > 0) {
            wrong.push(format!("{} is {counts:?}", counter.word()));
        }
    }
    wrong
}
