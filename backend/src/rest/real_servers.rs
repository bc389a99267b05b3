//! Real servers, in each service that has them.

use axum::Json;
use axum::extract::State;
use isopath_api::ids::ClusterName;
use isopath_api::operation::RealServerAdminView;

use super::openapi::Reads;
use super::path::{OfCluster, OfRealServer};
use crate::app::App;
use crate::auth::Viewer;
use crate::control::operation::ServerName;
use crate::error::Error;

/// `GET /clusters/{cluster}/real-servers`
#[utoipa::path(
    get,
    path = "/clusters/{cluster}/real-servers",
    tag = "real servers",
    params(("cluster" = ClusterName, Path, description = "The cluster")),
    responses(
        (status = 200, description = "All of them, by service", body = Vec<RealServerAdminView>),
        Reads,
    )
)]
pub(super) async fn list(
    _: Viewer,
    OfCluster(cluster): OfCluster,
    State(app): State<App>,
) -> Result<Json<Vec<RealServerAdminView>>, Error> {
    found(&app, &cluster, |_| true).map(Json)
}

/// `GET /clusters/{cluster}/real-servers/{real_server}`
#[utoipa::path(
    get,
    path = "/clusters/{cluster}/real-servers/{real_server}",
    tag = "real servers",
    params(
        ("cluster" = ClusterName, Path, description = "The cluster"),
        ("real_server" = String, Path, description = "ADDRESS or ADDRESS:PORT"),
    ),
    responses(
        (status = 200, description = "In each service that has it", body = Vec<RealServerAdminView>),
        Reads,
    )
)]
pub(super) async fn view(
    _: Viewer,
    OfRealServer(cluster, name): OfRealServer,
    State(app): State<App>,
) -> Result<Json<Vec<RealServerAdminView>>, Error> {
    let found = found(&app, &cluster, |server| is(name, server))?;
    if found.is_empty() {
        let what = format_args!("real server {name} in cluster {cluster}");
        return Err(Error::not_found(what));
    }
    Ok(Json(found))
}

fn is(name: ServerName, server: &RealServerAdminView) -> bool {
    name.is(server.real_server)
}

fn found(
    app: &App,
    cluster: &ClusterName,
    wanted: impl Fn(&RealServerAdminView) -> bool,
) -> Result<Vec<RealServerAdminView>, Error> {
    let world = app.world();
    let state = world.clusters.get(cluster);
    let state = state.ok_or_else(|| Error::not_found(format_args!("cluster {cluster}")))?;
    let mut all = crate::view::real_servers(state, app.clock().now());
    all.retain(wanted);
    Ok(all)
}
