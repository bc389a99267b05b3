//! Revisions: what was declared, by whom and why; what lies between them; the way back.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use isopath_api::declare::Declaration;
use isopath_api::ids::ClusterName;
use isopath_api::revision::{RevisionDiff, RollbackRequest};
use isopath_api::view::{Applied, RevisionView};
use serde::Deserialize;

use super::body::JsonBody;
use super::clusters::{check_words, cluster_view, put_in_force, tagged};
use super::idempotency::replay;
use super::openapi::{Changes, Reads};
use super::page::{Cursor, Page};
use super::path::{OfCluster, OfRevision, Query};
use super::precondition::Expected;
use crate::app::App;
use crate::auth::{Operator, Viewer};
use crate::control::Apply;
use crate::diff;
use crate::error::Error;
use crate::store::clusters;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// How many.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// Where the last answer ended: the `cursor` of its `Link` header.
    #[param(max_length = 256)]
    cursor: Option<String>,
}

/// `GET /clusters/{cluster}/revisions`, newest first.
#[utoipa::path(
    get,
    path = "/clusters/{cluster}/revisions",
    tag = "clusters",
    params(("cluster" = ClusterName, Path, description = "The cluster"), ListQuery),
    responses((status = 200, description = "The revisions, newest first", body = Vec<RevisionView>), Reads)
)]
pub(super) async fn list(
    _: Viewer,
    OfCluster(name): OfCluster,
    Query(query): Query<ListQuery>,
    State(app): State<App>,
) -> Result<Response, Error> {
    cluster_view(&app, &name)?;
    let filter = format!("revisions of {name}");
    let page = Page::new(query.limit, query.cursor.as_deref(), &filter)?;
    let mut reader = app.store().read().await?;
    let found = clusters::revisions(&mut reader, &name, page.last(), page.fetch()).await?;
    let path = format!("/api/v1/clusters/{name}/revisions");
    Ok(page.answer(found, &path, &[], |revision| {
        Cursor::new(revision.revision, &filter)
    }))
}

/// `GET /clusters/{cluster}/revisions/{revision}`
#[utoipa::path(
    get,
    path = "/clusters/{cluster}/revisions/{revision}",
    tag = "clusters",
    params(
        ("cluster" = ClusterName, Path, description = "The cluster"),
        ("revision" = u64, Path, description = "Its number", minimum = 1),
    ),
    responses((status = 200, description = "The revision", body = RevisionView), Reads)
)]
pub(super) async fn show(
    _: Viewer,
    OfRevision(name, revision): OfRevision,
    State(app): State<App>,
) -> Result<Json<RevisionView>, Error> {
    find(&app, &name, revision).await.map(Json)
}

async fn find(app: &App, name: &ClusterName, revision: u64) -> Result<RevisionView, Error> {
    let mut reader = app.store().read().await?;
    clusters::revision(&mut reader, name, revision)
        .await?
        .ok_or_else(|| Error::not_found(format_args!("revision {revision} of cluster {name}")))
}

async fn declared(app: &App, name: &ClusterName, revision: u64) -> Result<Declaration, Error> {
    let found = find(app, name, revision).await?;
    found.declaration.ok_or_else(|| Error::Internal {
        what: format!("revision {revision} of cluster {name} has no declaration"),
    })
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct DiffQuery {
    /// The revision to compare with; the one before when absent, and 0 for nothing.
    #[param(minimum = 0)]
    against: Option<u64>,
}

/// `GET /clusters/{cluster}/revisions/{revision}/diff`
#[utoipa::path(
    get,
    path = "/clusters/{cluster}/revisions/{revision}/diff",
    tag = "clusters",
    params(
        ("cluster" = ClusterName, Path, description = "The cluster"),
        ("revision" = u64, Path, description = "Its number", minimum = 1),
        DiffQuery,
    ),
    responses((status = 200, description = "What the revision has otherwise", body = RevisionDiff), Reads)
)]
pub(super) async fn diff(
    _: Viewer,
    OfRevision(name, revision): OfRevision,
    Query(query): Query<DiffQuery>,
    State(app): State<App>,
) -> Result<Json<RevisionDiff>, Error> {
    let after = declared(&app, &name, revision).await?;
    let against = query.against.unwrap_or(revision.saturating_sub(1));
    let before = match against {
        0 => None,
        against => Some(declared(&app, &name, against).await?),
    };
    Ok(Json(RevisionDiff {
        cluster: name,
        revision,
        against,
        diff: diff::between(before.as_ref(), &after),
    }))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct RollbackQuery {
    /// Only say what it would do.
    #[serde(default)]
    dry_run: bool,
}

/// `POST /clusters/{cluster}/revisions/{revision}/rollback`: a new revision that declares what
/// this one did.
#[utoipa::path(
    post,
    path = "/clusters/{cluster}/revisions/{revision}/rollback",
    tag = "clusters",
    params(
        ("cluster" = ClusterName, Path, description = "The cluster"),
        ("revision" = u64, Path, description = "The revision to go back to", minimum = 1),
        RollbackQuery,
        ("If-Match" = Option<String>, Header, description = "The revision in force", pattern = r#"^(\*|"[^"]*")$"#),
        ("Idempotency-Key" = Option<String>, Header, description = "The request's own name", pattern = "^[!-~]{1,64}$"),
    ),
    request_body = Option<RollbackRequest>,
    responses(
        (status = 200, description = "The declaration is in force, or was already", body = Applied),
        Changes,
    )
)]
pub(super) async fn rollback(
    Operator(principal): Operator,
    OfRevision(name, revision): OfRevision,
    Query(query): Query<RollbackQuery>,
    Expected(expected): Expected,
    State(app): State<App>,
    body: JsonBody,
) -> Result<Response, Error> {
    let request: RollbackRequest = body.parse_or_default()?;
    check_words(&principal, &request.reason, &request.override_guards)?;
    let declaration = declared(&app, &name, revision).await?;
    let faults = declaration.validate();
    if !faults.is_empty() {
        // It was declared under rules of before.
        return Err(Error::Invalid { faults });
    }
    let key = body.key(&principal)?;
    if let Some(answered) = replay(&app, key.as_ref()).await? {
        return Ok(answered);
    }
    let back = format!("back to revision {revision}");
    let reason = match request.reason.as_str() {
        "" => back,
        words => format!("{back}: {words}"),
    };
    let applied = put_in_force(
        &app,
        Apply {
            cluster: name,
            declaration,
            by: principal.by(),
            reason,
            dry_run: query.dry_run,
            expected,
            override_guards: request.override_guards,
            key,
        },
    )
    .await?;
    Ok((tagged(applied.revision), Json(applied)).into_response())
}
