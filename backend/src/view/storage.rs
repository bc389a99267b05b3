//! A database that takes no writes: every cluster's problem, since none can be changed.

use isopath_api::view::{ClusterView, ProblemView, State};

use crate::control::state::Storage;

/// Adds it to what is wrong with a cluster.
pub(crate) fn add_storage(view: &mut ClusterView, storage: &Storage) {
    let Some(read_only) = &storage.read_only else {
        return;
    };
    let waiting = match (storage.waiting, storage.lost) {
        (0, 0) => String::new(),
        (waiting, 0) => format!("; {waiting} events wait to be stored"),
        (waiting, lost) => format!("; {waiting} events wait to be stored, {lost} are lost"),
    };
    let problem = ProblemView {
        state: State::Degraded,
        object: "database".to_owned(),
        cause: format!(
            "takes no writes: {}; changes are refused{waiting}",
            read_only.cause
        ),
        since: Some(read_only.since),
        next: "Make room on the controller's disk, or mount it writable; the controller notices \
               by itself. Directors are not affected."
            .to_owned(),
    };
    if view.problems.is_empty() {
        view.verdict = format!("{}: {}.", problem.object, problem.cause);
    }
    if view.state == State::Up {
        view.state = State::Degraded;
    }
    let worse = view
        .problems
        .partition_point(|it| it.state >= problem.state);
    view.problems.insert(worse, problem);
}
