//! The `dns` check: a query answered with the expected RCODE, flags and data.
//!
//! Over TLS and HTTPS each poll is a connection with a full handshake: a certificate that has expired since is noticed.
//! RFC 1035 §4; over TCP §4.2.2, TLS RFC 7858, HTTPS RFC 8484.

use std::net::SocketAddr;

use domain::base::MessageBuilder;
use domain::base::iana::Class;
use domain::base::{Name, Rtype};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use ubique_model::check::{Dns as Spec, DnsTransport, FlagBit};

use super::answer::Expected;
use super::asker::Asker;
use super::http::{self, Body};
use super::tls::Tls;
use super::{Failure, words};
use crate::random::query_id;

/// Largest answer over UDP that is looked at; larger ones do not pass the Internet in one piece either.
const UDP_BYTES: usize = 4096;

/// Largest message over TCP, TLS and HTTPS (RFC 1035 §4.2.2).
const MESSAGE_BYTES: usize = u16::MAX as usize;

/// Media type of messages over HTTPS (RFC 8484 §6).
const MEDIA_TYPE: &str = "application/dns-message";

/// How the query travels.
enum Way {
    Udp(Asker),
    Tcp,
    Tls(Tls),
    Https { tls: Tls, authority: String, path: String },
}

/// A `dns` check.
pub(super) struct Dns {
    target: SocketAddr,
    way: Way,
    expected: Expected,
    /// The query with its length in front (RFC 1035 §4.2.2); the identifier is set for each poll.
    query: Vec<u8>,
    buffer: Vec<u8>,
}

/// Octets of the length field over TCP.
const LENGTH: usize = 2;

impl Dns {
    pub(super) fn new(target: SocketAddr, spec: &Spec) -> Result<Dns, String> {
        let name: Name<Vec<u8>> =
            spec.name.parse().map_err(|e| format!("{:?} is not a domain name: {e}", spec.name))?;
        let qtype: Rtype = spec.qtype.parse().map_err(|_| format!("{:?} is not a query type", spec.qtype))?;
        let class: Class = spec.class.parse().map_err(|_| format!("{:?} is not a query class", spec.class))?;
        let mut question = MessageBuilder::new_vec().question();
        // As clients of a resolver ask; other servers take no notice.
        question.header_mut().set_rd(true);
        // RFC 6840 §5.7: whoever wants to know of AD sets it.
        question.header_mut().set_ad(spec.flags.iter().any(|f| f.bit == FlagBit::Ad));
        question.push((&name, qtype, class)).map_err(|e| format!("the query does not fit: {e}"))?;
        let message = question.finish();
        let mut query = u16::try_from(message.len()).map_err(|e| e.to_string())?.to_be_bytes().to_vec();
        query.extend(message);
        let way = match spec.transport {
            DnsTransport::Udp => Way::Udp(Asker::new(target)),
            DnsTransport::Tcp => Way::Tcp,
            DnsTransport::Tls => Way::Tls(Tls::new(&spec.trust, &target.ip().to_string(), &["dot"])?),
            DnsTransport::Https => Way::Https {
                tls: Tls::new(&spec.trust, &target.ip().to_string(), &["h2", "http/1.1"])?,
                authority: spec.trust.server_name.clone().unwrap_or_else(|| http::authority(target, true)),
                path: spec.path.clone(),
            },
        };
        let expected = Expected::new(name, qtype, class, spec)?;
        Ok(Dns { target, way, expected, query, buffer: vec![0; UDP_BYTES] })
    }

    pub(super) async fn poll(&mut self) -> Result<(), Failure> {
        // RFC 8484 §4.1: zero over HTTPS, where the connection tells which answer belongs to which query.
        let id = if matches!(self.way, Way::Https { .. }) { 0 } else { query_id() };
        self.query[LENGTH..LENGTH + 2].copy_from_slice(&id.to_be_bytes());
        let Dns { target, way, expected, query, buffer } = self;
        match way {
            Way::Udp(asker) => {
                buffer.resize(UDP_BYTES, 0);
                let end = asker.ask(&query[LENGTH..], buffer, |octets| expected.judge(octets, id)).await;
                end.map_err(|e| words(&e))?.map_err(Failure::of_answer)
            }
            Way::Tcp => {
                let stream = TcpStream::connect(*target).await.map_err(|e| words(&e))?;
                over_stream(stream, query, buffer).await?;
                expected.judge_stream(buffer, id).map_err(Failure::of_answer)
            }
            Way::Tls(tls) => {
                over_stream(tls.connect(*target).await?, query, buffer).await?;
                expected.judge_stream(buffer, id).map_err(Failure::of_answer)
            }
            Way::Https { tls, authority, path } => {
                let octets = over_https(tls, *target, authority, path, &query[LENGTH..]).await?;
                expected.judge_stream(&octets, id).map_err(Failure::of_answer)
            }
        }
    }
}

/// Leaves the answer in the buffer.
async fn over_stream(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    query: &[u8],
    buffer: &mut Vec<u8>,
) -> Result<(), String> {
    stream.write_all(query).await.map_err(|e| words(&e))?;
    stream.flush().await.map_err(|e| words(&e))?;
    let length = usize::from(stream.read_u16().await.map_err(|e| words(&e))?);
    buffer.resize(length, 0);
    stream.read_exact(buffer).await.map_err(|e| words(&e))?;
    Ok(())
}

async fn over_https(
    tls: &Tls,
    target: SocketAddr,
    authority: &str,
    path: &str,
    query: &[u8],
) -> Result<Vec<u8>, String> {
    let stream = tls.connect(target).await?;
    let http2 = Tls::agreed_on(&stream, "h2");
    let request = http::post(authority, path, MEDIA_TYPE, query, http2)?;
    let (answer, body) = if http2 {
        http::over_http2(stream, request, MESSAGE_BYTES).await?
    } else {
        http::over_http1(stream, request, MESSAGE_BYTES).await?
    };
    if answer.status != hyper::StatusCode::OK {
        return Err(format!("HTTP status {}, expected 200", answer.status.as_u16()));
    }
    let Body { octets, complete } = body;
    if !complete {
        return Err(format!("answer of more than {MESSAGE_BYTES} octets"));
    }
    Ok(octets)
}
