//! What runs over a stream, at either end.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout, timeout_at};
use ubique_model::scenario::{Exchange, SessionKind};
use ubique_model::traffic::{How, PATIENCE, SITE_NAME_BYTES};

use crate::client::Watch;
use crate::protocol::{MESSAGE_BYTES, RECEIPT_BYTES, REQUEST_BYTES, Request, WRONG, fill, is_content};

/// Bulk leaves in pieces, one each so often.
pub const PACE: Duration = Duration::from_millis(10);
/// Longest piece of bulk, and of what is read at once, octets.
const PIECE_BYTES: usize = 64 * 1024;
/// A client that says nothing for so long is forgotten: many times what clients wait.
const FORGET: Duration = Duration::from_secs(120);

/// What a session ended with, as far as the kernel tells.
pub fn how(error: &io::Error) -> How {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => How::Reset,
        io::ErrorKind::ConnectionRefused => How::Refused,
        io::ErrorKind::TimedOut => How::Timeout,
        io::ErrorKind::UnexpectedEof => How::Closed,
        io::ErrorKind::InvalidData => How::WrongContent,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => How::Unreachable,
        _ => How::Failed,
    }
}

fn wrong_content() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

fn closed() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

/// Octets that a sender may send each [`PACE`].
fn piece(bytes_per_s: u64) -> usize {
    let each = u128::from(bytes_per_s) * PACE.as_nanos() / Duration::from_secs(1).as_nanos();
    usize::try_from(each).unwrap_or(PIECE_BYTES).clamp(1, PIECE_BYTES)
}

/// A client's session, from the request to its end; that of messages both ways has none.
///
/// # Errors
/// What ended it, see [`how`]; content that is not what was sent is `InvalidData`, patience that ended `TimedOut`.
pub async fn client(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    (kind, exchange): (SessionKind, Exchange),
    watch: &mut Watch,
) -> io::Result<()> {
    let (mut read, mut write) = tokio::io::split(stream);
    let bulk = |size_kib: u32, rate_bits_per_s: u64| (u64::from(size_kib) * 1024, (rate_bits_per_s / 8).max(1));
    let request = match (kind, exchange) {
        (_, Exchange::Messages { .. }) => Request::Echo,
        (SessionKind::Upload, Exchange::Bulk { size_kib, .. }) => Request::Upload { size: bulk(size_kib, 0).0 },
        (_, Exchange::Bulk { size_kib, rate_bits_per_s }) => {
            let (size, bytes_per_s) = bulk(size_kib, rate_bits_per_s);
            Request::Download { size, bytes_per_s }
        }
    };
    write.write_all(&request.encode()).await?;
    write.flush().await?;
    let mut length = [0];
    read_exact(&mut read, &mut length, watch).await?;
    let mut name = [0; SITE_NAME_BYTES];
    let name = name.get_mut(..usize::from(length[0])).ok_or_else(wrong_content)?;
    read_exact(&mut read, name, watch).await?;
    watch.opened(&String::from_utf8_lossy(name));
    match (request, exchange) {
        (Request::Upload { size }, Exchange::Bulk { rate_bits_per_s, .. }) => {
            upload(&mut read, &mut write, size, bulk(0, rate_bits_per_s).1, watch).await?;
        }
        (Request::Download { size, .. }, _) => download(&mut read, size, watch).await?,
        (_, Exchange::Messages { .. }) if kind == SessionKind::TcpShort => {
            let mut answer = [0; MESSAGE_BYTES];
            write.write_all(&message(0)).await?;
            read_exact(&mut read, &mut answer, watch).await?;
            if answer != message(0) {
                return Err(wrong_content());
            }
            watch.content(MESSAGE_BYTES);
        }
        (_, Exchange::Messages { every }) => messages(&mut read, &mut write, every, watch).await?,
        _ => return Err(wrong_content()),
    }
    write.shutdown().await
}

/// The message of this number.
fn message(number: u64) -> [u8; MESSAGE_BYTES] {
    number.to_be_bytes()
}

async fn read_exact(read: &mut (impl AsyncRead + Unpin), into: &mut [u8], watch: &mut Watch) -> io::Result<()> {
    let read = timeout_at(watch.deadline(), read.read_exact(into)).await;
    read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    watch.progress();
    Ok(())
}

/// Some octets, at least one.
async fn read_some(read: &mut (impl AsyncRead + Unpin), into: &mut [u8], watch: &mut Watch) -> io::Result<usize> {
    let read = timeout_at(watch.deadline(), read.read(into)).await;
    let length = read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if length == 0 {
        return Err(closed());
    }
    watch.progress();
    Ok(length)
}

/// Sends a message each `every` and takes the echoes, in order, whatever has not come back yet.
async fn messages(
    read: &mut (impl AsyncRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
    every: Duration,
    watch: &mut Watch,
) -> io::Result<()> {
    let send = async {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for number in 0.. {
            ticks.tick().await;
            write.write_all(&message(number)).await?;
            write.flush().await?;
        }
        Ok(())
    };
    let take = async {
        let mut answer = [0; MESSAGE_BYTES];
        for number in 0.. {
            read_exact(read, &mut answer, watch).await?;
            if answer != message(number) {
                return Err(wrong_content());
            }
            watch.content(MESSAGE_BYTES);
        }
        Ok(())
    };
    // A write that has to wait is seen by the reader, which waits for its echo.
    tokio::select! { ended = send => ended, ended = take => ended }
}

async fn download(read: &mut (impl AsyncRead + Unpin), size: u64, watch: &mut Watch) -> io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < size {
        let length = read_some(read, &mut buffer, watch).await?;
        if !is_content(at, &buffer[..length]) {
            return Err(wrong_content());
        }
        at += length as u64;
        watch.content(length);
    }
    if at == size { Ok(()) } else { Err(wrong_content()) }
}

async fn upload(
    read: &mut (impl AsyncRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
    size: u64,
    bytes_per_s: u64,
    watch: &mut Watch,
) -> io::Result<()> {
    let take = async {
        let mut receipt = [0; RECEIPT_BYTES];
        let mut compared = 0;
        while compared < size {
            read_exact(read, &mut receipt, watch).await?;
            match u64::from_be_bytes(receipt) {
                WRONG => return Err(wrong_content()),
                now if now < compared || now > size => return Err(wrong_content()),
                now => {
                    watch.content((now - compared) as usize);
                    compared = now;
                }
            }
        }
        Ok(())
    };
    let send = async {
        send_content(write, size, bytes_per_s).await?;
        // The receipts decide.
        std::future::pending().await
    };
    tokio::select! { ended = take => ended, ended = send => ended }
}

/// Sends content at a pace.
async fn send_content(write: &mut (impl AsyncWrite + Unpin), size: u64, bytes_per_s: u64) -> io::Result<()> {
    let mut buffer = vec![0; piece(bytes_per_s)];
    let mut due = Instant::now();
    let mut at = 0;
    while at < size {
        sleep_until(due).await;
        let length = usize::try_from(size - at).unwrap_or(usize::MAX).min(buffer.len());
        fill(at, &mut buffer[..length]);
        write.write_all(&buffer[..length]).await?;
        write.flush().await?;
        at += length as u64;
        // What was late is not made up for: a burst after a stall would be another load than the scenario's.
        due = (due + PACE).max(Instant::now());
    }
    Ok(())
}

/// The service's side of a session.
///
/// # Errors
/// What ended it.
pub async fn server(stream: impl AsyncRead + AsyncWrite + Unpin, site: &str) -> io::Result<()> {
    let (mut read, mut write) = tokio::io::split(stream);
    let mut request = [0; REQUEST_BYTES];
    patient(read.read_exact(&mut request)).await?;
    let request = Request::decode(&request).ok_or_else(wrong_content)?;
    let name = &site.as_bytes()[..site.len().min(SITE_NAME_BYTES)];
    write.write_all(&[&[name.len() as u8], name].concat()).await?;
    write.flush().await?;
    match request {
        Request::Echo => {
            let mut buffer = [0; 4096];
            loop {
                let length = patient(read.read(&mut buffer)).await?;
                if length == 0 {
                    break;
                }
                patient(write.write_all(&buffer[..length])).await?;
                write.flush().await?;
            }
        }
        Request::Upload { size } => take_upload(&mut read, &mut write, size).await?,
        Request::Download { size, bytes_per_s } => {
            send_content(&mut write, size, bytes_per_s).await?;
        }
    }
    write.shutdown().await?;
    drain(&mut read).await;
    Ok(())
}

/// What is closed with something unread is reset, and what was said last is lost with it.
async fn drain(read: &mut (impl AsyncRead + Unpin)) {
    let mut rest = vec![0; PIECE_BYTES];
    while timeout(PATIENCE, read.read(&mut rest)).await.is_ok_and(|read| read.is_ok_and(|length| length > 0)) {}
}

async fn take_upload(
    read: &mut (impl AsyncRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
    size: u64,
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < size {
        let length = patient(read.read(&mut buffer)).await?;
        if length == 0 {
            return Err(closed());
        }
        let right = is_content(at, &buffer[..length]);
        at += length as u64;
        let receipt = if right && at <= size { at } else { WRONG };
        write.write_all(&receipt.to_be_bytes()).await?;
        write.flush().await?;
        if receipt == WRONG {
            drain(read).await;
            return Err(wrong_content());
        }
    }
    Ok(())
}

/// Waits as long as the service remembers a client that says nothing.
async fn patient<T>(what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(FORGET, what).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

#[cfg(test)]
mod tests;
