//! Accepting connections, and who is at their other end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::authority::identity_of;
use crate::auth::{Places, counted_as};

/// Handshakes that may be under way: each takes some 40 KiB and about 1 ms of a core, so this many
/// are a fleet that comes back at once. Whoever comes later waits in the kernel's backlog.
const HANDSHAKES: usize = 256;
/// How many of them one address may have: whoever says nothing holds up nobody else.
const HANDSHAKES_EACH: u32 = 128;
/// How long a handshake may take: a client that says nothing gives its place back.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Finished handshakes that wait for the server, which takes each at once.
const FINISHED: usize = 64;
/// The pause after a connection that could not be accepted: there are too few descriptors, and
/// some of those in use may be given back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Its address.
    pub address: SocketAddr,
    /// Whether the connection is one of TLS.
    pub tls: bool,
    /// The certificate it showed, which our authority has issued.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// A certificate that our authority has issued to an agent and that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The agent.
    pub identity: Uuid,
    /// When the certificate ends.
    pub expires: Timestamp,
}

impl ClientCertificate {
    /// Reads a certificate that was verified already.
    fn parse(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let names = parsed.subject_alternative_name().ok()??;
        let identity = names
            .value
            .general_names
            .iter()
            .find_map(|name| match name {
                GeneralName::URI(uri) => identity_of(uri),
                _ => None,
            })?;
        let expires = Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()?;
        Some(Self { identity, expires })
    }
}

/// A listener without TLS.
#[derive(Debug)]
pub struct PlainListener(pub TcpListener);

impl Listener for PlainListener {
    type Io = TcpStream;
    type Addr = Remote;

    async fn accept(&mut self) -> (TcpStream, Remote) {
        let (stream, address) = accept(&self.0).await;
        let remote = Remote {
            address,
            tls: false,
            certificate: None,
        };
        (stream, remote)
    }

    fn local_addr(&self) -> io::Result<Remote> {
        Ok(Remote {
            address: self.0.local_addr()?,
            tls: false,
            certificate: None,
        })
    }
}

/// A listener with TLS. Handshakes run beside each other, so a slow client holds up nobody.
#[derive(Debug)]
pub struct TlsListener {
    address: SocketAddr,
    finished: mpsc::Receiver<(TlsStream<TcpStream>, Remote)>,
    _accepting: AbortOnDropHandle<()>,
}

impl TlsListener {
    /// Accepts from `listener` until this is dropped.
    ///
    /// # Errors
    /// The listener has no address.
    pub fn new(listener: TcpListener, config: Arc<ServerConfig>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, finished) = mpsc::channel(FINISHED);
        let accepting = tokio::spawn(handshakes(listener, config.into(), sender));
        Ok(Self {
            address,
            finished,
            _accepting: AbortOnDropHandle::new(accepting),
        })
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = Remote;

    async fn accept(&mut self) -> (Self::Io, Remote) {
        match self.finished.recv().await {
            Some(accepted) => accepted,
            // The task that accepts ends with this value only.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Remote> {
        Ok(Remote {
            address: self.address,
            tls: true,
            certificate: None,
        })
    }
}

async fn handshakes(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    finished: mpsc::Sender<(TlsStream<TcpStream>, Remote)>,
) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    let each = Places::new(HANDSHAKES_EACH);
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let (stream, address) = accept(&listener).await;
        let Some(own) = each.take(&counted_as(address.ip())) else {
            tracing::debug!(%address, "a handshake is one too many of its address");
            continue;
        };
        let (acceptor, finished) = (acceptor.clone(), finished.clone());
        // It ends by itself within the time of a handshake, and when nobody takes its result.
        tokio::spawn(async move {
            match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => match remote(&stream, address) {
                    Ok(remote) => {
                        if finished.send((stream, remote)).await.is_err() {
                            tracing::debug!(%address, "the server has stopped");
                        }
                    }
                    Err(refused) => tracing::warn!(%address, refused, "a client is refused"),
                },
                Ok(Err(error)) => tracing::debug!(%address, %error, "a handshake failed"),
                Err(_) => tracing::debug!(%address, "a handshake took too long"),
            }
            drop((place, own));
        });
    }
}

/// Who is at the other end; why a client with a certificate is none of our agents.
fn remote(stream: &TlsStream<TcpStream>, address: SocketAddr) -> Result<Remote, &'static str> {
    let (_, connection) = stream.get_ref();
    let shown = connection.peer_certificates().and_then(<[_]>::first);
    let certificate = match shown {
        None => None,
        // Before TLS 1.3 a client's certificate goes over the wire in the clear (RFC 8446 §1.2).
        Some(_) if connection.protocol_version() != Some(rustls::ProtocolVersion::TLSv1_3) => {
            return Err("agents speak TLS 1.3");
        }
        Some(certificate) => Some(Arc::new(
            ClientCertificate::parse(certificate).ok_or("its certificate names no agent")?,
        )),
    };
    Ok(Remote {
        address,
        tls: true,
        certificate,
    })
}

/// The next connection.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                // An event of a stream is a few small writes: none may wait for an
                // acknowledgement.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot set TCP_NODELAY");
                }
                return (stream, address);
            }
            // The client went away again.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::ConnectionRefused
                ) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
