//! Clusters: what is declared, and what is seen.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use isopath_api::declare::Declaration;
use isopath_api::fault::Fault;
use isopath_api::view::{Applied, ClusterSummary, ClusterView, RevisionView, ServiceView, VipView};
use serde::Deserialize;

use super::body::JsonBody;
use super::path::{OfCluster, OfRevision, Query};
use crate::app::App;
use crate::auth::Operator;
use crate::control::{Apply, LONGEST_REASON};
use crate::error::Error;
use crate::store::clusters;
use crate::view::summary;

/// The most items of one answer.
pub(super) const MOST_ITEMS: u32 = 200;

/// `GET /clusters`
pub(super) async fn list(_: Operator, State(app): State<App>) -> Json<Vec<ClusterSummary>> {
    let names = app.clusters();
    let views = names.iter().filter_map(|name| app.cluster_view(name));
    Json(views.map(|view| summary(&view)).collect())
}

/// `GET /clusters/{cluster}`
pub(super) async fn view(
    _: Operator,
    OfCluster(name): OfCluster,
    State(app): State<App>,
) -> Result<Json<ClusterView>, Error> {
    cluster_view(&app, &name).map(Json)
}

/// `GET /clusters/{cluster}/vips`
pub(super) async fn vips(
    _: Operator,
    OfCluster(name): OfCluster,
    State(app): State<App>,
) -> Result<Json<Vec<VipView>>, Error> {
    cluster_view(&app, &name).map(|view| Json(view.vips))
}

/// `GET /clusters/{cluster}/services`
pub(super) async fn services(
    _: Operator,
    OfCluster(name): OfCluster,
    State(app): State<App>,
) -> Result<Json<Vec<ServiceView>>, Error> {
    cluster_view(&app, &name).map(|view| Json(view.services))
}

pub(super) fn cluster_view(
    app: &App,
    name: &isopath_api::ids::ClusterName,
) -> Result<ClusterView, Error> {
    app.cluster_view(name)
        .ok_or_else(|| Error::not_found(format_args!("cluster {name}")))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PutQuery {
    /// Only say what it would do.
    #[serde(default)]
    dry_run: bool,
    /// The operator's words.
    #[serde(default)]
    reason: String,
}

/// `PUT /clusters/{cluster}`
pub(super) async fn put(
    operator: Operator,
    OfCluster(name): OfCluster,
    Query(query): Query<PutQuery>,
    State(app): State<App>,
    body: JsonBody,
) -> Result<(StatusCode, Json<Applied>), Error> {
    if query.reason.chars().count() > LONGEST_REASON {
        return Err(Error::BadRequest {
            detail: format!("expected a reason of at most {LONGEST_REASON} characters"),
        });
    }
    let declaration: Declaration = body.parse(|declaration: &Declaration| {
        let mut faults = declaration.validate();
        if let Some(other) = declaration.cluster.as_ref().filter(|other| **other != name) {
            faults.push(Fault::new(
                "/cluster",
                format_args!("{name}, as in the path"),
                other,
            ));
        }
        faults
    })?;
    let applied = app
        .control()
        .apply(Apply {
            cluster: name,
            declaration,
            actor: operator.name,
            reason: query.reason,
            dry_run: query.dry_run,
        })
        .await?;
    let is_new = applied.revision == 1 && applied.changed && !applied.dry_run;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(applied)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RevisionsQuery {
    /// How many, at most 200.
    limit: Option<u32>,
    /// Only those before this revision.
    before: Option<u64>,
}

/// `GET /clusters/{cluster}/revisions`, newest first.
pub(super) async fn revisions(
    _: Operator,
    OfCluster(name): OfCluster,
    Query(query): Query<RevisionsQuery>,
    State(app): State<App>,
) -> Result<Json<Vec<RevisionView>>, Error> {
    cluster_view(&app, &name)?;
    let limit = query.limit.unwrap_or(50).min(MOST_ITEMS);
    let mut reader = app.store().read().await?;
    let found = clusters::revisions(&mut reader, &name, query.before, limit).await?;
    Ok(Json(found))
}

/// `GET /clusters/{cluster}/revisions/{revision}`
pub(super) async fn revision(
    _: Operator,
    OfRevision(name, revision): OfRevision,
    State(app): State<App>,
) -> Result<Json<RevisionView>, Error> {
    let mut reader = app.store().read().await?;
    clusters::revision(&mut reader, &name, revision)
        .await?
        .map(Json)
        .ok_or_else(|| Error::not_found(format_args!("revision {revision} of cluster {name}")))
}
