//! The task itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use isopath_api::desired::Desired;
use isopath_api::ids::{ClusterName, DirectorName};
use isopath_api::view::{EventView, OperationState, Severity};
use sqlx::SqliteConnection;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Command;
use super::desired::{Derived, derive};
use super::operation::Kind;
use super::state::{ClusterState, DirectorState, World};
use super::transitions::{Shown, placements, transitions};
use crate::clock::{Clock, Moment};
use crate::error::Error;
use crate::store::clusters::ClusterRow;
use crate::store::directors::DirectorRow;
use crate::store::events::NewEvent;
use crate::store::{Store, clusters, directors, epoch, events, operations};

/// How often silence is noticed and changes of state become events.
const TICK: Duration = Duration::from_secs(1);

/// Events kept in memory for each cluster's view.
const EVENTS_SHOWN: usize = 20;

/// Owns what the controller knows.
pub(super) struct Actor {
    pub(super) store: Store,
    clock: Clock,
    pub(super) world: World,
    /// The desired state of each declared director, to its agent's stream.
    pub(super) feeds: BTreeMap<(ClusterName, DirectorName), watch::Sender<Arc<Desired>>>,
    shown: BTreeMap<ClusterName, Shown>,
    published: watch::Sender<Arc<World>>,
    version: watch::Sender<u64>,
}

impl Actor {
    /// The task with what the database holds.
    pub(super) async fn load(
        store: Store,
        clock: Clock,
    ) -> Result<(Self, watch::Receiver<Arc<World>>, watch::Receiver<u64>), Error> {
        let started = clock.now();
        let mut transaction = store.begin().await?;
        let epoch = epoch::load_or_make(&mut transaction, started.wall).await?;
        let mut world = World::new(epoch, started);
        for row in clusters::all(&mut transaction).await? {
            let cluster = load_cluster(&mut transaction, row, &world.epoch).await?;
            world
                .clusters
                .insert(cluster.name.clone(), Arc::new(cluster));
        }
        transaction.commit().await?;
        let (published, seen) = watch::channel(Arc::new(world.clone()));
        let (version, versions) = watch::channel(0);
        let mut actor = Self {
            store,
            clock,
            world,
            feeds: BTreeMap::new(),
            shown: BTreeMap::new(),
            published,
            version,
        };
        let all: Vec<_> = actor
            .world
            .clusters
            .values()
            .flat_map(|cluster| {
                let names = cluster.directors.keys().cloned();
                names.map(|director| (cluster.name.clone(), director))
            })
            .collect();
        for (cluster, director) in all {
            actor.feed(&cluster, &director);
        }
        Ok((actor, seen, versions))
    }

    /// Serves the queue until `shutdown`.
    pub(super) async fn run(
        mut self,
        mut queue: mpsc::Receiver<Command>,
        shutdown: CancellationToken,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Each of the three is cancel-safe: a command stays in the queue, a tick stays
            // due, a cancelled token stays so.
            tokio::select! {
                command = queue.recv() => match command {
                    Some(command) => self.serve(command).await,
                    None => return,
                },
                _ = tick.tick() => self.tick().await,
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn serve(&mut self, command: Command) {
        // Whoever asked may have gone away: what was done is done all the same.
        let unheard = match command {
            Command::Apply(apply, answer) => answer.send(self.apply(apply).await).is_err(),
            Command::Change(change, answer) => answer.send(self.change(change).await).is_err(),
            Command::Attach(claim, answer) => answer.send(self.attach(claim).await).is_err(),
            Command::Report(report, answer) => answer.send(self.report(*report).await).is_err(),
        };
        if unheard {
            tracing::debug!("the caller did not wait for its answer");
        }
    }

    /// Notices what time alone changed.
    async fn tick(&mut self) {
        let names: Vec<_> = self.world.clusters.keys().cloned().collect();
        let mut changed = false;
        for name in names {
            self.advance(&name).await;
            match self.note_transitions(&name).await {
                Ok(noted) => changed |= noted,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(cluster = %name, error, "cannot store events");
                }
            }
        }
        if changed {
            self.publish();
        }
    }

    async fn note_transitions(&mut self, name: &ClusterName) -> Result<bool, Error> {
        let Some(cluster) = self.world.clusters.get(name) else {
            return Ok(false);
        };
        let view = crate::view::build(cluster, self.now(), self.world.started);
        let differing = crate::view::differing(cluster, self.now());
        let differs = cluster.differing != differing;
        let mut shown = self.shown.get(name).cloned().unwrap_or_default();
        let mut found = transitions(&mut shown, &view);
        found.extend(placements(&cluster.differing, &differing, &view));
        if found.is_empty() {
            let changed = self.shown.insert(name.clone(), shown.clone()) != Some(shown);
            self.update(name, |cluster| cluster.differing = differing);
            return Ok(changed || differs);
        }
        let mut transaction = self.store.begin().await?;
        let mut recorded = Vec::new();
        for transition in found {
            let (severity, object) = (transition.severity, transition.object);
            let event = self.event(Some(name), severity, object, transition.what, "controller");
            recorded.push(self.record(&mut transaction, event).await?);
        }
        transaction.commit().await?;
        self.shown.insert(name.clone(), shown);
        self.update(name, |cluster| cluster.differing = differing);
        self.remember(recorded);
        Ok(true)
    }

    /// The time.
    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// A cluster.
    pub(super) fn cluster(&self, name: &ClusterName) -> Result<&ClusterState, Error> {
        self.world
            .clusters
            .get(name)
            .map(Arc::as_ref)
            .ok_or_else(|| Error::not_found(format_args!("cluster {name}")))
    }

    /// A declared director.
    pub(super) fn director(
        &self,
        cluster: &ClusterName,
        name: &DirectorName,
    ) -> Result<&DirectorState, Error> {
        self.cluster(cluster)?
            .directors
            .get(name)
            .ok_or_else(|| Error::not_found(format_args!("director {name} in cluster {cluster}")))
    }

    /// Changes a cluster; readers keep what they have until [`Actor::publish`].
    pub(super) fn update(&mut self, name: &ClusterName, change: impl FnOnce(&mut ClusterState)) {
        if let Some(cluster) = self.world.clusters.get_mut(name) {
            change(Arc::make_mut(cluster));
        }
    }

    /// Shows readers what is known now.
    pub(super) fn publish(&mut self) {
        self.published.send_replace(Arc::new(self.world.clone()));
        self.version.send_modify(|version| *version += 1);
    }

    /// Sends a director's desired state to its stream.
    pub(super) fn feed(&mut self, cluster: &ClusterName, name: &DirectorName) {
        let Ok(director) = self.director(cluster, name) else {
            return;
        };
        let Ok(state) = self.cluster(cluster) else {
            return;
        };
        let desired = Arc::new(derive(state, name, director));
        match self.feeds.get(&(cluster.clone(), name.clone())) {
            Some(feed) => {
                feed.send_replace(desired);
            }
            None => {
                let (feed, _) = watch::channel(desired);
                self.feeds.insert((cluster.clone(), name.clone()), feed);
            }
        }
    }

    /// Ends the streams of directors that are declared no more.
    pub(super) fn unfeed<'a>(
        &mut self,
        cluster: &ClusterName,
        names: impl Iterator<Item = &'a DirectorName>,
    ) {
        for name in names {
            self.feeds.remove(&(cluster.clone(), name.clone()));
        }
    }

    /// An event of now.
    pub(super) fn event(
        &self,
        cluster: Option<&ClusterName>,
        severity: Severity,
        object: String,
        what: String,
        actor: &str,
    ) -> NewEvent {
        NewEvent {
            at: self.now().wall,
            cluster: cluster.cloned(),
            severity,
            object,
            what,
            actor: actor.to_owned(),
        }
    }

    /// Stores an event; [`Actor::remember`] shows it once the transaction is committed.
    pub(super) async fn record(
        &self,
        connection: &mut SqliteConnection,
        event: NewEvent,
    ) -> Result<EventView, sqlx::Error> {
        events::insert(connection, event).await
    }

    /// Shows committed events.
    pub(super) fn remember(&mut self, events: Vec<EventView>) {
        for event in events {
            log(&event);
            *self
                .world
                .events_total
                .entry(event.severity.as_str())
                .or_default() += 1;
            if let Some(name) = event.cluster.clone() {
                self.update(&name, |cluster| {
                    cluster.events.push_front(event);
                    cluster.events.truncate(EVENTS_SHOWN);
                });
            }
        }
    }

    /// Counts an operation that ended.
    pub(super) fn count_ended(&mut self, kind: Kind, state: OperationState) {
        let key = (kind.as_str(), state.as_str());
        *self.world.operations_ended.entry(key).or_default() += 1;
    }
}

fn log(event: &EventView) {
    let EventView {
        object,
        what,
        actor,
        ..
    } = event;
    let cluster = event.cluster.as_ref().map(ClusterName::as_str);
    match event.severity {
        Severity::Info => tracing::info!(cluster, actor, "{object}: {what}"),
        Severity::Warning => tracing::warn!(cluster, actor, "{object}: {what}"),
        Severity::Error => tracing::error!(cluster, actor, "{object}: {what}"),
    }
}

async fn load_cluster(
    connection: &mut SqliteConnection,
    row: ClusterRow,
    epoch: &str,
) -> Result<ClusterState, sqlx::Error> {
    let rows = directors::of_cluster(connection, &row.name).await?;
    let derived = Derived::of(&row.declaration);
    let mut declared = BTreeMap::new();
    for spec in &row.declaration.director {
        let stored = rows.iter().find(|stored| stored.name == spec.name);
        let stored = stored.ok_or_else(|| {
            sqlx::Error::Decode(format!("no row of declared director {}", spec.name).into())
        })?;
        let mut stored = stored.clone();
        let content = derived.content(&row.declaration, spec);
        // What another release derived from the same declaration went out under this number.
        if stored.content != content {
            stored.content = content;
            stored.generation += 1;
            directors::put(connection, &row.name, &stored).await?;
            let (cluster, generation) = (&row.name, stored.generation);
            tracing::info!(%cluster, director = %spec.name, generation, "derived otherwise than before");
        }
        let director = DirectorState::from_row(stored, spec.router_id);
        declared.insert(spec.name.clone(), director);
    }
    let shown = u32::try_from(EVENTS_SHOWN).unwrap_or(u32::MAX);
    let events = events::last(connection, Some(&row.name), None, shown).await?;
    let operations = operations::open_of_cluster(connection, &row.name).await?;
    Ok(ClusterState {
        name: row.name,
        epoch: epoch.to_owned(),
        revision: row.revision,
        declaration: Arc::new(row.declaration),
        derived,
        directors: declared,
        operations,
        events: events.into(),
        differing: BTreeMap::new(),
    })
}

impl DirectorState {
    /// A director as stored, not heard yet.
    pub(super) fn from_row(row: DirectorRow, router_id: isopath_api::ids::RouterId) -> Self {
        Self {
            router_id,
            admin_state: row.admin_state,
            admin_reason: row.admin_reason,
            generation: row.generation,
            desired_revision: row.desired_revision,
            content: row.content,
            instance: row.instance,
            report: None,
            conflict: None,
        }
    }

    /// The director as it is stored.
    pub(super) fn row(&self, name: &DirectorName) -> DirectorRow {
        DirectorRow {
            name: name.clone(),
            declared: true,
            admin_state: self.admin_state,
            admin_reason: self.admin_reason.clone(),
            generation: self.generation,
            desired_revision: self.desired_revision,
            content: self.content.clone(),
            instance: self.instance.clone(),
        }
    }
}
