//! Who asks, by a bearer token or by a session's cookie, and whether they may.

use std::net::IpAddr;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::Method;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use isopath_api::access::Role;
use isopath_api::ids::ClusterName;

use super::form::check_form;
use super::token::check_token;
use super::{By, Session, Via, token_hash};
use crate::app::{App, Peer};
use crate::asked::Asked;
use crate::error::Error;
use crate::store::tokens::{Clusters, Scope, TokenRow};

/// The header in which a page's script repeats its session's token.
const CSRF_HEADER: &str = "x-csrf-token";

/// A person or a script that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The user's or the token's name.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Where.
    pub clusters: Clusters,
    /// How they showed who they are.
    pub via: Via,
    /// The address that asks.
    pub peer: IpAddr,
    /// The request's id.
    pub request_id: Option<String>,
}

impl Principal {
    /// Someone who is signed in: their role is good for every cluster.
    pub(crate) fn of_session(session: &Session, peer: IpAddr) -> Self {
        Self {
            name: session.user.clone(),
            role: session.role,
            clusters: Clusters::All,
            via: Via::Session,
            peer,
            request_id: crate::asked::request_id(),
        }
    }

    /// What is done on their word.
    pub fn by(&self) -> By {
        By {
            name: self.name.clone(),
            via: self.via,
            peer: Some(self.peer),
            request_id: self.request_id.clone(),
        }
    }

    /// Whether they may see or touch this cluster.
    pub fn may_touch(&self, cluster: &ClusterName) -> bool {
        self.clusters.contains(cluster)
    }

    /// Refuses one who may not touch this cluster.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn check_cluster(&self, cluster: &ClusterName) -> Result<(), Error> {
        if self.may_touch(cluster) {
            Ok(())
        } else {
            Err(Error::Forbidden {
                detail: format!("{} is good for other clusters than {cluster}", self.name),
            })
        }
    }

    /// Refuses one of a lower role.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn check_role(&self, needed: Role) -> Result<(), Error> {
        if self.role >= needed {
            return Ok(());
        }
        Err(Error::Forbidden {
            detail: format!(
                "this takes the role {needed}; {} is {}",
                self.name, self.role
            ),
        })
    }
}

/// Anyone who is known, as an extractor: what only reads. The cluster of the path is one that
/// they may touch; what is listed without one in the path, the handler must leave out itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer(pub Principal);

/// An operator or an admin, as an extractor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator(pub Principal);

/// An admin, as an extractor. Where the path has no cluster, one of all clusters: whoever may
/// make tokens may make one for everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin(pub Principal);

impl FromRequestParts<App> for Viewer {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        authorize(parts, app, Role::Viewer).await.map(Self)
    }
}

impl FromRequestParts<App> for Operator {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        authorize(parts, app, Role::Operator).await.map(Self)
    }
}

impl FromRequestParts<App> for Admin {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let principal = authorize(parts, app, Role::Admin).await?;
        match (&principal.clusters, path_cluster(parts).await) {
            (Clusters::All, _) | (Clusters::Only(_), Some(_)) => Ok(Self(principal)),
            (Clusters::Only(_), None) => Err(Error::Forbidden {
                detail: "this takes an admin of all clusters".to_owned(),
            }),
        }
    }
}

async fn authorize(parts: &mut Parts, app: &App, needed: Role) -> Result<Principal, Error> {
    let principal = if parts.headers.contains_key(AUTHORIZATION) {
        of_token(parts, bearer(parts, app).await?.0)?
    } else {
        of_cookie(parts, app).await?
    };
    app.limits().api(&principal.name, app.clock().now())?;
    principal.check_role(needed)?;
    if let Some(cluster) = path_cluster(parts).await {
        principal.check_cluster(&cluster)?;
    }
    Ok(principal)
}

fn of_token(parts: &Parts, token: TokenRow) -> Result<Principal, Error> {
    match token.scope {
        Scope::User { role, clusters } => Ok(Principal {
            name: token.name,
            role,
            clusters,
            via: Via::Token,
            peer: Peer::of(parts),
            request_id: crate::asked::request_id(),
        }),
        Scope::Agent { .. } => Err(Error::Forbidden {
            detail: "an agent's token is good for its cluster's desired state and reports only; \
                     this takes a person's"
                .to_owned(),
        }),
    }
}

/// A page's script sends its session's cookie. SameSite=Strict keeps other sites' pages from
/// sending it; what changes anything needs the session's token besides, as a form does.
async fn of_cookie(parts: &Parts, app: &App) -> Result<Principal, Error> {
    let session = app.session(&parts.headers).await?;
    let session = session.ok_or_else(|| Error::Unauthenticated {
        detail: "send a token: Authorization: Bearer …".to_owned(),
    })?;
    let principal = Principal::of_session(&session, Peer::of(parts));
    Asked::note(parts, &principal.name, principal.via);
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        let token = parts.headers.get(CSRF_HEADER);
        let token = token.and_then(|value| value.to_str().ok()).unwrap_or("");
        check_form(&parts.headers, &session, token)?;
    }
    Ok(principal)
}

/// The cluster of the path, where it has one that can be a cluster's name.
pub(super) async fn path_cluster(parts: &mut Parts) -> Option<ClusterName> {
    path_name(parts, "cluster").await?.parse().ok()
}

/// What the path has in a place.
pub(super) async fn path_name(parts: &mut Parts, place: &str) -> Option<String> {
    let params = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    let found = params.iter().find(|(name, _)| *name == place);
    found.map(|(_, value)| value.to_owned())
}

/// The token that the request carries, which is good now, and its hash.
pub(super) async fn bearer(parts: &Parts, app: &App) -> Result<(TokenRow, String), Error> {
    let unauthenticated = |detail: String| Error::Unauthenticated { detail };
    let token = parts
        .headers
        .get(AUTHORIZATION)
        .and_then(|header| header.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or_else(|| unauthenticated("send a token: Authorization: Bearer …".to_owned()))?;
    check_token(token).map_err(|error| unauthenticated(error.to_string()))?;
    let hash = token_hash(token);
    let token = app
        .token(&hash)
        .await?
        .ok_or_else(|| unauthenticated("the token is not known here".to_owned()))?;
    Asked::note(parts, &token.name, Via::Token);
    if let Some(refusal) = token.refusal(app.clock().now().wall) {
        return Err(unauthenticated(refusal));
    }
    app.audit().token_used(&token.name);
    Ok((token, hash))
}
