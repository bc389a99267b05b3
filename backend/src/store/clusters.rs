//! Clusters and the revisions of their declarations.

use isopath_api::declare::Declaration;
use isopath_api::ids::ClusterName;
use isopath_api::view::RevisionView;
use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::{decode, from_int, from_ms, to_int, to_ms};

/// A cluster with what is declared now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterRow {
    /// Its name.
    pub name: ClusterName,
    /// The revision in force.
    pub revision: u64,
    /// What it declares.
    pub declaration: Declaration,
}

/// Every cluster, by name.
///
/// # Errors
/// When the database cannot be read.
pub async fn all(connection: &mut SqliteConnection) -> Result<Vec<ClusterRow>, sqlx::Error> {
    let rows: Vec<(String, i64, String)> = sqlx::query_as(
        "SELECT c.name, c.revision, r.declaration FROM clusters c \
         JOIN revisions r ON r.cluster = c.name AND r.revision = c.revision ORDER BY c.name",
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(name, revision, declaration)| {
            Ok(ClusterRow {
                name: name.parse().map_err(|e| decode("a cluster's name", e))?,
                revision: from_int(revision)?,
                declaration: parse_declaration(&declaration)?,
            })
        })
        .collect()
}

/// Who declared a revision, why and when.
#[derive(Debug, Clone, Copy)]
pub struct Provenance<'a> {
    /// Who.
    pub actor: &'a str,
    /// Their words.
    pub reason: &'a str,
    /// When.
    pub at: Timestamp,
}

/// Stores a revision and puts it in force, making the cluster with its first one.
///
/// # Errors
/// When the database cannot be written to.
pub async fn put_revision(
    connection: &mut SqliteConnection,
    cluster: &ClusterName,
    revision: u64,
    declaration: &Declaration,
    by: Provenance<'_>,
) -> Result<(), sqlx::Error> {
    let text = serde_json::to_string(declaration)
        .expect("a declaration has string keys only, so it is JSON");
    sqlx::query(
        "INSERT INTO clusters (name, revision, made_ms) VALUES ($1, $2, $3) \
         ON CONFLICT (name) DO UPDATE SET revision = excluded.revision",
    )
    .bind(cluster.as_str())
    .bind(to_int(revision))
    .bind(to_ms(by.at))
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO revisions (cluster, revision, declaration, actor, reason, at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(cluster.as_str())
    .bind(to_int(revision))
    .bind(text)
    .bind(by.actor)
    .bind(by.reason)
    .bind(to_ms(by.at))
    .execute(connection)
    .await?;
    Ok(())
}

/// The last `limit` revisions before `before`, newest first, without what they declare.
///
/// # Errors
/// When the database cannot be read.
pub async fn revisions(
    connection: &mut SqliteConnection,
    cluster: &ClusterName,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<RevisionView>, sqlx::Error> {
    let rows: Vec<(i64, i64, String, String)> = sqlx::query_as(
        "SELECT revision, at_ms, actor, reason FROM revisions \
         WHERE cluster = $1 AND revision < $2 ORDER BY revision DESC LIMIT $3",
    )
    .bind(cluster.as_str())
    .bind(before.map_or(i64::MAX, to_int))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(revision, at, actor, reason)| {
            Ok(RevisionView {
                revision: from_int(revision)?,
                at: from_ms(at)?,
                actor,
                reason,
                declaration: None,
            })
        })
        .collect()
}

/// One revision with what it declares.
///
/// # Errors
/// When the database cannot be read.
pub async fn revision(
    connection: &mut SqliteConnection,
    cluster: &ClusterName,
    revision: u64,
) -> Result<Option<RevisionView>, sqlx::Error> {
    let row: Option<(i64, String, String, String)> = sqlx::query_as(
        "SELECT at_ms, actor, reason, declaration FROM revisions \
         WHERE cluster = $1 AND revision = $2",
    )
    .bind(cluster.as_str())
    .bind(to_int(revision))
    .fetch_optional(connection)
    .await?;
    row.map(|(at, actor, reason, declaration)| {
        Ok(RevisionView {
            revision,
            at: from_ms(at)?,
            actor,
            reason,
            declaration: Some(parse_declaration(&declaration)?),
        })
    })
    .transpose()
}

fn parse_declaration(text: &str) -> Result<Declaration, sqlx::Error> {
    serde_json::from_str(text).map_err(|error| decode("a declaration", error))
}
