//! The session that every page but the sign-in needs, and the role that changes need.

use axum::extract::FromRequestParts;
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Redirect, Response};
use isopath_api::access::Role;

use super::layout::error_page;
use super::login::login_url;
use crate::app::{App, Peer};
use crate::asked::Asked;
use crate::auth::{Principal, Session, Via};

/// Whoever is signed in and does not ask too often; anyone else is sent to the sign-in, which leads
/// back to the page.
pub(super) struct SignedIn(pub(super) Session);

impl FromRequestParts<App> for SignedIn {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        match app.session(&parts.headers).await {
            Ok(Some(session)) => {
                Asked::note(parts, &session.user, Via::Session);
                match app.limits().api(&session.user, app.clock().now()) {
                    Ok(()) => Ok(Self(session)),
                    Err(error) => Err(error_page(&error, Some(session))),
                }
            }
            Ok(None) => {
                let next = (parts.method == Method::GET).then(|| parts.uri.path());
                Err(Redirect::to(&login_url(next.unwrap_or("/"))).into_response())
            }
            Err(error) => Err(error_page(&error, None)),
        }
    }
}

/// Whoever is signed in and may change something; a viewer is refused.
pub(super) struct MayOperate {
    pub(super) session: Session,
    /// The same, as what is done on their word has it.
    pub(super) principal: Principal,
}

impl FromRequestParts<App> for MayOperate {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let SignedIn(session) = SignedIn::from_request_parts(parts, app).await?;
        let principal = Principal::of_session(&session, Peer::of(parts));
        match principal.check_role(Role::Operator) {
            Ok(()) => Ok(Self { session, principal }),
            Err(error) => Err(error_page(&error, Some(session))),
        }
    }
}
