//! Declarations: what a new one changes.

use std::sync::Arc;

use isopath_api::declare::Declaration;
use isopath_api::desired::AdminState;
use isopath_api::ids::DirectorName;
use isopath_api::view::{Applied, Severity};

use super::actor::Actor;
use super::desired::Derived;
use super::in_use;
use super::state::{ClusterState, DirectorState};
use super::{Apply, Precondition};
use crate::error::Error;
use crate::guards;
use crate::rest::etag;
use crate::rest::idempotency::{Frame, remember};
use crate::store::audit::{self, Entry};
use crate::store::clusters::{self, Provenance};
use crate::store::declared;
use crate::store::directors::{self, DirectorRow};

/// What a declaration changes.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// The revision that it becomes, or the one in force where it changes nothing.
    revision: u64,
    /// Whether it differs from the one in force.
    changed: bool,
    /// The directors that get a new generation.
    renewed: Vec<DirectorRow>,
    /// The directors that are declared no more.
    removed: Vec<DirectorRow>,
}

/// Works out what a declaration changes. `rows` are all directors that the cluster ever had:
/// the generation of one that comes back goes on where it ended.
fn plan(
    current: Option<&ClusterState>,
    rows: &[DirectorRow],
    new: &Declaration,
    derived: &Derived,
) -> Plan {
    if let Some(cluster) = current
        && *cluster.declaration == *new
    {
        return Plan {
            revision: cluster.revision,
            changed: false,
            renewed: Vec::new(),
            removed: Vec::new(),
        };
    }
    let revision = current.map_or(1, |cluster| cluster.revision + 1);
    let renewed = new.director.iter().filter_map(|spec| {
        let row = rows.iter().find(|row| row.name == spec.name);
        let content = derived.content(new, spec);
        if row.is_some_and(|row| row.declared && row.content == content) {
            return None;
        }
        Some(DirectorRow {
            name: spec.name.clone(),
            declared: true,
            admin_state: row.map_or(AdminState::Active, |row| row.admin_state),
            admin_reason: row.map(|row| row.admin_reason.clone()).unwrap_or_default(),
            generation: row.map_or(1, |row| row.generation + 1),
            desired_revision: revision,
            content,
            instance: row.and_then(|row| row.instance.clone()),
        })
    });
    let removed = rows
        .iter()
        .filter(|row| row.declared && !new.director.iter().any(|spec| spec.name == row.name));
    Plan {
        revision,
        changed: true,
        renewed: renewed.collect(),
        removed: removed
            .map(|row| DirectorRow {
                declared: false,
                // Its drain ends with it; if it ever comes back, it comes back drained.
                admin_state: match row.admin_state {
                    AdminState::Active => AdminState::Active,
                    AdminState::Draining | AdminState::Drained => AdminState::Drained,
                },
                ..row.clone()
            })
            .collect(),
    }
}

impl Actor {
    /// Puts a declaration in force.
    pub(super) async fn apply(&mut self, apply: Apply) -> Result<Applied, Error> {
        let Apply {
            cluster: name,
            mut declaration,
            by,
            reason,
            dry_run,
            expected,
            override_guards,
            key,
        } = apply;
        // So that a file with and one without the name are the same declaration.
        declaration.cluster = Some(name.clone());
        let now = self.now();
        let current = self.world.clusters.get(&name).cloned();
        let revision = current.as_ref().map(|cluster| cluster.revision);
        // Only to look needs no promise, but one that is made is held to.
        if !dry_run || expected != Precondition::None {
            expected.check(&name, revision)?;
        }
        in_use::check(&self.world, &name, current.as_deref(), &declaration)?;
        // To look needs no write: a disk that takes none does not keep anybody from it. This task
        // alone changes these rows.
        let mut reader = self.store.read().await?;
        let rows = directors::of_cluster(&mut reader, &name).await?;
        drop(reader);
        let quiesced = current.as_deref().map(|cluster| cluster.quiesced.clone());
        let quiesced = quiesced.unwrap_or_default();
        let derived = Derived::of(&declaration, &quiesced);
        let plan = plan(current.as_deref(), &rows, &declaration, &derived);
        let applied = Applied {
            cluster: name.clone(),
            revision: plan.revision,
            changed: plan.changed,
            dry_run,
            directors: plan.renewed.iter().map(|row| row.name.clone()).collect(),
            diff: None,
            warnings: derived.warnings.clone(),
        };
        if dry_run {
            return Ok(applied);
        }
        let frame = Frame {
            status: if current.is_none() { 201 } else { 200 },
            etag: Some(etag(applied.revision)),
            location: None,
        };
        if !plan.changed {
            // Sent again after somebody else's change it would undo that.
            if key.is_some() {
                let mut transaction = self.store.begin().await?;
                remember(&mut transaction, key.as_ref(), frame, &applied, now.wall).await?;
                transaction.commit().await?;
            }
            return Ok(applied);
        }
        if let Some(cluster) = &current
            && let Err(refusal) = guards::large_removal(&cluster.declaration, &declaration)
            && !override_guards.iter().any(|guard| guard == refusal.guard)
        {
            return Err(Error::Guard {
                guards: vec![refusal.guard.to_owned()],
                detail: refusal.detail,
            });
        }
        let mut transaction = self.store.begin().await?;
        let provenance = Provenance {
            actor: &by.name,
            reason: &reason,
            at: now.wall,
        };
        clusters::put_revision(
            &mut transaction,
            &name,
            plan.revision,
            &declaration,
            provenance,
        )
        .await?;
        for row in plan.renewed.iter().chain(&plan.removed) {
            directors::put(&mut transaction, &name, row).await?;
        }
        let before = current.as_deref().map(|cluster| &*cluster.declaration);
        declared::put(&mut transaction, &name, before, &declaration).await?;
        let orphaned = self
            .end_orphaned(&mut transaction, current.as_deref(), &declaration)
            .await?;
        let what = summary(&plan, &reason);
        let event = self.event(
            Some(&name),
            Severity::Info,
            format!("cluster {name}"),
            what,
            &by.name,
        );
        let object = format!("revision {} of cluster {name}", plan.revision);
        let entry = Entry::done("cluster.declare", &object, &reason).of(&name);
        audit::insert(&mut transaction, &by, entry, now.wall).await?;
        let event = self.record(&mut transaction, event).await?;
        remember(&mut transaction, key.as_ref(), frame, &applied, now.wall).await?;
        transaction.commit().await?;

        self.put_in_force(current.as_deref(), (declaration, derived), &name, &plan);
        for operation in &orphaned.operations {
            self.count_ended(operation.kind_str(), operation.state);
        }
        self.remember(orphaned.events);
        self.remember(vec![event]);
        for row in &plan.renewed {
            self.feed(&name, &row.name);
        }
        self.unfeed(&name, plan.removed.iter().map(|row| &row.name));
        self.publish();
        Ok(applied)
    }

    fn put_in_force(
        &mut self,
        current: Option<&ClusterState>,
        (declaration, derived): (Declaration, Arc<Derived>),
        name: &isopath_api::ids::ClusterName,
        plan: &Plan,
    ) {
        let mut cluster = current.cloned().unwrap_or_else(|| ClusterState {
            name: name.clone(),
            epoch: self.world.epoch.clone(),
            revision: plan.revision,
            declaration: Arc::new(declaration.clone()),
            derived: Arc::clone(&derived),
            quiesced: Default::default(),
            directors: Default::default(),
            operations: Vec::new(),
            events: Default::default(),
            differing: Default::default(),
            conditions: Default::default(),
        });
        cluster.revision = plan.revision;
        let is_removed =
            |director: &DirectorName| plan.removed.iter().any(|row| row.name == *director);
        cluster
            .directors
            .retain(|director, _| !is_removed(director));
        cluster
            .operations
            .retain(|operation| operation.target.is_declared(&declaration));
        for row in &plan.renewed {
            let Some(spec) = declaration
                .director
                .iter()
                .find(|spec| spec.name == row.name)
            else {
                continue;
            };
            let before = cluster.directors.remove(&row.name);
            let fresh = DirectorState::from_row(row.clone(), spec.router_id);
            let director = match before {
                // A report of another router id is none of this director's.
                Some(before) if before.router_id == spec.router_id => DirectorState {
                    // The row may still wait for it.
                    instance: before.instance,
                    interfaces: before.interfaces,
                    report: before.report,
                    reports: before.reports,
                    conflict: before.conflict,
                    refused: before.refused,
                    protocol: before.protocol,
                    skewed: before.skewed,
                    ..fresh
                },
                Some(before) => DirectorState {
                    instance: before.instance,
                    ..fresh
                },
                None => fresh,
            };
            cluster.directors.insert(row.name.clone(), director);
        }
        cluster.declaration = Arc::new(declaration);
        cluster.derived = derived;
        self.world.clusters.insert(name.clone(), Arc::new(cluster));
    }
}

fn summary(plan: &Plan, reason: &str) -> String {
    let mut what = format!("revision {} declared", plan.revision);
    let names = |rows: &[DirectorRow]| {
        let names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
        names.join(", ")
    };
    if !plan.renewed.is_empty() {
        what.push_str(&format!("; new desired state for {}", names(&plan.renewed)));
    }
    if !plan.removed.is_empty() {
        what.push_str(&format!("; without {}", names(&plan.removed)));
    }
    if !reason.is_empty() {
        what.push_str(&format!(": {reason}"));
    }
    what
}

#[cfg(test)]
mod tests;
