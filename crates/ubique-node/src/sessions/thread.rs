//! The thread: one loop around the programs and the core of the other sites.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc::Sender;
use ubique_edge::{Counter, Error, Keys, NextHop, Tier, device};
use ubique_model::service::TcpMethod;
use ubique_proto::Time;
use ubique_proto::sessions::Site;
use ubique_proto::sessions::peers::{In, Out, Peers};
use ubique_sys::netlink::{Link, Netlink, PathMonitor};

use super::hops::{self, NoWay};
use super::keys::Secret;
use super::link::{Here, Sockets};
use super::mptcp;
use super::plane::{Found, Plane, peer, words};
use super::wall::{By, Wall};
use super::{Notice, Order, Seen, Setup, Shared, Snapshot, Target};
use super::{taps, wall};
use crate::clock::now;
use crate::random::seed;

/// How often everything is looked at, clocks too; routes, neighbours and interfaces besides when the kernel says that they changed.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Between two looks at routes, neighbours and interfaces because of changes, at least: with a full table there is always one.
const CHANGES_EVERY: Duration = Duration::from_millis(10);

/// And so many times as long as the look took: with thousands of interfaces no more than a tenth of a processor.
const CHANGES_REST: u32 = 9;

/// How long after the programs could not be loaded that is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Connections that other sites are told are ours, each second at most: each is a datagram.
const FOUND_PER_S: usize = 1000;

/// The same in one turn of the loop.
const FOUND_PER_TURN: usize = 64;

/// Why an interface does not do, though the programs are on it.
const LOSSY: &str = "it is a veth whose other end drops what the programs send back, so that packets for other sites are lost: \
                     switch GRO on at the other end (ethtool -K NAME gro on), or put an XDP program there";

/// Whether the kernel's own timestamps are the same clock for all connections: 2.
const TIMESTAMPS: &str = "/proc/sys/net/ipv4/tcp_timestamps";

pub(super) struct Thread {
    setup: Setup,
    orders: (Receiver<Order>, Arc<OwnedFd>),
    news: Sender<Notice>,
    shared: Arc<Shared>,
    keys: Option<Keys>,
    plane: Option<Plane>,
    peers: Peers,
    sockets: Sockets,
    netlink: Option<Netlink>,
    /// `None`: it cannot be had, and changes show in the next look.
    monitor: Option<PathMonitor>,
    interfaces: Vec<(u32, String)>,
    /// Those of them that lose what the programs send back.
    lossy: BTreeSet<u32>,
    /// How each site is reached, as far as is known; and why not, when that is so.
    hops: BTreeMap<Site, NextHop>,
    no_way: BTreeMap<Site, String>,
    wall: Wall,
    clock_ahead_ms: BTreeMap<Site, i64>,
    troubles: BTreeMap<String, String>,
    hand_over: Option<Target>,
    hands_over_to: Option<Site>,
    next_look: Time,
    /// When changes are listened to again.
    next_changes: Time,
    load_again: Time,
    /// They were tried, and cannot be had.
    is_without_cookies: bool,
    found: u64,
    /// When counters were read last, packets handed over by then, and how many a second of late.
    handed_over: (Time, u64, f64),
    /// What may still be told in this second.
    found_left: usize,
}

impl Thread {
    pub(super) fn new(
        setup: Setup,
        orders: (Receiver<Order>, Arc<OwnedFd>),
        news: Sender<Notice>,
        shared: Arc<Shared>,
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
            monitor: None,
            interfaces: vec![],
            lossy: BTreeSet::new(),
            hops: BTreeMap::new(),
            no_way: BTreeMap::new(),
            wall: Wall::new(),
            clock_ahead_ms: BTreeMap::new(),
            troubles: BTreeMap::new(),
            hand_over: None,
            hands_over_to: None,
            next_look: began,
            next_changes: began,
            load_again: began,
            is_without_cookies: false,
            found: 0,
            handed_over: (began, 0, 0.0),
            found_left: FOUND_PER_S,
        }
    }

    /// Until nobody can give orders any more.
    pub(super) fn run(mut self) {
        loop {
            self.shared.turned(now());
            match self.orders.0.try_recv() {
                Ok(Order::HandOver(target)) => {
                    self.hand_over = target;
                    self.tell_programs();
                    self.publish();
                }
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
        let now = now();
        let listens = self.next_changes <= now;
        let timeout = if listens { due } else { due.min(self.next_changes) }.since(now);
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
        if listens {
            fds.extend(self.monitor.iter().map(|monitor| PollFd::new(monitor, PollFlags::IN)));
        }
        // Interrupted or not: everything is looked at.
        let _ = poll(&mut fds, Some(&timeout));
        let mut counter = [0; 8];
        let _ = rustix::io::read(&*self.orders.1, &mut counter);
    }

    fn turn(&mut self) {
        let look = now() >= self.next_look;
        let moved = self.ways_changed();
        if look {
            self.next_look = now() + LOOK_EVERY;
            self.found_left = FOUND_PER_S;
            self.look();
        } else if moved {
            let began = now();
            self.look_at_ways();
            let took = now().since(began);
            self.next_changes = now() + CHANGES_EVERY.max(took * CHANGES_REST);
        }
        let changed = self.hear();
        self.answer_found();
        if look || moved || changed {
            self.tell_programs();
            self.attach();
            self.publish();
        }
    }

    /// Whether an interface, a route or a neighbour is another since the last look, and it is time for the next one.
    fn ways_changed(&mut self) -> bool {
        let now = now();
        if now < self.next_changes {
            return false;
        }
        match self.monitor.as_mut().map(PathMonitor::changed) {
            Some(Ok(changed)) => changed,
            Some(Err(_)) => {
                // Another one may fare better.
                self.monitor = None;
                false
            }
            None => false,
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
        self.look_at_ways();
        if self.setup.sessions.mptcp {
            let refused = mptcp::set_up(&self.setup.unicast, &self.setup.life).err();
            self.trouble("MPTCP", refused);
        }
        self.load();
        self.look_at_clock();
        self.look_at_taps();
    }

    /// Interfaces, routes and neighbours.
    fn look_at_ways(&mut self) {
        if self.monitor.is_none() {
            // Before the look: nothing changes unheard.
            self.monitor = PathMonitor::open().ok();
        }
        if self.netlink.is_none() {
            self.netlink = Netlink::open().ok();
        }
        match self.netlink.as_mut().map(Netlink::links) {
            Some(Ok(links)) => {
                self.look_at_interfaces(&links);
                self.look_at_hops(&links);
            }
            // Another socket may fare better; until then all is as it was.
            _ => self.netlink = None,
        }
    }

    fn look_at_interfaces(&mut self, links: &[Link]) {
        let Some(netlink) = &mut self.netlink else { return };
        self.interfaces = hops::interfaces(netlink, links, &self.setup);
        let is_ours = |link: &&Link| self.interfaces.iter().any(|(index, _)| *index == link.index);
        let loses = |link: &&Link| link.is_veth && device(link.index).is_some_and(|device| !device.transmits);
        self.lossy = links.iter().filter(is_ours).filter(loses).map(|link| link.index).collect();
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
                Err(NoWay { why, is_unresolved }) => {
                    if let Some(keys) = self.keys.as_ref().filter(|_| is_unresolved) {
                        // The kernel learns by sending, and tells; nobody waits for this answer.
                        let _ = self.sockets.ask(keys, other, 0, self.wall.now_ms());
                    }
                    self.no_way.insert(other.site, why);
                }
            }
        }
    }

    /// Whether connections may begin with cookies. Generic XDP is too late for what follows a cookie on its heels, so `auto` takes them only
    /// where all drivers run programs themselves; the connections of MPTCP are the kernel's.
    fn may_begin_cookies(&self) -> bool {
        let asked = match self.setup.sessions.tcp {
            TcpMethod::Cookie => true,
            TcpMethod::Auto => {
                let is_native = |(index, _): &(u32, String)| device(*index).is_some_and(|device| device.native);
                !self.setup.sessions.mptcp && self.lossy.is_empty() && self.interfaces.iter().all(is_native)
            }
            TcpMethod::Timestamp | TcpMethod::Off => false,
        };
        asked && !self.is_without_cookies
    }

    /// What connections carry: what is asked for, as far as this machine allows. Connections that live go on as they began: `former`.
    fn tier(&mut self, former: Option<Tier>) -> Tier {
        if self.setup.sessions.tcp == TcpMethod::Off {
            return Tier::Off;
        }
        if former == Some(Tier::Cookies) || (former.is_none() && self.may_begin_cookies()) {
            self.trouble("TCP", None);
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
        if let Some(base_ms) = found.life.as_ref().and_then(|life| life.wall_base_ms) {
            self.wall.go_on(base_ms);
        }
        let loaded = Plane::load(&self.setup, &keys, tier, found, self.wall.base_ms());
        if let Err(error @ Error::Cookies(_)) = &loaded {
            self.is_without_cookies = true;
            self.load_again = now();
            // Only who asked for them misses them.
            let is_missed = self.setup.sessions.tcp == TcpMethod::Cookie;
            return self.trouble("cookies", is_missed.then(|| format!("{error}; timestamps say the site instead")));
        }
        self.trouble("data plane", loaded.as_ref().err().map(words));
        if let Ok(plane) = loaded {
            self.plane = Some(plane);
        }
    }

    fn look_at_clock(&mut self) {
        self.wall.look(wall::machine_base_ms());
        let Some(plane) = &mut self.plane else { return };
        let base_ms = self.wall.base_ms();
        // The kernel's next refusal tells; this one changes nothing.
        let _ = plane.set_clock(&self.setup, base_ms);
        let said = wall::set_wrong(wall::ahead_ms(base_ms, plane.clock_base_ms));
        let said = said.filter(|_| plane.tier == Tier::Timestamps);
        let why = self.wall.disputed_ms().map(wall::disputed).or(said);
        self.trouble("clock", why);
    }

    /// An answer; by the machine's clock where that was set, it counts if no site answers by ours.
    fn take_answer(&mut self, here: Here) {
        if here.by == By::Machine {
            if self.peers.iter().any(|(_, peer)| peer.up == Some(true)) {
                return;
            }
            self.wall.accept();
            self.look_at_clock();
        }
        self.clock_ahead_ms.insert(here.site, here.clock_ahead_ms);
        self.peers.handle_input(now(), In::Here { site: here.site, asked: here.asked });
    }

    /// Who is in the way of cookies. Where none can be had that is told already.
    fn look_at_taps(&mut self) {
        let Some(plane) = self.plane.as_mut().filter(|plane| plane.tier == Tier::Cookies) else { return };
        let why = taps::in_the_way();
        // What the kernel refuses is refused again, and told, with the next of all that programs are told.
        let _ = plane.answer_syns(why.is_none());
        self.trouble("cookies", why);
    }

    /// Takes answers, asks, and finds out who is up; whether that changed.
    fn hear(&mut self) -> bool {
        let Some(keys) = self.keys.clone() else { return false };
        let clocks: Vec<_> = self.wall.clocks().collect();
        for here in self.sockets.answers(&keys, &self.setup.others, &clocks) {
            self.take_answer(here);
        }
        self.peers.handle_deadline(now());
        let mut changed = false;
        while let Some(out) = self.peers.poll_output() {
            match out {
                Out::Ask { site, asked } => {
                    let Some(other) = self.setup.others.iter().find(|other| other.site == site) else { continue };
                    for (_, wall_ms) in self.wall.clocks() {
                        // That it could not be sent shows as silence.
                        let _ = self.sockets.ask(&keys, other, asked, wall_ms);
                    }
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
            if self.sockets.tell(keys, other, &found, self.wall.now_ms()).is_ok() {
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
            ends.push((*index, name.clone(), plane.attach(&self.setup, *index, name)));
        }
        let adopted = plane.adopted;
        for (index, interface, end) in ends {
            let loss = || self.lossy.contains(&index).then(|| LOSSY.to_owned());
            let why = end.as_ref().err().cloned().or_else(loss);
            self.trouble(&format!("interface {interface}"), why);
            if let Ok(Some(mode)) = end {
                self.tell(Notice::Attached { interface, mode, adopted });
            }
        }
    }

    /// How many packets that begin a connection were handed over each second, since the last look.
    fn rate_handed_over(&mut self, counters: &[(Counter, u64)]) -> f64 {
        let found = counters.iter().find(|(counter, _)| *counter == Counter::ForwardNew);
        let count = found.map_or(0, |(_, count)| *count);
        let (at, before, rate) = self.handed_over;
        let (now, took) = (now(), now().since(at));
        // Between two looks there is too little to count.
        if took < LOOK_EVERY / 2 {
            return rate;
        }
        let rate = count.saturating_sub(before) as f64 / took.as_secs_f64();
        self.handed_over = (now, count, rate);
        rate
    }

    fn publish(&mut self) {
        let counters = self.plane.as_ref().map(Plane::counters).unwrap_or_default();
        let handed_over_per_s = self.rate_handed_over(&counters);
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
            counters,
            clock_base_ms: plane.map(|plane| plane.clock_base_ms),
            clock_ahead_ms: plane.map_or(0, |plane| wall::ahead_ms(wall::machine_base_ms(), plane.clock_base_ms)),
            adopted: plane.is_some_and(|plane| plane.adopted),
            counts_on: plane.is_some_and(|plane| plane.counts_on),
            hands_over_to: self.hands_over_to.map(|site| self.setup.name(site).to_owned()),
            handed_over_per_s,
            found: self.found,
            silent: Duration::ZERO,
        };
        self.shared.publish(snapshot);
    }
}
