//! Authenticated segments: TCP MD5 (RFC 2385) and TCP-AO (RFC 5925).

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd};

use ipnet::IpNet;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::is_v6;
use crate::sockopt as raw;

/// Longest key of RFC 2385 signatures in Linux (`TCP_MD5SIG_MAXKEYLEN`).
pub const MD5_KEY_BYTES_MAX: usize = 80;

/// Longest key of TCP-AO in Linux (`TCP_AO_MAXKEYLEN`).
pub const AO_KEY_BYTES_MAX: usize = 80;

/// `TCP_MD5SIG_EXT`: TCP_MD5SIG with flags.
const TCP_MD5SIG_EXT: i32 = 32;

/// `TCP_MD5SIG_FLAG_PREFIX`: `prefix_length` counts.
const MD5_FLAG_PREFIX: u8 = 1;

/// `TCP_AO_ADD_KEY`, since Linux 6.7 with `CONFIG_TCP_AO`.
const TCP_AO_ADD_KEY: i32 = 38;

/// Octets of the message authentication code of both algorithms (RFC 5926 §3.1): 96 bits.
const MAC_BYTES: u8 = 12;

/// `struct __kernel_sockaddr_storage` with an address and no port.
fn storage(address: IpAddr) -> [u8; 128] {
    let mut bytes = [0; 128];
    match address {
        IpAddr::V4(v4) => {
            bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            bytes[4..8].copy_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            bytes[8..24].copy_from_slice(&v6.octets());
        }
    }
    bytes
}

/// `struct tcp_md5sig`.
#[repr(C)]
#[derive(Clone, Copy)]
struct TcpMd5Sig {
    address: [u8; 128],
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface: i32,
    key: [u8; MD5_KEY_BYTES_MAX],
}

const _: () = assert!(size_of::<TcpMd5Sig>() == 216);

// SAFETY: plain data without padding, as the size above shows.
unsafe impl raw::OptionValue for TcpMd5Sig {}

/// `struct tcp_ao_add`.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct TcpAoAdd {
    address: [u8; 128],
    algorithm: [u8; 64],
    interface: i32,
    /// Bit fields `set_current`, `set_rnext`, and 30 reserved ones.
    flags: u32,
    reserved: u16,
    prefix_length: u8,
    send_id: u8,
    receive_id: u8,
    mac_length: u8,
    key_flags: u8,
    key_length: u8,
    key: [u8; AO_KEY_BYTES_MAX],
}

const _: () = assert!(size_of::<TcpAoAdd>() == 288);

// SAFETY: plain data without padding: 128 + 64 + 4 + 4 + 2 + 6 + 80 octets are the size above.
unsafe impl raw::OptionValue for TcpAoAdd {}

fn room<'k, const N: usize>(into: &'k mut [u8; N], key: &[u8], what: &str) -> io::Result<&'k mut [u8]> {
    into.get_mut(..key.len()).ok_or_else(|| {
        let text = format!("{what} keys have at most {N} bytes, this one {}", key.len());
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

/// Signs and checks all segments to and from `peers` (RFC 2385): one address, or all of a prefix; the longest wins.
/// Before `connect`, or on the listener before the peer calls. An empty key takes the signature away. `InvalidInput` for
/// keys beyond [`MD5_KEY_BYTES_MAX`].
pub fn set_md5(fd: BorrowedFd<'_>, peers: IpNet, key: &[u8]) -> io::Result<()> {
    let (address, prefix_length) = on_socket(fd, peers)?;
    let mut request = TcpMd5Sig {
        address: storage(address),
        flags: MD5_FLAG_PREFIX,
        prefix_length,
        key_length: key.len() as u16,
        interface: 0,
        key: [0; MD5_KEY_BYTES_MAX],
    };
    room(&mut request.key, key, "TCP MD5")?.copy_from_slice(key);
    match raw::set(fd, libc::IPPROTO_TCP, TCP_MD5SIG_EXT, &request) {
        // Nothing to take away.
        Err(error) if key.is_empty() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

/// An IPv6 socket that also serves IPv4 knows its IPv4 peers by mapped addresses, with IPv4 lengths.
fn on_socket(fd: BorrowedFd<'_>, peers: IpNet) -> io::Result<(IpAddr, u8)> {
    let address = match (peers.network(), is_v6(fd)?) {
        (IpAddr::V4(v4), true) => v4.to_ipv6_mapped().into(),
        (address, _) => address,
    };
    Ok((address, peers.prefix_len()))
}

/// Algorithms of RFC 5926 §3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AoAlgorithm {
    /// HMAC-SHA-1-96.
    HmacSha1,
    /// AES-128-CMAC-96.
    AesCmac128,
}

impl AoAlgorithm {
    /// As the kernel calls it.
    fn name(self) -> &'static str {
        match self {
            AoAlgorithm::HmacSha1 => "hmac(sha1)",
            AoAlgorithm::AesCmac128 => "cmac(aes128)",
        }
    }
}

/// A master key tuple (RFC 5925 §3.1).
#[derive(Clone, Copy)]
pub struct AoKey<'k> {
    /// KeyID of what we send.
    pub send_id: u8,
    /// KeyID of what we receive.
    pub receive_id: u8,
    /// How segments are authenticated.
    pub algorithm: AoAlgorithm,
    /// The master key, 1 to [`AO_KEY_BYTES_MAX`] octets.
    pub secret: &'k [u8],
}

/// Authenticates all segments to and from `peers` with TCP-AO (RFC 5925). Before `connect`, or on the listener before the
/// peer calls. `Unsupported` where the kernel lacks it ([`has_ao`]).
pub fn set_ao(fd: BorrowedFd<'_>, peers: IpNet, key: AoKey<'_>) -> io::Result<()> {
    let request = ao_request(on_socket(fd, peers)?, key)?;
    match raw::set(fd, libc::IPPROTO_TCP, TCP_AO_ADD_KEY, &request) {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Err(io::ErrorKind::Unsupported.into()),
        result => result,
    }
}

fn ao_request((address, prefix_length): (IpAddr, u8), key: AoKey<'_>) -> io::Result<TcpAoAdd> {
    let mut request = TcpAoAdd {
        address: storage(address),
        algorithm: [0; 64],
        interface: 0,
        flags: 0,
        reserved: 0,
        prefix_length,
        send_id: key.send_id,
        receive_id: key.receive_id,
        mac_length: MAC_BYTES,
        key_flags: 0,
        key_length: key.secret.len() as u8,
        key: [0; AO_KEY_BYTES_MAX],
    };
    let name = key.algorithm.name().as_bytes();
    request.algorithm[..name.len()].copy_from_slice(name);
    room(&mut request.key, key.secret, "TCP-AO")?.copy_from_slice(key.secret);
    Ok(request)
}

/// Whether the kernel has TCP-AO: it takes a key on a socket that is thrown away.
pub fn has_ao() -> io::Result<bool> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let key = AoKey { send_id: 1, receive_id: 1, algorithm: AoAlgorithm::HmacSha1, secret: b"probe" };
    let peers = IpNet::from(IpAddr::from(Ipv4Addr::LOCALHOST));
    match set_ao(socket.as_fd(), peers, key) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the kernel has TCP MD5 signatures, likewise.
pub fn has_md5() -> io::Result<bool> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    match set_md5(socket.as_fd(), IpNet::from(IpAddr::from(Ipv4Addr::LOCALHOST)), b"probe") {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// Offsets of `include/uapi/linux/tcp.h`, Linux 6.7.
    #[test]
    fn layout_of_the_kernel() {
        assert_eq!(offset_of!(TcpAoAdd, algorithm), 128);
        assert_eq!(offset_of!(TcpAoAdd, interface), 192);
        assert_eq!(offset_of!(TcpAoAdd, flags), 196);
        assert_eq!(offset_of!(TcpAoAdd, prefix_length), 202);
        assert_eq!(offset_of!(TcpAoAdd, key_length), 207);
        assert_eq!(offset_of!(TcpAoAdd, key), 208);
        assert_eq!(align_of::<TcpAoAdd>(), 8);
        assert_eq!(offset_of!(TcpMd5Sig, key), 136);
    }

    #[test]
    fn an_ao_key_is_written_where_the_kernel_reads_it() {
        let key = AoKey { send_id: 7, receive_id: 8, algorithm: AoAlgorithm::AesCmac128, secret: b"secret" };
        let request = ao_request(("192.0.2.1".parse().unwrap(), 32), key).unwrap();
        assert_eq!(&request.algorithm[..13], b"cmac(aes128)\0");
        assert_eq!((request.send_id, request.receive_id, request.prefix_length), (7, 8, 32));
        assert_eq!((&request.key[..7], request.key_length, request.mac_length), (&b"secret\0"[..], 6, 12));
        assert_eq!(request.address[..8], [2, 0, 0, 0, 192, 0, 2, 1]);
        let long = AoKey { secret: &[1; AO_KEY_BYTES_MAX + 1], ..key };
        assert!(ao_request(("192.0.2.1".parse().unwrap(), 32), long).is_err());
    }
}
