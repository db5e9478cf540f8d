//! Namespaces, links, addresses, routes, and the sockets on them, on the real kernel.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod runner;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use ubique_sys::clock;
use ubique_sys::netlink::{AddressEvent, AddressMonitor, Family, Link, Netlink, RTPROT_BGP, Route};
use ubique_sys::netns::NetNs;
use ubique_sys::packet::{self, Batch, PacketSocket};
use ubique_sys::{tcp, udp};

fn main() {
    runner::run(
        runner::Where::Sandbox,
        &[
            (
                "sandbox_network_is_empty_and_up",
                sandbox_network_is_empty_and_up,
            ),
            ("namespaces_are_apart", namespaces_are_apart),
            ("addresses_come_and_go", addresses_come_and_go),
            ("routes_are_read_back", routes_are_read_back),
            ("links_come_and_go", links_come_and_go),
            ("refusals_say_what_was_wanted", refusals_say_what_was_wanted),
            ("monitor_hears_changes", monitor_hears_changes),
            ("two_hundred_links_at_once", two_hundred_links_at_once),
            ("md5_lets_only_the_key_in", md5_lets_only_the_key_in),
            ("gtsm_drops_distant_senders", gtsm_drops_distant_senders),
            (
                "unacknowledged_bytes_go_to_zero",
                unacknowledged_bytes_go_to_zero,
            ),
            ("frames_pass_in_batches", frames_pass_in_batches),
            (
                "frames_are_whole_without_offloads",
                frames_are_whole_without_offloads,
            ),
            ("datagrams_carry_timestamps", datagrams_carry_timestamps),
        ],
    );
}

fn namespace(name: &str) -> NetNs {
    NetNs::create_at(&path_of(name)).unwrap()
}

fn path_of(name: &str) -> PathBuf {
    Path::new("/run/ubique/ns").join(name)
}

/// Two namespaces with a veth `l0` between them: 10.0.0.0/31 and fd00::/127.
fn pair() -> (NetNs, NetNs) {
    let ends = (namespace("a"), namespace("b"));
    let mut netlink = Netlink::open().unwrap();
    netlink
        .add_veth(("l0", Some(&ends.0)), ("l0", Some(&ends.1)))
        .unwrap();
    for (ns, addresses) in [
        (&ends.0, ["10.0.0.0/31", "fd00::/127"]),
        (&ends.1, ["10.0.0.1/31", "fd00::1/127"]),
    ] {
        let mut netlink = Netlink::open_in(ns).unwrap();
        let index = netlink.link_index("l0").unwrap();
        netlink.set_up(index).unwrap();
        for address in addresses {
            assert!(
                netlink
                    .add_address(index, address.parse().unwrap())
                    .unwrap()
            );
        }
    }
    ends
}

fn readable(fd: impl AsFd, timeout_ms: i64) -> bool {
    let timeout = Timespec {
        tv_sec: timeout_ms / 1000,
        tv_nsec: timeout_ms % 1000 * 1_000_000,
    };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap() > 0
}

fn sandbox_network_is_empty_and_up() {
    let links = Netlink::open().unwrap().links().unwrap();
    let lo = links.iter().find(|link| link.name == "lo").unwrap();
    assert!(lo.up && lo.index == 1);
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    }
}

fn namespaces_are_apart() {
    let a = namespace("a");
    let b = namespace("b");
    assert_ne!(a.inode().unwrap(), b.inode().unwrap());
    let own = NetNs::current().unwrap().inode().unwrap();
    let inside = a
        .run(|| NetNs::current().unwrap().inode().unwrap())
        .unwrap();
    assert_eq!(inside, a.inode().unwrap());
    assert_eq!(NetNs::current().unwrap().inode().unwrap(), own);
    assert_eq!(
        NetNs::open(&path_of("b")).unwrap().inode().unwrap(),
        b.inode().unwrap()
    );
    let again = NetNs::create_at(&path_of("b")).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    assert!(
        NetNs::open(Path::new("/proc/self/ns/uts"))
            .unwrap()
            .enter()
            .is_err()
    );
    // A socket stays where it was opened: this port is free here.
    let inside = a
        .run(|| TcpListener::bind("127.0.0.1:4000").unwrap())
        .unwrap();
    let here = TcpListener::bind("127.0.0.1:4000").unwrap();
    assert_eq!(inside.local_addr().unwrap(), here.local_addr().unwrap());
    a.enter().unwrap();
    assert_eq!(
        NetNs::current().unwrap().inode().unwrap(),
        a.inode().unwrap()
    );
}

fn addresses_come_and_go() {
    let mut netlink = Netlink::open().unwrap();
    for text in ["198.51.100.1/32", "2001:db8::53/128"] {
        let address = text.parse().unwrap();
        let bind = || UdpSocket::bind((address_of(text), 53));
        assert_eq!(bind().unwrap_err().kind(), ErrorKind::AddrNotAvailable);
        assert!(netlink.add_address(1, address).unwrap());
        // Usable at once: no duplicate address detection.
        bind().unwrap();
        assert!(!netlink.add_address(1, address).unwrap());
        assert!(netlink.addresses(1).unwrap().contains(&address));
        assert!(netlink.delete_address(1, address).unwrap());
        assert!(!netlink.delete_address(1, address).unwrap());
        assert!(!netlink.addresses(1).unwrap().contains(&address));
    }
}

fn address_of(text: &str) -> IpAddr {
    text.split('/').next().unwrap().parse().unwrap()
}

fn route(destination: &str) -> Route {
    Route {
        destination: destination.parse().unwrap(),
        gateway: None,
        interface: None,
        protocol: RTPROT_BGP,
        metric: None,
        blackhole: false,
        source: None,
    }
}

fn routes_are_read_back() {
    let (a, _b) = pair();
    let mut netlink = Netlink::open_in(&a).unwrap();
    let l0 = netlink.link_index("l0").unwrap();
    let own_v4: IpAddr = "198.51.100.1".parse().unwrap();
    netlink
        .add_address(1, "198.51.100.1/32".parse().unwrap())
        .unwrap();
    let bgp_routes = |netlink: &mut Netlink, family| {
        let mut routes = netlink.routes(family).unwrap();
        routes.retain(|route| route.protocol == RTPROT_BGP);
        routes
    };
    let via = |gateway: &str| Route {
        gateway: Some(gateway.parse().unwrap()),
        interface: Some(l0),
        ..route("0.0.0.0/0")
    };
    let v4 = [
        Route {
            source: Some(own_v4),
            ..via("10.0.0.1")
        },
        Route {
            destination: "203.0.113.0/24".parse().unwrap(),
            metric: Some(20),
            ..via("10.0.0.1")
        },
        Route {
            destination: "192.0.2.0/24".parse().unwrap(),
            ..via("fd00::1")
        },
        Route {
            interface: Some(l0),
            ..route("192.0.2.128/25")
        },
        Route {
            blackhole: true,
            ..route("10.9.0.0/16")
        },
    ];
    let v6 = [
        Route {
            destination: "::/0".parse().unwrap(),
            metric: Some(1024),
            ..via("fd00::1")
        },
        Route {
            blackhole: true,
            metric: Some(7),
            ..route("2001:db8::/32")
        },
    ];
    for (family, wanted) in [(Family::V4, &v4[..]), (Family::V6, &v6[..])] {
        for route in wanted {
            netlink.replace_route(route).unwrap();
            netlink.replace_route(route).unwrap();
        }
        let mut found = bgp_routes(&mut netlink, family);
        assert_eq!(found.len(), wanted.len(), "{found:?}");
        found.retain(|route| !wanted.contains(route));
        assert_eq!(found, []);
    }
    // Another next hop takes the place of the old one; other protocols' routes are not ours to delete.
    let moved = Route {
        gateway: None,
        ..v4[1].clone()
    };
    netlink.replace_route(&moved).unwrap();
    assert!(bgp_routes(&mut netlink, Family::V4).contains(&moved));
    assert!(
        !netlink
            .delete_route(&Route {
                protocol: 4,
                ..moved.clone()
            })
            .unwrap()
    );
    for (family, wanted) in [(Family::V4, &v4[..]), (Family::V6, &v6[..])] {
        for route in wanted
            .iter()
            .filter(|route| **route != v4[1])
            .chain((family == Family::V4).then_some(&moved))
        {
            assert!(netlink.delete_route(route).unwrap(), "{route:?}");
            assert!(!netlink.delete_route(route).unwrap(), "{route:?}");
        }
        assert_eq!(bgp_routes(&mut netlink, family), []);
    }
}

fn links_come_and_go() {
    let (a, b) = pair();
    let mut at_a = Netlink::open_in(&a).unwrap();
    let mut at_b = Netlink::open_in(&b).unwrap();
    let index = at_a.link_index("l0").unwrap();
    at_a.set_down(index).unwrap();
    assert!(
        at_a.links()
            .unwrap()
            .iter()
            .any(|link| link.index == index && !link.up)
    );
    at_a.delete_link(index).unwrap();
    for netlink in [&mut at_a, &mut at_b] {
        let error = netlink.link_index("l0").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}

fn refusals_say_what_was_wanted() {
    let mut netlink = Netlink::open().unwrap();
    let address = "198.51.100.1/32".parse().unwrap();
    let text = netlink.add_address(4711, address).unwrap_err().to_string();
    assert!(
        text.contains("198.51.100.1/32") && text.contains("4711"),
        "{text}"
    );
    let long = "a-name-of-twenty-byte";
    assert!(netlink.add_veth((long, None), ("b", None)).is_err());
    // In a batch, the good is done, the bad is named.
    let mut batch = netlink.batch();
    batch.add_address(1, address).unwrap();
    batch
        .add_address(4711, "198.51.100.2/32".parse().unwrap())
        .unwrap();
    batch
        .add_address(1, "198.51.100.3/32".parse().unwrap())
        .unwrap();
    batch.add_address(1, address).unwrap();
    let text = batch.commit().unwrap_err().to_string();
    assert!(text.contains("198.51.100.2/32"), "{text}");
    let found = netlink.addresses(1).unwrap();
    assert!(found.contains(&address) && found.contains(&"198.51.100.3/32".parse().unwrap()));
}

fn hear(monitor: &mut AddressMonitor, heard: &mut Vec<AddressEvent>) {
    while readable(&*monitor, 200) {
        heard.extend(monitor.recv().unwrap());
    }
}

fn monitor_hears_changes() {
    let mut monitor = AddressMonitor::open().unwrap();
    assert_eq!(monitor.recv().unwrap(), None);
    let mut netlink = Netlink::open().unwrap();
    let address = "2001:db8::53/128".parse().unwrap();
    let mut heard = Vec::new();
    // One after the other: the kernel tells of a new IPv6 address a little later, and not if that is gone by then.
    netlink.add_address(1, address).unwrap();
    hear(&mut monitor, &mut heard);
    netlink.delete_address(1, address).unwrap();
    netlink.add_veth(("va", None), ("vb", None)).unwrap();
    hear(&mut monitor, &mut heard);
    for added in [true, false] {
        let event = AddressEvent::Address {
            added,
            index: 1,
            address,
        };
        assert!(heard.contains(&event), "{heard:?}");
    }
    let is_new_link = |event: &AddressEvent| matches!(event, AddressEvent::Link { link, deleted: false } if link.name == "va");
    assert!(heard.iter().any(is_new_link), "{heard:?}");
    // More events than the buffer holds: told, not hidden.
    let mut overrun = false;
    for _ in 0..40 {
        let mut batch = netlink.batch();
        for number in 0..1000u32 {
            let address = IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + number));
            batch.add_address(1, ipnet::IpNet::from(address)).unwrap();
        }
        batch.commit().unwrap();
        for number in 0..1000u32 {
            let address = IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + number));
            netlink
                .delete_address(1, ipnet::IpNet::from(address))
                .unwrap();
        }
        if readable(&monitor, 0) && monitor.recv().unwrap() == Some(AddressEvent::Overrun) {
            overrun = true;
            break;
        }
    }
    assert!(overrun);
}

fn set_all_up(netlink: &mut Netlink) -> Vec<Link> {
    let links = netlink.links().unwrap();
    let mut batch = netlink.batch();
    for link in &links {
        batch.set_up(link.index).unwrap();
    }
    batch.commit().unwrap();
    links
}

fn two_hundred_links_at_once() {
    const LINKS: usize = 200;
    let wire = namespace("wire");
    let sites: Vec<_> = (0..20)
        .map(|number| namespace(&format!("as{number}")))
        .collect();
    let start = Instant::now();
    let mut netlink = Netlink::open().unwrap();
    let names: Vec<_> = (0..LINKS)
        .map(|link| (format!("w{link}"), format!("l{link}")))
        .collect();
    let mut batch = netlink.batch();
    for (link, (wire_end, site_end)) in names.iter().enumerate() {
        let site = &sites[link % sites.len()];
        batch
            .add_veth((wire_end, Some(&wire)), (site_end, Some(site)))
            .unwrap();
    }
    batch.commit().unwrap();
    let linked = start.elapsed();
    set_all_up(&mut Netlink::open_in(&wire).unwrap());
    for (number, site) in sites.iter().enumerate() {
        let mut netlink = Netlink::open_in(site).unwrap();
        let links = set_all_up(&mut netlink);
        let mut batch = netlink.batch();
        for link in links
            .iter()
            .filter(|link| link.name.starts_with('l') && link.index > 1)
        {
            let Ok(n) = link.name[1..].parse::<u8>() else {
                continue;
            };
            for address in [format!("10.0.{n}.0/31"), format!("fd00:{n:x}::/127")] {
                batch
                    .add_address(link.index, address.parse().unwrap())
                    .unwrap();
            }
            let gateway = Some(IpAddr::from([10, 0, n, 1]));
            let destination = format!("10.{}.{n}.0/24", number + 1);
            batch
                .replace_route(&Route {
                    gateway,
                    ..route(&destination)
                })
                .unwrap();
        }
        batch.commit().unwrap();
    }
    eprintln!(
        "200 veth pairs: {linked:?}; with 400 addresses and 200 routes: {:?}",
        start.elapsed()
    );
    let up = Netlink::open_in(&wire).unwrap().links().unwrap();
    assert_eq!(up.iter().filter(|link| link.up).count(), LINKS + 1);
    let mut netlink = Netlink::open_in(&sites[7]).unwrap();
    let bgp = netlink.routes(Family::V4).unwrap();
    assert_eq!(
        bgp.iter()
            .filter(|route| route.protocol == RTPROT_BGP)
            .count(),
        10
    );
}

fn tcp_socket(family: AddressFamily) -> std::os::fd::OwnedFd {
    rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
}

/// Connects from namespace `a` with what `prepare` does to the socket before.
fn connect(
    a: &NetNs,
    to: SocketAddr,
    prepare: impl FnOnce(&std::os::fd::OwnedFd) + Send,
) -> Option<TcpStream> {
    a.run(|| {
        let family = if to.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let socket = tcp_socket(family);
        prepare(&socket);
        let timeout = Duration::from_millis(300);
        tcp::set_user_timeout(socket.as_fd(), timeout).unwrap();
        rustix::io::ioctl_fionbio(&socket, true).unwrap();
        let started = rustix::net::connect(&socket, &to);
        assert_eq!(started, Err(rustix::io::Errno::INPROGRESS));
        let mut writable = [PollFd::new(&socket, PollFlags::OUT)];
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: 400_000_000,
        };
        let ready = poll(&mut writable, Some(&wait)).unwrap() > 0;
        let connected = ready && rustix::net::sockopt::socket_error(&socket).unwrap().is_ok();
        rustix::io::ioctl_fionbio(&socket, false).unwrap();
        connected.then(|| TcpStream::from(socket))
    })
    .unwrap()
}

fn md5_lets_only_the_key_in() {
    let (a, b) = pair();
    for (listen, peer) in [("10.0.0.1:179", "10.0.0.0"), ("[fd00::1]:179", "fd00::")] {
        let peer: IpAddr = peer.parse().unwrap();
        let listener = b.run(|| TcpListener::bind(listen).unwrap()).unwrap();
        tcp::set_md5(listener.as_fd(), peer, b"right").unwrap();
        let to = listener.local_addr().unwrap();
        let with = |key: &'static [u8]| {
            connect(&a, to, |socket| {
                tcp::set_md5(socket.as_fd(), to.ip(), key).unwrap()
            })
        };
        assert!(with(b"wrong").is_none());
        assert!(connect(&a, to, |_| {}).is_none());
        let mut stream = with(b"right").unwrap();
        let (mut accepted, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), peer);
        stream.write_all(b"open").unwrap();
        let mut bytes = [0; 4];
        accepted.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"open");
        // Without the key on the listener, anyone may call again.
        tcp::set_md5(listener.as_fd(), peer, b"").unwrap();
        tcp::set_md5(listener.as_fd(), peer, b"").unwrap();
        assert!(connect(&a, to, |_| {}).is_some());
    }
    let socket = tcp_socket(AddressFamily::INET);
    let too_long = tcp::set_md5(socket.as_fd(), "10.0.0.0".parse().unwrap(), &[7; 81]);
    assert_eq!(too_long.unwrap_err().kind(), ErrorKind::InvalidInput);
    // One IPv6 listener for both families.
    let listener = b.run(|| TcpListener::bind("[::]:1179").unwrap()).unwrap();
    tcp::set_md5(listener.as_fd(), "10.0.0.0".parse().unwrap(), b"right").unwrap();
    let to: SocketAddr = "10.0.0.1:1179".parse().unwrap();
    assert!(connect(&a, to, |_| {}).is_none());
    assert!(
        connect(&a, to, |socket| tcp::set_md5(
            socket.as_fd(),
            to.ip(),
            b"right"
        )
        .unwrap())
        .is_some()
    );
}

fn gtsm_drops_distant_senders() {
    let (a, b) = pair();
    for address in ["10.0.0.1:179", "[fd00::1]:179"] {
        let listener = b.run(|| TcpListener::bind(address).unwrap()).unwrap();
        tcp::set_min_ttl(listener.as_fd(), 255).unwrap();
        tcp::set_ttl(listener.as_fd(), 255).unwrap();
        let to = listener.local_addr().unwrap();
        assert!(connect(&a, to, |_| {}).is_none());
        assert!(connect(&a, to, |socket| tcp::set_ttl(socket.as_fd(), 255).unwrap()).is_some());
        // Both also where the other options of a session are set.
        let all = connect(&a, to, |socket| {
            tcp::set_ttl(socket.as_fd(), 255).unwrap();
            tcp::set_min_ttl(socket.as_fd(), 255).unwrap();
            tcp::set_priority_cs6(socket.as_fd()).unwrap();
            tcp::set_nodelay(socket.as_fd()).unwrap();
        });
        assert!(all.unwrap().nodelay().unwrap());
    }
    let absent: SocketAddr = "192.0.2.1:0".parse().unwrap();
    let socket = tcp_socket(AddressFamily::INET);
    assert!(rustix::net::bind(&socket, &absent).is_err());
    tcp::set_freebind(socket.as_fd()).unwrap();
    rustix::net::bind(&socket, &absent).unwrap();
    tcp::set_freebind(tcp_socket(AddressFamily::INET6).as_fd()).unwrap();
}

fn unacknowledged_bytes_go_to_zero() {
    let (a, b) = pair();
    let listener = b
        .run(|| TcpListener::bind("10.0.0.1:179").unwrap())
        .unwrap();
    let mut stream = connect(&a, listener.local_addr().unwrap(), |_| {}).unwrap();
    let wait_for_zero = |stream: &TcpStream| {
        let start = Instant::now();
        while tcp::unacknowledged(stream.as_fd()).unwrap() > 0 {
            assert!(start.elapsed() < Duration::from_secs(5));
            std::thread::yield_now();
        }
    };
    stream.write_all(&[1; 1000]).unwrap();
    wait_for_zero(&stream);
    // With the link down nothing is acknowledged.
    let mut at_b = Netlink::open_in(&b).unwrap();
    let index = at_b.link_index("l0").unwrap();
    at_b.set_down(index).unwrap();
    stream.write_all(&[1; 777]).unwrap();
    assert_eq!(tcp::unacknowledged(stream.as_fd()).unwrap(), 777);
}

/// A frame to everyone, with an EtherType for experiments.
fn frame(number: u32) -> Vec<u8> {
    let mut frame = vec![0xff; 12];
    frame.extend([0x88, 0xb5]);
    frame.extend(number.to_be_bytes());
    frame.resize(1514, number as u8);
    frame
}

fn frames_pass_in_batches() {
    const FRAMES: u32 = 10_000;
    let (a, b) = pair();
    let sender = PacketSocket::open_in(&a, "l0").unwrap();
    let receiver = PacketSocket::open_in(&b, "l0").unwrap();
    let mut batch = Batch::new(64, 2048);
    let frames: Vec<_> = (0..FRAMES).map(frame).collect();
    let all: Vec<_> = frames.iter().map(Vec::as_slice).collect();
    let mut next = 0;
    let mut rest = &all[..];
    let mut taken = 0;
    let start = Instant::now();
    while next < FRAMES {
        if !rest.is_empty() {
            let sent = sender.send_batch(&rest[..rest.len().min(64)]).unwrap();
            rest = &rest[sent..];
        }
        assert!(readable(&receiver, 1000));
        // All of it: an ordinary user's socket holds less than 200 frames.
        while let Ok(count) = receiver.recv_batch(&mut batch, |bytes| {
            if bytes[12..14] == [0x88, 0xb5] {
                assert_eq!(bytes, frames[next as usize]);
                next += 1;
            }
        }) {
            taken += count;
        }
    }
    eprintln!("{FRAMES} frames in {:?}", start.elapsed());
    assert!(taken >= FRAMES as usize);
    assert_eq!(batch.truncated(), 0);
    // Nothing of what was sent is heard by the sender itself.
    let mut own = 0;
    while let Ok(_count) = sender.recv_batch(&mut batch, |bytes| {
        own += u32::from(bytes[12..14] == [0x88, 0xb5])
    }) {}
    assert_eq!(own, 0);
    // Too long for the buffers: counted, not shown.
    let mut small = Batch::new(4, 100);
    sender.send_batch(&[&frames[1]]).unwrap();
    assert!(readable(&receiver, 1000));
    receiver
        .recv_batch(&mut small, |_| panic!("shown"))
        .unwrap();
    assert_eq!(small.truncated(), 1);
    let empty = receiver.recv_batch(&mut small, |_| {});
    assert_eq!(empty.unwrap_err().kind(), ErrorKind::WouldBlock);
}

fn frames_are_whole_without_offloads() {
    let (a, b) = pair();
    a.run(|| packet::disable_offloads("l0")).unwrap().unwrap();
    assert!(packet::disable_offloads("nothing").is_err());
    let wire = PacketSocket::open_in(&b, "l0").unwrap();
    let listener = b
        .run(|| TcpListener::bind("10.0.0.1:5000").unwrap())
        .unwrap();
    let mut stream = connect(&a, listener.local_addr().unwrap(), |_| {}).unwrap();
    stream.write_all(&[5; 100_000]).unwrap();
    let mut batch = Batch::new(64, 2048);
    let mut segments = 0;
    while readable(&wire, 200) {
        wire.recv_batch(&mut batch, |frame| {
            if frame[12..14] == [8, 0] && frame[14 + 9] == 6 {
                assert_eq!(tcp_checksum(&frame[14..]), 0xffff);
                segments += 1;
            }
        })
        .unwrap();
    }
    assert_eq!(batch.truncated(), 0);
    assert!(segments > 60, "{segments}");
}

/// Over the pseudo header and the segment, its checksum included: 0xffff when right (RFC 9293 §3.1).
fn tcp_checksum(packet: &[u8]) -> u16 {
    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    let segment = &packet[20..total];
    let mut sum = 6 + segment.len() as u32;
    for pair in packet[12..20].chunks(2).chain(segment.chunks(2)) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn datagrams_carry_timestamps() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let receiver = UdpSocket::bind(address).unwrap();
        let sender = UdpSocket::bind(address).unwrap();
        let to = receiver.local_addr().unwrap();
        let mut batch = udp::UdpBatch::new(8, 16);
        let empty = udp::recv_batch(receiver.as_fd(), &mut batch, |_| {});
        assert_eq!(empty.unwrap_err().kind(), ErrorKind::WouldBlock);
        sender.send_to(b"before", to).unwrap();
        let without = udp::recv_batch(receiver.as_fd(), &mut batch, |received| {
            assert_eq!(received.timestamp_ns, None);
        });
        assert_eq!(without.unwrap(), 1);
        udp::enable_timestamps(receiver.as_fd()).unwrap();
        // The kernel's stamping is switched on with a delay: wait until it works.
        while {
            sender.send_to(b"warm", to).unwrap();
            let mut stamped = false;
            udp::recv_batch(receiver.as_fd(), &mut batch, |received| {
                stamped = received.timestamp_ns.is_some()
            })
            .unwrap();
            !stamped
        } {}
        let before = clock::realtime_ns();
        for _ in 0..8 {
            sender.send_to(b"a query longer than 16 bytes", to).unwrap();
        }
        let after = clock::realtime_ns();
        let mut last = before;
        let count = udp::recv_batch(receiver.as_fd(), &mut batch, |received| {
            assert_eq!(received.from, sender.local_addr().unwrap());
            assert_eq!(
                (received.bytes, received.truncated),
                (&b"a query longer t"[..], true)
            );
            let time = received.timestamp_ns.unwrap();
            assert!(last <= time && time <= after);
            last = time;
        });
        assert_eq!(count.unwrap(), 8);
    }
}
