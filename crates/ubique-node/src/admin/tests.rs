//! The socket and its client, without an agent.

use std::fs;
use std::os::unix::net::UnixListener;

use super::*;

/// A directory of a test, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("ubique-admin-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn on_runtime<T>(test: impl FnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { test() })
}

#[test]
fn paths_are_filled_in() {
    let path = socket_path(Path::new("/run/{service}/{site}/{site}.sock"), "dns", "ams");
    assert_eq!(path, Path::new("/run/dns/ams/ams.sock"));
}

#[test]
fn requests_are_the_documented_lines() {
    let drain = Request::Drain { reason: "disk \"swap\"".into() };
    for (request, line) in
        [(Request::Status, r#"{"query":"status"}"#), (drain, r#"{"query":"drain","reason":"disk \"swap\""}"#)]
    {
        assert_eq!(serde_json::to_string(&request).unwrap(), line);
        assert_eq!(serde_json::from_str::<Request>(line).unwrap(), request);
    }
    for bad in [r#"{"query":"drain"}"#, r#"{"query":"drain","reason":"x","extra":1}"#, r#"{"query":"stop"}"#] {
        assert!(serde_json::from_str::<Request>(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
    let directory = Directory::new("stale");
    let path = directory.0.join("deep/agent.sock");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "left behind, as by a killed process");
    on_runtime(|| {
        let bound = bind(&path, Access::default()).unwrap_or_else(|e| panic!("{e}"));
        assert!(matches!(bind(&path, Access::default()), Err(SocketError::InUse(_))));
        drop(bound);
    });
    assert!(!path.exists());
}

/// A process that is stopped accepts nothing: it lives, and whoever asks does not wait for it.
#[test]
fn a_socket_whose_owner_accepts_nothing_is_alive() {
    let directory = Directory::new("full");
    let path = directory.0.join("agent.sock");
    let address = socket2::SockAddr::unix(&path).unwrap();
    // A short queue: each call that waits is a descriptor of this process.
    let owner = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    owner.bind(&address).unwrap();
    owner.listen(4).unwrap();
    let call = || {
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM.nonblocking(), None).unwrap();
        socket.connect(&address).map(|()| socket)
    };
    let calls: Vec<_> = std::iter::from_fn(|| call().ok()).take(100).collect();
    assert_eq!(call().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "{} calls wait", calls.len());
    on_runtime(|| assert!(matches!(bind(&path, Access::default()), Err(SocketError::InUse(_)))));
}

#[test]
fn a_file_that_is_no_socket_stays() {
    let directory = Directory::new("file");
    let path = directory.0.join("precious");
    fs::write(&path, "data").unwrap();
    on_runtime(|| assert!(matches!(bind(&path, Access::default()), Err(SocketError::NotASocket(_)))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "data");
}

/// What the client makes of one reply.
fn client_sees(name: &str, reply: &'static [u8], request_sent: &Request) -> Result<Reply, RequestError> {
    let directory = Directory::new(name);
    let path = directory.0.join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        stream.write_all(reply).unwrap();
        line
    });
    let seen = request(&path, request_sent);
    assert!(server.join().unwrap().ends_with("}\n"));
    seen
}

#[test]
fn clients_tell_refusals_from_nonsense() {
    let drain = Request::Drain { reason: "x".into() };
    assert_eq!(client_sees("ok", b"{\"ok\":true}\n", &drain).unwrap(), Reply::Done { warning: None });
    let refused = client_sees("no", b"{\"error\":\"not now\"}\n", &drain).unwrap_err();
    assert_eq!(refused.to_string(), "not now");
    let nonsense = client_sees("nonsense", b"hello\n", &Request::Status);
    assert!(matches!(nonsense, Err(RequestError::Malformed(_))));
    let other = client_sees("other", b"{\"ok\":true}\n", &Request::Status);
    assert!(matches!(other, Err(RequestError::Malformed(_))));
    let silent = client_sees("silent", b"", &Request::Status);
    assert!(matches!(silent, Err(RequestError::Conversation(_))));
    let nobody = request(Path::new("/nonexistent/agent.sock"), &Request::Status);
    assert!(matches!(nobody, Err(RequestError::Connect { .. })));
}

/// The manual names every key of a route.
#[test]
fn every_key_of_a_route_is_documented() {
    let route = RouteView {
        direction: Direction::Received,
        peer: "192.0.2.1".parse().unwrap(),
        asn: ubique_model::Asn(64500),
        prefix: "203.0.113.0/24".parse().unwrap(),
        path_id: 0,
        next_hop: None,
        as_path: String::new(),
        origin: String::new(),
        med: None,
        local_pref: None,
        communities: vec![],
        large_communities: vec![],
        extended_communities: vec![],
        best: false,
        step: None,
        stale: None,
        since: None,
        age_s: None,
        announced: None,
    };
    let manual = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/agent.md")).unwrap();
    let value =
        serde_json::to_value(RoutesPage { schema_version: SCHEMA_VERSION, routes: vec![route], next: None }).unwrap();
    let (page, route) = (value.as_object().unwrap(), value["routes"][0].as_object().unwrap());
    for key in page.keys().chain(route.keys()) {
        assert!(manual.contains(&format!("`{key}`")), "docs/agent.md does not name `{key}`");
    }
}

/// Answers with what it was asked and by whom; `slow` never.
async fn echo(line: String, caller: std::rc::Rc<Caller>) -> String {
    if line.starts_with("slow") {
        std::future::pending::<()>().await;
    }
    format!("{} {}", line.trim_end(), caller.may_act())
}

/// Serves `echo` on a socket and runs `test` beside it.
fn served<T: Future<Output = ()>>(name: &str, test: impl FnOnce(PathBuf) -> T) {
    let directory = Directory::new(name);
    let path = directory.0.join("agent.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let bound = bind(&path, Access::default()).unwrap_or_else(|e| panic!("{e}"));
        tokio::task::spawn_local(serve(bound, echo));
        test(path.clone()).await;
    });
}

async fn line(stream: &mut tokio::net::UnixStream, request: &str) -> String {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
    let _ = stream.write_all(request.as_bytes()).await;
    let mut reply = String::new();
    let mut read = tokio::io::BufReader::new(stream);
    let read = read.read_line(&mut reply);
    let _ = tokio::time::timeout(Duration::from_secs(20), read).await.expect("an answer or the end");
    reply
}

#[test]
fn a_crowd_that_asks_nothing_keeps_nobody_out() {
    served("crowd", |path| async move {
        let connect = || tokio::net::UnixStream::connect(&path);
        let mut first = connect().await.unwrap();
        assert_eq!(line(&mut first, "hello\n").await, "hello true\n");
        let mut crowd = Vec::new();
        for _ in 0..200 {
            crowd.push(connect().await.unwrap());
        }
        let mut late = connect().await.unwrap();
        assert_eq!(line(&mut late, "me\n").await, "me true\n");
        assert_eq!(line(&mut crowd[0], "too late\n").await, "", "it made room");
        let mut last = crowd.pop().unwrap();
        assert_eq!(line(&mut last, "still here\n").await, "still here true\n");
    });
}

#[test]
fn clients_at_work_are_not_disturbed() {
    served("work", |path| async move {
        use tokio::io::AsyncWriteExt;
        let mut busy = Vec::new();
        for _ in 0..16 {
            let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
            stream.write_all(b"slow\n").await.unwrap();
            busy.push(stream);
        }
        // Their requests are read before the next client is.
        let mut late = tokio::net::UnixStream::connect(&path).await.unwrap();
        assert_eq!(line(&mut late, "me\n").await, "{\"error\":\"too many clients\"}\n");
    });
}

#[test]
fn the_mode_is_that_of_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let directory = Directory::new("mode");
    let path = directory.0.join("agent.sock");
    on_runtime(|| {
        for mode in [0o600, 0o660, 0o666] {
            let access = Access::new(mode, None);
            let _bound = bind(&path, access).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        }
    });
}
