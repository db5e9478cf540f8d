//! Packet sockets that keep the kernel from adopting connections that begin with our cookies.
//!
//! One bound to IPv4 or IPv6 (`ETH_P_IP`, as of some DHCP clients; not to all protocols, as of tcpdump) is served after the kernel's own
//! IP, which therefore works on a copy of each packet, and a copy has lost the request that `ubique_adopt` gave it: the client's
//! acknowledgement is answered by a reset. Linux 6.16 and later do that for all such sockets, earlier ones for those bound to an interface.

use std::fs;

/// Every packet socket of the namespace.
const SOCKETS: &str = "/proc/thread-self/net/packet";

/// Protocols in the way: of IPv4 and IPv6.
const HARMFUL: [&str; 2] = ["0800", "86dd"];

/// What is in the way, in words; `None`: nothing.
pub(super) fn in_the_way() -> Option<String> {
    find(&fs::read_to_string(SOCKETS).ok()?)
}

/// The first harmful socket of a table as `packet(7)` has it: sk, RefCnt, Type, Proto, Iface, R, Rmem, User, Inode.
fn find(table: &str) -> Option<String> {
    let harmful = |line: &&str| line.split_whitespace().nth(3).is_some_and(|protocol| HARMFUL.contains(&protocol));
    let line = table.lines().skip(1).find(harmful)?;
    let mut fields = line.split_whitespace().skip(7);
    let (user, inode) = (fields.next()?, fields.next()?);
    Some(format!(
        "a packet socket bound to IP is open (user {user}, inode {inode}: `ss -0 -p` shows whose), and with it the kernel refuses \
         connections that begin with our cookies: it answers SYNs itself until the socket is closed"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_ip_are_in_the_way() {
        let head = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n";
        let line = |protocol| format!("00000000c0ffee00 3      3    {protocol}   2     1 0      101    4711\n");
        for harmless in [String::new(), head.into(), [head, &line("0003")].concat(), [head, &line("88cc")].concat()] {
            assert_eq!(find(&harmless), None, "{harmless}");
        }
        for harmful in ["0800", "86dd"] {
            let why = find(&[head, &line("0003"), &line(harmful)].concat()).unwrap();
            assert!(why.contains("user 101") && why.contains("inode 4711"), "{why}");
        }
    }
}
