//! People, tokens, sessions, and the audit log.

mod audit;
mod sessions;
mod tokens;
mod users;

use axum::extract::{DefaultBodyLimit, FromRequestParts};
use axum::http::request::Parts;
use isopath_api::access::{NAME_EXPECTED, is_name};
use isopath_api::fault::Fault;
use serde::Deserialize;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use super::page::{ITEMS, MOST_ITEMS};
use super::path::named;
use crate::app::App;
use crate::error::Error;

/// The largest body of what is about people, in bytes.
pub(crate) const ACCESS_LIMIT: usize = 4 << 10;

/// The routes below `/api/v1`.
pub(super) fn router() -> OpenApiRouter<App> {
    let limit = || DefaultBodyLimit::max(ACCESS_LIMIT);
    OpenApiRouter::new()
        .routes(routes!(users::list, users::create).layer(limit()))
        .routes(routes!(users::password).layer(limit()))
        .routes(routes!(users::view, users::change, users::delete).layer(limit()))
        .routes(routes!(tokens::list, tokens::create).layer(limit()))
        .routes(routes!(tokens::revoke))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::end))
        .routes(routes!(audit::list))
}

/// The `{name}` of the path.
#[derive(Debug)]
struct Named(String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        named(parts, state, "name").await.map(Self)
    }
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct PageQuery {
    /// How many, at most 200.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// Only those after this name or id, the last one of the page before.
    #[serde(default)]
    #[param(max_length = 64)]
    after: String,
}

/// The longest name or id that a page begins after, in characters.
const LONGEST_AFTER: usize = 64;

impl PageQuery {
    fn after(&self) -> Result<&str, Error> {
        let length = self.after.chars().count();
        if length <= LONGEST_AFTER {
            Ok(&self.after)
        } else {
            Err(Error::BadRequest {
                detail: format!(
                    "?after: expected at most {LONGEST_AFTER} characters, found {length}"
                ),
            })
        }
    }

    fn limit(&self) -> Result<u32, Error> {
        let limit = self.limit.unwrap_or(ITEMS);
        if (1..=MOST_ITEMS).contains(&limit) {
            Ok(limit)
        } else {
            Err(Error::BadRequest {
                detail: format!("?limit: expected 1 to {MOST_ITEMS}, found {limit}"),
            })
        }
    }
}

fn check_name(name: &str) -> Option<Fault> {
    (!is_name(name)).then(|| Fault::new("/name", NAME_EXPECTED, format_args!("{name:?}")))
}
