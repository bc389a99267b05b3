//! A cluster as a change of what is in service leaves it: made whole before any of it is stored,
//! and put in the place of the present one after the commit.

use std::collections::BTreeSet;
use std::sync::Arc;

use isopath_api::desired::AdminState;
use isopath_api::ids::DirectorName;
use sqlx::SqliteConnection;

use super::desired::{Derived, told};
use super::operation::{Operation, Target};
use super::quiesced::{QuiescedServer, QuiescedVip};
use super::state::ClusterState;
use crate::store::{directors, quiesced};

/// A cluster after a change, and what of it is new.
pub(super) struct Staged {
    /// The cluster.
    pub(super) cluster: ClusterState,
    /// The directors that get another generation.
    pub(super) told: BTreeSet<DirectorName>,
    /// What is in service otherwise than before.
    wanted: Option<Target>,
}

impl Staged {
    /// The cluster as it is.
    pub(super) fn of(before: &ClusterState) -> Self {
        Self {
            cluster: before.clone(),
            told: BTreeSet::new(),
            wanted: None,
        }
    }

    /// Wants a target to be in service or not, and real servers to be taken out where `removes`.
    pub(super) fn want(&mut self, target: &Target, state: AdminState, removes: bool, reason: &str) {
        let reason = match state {
            AdminState::Active => String::new(),
            AdminState::Draining | AdminState::Drained => reason.to_owned(),
        };
        let cluster = &mut self.cluster;
        match target {
            Target::Director(name) => {
                if let Some(director) = cluster.directors.get_mut(name) {
                    director.admin_state = state;
                    director.admin_reason = reason;
                }
            }
            Target::Vip(vip) => {
                let vips = &mut cluster.quiesced.vips;
                vips.remove(vip);
                if state != AdminState::Active {
                    vips.insert(*vip, QuiescedVip { state, reason });
                }
            }
            Target::RealServer(..) => {
                let servers = &mut cluster.quiesced.real_servers;
                for member in target.members(&cluster.declaration) {
                    let before = servers.remove(&member);
                    let removed = removes || before.is_some_and(|before| before.removed);
                    if state != AdminState::Active {
                        let server = QuiescedServer {
                            state,
                            removed,
                            reason: reason.clone(),
                        };
                        servers.insert(member, server);
                    }
                }
                self.shape();
            }
        }
        self.wanted = Some(target.clone());
    }

    /// Derives anew what all directors have alike.
    fn shape(&mut self) {
        let cluster = &mut self.cluster;
        let derived = Derived::of(&cluster.declaration, &cluster.quiesced);
        for spec in &cluster.declaration.director {
            if let Some(director) = cluster.directors.get_mut(&spec.name) {
                director.content = derived.content(&cluster.declaration, spec);
            }
        }
        cluster.derived = derived;
    }

    /// Puts an operation among those that have not ended, or takes one that has away.
    pub(super) fn put(&mut self, operation: &Operation) {
        let operations = &mut self.cluster.operations;
        let place = operations.iter().position(|open| open.id == operation.id);
        match (place, operation.ended_at) {
            (Some(place), None) => operations[place] = operation.clone(),
            (Some(place), Some(_)) => {
                operations.remove(place);
            }
            (None, None) => operations.insert(0, operation.clone()),
            (None, Some(_)) => {}
        }
    }

    /// Gives another generation to each director that is told anything else than before, and has
    /// the operation need it.
    pub(super) fn tell(&mut self, before: &ClusterState, operation: &mut Operation) {
        let names: Vec<DirectorName> = self.cluster.directors.keys().cloned().collect();
        for name in names {
            let differs = told(before, &name) != told(&self.cluster, &name);
            let Some(director) = self.cluster.directors.get_mut(&name) else {
                continue;
            };
            if differs {
                director.generation += 1;
                let earlier = before.directors.get(&name);
                if earlier.is_none_or(|earlier| earlier.content != director.content) {
                    director.shaped_at = director.generation;
                }
            }
            let concerned = match &operation.target {
                Target::Director(target) => *target == name,
                Target::RealServer(..) | Target::Vip(_) => true,
            };
            if concerned && (differs || !operation.need.contains_key(&name)) {
                operation.need.insert(name.clone(), director.generation);
            }
            if differs {
                self.told.insert(name);
            }
        }
        self.put(operation);
    }

    /// Stores what is new but for the operation.
    pub(super) async fn store(&self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let cluster = &self.cluster;
        let mut rows = self.told.clone();
        match &self.wanted {
            None => {}
            Some(Target::Director(name)) => {
                rows.insert(name.clone());
            }
            Some(Target::Vip(vip)) => {
                let wanted = cluster.quiesced.vips.get(vip);
                quiesced::put_vip(connection, &cluster.name, *vip, wanted).await?;
            }
            Some(target @ Target::RealServer(..)) => {
                for member in target.members(&cluster.declaration) {
                    let wanted = cluster.quiesced.real_servers.get(&member);
                    quiesced::put_server(connection, &cluster.name, member, wanted).await?;
                }
            }
        }
        for name in rows {
            if let Some(director) = cluster.directors.get(&name) {
                directors::put(connection, &cluster.name, &director.row(&name)).await?;
            }
        }
        Ok(())
    }

    /// The cluster, to be put in the place of the present one.
    pub(super) fn into_cluster(self) -> (Arc<ClusterState>, BTreeSet<DirectorName>) {
        (Arc::new(self.cluster), self.told)
    }
}
