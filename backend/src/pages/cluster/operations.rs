//! Changes that are under way.

use askama::Template;
use isopath_api::operation::{OperationView, StepState, StepView};
use isopath_api::view::ClusterView;

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
    steps: Vec<Step>,
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
    Skipped,
    Overdue,
}

impl Stand {
    fn class(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Now => "now",
            Self::Ahead => "ahead",
            Self::Skipped => "skipped",
            Self::Overdue => "overdue",
        }
    }

    /// What a screen reader says after the step's name.
    fn spoken(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Now => "under way",
            Self::Ahead => "not yet",
            Self::Skipped => "left out",
            Self::Overdue => "not over at the deadline",
        }
    }
}

impl Operations {
    pub(super) fn new(view: &ClusterView) -> Self {
        let row = |operation: &OperationView| Row {
            id: operation.id.clone(),
            title: title(operation),
            anchor: anchor(operation),
            status: operation.state.into(),
            steps: operation.steps.iter().map(Step::from).collect(),
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
    let (what, verb) = operation.kind.split_once('.').unwrap_or_default();
    let verb = match verb {
        "drain" => "Drain",
        "undrain" => "Undrain",
        other => other,
    };
    let what = match what {
        "real_server" => "real server ",
        "vip" => "VIP ",
        _ => "",
    };
    format!("{verb} {what}{}", operation.target)
}

/// Where on the page its target is.
fn anchor(operation: &OperationView) -> String {
    match operation.kind.split_once('.') {
        Some(("director", _)) => format!("director-{}", operation.target),
        Some(_) | None => String::new(),
    }
}

impl From<&StepView> for Step {
    fn from(step: &StepView) -> Self {
        Self {
            name: step.step.title(),
            stand: match step.state {
                StepState::Ahead => Stand::Ahead,
                StepState::Now => Stand::Now,
                StepState::Done => Stand::Done,
                StepState::Skipped => Stand::Skipped,
                StepState::Overdue => Stand::Overdue,
            },
        }
    }
}
