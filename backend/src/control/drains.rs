//! Drains and undrains: admitting them, and moving them on.

use isopath_api::desired::AdminState;
use isopath_api::fault::Fault;
use isopath_api::ids::ClusterName;
use isopath_api::view::{DrainRequest, OperationState, OperationView, Severity};
use sqlx::SqliteConnection;

use super::actor::Actor;
use super::operation::{Kind, Operation, Progress, progress};
use super::state::{ClusterState, DirectorState};
use super::{Change, LONGEST_REASON};
use crate::clock::Moment;
use crate::error::Error;
use crate::guards;
use crate::store::{directors, operations};

impl Actor {
    /// Admits a drain or an undrain: from its commit on the director shall change.
    pub(super) async fn change(&mut self, change: Change) -> Result<OperationView, Error> {
        check_request(&change.request)?;
        let now = self.now();
        self.director(&change.cluster, &change.director)?;
        // Nobody else writes while the transaction is open, and this task alone changes what
        // it knows: what the guards see here is what the commit stands on.
        let mut transaction = self.store.begin().await?;
        let cluster = self.cluster(&change.cluster)?;
        let director = self.director(&change.cluster, &change.director)?;
        admit(cluster, director, &change, now)?;
        let next = DirectorState {
            admin_state: match change.kind {
                Kind::Drain => AdminState::Draining,
                Kind::Undrain => AdminState::Active,
            },
            admin_reason: match change.kind {
                Kind::Drain => change.request.reason.clone(),
                Kind::Undrain => String::new(),
            },
            generation: director.generation + 1,
            ..director.clone()
        };
        let replaced = cluster.open_operation(&change.director).cloned();
        let mut operation = new_operation(&change, next.generation, now);
        operation.detail = self.first_detail(cluster, &operation, &next, now);
        if let Some(replaced) = &replaced {
            cancel(&mut transaction, replaced, &operation, now).await?;
        }
        directors::put(
            &mut transaction,
            &change.cluster,
            &next.row(&change.director),
        )
        .await?;
        operations::insert(&mut transaction, &operation).await?;
        let event = self.event(
            Some(&change.cluster),
            Severity::Info,
            format!("director {}", change.director),
            requested(&change),
            &change.actor,
        );
        let event = self.record(&mut transaction, event).await?;
        transaction.commit().await?;

        let view = operation.view();
        self.update(&change.cluster, |cluster| {
            cluster.directors.insert(change.director.clone(), next);
            cluster
                .operations
                .retain(|other| other.director != operation.director);
            cluster.operations.insert(0, operation);
        });
        if let Some(replaced) = replaced {
            self.count_ended(replaced.kind, OperationState::Cancelled);
        }
        self.feed(&change.cluster, &change.director);
        self.remember(vec![event]);
        self.publish();
        Ok(view)
    }

    fn first_detail(
        &self,
        cluster: &ClusterState,
        operation: &Operation,
        next: &DirectorState,
        now: Moment,
    ) -> String {
        let mut cluster = cluster.clone();
        cluster
            .directors
            .insert(operation.director.clone(), next.clone());
        progress(operation, &cluster, now, self.world.started).detail
    }

    /// Moves a cluster's operations on to where they stand now. What cannot be stored is
    /// tried again with the next report or tick.
    pub(super) async fn advance(&mut self, name: &ClusterName) {
        let now = self.now();
        let Some(cluster) = self.world.clusters.get(name) else {
            return;
        };
        let steps: Vec<(Operation, Progress)> = cluster
            .operations
            .iter()
            .map(|operation| {
                let progress = progress(operation, cluster, now, self.world.started);
                (operation.clone(), progress)
            })
            .filter(|(operation, progress)| {
                operation.state != progress.state || operation.detail != progress.detail
            })
            .collect();
        for (operation, progress) in steps {
            if operation.state == progress.state {
                // What is waited for is told by the next report as well: not worth a commit.
                self.set_progress(&operation, &progress, None);
            } else if let Err(error) = self.step(operation, progress, now).await {
                let error: &dyn std::error::Error = &error;
                tracing::error!(cluster = %name, error, "cannot store where an operation stands");
            }
        }
    }

    async fn step(
        &mut self,
        operation: Operation,
        progress: Progress,
        now: Moment,
    ) -> Result<(), Error> {
        let name = &operation.cluster;
        let ended_at = progress.state.is_terminal().then_some(now.wall);
        let drained = operation.kind == Kind::Drain && progress.state == OperationState::Succeeded;
        let mut transaction = self.store.begin().await?;
        let (state, detail) = (progress.state, &progress.detail);
        operations::set_state(&mut transaction, &operation.id, state, detail, ended_at).await?;
        let next = if drained {
            let director = self.director(name, &operation.director)?;
            let next = DirectorState {
                admin_state: AdminState::Drained,
                generation: director.generation + 1,
                ..director.clone()
            };
            directors::put(&mut transaction, name, &next.row(&operation.director)).await?;
            Some(next)
        } else {
            None
        };
        let mut events = Vec::new();
        if ended_at.is_some() {
            let event = self.event(
                Some(name),
                Severity::Info,
                format!("director {}", operation.director),
                format!(
                    "{} {state}: {detail}",
                    operation.kind.as_str(),
                    state = state.as_str()
                ),
                "controller",
            );
            events.push(self.record(&mut transaction, event).await?);
        }
        transaction.commit().await?;

        self.set_progress(&operation, &progress, next);
        if ended_at.is_some() {
            self.count_ended(operation.kind, progress.state);
        }
        if drained {
            self.feed(name, &operation.director);
        }
        self.remember(events);
        Ok(())
    }

    fn set_progress(
        &mut self,
        operation: &Operation,
        progress: &Progress,
        next: Option<DirectorState>,
    ) {
        self.update(&operation.cluster, |cluster| {
            for open in &mut cluster.operations {
                if open.id == operation.id {
                    open.state = progress.state;
                    open.detail.clone_from(&progress.detail);
                }
            }
            cluster.operations.retain(|open| !open.state.is_terminal());
            if let Some(next) = next {
                cluster.directors.insert(operation.director.clone(), next);
            }
        });
    }
}

/// Refuses a request that is not well formed.
fn check_request(request: &DrainRequest) -> Result<(), Error> {
    let mut faults = Vec::new();
    let length = request.reason.chars().count();
    if length > LONGEST_REASON {
        let expected = format_args!("at most {LONGEST_REASON} characters");
        faults.push(Fault::new("/reason", expected, length));
    }
    for (index, guard) in request.override_guards.iter().enumerate() {
        if !guards::ALL.contains(&guard.as_str()) {
            let pointer = format!("/override_guards/{index}");
            let expected = format!("one of {}", guards::ALL.join(", "));
            faults.push(Fault::new(pointer, expected, format_args!("{guard:?}")));
        }
    }
    if !request.override_guards.is_empty() && request.reason.trim().is_empty() {
        let expected = "the reason for which a guard is overridden";
        faults.push(Fault::new("/reason", expected, "none"));
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid { faults })
    }
}

/// Refuses what the present state or a guard does not allow.
fn admit(
    cluster: &ClusterState,
    director: &DirectorState,
    change: &Change,
    now: Moment,
) -> Result<(), Error> {
    let name = &change.director;
    let by_operation = cluster
        .open_operation(name)
        .map_or(String::new(), |operation| {
            format!(" (operation {})", operation.id)
        });
    match (change.kind, director.admin_state) {
        (Kind::Undrain, AdminState::Active) => Err(Error::conflict(format!(
            "{name} is in service already{by_operation}"
        ))),
        (Kind::Drain, AdminState::Draining | AdminState::Drained) => Err(Error::conflict(format!(
            "{name} is {} already{by_operation}; undrain it to put it back into service",
            director.admin_state
        ))),
        (Kind::Undrain, AdminState::Draining | AdminState::Drained) => Ok(()),
        (Kind::Drain, AdminState::Active) => match guards::last_announcer(cluster, name, now) {
            Err(refusal)
                if !change
                    .request
                    .override_guards
                    .iter()
                    .any(|g| g == refusal.guard) =>
            {
                Err(Error::Guard {
                    guards: vec![refusal.guard.to_owned()],
                    detail: refusal.detail,
                })
            }
            Err(_) | Ok(()) => Ok(()),
        },
    }
}

fn new_operation(change: &Change, need_generation: u64, now: Moment) -> Operation {
    Operation {
        id: Operation::new_id(),
        cluster: change.cluster.clone(),
        director: change.director.clone(),
        kind: change.kind,
        state: OperationState::Applying,
        detail: String::new(),
        need_generation,
        requested_by: change.actor.clone(),
        reason: change.request.reason.clone(),
        override_guards: change.request.override_guards.clone(),
        started_at: now.wall,
        ended_at: None,
    }
}

async fn cancel(
    connection: &mut SqliteConnection,
    replaced: &Operation,
    by: &Operation,
    now: Moment,
) -> Result<(), sqlx::Error> {
    let detail = format!("undone by {} of {}", by.id, by.requested_by);
    let cancelled = OperationState::Cancelled;
    operations::set_state(connection, &replaced.id, cancelled, &detail, Some(now.wall)).await
}

fn requested(change: &Change) -> String {
    let mut what = match change.kind {
        Kind::Drain => "drain requested".to_owned(),
        Kind::Undrain => "undrain requested".to_owned(),
    };
    if !change.request.override_guards.is_empty() {
        what.push_str(&format!(
            " over {}",
            change.request.override_guards.join(", ")
        ));
    }
    if !change.request.reason.is_empty() {
        what.push_str(&format!(": {}", change.request.reason));
    }
    what
}
