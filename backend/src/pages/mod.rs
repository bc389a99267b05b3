//! The pages.

use axum::Router;

use crate::app::App;

/// The routes of the pages. It sets no fallback: that one is the whole server's.
pub(crate) fn router() -> Router<App> {
    Router::new()
}
