//! Tokens of the API.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use isopath_api::access::{MOST_CLUSTERS, MadeToken, NewToken, Role, TokenRole, TokenView};
use isopath_api::fault::Fault;
use isopath_api::ids::ClusterName;

use super::super::body::JsonBody;
use super::super::openapi::{Changes, Reads};
use super::super::path::Query;
use super::{Named, PageQuery, check_name};
use crate::app::App;
use crate::auth::{Admin, TokenKind, new_token, token_hash};
use crate::error::Error;
use crate::store::audit::{self, Entry};
use crate::store::tokens::{self, Clusters, Scope, TokenRow};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The most days that a token can be good for, where it is not good until it is revoked.
const MOST_DAYS: u16 = 3650;

fn view_of(row: TokenRow) -> TokenView {
    let (role, clusters) = match row.scope {
        Scope::User { role, clusters } => {
            let role = match role {
                Role::Viewer => TokenRole::Viewer,
                Role::Operator => TokenRole::Operator,
                Role::Admin => TokenRole::Admin,
            };
            match clusters {
                Clusters::All => (role, None),
                Clusters::Only(clusters) => (role, Some(clusters)),
            }
        }
        Scope::Agent { cluster } => (TokenRole::Agent, Some([cluster].into())),
    };
    TokenView {
        name: row.name,
        role,
        clusters,
        made_by: row.made_by,
        made: row.made,
        expires: row.expires,
        revoked: row.revoked,
        used: row.used,
    }
}

/// `GET /tokens`, by name.
#[utoipa::path(
    get,
    path = "/tokens",
    tag = "access",
    params(PageQuery),
    responses((status = 200, description = "The tokens, by name; none of them can be shown again", body = Vec<TokenView>), Reads)
)]
pub(super) async fn list(
    _: Admin,
    Query(query): Query<PageQuery>,
    State(app): State<App>,
) -> Result<Json<Vec<TokenView>>, Error> {
    let mut reader = app.store().read().await?;
    let found = tokens::page(&mut reader, query.after()?, query.limit()?).await?;
    Ok(Json(found.into_iter().map(view_of).collect()))
}

/// `POST /tokens`
#[utoipa::path(
    post,
    path = "/tokens",
    tag = "access",
    request_body = NewToken,
    responses((status = 201, description = "The token, shown now and never again", body = MadeToken), Changes)
)]
pub(super) async fn create(
    Admin(principal): Admin,
    State(app): State<App>,
    body: JsonBody,
) -> Result<(StatusCode, Json<MadeToken>), Error> {
    let new: NewToken = body.parse(faults)?;
    let scope = scope(&new).ok_or_else(|| Error::Internal {
        what: "a token's scope was not checked".to_owned(),
    })?;
    let token = new_token(match scope {
        Scope::User { .. } => TokenKind::User,
        Scope::Agent { .. } => TokenKind::Agent,
    });
    let now = app.clock().now().wall;
    let mut row = TokenRow::new(&new.name, scope, &principal.name, now);
    row.expires = new.expires_days.map(|days| now + DAY * u32::from(days));
    let mut transaction = app.store().begin().await?;
    if !tokens::insert(&mut transaction, &token_hash(&token), &row).await? {
        let detail = format!("there is a token called {:?} already", new.name);
        return Err(Error::conflict(detail));
    }
    let (object, detail) = (format!("token {}", row.name), row.scope.to_string());
    let entry = Entry::done("token.create", &object, &detail);
    audit::insert(&mut transaction, &principal.by(), entry, now).await?;
    transaction.commit().await?;
    let info = view_of(row);
    Ok((StatusCode::CREATED, Json(MadeToken { info, token })))
}

fn faults(new: &NewToken) -> Vec<Fault> {
    let mut faults: Vec<_> = check_name(&new.name).into_iter().collect();
    let count = new.clusters.as_ref().map(std::collections::BTreeSet::len);
    let expected = match (new.role, count) {
        (TokenRole::Agent, Some(1)) => None,
        (TokenRole::Agent, _) => Some("exactly one cluster for an agent".to_owned()),
        (_, None) => None,
        (_, Some(count)) if (1..=MOST_CLUSTERS).contains(&count) => None,
        (_, Some(_)) => Some(format!("1 to {MOST_CLUSTERS} clusters, or none for all")),
    };
    if let Some(expected) = expected {
        faults.push(Fault::new("/clusters", expected, count.unwrap_or(0)));
    }
    if let Some(days) = new.expires_days
        && !(1..=MOST_DAYS).contains(&days)
    {
        let expected = format!("1 to {MOST_DAYS} days");
        faults.push(Fault::new("/expires_days", expected, days));
    }
    faults
}

fn scope(new: &NewToken) -> Option<Scope> {
    let clusters = match &new.clusters {
        None => Clusters::All,
        Some(clusters) => Clusters::Only(clusters.clone()),
    };
    let user = |role| Scope::User { role, clusters };
    match new.role {
        TokenRole::Viewer => Some(user(Role::Viewer)),
        TokenRole::Operator => Some(user(Role::Operator)),
        TokenRole::Admin => Some(user(Role::Admin)),
        TokenRole::Agent => {
            let cluster: &ClusterName = new.clusters.as_ref()?.first()?;
            Some(Scope::Agent {
                cluster: cluster.clone(),
            })
        }
    }
}

/// `DELETE /tokens/{name}`: it is listed on as revoked.
#[utoipa::path(
    delete,
    path = "/tokens/{name}",
    tag = "access",
    params(("name" = String, Path, description = "Its name", max_length = 64)),
    responses((status = 204, description = "The token is good for nothing any more"), Changes)
)]
pub(super) async fn revoke(
    Admin(principal): Admin,
    Named(name): Named,
    State(app): State<App>,
) -> Result<StatusCode, Error> {
    let now = app.clock().now().wall;
    let mut transaction = app.store().begin().await?;
    if !tokens::revoke(&mut transaction, &name, now).await? {
        return Err(Error::not_found(format_args!("token {name:?} in force")));
    }
    let object = format!("token {name}");
    let entry = Entry::done("token.revoke", &object, "");
    audit::insert(&mut transaction, &principal.by(), entry, now).await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
