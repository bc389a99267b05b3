//! Events: what happened, for as long as [`KEPT`] lasts.

use isopath_api::ids::ClusterName;
use isopath_api::view::{EventView, Severity};
use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::{decode, from_int, from_ms, to_int, to_ms};

/// How many events are kept: months of a calm cluster, hours of one that flaps, some 20 MiB.
pub const KEPT: u64 = 100_000;

/// An event before it has its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// When.
    pub at: Timestamp,
    /// The cluster, where it concerns one.
    pub cluster: Option<ClusterName>,
    /// How bad.
    pub severity: Severity,
    /// The object, such as `director d3`.
    pub object: String,
    /// What happened.
    pub what: String,
    /// Who or what did it.
    pub actor: String,
}

/// Stores an event and forgets those that are too many: the event with its number.
///
/// # Errors
/// When the database cannot be written to.
pub async fn insert(
    connection: &mut SqliteConnection,
    event: NewEvent,
) -> Result<EventView, sqlx::Error> {
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO events (at_ms, cluster, severity, object, what, actor) \
         VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
    )
    .bind(to_ms(event.at))
    .bind(event.cluster.as_ref().map(ClusterName::as_str))
    .bind(event.severity.as_str())
    .bind(&event.object)
    .bind(&event.what)
    .bind(&event.actor)
    .fetch_one(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM events WHERE id <= $1")
        .bind(id.saturating_sub(to_int(KEPT)))
        .execute(connection)
        .await?;
    Ok(EventView {
        id: from_int(id)?,
        at: event.at,
        cluster: event.cluster,
        severity: event.severity,
        object: event.object,
        what: event.what,
        actor: event.actor,
    })
}

type Columns = (i64, i64, Option<String>, String, String, String, String);

/// The last `limit` events before the one numbered `before`, newest first; of one cluster
/// where one is given.
///
/// # Errors
/// When the database cannot be read.
pub async fn last(
    connection: &mut SqliteConnection,
    cluster: Option<&ClusterName>,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<EventView>, sqlx::Error> {
    let query = match cluster {
        Some(_) => sqlx::query_as(
            "SELECT id, at_ms, cluster, severity, object, what, actor FROM events \
             WHERE id < $1 AND cluster = $3 ORDER BY id DESC LIMIT $2",
        ),
        None => sqlx::query_as(
            "SELECT id, at_ms, cluster, severity, object, what, actor FROM events \
             WHERE id < $1 ORDER BY id DESC LIMIT $2",
        ),
    };
    let mut query = query.bind(before.map_or(i64::MAX, to_int)).bind(limit);
    if let Some(cluster) = cluster {
        query = query.bind(cluster.as_str());
    }
    let rows: Vec<Columns> = query.fetch_all(connection).await?;
    rows.into_iter().map(from_columns).collect()
}

fn from_columns(columns: Columns) -> Result<EventView, sqlx::Error> {
    let (id, at, cluster, severity, object, what, actor) = columns;
    let cluster = cluster.map(|name| name.parse().map_err(|e| decode("a cluster's name", e)));
    Ok(EventView {
        id: from_int(id)?,
        at: from_ms(at)?,
        cluster: cluster.transpose()?,
        severity: [Severity::Info, Severity::Warning, Severity::Error]
            .into_iter()
            .find(|known| known.as_str() == severity)
            .ok_or_else(|| sqlx::Error::Decode(format!("severity {severity:?}").into()))?,
        object,
        what,
        actor,
    })
}
