//! Collecting facts. Reads, asks, and connects to upstreams that no agent talks to; changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::Access;
use ubique_model::service::{Service, Site, Upstream};
use ubique_sys::netlink::Netlink;
use ubique_sys::privilege::{self, Capabilities};
use ubique_sys::{clock, process, tcp, udp};

use super::facts::{
    AgentFacts, ClockFacts, Connection, DataPlaneFacts, Directory, Facts, FirewallFacts, Interface, Lookup, PathFacts,
    TableUse,
};
use crate::admin::{self, Reply, Request};
use crate::sessions;

/// How long an upstream has to answer a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// How long `nft` may take, and the most it may say.
const NFT: Duration = Duration::from_secs(10);
const NFT_BYTES: u64 = 64 << 20;

/// Longest file of `/proc` that is read, octets.
const PROC_BYTES: u64 = 1 << 20;

/// Settings that do not belong to an interface.
const SYSCTLS: &[&str] = &[
    "kernel/osrelease",
    "net/core/rmem_max",
    "net/core/somaxconn",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/fib_multipath_hash_policy",
    "net/ipv4/neigh/default/gc_thresh3",
    "net/ipv4/tcp_l3mdev_accept",
    "net/ipv4/tcp_mtu_probing",
    "net/ipv4/tcp_timestamps",
    "net/ipv4/udp_l3mdev_accept",
    "net/ipv6/conf/all/disable_ipv6",
    "net/ipv6/conf/lo/disable_ipv6",
    "net/ipv6/fib_multipath_hash_policy",
];

/// Everything that can be known. `socket`: the agent's admin socket, instead of the service file's.
pub fn gather(subject: Option<(&Service, &Site)>, socket: Option<&Path>) -> Facts {
    let interfaces = interfaces();
    let agent = subject.map(|(service, site)| agent(&admin_socket(service, site, socket)));
    let talks = matches!(agent, Some(Ok(_)));
    let clock = clock::discipline().ok().map(|clock| ClockFacts {
        synchronised: clock.synchronised,
        error_max_ms: u64::try_from(clock.error_max.as_millis()).unwrap_or(u64::MAX),
    });
    Facts {
        sysctls: sysctls(interfaces.keys()),
        counters: counters(),
        root: privilege::is_root(),
        capabilities: privilege::effective().ok(),
        clock,
        loopback: loopback().ok(),
        paths: subject.map(|(_, site)| paths(site, talks)).unwrap_or_default(),
        firewall: firewall(),
        conntrack: conntrack(),
        neighbours: read("/proc/net/arp").map(|text| text.lines().count().saturating_sub(1) as u64),
        directories: subject.map(|(service, site)| directories(service, site, socket)).unwrap_or_default(),
        systemd: Path::new("/run/systemd/system").is_dir(),
        has_md5: tcp::has_md5().ok(),
        data_plane: subject.and_then(|(service, site)| data_plane(service, site)),
        interfaces,
        agent,
    }
}

fn admin_socket(service: &Service, site: &Site, socket: Option<&Path>) -> PathBuf {
    let usual = || admin::socket_path(&service.agent.socket, &service.name, &site.name);
    socket.map_or_else(usual, Path::to_owned)
}

/// A file of `/proc`, when it is there and text.
fn read(path: impl AsRef<Path>) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(PROC_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

fn sysctls<'a>(interfaces: impl Iterator<Item = &'a String>) -> BTreeMap<String, String> {
    let own = interfaces.map(|name| format!("net/ipv4/conf/{name}/rp_filter"));
    let all = SYSCTLS.iter().map(|&key| key.to_owned()).chain(own);
    all.filter_map(|key| Some((key.clone(), read(format!("/proc/sys/{key}"))?.trim().to_owned()))).collect()
}

/// `/proc/net/netstat` and `/proc/net/snmp` (pairs of lines), `/proc/net/snmp6` (a line each).
fn counters() -> BTreeMap<String, u64> {
    let mut counters = BTreeMap::new();
    for file in ["/proc/net/netstat", "/proc/net/snmp"] {
        let text = read(file).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.chunks_exact(2) {
            let (Some((group, names)), Some((_, values))) = (pair[0].split_once(": "), pair[1].split_once(": ")) else {
                continue;
            };
            for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
                if let Ok(value) = value.parse() {
                    counters.insert(format!("{group}.{name}"), value);
                }
            }
        }
    }
    for line in read("/proc/net/snmp6").unwrap_or_default().lines() {
        if let Some((name, value)) = line.split_once(char::is_whitespace)
            && let (Some(name), Ok(value)) = (name.strip_prefix("Udp6"), value.trim().parse())
        {
            counters.insert(format!("Udp6.{name}"), value);
        }
    }
    counters
}

fn interfaces() -> BTreeMap<String, Interface> {
    let links = Netlink::open().and_then(|mut netlink| netlink.links()).unwrap_or_default();
    links.into_iter().map(|l| (l.name, Interface { up: l.up, mtu: l.mtu, in_vrf: l.in_vrf })).collect()
}

fn loopback() -> io::Result<Vec<IpAddr>> {
    let mut netlink = Netlink::open()?;
    let index = netlink.link_index("lo")?;
    Ok(netlink.addresses(index)?.into_iter().map(|net| net.addr()).collect())
}

fn paths(site: &Site, talks: bool) -> BTreeMap<IpAddr, PathFacts> {
    let mut netlink = Netlink::open().ok();
    let addresses = netlink.as_mut().and_then(|n| n.all_addresses().ok()).unwrap_or_default();
    let links = netlink.as_mut().and_then(|n| n.links().ok()).unwrap_or_default();
    let name = |index: u32| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
    let one = |upstream: &Upstream| {
        let mut path = PathFacts { interface: upstream.interface.clone(), ..PathFacts::default() };
        let scoped = matches!(upstream.address, IpAddr::V6(address) if address.is_unicast_link_local());
        if !scoped {
            match way(upstream) {
                Ok((source, mtu)) => {
                    path.mtu = mtu;
                    let own = addresses.iter().find(|(_, net)| net.addr() == source).map(|(index, _)| *index);
                    path.interface = path.interface.or_else(|| own.and_then(name));
                }
                Err(error) => path.unreachable = Some(error.to_string()),
            }
            let keyed = upstream.password_file.is_some() || upstream.tcp_ao.is_some();
            // A connection that is closed at once would set back a neighbour that an agent talks to.
            if !talks && !keyed && !upstream.passive && path.unreachable.is_none() {
                path.connection = Some(connect(upstream));
            }
        }
        (upstream.address, path)
    };
    site.upstreams.iter().map(one).collect()
}

/// `None`: no `[sessions]`.
fn data_plane(service: &Service, site: &Site) -> Option<DataPlaneFacts> {
    let settings = service.sessions.as_ref()?;
    let way = |other: &Site| {
        let family = site.unicast.common(&other.unicast)?;
        let (own, remote) = (site.unicast.address(family)?, other.unicast.address(family)?);
        let found = path_from(own, SocketAddr::new(remote, settings.port));
        let way = match found {
            Ok((_, mtu)) => PathFacts { mtu, ..PathFacts::default() },
            Err(error) => PathFacts { unreachable: Some(error.to_string()), ..PathFacts::default() },
        };
        Some((other.name.clone(), way))
    };
    let links = Netlink::open().and_then(|mut netlink| netlink.links()).unwrap_or_default();
    let used = |name: &String| settings.interfaces.is_empty() || settings.interfaces.contains(name);
    let foreign = links.into_iter().filter(|link| used(&link.name)).filter_map(|link| {
        let program = ubique_edge::attached(link.index).ok().filter(|program| *program != 0)?;
        (ubique_edge::is_ours(program) == Some(false)).then_some((link.name, program))
    });
    Some(DataPlaneFacts {
        built: sessions::is_built(),
        secret: sessions::keys::Secret::read(&settings.secret_file).map(|_| ()).map_err(|error| error.to_string()),
        sites: service.sites.iter().filter(|other| other.name != site.name).filter_map(way).collect(),
        foreign: foreign.collect(),
    })
}

/// Where packets to an upstream leave, and how long they may be. Sends nothing.
fn way(upstream: &Upstream) -> io::Result<(IpAddr, Option<u32>)> {
    let any: IpAddr = match upstream.address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    path_from(upstream.local_address.unwrap_or(any), SocketAddr::new(upstream.address, upstream.port))
}

fn path_from(own: IpAddr, remote: SocketAddr) -> io::Result<(IpAddr, Option<u32>)> {
    let socket = UdpSocket::bind((own, 0))?;
    socket.connect(remote)?;
    Ok((socket.local_addr()?.ip(), udp::path_mtu(socket.as_fd(), remote).ok()))
}

fn connect(upstream: &Upstream) -> Connection {
    match TcpStream::connect_timeout(&SocketAddr::new(upstream.address, upstream.port), CONNECT) {
        Ok(_) => Connection::Accepted,
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => Connection::Refused,
            io::ErrorKind::TimedOut => Connection::Silent,
            _ => Connection::Failed(error.to_string()),
        },
    }
}

fn agent(socket: &Path) -> Lookup<AgentFacts> {
    let status = match admin::request(socket, &Request::Status) {
        Ok(Reply::Status(status)) => *status,
        Ok(_) => return Err("it answers another question".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    // The process at the other end of its socket.
    let stream = UnixStream::connect(socket).map_err(|error| error.to_string())?;
    let pid = rustix::net::sockopt::socket_peercred(&stream).ok().map(|who| who.pid.as_raw_nonzero().get());
    let file = |name: &str| pid.and_then(|pid| read(format!("/proc/{pid}/{name}")));
    let own = file("status").unwrap_or_default();
    let capabilities = own.lines().find_map(|line| line.strip_prefix("CapEff:")).and_then(Capabilities::parse);
    let watchdog = file("environ").map(|all| all.split('\0').any(|one| one.starts_with("WATCHDOG_USEC=")));
    let group = file("cgroup").unwrap_or_default();
    let unit = group.lines().filter_map(|line| line.rsplit('/').next()).find(|name| name.ends_with(".service"));
    Ok(AgentFacts { status, capabilities, watchdog, unit: unit.map(str::to_owned) })
}

fn conntrack() -> Option<TableUse> {
    let number = |name: &str| read(format!("/proc/sys/net/netfilter/{name}"))?.trim().parse().ok();
    Some(TableUse { used: number("nf_conntrack_count")?, limit: number("nf_conntrack_max")? })
}

/// What `nft` says. Its words are bounded in length and time: a ruleset may hold a million addresses.
fn firewall() -> FirewallFacts {
    let started = process::command_in(Path::new("nft"), None)
        .args(["-j", "list", "ruleset"])
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return FirewallFacts::Unknown("nft is not installed (apt install nftables)".to_owned());
        }
        Err(error) => return FirewallFacts::Unknown(format!("nft: {error}")),
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reader = std::thread::spawn(move || {
        let (mut said, mut wrong) = (Vec::new(), String::new());
        let complete = stdout.is_some_and(|pipe| pipe.take(NFT_BYTES).read_to_end(&mut said).is_ok());
        let _ = stderr.map(|pipe| pipe.take(PROC_BYTES).read_to_string(&mut wrong));
        (complete, said, wrong)
    });
    let begin = Instant::now();
    while !reader.is_finished() && begin.elapsed() < NFT {
        std::thread::sleep(Duration::from_millis(5));
    }
    if !reader.is_finished() {
        let _ = child.kill();
    }
    let status = child.wait();
    let Ok((true, said, wrong)) = reader.join() else {
        return FirewallFacts::Unknown("nft could not be read".to_owned());
    };
    match (status, serde_json::from_slice(&said)) {
        (Ok(status), Ok(rules)) if status.success() => FirewallFacts::Rules(rules),
        (Ok(status), _) => {
            let first = wrong.lines().next().unwrap_or_default();
            FirewallFacts::Unknown(format!("nft ended with {status} {first}; it needs CAP_NET_ADMIN"))
        }
        (Err(error), _) => FirewallFacts::Unknown(format!("nft: {error}")),
    }
}

/// Where the agent writes, as far as the service file says.
fn directories(service: &Service, site: &Site, socket: Option<&Path>) -> Vec<Directory> {
    let place = |template: &Path| admin::socket_path(template, &service.name, &site.name);
    let records = &service.agent.records;
    let mut files = vec![("the admin socket", admin_socket(service, site, socket))];
    files.extend(records.journal.as_ref().map(|journal| ("the journal", place(&journal.file.path))));
    files.extend(records.mrt.as_ref().map(|mrt| ("MRT files", place(&mrt.path))));
    files.into_iter().filter_map(|(purpose, file)| Some(directory(file.parent()?, purpose))).collect()
}

fn directory(path: &Path, purpose: &'static str) -> Directory {
    // The agent makes the last one itself.
    let there = path.ancestors().find(|directory| directory.exists()).unwrap_or(Path::new("/"));
    let near = there == path || path.parent() == Some(there);
    let writable = match rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) if near => Ok(()),
        Ok(()) => Err(format!("{} does not exist", path.display())),
        Err(error) => Err(io::Error::from(error).to_string()),
    };
    let space = rustix::fs::statvfs(there).ok().map(|vfs| (vfs.f_bavail * vfs.f_frsize, vfs.f_blocks * vfs.f_frsize));
    Directory { path: path.to_owned(), purpose, writable, space }
}
