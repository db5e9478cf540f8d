//! Control sockets between the processes of a rehearsal: one JSON line asked, one answered.
//!
//! [`request`] is the asking side, for the routers, the wire and the agents alike. [`Server`] is a small answering
//! side for single-threaded processes with an epoll loop of their own. Deliberately absent: threads and any
//! knowledge of what is asked.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// Longest line on either side: a looking-glass answer with many candidates.
const MAX_LINE: usize = 1 << 20;
/// Most open connections of a server; further ones are closed at once.
const MAX_CONNECTIONS: usize = 16;
/// How long a server waits for a client to read its answer.
const WRITE_TIMEOUT: Duration = Duration::from_millis(100);

/// Why a question had no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens, or the connection broke, or the answer came too late.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The answer is not JSON.
    #[error("the answer is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The process refused: its own words.
    #[error("refused: {0}")]
    Refused(String),
}

/// Sends one line to the process listening at `socket` and returns its answer; waits at most `timeout` for each of
/// writing and reading.
///
/// # Errors
/// [`ControlError::Refused`] when the answer has an `error`.
pub fn request(socket: &Path, question: &Value, timeout: Duration) -> Result<Value, ControlError> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let mut line = question.to_string();
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    let read = BufReader::new(stream).take(MAX_LINE as u64).read_line(&mut answer)?;
    if read == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    let answer: Value = serde_json::from_str(&answer)?;
    match answer.get("error") {
        Some(error) => Err(ControlError::Refused(error.as_str().map_or_else(|| error.to_string(), str::to_owned))),
        None => Ok(answer),
    }
}

/// The answering side: a listener and its connections, all non-blocking.
pub(crate) struct Server {
    listener: UnixListener,
    connections: [Option<Connection>; MAX_CONNECTIONS],
}

struct Connection {
    stream: UnixStream,
    line: Vec<u8>,
}

impl Server {
    /// Listens at `path`; an old socket there is replaced.
    pub(crate) fn bind(path: &Path) -> io::Result<Server> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Server { listener, connections: [const { None }; MAX_CONNECTIONS] })
    }

    /// The listener's descriptor: when readable, call [`Server::accept`].
    pub(crate) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Takes a waiting client: its slot and descriptor.
    pub(crate) fn accept(&mut self) -> io::Result<Option<(usize, BorrowedFd<'_>)>> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e),
        };
        let Some(slot) = self.connections.iter().position(Option::is_none) else {
            return Ok(None);
        };
        stream.set_nonblocking(true)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let connection = self.connections[slot].insert(Connection { stream, line: Vec::new() });
        Ok(Some((slot, connection.stream.as_fd())))
    }

    /// Reads what a client sent and answers each whole line; a client that breaks the rules is dropped.
    pub(crate) fn serve(&mut self, slot: usize, answer: impl FnMut(&Value) -> Value) {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        if !matches!(connection.serve(answer), Ok(true)) {
            self.connections[slot] = None;
        }
    }
}

impl Connection {
    /// False: the client is gone.
    fn serve(&mut self, mut answer: impl FnMut(&Value) -> Value) -> io::Result<bool> {
        let mut bytes = [0u8; 4096];
        let read = match self.stream.read(&mut bytes) {
            Ok(0) => return Ok(false),
            Ok(n) => &bytes[..n],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(e) => return Err(e),
        };
        self.line.extend_from_slice(read);
        while let Some(end) = self.line.iter().position(|&b| b == b'\n') {
            let reply = match serde_json::from_slice::<Value>(&self.line[..end]) {
                Ok(question) => answer(&question),
                Err(e) => serde_json::json!({ "error": e.to_string() }),
            };
            self.line.drain(..=end);
            let mut text = reply.to_string();
            text.push('\n');
            // Answers are short; blocking briefly for a slow reader is simpler than a queue and bounded.
            self.stream.set_nonblocking(false)?;
            self.stream.write_all(text.as_bytes())?;
            self.stream.set_nonblocking(true)?;
        }
        Ok(self.line.len() <= MAX_LINE)
    }
}
