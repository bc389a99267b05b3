//! Who changed what, and who was refused what.

use isopath_api::access::AuditView;
pub use isopath_api::access::Outcome;
use isopath_api::ids::ClusterName;
use jiff::Timestamp;
use sqlx::{Row, SqliteConnection};

use super::{decode, from_int, from_ms, to_int, to_ms};
use crate::auth::By;

/// What an entry says of an action.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Such as `cluster.declare`.
    pub action: &'a str,
    /// Such as `director d1`.
    pub object: &'a str,
    /// The cluster it belongs to.
    pub cluster: Option<&'a ClusterName>,
    /// How it ended.
    pub outcome: Outcome,
    /// The HTTP status that it is answered with; nothing where there is none.
    pub status: Option<u16>,
    /// The caller's words, or why it was refused. Never a secret.
    pub detail: &'a str,
}

impl<'a> Entry<'a> {
    /// Something that was done, to be written in the transaction that does it.
    pub fn done(action: &'a str, object: &'a str, detail: &'a str) -> Self {
        Self {
            action,
            object,
            cluster: None,
            outcome: Outcome::Done,
            status: None,
            detail,
        }
    }

    /// The same in a cluster.
    #[must_use]
    pub fn of(self, cluster: &'a ClusterName) -> Self {
        Self {
            cluster: Some(cluster),
            ..self
        }
    }
}

/// Stores an entry.
///
/// # Errors
/// When the database cannot be written to.
pub async fn insert(
    connection: &mut SqliteConnection,
    by: &By,
    entry: Entry<'_>,
    at: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO audit (at_ms, principal, via, peer, action, object, cluster, outcome, \
         status, detail, request_id) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(to_ms(at))
    .bind(&by.name)
    .bind(by.via.as_str())
    .bind(by.peer.map(|peer| peer.to_string()))
    .bind(entry.action)
    .bind(entry.object)
    .bind(entry.cluster.map(ClusterName::as_str))
    .bind(entry.outcome.as_str())
    .bind(entry.status)
    .bind(entry.detail)
    .bind(by.request_id.as_deref())
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes all but the newest `keep` refusals; what was done is kept.
///
/// # Errors
/// When the database cannot be written to.
pub async fn trim(connection: &mut SqliteConnection, keep: i64) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "DELETE FROM audit WHERE outcome = 'refused' AND id <= \
         (SELECT id FROM audit WHERE outcome = 'refused' ORDER BY id DESC LIMIT 1 OFFSET $1)",
    )
    .bind(keep)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Which entries are wanted.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Those of this principal.
    pub principal: Option<String>,
    /// Those of this cluster.
    pub cluster: Option<ClusterName>,
    /// Those that ended so.
    pub outcome: Option<Outcome>,
    /// Those from this moment on.
    pub from: Option<Timestamp>,
    /// Those before this moment.
    pub to: Option<Timestamp>,
}

/// The last `limit` entries before the one numbered `before` that pass a filter, newest first.
///
/// # Errors
/// When the database cannot be read.
pub async fn list(
    connection: &mut SqliteConnection,
    filter: &Filter,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<AuditView>, sqlx::Error> {
    let mut query = sqlx::QueryBuilder::<sqlx::Sqlite>::new(
        "SELECT id, at_ms, principal, via, peer, action, object, cluster, outcome, status, \
         detail, request_id FROM audit WHERE id < ",
    );
    query.push_bind(before.map_or(i64::MAX, to_int));
    if let Some(principal) = &filter.principal {
        query.push(" AND principal = ").push_bind(principal);
    }
    if let Some(cluster) = &filter.cluster {
        query.push(" AND cluster = ").push_bind(cluster.as_str());
    }
    if let Some(outcome) = filter.outcome {
        query.push(" AND outcome = ").push_bind(outcome.as_str());
    }
    if let Some(from) = filter.from {
        query.push(" AND at_ms >= ").push_bind(to_ms(from));
    }
    if let Some(to) = filter.to {
        query.push(" AND at_ms < ").push_bind(to_ms(to));
    }
    query.push(" ORDER BY id DESC LIMIT ").push_bind(limit);
    let rows = query.build().fetch_all(connection).await?;
    rows.iter().map(view).collect()
}

fn view(row: &sqlx::sqlite::SqliteRow) -> Result<AuditView, sqlx::Error> {
    let cluster: Option<String> = row.try_get("cluster")?;
    let outcome: String = row.try_get("outcome")?;
    let cluster = cluster.map(|name| name.parse()).transpose();
    Ok(AuditView {
        id: from_int(row.try_get("id")?)?,
        at: from_ms(row.try_get("at_ms")?)?,
        principal: row.try_get("principal")?,
        via: row.try_get("via")?,
        peer: row.try_get("peer")?,
        action: row.try_get("action")?,
        object: row.try_get("object")?,
        cluster: cluster.map_err(|error| decode("a cluster's name", error))?,
        outcome: match outcome.as_str() {
            "done" => Outcome::Done,
            _ => Outcome::Refused,
        },
        status: row.try_get("status")?,
        detail: row.try_get("detail")?,
        request_id: row.try_get("request_id")?,
    })
}
