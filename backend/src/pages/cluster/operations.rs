//! Changes that are under way.

use askama::Template;
use isopath_api::view::{ClusterView, OperationState, OperationView};

use crate::pages::status::Status;
use crate::pages::text::Age;

#[derive(Template, Debug, PartialEq)]
#[template(path = "cluster/operations.html")]
pub(crate) struct Operations {
    rows: Vec<Row>,
}

#[derive(Debug, PartialEq)]
struct Row {
    id: String,
    title: String,
    anchor: String,
    status: Status,
    steps: [Step; 3],
    detail: String,
    requested_by: String,
    reason: String,
    overridden: String,
    started: Age,
}

/// A step of an operation, and where it stands.
#[derive(Debug, PartialEq)]
struct Step {
    name: &'static str,
    stand: Stand,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Done,
    Now,
    Ahead,
}

impl Stand {
    fn class(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Now => "now",
            Self::Ahead => "ahead",
        }
    }

    /// What a screen reader says after the step's name.
    fn spoken(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Now => "under way",
            Self::Ahead => "not yet",
        }
    }
}

impl Operations {
    pub(super) fn new(view: &ClusterView) -> Self {
        let row = |operation: &OperationView| Row {
            id: operation.id.clone(),
            title: title(operation),
            anchor: format!("director-{}", operation.director),
            status: operation.state.into(),
            steps: steps(operation.state),
            detail: operation.detail.clone(),
            requested_by: operation.requested_by.clone(),
            reason: operation.reason.clone(),
            overridden: operation.override_guards.join(", "),
            started: Age::new(operation.started_at, view.as_of),
        };
        let running = view.operations.iter().filter(|o| !o.state.is_terminal());
        Self {
            rows: running.map(row).collect(),
        }
    }
}

fn title(operation: &OperationView) -> String {
    let verb = match operation.kind.as_str() {
        "director.drain" => "Drain",
        "director.undrain" => "Undrain",
        other => other,
    };
    format!("{verb} {}", operation.director)
}

fn steps(state: OperationState) -> [Step; 3] {
    let stands = match state {
        OperationState::Applying => [Stand::Now, Stand::Ahead, Stand::Ahead],
        OperationState::Settling => [Stand::Done, Stand::Now, Stand::Ahead],
        OperationState::Succeeded => [Stand::Done; 3],
        OperationState::Cancelled => [Stand::Ahead; 3],
    };
    let names = [
        "Director acknowledges",
        "Other directors' LSDBs agree",
        "Done",
    ];
    std::array::from_fn(|i| Step {
        name: names[i],
        stand: stands[i],
    })
}
