//! Drains and undrains: admitting them, cancelling them, and moving them on.

use std::sync::Arc;
use std::time::Duration;

use isopath_api::declare::Declaration;
use isopath_api::desired::AdminState;
use isopath_api::fault::Fault;
use isopath_api::ids::ClusterName;
use isopath_api::operation::{
    DrainRequest, LONGEST_DEADLINE_S, OnDeadline, OperationState, OperationView,
    SHORTEST_DEADLINE_S, StepName, StepState,
};
use isopath_api::view::{EventView, Severity};
use sqlx::SqliteConnection;

use super::actor::Actor;
use super::operation::{
    Kind, Operation, Progress, Step, Target, cancelling, declared_no_more, plan, progress,
};
use super::staged::Staged;
use super::state::ClusterState;
use super::{Cancel, Change, LONGEST_REASON};
use crate::auth::By;
use crate::clock::Moment;
use crate::error::Error;
use crate::guards;
use crate::rest::idempotency::{Frame, remember};
use crate::rest::operations::location;
use crate::store::audit::{self, Entry};
use crate::store::operations;

impl Actor {
    /// Admits a drain or an undrain: from its commit on its target shall change.
    pub(super) async fn change(&mut self, change: Change) -> Result<OperationView, Error> {
        check_request(&change.target, change.kind, &change.request)?;
        let (now, started) = (self.now(), self.world.started);
        // This task alone changes what it knows, and waits for the commit: what the guards see
        // here is what the commit stands on.
        let before = Arc::new(self.cluster(&change.cluster)?.clone());
        let replaced = admit(&before, &change, (now, started))?.cloned();
        let mut operation = new_operation(&before, &change, now);
        let mut staged = Staged::of(&before);
        let replaced = replaced.map(|replaced| undone(replaced, &operation, now));
        if let Some(replaced) = &replaced {
            staged.put(replaced);
        }
        let state = match change.kind {
            Kind::Drain => AdminState::Draining,
            Kind::Undrain => AdminState::Active,
        };
        staged.want(&change.target, state, false, &change.request.reason);
        staged.put(&operation);
        staged.tell(&before, &mut operation);
        operation.detail = progress(&operation, &staged.cluster, now, started)
            .operation
            .detail;
        operation.targets = operation.targets_now(&staged.cluster, now);
        staged.put(&operation);

        let mut transaction = self.store.begin().await?;
        if let Some(replaced) = &replaced {
            operations::update(&mut transaction, replaced).await?;
        }
        staged.store(&mut transaction).await?;
        operations::insert(&mut transaction, &operation).await?;
        let object = change.target.object();
        let event = self.event(
            Some(&change.cluster),
            Severity::Info,
            object.clone(),
            requested(&change),
            &change.by.name,
        );
        let action = operation.kind_str();
        let entry = Entry::done(action, &object, &change.request.reason).of(&change.cluster);
        audit::insert(&mut transaction, &change.by, entry, now.wall).await?;
        let event = self.record(&mut transaction, event).await?;
        let view = operation.view(Some((&staged.cluster, now)));
        let frame = Frame {
            status: 202,
            location: Some(location(&operation.id)),
            etag: None,
        };
        remember(
            &mut transaction,
            change.key.as_ref(),
            frame,
            &view,
            now.wall,
        )
        .await?;
        transaction.commit().await?;

        if let Some(replaced) = replaced {
            self.count_ended(replaced.kind_str(), OperationState::Cancelled);
        }
        self.put_staged(&change.cluster, staged);
        self.remember(vec![event]);
        self.publish();
        Ok(view)
    }

    /// Cancels an operation that has not ended: what it did is undone.
    pub(super) async fn cancel(&mut self, cancel: Cancel) -> Result<OperationView, Error> {
        let Cancel { id, by } = cancel;
        let now = self.now();
        let mut clusters = self.world.clusters.values();
        let found = clusters.find_map(|cluster| {
            let mut open = cluster.operations.iter();
            let operation = open.find(|operation| operation.id == id)?;
            Some((Arc::clone(cluster), operation.clone()))
        });
        let Some((before, operation)) = found else {
            return Err(Error::conflict(format!("operation {id} has ended")));
        };
        if operation.state == OperationState::Cancelling {
            let what = format!("operation {id} is being cancelled already");
            return Err(Error::conflict(what));
        }
        let state = match operation.kind {
            Kind::Drain => AdminState::Active,
            Kind::Undrain => {
                let started = self.world.started;
                allowed_to_drain(&before, &operation.target, &[], (now, started))
                    .map_err(|error| error_of_cancelling(&operation.target, error))?;
                AdminState::Drained
            }
        };
        let mut next = cancelling(&operation, &by.name, now);
        let mut staged = Staged::of(&before);
        staged.want(&next.target, state, false, &next.reason);
        staged.put(&next);
        staged.tell(&before, &mut next);
        let what = format!("{} being cancelled", next.kind_str());
        self.store_step(
            (&before, &mut next),
            staged,
            vec![(Severity::Info, what)],
            Some(&by),
        )
        .await?;
        self.publish();
        let cluster = self.cluster(&next.cluster)?;
        Ok(next.view(Some((cluster, now))))
    }

    /// Moves a cluster's operations on to where they stand now. What cannot be stored is
    /// tried again with the next report or tick.
    pub(super) async fn advance(&mut self, name: &ClusterName) {
        let (now, started) = (self.now(), self.world.started);
        let Some(cluster) = self.world.clusters.get(name) else {
            return;
        };
        let ids: Vec<String> = cluster.operations.iter().map(|it| it.id.clone()).collect();
        for id in ids {
            // What an operation does is what the next one is judged by.
            let Some(cluster) = self.world.clusters.get(name).cloned() else {
                return;
            };
            let Some(operation) = cluster.operations.iter().find(|it| it.id == id) else {
                continue;
            };
            let progress = progress(operation, &cluster, now, started);
            match self.step(&cluster, operation, progress).await {
                // That the disk takes no writes is said by the store itself, once.
                Ok(()) | Err(Error::ReadOnly(_)) => {}
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(cluster = %name, error, "cannot store where an operation stands");
                }
            }
        }
    }

    async fn step(
        &mut self,
        before: &ClusterState,
        operation: &Operation,
        progress: Progress,
    ) -> Result<(), Error> {
        let Progress {
            operation: mut next,
            admin,
            removes,
        } = progress;
        let said = news(operation, &next);
        if said.is_empty() && admin.is_none() && !removes {
            if *operation != next {
                // What is waited for is told by the next report as well: not worth a commit.
                self.update(&before.name, |cluster| {
                    let mut open = cluster.operations.iter_mut();
                    if let Some(open) = open.find(|open| open.id == next.id) {
                        *open = next;
                    }
                });
            }
            return Ok(());
        }
        let mut staged = Staged::of(before);
        if admin.is_some() || removes {
            let state = admin.unwrap_or(AdminState::Draining);
            staged.want(&next.target, state, removes, &next.reason);
        }
        staged.put(&next);
        staged.tell(before, &mut next);
        self.store_step((before, &mut next), staged, said, None)
            .await
    }

    /// Stores an operation that went on, with what comes of it, and shows it.
    async fn store_step(
        &mut self,
        (before, next): (&ClusterState, &mut Operation),
        mut staged: Staged,
        said: Vec<(Severity, String)>,
        by: Option<&By>,
    ) -> Result<(), Error> {
        let now = self.now();
        next.version += 1;
        next.targets = next.targets_now(&staged.cluster, now);
        staged.put(next);
        let object = next.target.object();
        let mut transaction = self.store.begin().await?;
        staged.store(&mut transaction).await?;
        operations::update(&mut transaction, next).await?;
        let mut events: Vec<EventView> = Vec::new();
        let actor = by.map_or("controller", |by| by.name.as_str());
        for (severity, what) in said {
            let event = self.event(Some(&before.name), severity, object.clone(), what, actor);
            events.push(self.record(&mut transaction, event).await?);
        }
        if let Some(by) = by {
            let entry = Entry::done("operation.cancel", &next.id, "").of(&before.name);
            audit::insert(&mut transaction, by, entry, now.wall).await?;
        }
        transaction.commit().await?;
        if next.state.is_terminal() {
            self.count_ended(next.kind_str(), next.state);
        }
        self.put_staged(&before.name, staged);
        self.remember(events);
        Ok(())
    }

    /// Ends the operations whose targets `declaration` does not have: what they were asked for
    /// did not happen.
    pub(super) async fn end_orphaned(
        &self,
        transaction: &mut SqliteConnection,
        before: Option<&ClusterState>,
        declaration: &Declaration,
    ) -> Result<Orphaned, Error> {
        let mut ended = Orphaned::default();
        let open = before.into_iter().flat_map(|cluster| &cluster.operations);
        for operation in open.filter(|open| !open.target.is_declared(declaration)) {
            let failed = Operation {
                state: OperationState::Failed,
                detail: declared_no_more(&operation.target),
                blocked_by: Vec::new(),
                version: operation.version + 1,
                ended_at: Some(self.now().wall),
                ..operation.clone()
            };
            operations::update(transaction, &failed).await?;
            for (severity, what) in news(operation, &failed) {
                let (cluster, object) = (Some(&failed.cluster), failed.target.object());
                let event = self.event(cluster, severity, object, what, "controller");
                let event = self.record(transaction, event).await?;
                ended.events.push(event);
            }
            ended.operations.push(failed);
        }
        Ok(ended)
    }

    fn put_staged(&mut self, name: &ClusterName, staged: Staged) {
        let (cluster, told) = staged.into_cluster();
        self.world.clusters.insert(name.clone(), cluster);
        for director in &told {
            self.feed(name, director);
        }
    }
}

/// Operations that a declaration ended, and the events of that.
#[derive(Default)]
pub(super) struct Orphaned {
    pub(super) operations: Vec<Operation>,
    pub(super) events: Vec<EventView>,
}

/// What is worth an event, and with it a commit, between two states of an operation.
fn news(before: &Operation, after: &Operation) -> Vec<(Severity, String)> {
    let kind = after.kind_str();
    let mut said = Vec::new();
    for (was, is) in before.steps.iter().zip(&after.steps) {
        let left = match is.state {
            StepState::Done => "done",
            StepState::Skipped => "left out",
            StepState::Overdue => "not over at the deadline",
            StepState::Ahead | StepState::Now => continue,
        };
        if was.state != is.state {
            let what = format!("{kind}: {} {left}: {}", is.name.as_str(), is.evidence);
            said.push((Severity::Info, what));
        }
    }
    let detail = &after.detail;
    if after.state.is_terminal() {
        let what = format!("{kind} {}: {detail}", after.state.as_str());
        let severity = if after.state == OperationState::Failed {
            Severity::Warning
        } else {
            Severity::Info
        };
        said.push((severity, what));
    } else if before.blocked_by != after.blocked_by && !after.blocked_by.is_empty() {
        // What does not go on by itself has to be seen by somebody.
        let what = format!(
            "{kind} blocked by {}: {detail}",
            after.blocked_by.join(", ")
        );
        said.push((Severity::Error, what));
    } else if before.state == OperationState::Blocked && after.state != OperationState::Blocked {
        said.push((Severity::Info, format!("{kind} goes on: {detail}")));
    } else if said.is_empty() && before.step() != after.step() {
        said.push((Severity::Info, format!("{kind}: {detail}")));
    }
    said
}

/// Refuses a request that is not well formed.
pub(crate) fn check_request(
    target: &Target,
    kind: Kind,
    request: &DrainRequest,
) -> Result<(), Error> {
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
    let deadline = request.deadline_s();
    if !(SHORTEST_DEADLINE_S..=LONGEST_DEADLINE_S).contains(&deadline) {
        let expected = format_args!("a number from {SHORTEST_DEADLINE_S} to {LONGEST_DEADLINE_S}");
        faults.push(Fault::new("/deadline_s", expected, deadline));
    }
    let (is_drain, is_server) = (
        kind == Kind::Drain,
        matches!(target, Target::RealServer(..)),
    );
    if request.on_deadline == OnDeadline::Remove && !(is_drain && is_server) {
        let expected = "hold or finish: only a real server's drain can end with its removal";
        faults.push(Fault::new("/on_deadline", expected, "remove"));
    }
    if request.immediate && !(is_drain && matches!(target, Target::Director(_))) {
        let expected = "false: only a director's drain raises a cost before it withdraws";
        faults.push(Fault::new("/immediate", expected, "true"));
    }
    if request.service.is_some() && !is_server {
        let expected = "no service: only a real server is drained in one alone";
        faults.push(Fault::new("/service", expected, "one"));
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid { faults })
    }
}

/// Refuses what the present state or a guard does not allow; the open operation that it ends.
pub(crate) fn admit<'a>(
    cluster: &'a ClusterState,
    change: &Change,
    (now, started): (Moment, Moment),
) -> Result<Option<&'a Operation>, Error> {
    let target = &change.target;
    if !target.is_declared(&cluster.declaration) {
        let what = format!("{} in cluster {}", target.object(), cluster.name);
        return Err(Error::not_found(what));
    }
    let declaration = &cluster.declaration;
    let mut open = cluster.operations.iter();
    let open = open.find(|open| open.target.overlaps(target, declaration));
    let same = open.is_none_or(|open| open.target == *target);
    let by_operation = open.map_or(String::new(), |open| format!(" (operation {})", open.id));
    let state = admin_state(cluster, target);
    match (change.kind, state) {
        _ if !same => Err(Error::conflict(format!(
            "{target} is part of what another operation changes{by_operation}; cancel that first"
        ))),
        (Kind::Undrain, AdminState::Active) if !is_drain(open) => Err(Error::conflict(format!(
            "{target} is in service already{by_operation}"
        ))),
        (Kind::Drain, AdminState::Draining | AdminState::Drained) => Err(Error::conflict(format!(
            "{target} is {state} already{by_operation}; undrain it to put it back into service"
        ))),
        (Kind::Drain, AdminState::Active) if is_drain(open) => Err(Error::conflict(format!(
            "{target} is being drained already{by_operation}"
        ))),
        (Kind::Undrain, _) => Ok(open),
        (Kind::Drain, AdminState::Active) => {
            let overridden = &change.request.override_guards;
            allowed_to_drain(cluster, target, overridden, (now, started)).map(|()| open)
        }
    }
}

/// Refuses to take out of service what a guard that was not overridden keeps there.
fn allowed_to_drain(
    cluster: &ClusterState,
    target: &Target,
    overridden: &[String],
    at: (Moment, Moment),
) -> Result<(), Error> {
    let verdicts = guards::verdicts(cluster, target, Kind::Drain, at);
    let refusals: Vec<_> = verdicts
        .into_iter()
        .filter_map(|(_, verdict)| verdict.err())
        .filter(|refusal| !overridden.iter().any(|guard| guard == refusal.guard))
        .collect();
    if refusals.is_empty() {
        return Ok(());
    }
    let details: Vec<&str> = refusals.iter().map(|it| it.detail.as_str()).collect();
    Err(Error::Guard {
        guards: refusals.iter().map(|it| it.guard.to_owned()).collect(),
        detail: details.join("; "),
    })
}

/// Why an undrain is not cancelled, and what can be asked for in its place.
fn error_of_cancelling(target: &Target, error: Error) -> Error {
    match error {
        Error::Guard { guards, detail } => Error::Guard {
            guards,
            detail: format!(
                "to cancel this undrain would take {target} out of service at once: {detail}, \
                 in a drain of {target}: it ends the undrain as well"
            ),
        },
        other => other,
    }
}

/// Whether a drain is under way that is not being undone: also one whose target is back in
/// service as long as a guard wants it to be.
fn is_drain(open: Option<&Operation>) -> bool {
    open.is_some_and(|open| open.kind == Kind::Drain && open.state != OperationState::Cancelling)
}

/// What the operator wants of a target: active only where all of it is.
pub(crate) fn admin_state(cluster: &ClusterState, target: &Target) -> AdminState {
    match target {
        Target::Director(name) => {
            let director = cluster.directors.get(name);
            director.map_or(AdminState::Active, |director| director.admin_state)
        }
        Target::Vip(vip) => cluster.quiesced.vip(*vip),
        Target::RealServer(..) => {
            let members = target.members(&cluster.declaration);
            let mut states = members
                .iter()
                .map(|(service, server)| cluster.quiesced.server(*service, *server));
            states
                .find(|state| *state != AdminState::Active)
                .unwrap_or_default()
        }
    }
}

fn new_operation(cluster: &ClusterState, change: &Change, now: Moment) -> Operation {
    let request = &change.request;
    let at_stake = match &change.target {
        Target::Director(name) => {
            let director = cluster.directors.get(name);
            let vips = director.map(|it| guards::at_stake(cluster, it, now));
            vips.into_iter().flatten().collect()
        }
        Target::Vip(vip) => vec![*vip],
        Target::RealServer(..) => Vec::new(),
    };
    let deadline = now
        .wall
        .checked_add(Duration::from_secs(request.deadline_s()));
    Operation {
        id: Operation::new_id(),
        cluster: change.cluster.clone(),
        target: change.target.clone(),
        kind: change.kind,
        state: OperationState::Applying,
        steps: first_steps(change, now),
        detail: String::new(),
        blocked_by: Vec::new(),
        need: Default::default(),
        at_stake,
        targets: Vec::new(),
        requested_by: change.by.name.clone(),
        reason: request.reason.clone(),
        override_guards: request.override_guards.clone(),
        immediate: request.immediate,
        deadline_at: deadline.unwrap_or(now.wall),
        on_deadline: request.on_deadline,
        base_revision: cluster.revision,
        version: 1,
        started_at: now.wall,
        ended_at: None,
        quiet: Default::default(),
    }
}

/// The steps of an operation that is admitted: its guards have just been asked.
fn first_steps(change: &Change, now: Moment) -> Vec<Step> {
    let request = &change.request;
    let names = plan(&change.target, change.kind, request.on_deadline);
    let mut steps: Vec<Step> = names
        .into_iter()
        .map(|name| {
            let (state, evidence) = match name {
                StepName::Guard if request.override_guards.is_empty() => {
                    (StepState::Done, "every guard allows it".to_owned())
                }
                StepName::Guard => {
                    let overridden = request.override_guards.join(", ");
                    (StepState::Done, format!("overridden: {overridden}"))
                }
                StepName::Cost if request.immediate => {
                    (StepState::Skipped, "to be withdrawn at once".to_owned())
                }
                _ => (StepState::Ahead, String::new()),
            };
            Step {
                name,
                state,
                since: (state != StepState::Ahead).then_some(now.wall),
                evidence,
            }
        })
        .collect();
    if let Some(first) = steps.iter_mut().find(|step| step.state == StepState::Ahead) {
        first.state = StepState::Now;
        first.since = Some(now.wall);
    }
    steps
}

/// An operation that another one ends.
fn undone(mut replaced: Operation, by: &Operation, now: Moment) -> Operation {
    replaced.state = OperationState::Cancelled;
    replaced.detail = format!("undone by {} of {}", by.id, by.requested_by);
    replaced.blocked_by.clear();
    replaced.version += 1;
    replaced.ended_at = Some(now.wall);
    replaced
}

fn requested(change: &Change) -> String {
    let request = &change.request;
    let mut what = format!("{} requested", change.kind.as_str());
    if request.immediate {
        what.push_str(" at once");
    }
    if let Some(service) = request.service {
        what.push_str(&format!(" in {service}"));
    }
    if !request.override_guards.is_empty() {
        what.push_str(&format!(" over {}", request.override_guards.join(", ")));
    }
    if !request.reason.is_empty() {
        what.push_str(&format!(": {}", request.reason));
    }
    what
}
