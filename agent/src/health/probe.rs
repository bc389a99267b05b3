//! One try of a check.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use isopath_api::declare::{CheckKind, CheckSpec, StatusRange};
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::CheckKey;
use crate::tls::CheckTls;

/// The most that is kept of a response's head.
const MAX_HEAD: usize = 32 << 10;

/// The most that is read of a response's body. It is read so that the real server sees its
/// answer taken; what comes after this much is nobody's concern.
const MAX_BODY: usize = 64 << 10;

/// Why a try failed.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// It took too long.
    #[error("timeout after {} {doing}", humantime(.after))]
    Timeout {
        after: Duration,
        doing: &'static str,
    },
    /// The handshake of TCP failed.
    #[error("TCP {0}")]
    Tcp(String),
    /// The handshake of TLS failed.
    #[error("TLS {0}")]
    Tls(String),
    /// There was no response, or not a whole one.
    #[error("HTTP {0}")]
    Http(String),
    /// The response has another status.
    #[error("HTTP {status}, wanted {wanted}")]
    Status { status: u16, wanted: StatusRange },
}

fn humantime(duration: &Duration) -> String {
    format!("{duration:?}")
}

/// What is tried, and how.
pub(super) struct Target {
    kind: CheckKind,
    address: SocketAddrV4,
    timeout: Duration,
    /// For HTTP: the request's target and `Host`.
    path: Uri,
    host: HeaderValue,
    status: StatusRange,
    /// For HTTPS: the name that the handshake asks for.
    server_name: ServerName<'static>,
    verify: bool,
    tls: Arc<CheckTls>,
}

impl Target {
    pub(super) fn new((service, server): CheckKey, spec: &CheckSpec, tls: Arc<CheckTls>) -> Self {
        let port = spec.port.unwrap_or(server.0.port());
        let host = spec.host.clone().unwrap_or_else(|| {
            let default_port = match spec.kind {
                CheckKind::None | CheckKind::Tcp | CheckKind::Http => 80,
                CheckKind::Https => 443,
            };
            match service.port().filter(|port| *port != default_port) {
                Some(port) => format!("{}:{port}", service.vip),
                None => service.vip.to_string(),
            }
        });
        Self {
            kind: spec.kind,
            address: SocketAddrV4::new(*server.0.ip(), port),
            timeout: spec.timeout,
            path: spec
                .path
                .as_deref()
                .and_then(|path| path.parse().ok())
                .unwrap_or_default(),
            server_name: server_name(&host, service.vip.0),
            host: HeaderValue::try_from(host)
                .unwrap_or_else(|_| HeaderValue::from_static("invalid")),
            status: spec.status.unwrap_or(StatusRange::DEFAULT),
            verify: spec.verify,
            tls,
        }
    }

    /// Where it connects to.
    #[cfg(test)]
    pub(super) fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Tries once; answers what was found in a few words.
    pub(super) async fn probe(&self) -> Result<String, Failure> {
        let deadline = Deadline {
            at: Instant::now() + self.timeout,
            after: self.timeout,
        };
        let stream = deadline
            .bound("connecting", TcpStream::connect(self.address))
            .await?
            .map_err(|error| Failure::Tcp(tcp_failure(&error)))?;
        match self.kind {
            // Such a check is never started; a connection is all that could be tried.
            CheckKind::None | CheckKind::Tcp => Ok("TCP connected".to_owned()),
            CheckKind::Http => self.get(stream, deadline).await,
            CheckKind::Https => {
                let connector = self.tls.connector(self.verify);
                let handshake = connector.connect(self.server_name.clone(), stream);
                let stream = deadline
                    .bound("in the TLS handshake", handshake)
                    .await?
                    .map_err(|error| Failure::Tls(error.to_string()))?;
                self.get(stream, deadline).await
            }
        }
    }

    /// Asks for the path over a connection and looks at the response.
    async fn get<S>(&self, stream: S, deadline: Deadline) -> Result<String, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|error| http_failure(&error))?;
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static("isopath-agent"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));

        let exchange = pin!(async {
            let response = deadline
                .bound("waiting for the response", sender.send_request(request))
                .await?
                .map_err(|error| http_failure(&error))?;
            let status = response.status().as_u16();
            if !self.status.contains(status) {
                let wanted = self.status;
                return Err(Failure::Status { status, wanted });
            }
            let body = discard(response.into_body());
            deadline.bound("reading the body", body).await??;
            Ok(format!("HTTP {status}"))
        });
        // The connection makes no progress unless it is polled beside the exchange over it.
        match select(exchange, pin!(connection)).await {
            Either::Left((result, _)) => result,
            // The real server has closed; what it sent before is still there to be read.
            Either::Right((_, exchange)) => exchange.await,
        }
    }
}

/// The moment at which a try has failed, whatever it is doing.
#[derive(Clone, Copy)]
struct Deadline {
    at: Instant,
    after: Duration,
}

impl Deadline {
    async fn bound<F: Future>(self, doing: &'static str, step: F) -> Result<F::Output, Failure> {
        let after = self.after;
        timeout_at(self.at, step)
            .await
            .map_err(|_| Failure::Timeout { after, doing })
    }
}

async fn discard(mut body: hyper::body::Incoming) -> Result<(), Failure> {
    let mut read = 0;
    while read < MAX_BODY {
        match body.frame().await {
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(error)) => return Err(http_failure(&error)),
            None => break,
        }
    }
    Ok(())
}

fn tcp_failure(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused".to_owned(),
        io::ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        io::ErrorKind::ConnectionReset => "reset".to_owned(),
        _ => error.to_string(),
    }
}

/// Hyper's errors name the stage and keep the cause apart: both are wanted here.
fn http_failure(error: &hyper::Error) -> Failure {
    let cause = error.source().map(|cause| format!(": {cause}"));
    Failure::Http(format!("{error}{}", cause.unwrap_or_default()))
}

/// The name for the TLS handshake: the host without its port; the VIP where that is no name.
fn server_name(host: &str, vip: Ipv4Addr) -> ServerName<'static> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    ServerName::try_from(name.to_owned())
        .unwrap_or_else(|_| ServerName::IpAddress(std::net::IpAddr::V4(vip).into()))
}
