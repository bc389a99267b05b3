//! Signed-in browsers.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use isopath_api::access::SessionView;

use super::super::openapi::{Changes, Reads};
use super::super::path::Query;
use super::{Named, PageQuery};
use crate::app::App;
use crate::auth::Admin;
use crate::error::Error;
use crate::store::audit::{self, Entry};
use crate::store::sessions;

/// `GET /sessions`, oldest first.
#[utoipa::path(
    get,
    path = "/sessions",
    tag = "access",
    params(PageQuery),
    responses((status = 200, description = "Who is signed in, oldest first", body = Vec<SessionView>), Reads)
)]
pub(super) async fn list(
    _: Admin,
    Query(query): Query<PageQuery>,
    State(app): State<App>,
) -> Result<Json<Vec<SessionView>>, Error> {
    let mut reader = app.store().read().await?;
    let found = sessions::page(&mut reader, query.after()?, query.limit()?).await?;
    let views = found.into_iter().map(|row| SessionView {
        id: row.id,
        user: row.user,
        peer: row.peer,
        made: row.made,
        seen: row.seen,
    });
    Ok(Json(views.collect()))
}

/// `DELETE /sessions/{name}`
#[utoipa::path(
    delete,
    path = "/sessions/{name}",
    tag = "access",
    params(("name" = String, Path, description = "Its id", max_length = 64)),
    responses((status = 204, description = "The session has ended"), Changes)
)]
pub(super) async fn end(
    Admin(principal): Admin,
    Named(id): Named,
    State(app): State<App>,
) -> Result<StatusCode, Error> {
    let now = app.clock().now().wall;
    let mut transaction = app.store().begin().await?;
    let user = sessions::delete_id(&mut transaction, &id)
        .await?
        .ok_or_else(|| Error::not_found(format_args!("session {id:?}")))?;
    let object = format!("user {user}");
    let entry = Entry::done("session.end", &object, "by an admin");
    audit::insert(&mut transaction, &principal.by(), entry, now).await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
