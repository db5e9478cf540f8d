//! The requests of the admin socket over HTTPS, with certificates on both sides (`[agent.api]`).
//!
//! TLS 1.3 only; a client without a certificate of `client-ca` gets no further than the handshake. Its name goes with
//! what it asks, into the log and the events. Certificates are read when a client calls and their files have changed,
//! so that renewals need no restart; a file that is missing or wrong costs the API and nothing else.
//!
//! - [`table`]: which request is where; the OpenAPI document is made from it and from the types themselves.
//! - `tls`: certificates and keys; `names`: what a client's certificate calls him.
//!
//! Deliberately absent: HTTP/2, revocation lists (give clients short-lived certificates), anything the socket cannot do.

mod names;
mod table;
mod tls;

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use ubique_model::service::ApiSettings;

use self::table::{OPENAPI, Route};
use self::tls::Keys;
use crate::accept::accepted;
use crate::admin::{Caller, REQUEST_BYTES, Refusal};
use crate::clock::now;
use crate::limits::Throttle;

/// Connections of clients at a time; more are closed at once.
const CONNECTIONS: usize = 16;

/// Handshakes at a time: strangers wait in these, and keep nobody with a certificate from a connection.
const HANDSHAKES: usize = 64;

/// How long the handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client may take for the head of a request, and for its body.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may live.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// Octets of a request's head, and of what is buffered for a connection.
const BUFFER_BYTES: usize = 16 << 10;

/// How long after a failure the address is tried again.
const LISTEN_RETRY: Duration = Duration::from_secs(5);

/// Answers until it is dropped: `answer` turns a request line and who sent it into a reply line.
pub(crate) async fn serve<F, A>(settings: ApiSettings, answer: F)
where
    F: Fn(String, Rc<Caller>) -> A + Clone + 'static,
    A: Future<Output = Result<String, Refusal>>,
{
    let listener = listen(settings.listen).await;
    tracing::info!(address = %settings.listen, "HTTPS API");
    let mut keys = Keys::new(settings.clone());
    let throttle = Rc::new(RefCell::new(Throttle::default()));
    let (hall, room) = (Arc::new(Semaphore::new(HANDSHAKES)), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let (stream, address) = accepted(async || listener.accept().await).await;
        let Ok(waiting) = hall.clone().try_acquire_owned() else {
            continue;
        };
        let Some(acceptor) = keys.acceptor() else {
            continue;
        };
        let (answer, operators, throttle) = (answer.clone(), settings.clients.clone(), throttle.clone());
        let room = room.clone();
        tokio::task::spawn_local(async move {
            let shaken = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
            drop(waiting);
            match (shaken, room.try_acquire()) {
                (Ok(Ok(stream)), Ok(_permit)) => {
                    let _ = timeout(CONNECTION_TIMEOUT, connection(stream, &operators, answer)).await;
                }
                (Ok(Err(error)), _) => {
                    // Whoever may connect can cause this line.
                    if let Some(unwritten) = throttle.borrow_mut().admit(now()) {
                        tracing::info!(%address, %error, unwritten, "HTTPS API: no handshake");
                    }
                }
                (Ok(Ok(_)) | Err(_), _) => {}
            }
        });
    }
}

/// Opens the address; one that is not there yet (an interface that comes up late) is tried again.
async fn listen(address: SocketAddr) -> TcpListener {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::error!(%error, %address, "the HTTPS API cannot listen: trying again");
                }
                tokio::time::sleep(LISTEN_RETRY).await;
            }
        }
    }
}

async fn connection<F, A>(stream: TlsStream<TcpStream>, operators: &[String], answer: F)
where
    F: Fn(String, Rc<Caller>) -> A + Clone + 'static,
    A: Future<Output = Result<String, Refusal>>,
{
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let Some(caller) = certificate.map(|certificate| caller(certificate, operators)) else {
        return;
    };
    let caller = Rc::new(caller);
    let service = service_fn(move |request| respond(request, caller.clone(), answer.clone()));
    // An error is the client's: it went away, or does not speak HTTP.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Who that is, by a certificate that has been verified.
fn caller(certificate: &[u8], operators: &[String]) -> Caller {
    let names = names::of(certificate);
    let may_act = operators.is_empty() || names.iter().any(|name| operators.contains(name));
    let name = names.into_iter().next().unwrap_or_else(|| "a certificate without a name".to_owned());
    Caller::Certificate { name, may_act }
}

async fn respond<F, A>(
    request: Request<Incoming>,
    caller: Rc<Caller>,
    answer: F,
) -> Result<Response<Full<Bytes>>, Infallible>
where
    F: Fn(String, Rc<Caller>) -> A,
    A: Future<Output = Result<String, Refusal>>,
{
    let path = request.uri().path();
    if path == OPENAPI {
        return Ok(match *request.method() {
            Method::GET => reply(StatusCode::OK, table::document().to_string()),
            _ => not_allowed(&[Method::GET]),
        });
    }
    let routes: Vec<&Route> = table::ROUTES.iter().filter(|route| route.path == path).collect();
    if routes.is_empty() {
        return Ok(error(StatusCode::NOT_FOUND, &format!("there is no {path}; see {OPENAPI}")));
    }
    let Some(route) = routes.iter().find(|route| route.method == *request.method()) else {
        return Ok(not_allowed(&routes.iter().map(|route| route.method.clone()).collect::<Vec<_>>()));
    };
    let line = match line(route, request).await {
        Ok(line) => line,
        Err(response) => return Ok(response),
    };
    Ok(match answer(line, caller).await {
        Ok(text) => reply(StatusCode::OK, text),
        Err(refusal) => {
            let status = match refusal {
                Refusal::Malformed(_) => StatusCode::BAD_REQUEST,
                Refusal::Forbidden(_) => StatusCode::FORBIDDEN,
                Refusal::Refused(_) | Refusal::Guarded(_) => StatusCode::CONFLICT,
                Refusal::Ending => StatusCode::SERVICE_UNAVAILABLE,
            };
            error(status, &refusal.to_string())
        }
    })
}

/// The line the admin socket would take for this request.
async fn line(route: &Route, request: Request<Incoming>) -> Result<String, Response<Full<Bytes>>> {
    let bad = |why: &str| error(StatusCode::BAD_REQUEST, why);
    let mut object = match route.method {
        Method::GET => table::query_object(request.uri().query().unwrap_or("")).map_err(|e| bad(&e))?,
        _ => {
            // Browsers send forms to other sites unasked, and certificates along with them; JSON they do not.
            let json = |value: &HeaderValue| value.as_bytes().starts_with(b"application/json");
            if !request.headers().get(CONTENT_TYPE).is_some_and(json) {
                let why = "send a JSON object with Content-Type: application/json";
                return Err(error(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
            }
            body(request).await?
        }
    };
    if object.insert("query".to_owned(), Value::from(route.query)).is_some() {
        return Err(bad("`query` is said by the path"));
    }
    Ok(Value::Object(object).to_string())
}

async fn body(request: Request<Incoming>) -> Result<Map<String, Value>, Response<Full<Bytes>>> {
    let body = timeout(HEAD_TIMEOUT, Limited::new(request.into_body(), REQUEST_BYTES).collect()).await;
    let octets = match body {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(_)) => {
            let why = format!("a request has at most {REQUEST_BYTES} octets");
            return Err(error(StatusCode::PAYLOAD_TOO_LARGE, &why));
        }
        Err(_) => return Err(error(StatusCode::REQUEST_TIMEOUT, "the request came too slowly")),
    };
    let bad = |why: String| error(StatusCode::BAD_REQUEST, &why);
    serde_json::from_slice(&octets).map_err(|e| bad(format!("the body is not a JSON object: {e}")))
}

fn reply(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn error(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    reply(status, json!({ "error": why }).to_string())
}

fn not_allowed(methods: &[Method]) -> Response<Full<Bytes>> {
    let allowed = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, &format!("only {allowed} here"));
    if let Ok(value) = HeaderValue::from_str(&allowed) {
        response.headers_mut().insert(ALLOW, value);
    }
    response
}

#[cfg(test)]
mod tests;
