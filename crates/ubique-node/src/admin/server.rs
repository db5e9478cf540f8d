//! A Unix socket that answers JSON lines: the agent's admin socket and the control socket of the lab's routers.
//!
//! Seats are few, and a crowd cannot keep operators out: those who may act have seats of their own, and when all are
//! taken the client that has waited longest without asking anything makes room.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::REQUEST_BYTES;
use super::access::{Access, Caller};
use crate::accept::accepted;

/// Clients served at a time, of those who may act and of the others each.
const CLIENTS: usize = 16;

/// Clients that wait to be accepted.
const BACKLOG: i32 = 64;

/// How long a client may stay silent between requests, or leave a reply unread.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers there.
    #[error("another agent answers on {}", .0.display())]
    InUse(PathBuf),
    /// What is there is not a socket.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The system said no.
    #[error("cannot open the socket {}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A listening socket that removes its file in the end.
pub(crate) struct Bound {
    listener: UnixListener,
    path: PathBuf,
    access: Access,
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Opens a socket, with its directory. A file of a dead process is replaced, one of a living one is not.
pub(crate) fn bind(path: &Path, access: Access) -> Result<Bound, SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) if is_alive(path).map_err(failed)? => return Err(SocketError::InUse(path.to_owned())),
        Ok(_) => fs::remove_file(path).map_err(failed)?,
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None).map_err(failed)?;
    socket.bind(&SockAddr::unix(path).map_err(failed)?).map_err(failed)?;
    // Nobody can connect before `listen`, so that the mode the file was made with lets nobody in.
    if let Some(group) = access.group
        && let Err(error) = std::os::unix::fs::chown(path, None, Some(group))
    {
        tracing::warn!(%error, group, "the admin socket cannot be given to admin-group: its members may not connect");
    }
    fs::set_permissions(path, fs::Permissions::from_mode(access.mode)).map_err(failed)?;
    socket.listen(BACKLOG).map_err(failed)?;
    let listener = UnixListener::from_std(socket.into()).map_err(failed)?;
    Ok(Bound { listener, path: path.to_owned(), access })
}

/// Whether somebody listens there: only a refusal says that nobody does. One that is stopped, or another user's, lives.
fn is_alive(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    let refused = socket.connect(&SockAddr::unix(path)?).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
    Ok(!refused)
}

/// A place of a client.
struct Seat {
    /// It waits for a request, and may be asked to leave.
    idle: Cell<bool>,
    /// It has lost its place; what it has asked meanwhile is still answered.
    lost: Cell<bool>,
    leave: Notify,
}

/// The places of clients of one kind, the first come first.
#[derive(Default)]
struct Seats(RefCell<VecDeque<Rc<Seat>>>);

impl Seats {
    /// A place, that of the longest idle client when there is no other.
    fn take(&self) -> Option<Rc<Seat>> {
        let mut seats = self.0.borrow_mut();
        if seats.len() >= CLIENTS {
            let idle = seats.iter().position(|seat| seat.idle.get())?;
            let seat = seats.remove(idle)?;
            seat.lost.set(true);
            seat.leave.notify_one();
        }
        let seat = Rc::new(Seat { idle: Cell::new(false), lost: Cell::new(false), leave: Notify::new() });
        seats.push_back(seat.clone());
        Some(seat)
    }

    fn give_back(&self, seat: &Rc<Seat>) {
        self.0.borrow_mut().retain(|other| !Rc::ptr_eq(other, seat));
    }

    /// Behind all others: it has just asked something.
    fn refresh(&self, seat: &Rc<Seat>) {
        let mut seats = self.0.borrow_mut();
        if let Some(at) = seats.iter().position(|other| Rc::ptr_eq(other, seat))
            && let Some(seat) = seats.remove(at)
        {
            seats.push_back(seat);
        }
    }
}

/// Answers clients until it is dropped: `answer` turns a request line and who sent it into a reply line (without its end).
pub(crate) async fn serve<F, A>(bound: Bound, answer: F)
where
    F: Fn(String, Rc<Caller>) -> A + Clone + 'static,
    A: Future<Output = String>,
{
    let (operators, others) = (Rc::new(Seats::default()), Rc::new(Seats::default()));
    loop {
        let (stream, _) = accepted(async || bound.listener.accept().await).await;
        // One who is not known gets no answer.
        let Ok(caller) = Caller::of(&stream, &bound.access) else {
            continue;
        };
        let seats = if caller.may_act() { operators.clone() } else { others.clone() };
        let Some(seat) = seats.take() else {
            let _ = stream.try_write(b"{\"error\":\"too many clients\"}\n");
            continue;
        };
        let answer = answer.clone();
        tokio::task::spawn_local(async move {
            // A client that goes away, or is too slow, is its own problem.
            let talk = client(stream, Rc::new(caller), &seat, &seats, answer);
            tokio::pin!(talk);
            loop {
                tokio::select! {
                    biased;
                    _ = &mut talk => break,
                    () = seat.leave.notified() => if seat.idle.get() { break },
                }
            }
            seats.give_back(&seat);
        });
        // A crowd must not take the seat of one whose request is there already.
        tokio::task::yield_now().await;
    }
}

async fn client<F, A>(
    stream: UnixStream,
    caller: Rc<Caller>,
    seat: &Rc<Seat>,
    seats: &Seats,
    answer: F,
) -> io::Result<()>
where
    F: Fn(String, Rc<Caller>) -> A,
    A: Future<Output = String>,
{
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        seat.idle.set(true);
        let line = request(&mut read).await?;
        seat.idle.set(false);
        if line.is_empty() {
            return Ok(());
        }
        seats.refresh(seat);
        let (reply, last) = match String::from_utf8(line) {
            Ok(text) if text.ends_with('\n') => (answer(text, caller.clone()).await, false),
            Ok(text) if text.len() <= REQUEST_BYTES => (answer(text, caller.clone()).await, true),
            Ok(_) => (error_line(&format!("a request has at most {REQUEST_BYTES} octets")), true),
            Err(_) => (error_line("a request is a JSON object in UTF-8"), true),
        };
        send(&mut write, reply).await?;
        if last || seat.lost.get() {
            return Ok(());
        }
    }
}

/// The next line, cut off where it is too long; empty at the end.
async fn request(read: &mut BufReader<OwnedReadHalf>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let limit = REQUEST_BYTES as u64 + 1;
    timeout(PATIENCE, read.take(limit).read_until(b'\n', &mut line)).await??;
    Ok(line)
}

async fn send(write: &mut OwnedWriteHalf, mut reply: String) -> io::Result<()> {
    reply.push('\n');
    timeout(PATIENCE, write.write_all(reply.as_bytes())).await?
}

/// The reply that says no.
pub(crate) fn error_line(error: &str) -> String {
    serde_json::json!({ "error": error }).to_string()
}
