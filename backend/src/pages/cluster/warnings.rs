//! What the declaration has that works and is unwise, by its name.

use askama::Template;
use isopath_api::view::ClusterView;

use crate::pages::status::{Kind, Status};

#[derive(Template, Debug, PartialEq)]
#[template(path = "cluster/warnings.html")]
pub(crate) struct Warnings {
    count: usize,
    rows: Vec<Row>,
    /// How many are not shown.
    more: usize,
}

/// How many warnings are shown: the declaration is where all of them are.
const SHOWN: usize = 8;

#[derive(Debug, PartialEq)]
struct Row {
    /// Tells rows apart while the page is updated.
    key: String,
    status: Status,
    text: String,
    /// Where in the declaration, as a JSON pointer.
    at: String,
}

impl Warnings {
    pub(super) fn new(view: &ClusterView) -> Self {
        let rows = view.warnings.iter().take(SHOWN).map(|warning| Row {
            key: format!("{} {}", warning.code, warning.at),
            status: Status::new(Kind::Degraded, warning.code.as_str()),
            text: warning.text.clone(),
            at: warning.at.clone(),
        });
        Self {
            count: view.warnings.len(),
            rows: rows.collect(),
            more: view.warnings.len().saturating_sub(SHOWN),
        }
    }
}
