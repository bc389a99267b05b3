//! What happened.

use axum::extract::State;
use axum::response::Response;
use isopath_api::ids::ClusterName;
use isopath_api::view::{EventView, Severity};
use jiff::Timestamp;
use serde::Deserialize;

use super::openapi::Reads;
use super::page::{Cursor, Page};
use super::path::Query;
use crate::app::App;
use crate::auth::Viewer;
use crate::error::Error;
use crate::store::events::{self, Filter};
use crate::store::tokens::Clusters;

/// The longest text to look for, in characters.
const LONGEST_TEXT: usize = 200;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// Only those of this cluster.
    cluster: Option<ClusterName>,
    /// Only those that are as bad as this.
    severity: Option<Severity>,
    /// Only those of this object, such as `director d1`.
    #[param(max_length = 200)]
    object: Option<String>,
    /// Only what this person, token or `controller` did.
    #[param(max_length = 200)]
    actor: Option<String>,
    /// Only those whose object or text contains this.
    #[param(max_length = 200)]
    text: Option<String>,
    /// Only those from this moment on.
    from: Option<Timestamp>,
    /// Only those before this moment.
    to: Option<Timestamp>,
    /// How many.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// Where the last answer ended: the `cursor` of its `Link` header.
    #[param(max_length = 256)]
    cursor: Option<String>,
}

impl EventsQuery {
    fn check(&self) -> Result<(), Error> {
        for (name, text) in [
            ("object", &self.object),
            ("actor", &self.actor),
            ("text", &self.text),
        ] {
            let length = text.as_deref().map_or(0, |text| text.chars().count());
            if length > LONGEST_TEXT {
                return Err(Error::BadRequest {
                    detail: format!(
                        "?{name}: expected at most {LONGEST_TEXT} characters, found {length}"
                    ),
                });
            }
        }
        Ok(())
    }

    /// The filters that were given, as a link repeats them.
    fn given(&self) -> Vec<(&'static str, String)> {
        let text = |it: &Option<String>| it.clone();
        [
            ("cluster", self.cluster.as_ref().map(ToString::to_string)),
            ("severity", self.severity.map(|it| it.as_str().to_owned())),
            ("object", text(&self.object)),
            ("actor", text(&self.actor)),
            ("text", text(&self.text)),
            ("from", self.from.map(|it| it.to_string())),
            ("to", self.to.map(|it| it.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name, value)))
        .collect()
    }
}

/// `GET /events`, newest first.
#[utoipa::path(
    get,
    path = "/events",
    tag = "events",
    params(EventsQuery),
    responses((status = 200, description = "Events, newest first", body = Vec<EventView>), Reads)
)]
pub(super) async fn list(
    Viewer(principal): Viewer,
    Query(query): Query<EventsQuery>,
    State(app): State<App>,
) -> Result<Response, Error> {
    query.check()?;
    let clusters = match (&query.cluster, &principal.clusters) {
        (Some(cluster), _) => {
            principal.check_cluster(cluster)?;
            Some(vec![cluster.clone()])
        }
        (None, Clusters::All) => None,
        (None, Clusters::Only(clusters)) => Some(clusters.iter().cloned().collect()),
    };
    let given = query.given();
    let asked = format!("events {given:?}");
    let page = Page::new(query.limit, query.cursor.as_deref(), &asked)?;
    let filter = Filter {
        clusters,
        severity: query.severity,
        object: query.object,
        actor: query.actor,
        text: query.text,
        from: query.from,
        to: query.to,
    };
    let mut reader = app.store().read().await?;
    let found = events::list(&mut reader, &filter, page.last(), page.fetch()).await?;
    let cursor = |event: &EventView| Cursor::new(event.id, &asked);
    Ok(page.answer(found, "/api/v1/events", &given, cursor))
}
