//! Measurements, packed by [`crate::samples`].

use std::collections::BTreeMap;

use isopath_api::ids::ClusterName;
use sqlx::SqliteConnection;

use super::decode;

/// A window of a cluster's measurements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleRow {
    /// The cluster.
    pub cluster: ClusterName,
    /// The time from one point to the next, in seconds.
    pub step_s: u32,
    /// The window's first point, in milliseconds since the Unix epoch.
    pub start_ms: i64,
    /// What was measured.
    pub packed: Vec<u8>,
}

/// Stores a window in the place of what was stored of it before.
///
/// # Errors
/// When the database cannot be written to.
pub async fn put(connection: &mut SqliteConnection, row: &SampleRow) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO samples (cluster, step_s, start_ms, packed) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (cluster, step_s, start_ms) DO UPDATE SET packed = excluded.packed",
    )
    .bind(row.cluster.as_str())
    .bind(row.step_s)
    .bind(row.start_ms)
    .bind(&row.packed)
    .execute(connection)
    .await?;
    Ok(())
}

/// A cluster's windows that begin from `from_ms` on and before `to_ms`, the earliest first.
///
/// # Errors
/// When the database cannot be read.
pub async fn between(
    connection: &mut SqliteConnection,
    cluster: &ClusterName,
    step_s: u32,
    (from_ms, to_ms): (i64, i64),
) -> Result<Vec<SampleRow>, sqlx::Error> {
    let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
        "SELECT start_ms, packed FROM samples WHERE cluster = $1 AND step_s = $2 \
         AND start_ms >= $3 AND start_ms < $4 ORDER BY start_ms",
    )
    .bind(cluster.as_str())
    .bind(step_s)
    .bind(from_ms)
    .bind(to_ms)
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(start_ms, packed)| SampleRow {
            cluster: cluster.clone(),
            step_s,
            start_ms,
            packed,
        })
        .collect())
}

/// The beginning of a cluster's first window from `from_ms` on and before `to_ms`.
///
/// # Errors
/// When the database cannot be read.
pub async fn first(
    connection: &mut SqliteConnection,
    cluster: &ClusterName,
    step_s: u32,
    (from_ms, to_ms): (i64, i64),
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT min(start_ms) FROM samples WHERE cluster = $1 AND step_s = $2 \
         AND start_ms >= $3 AND start_ms < $4",
    )
    .bind(cluster.as_str())
    .bind(step_s)
    .bind(from_ms)
    .bind(to_ms)
    .fetch_one(connection)
    .await
}

/// The windows of all clusters that begin at `start_ms`.
///
/// # Errors
/// When the database cannot be read.
pub async fn at(
    connection: &mut SqliteConnection,
    step_s: u32,
    start_ms: i64,
) -> Result<Vec<SampleRow>, sqlx::Error> {
    let rows: Vec<(String, Vec<u8>)> =
        sqlx::query_as("SELECT cluster, packed FROM samples WHERE step_s = $1 AND start_ms = $2")
            .bind(step_s)
            .bind(start_ms)
            .fetch_all(connection)
            .await?;
    rows.into_iter()
        .map(|(cluster, packed)| {
            Ok(SampleRow {
                cluster: cluster
                    .parse()
                    .map_err(|error| decode("a cluster's name", error))?,
                step_s,
                start_ms,
                packed,
            })
        })
        .collect()
}

/// The beginnings of each cluster's first and last window.
///
/// # Errors
/// When the database cannot be read.
pub async fn spans(
    connection: &mut SqliteConnection,
    step_s: u32,
) -> Result<BTreeMap<ClusterName, (i64, i64)>, sqlx::Error> {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT cluster, min(start_ms), max(start_ms) FROM samples WHERE step_s = $1 \
         GROUP BY cluster",
    )
    .bind(step_s)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(cluster, first, last)| {
            let cluster = cluster
                .parse()
                .map_err(|error| decode("a cluster's name", error))?;
            Ok((cluster, (first, last)))
        })
        .collect()
}
