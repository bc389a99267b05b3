//! Operations: drains and undrains, under way and ended.

use isopath_api::ids::ClusterName;
use isopath_api::view::{OperationState, OperationView};
use jiff::Timestamp;
use sqlx::{FromRow, SqliteConnection};

use super::{decode, from_int, from_ms, to_int, to_ms};
use crate::control::operation::{Kind, Operation};

/// Stores a new operation.
///
/// # Errors
/// When the database cannot be written to, and when another operation of the same director
/// has not ended.
pub async fn insert(
    connection: &mut SqliteConnection,
    operation: &Operation,
) -> Result<(), sqlx::Error> {
    let guards =
        serde_json::to_string(&operation.override_guards).expect("a list of strings is JSON");
    sqlx::query(
        "INSERT INTO operations (id, cluster, director, kind, state, detail, need_generation, \
         requested_by, reason, override_guards, started_ms, ended_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(&operation.id)
    .bind(operation.cluster.as_str())
    .bind(operation.director.as_str())
    .bind(operation.kind.as_str())
    .bind(operation.state.as_str())
    .bind(&operation.detail)
    .bind(to_int(operation.need_generation))
    .bind(&operation.requested_by)
    .bind(&operation.reason)
    .bind(guards)
    .bind(to_ms(operation.started_at))
    .bind(operation.ended_at.map(to_ms))
    .execute(connection)
    .await?;
    Ok(())
}

/// Stores where an operation stands, and when it ended if it did.
///
/// # Errors
/// When the database cannot be written to.
pub async fn set_state(
    connection: &mut SqliteConnection,
    id: &str,
    state: OperationState,
    detail: &str,
    ended_at: Option<Timestamp>,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE operations SET state = $2, detail = $3, ended_ms = $4 WHERE id = $1")
        .bind(id)
        .bind(state.as_str())
        .bind(detail)
        .bind(ended_at.map(to_ms))
        .execute(connection)
        .await?;
    Ok(())
}

/// A cluster's operations that have not ended, newest first.
///
/// # Errors
/// When the database cannot be read.
pub async fn open_of_cluster(
    connection: &mut SqliteConnection,
    cluster: &ClusterName,
) -> Result<Vec<Operation>, sqlx::Error> {
    let rows: Vec<OperationRow> = sqlx::query_as(
        "SELECT * FROM operations WHERE cluster = $1 AND ended_ms IS NULL \
         ORDER BY started_ms DESC, id DESC",
    )
    .bind(cluster.as_str())
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(OperationRow::into_operation).collect()
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
    row.map(|row| row.into_operation().map(|operation| operation.view()))
        .transpose()
}

#[derive(FromRow)]
struct OperationRow {
    id: String,
    cluster: String,
    director: String,
    kind: String,
    state: String,
    detail: String,
    need_generation: i64,
    requested_by: String,
    reason: String,
    override_guards: String,
    started_ms: i64,
    ended_ms: Option<i64>,
}

impl OperationRow {
    fn into_operation(self) -> Result<Operation, sqlx::Error> {
        Ok(Operation {
            id: self.id,
            cluster: self
                .cluster
                .parse()
                .map_err(|e| decode("a cluster's name", e))?,
            director: self
                .director
                .parse()
                .map_err(|e| decode("a director's name", e))?,
            kind: parse(&self.kind, [Kind::Drain, Kind::Undrain], Kind::as_str)?,
            state: parse(&self.state, STATES, OperationState::as_str)?,
            detail: self.detail,
            need_generation: from_int(self.need_generation)?,
            requested_by: self.requested_by,
            reason: self.reason,
            override_guards: serde_json::from_str(&self.override_guards)
                .map_err(|error| decode("a list of guards", error))?,
            started_at: from_ms(self.started_ms)?,
            ended_at: self.ended_ms.map(from_ms).transpose()?,
        })
    }
}

const STATES: [OperationState; 4] = [
    OperationState::Applying,
    OperationState::Settling,
    OperationState::Succeeded,
    OperationState::Cancelled,
];

fn parse<T: Copy>(
    text: &str,
    all: impl IntoIterator<Item = T>,
    word: impl Fn(T) -> &'static str,
) -> Result<T, sqlx::Error> {
    all.into_iter()
        .find(|value| word(*value) == text)
        .ok_or_else(|| sqlx::Error::Decode(format!("an operation's {text:?}").into()))
}
