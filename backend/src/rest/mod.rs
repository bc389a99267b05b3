//! The server's routes: the REST API, the pages, and what monitoring reads.

mod access;
mod agents;
mod body;
mod clusters;
mod directors;
mod ecmp;
mod events;
mod fleet;
pub(crate) mod idempotency;
pub mod openapi;
pub(crate) mod operations;
mod page;
mod path;
mod precondition;
mod real_servers;
mod report;
mod revisions;
mod samples;
mod service;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, header};
use axum::routing::get;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

pub(crate) use access::ACCESS_LIMIT;

use crate::app::App;
use crate::asked;
use crate::error::Error;
use crate::metrics;
use crate::pages;

pub(crate) use precondition::{etag, etag_value};

/// The largest declaration, in bytes.
const DECLARATION_LIMIT: usize = 1 << 20;
/// The largest body of anything else, in bytes.
const BODY_LIMIT: usize = 16 << 10;

/// Everything that the server answers.
pub fn router(app: App) -> Router {
    Router::new()
        .merge(Router::from(api()))
        .route("/api/openapi.json", get(openapi::show))
        .route("/healthz", get(service::healthz))
        .route("/readyz", get(service::readyz))
        .route("/metrics", get(service::metrics))
        .merge(pages::router())
        .fallback(no_such_resource)
        .method_not_allowed_fallback(async || Error::MethodNotAllowed)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(axum::middleware::from_fn_with_state(
            app.clone(),
            metrics::count,
        ))
        .layer(axum::middleware::from_fn_with_state(
            app.clone(),
            asked::identify,
        ))
        // Also on what is answered before any route is.
        .layer(default_header(header::CONTENT_SECURITY_POLICY, CSP))
        .layer(default_header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // `no-referrer` would make browsers send `Origin: null` with our own forms.
        .layer(default_header(header::REFERRER_POLICY, "same-origin"))
        // Framing is refused by the policy's `frame-ancestors`, which every browser knows that
        // knows these.
        .layer(default_header(OPENER_POLICY, "same-origin"))
        .layer(default_header(PERMISSIONS_POLICY, NO_PERMISSIONS))
        .layer(tower::util::option_layer(app.is_tls().then(|| {
            // A year, as long as most proxies set. Not the subdomains': they are not ours.
            default_header(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000")
        })))
        .layer(default_header(header::CACHE_CONTROL, "no-store"))
        .with_state(app)
}

const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

/// What pages here never ask of a browser.
const NO_PERMISSIONS: &str = "camera=(), microphone=(), geolocation=(), payment=(), usb=()";

/// Pages are made of nothing but what this server itself serves.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                   font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; \
                   frame-ancestors 'none'";

/// The API's routes with their descriptions.
fn api() -> OpenApiRouter<App> {
    let declarations = DefaultBodyLimit::max(DECLARATION_LIMIT);
    let v1 = OpenApiRouter::new()
        .routes(routes!(clusters::list))
        .routes(routes!(clusters::view, clusters::put).layer(declarations))
        .routes(routes!(clusters::declaration))
        .routes(routes!(revisions::list))
        .routes(routes!(revisions::show))
        .routes(routes!(revisions::diff))
        .routes(routes!(revisions::rollback))
        .routes(routes!(clusters::vips))
        .routes(routes!(ecmp::view))
        .routes(routes!(clusters::services))
        .routes(routes!(samples::list))
        .routes(routes!(directors::list))
        .routes(routes!(directors::view))
        .routes(routes!(operations::drain_director))
        .routes(routes!(operations::undrain_director))
        .routes(routes!(real_servers::list))
        .routes(routes!(real_servers::view))
        .routes(routes!(operations::drain_real_server))
        .routes(routes!(operations::undrain_real_server))
        .routes(routes!(operations::drain_vip))
        .routes(routes!(operations::undrain_vip))
        .routes(routes!(agents::desired))
        .routes(routes!(agents::observed))
        .routes(routes!(operations::list))
        .routes(routes!(operations::view))
        .routes(routes!(operations::cancel))
        .routes(routes!(events::list))
        .routes(routes!(fleet::make_token))
        .routes(routes!(fleet::enroll))
        .routes(routes!(fleet::renew))
        .routes(routes!(fleet::list))
        .routes(routes!(fleet::revoke));
    let v1 = v1.merge(access::router());
    OpenApiRouter::with_openapi(openapi::frame()).nest("/api/v1", v1)
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
