//! Directors: what the operator wants of each, and the number of its desired state.

use isopath_api::desired::AdminState;
use isopath_api::ids::{ClusterName, DirectorName};
use sqlx::SqliteConnection;

use super::{decode, from_int, to_int};

/// A director that is or was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectorRow {
    /// Its name.
    pub name: DirectorName,
    /// Whether the declaration in force has it.
    pub declared: bool,
    /// What the operator wants of it.
    pub admin_state: AdminState,
    /// Their words.
    pub admin_reason: String,
    /// Counts the changes of its desired state.
    pub generation: u64,
    /// The revision that this generation was derived from.
    pub desired_revision: u64,
    /// A hash of what this generation contains, as far as the declaration decides it.
    pub content: String,
    /// The agent whose report was accepted last.
    pub instance: Option<String>,
}

type Columns = (
    String,
    bool,
    String,
    String,
    i64,
    i64,
    String,
    Option<String>,
);

/// Every director that a cluster has or had.
///
/// # Errors
/// When the database cannot be read.
pub async fn of_cluster(
    connection: &mut SqliteConnection,
    cluster: &ClusterName,
) -> Result<Vec<DirectorRow>, sqlx::Error> {
    let rows: Vec<Columns> = sqlx::query_as(
        "SELECT name, declared, admin_state, admin_reason, generation, desired_revision, content, \
         instance FROM directors WHERE cluster = $1 ORDER BY name",
    )
    .bind(cluster.as_str())
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(from_columns).collect()
}

/// Stores all of a director's row but its instance.
///
/// # Errors
/// When the database cannot be written to.
pub async fn put(
    connection: &mut SqliteConnection,
    cluster: &ClusterName,
    director: &DirectorRow,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO directors (cluster, name, declared, admin_state, admin_reason, generation, \
         desired_revision, content) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
         ON CONFLICT (cluster, name) DO UPDATE SET declared = excluded.declared, \
         admin_state = excluded.admin_state, admin_reason = excluded.admin_reason, \
         generation = excluded.generation, desired_revision = excluded.desired_revision, \
         content = excluded.content",
    )
    .bind(cluster.as_str())
    .bind(director.name.as_str())
    .bind(director.declared)
    .bind(director.admin_state.as_str())
    .bind(&director.admin_reason)
    .bind(to_int(director.generation))
    .bind(to_int(director.desired_revision))
    .bind(&director.content)
    .execute(connection)
    .await?;
    Ok(())
}

/// Stores which agent is the director's.
///
/// # Errors
/// When the database cannot be written to.
pub async fn set_instance(
    connection: &mut SqliteConnection,
    cluster: &ClusterName,
    director: &DirectorName,
    instance: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE directors SET instance = $3 WHERE cluster = $1 AND name = $2")
        .bind(cluster.as_str())
        .bind(director.as_str())
        .bind(instance)
        .execute(connection)
        .await?;
    Ok(())
}

fn from_columns(columns: Columns) -> Result<DirectorRow, sqlx::Error> {
    let (
        name,
        declared,
        admin_state,
        admin_reason,
        generation,
        desired_revision,
        content,
        instance,
    ) = columns;
    Ok(DirectorRow {
        name: name.parse().map_err(|e| decode("a director's name", e))?,
        declared,
        admin_state: parse_admin_state(&admin_state)?,
        admin_reason,
        generation: from_int(generation)?,
        desired_revision: from_int(desired_revision)?,
        content,
        instance,
    })
}

pub(super) fn parse_admin_state(text: &str) -> Result<AdminState, sqlx::Error> {
    [
        AdminState::Active,
        AdminState::Draining,
        AdminState::Drained,
    ]
    .into_iter()
    .find(|state| state.as_str() == text)
    .ok_or_else(|| sqlx::Error::Decode(format!("admin state {text:?}").into()))
}
