//! What monitoring reads.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use crate::app::App;
use crate::error::Error;
use crate::metrics;

/// `GET /healthz`: the process answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: the database answers as well, and the server is not stopping.
pub(super) async fn readyz(State(app): State<App>) -> Result<&'static str, Error> {
    if app.shutdown().is_cancelled() {
        return Err(Error::Stopping);
    }
    app.store().ping().await?;
    Ok("ok\n")
}

/// `GET /metrics`, in the Prometheus text format.
pub(super) async fn metrics(State(app): State<App>) -> Result<impl IntoResponse, Error> {
    let text = metrics::text(&app).map_err(|error| Error::Internal {
        what: format!("cannot write the metrics: {error}"),
    })?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text))
}
