//! Drains and undrains, and the operations that they are.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use isopath_api::access::Role;
use isopath_api::ids::{ClusterName, DirectorName, Vip};
use isopath_api::operation::{DrainPreview, DrainRequest, OperationState, OperationView};
use serde::Deserialize;

use super::body::JsonBody;
use super::idempotency::replay;
use super::openapi::{Changes, Reads};
use super::page::{Cursor, Page};
use super::path::{OfDirector, OfOperation, OfRealServer, OfVip, Query};
use crate::app::App;
use crate::auth::{Operator, Principal, Viewer};
use crate::control::operation::{KINDS, Kind, Target};
use crate::control::{Cancel, Change};
use crate::error::Error;
use crate::store::operations::{self, Filter};

/// Where the list is.
const LIST: &str = "/api/v1/operations";

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct BeginQuery {
    /// Only say what it would do.
    #[serde(default)]
    dry_run: bool,
}

/// `POST /clusters/{cluster}/directors/{director}/drain`
#[utoipa::path(
    post,
    path = "/clusters/{cluster}/directors/{director}/drain",
    tag = "operations",
    params(("cluster" = ClusterName, Path, description = "The cluster"), ("director" = DirectorName, Path, description = "The director"),
        BeginQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "The request's own name", pattern = "^[!-~]{1,64}$"),
    ),
    request_body = Option<DrainRequest>,
    responses(
        (status = 200, description = "With `dry_run`: what it would do", body = DrainPreview),
        (status = 202, description = "The operation that was begun", body = OperationView),
        Changes,
    )
)]
pub(super) async fn drain_director(
    Operator(principal): Operator,
    OfDirector(cluster, director): OfDirector,
    State(app): State<App>,
    Query(query): Query<BeginQuery>,
    body: JsonBody,
) -> Result<Response, Error> {
    let request: DrainRequest = body.parse_or_default()?;
    let target = Target::Director(director);
    let asked = (cluster, target, Kind::Drain);
    begin(&app, &principal, query, asked, (request, body)).await
}

/// `POST /clusters/{cluster}/directors/{director}/undrain`
#[utoipa::path(
    post,
    path = "/clusters/{cluster}/directors/{director}/undrain",
    tag = "operations",
    params(("cluster" = ClusterName, Path, description = "The cluster"), ("director" = DirectorName, Path, description = "The director"),
        BeginQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "The request's own name", pattern = "^[!-~]{1,64}$"),
    ),
    request_body = Option<DrainRequest>,
    responses(
        (status = 200, description = "With `dry_run`: what it would do", body = DrainPreview),
        (status = 202, description = "The operation that was begun", body = OperationView),
        Changes,
    )
)]
pub(super) async fn undrain_director(
    Operator(principal): Operator,
    OfDirector(cluster, director): OfDirector,
    State(app): State<App>,
    Query(query): Query<BeginQuery>,
    body: JsonBody,
) -> Result<Response, Error> {
    let request: DrainRequest = body.parse_or_default()?;
    let target = Target::Director(director);
    let asked = (cluster, target, Kind::Undrain);
    begin(&app, &principal, query, asked, (request, body)).await
}

/// `POST /clusters/{cluster}/real-servers/{real_server}/drain`
#[utoipa::path(
    post,
    path = "/clusters/{cluster}/real-servers/{real_server}/drain",
    tag = "operations",
    params(("cluster" = ClusterName, Path, description = "The cluster"), ("real_server" = String, Path, description = "ADDRESS or ADDRESS:PORT"),
        BeginQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "The request's own name", pattern = "^[!-~]{1,64}$"),
    ),
    request_body = Option<DrainRequest>,
    responses(
        (status = 200, description = "With `dry_run`: what it would do", body = DrainPreview),
        (status = 202, description = "The operation that was begun", body = OperationView),
        Changes,
    )
)]
pub(super) async fn drain_real_server(
    Operator(principal): Operator,
    OfRealServer(cluster, name): OfRealServer,
    State(app): State<App>,
    Query(query): Query<BeginQuery>,
    body: JsonBody,
) -> Result<Response, Error> {
    let request: DrainRequest = body.parse_or_default()?;
    let target = Target::RealServer(name, request.service);
    let asked = (cluster, target, Kind::Drain);
    begin(&app, &principal, query, asked, (request, body)).await
}

/// `POST /clusters/{cluster}/real-servers/{real_server}/undrain`
#[utoipa::path(
    post,
    path = "/clusters/{cluster}/real-servers/{real_server}/undrain",
    tag = "operations",
    params(("cluster" = ClusterName, Path, description = "The cluster"), ("real_server" = String, Path, description = "ADDRESS or ADDRESS:PORT"),
        BeginQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "The request's own name", pattern = "^[!-~]{1,64}$"),
    ),
    request_body = Option<DrainRequest>,
    responses(
        (status = 200, description = "With `dry_run`: what it would do", body = DrainPreview),
        (status = 202, description = "The operation that was begun", body = OperationView),
        Changes,
    )
)]
pub(super) async fn undrain_real_server(
    Operator(principal): Operator,
    OfRealServer(cluster, name): OfRealServer,
    State(app): State<App>,
    Query(query): Query<BeginQuery>,
    body: JsonBody,
) -> Result<Response, Error> {
    let request: DrainRequest = body.parse_or_default()?;
    let target = Target::RealServer(name, request.service);
    let asked = (cluster, target, Kind::Undrain);
    begin(&app, &principal, query, asked, (request, body)).await
}

/// `POST /clusters/{cluster}/vips/{vip}/drain`
#[utoipa::path(
    post,
    path = "/clusters/{cluster}/vips/{vip}/drain",
    tag = "operations",
    params(("cluster" = ClusterName, Path, description = "The cluster"), ("vip" = Vip, Path, description = "The VIP"),
        BeginQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "The request's own name", pattern = "^[!-~]{1,64}$"),
    ),
    request_body = Option<DrainRequest>,
    responses(
        (status = 200, description = "With `dry_run`: what it would do", body = DrainPreview),
        (status = 202, description = "The operation that was begun", body = OperationView),
        Changes,
    )
)]
pub(super) async fn drain_vip(
    Operator(principal): Operator,
    OfVip(cluster, vip): OfVip,
    State(app): State<App>,
    Query(query): Query<BeginQuery>,
    body: JsonBody,
) -> Result<Response, Error> {
    let request: DrainRequest = body.parse_or_default()?;
    let target = Target::Vip(vip);
    let asked = (cluster, target, Kind::Drain);
    begin(&app, &principal, query, asked, (request, body)).await
}

/// `POST /clusters/{cluster}/vips/{vip}/undrain`
#[utoipa::path(
    post,
    path = "/clusters/{cluster}/vips/{vip}/undrain",
    tag = "operations",
    params(("cluster" = ClusterName, Path, description = "The cluster"), ("vip" = Vip, Path, description = "The VIP"),
        BeginQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "The request's own name", pattern = "^[!-~]{1,64}$"),
    ),
    request_body = Option<DrainRequest>,
    responses(
        (status = 200, description = "With `dry_run`: what it would do", body = DrainPreview),
        (status = 202, description = "The operation that was begun", body = OperationView),
        Changes,
    )
)]
pub(super) async fn undrain_vip(
    Operator(principal): Operator,
    OfVip(cluster, vip): OfVip,
    State(app): State<App>,
    Query(query): Query<BeginQuery>,
    body: JsonBody,
) -> Result<Response, Error> {
    let request: DrainRequest = body.parse_or_default()?;
    let target = Target::Vip(vip);
    let asked = (cluster, target, Kind::Undrain);
    begin(&app, &principal, query, asked, (request, body)).await
}

async fn begin(
    app: &App,
    principal: &Principal,
    query: BeginQuery,
    (cluster, target, kind): (ClusterName, Target, Kind),
    (request, body): (DrainRequest, JsonBody),
) -> Result<Response, Error> {
    // Passing over a guard is more than operating: who may is asked even of a preview.
    if !request.override_guards.is_empty() {
        principal.check_role(Role::Admin)?;
    }
    let change = Change {
        kind,
        cluster,
        target,
        request,
        by: principal.by(),
        key: body.key(principal)?,
    };
    if query.dry_run {
        return app.preview(&change).map(|it| Json(it).into_response());
    }
    if let Some(answered) = replay(app, change.key.as_ref()).await? {
        return Ok(answered);
    }
    app.control().change(change).await.map(accepted)
}

/// Where an operation is.
pub(crate) fn location(id: &str) -> String {
    format!("/api/v1/operations/{id}")
}

fn accepted(operation: OperationView) -> Response {
    (
        StatusCode::ACCEPTED,
        [(header::LOCATION, location(&operation.id))],
        Json(operation),
    )
        .into_response()
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Only those of this cluster.
    cluster: Option<ClusterName>,
    /// Only those in this state.
    state: Option<OperationState>,
    /// Only those of this kind, such as `director.drain`.
    kind: Option<String>,
    /// How many.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// Where the last answer ended: the `cursor` of its `Link` header.
    #[param(max_length = 256)]
    cursor: Option<String>,
}

impl ListQuery {
    /// The filters that were given, as a link repeats them.
    fn given(&self) -> Vec<(&'static str, String)> {
        [
            ("cluster", self.cluster.as_ref().map(ToString::to_string)),
            ("state", self.state.map(|it| it.as_str().to_owned())),
            ("kind", self.kind.clone()),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name, value)))
        .collect()
    }
}

/// `GET /operations`, newest first.
#[utoipa::path(
    get,
    path = "/operations",
    tag = "operations",
    params(ListQuery),
    responses(
        (status = 200, description = "The operations, newest first", body = Vec<OperationView>),
        Reads,
    )
)]
pub(super) async fn list(
    Viewer(principal): Viewer,
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Result<Response, Error> {
    if let Some(kind) = &query.kind
        && !KINDS.contains(&kind.as_str())
    {
        let all = KINDS.join(", ");
        return Err(Error::BadRequest {
            detail: format!("kind: expected one of {all}, found {kind:?}"),
        });
    }
    let clusters = match &query.cluster {
        Some(cluster) => {
            principal.check_cluster(cluster)?;
            vec![cluster.clone()]
        }
        None => app
            .clusters()
            .into_iter()
            .filter(|cluster| principal.may_touch(cluster))
            .collect(),
    };
    let given = query.given();
    let asked = format!("operations {given:?}");
    let page = Page::new(query.limit, query.cursor.as_deref(), &asked)?;
    let filter = Filter {
        clusters,
        state: query.state,
        kind: query.kind,
        before: page.last(),
    };
    let mut reader = app.store().read().await?;
    let stored = operations::list(&mut reader, &filter, page.fetch()).await?;
    let shown = stored.iter().map(|it| app.show(it)).collect();
    let cursor = |operation: &OperationView| Cursor::new(operation.id.clone(), &asked);
    Ok(page.answer(shown, LIST, &given, cursor))
}

/// `GET /operations/{operation}`
#[utoipa::path(
    get,
    path = "/operations/{operation}",
    tag = "operations",
    params(("operation" = String, Path, description = "Its id")),
    responses((status = 200, description = "The operation", body = OperationView), Reads)
)]
pub(super) async fn view(
    Viewer(principal): Viewer,
    OfOperation(id): OfOperation,
    State(app): State<App>,
) -> Result<Json<OperationView>, Error> {
    let operation = find(&app, &id).await?;
    principal.check_cluster(&operation.cluster)?;
    Ok(Json(operation))
}

/// `POST /operations/{operation}/cancel`
#[utoipa::path(
    post,
    path = "/operations/{operation}/cancel",
    tag = "operations",
    params(("operation" = String, Path, description = "Its id")),
    responses(
        (status = 202, description = "What it did is being undone", body = OperationView),
        Changes,
    )
)]
pub(super) async fn cancel(
    Operator(principal): Operator,
    OfOperation(id): OfOperation,
    State(app): State<App>,
) -> Result<Response, Error> {
    let operation = find(&app, &id).await?;
    principal.check_cluster(&operation.cluster)?;
    let by = principal.by();
    app.control().cancel(Cancel { id, by }).await.map(accepted)
}

async fn find(app: &App, id: &str) -> Result<OperationView, Error> {
    // What an open operation waits for is in memory alone.
    if let Some(open) = app.open_operation(id) {
        return Ok(open);
    }
    let mut reader = app.store().read().await?;
    operations::by_id(&mut reader, id)
        .await?
        .ok_or_else(|| Error::not_found(format_args!("operation {id:?}")))
}
