//! What happened.

use axum::Json;
use axum::extract::State;
use isopath_api::ids::ClusterName;
use isopath_api::view::EventView;
use serde::Deserialize;

use super::clusters::MOST_ITEMS;
use super::path::Query;
use crate::app::App;
use crate::auth::Operator;
use crate::error::Error;
use crate::store::events;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// Only those of this cluster.
    cluster: Option<ClusterName>,
    /// How many, at most 200.
    limit: Option<u32>,
    /// Only those before the one of this number.
    before: Option<u64>,
}

/// `GET /events`, newest first.
pub(super) async fn list(
    _: Operator,
    Query(query): Query<EventsQuery>,
    State(app): State<App>,
) -> Result<Json<Vec<EventView>>, Error> {
    let limit = query.limit.unwrap_or(50).min(MOST_ITEMS);
    let mut reader = app.store().read().await?;
    let found = events::last(&mut reader, query.cluster.as_ref(), query.before, limit).await?;
    Ok(Json(found))
}
