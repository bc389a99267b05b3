//! What is shown of a cluster, computed purely from what is declared and reported.

mod directors;
mod placement;
mod problems;
mod services;
mod storage;
mod vips;

use isopath_api::ids::{DirectorName, NeighborState};
use isopath_api::operation::OperationView;
use isopath_api::view::{ClusterSummary, ClusterView, State, SwitchView};

pub(crate) use placement::{difference, differing, mismatches};
pub(crate) use services::{last_check_in_words, real_servers};
pub(crate) use storage::add_storage;

use crate::clock::Moment;
use crate::control::state::ClusterState;

fn operations(facts: &Facts<'_>) -> Vec<OperationView> {
    let open = facts.cluster.operations.iter();
    open.map(|operation| operation.view(Some((facts.cluster, facts.now))))
        .collect()
}

/// What `GET /api/v1/clusters/{c}` answers as of `now`, of a controller that started at
/// `started`.
pub fn build(cluster: &ClusterState, now: Moment, started: Moment) -> ClusterView {
    let facts = Facts {
        cluster,
        now,
        started,
    };
    let (directors, withholding) = directors::views(&facts);
    let vips = vips::views(&facts);
    let services = services::views(&facts);
    let problems = problems::find(&facts, (&directors, &withholding), &vips, &services);
    let state = if vips.iter().any(|vip| vip.state == State::Down) {
        State::Down
    } else if directors.iter().all(|d| d.state == State::Unknown) {
        State::Unknown
    } else if problems.is_empty() {
        State::Up
    } else {
        State::Degraded
    };
    let verdict = problems::verdict(&directors, &vips, &problems);
    ClusterView {
        schema: "isopath.cluster/1".to_owned(),
        name: cluster.name.clone(),
        revision: cluster.revision,
        as_of: now.wall,
        state,
        verdict,
        problems,
        warnings: cluster.derived.warnings.clone(),
        lvs: cluster.derived.lvs,
        switches: switches(&facts),
        directors,
        vips,
        services,
        operations: operations(&facts),
        events: cluster.events.iter().cloned().collect(),
    }
}

/// The directors' states alone, in their declared order.
pub(crate) fn director_states(
    cluster: &ClusterState,
    now: Moment,
    started: Moment,
) -> Vec<(DirectorName, State)> {
    let facts = Facts {
        cluster,
        now,
        started,
    };
    directors::states(&facts)
}

/// A line of the list of clusters.
pub fn summary(view: &ClusterView) -> ClusterSummary {
    ClusterSummary {
        name: view.name.clone(),
        revision: view.revision,
        state: view.state,
        verdict: view.verdict.clone(),
        problems: view.problems.len(),
        directors: view.directors.len(),
        directors_up: view
            .directors
            .iter()
            .filter(|d| d.state == State::Up)
            .count(),
        vips: view.vips.len(),
    }
}

/// All that a view is computed from.
struct Facts<'a> {
    cluster: &'a ClusterState,
    now: Moment,
    started: Moment,
}

/// The routers that directors are neighbours of, but for the directors themselves.
fn switches(facts: &Facts<'_>) -> Vec<SwitchView> {
    let declaration = &facts.cluster.declaration;
    let mut switches: Vec<SwitchView> = declaration
        .switch
        .iter()
        .map(|switch| SwitchView {
            router_id: switch.router_id,
            name: Some(switch.name.clone()),
            full: Vec::new(),
            not_full: Vec::new(),
        })
        .collect();
    for spec in &declaration.director {
        let director = facts.cluster.directors.get(&spec.name);
        let Some(speaker) = director
            .and_then(|director| director.fresh(facts.now))
            .and_then(|observed| observed.speaker.as_ref())
        else {
            continue;
        };
        for neighbor in &speaker.neighbors {
            if facts.cluster.director_of(neighbor.router_id).is_some() {
                continue;
            }
            let known = switches
                .iter()
                .position(|s| s.router_id == neighbor.router_id);
            let index = known.unwrap_or_else(|| {
                switches.push(SwitchView {
                    router_id: neighbor.router_id,
                    name: None,
                    full: Vec::new(),
                    not_full: Vec::new(),
                });
                switches.len() - 1
            });
            let switch = &mut switches[index];
            let list = match neighbor.state {
                NeighborState::Full => &mut switch.full,
                NeighborState::Down
                | NeighborState::Attempt
                | NeighborState::Init
                | NeighborState::TwoWay
                | NeighborState::ExStart
                | NeighborState::Exchange
                | NeighborState::Loading => &mut switch.not_full,
            };
            if !list.contains(&spec.name) {
                list.push(spec.name.clone());
            }
        }
    }
    for switch in &mut switches {
        // Full over one of two links is Full.
        switch.not_full.retain(|name| !switch.full.contains(name));
    }
    switches
}

/// Names joined by commas.
fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}

#[cfg(test)]
mod tests;
