//! What the directors made happen and is still to be stored.
//!
//! An operator's change is answered after its commit, or refused. What is *observed* cannot be
//! refused: an object changed its state, another agent took over, an interface has another
//! address. That is believed and acted on at once, and waits here for as long as the database
//! takes no writes, within bounds: it is never asked for again.

use std::collections::{BTreeSet, VecDeque};

use isopath_api::ids::{ClusterName, DirectorName};
use isopath_api::view::{EventView, Severity};

use super::actor::Actor;
use super::state::{DirectorState, Storage};
use crate::error::Error;
use crate::store::events::NewEvent;
use crate::store::interfaces::InterfaceRow;
use crate::store::{directors, events, interfaces};

/// Events that wait: the oldest give way, are counted and told. It is a bad day of a thousand
/// directors, and some megabytes.
const MOST_EVENTS: usize = 10_000;

/// Events of one transaction, so that the task is soon back at its queue.
const BATCH: usize = 200;

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    events: VecDeque<NewEvent>,
    /// Events that gave way since that was last told.
    lost: u64,
    /// Directors whose agent or interfaces are others than the database has: as many as there
    /// are directors at most.
    agents: BTreeSet<(ClusterName, DirectorName)>,
}

impl Outbox {
    fn push(&mut self, event: NewEvent) {
        if self.events.len() == MOST_EVENTS {
            self.events.pop_front();
            self.lost += 1;
        }
        self.events.push_back(event);
    }

    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.lost == 0 && self.agents.is_empty()
    }
}

impl Actor {
    /// Tells what was observed: to the log now, to the database as soon as it takes it.
    pub(super) async fn tell(&mut self, events: Vec<NewEvent>) {
        for event in events {
            super::actor::log(&event);
            self.outbox.push(event);
        }
        self.flush().await;
    }

    /// Notes that a director's agent or interfaces are others than the database has.
    pub(super) fn agent_changed(&mut self, cluster: &ClusterName, director: &DirectorName) {
        let director = (cluster.clone(), director.clone());
        self.outbox.agents.insert(director);
    }

    /// Stores the first of what waits, if the database takes it; the next tick stores more.
    pub(super) async fn flush(&mut self) {
        if self.outbox.is_empty() || self.store.read_only().is_some() {
            return;
        }
        match self.store_batch().await {
            Ok((stored, waited)) => {
                self.outbox.events.drain(..waited);
                self.outbox.lost = 0;
                self.outbox.agents.clear();
                self.show(stored);
            }
            // Said by the store itself, once.
            Err(Error::ReadOnly(_)) => {}
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "cannot store what happened; it is tried again");
            }
        }
    }

    /// The first of what waits, with how many of the waiting events that was.
    async fn store_batch(&mut self) -> Result<(Vec<EventView>, usize), Error> {
        let mut transaction = self.store.begin().await?;
        let mut stored = Vec::new();
        if self.outbox.lost > 0 {
            let what = format!(
                "{} events were lost: the database took none, and more than {MOST_EVENTS} waited",
                self.outbox.lost
            );
            let event = self.event(
                None,
                Severity::Error,
                "database".to_owned(),
                what,
                "controller",
            );
            stored.push(events::insert(&mut transaction, event).await?);
        }
        for (cluster, name) in &self.outbox.agents {
            // One that is declared no more has nothing to be kept.
            let Ok(director) = self.director(cluster, name) else {
                continue;
            };
            if let Some(instance) = &director.instance {
                directors::set_instance(&mut transaction, cluster, name, instance).await?;
            }
            if let Some(interfaces) = &director.interfaces {
                interfaces::put(&mut transaction, cluster, name, interfaces).await?;
            }
        }
        let batch = self.outbox.events.len().min(BATCH);
        for event in self.outbox.events.iter().take(batch) {
            stored.push(events::insert(&mut transaction, event.clone()).await?);
        }
        transaction.commit().await?;
        Ok((stored, batch))
    }

    /// Shows readers how it stands with the database; whether that changed.
    pub(super) fn note_storage(&mut self) -> bool {
        let storage = Storage {
            read_only: self.store.read_only(),
            waiting: self.outbox.events.len(),
            lost: self.outbox.lost,
        };
        let before = std::mem::replace(&mut self.world.storage, storage);
        if let (Some(was), None) = (&before.read_only, &self.world.storage.read_only) {
            let what = format!(
                "takes writes again; it was read-only since {:.0}: {}",
                was.since, was.cause
            );
            let object = "database".to_owned();
            let event = self.event(None, Severity::Warning, object, what, "controller");
            self.outbox.push(event);
        }
        before != self.world.storage
    }
}

impl DirectorState {
    /// The interfaces that a report says it has, if they are others than are known.
    pub(super) fn other_interfaces(
        &self,
        observed: &isopath_api::observed::Observed,
    ) -> Option<Vec<InterfaceRow>> {
        let reported = &observed.speaker.as_ref()?.interfaces;
        let known = self.interfaces.as_deref().unwrap_or_default();
        let same = known.len() == reported.len()
            && known.iter().zip(reported).all(|(known, it)| known.is(it));
        (!same).then(|| reported.iter().map(InterfaceRow::from).collect())
    }
}
