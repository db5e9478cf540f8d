//! Questions over UDP: one datagram out, the answer in, from another port each time.
//!
//! The socket is connected, so that an ICMP error (the port is closed) ends the question at once. Each question has a
//! port of its own: among workers that share a server's port the kernel chooses by the ports, and every worker must be
//! met.
//!
//! A question that was answered leaves its socket to the next one, without a port meanwhile. A new socket each time would be
//! opened, registered and closed each time, and its end would be told to whoever watches sockets end, which is this agent. What
//! comes late still meets nobody: it finds no port, and what had arrived before the port was given up is thrown away. A
//! question that fails or is abandoned takes its socket with it.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};

use rustix::net::connect_unspec;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::fd::{Watched, watch};

/// Asks one server, one question after another.
pub(super) struct Asker {
    server: SocketAddr,
    /// The socket of the last question: not connected, and so without a port.
    idle: Option<AsyncFd<Watched<UdpSocket>>>,
}

impl Asker {
    pub(super) fn new(server: SocketAddr) -> Asker {
        Asker { server, idle: None }
    }

    /// What `judge` makes of the first datagram that it takes for the answer.
    pub(super) async fn ask<T>(
        &mut self,
        question: &[u8],
        buffer: &mut [u8],
        mut judge: impl FnMut(&[u8]) -> Option<T>,
    ) -> io::Result<T> {
        let idle = self.idle.take().filter(|idle| is_emptied(idle, buffer));
        let socket = match idle {
            Some(socket) => socket,
            None => watch(open(self.server)?)?,
        };
        socket.get_ref().0.connect(self.server)?;
        socket.get_ref().0.send(question)?;
        loop {
            let mut ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
            let Ok(received) = ready.try_io(|socket| socket.get_ref().0.recv(buffer)) else {
                continue;
            };
            if let Some(answer) = judge(&buffer[..received?]) {
                if connect_unspec(&socket.get_ref().0).is_ok() {
                    self.idle = Some(socket);
                }
                return Ok(answer);
            }
        }
    }
}

fn open(server: SocketAddr) -> io::Result<UdpSocket> {
    let domain = socket2::Domain::for_address(server);
    let kind = socket2::Type::DGRAM.nonblocking().cloexec();
    Ok(socket2::Socket::new(domain, kind, Some(socket2::Protocol::UDP))?.into())
}

/// Throws away what is in a socket, so that it is not ready before the next answer; `false`: it has an error.
fn is_emptied(socket: &AsyncFd<Watched<UdpSocket>>, buffer: &mut [u8]) -> bool {
    loop {
        match socket.try_io(Interest::READABLE, |socket| socket.0.recv(buffer)) {
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// All of it has arrived when this returns: the loopback delivers as it sends.
    fn send(server: &UdpSocket, to: SocketAddr, datagrams: &[&[u8]]) {
        for datagram in datagrams {
            server.send_to(datagram, to).unwrap();
        }
    }

    #[test]
    fn what_comes_after_the_answer_counts_for_no_later_question() {
        runtime().block_on(async {
            let server = UdpSocket::bind("127.0.0.1:0").unwrap();
            server.set_nonblocking(true).unwrap();
            let mut asker = Asker::new(server.local_addr().unwrap());
            let mut ports = std::collections::BTreeSet::new();
            for round in 0..50_u8 {
                let (asked, mut question, mut buffer) = ([round], [0; 8], [0; 64]);
                let ask = asker.ask(&asked, &mut buffer, |answer| Some(answer.to_vec()));
                let serve = async {
                    let (length, from) = loop {
                        match server.recv_from(&mut question) {
                            Err(error) if error.kind() == ErrorKind::WouldBlock => tokio::task::yield_now().await,
                            received => break received.unwrap(),
                        }
                    };
                    // Twice the answer, and then one more: nothing in these octets says to which question they belong.
                    let answer = [&question[..length], b"!"].concat();
                    send(&server, from, &[&answer, &answer, b"later"]);
                    from
                };
                let (answer, from) = tokio::join!(ask, serve);
                assert_eq!(answer.unwrap(), [round, b'!']);
                // Its port is nobody's by now: an answer that comes this late is refused.
                send(&server, from, &[b"late"]);
                ports.insert(from.port());
            }
            assert!(ports.len() > 40, "a port of its own for each: {ports:?}");
        });
    }

    #[test]
    fn an_abandoned_question_takes_its_port_with_it() {
        runtime().block_on(async {
            let server = UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut asker = Asker::new(server.local_addr().unwrap());
            let mut buffer = [0; 64];
            for _ in 0..2 {
                let never = asker.ask(b"?", &mut buffer, |_| None::<()>);
                assert!(tokio::time::timeout(Duration::from_millis(5), never).await.is_err());
                assert!(asker.idle.is_none());
            }
        });
    }

    #[test]
    fn a_refusal_ends_the_question() {
        runtime().block_on(async {
            let gone = SocketAddr::from(([127, 0, 0, 1], crate::ports::unused()));
            let mut asker = Asker::new(gone);
            for _ in 0..3 {
                let error = asker.ask(b"?", &mut [0; 64], |_| Some(())).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            }
        });
    }
}
