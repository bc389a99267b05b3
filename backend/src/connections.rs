//! Serving connections: how many, and how long one may keep a place without asking anything.

use std::io;
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

use crate::auth::LimitSettings;
use crate::tls::Remote;

/// The most headers of a request: browsers send some twenty.
const HEADERS: usize = 64;

/// The most bytes of a request's line and headers together.
const HEADERS_SIZE: usize = 32 << 10;

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
        let connection = Connection {
            remote,
            router: router.clone(),
            builder: builder.clone(),
            shutdown: shutdown.clone(),
            _place: place,
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
    _place: OwnedSemaphorePermit,
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
