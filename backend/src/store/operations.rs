//! Operations: drains and undrains, under way and ended.

use std::cmp::Ordering;

use isopath_api::ids::{ClusterName, Vip};
use isopath_api::operation::{
    OnDeadline, OperationState, OperationView, StepName, StepState, StepView,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, QueryBuilder, Row, Sqlite, SqliteConnection};

use super::{decode, from_int, from_ms, to_int, to_ms};
use crate::control::operation::{Kind, Operation, Step, Target, kind_str, plan};

/// Stores a new operation.
///
/// # Errors
/// When the database cannot be written to, and when another operation of the same target
/// has not ended.
pub async fn insert(
    connection: &mut SqliteConnection,
    operation: &Operation,
) -> Result<(), sqlx::Error> {
    let (target, service) = target_columns(&operation.target);
    sqlx::query(
        "INSERT INTO operations (id, cluster, kind, target_kind, target, service, state, step, \
         steps, detail, blocked_by, override_guards, need, targets, at_stake, requested_by, \
         reason, immediate, on_deadline, base_revision, version, started_ms, deadline_ms, \
         ended_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
         $19, $20, $21, $22, $23, $24)",
    )
    .bind(&operation.id)
    .bind(operation.cluster.as_str())
    .bind(operation.kind_str())
    .bind(operation.target.kind())
    .bind(target)
    .bind(service)
    .bind(operation.state.as_str())
    .bind(step_column(operation))
    .bind(json(&steps_column(operation)))
    .bind(&operation.detail)
    .bind(json(&operation.blocked_by))
    .bind(json(&operation.override_guards))
    .bind(json(&operation.need))
    .bind(json(&operation.targets))
    .bind(json(&operation.at_stake))
    .bind(&operation.requested_by)
    .bind(&operation.reason)
    .bind(operation.immediate)
    .bind(operation.on_deadline.as_str())
    .bind(to_int(operation.base_revision))
    .bind(to_int(operation.version))
    .bind(to_ms(operation.started_at))
    .bind(to_ms(operation.deadline_at))
    .bind(operation.ended_at.map(to_ms))
    .execute(connection)
    .await?;
    Ok(())
}

/// Stores where an operation stands.
///
/// # Errors
/// When the database cannot be written to.
pub async fn update(
    connection: &mut SqliteConnection,
    operation: &Operation,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE operations SET state = $2, step = $3, steps = $4, detail = $5, blocked_by = $6, \
         need = $7, targets = $8, at_stake = $9, version = $10, ended_ms = $11 WHERE id = $1",
    )
    .bind(&operation.id)
    .bind(operation.state.as_str())
    .bind(step_column(operation))
    .bind(json(&steps_column(operation)))
    .bind(&operation.detail)
    .bind(json(&operation.blocked_by))
    .bind(json(&operation.need))
    .bind(json(&operation.targets))
    .bind(json(&operation.at_stake))
    .bind(to_int(operation.version))
    .bind(operation.ended_at.map(to_ms))
    .execute(connection)
    .await?;
    Ok(())
}

/// A cluster's operations that have not ended, newest first. One that a release without steps
/// began has all the VIPs that are declared at stake: that release did not write down which.
///
/// # Errors
/// When the database cannot be read.
pub async fn open_of_cluster(
    connection: &mut SqliteConnection,
    cluster: &ClusterName,
    declared: &[Vip],
) -> Result<Vec<Operation>, sqlx::Error> {
    let rows: Vec<OperationRow> = sqlx::query_as(
        "SELECT * FROM operations WHERE cluster = $1 AND ended_ms IS NULL \
         ORDER BY started_ms DESC, id DESC",
    )
    .bind(cluster.as_str())
    .fetch_all(connection)
    .await?;
    let operation = |row: OperationRow| Operation {
        at_stake: match row.is_rebuilt {
            true => declared.to_vec(),
            false => row.operation.at_stake,
        },
        ..row.operation
    };
    Ok(rows.into_iter().map(operation).collect())
}

/// One operation, ended or not.
///
/// # Errors
/// When the database cannot be read.
pub async fn by_id(
    connection: &mut SqliteConnection,
    id: &str,
) -> Result<Option<OperationView>, sqlx::Error> {
    let row: Option<OperationRow> = sqlx::query_as("SELECT * FROM operations WHERE id = $1")
        .bind(id)
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| row.operation.view(None)))
}

/// Which operations are asked for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Those of these clusters.
    pub clusters: Vec<ClusterName>,
    /// Those in one state.
    pub state: Option<OperationState>,
    /// Those of one kind.
    pub kind: Option<String>,
    /// Those before this one, in the order of the list.
    pub before: Option<String>,
}

/// The last operations that a filter lets through, newest first. Ids sort by time.
///
/// # Errors
/// When the database cannot be read.
pub async fn list(
    connection: &mut SqliteConnection,
    filter: &Filter,
    limit: u32,
) -> Result<Vec<Operation>, sqlx::Error> {
    let mut query: QueryBuilder<Sqlite> =
        QueryBuilder::new("SELECT * FROM operations WHERE cluster IN (");
    let mut clusters = query.separated(", ");
    for cluster in &filter.clusters {
        clusters.push_bind(cluster.as_str());
    }
    query.push(")");
    if let Some(state) = filter.state {
        query.push(" AND state = ").push_bind(state.as_str());
    }
    if let Some(kind) = &filter.kind {
        query.push(" AND kind = ").push_bind(kind);
    }
    if let Some(before) = &filter.before {
        query.push(" AND id < ").push_bind(before);
    }
    query
        .push(" ORDER BY id DESC LIMIT ")
        .push_bind(i64::from(limit));
    let rows: Vec<OperationRow> = query.build_query_as().fetch_all(connection).await?;
    Ok(rows.into_iter().map(|row| row.operation).collect())
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("what is stored has string keys only")
}

fn target_columns(target: &Target) -> (String, String) {
    let service = match target {
        Target::RealServer(_, Some(service)) => service.to_string(),
        Target::RealServer(_, None) | Target::Director(_) | Target::Vip(_) => String::new(),
    };
    (target.to_string(), service)
}

fn step_column(operation: &Operation) -> &'static str {
    operation.step().map_or("", StepName::as_str)
}

fn steps_column(operation: &Operation) -> Vec<StepView> {
    let steps = operation.steps.iter().cloned();
    let stored = |Step {
                      name,
                      state,
                      since,
                      evidence,
                  }| StepView {
        step: name,
        state,
        since,
        evidence,
    };
    steps.map(stored).collect()
}

struct OperationRow {
    operation: Operation,
    /// Whether a release without steps wrote it.
    is_rebuilt: bool,
}

impl FromRow<'_, SqliteRow> for OperationRow {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let text = |column: &str| row.try_get::<String, _>(column);
        let number = |column: &str| from_int(row.try_get(column)?);
        let time = |column: &str| from_ms(row.try_get(column)?);
        let target = target(&text("target_kind")?, &text("target")?, &text("service")?)?;
        let kind = [Kind::Drain, Kind::Undrain];
        let kind = parse(&text("kind")?, kind, |kind| kind_str(&target, kind))?;
        let on_deadline = parse(&text("on_deadline")?, OnDeadline::ALL, OnDeadline::as_str)?;
        let mut steps: Vec<Step> = parse_json::<Vec<StepView>>(&text("steps")?)?
            .into_iter()
            .map(|step| Step {
                name: step.step,
                state: step.state,
                since: step.since,
                evidence: step.evidence,
            })
            .collect();
        let is_rebuilt = steps.is_empty();
        if is_rebuilt {
            steps = of_an_earlier_release(&plan(&target, kind, on_deadline), &text("step")?);
        }
        let ended: Option<i64> = row.try_get("ended_ms")?;
        let operation = Operation {
            id: text("id")?,
            cluster: text("cluster")?
                .parse()
                .map_err(|error| decode("a cluster's name", error))?,
            kind,
            state: parse(&text("state")?, OperationState::ALL, OperationState::as_str)?,
            steps,
            detail: text("detail")?,
            blocked_by: parse_json(&text("blocked_by")?)?,
            need: parse_json(&text("need")?)?,
            at_stake: parse_json(&text("at_stake")?)?,
            targets: parse_json(&text("targets")?)?,
            requested_by: text("requested_by")?,
            reason: text("reason")?,
            override_guards: parse_json(&text("override_guards")?)?,
            immediate: row.try_get("immediate")?,
            deadline_at: time("deadline_ms")?,
            on_deadline,
            base_revision: number("base_revision")?,
            version: number("version")?,
            started_at: time("started_ms")?,
            ended_at: ended.map(from_ms).transpose()?,
            quiet: Default::default(),
            target,
        };
        Ok(Self {
            operation,
            is_rebuilt,
        })
    }
}

/// The steps of an operation that a release without any had under way at `now`.
fn of_an_earlier_release(plan: &[StepName], now: &str) -> Vec<Step> {
    let place = plan.iter().position(|step| step.as_str() == now);
    let state = |index: usize| match place.map(|place| place.cmp(&index)) {
        // It has ended, or had this step behind it.
        None | Some(Ordering::Greater) => StepState::Skipped,
        Some(Ordering::Equal) => StepState::Now,
        Some(Ordering::Less) => StepState::Ahead,
    };
    let step = |(index, name): (usize, &StepName)| Step {
        name: *name,
        state: state(index),
        since: None,
        evidence: String::new(),
    };
    plan.iter().enumerate().map(step).collect()
}

fn target(kind: &str, target: &str, service: &str) -> Result<Target, sqlx::Error> {
    let malformed = |error| decode("an operation's target", error);
    Ok(match kind {
        "director" => Target::Director(target.parse().map_err(malformed)?),
        "vip" => Target::Vip(target.parse().map_err(malformed)?),
        _ => {
            let service = match service {
                "" => None,
                service => Some(service.parse().map_err(malformed)?),
            };
            Target::RealServer(target.parse().map_err(malformed)?, service)
        }
    })
}

fn parse_json<T: DeserializeOwned>(text: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(text).map_err(|error| decode("a part of an operation", error))
}

fn parse<T: Copy>(
    text: &str,
    all: impl IntoIterator<Item = T>,
    word: impl Fn(T) -> &'static str,
) -> Result<T, sqlx::Error> {
    all.into_iter()
        .find(|value| word(*value) == text)
        .ok_or_else(|| sqlx::Error::Decode(format!("an operation's {text:?}").into()))
}

#[cfg(test)]
mod tests;
