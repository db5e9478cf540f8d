//! The thread: one loop around the programs and the core of the other sites.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc::Sender;
use ubique_edge::{Error, Keys, NextHop, Tier};
use ubique_model::service::TcpMethod;
use ubique_proto::Time;
use ubique_proto::sessions::Site;
use ubique_proto::sessions::peers::{In, Out, Peers};
use ubique_proto::sessions::timestamp::{IDLE_MS, SLACK_MS};
use ubique_sys::clock::{monotonic_ns, realtime_ns};
use ubique_sys::netlink::{Link, Netlink};

use super::hops;
use super::keys::Secret;
use super::link::Sockets;
use super::plane::{Found, Plane, peer, words};
use super::{Notice, Order, Seen, Setup, Snapshot, Target};
use crate::clock::now;
use crate::random::seed;

/// How often routes, neighbours, interfaces and clocks are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long after the programs could not be loaded that is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Connections that other sites are told are ours, each second at most: each is a datagram.
const FOUND_PER_S: usize = 1000;

/// The same in one turn of the loop.
const FOUND_PER_TURN: usize = 64;

/// Whether the kernel's own timestamps are the same clock for all connections: 2.
const TIMESTAMPS: &str = "/proc/sys/net/ipv4/tcp_timestamps";

pub(super) struct Thread {
    setup: Setup,
    orders: (Receiver<Order>, Arc<OwnedFd>),
    news: Sender<Notice>,
    shared: Arc<Mutex<Snapshot>>,
    keys: Option<Keys>,
    plane: Option<Plane>,
    peers: Peers,
    sockets: Sockets,
    netlink: Option<Netlink>,
    interfaces: Vec<(u32, String)>,
    /// How each site is reached, as far as is known; and why not, when that is so.
    hops: BTreeMap<Site, NextHop>,
    no_way: BTreeMap<Site, String>,
    clock_ahead_ms: BTreeMap<Site, i64>,
    troubles: BTreeMap<String, String>,
    hand_over: Option<Target>,
    hands_over_to: Option<Site>,
    next_look: Time,
    load_again: Time,
    /// They were tried, and cannot be had.
    is_without_cookies: bool,
    found: u64,
    /// What may still be told in this second.
    found_left: usize,
}

fn wall_ms() -> u64 {
    realtime_ns() / 1_000_000
}

fn wall_base_ms() -> u64 {
    realtime_ns().saturating_sub(monotonic_ns()) / 1_000_000
}

impl Thread {
    pub(super) fn new(
        setup: Setup,
        orders: (Receiver<Order>, Arc<OwnedFd>),
        news: Sender<Notice>,
        shared: Arc<Mutex<Snapshot>>,
    ) -> Thread {
        let began = now();
        let mut peers = Peers::new(seed());
        for other in &setup.others {
            peers.handle_input(began, In::Add(other.site));
        }
        Thread {
            sockets: Sockets::new(&setup),
            setup,
            orders,
            news,
            shared,
            keys: None,
            plane: None,
            peers,
            netlink: None,
            interfaces: vec![],
            hops: BTreeMap::new(),
            no_way: BTreeMap::new(),
            clock_ahead_ms: BTreeMap::new(),
            troubles: BTreeMap::new(),
            hand_over: None,
            hands_over_to: None,
            next_look: began,
            load_again: began,
            is_without_cookies: false,
            found: 0,
            found_left: FOUND_PER_S,
        }
    }

    /// Until nobody can give orders any more.
    pub(super) fn run(mut self) {
        loop {
            match self.orders.0.try_recv() {
                Ok(Order::HandOver(target)) => self.hand_over = target,
                Err(TryRecvError::Empty) => {
                    self.turn();
                    self.wait();
                }
                Err(TryRecvError::Disconnected) => return,
            }
        }
    }

    fn wait(&self) {
        let due = self.peers.next_deadline().filter(|_| self.keys.is_some());
        let due = due.map_or(self.next_look, |due| due.min(self.next_look));
        let timeout = due.since(now());
        let Ok(timeout) = Timespec::try_from(timeout) else { return };
        let mut fds = vec![PollFd::new(&*self.orders.1, PollFlags::IN)];
        if self.keys.is_some() {
            // Without keys nobody would take what arrives.
            fds.extend(self.sockets.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        }
        if self.found_left > 0 {
            let notes = self.plane.as_ref().map(|plane| plane.notes.as_fd());
            fds.extend(notes.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        }
        // Interrupted or not: everything is looked at.
        let _ = poll(&mut fds, Some(&timeout));
        let mut counter = [0; 8];
        let _ = rustix::io::read(&*self.orders.1, &mut counter);
    }

    fn turn(&mut self) {
        let look = now() >= self.next_look;
        if look {
            self.next_look = now() + LOOK_EVERY;
            self.found_left = FOUND_PER_S;
            self.look();
        }
        let changed = self.hear();
        self.answer_found();
        if look || changed {
            self.tell_programs();
            self.attach();
            self.publish();
        }
    }

    /// Notes a trouble, or that there is none any more; the agent hears of what changed.
    fn trouble(&mut self, what: &str, why: Option<String>) {
        let known = self.troubles.get(what);
        if known == why.as_ref() {
            return;
        }
        let what = what.to_owned();
        let notice = match why {
            Some(why) => {
                self.troubles.insert(what.clone(), why.clone());
                Notice::Trouble { what, why }
            }
            None => {
                self.troubles.remove(&what);
                Notice::Solved { what }
            }
        };
        self.tell(notice);
    }

    fn tell(&self, notice: Notice) {
        // An agent that takes nothing for so long has other troubles; the published state has it all.
        let _ = self.news.try_send(notice);
    }

    /// Everything that is looked at once a second.
    fn look(&mut self) {
        if self.keys.is_none() {
            let read = Secret::read(&self.setup.sessions.secret_file);
            self.trouble("secret", read.as_ref().err().map(ToString::to_string));
            self.keys = read.ok().map(|secret| secret.keys());
        }
        if self.netlink.is_none() {
            self.netlink = Netlink::open().ok();
        }
        let addresses = self.setup.unicast.clone();
        let refused: BTreeMap<IpAddr, String> = self
            .sockets
            .open(&addresses)
            .into_iter()
            .map(|(address, error)| (address, format!("no socket at port {}: {error}", self.setup.sessions.port)))
            .collect();
        for address in addresses {
            self.trouble(&format!("address {address}"), refused.get(&address).cloned());
        }
        match self.netlink.as_mut().map(Netlink::links) {
            Some(Ok(links)) => {
                self.look_at_interfaces(&links);
                self.look_at_hops(&links);
            }
            // Another socket may fare better; until then all is as it was.
            _ => self.netlink = None,
        }
        self.load();
        self.look_at_clock();
    }

    fn look_at_interfaces(&mut self, links: &[Link]) {
        let Some(netlink) = &mut self.netlink else { return };
        self.interfaces = hops::interfaces(netlink, links, &self.setup);
        let none = self.interfaces.is_empty();
        let named = self.setup.sessions.interfaces.join(", ");
        let why = match named.is_empty() {
            true => "no upstream is reached over an interface: name `interfaces`".to_owned(),
            false => format!("none of {named} is here"),
        };
        self.trouble("interfaces", none.then_some(why));
        if let Some(plane) = &mut self.plane {
            plane.retain(&self.interfaces);
        }
        let gone = |what: &&String| {
            what.strip_prefix("interface ").is_some_and(|name| self.interfaces.iter().all(|(_, n)| n != name))
        };
        let gone: Vec<String> = self.troubles.keys().filter(gone).cloned().collect();
        for what in gone {
            self.trouble(&what, None);
        }
    }

    fn look_at_hops(&mut self, links: &[Link]) {
        let Some(netlink) = &mut self.netlink else { return };
        for other in &self.setup.others {
            match hops::next_hop(netlink, links, other.address, other.source) {
                Ok(hop) => {
                    self.no_way.remove(&other.site);
                    self.hops.insert(other.site, hop);
                }
                // The way there was serves as long as the site answers.
                Err(why) => {
                    self.no_way.insert(other.site, why);
                }
            }
        }
    }

    /// What connections carry: what is asked for, as far as this machine allows; `auto` means timestamps. Connections that live go on as
    /// they began: `former`.
    fn tier(&mut self, former: Option<Tier>) -> Tier {
        let asked = self.setup.sessions.tcp;
        if asked == TcpMethod::Off {
            return Tier::Off;
        }
        let may_begin = asked == TcpMethod::Cookie && former.is_none() && !self.is_without_cookies;
        if former == Some(Tier::Cookies) || may_begin {
            return Tier::Cookies;
        }
        let setting = fs::read_to_string(TIMESTAMPS).unwrap_or_default().trim().to_owned();
        let good = setting == "2";
        let why = format!(
            "net.ipv4.tcp_timestamps is {setting}, so that each connection has a clock of its own and no packet says its site: \
             sysctl -w net.ipv4.tcp_timestamps=2, and in /etc/sysctl.d"
        );
        self.trouble("TCP", (!good).then_some(why));
        // Connections whose timestamps are rewritten need that as long as they live.
        if good || former == Some(Tier::Timestamps) { Tier::Timestamps } else { Tier::Off }
    }

    /// Loads the programs when that is to be done: at first, and when timestamps can be rewritten now.
    fn load(&mut self) {
        let Some(keys) = self.keys.clone() else { return };
        let running = self.plane.as_ref().map(|plane| plane.tier);
        if self.interfaces.is_empty() || (running.is_none() && now() < self.load_again) {
            return;
        }
        let (found, former) = match running {
            Some(tier) => (None, Some(tier).filter(|tier| *tier != Tier::Off)),
            None => {
                let found = Found::look(&self.setup, &self.interfaces);
                let former = found.life.as_ref().and_then(|life| super::tier_of(&life.tcp));
                (Some(found), former)
            }
        };
        let tier = self.tier(former);
        if running == Some(tier) {
            return;
        }
        let found = found.unwrap_or_else(|| Found::look(&self.setup, &self.interfaces));
        self.load_again = now() + RETRY;
        let loaded = Plane::load(&self.setup, &keys, tier, found, wall_base_ms());
        if let Err(error @ Error::Cookies(_)) = &loaded {
            self.is_without_cookies = true;
            self.load_again = now();
            return self.trouble("cookies", Some(format!("{error}; timestamps say the site instead")));
        }
        self.trouble("data plane", loaded.as_ref().err().map(words));
        if let Ok(plane) = loaded {
            self.plane = Some(plane);
        }
    }

    fn look_at_clock(&mut self) {
        let Some(plane) = &mut self.plane else { return };
        let wall = wall_base_ms();
        // The kernel's next refusal tells; this one changes nothing.
        let _ = plane.set_clock(wall);
        let ahead = ahead_ms(wall, plane.clock_base_ms);
        let why = set_wrong(ahead).filter(|_| plane.tier == Tier::Timestamps);
        self.trouble("clock", why);
    }

    /// Takes answers, asks, and finds out who is up; whether that changed.
    fn hear(&mut self) -> bool {
        let Some(keys) = self.keys.clone() else { return false };
        let wall = wall_ms();
        for here in self.sockets.answers(&keys, &self.setup.others, wall) {
            self.clock_ahead_ms.insert(here.site, here.clock_ahead_ms);
            self.peers.handle_input(now(), In::Here { site: here.site, asked: here.asked });
        }
        self.peers.handle_deadline(now());
        let mut changed = false;
        while let Some(out) = self.peers.poll_output() {
            match out {
                Out::Ask { site, asked } => {
                    let other = self.setup.others.iter().find(|other| other.site == site);
                    // That it could not be sent shows as silence.
                    let _ = other.map(|other| self.sockets.ask(&keys, other, asked, wall));
                }
                Out::State { site, up } => {
                    changed = true;
                    self.tell(Notice::Site { name: self.setup.name(site).to_owned(), up });
                }
            }
        }
        changed
    }

    /// Tells other sites which of the connections they ask for are here.
    fn answer_found(&mut self) {
        let (Some(plane), Some(keys)) = (&mut self.plane, &self.keys) else { return };
        let limit = self.found_left.min(FOUND_PER_TURN);
        if limit == 0 {
            return;
        }
        for found in plane.notes.take(limit) {
            self.found_left = self.found_left.saturating_sub(1);
            let Some(other) = self.setup.others.iter().find(|other| other.site == found.origin) else { continue };
            // What is lost is asked for again.
            if self.sockets.tell(keys, other, &found, wall_ms()).is_ok() {
                self.found += 1;
            }
        }
    }

    /// Who is up, how it is reached, and who takes new connections.
    fn tell_programs(&mut self) {
        self.hands_over_to = self.taker();
        let Some(plane) = &mut self.plane else { return };
        let mut refused = None;
        for other in &self.setup.others {
            let hop = self.hops.get(&other.site).copied();
            let told = plane.tell(other.site, peer(other.address, self.peers.is_up(other.site), hop));
            refused = told.err().or(refused);
        }
        refused = plane.hand_over(self.hands_over_to).err().or(refused);
        self.trouble("maps", refused.map(|error| error.to_string()));
    }

    /// Who takes new connections now: one that is up.
    fn taker(&self) -> Option<Site> {
        let up = || self.peers.iter().filter(|(_, peer)| peer.up == Some(true));
        match self.hand_over.as_ref()? {
            Target::Nearest => up().min_by_key(|(site, peer)| (peer.round_trip, *site)).map(|(site, _)| site),
            Target::Named(name) => up().map(|(site, _)| site).find(|site| self.setup.name(*site) == name),
        }
    }

    /// Puts the programs where they belong. A successor waits until it knows which sites are up: its predecessor's programs know.
    fn attach(&mut self) {
        let Some(plane) = &mut self.plane else { return };
        if plane.adopted && plane.on.is_empty() && !self.peers.is_settled() {
            return;
        }
        let mut ends = Vec::new();
        for (index, name) in &self.interfaces {
            ends.push((name.clone(), plane.attach(&self.setup, *index, name)));
        }
        let adopted = plane.adopted;
        for (interface, end) in ends {
            self.trouble(&format!("interface {interface}"), end.as_ref().err().cloned());
            if let Ok(Some(mode)) = end {
                self.tell(Notice::Attached { interface, mode, adopted });
            }
        }
    }

    fn publish(&self) {
        let seen = |(site, seen): (Site, &ubique_proto::sessions::peers::Peer)| {
            let other = self.setup.others.iter().find(|other| other.site == site)?;
            Some(Seen {
                name: other.name.clone(),
                number: site.number(),
                address: other.address,
                up: seen.up,
                since: seen.since,
                round_trip: seen.round_trip,
                clock_ahead_ms: self.clock_ahead_ms.get(&site).copied().filter(|_| seen.up == Some(true)),
                no_way: self.no_way.get(&site).cloned(),
            })
        };
        let plane = self.plane.as_ref();
        let snapshot = Snapshot {
            tier: plane.map(|plane| plane.tier),
            interfaces: plane.iter().flat_map(|plane| plane.on.values().cloned()).collect(),
            troubles: self.troubles.iter().map(|(what, why)| (what.clone(), why.clone())).collect(),
            sites: self.peers.iter().filter_map(seen).collect(),
            counters: plane.map(Plane::counters).unwrap_or_default(),
            clock_base_ms: plane.map(|plane| plane.clock_base_ms),
            clock_ahead_ms: plane.map_or(0, |plane| ahead_ms(wall_base_ms(), plane.clock_base_ms)),
            adopted: plane.is_some_and(|plane| plane.adopted),
            hands_over_to: self.hands_over_to.map(|site| self.setup.name(site).to_owned()),
            found: self.found,
        };
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }
}

/// What a clock means that is so far ahead of what timestamps say; `None`: nothing, other sites can still tell.
fn set_wrong(ahead_ms: i64) -> Option<String> {
    let told = -i64::from(SLACK_MS)..=i64::from(IDLE_MS);
    (!told.contains(&ahead_ms)).then(|| {
        format!(
            "the clock was set by {:+} s since the data plane began: other sites cannot tell whose connections are, and have to ask; \
             set it right, or begin anew (`ubique sessions off`, and a restart)",
            ahead_ms / 1000
        )
    })
}

/// How far one clock is ahead of another.
fn ahead_ms(one: u64, other: u64) -> i64 {
    i64::try_from(one).unwrap_or(i64::MAX).saturating_sub(i64::try_from(other).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ubique_proto::sessions::{Mask, timestamp};

    /// The alarm is where decoding ends, not before.
    #[test]
    fn a_clock_is_wrong_where_sites_cannot_tell_any_more() {
        let (base, mask) = (1_795_248_930_123_u64, Mask { code: 77, sequence: 0 });
        let site = Site::new(17).unwrap();
        for ahead in [
            0,
            200_000,
            -200_000,
            i64::from(IDLE_MS),
            i64::from(IDLE_MS) + 1,
            -i64::from(SLACK_MS),
            -i64::from(SLACK_MS) - 1,
        ] {
            let sent = timestamp::encode(base, site, mask);
            let read = timestamp::decode(sent, base.checked_add_signed(ahead).unwrap(), mask);
            assert_eq!(read.is_none(), set_wrong(ahead).is_some(), "{ahead}");
        }
        assert!(set_wrong(-400_000).is_some_and(|why| why.contains("-400 s")));
        assert_eq!((ahead_ms(5, 7), ahead_ms(u64::MAX, 0)), (-2, i64::MAX));
    }
}
