//! The session that every page but the sign-in needs.

use axum::extract::FromRequestParts;
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Redirect, Response};

use super::layout::error_page;
use super::login::login_url;
use crate::app::App;
use crate::auth::Session;

/// Whoever is signed in; anyone else is sent to the sign-in, which leads back to the page.
pub(super) struct SignedIn(pub(super) Session);

impl FromRequestParts<App> for SignedIn {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        match app.session(&parts.headers).await {
            Ok(Some(session)) => Ok(Self(session)),
            Ok(None) => {
                let next = (parts.method == Method::GET).then(|| parts.uri.path());
                Err(Redirect::to(&login_url(next.unwrap_or("/"))).into_response())
            }
            Err(error) => Err(error_page(&error, None)),
        }
    }
}
