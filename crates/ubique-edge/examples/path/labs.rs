//! The networks that are compared.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;

use ubique_edge::{Edge, Tier};

use crate::net::{End, Family, Net, SITES, in_namespace};
use crate::plane::{self, Plane, Setup};

/// What is on the interfaces of the sites.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// No XDP program on any link.
    Nothing,
    /// Programs that let everything pass, on all: what a veth takes for XDP alone.
    Pass,
    Ours(Tier),
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Nothing, Kind::Pass, Kind::Ours(Tier::Cookies), Kind::Ours(Tier::Timestamps)];
    pub const OURS: [Kind; 2] = [Kind::ALL[2], Kind::ALL[3]];

    pub fn word(self) -> &'static str {
        match self {
            Kind::Nothing => "nothing",
            Kind::Pass => "pass",
            Kind::Ours(Tier::Cookies) => "cookies",
            Kind::Ours(_) => "timestamps",
        }
    }
}

pub struct Lab {
    pub kind: Kind,
    pub net: Net,
    _planes: Vec<Plane>,
}

pub struct Labs(pub Vec<Lab>);

/// Where each site sends back what it gets.
const ECHO: u16 = 7;

impl Labs {
    pub fn new() -> Labs {
        Labs(Kind::ALL.map(Lab::new).into())
    }

    pub fn of(&self, kind: Kind) -> &Lab {
        self.0.iter().find(|lab| lab.kind == kind).unwrap()
    }
}

impl Lab {
    fn new(kind: Kind) -> Lab {
        let net = Net::new(false);
        let mut planes = Vec::new();
        match kind {
            Kind::Nothing => {}
            Kind::Pass => pass(&net),
            Kind::Ours(tier) => {
                let setup = Setup::new(tier, Family::V4);
                planes = (0..SITES).map(|number| Plane::start(&net, number, setup)).collect();
                plane::let_pass(&net, &planes[0]);
                planes.iter().for_each(Plane::ready);
            }
        }
        for site in &net.sites {
            Family::BOTH.iter().for_each(|family| in_namespace(site, || echo(address(*family, ECHO))));
        }
        Lab { kind, net, _planes: planes }
    }

    /// A connection with site `owner`, whose packets then arrive at site 0.
    pub fn connect(&self, family: Family, owner: usize) -> TcpStream {
        self.net.flip(owner);
        let mut stream = in_namespace(&self.net.clients[0], || TcpStream::connect(address(family, ECHO)).unwrap());
        stream.set_nodelay(true).unwrap();
        stream.write_all(b"?").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        self.net.flip(0);
        stream
    }
}

pub fn address(family: Family, port: u16) -> SocketAddr {
    SocketAddr::new(family.service().ip(), port)
}

/// On all ends, those of the sites included. The programs stay when what loaded them is gone.
fn pass(net: &Net) {
    let mut ends = plane::other_ends(net);
    for end in End::all().filter(|end| !matches!(end, End::Client(_))) {
        ends.push((net.end(end).try_clone().unwrap(), end.interface().into()));
    }
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        let edge = Edge::load(&plane::config(Setup::new(Tier::Off, Family::V4), 0)).unwrap();
        plane::attach_pass(&edge, ends);
        done.send(()).unwrap();
    });
    is_done.recv().unwrap();
}

/// Until the process ends.
fn echo(address: SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    stream.write_all(&buffer[..length]).unwrap();
                }
            });
        }
    });
}
