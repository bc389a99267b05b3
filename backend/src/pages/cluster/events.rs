//! What happened last.

use askama::Template;
use isopath_api::view::{ClusterView, EventView};

use super::anchor;
use crate::pages::status::Status;
use crate::pages::text::Moment;

/// How many events are shown: what fits a screen. The API has the rest.
const SHOWN: usize = 12;

#[derive(Template, Debug, PartialEq)]
#[template(path = "cluster/events.html")]
pub(crate) struct Events {
    rows: Vec<Row>,
}

#[derive(Debug, PartialEq)]
struct Row {
    id: u64,
    at: Moment,
    severity: Status,
    object: String,
    anchor: Option<String>,
    what: String,
    actor: String,
}

impl Events {
    pub(super) fn new(view: &ClusterView) -> Self {
        let row = |event: &EventView| Row {
            id: event.id,
            at: Moment::new(event.at, view.as_of),
            severity: event.severity.into(),
            object: event.object.clone(),
            anchor: anchor(&event.object),
            what: event.what.clone(),
            actor: event.actor.clone(),
        };
        Self {
            rows: view.events.iter().take(SHOWN).map(row).collect(),
        }
    }
}
