//! The service of one site.

use std::collections::HashMap;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use ubique_sys::netns::NetNs;

use super::{
    CHUNK_BYTES, Fate, HEADER_BYTES, Kind, Poller, Progress, Record, Shared, TICK, is_pattern, listen, prepare,
    progress, receive, send,
};
use crate::net::{Family, in_namespace};

/// The service at a site, both families, until it is dropped.
pub struct Server {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// In the namespace of site `number`.
    pub fn start(ns: &NetNs, number: usize) -> Server {
        let listeners = in_namespace(ns, || Family::BOTH.map(|family| listen(family.service())));
        let shared = Arc::new(Shared::new());
        let own = shared.clone();
        let run = move || {
            let mut site = Site {
                shared: own,
                poller: Poller::new(),
                number: number as u8,
                listeners,
                connections: HashMap::new(),
                begun: 0,
                buffer: vec![0; CHUNK_BYTES],
            };
            site.run();
        };
        let thread = std::thread::Builder::new().name(format!("site{number}")).spawn(run).unwrap();
        Server { shared, thread: Some(thread) }
    }

    pub fn records(&self) -> Vec<Record> {
        self.shared.records().clone()
    }

    pub fn late(&self) -> Duration {
        self.shared.late()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.quit.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || !matches!(ended, Some(Err(_))), "the thread of a site failed");
    }
}

struct Site {
    shared: Arc<Shared>,
    poller: Poller,
    number: u8,
    /// Their tokens are their places; those of connections come after.
    listeners: [TcpListener; 2],
    connections: HashMap<u64, Connection>,
    begun: usize,
    buffer: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    /// Its place in the records.
    record: usize,
    header: Vec<u8>,
    kind: Option<Kind>,
    /// Of what the site sends.
    sent: u64,
    next_tick: Instant,
}

const LISTENERS: u64 = 2;

impl Site {
    fn run(&mut self) {
        for (token, listener) in self.listeners.iter().enumerate() {
            self.poller.add(listener, token as u64, EventFlags::IN);
        }
        let mut turn = Instant::now();
        while !self.shared.quit.load(Ordering::Relaxed) {
            for token in self.poller.wait() {
                if token < LISTENERS {
                    self.accept(token as usize);
                } else {
                    self.ready(token);
                }
            }
            let now = Instant::now();
            self.shared.turned(now - turn);
            turn = now;
            self.tick(now);
        }
    }

    fn accept(&mut self, listener: usize) {
        while let Ok((stream, _)) = self.listeners[listener].accept() {
            prepare(&stream);
            let now = Instant::now();
            let token = LISTENERS + self.begun as u64;
            self.poller.add(&stream, token, EventFlags::IN);
            self.shared.records().push(Record::new(None, now));
            let record = self.begun;
            let connection =
                Connection { stream, record, header: Vec::new(), kind: None, sent: 0, next_tick: now + TICK };
            self.connections.insert(token, connection);
            self.begun += 1;
        }
    }

    fn tick(&mut self, now: Instant) {
        let mut broken = Vec::new();
        for (token, connection) in &mut self.connections {
            if connection.kind != Some(Kind::Ticking) || connection.next_tick > now {
                continue;
            }
            connection.next_tick += TICK;
            if let Progress::Broken(fate) = progress(connection.stream.write(&[self.number])) {
                broken.push((*token, fate));
            }
        }
        for (token, fate) in broken {
            self.end(token, fate);
        }
    }

    fn end(&mut self, token: u64, fate: Fate) {
        if let Some(connection) = self.connections.remove(&token) {
            self.shared.records()[connection.record].fate = fate;
        }
    }

    fn ready(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        if let Some(Kind::Download(bytes)) = connection.kind
            && let Some(fate) = connection.send(bytes)
        {
            return self.end(token, fate);
        }
        let fate = match receive(&connection.stream, &mut self.buffer) {
            Progress::Octets(count) => self.arrived(token, count),
            // The client is done and has read all, or gave up.
            Progress::End if connection.kind == Some(Kind::Ticking) => Some(Fate::Done),
            Progress::End => Some(Fate::Early),
            Progress::Broken(fate) => Some(fate),
            Progress::Later => None,
        };
        if let Some(fate) = fate {
            self.end(token, fate);
        }
    }

    /// `count` octets stand in the buffer.
    fn arrived(&mut self, token: u64, count: usize) -> Option<Fate> {
        let connection = self.connections.get_mut(&token)?;
        let mut bytes = &self.buffer[..count];
        let mut records = self.shared.records();
        let record = &mut records[connection.record];
        record.went_on(Instant::now());
        if connection.kind.is_none() {
            let (header, rest) = bytes.split_at(bytes.len().min(HEADER_BYTES - connection.header.len()));
            connection.header.extend_from_slice(header);
            bytes = rest;
            let header = connection.header.as_slice().try_into().ok()?;
            connection.kind = Some(Kind::parse(header).expect("a header"));
            record.kind = connection.kind;
            if matches!(connection.kind, Some(Kind::Download(_))) {
                self.poller.modify(&connection.stream, token, EventFlags::IN | EventFlags::OUT);
            }
        }
        match connection.kind {
            Some(Kind::Ticking) => record.content_wrong |= bytes.iter().any(|octet| *octet != self.number),
            Some(Kind::Upload(_)) => record.content_wrong |= !is_pattern(record.octets, bytes),
            _ => assert!(bytes.is_empty()),
        }
        record.octets += bytes.len() as u64;
        let answer = match connection.kind {
            Some(Kind::Short) => vec![self.number; super::REPLY_BYTES as usize],
            Some(Kind::Upload(bytes)) if record.octets == bytes => vec![self.number, u8::from(record.content_wrong)],
            _ => return None,
        };
        // The first octets of a connection always fit.
        match progress(connection.stream.write(&answer)) {
            Progress::Broken(fate) => Some(fate),
            _ => Some(Fate::Done),
        }
    }
}

impl Connection {
    /// Sends content while there is room.
    fn send(&mut self, bytes: u64) -> Option<Fate> {
        match send(&self.stream, &mut self.sent, bytes) {
            Progress::Broken(fate) => Some(fate),
            _ => (self.sent == bytes).then_some(Fate::Done),
        }
    }
}
