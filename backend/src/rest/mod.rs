//! The server's routes: the REST API, the pages, and what monitoring reads.

mod agents;
mod body;
mod clusters;
mod directors;
mod events;
mod path;
mod service;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, header};
use axum::routing::{get, post};
use tower_http::set_header::SetResponseHeaderLayer;

use crate::app::App;
use crate::error::Error;
use crate::pages;

/// The largest declaration, in bytes.
const DECLARATION_LIMIT: usize = 1 << 20;
/// The largest report, in bytes.
const REPORT_LIMIT: usize = 256 << 10;
/// The largest body of anything else, in bytes.
const BODY_LIMIT: usize = 16 << 10;

/// Everything that the server answers.
pub fn router(app: App) -> Router {
    Router::new()
        .nest("/api/v1", api())
        .route("/healthz", get(service::healthz))
        .route("/readyz", get(service::readyz))
        .route("/metrics", get(service::metrics))
        .merge(pages::router())
        .fallback(no_such_resource)
        .method_not_allowed_fallback(async || Error::MethodNotAllowed)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(default_header(header::CONTENT_SECURITY_POLICY, CSP))
        .layer(default_header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // `no-referrer` would make browsers send `Origin: null` with our own forms.
        .layer(default_header(header::REFERRER_POLICY, "same-origin"))
        .layer(default_header(header::CACHE_CONTROL, "no-store"))
        .with_state(app)
}

/// Pages are made of nothing but what this server itself serves.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                   font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; \
                   frame-ancestors 'none'";

fn api() -> Router<App> {
    let director = "/clusters/{cluster}/directors/{director}";
    Router::new()
        .route("/clusters", get(clusters::list))
        .route(
            "/clusters/{cluster}",
            get(clusters::view)
                .put(clusters::put)
                .layer(DefaultBodyLimit::max(DECLARATION_LIMIT)),
        )
        .route("/clusters/{cluster}/revisions", get(clusters::revisions))
        .route(
            "/clusters/{cluster}/revisions/{revision}",
            get(clusters::revision),
        )
        .route("/clusters/{cluster}/vips", get(clusters::vips))
        .route("/clusters/{cluster}/services", get(clusters::services))
        .route("/clusters/{cluster}/directors", get(directors::list))
        .route(director, get(directors::view))
        .route(&format!("{director}/drain"), post(directors::drain))
        .route(&format!("{director}/undrain"), post(directors::undrain))
        .route(&format!("{director}/desired"), get(agents::desired))
        .route(
            &format!("{director}/observed"),
            post(agents::observed).layer(DefaultBodyLimit::max(REPORT_LIMIT)),
        )
        .route("/operations/{operation}", get(directors::operation))
        .route("/events", get(events::list))
}

async fn no_such_resource() -> Error {
    Error::not_found("such resource")
}

/// A header of every answer that does not set it itself.
fn default_header(
    name: header::HeaderName,
    value: &'static str,
) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

#[cfg(test)]
mod tests;
