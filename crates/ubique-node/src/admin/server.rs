//! A Unix socket that answers JSON lines: the agent's admin socket and the control socket of the lab's routers.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::REQUEST_BYTES;

/// Clients served at a time; more are told so and closed.
const CLIENTS: usize = 16;

/// Clients that wait to be accepted.
const BACKLOG: i32 = 64;

/// How long a client may stay silent between requests, or leave a reply unread.
const PATIENCE: Duration = Duration::from_secs(30);

/// Owner and group may ask: `ubique` is started by them.
const MODE: u32 = 0o660;

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
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Opens a socket, with its directory. A file of a dead process is replaced, one of a living one is not.
pub(crate) fn bind(path: &Path) -> Result<Bound, SocketError> {
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
    fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(failed)?;
    socket.listen(BACKLOG).map_err(failed)?;
    let listener = UnixListener::from_std(socket.into()).map_err(failed)?;
    Ok(Bound { listener, path: path.to_owned() })
}

/// Whether somebody listens there: only a refusal says that nobody does. One that is stopped, or another user's, lives.
fn is_alive(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    let refused = socket.connect(&SockAddr::unix(path)?).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
    Ok(!refused)
}

/// Answers clients until it is dropped: `answer` turns a request line into a reply line (without its end).
pub(crate) async fn serve<F, A>(bound: Bound, answer: F)
where
    F: Fn(String) -> A + Clone + 'static,
    A: Future<Output = String>,
{
    let room = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok((stream, _)) = bound.listener.accept().await else {
            // Too many open files: passes, and must not spin.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            let _ = stream.try_write(b"{\"error\":\"too many clients\"}\n");
            continue;
        };
        let answer = answer.clone();
        tokio::task::spawn_local(async move {
            // A client that goes away, or is too slow, is its own problem.
            let _ = client(stream, answer).await;
            drop(permit);
        });
    }
}

async fn client<F, A>(stream: UnixStream, answer: F) -> io::Result<()>
where
    F: Fn(String) -> A,
    A: Future<Output = String>,
{
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let limit = REQUEST_BYTES as u64 + 1;
        let count = timeout(PATIENCE, (&mut read).take(limit).read_until(b'\n', &mut line)).await??;
        if count == 0 {
            return Ok(());
        }
        let (mut reply, last) = match String::from_utf8(line) {
            Ok(text) if text.ends_with('\n') => (answer(text).await, false),
            Ok(text) if text.len() <= REQUEST_BYTES => (answer(text).await, true),
            Ok(_) => (error_line(&format!("a request has at most {REQUEST_BYTES} octets")), true),
            Err(_) => (error_line("a request is a JSON object in UTF-8"), true),
        };
        reply.push('\n');
        timeout(PATIENCE, write.write_all(reply.as_bytes())).await??;
        if last {
            return Ok(());
        }
    }
}

/// The reply that says no.
pub(crate) fn error_line(error: &str) -> String {
    serde_json::json!({ "error": error }).to_string()
}
