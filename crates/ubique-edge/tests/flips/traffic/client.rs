//! The clients of one namespace.

use std::collections::HashMap;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use ubique_sys::netns::NetNs;

use super::{
    CHUNK_BYTES, Fate, Kind, Poller, Progress, REPLY_BYTES, Record, Shared, is_pattern, prepare, progress, receive,
    send,
};

/// The clients of a namespace, until it is dropped.
pub struct Client {
    shared: Arc<Shared>,
    orders: Arc<Mutex<Orders>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Orders {
    /// Connections to open, and how many.
    open: Vec<(Kind, usize)>,
    /// Ticking ones are closed, short ones not followed by others.
    stop: bool,
}

impl Orders {
    /// What is opened in one turn: a few at a time, so that those that exist go on meanwhile.
    fn next(&mut self) -> Vec<Kind> {
        const AT_A_TIME: usize = 8;
        let Some((kind, count)) = self.open.first_mut() else {
            return Vec::new();
        };
        let now = AT_A_TIME.min(*count);
        let kinds = vec![*kind; now];
        *count -= now;
        if *count == 0 {
            self.open.remove(0);
        }
        kinds
    }
}

impl Client {
    /// Their sockets are made in `ns`.
    pub fn start(ns: &NetNs, service: SocketAddr) -> Client {
        let shared = Arc::new(Shared::new());
        let orders = Arc::new(Mutex::new(Orders::default()));
        let ns = ns.try_clone().unwrap();
        let (own_shared, own_orders) = (shared.clone(), orders.clone());
        let run = move || {
            ns.enter().unwrap();
            let mut end = End {
                shared: own_shared,
                orders: own_orders,
                poller: Poller::new(),
                service,
                connections: HashMap::new(),
                begun: 0,
                buffer: vec![0; CHUNK_BYTES],
                stopped: false,
            };
            end.run();
        };
        let thread = std::thread::Builder::new().name("client".into()).spawn(run).unwrap();
        Client { shared, orders, thread: Some(thread) }
    }

    pub fn open(&self, kind: Kind, count: usize) {
        self.orders.lock().unwrap().open.push((kind, count));
    }

    /// Ends ticking and short connections in order.
    pub fn stop(&self) {
        self.orders.lock().unwrap().stop = true;
    }

    pub fn records(&self) -> Vec<Record> {
        self.shared.records().clone()
    }

    pub fn late(&self) -> Duration {
        self.shared.late()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.quit.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || !matches!(ended, Some(Err(_))), "the thread of a client failed");
    }
}

struct End {
    shared: Arc<Shared>,
    orders: Arc<Mutex<Orders>>,
    poller: Poller,
    service: SocketAddr,
    connections: HashMap<u64, Connection>,
    /// Connections so far: tokens and places in the records.
    begun: usize,
    buffer: Vec<u8>,
    stopped: bool,
}

struct Connection {
    stream: TcpStream,
    kind: Kind,
    established: bool,
    /// We have closed our side.
    closed: bool,
    /// Of what the client sends after the header.
    sent: u64,
}

impl End {
    fn run(&mut self) {
        let mut turn = Instant::now();
        while !self.shared.quit.load(Ordering::Relaxed) {
            self.follow_orders();
            for token in self.poller.wait() {
                if let Some(fate) = self.ready(token) {
                    self.end(token, fate);
                }
            }
            let now = Instant::now();
            self.shared.turned(now - turn);
            turn = now;
        }
    }

    fn follow_orders(&mut self) {
        let (open, stop) = {
            let mut orders = self.orders.lock().unwrap();
            (orders.next(), orders.stop)
        };
        open.into_iter().for_each(|kind| self.open(kind));
        if stop && !self.stopped {
            self.stopped = true;
            for connection in self.connections.values_mut().filter(|connection| connection.kind == Kind::Ticking) {
                connection.closed = true;
                // It fails where the connection is lost, which reading tells, too.
                let _ = connection.stream.shutdown(Shutdown::Write);
            }
        }
    }

    fn open(&mut self, kind: Kind) {
        let family = if self.service.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None).unwrap();
        match rustix::net::connect(&socket, &self.service) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => panic!("connect: {error}"),
        }
        let stream = TcpStream::from(socket);
        prepare(&stream);
        let token = self.begun as u64;
        self.poller.add(&stream, token, EventFlags::IN | EventFlags::OUT);
        self.shared.records().push(Record::new(Some(kind), Instant::now()));
        self.connections.insert(token, Connection { stream, kind, established: false, closed: false, sent: 0 });
        self.begun += 1;
    }

    fn end(&mut self, token: u64, fate: Fate) {
        let Some(connection) = self.connections.remove(&token) else {
            return;
        };
        self.shared.records()[token as usize].fate = fate;
        if connection.kind == Kind::Short && !self.stopped {
            self.open(Kind::Short);
        }
    }

    /// How it ended, if it did.
    fn ready(&mut self, token: u64) -> Option<Fate> {
        let connection = self.connections.get_mut(&token)?;
        if !connection.established {
            if let Some(error) = connection.stream.take_error().unwrap() {
                return match progress(Err(error)) {
                    Progress::Broken(fate) => Some(fate),
                    _ => None,
                };
            }
            if let Progress::Broken(fate) = progress(connection.stream.write(&connection.kind.header())) {
                return Some(fate);
            }
            connection.established = true;
            if !matches!(connection.kind, Kind::Upload(_)) {
                self.poller.modify(&connection.stream, token, EventFlags::IN);
            }
        }
        if let Kind::Upload(bytes) = connection.kind {
            let before = connection.sent;
            let fate = connection.upload(bytes);
            if connection.sent > before {
                self.shared.records()[token as usize].went_on(Instant::now());
            }
            if fate.is_some() {
                return fate;
            }
        }
        match receive(&connection.stream, &mut self.buffer) {
            Progress::Octets(count) => {
                let mut records = self.shared.records();
                connection.arrived(&mut records[token as usize], &self.buffer[..count])
            }
            Progress::End => Some(self.shared.records()[token as usize].at_end(connection.closed)),
            Progress::Broken(fate) => Some(fate),
            Progress::Later => {
                if connection.sent_all() {
                    self.poller.modify(&connection.stream, token, EventFlags::IN);
                }
                None
            }
        }
    }
}

impl Record {
    /// The site has closed; `asked`: after we did.
    fn at_end(&mut self, asked: bool) -> Fate {
        self.went_on(Instant::now());
        let right = match self.kind {
            Some(Kind::Ticking) => asked,
            Some(Kind::Short) => self.octets == REPLY_BYTES,
            Some(Kind::Download(bytes)) => self.octets == bytes,
            Some(Kind::Upload(_)) => self.octets == 2,
            None => false,
        };
        if right { Fate::Done } else { Fate::Early }
    }
}

impl Connection {
    fn arrived(&mut self, record: &mut Record, bytes: &[u8]) -> Option<Fate> {
        record.went_on(Instant::now());
        let offset = record.octets;
        record.octets += bytes.len() as u64;
        match self.kind {
            Kind::Download(_) => record.content_wrong |= !is_pattern(offset, bytes),
            Kind::Upload(_) => {
                record.content_wrong |= offset == 0 && bytes.get(1) == Some(&1);
                record.site = bytes.first().copied();
            }
            Kind::Ticking | Kind::Short => {
                let site = *record.site.get_or_insert(bytes[0]);
                record.content_wrong |= bytes.iter().any(|octet| *octet != site);
            }
        }
        if self.kind == Kind::Ticking && !self.closed {
            // So few octets always fit.
            if let Progress::Broken(fate) = progress(self.stream.write(bytes)) {
                return Some(fate);
            }
        }
        None
    }

    fn upload(&mut self, bytes: u64) -> Option<Fate> {
        match send(&self.stream, &mut self.sent, bytes) {
            Progress::Broken(fate) => Some(fate),
            _ => None,
        }
    }

    fn sent_all(&self) -> bool {
        matches!(self.kind, Kind::Upload(bytes) if self.sent == bytes)
    }
}
