//! What is wrong, worst first: the cause, since when, and what to do next.

use askama::Template;
use isopath_api::view::ClusterView;

use super::anchor;
use crate::pages::status::{Kind, Status};
use crate::pages::text::Age;

#[derive(Template, Debug, PartialEq)]
#[template(path = "cluster/problems.html")]
pub(crate) struct Problems {
    count: usize,
    rows: Vec<Row>,
    /// How many are not shown.
    more: usize,
}

/// How many problems are shown: the worst. When a rack is down nobody reads two hundred.
const SHOWN: usize = 8;

#[derive(Debug, PartialEq)]
struct Row {
    /// Tells rows apart while the page is updated; one object may have several.
    key: String,
    status: Status,
    object: String,
    anchor: Option<String>,
    cause: String,
    since: Option<Age>,
    next: String,
}

impl Problems {
    pub(super) fn new(view: &ClusterView) -> Self {
        let row = |(index, problem): (usize, &isopath_api::view::ProblemView)| Row {
            key: format!("{} {index}", problem.object),
            status: problem.state.into(),
            object: problem.object.clone(),
            anchor: anchor(&problem.object),
            cause: problem.cause.clone(),
            since: problem.since.map(|since| Age::new(since, view.as_of)),
            next: problem.next.clone(),
        };
        Self {
            count: view.problems.len(),
            more: view.problems.len().saturating_sub(SHOWN),
            rows: (view.problems.iter().take(SHOWN).enumerate())
                .map(row)
                .collect(),
        }
    }

    fn none(&self) -> Status {
        Status::new(Kind::Up, "No problems")
    }
}
