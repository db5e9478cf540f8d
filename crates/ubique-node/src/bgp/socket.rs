//! Sockets of a speaker: where they are opened and how they are tuned.

use std::fmt;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use ubique_model::{Family, Prefix};
use ubique_sys::netns::NetNs;
use ubique_sys::tcp::{self, AoAlgorithm, AoKey};

/// The port of BGP (RFC 4271 §8.2.1).
pub const BGP_PORT: u16 = 179;

/// Connections the kernel keeps for us before they are accepted.
const BACKLOG: i32 = 128;

/// Longest key in the kernel, octets.
const SECRET_MAX: usize = tcp::MD5_KEY_BYTES_MAX;
const _: () = assert!(SECRET_MAX == tcp::AO_KEY_BYTES_MAX);

/// A network namespace to open sockets in, and the one to come back to.
#[derive(Debug)]
pub struct Place {
    inside: NetNs,
    home: Rc<NetNs>,
}

impl Place {
    /// The namespace at `path` (a bind mount, as `ip netns` makes them); `home` is the one of the driving thread.
    pub fn open(path: &Path, home: Rc<NetNs>) -> io::Result<Place> {
        Ok(Place { inside: NetNs::open(path)?, home })
    }

    /// The namespace itself.
    pub fn namespace(&self) -> &NetNs {
        &self.inside
    }

    /// Runs `f` on this thread inside the namespace. A socket stays in the namespace it was opened in, so
    /// only its creation has to happen here.
    fn enter<T>(&self, f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.inside.enter()?;
        let value = f();
        // Going on in the wrong namespace would open sockets of other routers there: no state to continue from.
        self.home.enter().expect("the thread came from this namespace and had the right to leave it");
        value
    }
}

/// A key of TCP MD5 or TCP-AO. Its value is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the password file {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It has nothing on its first line.
    #[error("the password file {} is empty", .0.display())]
    Empty(PathBuf),
    /// It is longer than the kernel takes.
    #[error("the password in {} is longer than {SECRET_MAX} octets", .0.display())]
    TooLong(PathBuf),
}

impl Secret {
    /// The first line of a file, without its end of line.
    pub fn read(path: &Path) -> Result<Secret, SecretError> {
        let mut text = Vec::new();
        // Two octets more than the longest key: its end of line, or one octet too many.
        std::fs::File::open(path)
            .and_then(|file| file.take(SECRET_MAX as u64 + 2).read_to_end(&mut text))
            .map_err(|source| SecretError::Read { path: path.to_owned(), source })?;
        let line = text.split(|&b| b == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match line.len() {
            0 => Err(SecretError::Empty(path.to_owned())),
            n if n > SECRET_MAX => Err(SecretError::TooLong(path.to_owned())),
            _ => Ok(Secret(line.to_vec())),
        }
    }
}

/// How the segments of a neighbour are authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// TCP MD5 (RFC 2385).
    Md5(Secret),
    /// TCP-AO (RFC 5925).
    Ao {
        /// The master key.
        secret: Secret,
        /// KeyID of what we send.
        send_id: u8,
        /// KeyID of what we receive.
        receive_id: u8,
        /// How.
        algorithm: AoAlgorithm,
    },
}

impl Key {
    fn set(&self, fd: BorrowedFd<'_>, peers: Prefix) -> io::Result<()> {
        match self {
            Key::Md5(secret) => tcp::set_md5(fd, peers, &secret.0),
            Key::Ao { secret, send_id, receive_id, algorithm } => {
                let (send_id, receive_id, algorithm) = (*send_id, *receive_id, *algorithm);
                tcp::set_ao(fd, peers, AoKey { send_id, receive_id, algorithm, secret: &secret.0 })
            }
        }
    }
}

/// The transport side of one neighbour.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its address.
    pub remote: IpAddr,
    /// Its port.
    pub port: u16,
    /// Our address, when it is fixed; otherwise the kernel's route decides.
    pub local: Option<IpAddr>,
    /// Interface its connections are bound to; a link-local address needs one.
    pub interface: Option<String>,
    /// TTL or hop limit of our packets: 1 for an external neighbour on a common link.
    pub ttl: u8,
    /// Packets that arrive with less are dropped (GTSM, RFC 5082); 0: none are.
    pub min_ttl: u8,
    /// How its segments are authenticated.
    pub key: Option<Key>,
    /// How long sent bytes may stay unacknowledged before the kernel gives the connection up; zero: its default.
    pub user_timeout: Duration,
}

impl Endpoint {
    /// An external neighbour on a common link, without anything optional.
    pub fn new(remote: IpAddr) -> Endpoint {
        Endpoint {
            remote,
            port: BGP_PORT,
            local: None,
            interface: None,
            ttl: 1,
            min_ttl: 0,
            key: None,
            user_timeout: Duration::ZERO,
        }
    }

    pub(super) fn family(&self) -> Family {
        Family::of_address(self.remote)
    }
}

fn open(place: Option<&Place>, family: Family) -> io::Result<Socket> {
    let domain = match family {
        Family::Ipv4 => Domain::IPV4,
        Family::Ipv6 => Domain::IPV6,
    };
    let create = || Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP));
    match place {
        Some(place) => place.enter(create),
        None => create(),
    }
}

/// A listener for one family, on one interface or on all.
pub(super) type Listener = TcpListener;

/// What a listener is made of.
pub(super) struct ListenerSpec<'c> {
    pub(super) family: Family,
    pub(super) interface: Option<&'c str>,
    pub(super) port: u16,
    /// Others listen on the same port, on other interfaces.
    pub(super) shared: bool,
    /// Who may call here, with their keys.
    pub(super) callers: Vec<(Prefix, &'c Endpoint)>,
}

/// Opens a listener with the keys of all who may call.
pub(super) fn listen(place: Option<&Place>, spec: &ListenerSpec<'_>) -> io::Result<Listener> {
    let socket = open(place, spec.family)?;
    socket.set_reuse_address(true)?;
    let any: IpAddr = match spec.family {
        Family::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::Ipv6 => {
            socket.set_only_v6(true)?;
            Ipv6Addr::UNSPECIFIED.into()
        }
    };
    if spec.shared {
        tcp::set_reuse_port(socket.as_fd())?;
    }
    if let Some(interface) = spec.interface {
        tcp::bind_to_interface(socket.as_fd(), interface)?;
    }
    for (peers, endpoint) in &spec.callers {
        if let Some(key) = &endpoint.key {
            let named = |e: io::Error| io::Error::new(e.kind(), format!("the key of {peers}: {e}"));
            key.set(socket.as_fd(), *peers).map_err(named)?;
        }
    }
    // A neighbour with GTSM drops an answer to its SYN that has less than the full TTL. Connections inherit what the
    // listener demands, so that with GTSM on all of them not even a SYN from far away is looked at.
    if spec.callers.iter().any(|(_, e)| e.min_ttl > 0) {
        tcp::set_ttl(socket.as_fd(), u8::MAX)?;
        tcp::set_min_ttl(socket.as_fd(), spec.callers.iter().map(|(_, e)| e.min_ttl).min().unwrap_or(0))?;
    }
    tcp::set_priority_cs6(socket.as_fd())?;
    socket.bind(&SocketAddr::new(any, spec.port).into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A socket that is ready to connect to the neighbour.
pub(super) fn connector(place: Option<&Place>, endpoint: &Endpoint) -> io::Result<TcpSocket> {
    let socket = open(place, endpoint.family())?;
    if let Some(interface) = &endpoint.interface {
        tcp::bind_to_interface(socket.as_fd(), interface)?;
    }
    if let Some(key) = &endpoint.key {
        key.set(socket.as_fd(), endpoint.remote.into())?;
    }
    tcp::set_priority_cs6(socket.as_fd())?;
    guard(socket.as_fd(), endpoint)?;
    if let Some(local) = endpoint.local {
        socket.bind(&SocketAddr::new(local, 0).into())?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}

/// How far packets go and come.
fn guard(fd: BorrowedFd<'_>, endpoint: &Endpoint) -> io::Result<()> {
    tcp::set_ttl(fd, endpoint.ttl)?;
    tcp::set_min_ttl(fd, endpoint.min_ttl)
}

/// Options of a connection, whoever opened it.
pub(super) fn tune(stream: &TcpStream, endpoint: &Endpoint) -> io::Result<()> {
    guard(stream.as_fd(), endpoint)?;
    stream.set_nodelay(true)?;
    tcp::set_priority_cs6(stream.as_fd())?;
    if !endpoint.user_timeout.is_zero() {
        tcp::set_user_timeout(stream.as_fd(), endpoint.user_timeout)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> (PathBuf, impl Drop) {
        struct Remove(PathBuf);
        impl Drop for Remove {
            fn drop(&mut self) {
                let _ = std::fs::remove_file(&self.0);
            }
        }
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ubique-secret-{}-{n}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        (path.clone(), Remove(path))
    }

    #[test]
    fn a_secret_is_the_first_line_and_is_never_printed() {
        let (path, _remove) = file(b"s3cret\r\nsecond line\n");
        let secret = Secret::read(&path).unwrap();
        assert_eq!(secret, Secret(b"s3cret".to_vec()));
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }

    #[test]
    fn secrets_the_kernel_would_refuse_are_refused_here() {
        let (path, _remove) = file(b"\n");
        assert!(matches!(Secret::read(&path), Err(SecretError::Empty(_))));
        let (path, _remove) = file(&[b'x'; SECRET_MAX]);
        assert_eq!(Secret::read(&path).unwrap().0.len(), SECRET_MAX);
        let (path, _remove) = file(&[b'x'; SECRET_MAX + 1]);
        assert!(matches!(Secret::read(&path), Err(SecretError::TooLong(_))));
        assert!(matches!(Secret::read(Path::new("/nonexistent/key")), Err(SecretError::Read { .. })));
    }
}
