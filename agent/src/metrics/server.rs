//! `GET /metrics` over HTTP/1.1.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::controller_link::SnapshotRequest;

/// Scrapers at the same time.
const MAX_CONNECTIONS: usize = 16;

/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// The server of the metrics.
pub struct MetricsServer {
    listener: TcpListener,
    snapshots: mpsc::Sender<SnapshotRequest>,
}

impl MetricsServer {
    /// Listens.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn listen(
        address: SocketAddr,
        snapshots: mpsc::Sender<SnapshotRequest>,
    ) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind(address).await?,
            snapshots,
        })
    }

    /// Where it listens.
    #[cfg(test)]
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is dropped.
    pub async fn serve(self) {
        let mut connections = JoinSet::new();
        loop {
            // Both arms are cancel-safe: a connection that is not accepted waits in the
            // kernel, a task that is not joined stays in the set.
            tokio::select! {
                accepted = self.listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                    match accepted {
                        Ok((stream, _)) => {
                            let snapshots = self.snapshots.clone();
                            connections.spawn(connection(stream, snapshots));
                        }
                        Err(error) => {
                            tracing::warn!(%error, "cannot accept a scraper");
                            tokio::time::sleep(Duration::from_millis(100)).await;
                        }
                    }
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

async fn connection(stream: tokio::net::TcpStream, snapshots: mpsc::Sender<SnapshotRequest>) {
    let service = service_fn(|request| {
        let snapshots = snapshots.clone();
        async move { Ok::<_, Infallible>(answer(&request, &snapshots).await) }
    });
    // Without keep-alive an idle scraper holds no place.
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a scraper's connection broke");
    }
}

async fn answer(
    request: &Request<Incoming>,
    snapshots: &mpsc::Sender<SnapshotRequest>,
) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return text(StatusCode::NOT_FOUND, "The metrics are at /metrics.\n");
    }
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "Only GET.\n");
    }
    let (sender, receiver) = oneshot::channel();
    if snapshots.send(sender).await.is_err() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "The agent is stopping.\n");
    }
    let Ok(observed) = receiver.await else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "The agent is stopping.\n");
    };
    match super::page(&observed) {
        Ok(page) => {
            let mut response = text(StatusCode::OK, page);
            let kind = HeaderValue::from_static(prometheus::TEXT_FORMAT);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Err(error) => {
            tracing::error!(%error, "cannot make the metrics");
            text(StatusCode::INTERNAL_SERVER_ERROR, "See the agent's log.\n")
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
