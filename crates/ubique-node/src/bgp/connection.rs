//! One transport connection: bounded reads, a bounded queue of unsent bytes, and what the other side acknowledged.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use ubique_proto::Time;
use ubique_proto::bgp::speaker::{CLOSE_LINGER, PeerId};
use ubique_sys::tcp;

/// Bytes that may wait for a neighbour that does not read; beyond, its connection is closed.
pub const SEND_QUEUE_BYTES: usize = 4 << 20;

/// When the acknowledgement of written bytes is looked for: after these pauses, then at the last one until it came.
const ACK_PAUSES: [Duration; 5] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
];

/// What a read brought.
pub(super) enum Read {
    /// So many bytes are in the buffer.
    Bytes(usize),
    /// FIN, RST or an error: no more will come.
    End,
}

/// The neighbour has not read for so long that [`SEND_QUEUE_BYTES`] are waiting, or its connection broke.
pub(super) struct Broken;

/// A connection.
pub(super) struct Connection {
    pub(super) peer: PeerId,
    /// Address of a caller from a range.
    pub(super) caller: Option<IpAddr>,
    stream: TcpStream,
    /// Bytes not yet taken by the kernel: `queue[head..]`.
    queue: Vec<u8>,
    head: usize,
    /// Bytes ever passed to [`Connection::send`].
    passed: u64,
    /// Bytes last seen acknowledged.
    acknowledged: u64,
    look_at: Option<Time>,
    pause: usize,
    /// Set once the core has closed it: when to give up.
    closing: Option<Time>,
    fin_sent: bool,
}

impl Connection {
    pub(super) fn new(peer: PeerId, stream: TcpStream, caller: Option<IpAddr>) -> Connection {
        Connection {
            peer,
            caller,
            stream,
            queue: Vec::new(),
            head: 0,
            passed: 0,
            acknowledged: 0,
            look_at: None,
            pause: 0,
            closing: None,
            fin_sent: false,
        }
    }

    /// TCP ports, ours first; 0: not known any more.
    pub(super) fn ports(&self) -> (u16, u16) {
        let port = |address: io::Result<SocketAddr>| address.map_or(0, |a| a.port());
        (port(self.stream.local_addr()), port(self.stream.peer_addr()))
    }

    /// Writes at once what the kernel takes and keeps the rest.
    pub(super) fn send(&mut self, now: Time, bytes: &[u8]) -> Result<(), Broken> {
        self.passed += bytes.len() as u64;
        let written = if self.head == self.queue.len() { self.write_now(bytes)? } else { 0 };
        if written < bytes.len() {
            self.queue.extend_from_slice(&bytes[written..]);
            if self.queue.len() - self.head > SEND_QUEUE_BYTES {
                return Err(Broken);
            }
        }
        self.pause = 0;
        self.look_at = Some(now + ACK_PAUSES[0]);
        Ok(())
    }

    fn write_now(&self, bytes: &[u8]) -> Result<usize, Broken> {
        let mut written = 0;
        while written < bytes.len() {
            match self.stream.try_write(&bytes[written..]) {
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Broken),
            }
        }
        Ok(written)
    }

    /// Brings queued bytes out as far as the kernel takes them.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        while self.head < self.queue.len() {
            match self.stream.poll_write_ready(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(_)) => return Err(Broken),
                Poll::Ready(Ok(())) => self.head += self.write_now(&self.queue[self.head..])?,
            }
        }
        if !self.queue.is_empty() {
            self.head = 0;
            self.queue.clear();
            self.queue.shrink_to(64 << 10);
        }
        Ok(())
    }

    /// One read into `buffer`.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Read> {
        loop {
            match self.stream.poll_read_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(Read::End),
                Poll::Ready(Ok(())) => {}
            }
            match self.stream.try_read(buffer) {
                Ok(0) => return Poll::Ready(Read::End),
                Ok(n) => {
                    // Speakers that leave Nagle's algorithm on hold their next UPDATE until this one is acknowledged.
                    // Without it they wait for the delayed acknowledgement, 40 ms.
                    let _ = SockRef::from(&self.stream).set_tcp_quickack(true);
                    return Poll::Ready(Read::Bytes(n));
                }
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(_) => return Poll::Ready(Read::End),
            }
        }
    }

    /// The count of acknowledged bytes, when it has grown by the time it is looked for.
    pub(super) fn look(&mut self, now: Time) -> Option<u64> {
        if self.look_at.is_none_or(|at| at > now) {
            return None;
        }
        let waiting = (self.queue.len() - self.head) as u64;
        let unacknowledged = tcp::unacknowledged(self.stream.as_fd()).map_or(u64::MAX, u64::from);
        let acknowledged = self.passed.saturating_sub(waiting).saturating_sub(unacknowledged);
        self.pause = (self.pause + 1).min(ACK_PAUSES.len() - 1);
        self.look_at = (acknowledged < self.passed).then(|| now + ACK_PAUSES[self.pause]);
        let grown = acknowledged > self.acknowledged;
        self.acknowledged = self.acknowledged.max(acknowledged);
        grown.then_some(self.acknowledged)
    }

    /// The core is done with it; it lives on until its last bytes are out and the other side has closed.
    ///
    /// Closing with unread bytes in the receive queue would send RST, which can overtake our NOTIFICATION.
    pub(super) fn close(&mut self, now: Time) {
        self.closing = Some(now + CLOSE_LINGER);
        self.look_at = None;
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Sends FIN once a closing connection has nothing queued. True: nothing more to wait for.
    pub(super) fn finish(&mut self, now: Time) -> bool {
        let Some(until) = self.closing else {
            return false;
        };
        if !self.fin_sent && self.head == self.queue.len() {
            self.fin_sent = true;
            if rustix::net::shutdown(self.stream.as_fd(), rustix::net::Shutdown::Write).is_err() {
                return true;
            }
        }
        until <= now
    }

    /// When [`Connection::look`] or [`Connection::finish`] wants to be called next.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        [self.look_at, self.closing].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::io::Read as _;
    use std::net::{Ipv4Addr, TcpListener};

    /// A connection and its other end.
    fn pair() -> (Connection, std::net::TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let ours = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        ours.set_nonblocking(true).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        theirs.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        (Connection::new(PeerId(0), TcpStream::from_std(ours).unwrap(), None), theirs)
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(10), test).await.unwrap();
        });
    }

    const NOW: Time = Time(1_000_000_000);

    #[test]
    fn what_was_sent_is_acknowledged_when_it_has_arrived() {
        run(async {
            let (mut connection, mut theirs) = pair();
            tokio::task::yield_now().await;
            assert!(connection.send(NOW, &[7; 100]).is_ok());
            assert_eq!(connection.look(NOW), None, "not before the first pause is over");
            poll_fn(|cx| Poll::Ready(connection.poll_write(cx).is_ok())).await;
            theirs.read_exact(&mut [0; 100]).unwrap();
            let mut now = connection.next_deadline().unwrap();
            assert_eq!(now, NOW + ACK_PAUSES[0]);
            let acknowledged = loop {
                if let Some(offset) = connection.look(now) {
                    break offset;
                }
                now = connection.next_deadline().unwrap();
            };
            assert_eq!(acknowledged, 100);
            assert_eq!(connection.next_deadline(), None, "nothing to look for, nothing to wake up for");
        });
    }

    #[test]
    fn a_neighbour_that_does_not_read_breaks_the_connection_at_the_limit() {
        run(async {
            let (mut connection, _theirs) = pair();
            let chunk = [0; 64 << 10];
            let mut sent = 0;
            while connection.send(NOW, &chunk).is_ok() {
                sent += chunk.len();
                poll_fn(|cx| Poll::Ready(connection.poll_write(cx).is_ok())).await;
                assert!(sent < SEND_QUEUE_BYTES * 4, "it must end");
            }
            assert!(sent >= SEND_QUEUE_BYTES);
            assert!(connection.look(NOW + ACK_PAUSES[0]).is_none_or(|offset| offset < sent as u64));
        });
    }

    #[test]
    fn last_bytes_and_fin_go_out_before_the_end() {
        run(async {
            let (mut connection, mut theirs) = pair();
            assert!(connection.send(NOW, b"NOTIFICATION").is_ok());
            connection.close(NOW);
            poll_fn(|cx| {
                assert!(connection.poll_write(cx).is_ok());
                if connection.finish(NOW) || connection.fin_sent { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            let mut said = Vec::new();
            theirs.read_to_end(&mut said).unwrap();
            assert_eq!(said, b"NOTIFICATION");
            assert!(!connection.finish(NOW), "it waits for the other side's FIN");
            assert!(connection.finish(NOW + CLOSE_LINGER), "but not for ever");
        });
    }
}
