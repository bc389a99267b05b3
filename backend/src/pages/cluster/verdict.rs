//! The first thing read: the state in one sentence, and the few numbers behind it.

use askama::Template;
use isopath_api::view::{ClusterView, State};

use crate::pages::status::Status;
use crate::pages::text::{Count, Reported};

#[derive(Template, Debug, PartialEq)]
#[template(path = "cluster/verdict.html")]
pub(crate) struct Verdict {
    name: String,
    title: String,
    status: Status,
    sentence: String,
    facts: Vec<Fact>,
}

#[derive(Debug, PartialEq)]
struct Fact {
    label: &'static str,
    value: String,
    /// What the value is out of.
    of: Option<String>,
}

impl Verdict {
    pub(super) fn new(view: &ClusterView) -> Self {
        Self {
            name: view.name.to_string(),
            title: title(view),
            status: view.state.into(),
            sentence: view.verdict.clone(),
            facts: facts(view),
        }
    }
}

/// The window's title, with the state first: that is what a narrow tab shows.
pub(super) fn title(view: &ClusterView) -> String {
    format!("{}: {}", view.state, view.name)
}

fn facts(view: &ClusterView) -> Vec<Fact> {
    let share = |label, part: usize, all: usize| Fact {
        label,
        value: Count(part as u64).to_string(),
        of: Some(Count(all as u64).to_string()),
    };
    let reported = view.directors.iter().any(|d| d.last_report.is_some());
    let measured = |label, value: u64| Fact {
        label,
        value: Reported::when(reported, value).to_string(),
        of: None,
    };
    let up = |state: State| state == State::Up;
    let full = |vip: &&isopath_api::view::VipView| {
        !vip.wanted.is_empty() && vip.wanted.iter().all(|d| vip.real.contains(d))
    };
    vec![
        share(
            "Directors up",
            view.directors.iter().filter(|d| up(d.state)).count(),
            view.directors.len(),
        ),
        share(
            "VIPs at full width",
            view.vips.iter().filter(full).count(),
            view.vips.len(),
        ),
        real_servers(view),
        measured(
            "Active connections",
            view.directors.iter().map(|d| d.active).sum(),
        ),
        measured(
            "Connections/s",
            view.directors
                .iter()
                .map(|d| d.connections_per_second)
                .sum(),
        ),
        Fact {
            label: "Revision",
            value: view.revision.to_string(),
            of: None,
        },
    ]
}

/// Real servers that serve. Where directors disagree about some, that is said beside: they
/// serve for the directors that see them up.
fn real_servers(view: &ClusterView) -> Fact {
    let servers = || view.services.iter().flat_map(|s| &s.real_servers);
    let count = |state| servers().filter(|r| r.state == state).count();
    let disputed = count(State::Degraded);
    let all = Count(servers().count() as u64).to_string();
    Fact {
        label: "Real servers up",
        value: Count((count(State::Up) + disputed) as u64).to_string(),
        of: Some(match disputed {
            0 => all,
            some => format!("{all}, {some} disputed"),
        }),
    }
}
