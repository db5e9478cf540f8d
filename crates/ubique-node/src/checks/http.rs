//! The `http` check: a GET over HTTP/1.1 answered with the expected status.

use std::net::SocketAddr;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::words;

/// Longest head of an answer, octets.
const HEAD_BYTES: usize = 16 << 10;

/// An `http` check. Each poll is a new connection: it also tests that the server accepts.
pub(super) struct Http {
    target: SocketAddr,
    host: header::HeaderValue,
    path: hyper::Uri,
    status: u16,
}

impl Http {
    pub(super) fn new(target: SocketAddr, host: &str, path: &str, status: u16) -> Result<Http, String> {
        Ok(Http {
            target,
            host: host.parse().map_err(|_| format!("{host:?} cannot be a Host header"))?,
            path: path.parse().map_err(|e| format!("{path:?} is not a path: {e}"))?,
            status,
        })
    }

    pub(super) async fn poll(&mut self) -> Result<(), String> {
        let stream = TcpStream::connect(self.target).await.map_err(|e| words(&e))?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD_BYTES);
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|e| reason(&e))?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = self.path.clone();
        request.headers_mut().insert(header::HOST, self.host.clone());
        request.headers_mut().insert(header::USER_AGENT, header::HeaderValue::from_static("ubique"));
        request.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        let mut answer = std::pin::pin!(sender.send_request(request));
        let answer = tokio::select! {
            answer = &mut answer => answer,
            end = connection => match end {
                // The connection may end before its answer is picked up.
                Ok(()) => answer.await,
                Err(error) => Err(error),
            },
        }
        .map_err(|e| reason(&e))?;
        match answer.status().as_u16() {
            status if status == self.status => Ok(()),
            status => Err(format!("status {status}, expected {}", self.status)),
        }
    }
}

/// The error with the one it came from: hyper's own says little.
fn reason(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
