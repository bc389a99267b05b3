//! What monitoring reads.

use axum::extract::{FromRequestParts, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::IntoResponse;

use crate::app::{App, Peer};
use crate::auth::Viewer;
use crate::error::Error;
use crate::metrics;
use crate::store::tokens::Clusters;

/// `GET /healthz`: the process answers. That the database is read-only stands in a line of its
/// own: another process would find the same disk.
pub(super) async fn healthz(State(app): State<App>) -> String {
    with_storage(&app)
}

/// `GET /readyz`: the database answers as well, and the server is not stopping. A database that
/// is read-only is ready: what is known is served, reports are taken, directors keep what they
/// have. A load balancer that took the controller away for it would take all of that away.
pub(super) async fn readyz(State(app): State<App>) -> Result<String, Error> {
    if app.shutdown().is_cancelled() {
        return Err(Error::Stopping);
    }
    app.store().ping().await?;
    Ok(with_storage(&app))
}

fn with_storage(app: &App) -> String {
    match app.store().read_only() {
        Some(read_only) => format!("ok\nread-only: {read_only}\n"),
        None => "ok\n".to_owned(),
    }
}

/// Who reads the metrics: anyone on the controller's own host, and from elsewhere someone who is
/// known, who sees the clusters that they may touch.
pub(super) struct Monitoring {
    clusters: Clusters,
}

/// What a proxy adds to a request that it passes on: then it only seems to come from this host.
const FORWARDED: [&str; 3] = ["forwarded", "x-forwarded-for", "x-real-ip"];

impl FromRequestParts<App> for Monitoring {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let passed_on = FORWARDED
            .iter()
            .any(|name| parts.headers.contains_key(*name));
        let shows_who = parts.headers.contains_key(header::AUTHORIZATION);
        if Peer::of(parts).is_loopback() && !passed_on && !shows_who {
            let clusters = Clusters::All;
            return Ok(Self { clusters });
        }
        let Viewer(principal) = Viewer::from_request_parts(parts, app).await?;
        let clusters = principal.clusters;
        Ok(Self { clusters })
    }
}

/// `GET /metrics`, in the Prometheus text format.
pub(super) async fn metrics(
    Monitoring { clusters }: Monitoring,
    State(app): State<App>,
) -> Result<impl IntoResponse, Error> {
    let text = metrics::text(&app, &clusters).map_err(|error| Error::Internal {
        what: format!("cannot write the metrics: {error}"),
    })?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text))
}
