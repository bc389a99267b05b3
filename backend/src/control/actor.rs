//! The task itself.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use isopath_api::desired::Desired;
use isopath_api::ids::{ClusterName, DirectorName};
use isopath_api::operation::OperationState;
use isopath_api::view::{EventView, Severity};
use sqlx::SqliteConnection;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Command;
use super::desired::{Derived, derive};
use super::fleet::{AgentState, Fleet};
use super::outbox::Outbox;
use super::state::{ClusterState, DirectorState, World};
use super::transitions::{Shown, Transition, differences, placements, transitions};
use crate::clock::{Clock, Moment};
use crate::error::Error;
use crate::store::clusters::ClusterRow;
use crate::store::directors::DirectorRow;
use crate::store::events::NewEvent;
use crate::store::{
    Store, WriteError, agents, clusters, declared, directors, epoch, events, interfaces,
    operations, quiesced,
};

/// How often silence is noticed and changes of state become events.
const TICK: Duration = Duration::from_secs(1);

/// Into how many parts that is split: looking at a hundred clusters takes as long as a hundred
/// reports, which would wait for all of it.
const SLICES: u32 = 16;

/// Commands that are served before readers are shown what became of them.
const BATCH: usize = 64;

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
    pub(super) outbox: Outbox,
    published: watch::Sender<Arc<World>>,
    version: watch::Sender<u64>,
    /// Whether reports were taken since.
    pub(super) unpublished: bool,
    /// Which clusters the last tick looked at.
    turn: usize,
}

impl Actor {
    /// The task with what the database holds.
    pub(super) async fn load(
        store: Store,
        clock: Clock,
    ) -> Result<(Self, watch::Receiver<Arc<World>>, watch::Receiver<u64>), Error> {
        let started = clock.now();
        let world = load(&store, started).await?;
        let (published, seen) = watch::channel(Arc::new(world.clone()));
        let (version, versions) = watch::channel(0);
        let mut actor = Self {
            store,
            clock,
            world,
            feeds: BTreeMap::new(),
            shown: BTreeMap::new(),
            outbox: Outbox::default(),
            published,
            version,
            unpublished: false,
            turn: 0,
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
        let mut tick = tokio::time::interval(TICK / SLICES);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut commands = Vec::with_capacity(BATCH);
        loop {
            // Each of the three is cancel-safe: commands stay in the queue, a tick stays due, a
            // cancelled token stays so.
            tokio::select! {
                received = queue.recv_many(&mut commands, BATCH) => match received {
                    0 => return,
                    _ => self.serve_all(commands.drain(..)).await,
                },
                _ = tick.tick() => self.tick().await,
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Serves what waited. Reports are shown to readers together and answered after that: who has
    /// the answer to one sees it in what is read next.
    async fn serve_all(&mut self, commands: impl Iterator<Item = Command>) {
        let mut reported = Vec::new();
        for command in commands {
            match command {
                Command::Report(report, arrived, answer) => {
                    reported.push((answer, self.report(*report, arrived).await));
                }
                other => self.serve(other).await,
            }
        }
        if self.unpublished {
            self.publish();
        }
        for (answer, acknowledged) in reported {
            if answer.send(acknowledged).is_err() {
                tracing::debug!("the agent did not wait for its answer");
            }
        }
    }

    async fn serve(&mut self, command: Command) {
        // Whoever asked may have gone away: what was done is done all the same.
        let unheard = match command {
            Command::Apply(apply, answer) => answer.send(self.apply(*apply).await).is_err(),
            Command::Change(change, answer) => answer.send(self.change(change).await).is_err(),
            Command::Cancel(cancel, answer) => answer.send(self.cancel(cancel).await).is_err(),
            Command::Attach(claim, answer) => answer.send(self.attach(claim).await).is_err(),
            Command::Report(report, arrived, answer) => {
                answer.send(self.report(*report, arrived).await).is_err()
            }
            Command::Refused((cluster, director), code, cause, answer) => {
                self.refuse((&cluster, &director), code, cause).await;
                answer.send(Ok(())).is_err()
            }
            Command::MakeEnrollToken(make, answer) => {
                let made = self.make_enroll_token(*make).await;
                answer.send(made).is_err()
            }
            Command::Enroll(enroll, answer) => answer.send(self.enroll(*enroll).await).is_err(),
            Command::RefusedEnrollment(cause, answer) => {
                self.count_enrollment(cause);
                answer.send(Ok(())).is_err()
            }
            Command::Renew(who, wanted, answer) => {
                answer.send(self.renew(who, *wanted).await).is_err()
            }
            Command::Revoke(revoke, answer) => answer.send(self.revoke(*revoke).await).is_err(),
        };
        if unheard {
            tracing::debug!("the caller did not wait for its answer");
        }
    }

    /// Notices what time alone changed, in the clusters whose turn it is.
    async fn tick(&mut self) {
        self.turn = (self.turn + 1) % SLICES as usize;
        let names = self.world.clusters.keys().skip(self.turn);
        let names: Vec<_> = names.step_by(SLICES as usize).cloned().collect();
        let mut changed = self.note_storage();
        self.flush().await;
        for name in names {
            self.advance(&name).await;
            changed |= self.note_transitions(&name).await;
        }
        if changed {
            self.publish();
        }
    }

    async fn note_transitions(&mut self, name: &ClusterName) -> bool {
        let Some(cluster) = self.world.clusters.get(name) else {
            return false;
        };
        let (now, started) = (self.now(), self.world.started);
        let view = crate::view::build(cluster, now, started);
        let differing = crate::view::differing(cluster, now);
        let conditions = crate::ecmp::conditions(cluster, now, started);
        let differs = cluster.differing != differing || cluster.conditions != conditions;
        let mut shown = self.shown.get(name).cloned().unwrap_or_default();
        let mut found = transitions(&mut shown, &view);
        found.extend(placements(&cluster.differing, &differing, &view));
        found.extend(differences(&cluster.conditions, &conditions));
        let changed = self.shown.insert(name.clone(), shown.clone()) != Some(shown);
        // Changing a cluster that readers look at copies it.
        if differs {
            self.update(name, |cluster| {
                cluster.differing = differing;
                cluster.conditions = conditions;
            });
        }
        let news = !found.is_empty();
        let events = found
            .into_iter()
            .map(
                |Transition {
                     severity,
                     object,
                     what,
                 }| {
                    self.event(Some(name), severity, object, what, "controller")
                },
            )
            .collect();
        self.tell(events).await;
        changed || differs || news
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
        self.unpublished = false;
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

    /// Tells and shows committed events of what an operator did.
    pub(super) fn remember(&mut self, events: Vec<EventView>) {
        for event in &events {
            log_event(event);
        }
        self.show(events);
    }

    /// Shows committed events.
    pub(super) fn show(&mut self, events: Vec<EventView>) {
        for event in events {
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
    pub(super) fn count_ended(&mut self, kind: &'static str, state: OperationState) {
        let key = (kind, state.as_str());
        *self.world.operations_ended.entry(key).or_default() += 1;
    }
}

fn log_event(event: &EventView) {
    let EventView {
        cluster,
        severity,
        object,
        what,
        actor,
        ..
    } = event;
    log_line(cluster.as_ref(), *severity, object, what, actor);
}

/// Logs what happened.
pub(super) fn log(event: &NewEvent) {
    let NewEvent {
        cluster,
        severity,
        object,
        what,
        actor,
        ..
    } = event;
    log_line(cluster.as_ref(), *severity, object, what, actor);
}

/// A text as one line. Operators and agents choose some of its words: none of them is to write
/// lines of the log.
fn in_one_line(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) {
        Cow::Owned(text.replace(char::is_control, " "))
    } else {
        Cow::Borrowed(text)
    }
}

fn log_line(
    cluster: Option<&ClusterName>,
    severity: Severity,
    object: &str,
    what: &str,
    actor: &str,
) {
    let cluster = cluster.map(ClusterName::as_str);
    let (object, what) = (in_one_line(object), in_one_line(what));
    match severity {
        Severity::Info => tracing::info!(cluster, actor, "{object}: {what}"),
        Severity::Warning => tracing::warn!(cluster, actor, "{object}: {what}"),
        Severity::Error => tracing::error!(cluster, actor, "{object}: {what}"),
    }
}

async fn load(store: &Store, started: Moment) -> Result<World, Error> {
    match store.begin().await {
        Ok(mut transaction) => {
            let world = load_world(&mut transaction, started).await?;
            transaction.commit().await?;
            Ok(world)
        }
        // What would have to be written before anybody is served fails, and says so.
        Err(WriteError::ReadOnly(_)) => {
            let mut reader = store.read().await?;
            Ok(load_world(&mut reader, started).await?)
        }
        Err(error) => Err(error.into()),
    }
}

async fn load_world(
    connection: &mut SqliteConnection,
    started: Moment,
) -> Result<World, sqlx::Error> {
    let epoch = epoch::load_or_make(connection, started.wall).await?;
    let mut world = World::new(epoch, started);
    let agents = agents::all(connection).await?.into_iter();
    world.fleet = Arc::new(Fleet {
        agents: agents.map(|row| (row.id, AgentState::new(row))).collect(),
        ..Fleet::default()
    });
    for row in clusters::all(connection).await? {
        let cluster = load_cluster(connection, row, &world.epoch).await?;
        world
            .clusters
            .insert(cluster.name.clone(), Arc::new(cluster));
    }
    Ok(world)
}

async fn load_cluster(
    connection: &mut SqliteConnection,
    row: ClusterRow,
    epoch: &str,
) -> Result<ClusterState, sqlx::Error> {
    let rows = directors::of_cluster(connection, &row.name).await?;
    let quiesced = quiesced::of_cluster(connection, &row.name).await?;
    let derived = Derived::of(&row.declaration, &quiesced);
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
        let known = interfaces::of_director(connection, &row.name, &spec.name).await?;
        let director = DirectorState {
            interfaces: (!known.is_empty()).then(|| known.into()),
            ..DirectorState::from_row(stored, spec.router_id)
        };
        declared.insert(spec.name.clone(), director);
    }
    if declared::repair(connection, &row.name, &row.declaration).await? {
        let (cluster, revision) = (&row.name, row.revision);
        tracing::info!(%cluster, revision, "the tables of what is declared were brought in line");
    }
    let shown = u32::try_from(EVENTS_SHOWN).unwrap_or(u32::MAX);
    let events = events::last(connection, Some(&row.name), None, shown).await?;
    let vips = row.declaration.vip.iter().map(|spec| spec.address);
    let vips: Vec<_> = vips.collect();
    let operations = operations::open_of_cluster(connection, &row.name, &vips).await?;
    Ok(ClusterState {
        name: row.name,
        epoch: epoch.to_owned(),
        revision: row.revision,
        declaration: Arc::new(row.declaration),
        derived,
        quiesced,
        directors: declared,
        operations,
        events: events.into(),
        differing: BTreeMap::new(),
        conditions: BTreeMap::new(),
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
            shaped_at: row.generation,
            content: row.content,
            instance: row.instance,
            interfaces: None,
            report: None,
            reports: 0,
            conflict: None,
            refused: BTreeMap::new(),
            protocol: None,
            skewed: None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_events_words_are_one_line_of_the_log() {
        let forged = "new kernel\r\n2026-03-02T03:12:41Z  INFO isopathd: signed in\u{1b}[2K";
        let line = in_one_line(forged);
        assert!(line.starts_with("new kernel  2026"), "{line}");
        assert!(!line.contains(char::is_control), "{line:?}");
        assert_eq!(in_one_line("Up → Down: d1 ändert"), "Up → Down: d1 ändert");
    }
}
