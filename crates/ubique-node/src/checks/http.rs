//! The `http` check: a GET over HTTP/1.1 answered as expected. Also the HTTP that DNS over HTTPS needs.
//!
//! Heads and bodies are bounded; a server that trickles is abandoned at the timeout like any other.
//! RFC 9110, RFC 9112; HTTP/2 (RFC 9113) for DNS over HTTPS only.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use ubique_model::check::{Http as Spec, Statuses};

use super::tls::Tls;
use super::{Failure, quote, words};

/// Longest head of an answer, octets.
const HEAD_BYTES: usize = 16 << 10;

/// How much of a body is looked at, octets; the service file says so, too.
const BODY_BYTES: usize = 64 << 10;

/// An `http` check. Each poll is a new connection: it also tests that the server accepts.
pub(super) struct Http {
    target: SocketAddr,
    tls: Option<Tls>,
    host: HeaderValue,
    path: hyper::Uri,
    status: Vec<Statuses>,
    body: Vec<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The head of an answer.
pub(super) struct Head {
    pub status: StatusCode,
    pub headers: HeaderMap,
}

/// The beginning of a body.
pub(super) struct Body {
    pub octets: Vec<u8>,
    /// It is all of it.
    pub complete: bool,
}

/// What stands for a server without a name: its address, with the port unless it is the usual one.
pub(super) fn authority(target: SocketAddr, tls: bool) -> String {
    match (target.port(), target.ip()) {
        (443, ip) if tls => bare(ip),
        (80, ip) if !tls => bare(ip),
        _ => target.to_string(),
    }
}

fn bare(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

impl Http {
    pub(super) fn new(target: SocketAddr, spec: &Spec) -> Result<Http, String> {
        let host = spec.host.clone().unwrap_or_else(|| authority(target, spec.tls));
        // A host may carry a port; a certificate does not.
        let name = match &spec.host {
            Some(host) => host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name).to_owned(),
            None => target.ip().to_string(),
        };
        let tls = if spec.tls { Some(Tls::new(&spec.trust, &name, &["http/1.1"])?) } else { None };
        let header = |(name, value): &(String, String)| {
            let key: HeaderName = name.parse().map_err(|_| format!("{name:?} cannot be a header"))?;
            let value = value.parse().map_err(|_| format!("{value:?} cannot be the value of a header"))?;
            Ok::<_, String>((key, value))
        };
        Ok(Http {
            target,
            tls,
            host: host.parse().map_err(|_| format!("{host:?} cannot be a Host header"))?,
            path: spec.path.parse().map_err(|e| format!("{:?} is not a path: {e}", spec.path))?,
            status: spec.status.clone(),
            body: spec.body.clone(),
            headers: spec.headers.iter().map(header).collect::<Result<_, _>>()?,
        })
    }

    pub(super) async fn poll(&mut self) -> Result<(), Failure> {
        self.fetch(!self.body.is_empty()).await.map(drop)
    }

    /// The beginning of the body of an answer that is as expected.
    pub(super) async fn fetch(&mut self, with_body: bool) -> Result<Vec<u8>, Failure> {
        let mut request = Request::new(Full::<Bytes>::default());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.host.clone());
        headers.insert(header::USER_AGENT, HeaderValue::from_static("ubique"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let limit = if with_body { BODY_BYTES } else { 0 };
        let (head, body) = match &self.tls {
            Some(tls) => over_http1(tls.connect(self.target).await?, request, limit).await?,
            None => {
                let stream = TcpStream::connect(self.target).await.map_err(|e| words(&e))?;
                over_http1(stream, request, limit).await?
            }
        };
        self.judge(&head, &body.octets).map_err(Failure::of_answer)?;
        Ok(body.octets)
    }

    fn judge(&self, head: &Head, body: &[u8]) -> Result<(), String> {
        let status = head.status.as_u16();
        if !self.status.iter().any(|s| s.contains(status)) {
            let expected: Vec<String> = self.status.iter().map(ToString::to_string).collect();
            return Err(format!("status {status}, expected {}", expected.join(", ")));
        }
        for (name, wanted) in &self.headers {
            let mut values = head.headers.get_all(name).iter();
            if !values.any(|value| value == wanted) {
                let shown = quote(wanted.as_bytes());
                return Err(match head.headers.get(name) {
                    Some(value) => format!("header {name} is {:?}, expected {shown:?}", quote(value.as_bytes())),
                    None => format!("no header {name}, expected {shown:?}"),
                });
            }
        }
        let lacking = self.body.iter().find(|text| !body.windows(text.len()).any(|window| window == text.as_bytes()));
        match lacking {
            Some(text) => Err(format!("the body does not contain {text:?}: {}", quote(body))),
            None => Ok(()),
        }
    }
}

/// A POST of a body of this media type.
pub(super) fn post(
    authority: &str,
    path: &str,
    media_type: &'static str,
    body: &[u8],
    http2: bool,
) -> Result<Request<Full<Bytes>>, String> {
    // HTTP/2 wants scheme and authority in the request's target (RFC 9113 §8.3.1).
    let uri = if http2 { format!("https://{authority}{path}") } else { path.to_owned() };
    let mut request = Request::new(Full::new(Bytes::copy_from_slice(body)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.parse().map_err(|e| format!("{uri:?} is not a URL: {e}"))?;
    let headers = request.headers_mut();
    if !http2 {
        let host = authority.parse().map_err(|_| format!("{authority:?} cannot be a Host header"))?;
        headers.insert(header::HOST, host);
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::ACCEPT, HeaderValue::from_static(media_type));
    Ok(request)
}

/// One request over HTTP/1.1, and at most `limit` octets of the body.
pub(super) async fn over_http1(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    limit: usize,
) -> Result<(Head, Body), String> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|e| reason(&e))?;
    beside(async move { read(sender.send_request(request).await, limit).await }, connection).await
}

/// The same over HTTP/2.
#[cfg(feature = "tls")]
pub(super) async fn over_http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    limit: usize,
) -> Result<(Head, Body), String> {
    use hyper::client::conn::http2;
    use hyper_util::rt::TokioExecutor;

    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.max_header_list_size(HEAD_BYTES as u32).initial_stream_window_size(BODY_BYTES as u32);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|e| reason(&e))?;
    beside(async move { read(sender.send_request(request).await, limit).await }, connection).await
}

/// Never called: nothing agrees on HTTP/2 without TLS.
#[cfg(not(feature = "tls"))]
pub(super) async fn over_http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    limit: usize,
) -> Result<(Head, Body), String> {
    over_http1(stream, request, limit).await
}

/// An exchange while its connection works.
async fn beside<T>(
    exchange: impl Future<Output = Result<T, String>>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> Result<T, String> {
    let mut exchange = pin!(exchange);
    tokio::select! {
        end = &mut exchange => end,
        end = connection => match end {
            // The connection may end before its answer is picked up.
            Ok(()) => exchange.await,
            Err(error) => Err(reason(&error)),
        },
    }
}

async fn read(answer: hyper::Result<Response<Incoming>>, limit: usize) -> Result<(Head, Body), String> {
    let (parts, mut incoming) = answer.map_err(|e| reason(&e))?.into_parts();
    let mut octets = Vec::new();
    let mut complete = true;
    if limit == 0 {
        return Ok((Head { status: parts.status, headers: parts.headers }, Body { octets, complete: false }));
    }
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|e| reason(&e))?;
        let data = frame.data_ref().map_or(&[][..], |data| data);
        let room = limit - octets.len();
        octets.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            complete = false;
            break;
        }
    }
    Ok((Head { status: parts.status, headers: parts.headers }, Body { octets, complete }))
}

/// The error with the one it came from: hyper's own says little.
fn reason(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => quote(format!("{error}: {source}").as_bytes()),
        None => error.to_string(),
    }
}
