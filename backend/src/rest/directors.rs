//! Directors.

use axum::Json;
use axum::extract::State;
use isopath_api::ids::{ClusterName, DirectorName};
use isopath_api::view::DirectorView;

use super::clusters::cluster_view;
use super::openapi::Reads;
use super::path::{OfCluster, OfDirector};
use crate::app::App;
use crate::auth::Viewer;
use crate::error::Error;

/// `GET /clusters/{cluster}/directors`
#[utoipa::path(
    get,
    path = "/clusters/{cluster}/directors",
    tag = "directors",
    params(("cluster" = ClusterName, Path, description = "The cluster")),
    responses((status = 200, description = "The directors", body = Vec<DirectorView>), Reads)
)]
pub(super) async fn list(
    _: Viewer,
    OfCluster(name): OfCluster,
    State(app): State<App>,
) -> Result<Json<Vec<DirectorView>>, Error> {
    cluster_view(&app, &name).map(|view| Json(view.directors))
}

/// `GET /clusters/{cluster}/directors/{director}`
#[utoipa::path(
    get,
    path = "/clusters/{cluster}/directors/{director}",
    tag = "directors",
    params(("cluster" = ClusterName, Path, description = "The cluster"), ("director" = DirectorName, Path, description = "The director")),
    responses((status = 200, description = "The director", body = DirectorView), Reads)
)]
pub(super) async fn view(
    _: Viewer,
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
