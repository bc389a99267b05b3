//! Directors, and the operations on them.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use isopath_api::view::{DirectorView, DrainRequest, OperationView};

use super::body::JsonBody;
use super::clusters::cluster_view;
use super::path::{OfCluster, OfDirector, OfOperation};
use crate::app::App;
use crate::auth::Operator;
use crate::error::Error;
use crate::store::operations;

/// `GET /clusters/{cluster}/directors`
pub(super) async fn list(
    _: Operator,
    OfCluster(name): OfCluster,
    State(app): State<App>,
) -> Result<Json<Vec<DirectorView>>, Error> {
    cluster_view(&app, &name).map(|view| Json(view.directors))
}

/// `GET /clusters/{cluster}/directors/{director}`
pub(super) async fn view(
    _: Operator,
    OfDirector(cluster, name): OfDirector,
    State(app): State<App>,
) -> Result<Json<DirectorView>, Error> {
    let directors = cluster_view(&app, &cluster)?.directors;
    directors
        .into_iter()
        .find(|director| director.name == name)
        .map(Json)
        .ok_or_else(|| Error::not_found(format_args!("director {name} in cluster {cluster}")))
}

/// `POST /clusters/{cluster}/directors/{director}/drain`
pub(super) async fn drain(
    operator: Operator,
    OfDirector(cluster, director): OfDirector,
    State(app): State<App>,
    body: JsonBody,
) -> Result<Response, Error> {
    let request: DrainRequest = body.parse_or_default()?;
    let operation = app
        .drain(&cluster, &director, request, &operator.name)
        .await?;
    Ok(accepted(operation))
}

/// `POST /clusters/{cluster}/directors/{director}/undrain`
pub(super) async fn undrain(
    operator: Operator,
    OfDirector(cluster, director): OfDirector,
    State(app): State<App>,
    body: JsonBody,
) -> Result<Response, Error> {
    let request: DrainRequest = body.parse_or_default()?;
    let operation = app
        .undrain(&cluster, &director, request, &operator.name)
        .await?;
    Ok(accepted(operation))
}

fn accepted(operation: OperationView) -> Response {
    let location = format!("/api/v1/operations/{}", operation.id);
    (
        StatusCode::ACCEPTED,
        [(header::LOCATION, location)],
        Json(operation),
    )
        .into_response()
}

/// `GET /operations/{operation}`
pub(super) async fn operation(
    _: Operator,
    OfOperation(id): OfOperation,
    State(app): State<App>,
) -> Result<Json<OperationView>, Error> {
    // What an open operation waits for is in memory alone.
    let world = app.world();
    let open = world
        .clusters
        .values()
        .flat_map(|cluster| &cluster.operations);
    if let Some(operation) = open.into_iter().find(|operation| operation.id == id) {
        return Ok(Json(operation.view()));
    }
    let mut reader = app.store().read().await?;
    operations::by_id(&mut reader, &id)
        .await?
        .map(Json)
        .ok_or_else(|| Error::not_found(format_args!("operation {id:?}")))
}
