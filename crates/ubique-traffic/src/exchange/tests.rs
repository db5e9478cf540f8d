//! Both ends over a pipe, on virtual time; what is between them breaks what it carries.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{DuplexStream, ReadBuf, duplex};

use super::*;
use crate::client::tests::{seen, watch};

const SITE: &str = "lon";
const MESSAGES: Exchange = Exchange::Messages { every: Duration::from_millis(20) };

fn bulk(size_kib: u32) -> Exchange {
    Exchange::Bulk { size_kib, rate_bits_per_s: 80_000_000 }
}

/// A stream that changes, or withholds, what is read from octet `at` on.
struct Broken {
    inner: DuplexStream,
    at: usize,
    withholds: bool,
}

impl AsyncRead for Broken {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, into))?;
        let read = into.filled().len() - before;
        let last = self.at < read;
        if last && self.withholds {
            into.set_filled(before);
            return Poll::Pending;
        }
        if last {
            into.filled_mut()[before + self.at] ^= 1;
        }
        self.at = if last { usize::MAX } else { self.at.saturating_sub(read) };
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Broken {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_come_to_their_end() {
    for (what, octets) in [
        ((SessionKind::TcpShort, MESSAGES), 8),
        ((SessionKind::Upload, bulk(100)), 102_400),
        ((SessionKind::Download, bulk(100)), 102_400),
    ] {
        let (ours, theirs) = duplex(4096);
        let mut watch = watch();
        let (client, server) = tokio::join!(client(ours, what, &mut watch), server(theirs, SITE));
        client.unwrap();
        server.unwrap();
        let seen = seen(&watch);
        assert_eq!((seen.content_bytes, seen.sites[SITE]), (octets, 1), "{what:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn messages_go_on_until_nothing_comes_back() {
    let (ours, theirs) = duplex(4096);
    // The request's answer and some seconds of messages.
    let ours = Broken { inner: ours, at: 4 + 200 * MESSAGE_BYTES, withholds: true };
    let mut watch = watch();
    let begun = Instant::now();
    let client = client(ours, (SessionKind::Tcp, MESSAGES), &mut watch);
    let error =
        tokio::select! { ended = client => ended.unwrap_err(), _ = server(theirs, SITE) => panic!("the server") };
    assert_eq!(how(&error), How::Timeout);
    assert_eq!(begun.elapsed().as_secs(), PATIENCE.as_secs() + 3, "199 messages, 20 ms each, and patience");
    assert_eq!(seen(&watch).content_bytes, 200 * MESSAGE_BYTES as u64);
}

#[tokio::test(start_paused = true)]
async fn one_wrong_bit_is_found_wherever_it_is() {
    for (what, at) in [
        ((SessionKind::TcpShort, MESSAGES), 5),
        ((SessionKind::Tcp, MESSAGES), 4 + 77 * MESSAGE_BYTES),
        ((SessionKind::Download, bulk(64)), 4),
        ((SessionKind::Download, bulk(64)), 4 + 64 * 1024 - 1),
        ((SessionKind::Upload, bulk(64)), 4 + 9),
    ] {
        let (ours, theirs) = duplex(4096);
        let mut watch = watch();
        let client = client(Broken { inner: ours, at, withholds: false }, what, &mut watch);
        let (client, _) = tokio::join!(client, server(theirs, SITE));
        assert_eq!(how(&client.unwrap_err()), How::WrongContent, "{what:?} at {at}");
    }
    // On its way to the site.
    for at in [REQUEST_BYTES, REQUEST_BYTES + 64 * 1024 - 1] {
        let (ours, theirs) = duplex(4096);
        let mut watch = watch();
        let client = client(ours, (SessionKind::Upload, bulk(64)), &mut watch);
        let (client, server) = tokio::join!(client, server(Broken { inner: theirs, at, withholds: false }, SITE));
        assert_eq!(how(&client.unwrap_err()), How::WrongContent, "{at}");
        assert_eq!(how(&server.unwrap_err()), How::WrongContent, "{at}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_ends_too_early_is_closed() {
    for what in [(SessionKind::Tcp, MESSAGES), (SessionKind::Download, bulk(64)), (SessionKind::TcpShort, MESSAGES)] {
        let (ours, mut theirs) = duplex(4096);
        let mut watch = watch();
        let serve = async move {
            let mut request = [0; REQUEST_BYTES];
            theirs.read_exact(&mut request).await.unwrap();
            theirs.write_all(b"\x03lon\0\0").await.unwrap();
        };
        let (client, ()) = tokio::join!(client(ours, what, &mut watch), serve);
        let how = how(&client.unwrap_err());
        // Whichever of its halves notices first: nobody takes what is written, or nothing more comes.
        assert!(matches!(how, How::Closed | How::Reset | How::WrongContent), "{what:?}: {how:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_request_is_not_served() {
    let (mut ours, theirs) = duplex(4096);
    ours.write_all(b"GET / HTTP/1.1\r\nHost: ubique\r\n\r\n").await.unwrap();
    assert_eq!(how(&server(theirs, SITE).await.unwrap_err()), How::WrongContent);
    let mut nothing = Vec::new();
    ours.read_to_end(&mut nothing).await.unwrap();
    assert_eq!(nothing, b"");
}
