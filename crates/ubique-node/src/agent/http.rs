//! The metrics endpoint: `GET /metrics` for Prometheus, `GET /healthz` for whoever asks whether the agent lives.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::Request as Ask;
use crate::accept::accepted;

/// Connections at a time; more are closed at once.
const CONNECTIONS: usize = 16;

/// How long a client may take for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may live.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// Octets of a request's head, and of what is buffered for a connection.
const BUFFER_BYTES: usize = 16 << 10;

/// The endpoint cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the metrics endpoint {address}")]
pub struct HttpError {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Opens the endpoint. Must be called on the runtime.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, HttpError> {
    let open = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    open().map_err(|source| HttpError { address, source })
}

/// Answers until it is dropped.
pub(super) async fn serve(listener: TcpListener, requests: mpsc::Sender<Ask>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let (stream, _) = accepted(async || listener.accept().await).await;
        let Ok(permit) = room.clone().try_acquire_owned() else {
            continue;
        };
        let requests = requests.clone();
        tokio::task::spawn_local(async move {
            let _ = timeout(CONNECTION_TIMEOUT, connection(stream, requests)).await;
            drop(permit);
        });
    }
}

async fn connection(stream: TcpStream, requests: mpsc::Sender<Ask>) {
    let service = service_fn(move |request| answer(request, requests.clone()));
    // An error is the client's: it went away, or does not speak HTTP.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(request: Request<Incoming>, requests: mpsc::Sender<Ask>) -> Result<Response<Full<Bytes>>, Infallible> {
    let plain = |status, text: String| {
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
        response
    };
    let path = request.uri().path();
    if request.method() != Method::GET {
        return Ok(plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()));
    }
    if path != "/metrics" && path != "/healthz" {
        return Ok(plain(StatusCode::NOT_FOUND, "see /metrics and /healthz\n".to_owned()));
    }
    // Both go through the loop: an answer says that it turns.
    let (reply, text) = oneshot::channel();
    let sent = requests.send(Ask::Metrics(reply)).await.is_ok();
    Ok(match text.await {
        Ok(_) if sent && path == "/healthz" => plain(StatusCode::OK, "ok\n".to_owned()),
        Ok(text) => plain(StatusCode::OK, text),
        Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "the agent is ending\n".to_owned()),
    })
}
