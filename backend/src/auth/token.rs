//! Bearer tokens (RFC 6750): `ispu_` for operators, `ispa_` for agents.

use std::collections::HashMap;

use axum::extract::{FromRequestParts, Path};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use isopath_api::ids::ClusterName;

use super::secret::{random_text, sha256_hex};
use crate::app::App;
use crate::error::Error;
use crate::store::tokens::{Role, TokenRow};

const BASE62: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// 62^40 is above 2^238.
const RANDOM_CHARACTERS: usize = 40;

/// A fresh token. Its prefix lets secret scanners and people tell what it is.
pub fn new_token(role: &Role) -> String {
    let prefix = match role {
        Role::Operator => "ispu_",
        Role::Agent { .. } => "ispa_",
    };
    format!("{prefix}{}", random_text(BASE62, RANDOM_CHARACTERS))
}

/// What is stored of a token.
pub fn token_hash(token: &str) -> String {
    sha256_hex(&[token.as_bytes()])
}

/// A request with an operator's token, as an extractor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// The token's name.
    pub name: String,
}

impl FromRequestParts<App> for Operator {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let token = bearer(parts, app).await?;
        match token.role {
            Role::Operator => Ok(Self { name: token.name }),
            Role::Agent { .. } => Err(Error::Forbidden {
                detail: "an agent's token is good for its cluster's desired state and reports \
                         only; this takes an operator's"
                    .to_owned(),
            }),
        }
    }
}

/// A request with a token that is good for the agents of the path's `{cluster}`, as an
/// extractor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// The token's name.
    pub name: String,
}

impl FromRequestParts<App> for Agent {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let token = bearer(parts, app).await?;
        let Role::Agent { cluster } = &token.role else {
            return Ok(Self { name: token.name });
        };
        let asked = path_cluster(parts).await;
        if asked.as_ref() == Some(cluster) {
            Ok(Self { name: token.name })
        } else {
            Err(Error::Forbidden {
                detail: format!("this token is good for cluster {cluster} only"),
            })
        }
    }
}

async fn path_cluster(parts: &mut Parts) -> Option<ClusterName> {
    let Path(path) = Path::<HashMap<String, String>>::from_request_parts(parts, &())
        .await
        .ok()?;
    path.get("cluster")?.parse().ok()
}

async fn bearer(parts: &Parts, app: &App) -> Result<TokenRow, Error> {
    let unauthenticated = |detail: &str| Error::Unauthenticated {
        detail: detail.to_owned(),
    };
    let header = parts
        .headers
        .get(AUTHORIZATION)
        .ok_or_else(|| unauthenticated("send a token: Authorization: Bearer …"))?;
    let token = header
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or_else(|| unauthenticated("expected Authorization: Bearer …"))?;
    app.token(&token_hash(token))
        .await?
        .ok_or_else(|| unauthenticated("the token is not known here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_shows_its_role_and_is_never_the_same_twice() {
        let cluster = "edge".parse().unwrap();
        let agent = new_token(&Role::Agent { cluster });
        assert!(agent.starts_with("ispa_"), "{agent}");
        assert_eq!(agent.len(), 45);
        let operator = new_token(&Role::Operator);
        assert!(operator.starts_with("ispu_"), "{operator}");
        assert_ne!(operator, new_token(&Role::Operator));
    }

    #[test]
    fn the_stored_form_does_not_show_the_token() {
        let token = new_token(&Role::Operator);
        let hash = token_hash(&token);
        assert_eq!(hash.len(), 64);
        assert!(!hash.contains(&token[5..]));
    }
}
