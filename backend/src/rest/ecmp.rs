//! Who should announce each VIP, who says it does, and who really is in the sets.

use axum::Json;
use axum::extract::State;
use isopath_api::ecmp::EcmpView;
use isopath_api::ids::ClusterName;

use super::openapi::Reads;
use super::path::OfCluster;
use crate::app::App;
use crate::auth::Viewer;
use crate::error::Error;

/// `GET /clusters/{cluster}/ecmp`
#[utoipa::path(
    get,
    path = "/clusters/{cluster}/ecmp",
    tag = "clusters",
    params(("cluster" = ClusterName, Path, description = "The cluster")),
    responses((status = 200, description = "The equal-cost sets as of now", body = EcmpView), Reads)
)]
pub(super) async fn view(
    _: Viewer,
    OfCluster(name): OfCluster,
    State(app): State<App>,
) -> Result<Json<EcmpView>, Error> {
    app.cluster_ecmp(&name)
        .map(Json)
        .ok_or_else(|| Error::not_found(format_args!("cluster {name}")))
}
