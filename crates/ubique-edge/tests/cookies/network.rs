//! Two kernels on one cable: clients, and a service behind a data plane.

use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

use ubique_edge::{Attachment, Edge, Mode};
use ubique_sys::netlink::Netlink;
use ubique_sys::netns::NetNs;

use crate::setup;

pub const SERVICE_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 53);
pub const SERVICE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x53, 0, 0, 0, 0, 0x53);

pub struct Network {
    pub clients: NetNs,
    /// Of the interface of the clients.
    pub client_index: u32,
    pub edge: Edge,
    _attachment: Option<Attachment>,
}

impl Network {
    /// Moves the calling thread to where the service is. `None`: not to be had here, and said so.
    pub fn new() -> Option<Network> {
        Network::with(true)
    }

    /// The same, but the data plane lets everything pass.
    pub fn without_cookies() -> Option<Network> {
        Network::with(false)
    }

    fn with(cookies: bool) -> Option<Network> {
        let (clients, server) = (setup::namespace()?, setup::namespace()?);
        let mut netlink = Netlink::open_in(&clients).unwrap();
        netlink.add_veth(("c0", None), ("s0", Some(&server))).unwrap();
        let client_index = ends(netlink, "c0", ["198.51.100.7/24", "2001:db8:53::7/64"]);
        let netlink = Netlink::open_in(&server).unwrap();
        let index = ends(netlink, "s0", ["198.51.100.53/24", "2001:db8:53::53/64"]);
        server.enter().unwrap();
        let edge = setup::edge(&setup::config())?;
        clients.enter().unwrap();
        edge.attach_pass(client_index).unwrap();
        server.enter().unwrap();
        let _attachment = cookies.then(|| edge.attach(index, Some(Mode::Native)).unwrap());
        if !cookies {
            edge.attach_pass(index).unwrap();
        }
        Some(Network { clients, client_index, edge, _attachment })
    }

    /// Hardware addresses of clients and service, as each knows the other's.
    pub fn hardware_addresses(&self) -> [[u8; 6]; 2] {
        // Asked for by the first packet, which nobody listens for.
        let _ = self.clients.run(|| TcpStream::connect((SERVICE_V4, 1))).unwrap();
        [neighbour(), self.clients.run(neighbour).unwrap()]
    }

    /// Whether clients offer something (`net.ipv4`).
    pub fn set_client(&self, switch: &str, on: bool) {
        let write = || std::fs::write(format!("/proc/sys/net/ipv4/{switch}"), if on { "1" } else { "0" });
        self.clients.run(write).unwrap().unwrap();
    }
}

/// The one that the calling thread's namespace has.
fn neighbour() -> [u8; 6] {
    let table = std::fs::read_to_string("/proc/thread-self/net/arp").unwrap();
    let address = table.lines().nth(1).unwrap().split_whitespace().nth(3).unwrap();
    let octets: Vec<u8> = address.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect();
    octets.try_into().unwrap()
}

fn ends(mut netlink: Netlink, name: &str, addresses: [&str; 2]) -> u32 {
    let index = netlink.link_index(name).unwrap();
    netlink.set_up(index).unwrap();
    for address in addresses {
        netlink.add_address(index, address.parse().unwrap()).unwrap();
    }
    index
}

pub fn service(v6: bool) -> SocketAddr {
    if v6 { (SERVICE_V6, setup::PORT).into() } else { (SERVICE_V4, setup::PORT).into() }
}

/// Sends each connection back what it sends, `connections` of them.
pub fn echo(connections: usize) -> std::thread::JoinHandle<()> {
    let listener = TcpListener::bind(("::", setup::PORT)).unwrap();
    std::thread::spawn(move || {
        for _ in 0..connections {
            let (mut stream, _) = listener.accept().unwrap();
            std::thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                loop {
                    match stream.read(&mut buffer).unwrap() {
                        0 => return,
                        n => stream.write_all(&buffer[..n]).unwrap(),
                    }
                }
            });
        }
    })
}

/// A counter of the calling thread's namespace.
pub fn netstat(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    let column = |pair: &[Vec<&str>]| {
        let at = pair[0].iter().position(|word| *word == name)?;
        pair[1][at].parse().ok()
    };
    lines.chunks(2).find_map(column).unwrap_or_else(|| panic!("no counter {name}"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    pub timestamps: bool,
    pub sack: bool,
    pub scaled: bool,
    pub ecn: bool,
    pub send_scale: u8,
    pub receive_scale: u8,
    pub send_segment: u32,
    /// Of a listener: how many connections wait to be accepted.
    pub waiting: u32,
}

pub fn info(socket: &impl AsFd) -> Info {
    let info: libc::tcp_info = option(socket, libc::TCP_INFO);
    Info {
        timestamps: info.tcpi_options & 1 != 0,
        sack: info.tcpi_options & 2 != 0,
        scaled: info.tcpi_options & 4 != 0,
        ecn: info.tcpi_options & 8 != 0,
        send_scale: info.tcpi_snd_rcv_wscale & 15,
        receive_scale: info.tcpi_snd_rcv_wscale >> 4,
        send_segment: info.tcpi_snd_mss,
        waiting: info.tcpi_unacked,
    }
}

/// What the kernel's clock of timestamps says for this connection; its last bit means something else.
pub fn timestamp(stream: &TcpStream) -> u32 {
    option(stream, libc::TCP_TIMESTAMP)
}

/// The number of the next octet that is sent.
pub fn next_sequence(stream: &TcpStream) -> u32 {
    const SEND_QUEUE: i32 = 2;
    const REPAIR_OFF_WITHOUT_PROBE: i32 = -1;
    set_option(stream, libc::TCP_REPAIR, 1);
    set_option(stream, libc::TCP_REPAIR_QUEUE, SEND_QUEUE);
    let next = option(stream, libc::TCP_QUEUE_SEQ);
    set_option(stream, libc::TCP_REPAIR, REPAIR_OFF_WITHOUT_PROBE);
    next
}

/// `T`: of numbers only.
fn option<T: Copy>(socket: &impl AsFd, name: i32) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length = size_of::<T>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `length` octets, the size of `value`.
    let result = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, name, value.as_mut_ptr().cast(), &raw mut length) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: numbers, of which 0 is one, wherever the kernel wrote nothing.
    unsafe { value.assume_init() }
}

fn set_option(socket: &impl AsFd, name: i32, value: i32) {
    let fd = socket.as_fd().as_raw_fd();
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` octets, the size of `value`.
    let result = unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, name, (&raw const value).cast(), length) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
