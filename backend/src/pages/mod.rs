//! The pages: rendered here, working without JavaScript, and kept up to date by [`live`].
//!
//! Each page is a typed struct beside its handler and a template under `web/templates/`.

mod assets;
mod cluster;
mod clusters;
mod drain;
mod layout;
mod live;
mod login;
mod signed_in;
mod status;
mod text;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use crate::app::App;
use crate::rest::ACCESS_LIMIT;

/// The routes of the pages. It sets no fallback: that one is the whole server's.
pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/", get(clusters::root))
        .route(
            "/login",
            get(login::get)
                .post(login::post)
                .layer(DefaultBodyLimit::max(ACCESS_LIMIT)),
        )
        .route("/logout", post(login::logout))
        .route("/clusters", get(clusters::get))
        .route("/clusters/{cluster}", get(cluster::get))
        .route(
            "/clusters/{cluster}/directors/{director}/drain",
            get(drain::get).post(drain::post),
        )
        .route(
            "/clusters/{cluster}/directors/{director}/undrain",
            post(drain::undrain),
        )
        .route("/live", get(live::get))
        .route("/assets/{name}", get(assets::get))
}
