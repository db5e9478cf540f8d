//! Sockets of a speaker: where they are opened and how they are tuned.

use std::fmt;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use ubique_model::Family;
use ubique_sys::netns::NetNs;
use ubique_sys::tcp;

/// The port of BGP (RFC 4271 §8.2.1).
pub const BGP_PORT: u16 = 179;

/// Connections the kernel keeps for us before they are accepted.
const BACKLOG: i32 = 128;

/// Longest key of TCP_MD5SIG in the kernel, octets.
const SECRET_MAX: usize = 80;

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

/// A TCP MD5 key (RFC 2385). Its value is never printed.
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

/// The transport side of one neighbour.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its address.
    pub remote: IpAddr,
    /// Its port.
    pub port: u16,
    /// Our address, when it is fixed; otherwise the kernel's route decides.
    pub local: Option<IpAddr>,
    /// TTL or hop limit of our packets: 1 for an external neighbour on a common link.
    pub ttl: u8,
    /// TCP MD5 key.
    pub secret: Option<Secret>,
    /// How long sent bytes may stay unacknowledged before the kernel gives the connection up; zero: its default.
    pub user_timeout: Duration,
}

impl Endpoint {
    fn family(&self) -> Family {
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

/// A listener on every address of one family, with the keys of all neighbours of that family.
pub(super) fn listen(
    place: Option<&Place>,
    family: Family,
    port: u16,
    endpoints: &[Endpoint],
) -> io::Result<TcpListener> {
    let socket = open(place, family)?;
    socket.set_reuse_address(true)?;
    let any: IpAddr = match family {
        Family::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::Ipv6 => {
            socket.set_only_v6(true)?;
            Ipv6Addr::UNSPECIFIED.into()
        }
    };
    for endpoint in endpoints.iter().filter(|e| e.family() == family) {
        if let Some(secret) = &endpoint.secret {
            tcp::set_md5(socket.as_fd(), endpoint.remote, &secret.0)?;
        }
    }
    tcp::set_priority_cs6(socket.as_fd())?;
    socket.bind(&SocketAddr::new(any, port).into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A socket that is ready to connect to the neighbour.
pub(super) fn connector(place: Option<&Place>, endpoint: &Endpoint) -> io::Result<TcpSocket> {
    let socket = open(place, endpoint.family())?;
    if let Some(secret) = &endpoint.secret {
        tcp::set_md5(socket.as_fd(), endpoint.remote, &secret.0)?;
    }
    tcp::set_priority_cs6(socket.as_fd())?;
    tcp::set_ttl(socket.as_fd(), endpoint.ttl)?;
    if let Some(local) = endpoint.local {
        socket.bind(&SocketAddr::new(local, 0).into())?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}

/// Options of a connection, whoever opened it.
pub(super) fn tune(stream: &TcpStream, endpoint: &Endpoint) -> io::Result<()> {
    stream.set_nodelay(true)?;
    tcp::set_priority_cs6(stream.as_fd())?;
    tcp::set_ttl(stream.as_fd(), endpoint.ttl)?;
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
