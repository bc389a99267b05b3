//! Clusters: what is declared, and what is seen.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use isopath_api::access::Role;
use isopath_api::declare::Declaration;
use isopath_api::fault::Fault;
use isopath_api::ids::ClusterName;
use isopath_api::view::{Applied, ClusterSummary, ClusterView, ServiceView, VipView};
use serde::Deserialize;

use super::body::JsonBody;
use super::idempotency::replay;
use super::openapi::{Changes, Reads};
use super::path::{OfCluster, Query};
use super::precondition::{Expected, etag_value};
use crate::app::App;
use crate::auth::{Operator, Principal, Viewer};
use crate::control::{Apply, LONGEST_REASON};
use crate::error::Error;
use crate::view::summary;
use crate::{diff, guards};

/// `GET /clusters`
#[utoipa::path(
    get,
    path = "/clusters",
    tag = "clusters",
    responses((status = 200, description = "Every cluster, by name", body = Vec<ClusterSummary>), Reads)
)]
pub(super) async fn list(
    Viewer(principal): Viewer,
    State(app): State<App>,
) -> Json<Vec<ClusterSummary>> {
    let names = app.clusters();
    let names = names.iter().filter(|name| principal.may_touch(name));
    let views = names.filter_map(|name| app.cluster_view(name));
    Json(views.map(|view| summary(&view)).collect())
}

/// `GET /clusters/{cluster}`
#[utoipa::path(
    get,
    path = "/clusters/{cluster}",
    tag = "clusters",
    params(("cluster" = ClusterName, Path, description = "The cluster")),
    responses((status = 200, description = "The cluster as of now", body = ClusterView), Reads)
)]
pub(super) async fn view(
    _: Viewer,
    OfCluster(name): OfCluster,
    State(app): State<App>,
) -> Result<impl IntoResponse, Error> {
    let (revision, json) = app.cluster_json(&name).await?;
    let media_type = [(header::CONTENT_TYPE, "application/json")];
    Ok((tagged(revision), media_type, json))
}

/// `GET /clusters/{cluster}/declaration`
#[utoipa::path(
    get,
    path = "/clusters/{cluster}/declaration",
    tag = "clusters",
    params(("cluster" = ClusterName, Path, description = "The cluster")),
    responses(
        (status = 200, description = "What is declared, with its revision as ETag", body = Declaration),
        (status = 304, description = "It is what If-None-Match names"),
        Reads,
    )
)]
pub(super) async fn declaration(
    _: Viewer,
    OfCluster(name): OfCluster,
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let world = app.world();
    let cluster = world
        .clusters
        .get(&name)
        .ok_or_else(|| Error::not_found(format_args!("cluster {name}")))?;
    let tag = tagged(cluster.revision);
    if headers.get(header::IF_NONE_MATCH) == Some(&tag[0].1) {
        return Ok((StatusCode::NOT_MODIFIED, tag).into_response());
    }
    Ok((tag, Json(&*cluster.declaration)).into_response())
}

/// `GET /clusters/{cluster}/vips`
#[utoipa::path(
    get,
    path = "/clusters/{cluster}/vips",
    tag = "clusters",
    params(("cluster" = ClusterName, Path, description = "The cluster")),
    responses((status = 200, description = "The VIPs", body = Vec<VipView>), Reads)
)]
pub(super) async fn vips(
    _: Viewer,
    OfCluster(name): OfCluster,
    State(app): State<App>,
) -> Result<Json<Vec<VipView>>, Error> {
    cluster_view(&app, &name).map(|view| Json(view.vips))
}

/// `GET /clusters/{cluster}/services`
#[utoipa::path(
    get,
    path = "/clusters/{cluster}/services",
    tag = "clusters",
    params(("cluster" = ClusterName, Path, description = "The cluster")),
    responses((status = 200, description = "The services", body = Vec<ServiceView>), Reads)
)]
pub(super) async fn services(
    _: Viewer,
    OfCluster(name): OfCluster,
    State(app): State<App>,
) -> Result<Json<Vec<ServiceView>>, Error> {
    cluster_view(&app, &name).map(|view| Json(view.services))
}

pub(super) fn cluster_view(app: &App, name: &ClusterName) -> Result<ClusterView, Error> {
    app.cluster_view(name)
        .ok_or_else(|| Error::not_found(format_args!("cluster {name}")))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PutQuery {
    /// Only say what it would do.
    #[serde(default)]
    dry_run: bool,
    /// The operator's words.
    #[serde(default)]
    #[param(max_length = 500)]
    reason: String,
    /// Guards to pass over, with commas between them, such as `large_removal`; wants a reason.
    #[serde(default)]
    #[param(max_length = 200)]
    override_guards: String,
}

impl PutQuery {
    fn overridden(&self) -> Vec<String> {
        let words = self.override_guards.split(',').map(str::trim);
        words
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

/// `PUT /clusters/{cluster}`
#[utoipa::path(
    put,
    path = "/clusters/{cluster}",
    tag = "clusters",
    params(
        ("cluster" = ClusterName, Path, description = "The cluster"),
        PutQuery,
        ("If-Match" = Option<String>, Header, description = "The revision in force, such as \"r17\"", pattern = r#"^(\*|"[^"]*")$"#),
        ("If-None-Match" = Option<String>, Header, description = "`*` to make a cluster that is not there yet", pattern = r"^\*$"),
        ("Idempotency-Key" = Option<String>, Header, description = "The request's own name", pattern = "^[!-~]{1,64}$"),
    ),
    request_body = Declaration,
    responses(
        (status = 200, description = "The declaration is in force, or was already", body = Applied),
        (status = 201, description = "The cluster was made", body = Applied),
        Changes,
    )
)]
pub(super) async fn put(
    Operator(principal): Operator,
    OfCluster(name): OfCluster,
    Query(query): Query<PutQuery>,
    Expected(expected): Expected,
    State(app): State<App>,
    body: JsonBody,
) -> Result<Response, Error> {
    let overridden = query.overridden();
    check_query(&principal, &query.reason, &overridden)?;
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
    let key = body.key(&principal)?;
    if let Some(answered) = replay(&app, key.as_ref()).await? {
        return Ok(answered);
    }
    let applied = put_in_force(
        &app,
        Apply {
            cluster: name,
            declaration,
            by: principal.by(),
            reason: query.reason,
            dry_run: query.dry_run,
            expected,
            override_guards: overridden,
            key,
        },
    )
    .await?;
    let is_new = applied.revision == 1 && applied.changed && !applied.dry_run;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, tagged(applied.revision), Json(applied)).into_response())
}

/// Puts a declaration in force, or says in detail what that would change.
pub(super) async fn put_in_force(app: &App, apply: Apply) -> Result<Applied, Error> {
    let looked_at = apply.dry_run.then(|| apply.declaration.clone());
    let before = app.world().clusters.get(&apply.cluster).cloned();
    let mut applied = app.control().apply(apply).await?;
    if let Some(after) = looked_at {
        let before = before.map(|cluster| Arc::clone(&cluster.declaration));
        applied.diff = Some(diff::between(before.as_deref(), &after));
    }
    Ok(applied)
}

/// Refuses words and guards in a query that are not well formed.
fn check_query(principal: &Principal, reason: &str, overridden: &[String]) -> Result<(), Error> {
    check_words(principal, reason, overridden).map_err(|error| match error {
        Error::Invalid { faults } => Error::BadRequest {
            detail: faults
                .iter()
                .map(query_fault)
                .collect::<Vec<_>>()
                .join("; "),
        },
        other => other,
    })
}

fn query_fault(fault: &Fault) -> String {
    let name = fault.pointer.trim_start_matches('/');
    let name = name.split('/').next().unwrap_or_default();
    format!("?{name}: {}", fault.message)
}

/// Refuses a reason that is too long, guards that are none, guards without a reason, and guards
/// of someone who may not pass over them.
pub(super) fn check_words(
    principal: &Principal,
    reason: &str,
    overridden: &[String],
) -> Result<(), Error> {
    if !overridden.is_empty() {
        principal.check_role(Role::Admin)?;
    }
    let mut faults = Vec::new();
    let length = reason.chars().count();
    if length > LONGEST_REASON {
        let expected = format_args!("at most {LONGEST_REASON} characters");
        faults.push(Fault::new("/reason", expected, length));
    }
    for (index, guard) in overridden.iter().enumerate() {
        if !guards::OF_DECLARATIONS.contains(&guard.as_str()) {
            let pointer = format!("/override_guards/{index}");
            let expected = format!("one of {}", guards::OF_DECLARATIONS.join(", "));
            faults.push(Fault::new(pointer, expected, format_args!("{guard:?}")));
        }
    }
    if !overridden.is_empty() && reason.trim().is_empty() {
        let expected = "the reason for which a guard is overridden";
        faults.push(Fault::new("/reason", expected, "none"));
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid { faults })
    }
}

/// The entity tag of a revision, as a header.
pub(super) fn tagged(revision: u64) -> [(HeaderName, HeaderValue); 1] {
    [(header::ETAG, etag_value(revision))]
}
