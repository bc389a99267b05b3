//! Declarations: what a new one changes.

use std::sync::Arc;

use isopath_api::declare::Declaration;
use isopath_api::desired::AdminState;
use isopath_api::ids::DirectorName;
use isopath_api::view::{Applied, OperationState, Severity};

use super::Apply;
use super::actor::Actor;
use super::desired::Derived;
use super::state::{ClusterState, DirectorState};
use crate::error::Error;
use crate::store::clusters::{self, Provenance};
use crate::store::directors::{self, DirectorRow};
use crate::store::operations;

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
            actor,
            reason,
            dry_run,
        } = apply;
        // So that a file with and one without the name are the same declaration.
        declaration.cluster = Some(name.clone());
        let now = self.now();
        let current = self.world.clusters.get(&name).cloned();
        let mut transaction = self.store.begin().await?;
        let rows = directors::of_cluster(&mut transaction, &name).await?;
        let derived = Derived::of(&declaration);
        let plan = plan(current.as_deref(), &rows, &declaration, &derived);
        let applied = Applied {
            cluster: name.clone(),
            revision: plan.revision,
            changed: plan.changed,
            dry_run,
            directors: plan.renewed.iter().map(|row| row.name.clone()).collect(),
            warnings: derived.warnings.clone(),
        };
        if dry_run || !plan.changed {
            transaction.rollback().await?;
            return Ok(applied);
        }
        let by = Provenance {
            actor: &actor,
            reason: &reason,
            at: now.wall,
        };
        clusters::put_revision(&mut transaction, &name, plan.revision, &declaration, by).await?;
        for row in plan.renewed.iter().chain(&plan.removed) {
            directors::put(&mut transaction, &name, row).await?;
        }
        let orphaned = current
            .iter()
            .flat_map(|cluster| &cluster.operations)
            .filter(|operation| {
                plan.removed
                    .iter()
                    .any(|row| row.name == operation.director)
            });
        for operation in orphaned {
            let detail = format!("{} is declared no more", operation.director);
            let cancelled = OperationState::Cancelled;
            operations::set_state(
                &mut transaction,
                &operation.id,
                cancelled,
                &detail,
                Some(now.wall),
            )
            .await?;
        }
        let what = summary(&plan, &reason);
        let event = self.event(
            Some(&name),
            Severity::Info,
            format!("cluster {name}"),
            what,
            &actor,
        );
        let event = self.record(&mut transaction, event).await?;
        transaction.commit().await?;

        self.put_in_force(current.as_deref(), (declaration, derived), &name, &plan);
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
            directors: Default::default(),
            operations: Vec::new(),
            events: Default::default(),
            differing: Default::default(),
        });
        cluster.revision = plan.revision;
        let is_removed =
            |director: &DirectorName| plan.removed.iter().any(|row| row.name == *director);
        cluster
            .directors
            .retain(|director, _| !is_removed(director));
        cluster
            .operations
            .retain(|operation| !is_removed(&operation.director));
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
                    report: before.report,
                    conflict: before.conflict,
                    ..fresh
                },
                _ => fresh,
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
