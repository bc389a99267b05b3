//! Serving connections: how many, and how long one may keep a place without asking anything.

use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::serve::Listener;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::auth::{LimitSettings, Place, Places, counted_as};
use crate::tls::Remote;

/// The most headers of a request: browsers send some twenty.
const HEADERS: usize = 64;

/// The most bytes of a request's line and headers together.
const HEADERS_SIZE: usize = 32 << 10;

/// The part of all connections that one address can have: nobody alone takes them all. Those of
/// loopback addresses may be everybody's, behind a proxy.
const EACH_OF: u32 = 2;

/// Serves whoever connects until `shutdown`, and then lets what is under way end.
///
/// # Errors
/// None so far; whoever waits for it learns how it ended.
pub(crate) async fn serve<L>(
    mut listener: L,
    router: Router,
    limits: LimitSettings,
    shutdown: CancellationToken,
) -> io::Result<()>
where
    L: Listener<Addr = Remote>,
{
    let most = usize::try_from(limits.connections).unwrap_or(usize::MAX);
    let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
    let each = Places::new(limits.connections.div_ceil(EACH_OF));
    let open = TaskTracker::new();
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(HEADERS)
        .max_buf_size(HEADERS_SIZE);
    loop {
        // Both are cancel-safe: nothing is accepted before there is a place, and a connection
        // that was accepted is returned at once. Whoever finds none waits in the backlog.
        let accepted = tokio::select! {
            accepted = accept(&mut listener, &places) => accepted,
            () = shutdown.cancelled() => break,
        };
        let Some((io, remote, place)) = accepted else {
            break;
        };
        let peer = remote.address.ip();
        let own = match peer.to_canonical().is_loopback() {
            true => None,
            false => match each.take(&counted_as(peer)) {
                Some(own) => Some(own),
                None => {
                    tracing::debug!(%peer, "a connection is one too many of its address");
                    continue;
                }
            },
        };
        let connection = Connection {
            remote,
            router: router.clone(),
            builder: builder.clone(),
            shutdown: shutdown.clone(),
            _places: (place, own),
        };
        open.spawn(connection.run(TokioIo::new(io)));
    }
    drop(listener);
    open.close();
    open.wait().await;
    Ok(())
}

async fn accept<L: Listener>(
    listener: &mut L,
    places: &Arc<Semaphore>,
) -> Option<(L::Io, L::Addr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    let (io, remote) = listener.accept().await;
    Some((io, remote, place))
}

/// One connection.
struct Connection {
    remote: Remote,
    router: Router,
    builder: http1::Builder,
    shutdown: CancellationToken,
    /// Given back with the connection.
    _places: (OwnedSemaphorePermit, Option<Place<IpAddr>>),
}

impl Connection {
    async fn run<I>(self, io: TokioIo<I>)
    where
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let answer = service_fn(|request: Request<Incoming>| {
            let router = self.router.clone();
            let mut request = request.map(Body::new);
            let remote = self.remote.clone();
            request.extensions_mut().insert(ConnectInfo(remote));
            router.oneshot(request)
        });
        let mut served = pin!(self.builder.serve_connection(io, answer));
        // A connection may be polled again after the other arm; a cancelled token stays so.
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = self.shutdown.cancelled() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            // Clients go away and time out at all times.
            tracing::debug!(address = %self.remote.address, %error, "a connection failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::sync::mpsc;

    use super::*;

    /// Connections from wherever a test says.
    struct Listening(mpsc::Receiver<(DuplexStream, Remote)>);

    impl Listener for Listening {
        type Io = DuplexStream;
        type Addr = Remote;

        async fn accept(&mut self) -> (DuplexStream, Remote) {
            match self.0.recv().await {
                Some(accepted) => accepted,
                None => std::future::pending().await,
            }
        }

        fn local_addr(&self) -> io::Result<Remote> {
            Ok(from("127.0.0.1"))
        }
    }

    fn from(address: &str) -> Remote {
        Remote {
            address: (address.parse::<IpAddr>().unwrap(), 1).into(),
            tls: false,
            certificate: None,
        }
    }

    /// The first line of the answer to a request on a connection; nothing where it is closed.
    async fn ask(io: &mut DuplexStream) -> Option<String> {
        io.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .ok()?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(io.read_u8().await.ok()?);
        }
        let text = String::from_utf8(answer).unwrap();
        text.lines().next().map(str::to_owned)
    }

    #[tokio::test]
    async fn one_address_does_not_take_all_connections() {
        let (connect, waiting) = mpsc::channel(1);
        let shutdown = CancellationToken::new();
        let limits = LimitSettings {
            connections: 8,
            ..LimitSettings::default()
        };
        let served = tokio::spawn(serve(
            Listening(waiting),
            Router::new(),
            limits,
            shutdown.clone(),
        ));
        let open = async |address: &str| {
            let (here, there) = duplex(4096);
            connect.send((there, from(address))).await.unwrap();
            here
        };
        let found = Some("HTTP/1.1 404 Not Found".to_owned());
        let mut held = Vec::new();
        for n in 0..4 {
            let mut io = open(&format!("2001:db8::{n}")).await;
            assert_eq!(ask(&mut io).await, found);
            held.push(io);
        }
        assert_eq!(ask(&mut open("2001:db8::5").await).await, None);
        assert_eq!(ask(&mut open("192.0.2.1").await).await, found);
        for _ in 0..3 {
            let mut io = open("127.0.0.1").await;
            assert_eq!(ask(&mut io).await, found, "a proxy has everybody's");
            held.push(io);
        }
        shutdown.cancel();
        served.await.unwrap().unwrap();
    }
}
