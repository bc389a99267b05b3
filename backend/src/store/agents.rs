//! Agents that have enrolled.

use std::time::Duration;

use isopath_api::ids::{ClusterName, DirectorName};
use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use super::{decode, from_ms, to_ms};

/// For so long after its certificate's end an agent that was revoked is shown.
const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// An agent that has enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRow {
    /// The UUID in its certificate.
    pub id: Uuid,
    /// The cluster of its director.
    pub cluster: ClusterName,
    /// Its director.
    pub director: DirectorName,
    /// What it said of itself last.
    pub about: AgentAbout,
    /// SHA-256 of its last certificate, in hexadecimal.
    pub fingerprint: String,
    /// When it enrolled.
    pub enrolled: Timestamp,
    /// When its last certificate was made.
    pub issued: Timestamp,
    /// When that ends.
    pub expires: Timestamp,
    /// Who has revoked it, and when.
    pub revoked: Option<Revoked>,
}

/// What an agent says of itself when it wants a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentAbout {
    /// A hash of its machine's id.
    pub machine: String,
    /// The machine's boot.
    pub boot: String,
    /// Its version.
    pub version: String,
    /// Its protocol.
    pub protocol: u32,
}

/// Why an agent is one no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
    /// Their words.
    pub reason: String,
}

/// Every agent that is known.
///
/// # Errors
/// When the database cannot be read.
pub async fn all(connection: &mut SqliteConnection) -> Result<Vec<AgentRow>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT id, cluster, director, machine, boot, version, protocol, fingerprint, enrolled_ms, \
         issued_ms, expires_ms, revoked_ms, revoked_by, revoke_reason FROM agents ORDER BY id",
    )
    .fetch_all(connection)
    .await?;
    rows.iter().map(from_row).collect()
}

/// Stores an agent, new or renewed, and forgets those that were revoked long ago: the ids of
/// these.
///
/// # Errors
/// When the database cannot be written to.
pub async fn put(
    connection: &mut SqliteConnection,
    agent: &AgentRow,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let forgotten = agent.issued.checked_sub(KEPT).unwrap_or(Timestamp::MIN);
    let gone: Vec<String> = sqlx::query_scalar(
        "DELETE FROM agents WHERE revoked_ms IS NOT NULL AND expires_ms < $1 RETURNING id",
    )
    .bind(to_ms(forgotten))
    .fetch_all(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO agents (id, cluster, director, machine, boot, version, protocol, \
         fingerprint, enrolled_ms, issued_ms, expires_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
         ON CONFLICT (id) DO UPDATE SET boot = excluded.boot, version = excluded.version, \
         protocol = excluded.protocol, fingerprint = excluded.fingerprint, \
         issued_ms = excluded.issued_ms, expires_ms = excluded.expires_ms",
    )
    .bind(agent.id.to_string())
    .bind(agent.cluster.as_str())
    .bind(agent.director.as_str())
    .bind(&agent.about.machine)
    .bind(&agent.about.boot)
    .bind(&agent.about.version)
    .bind(i64::from(agent.about.protocol))
    .bind(&agent.fingerprint)
    .bind(to_ms(agent.enrolled))
    .bind(to_ms(agent.issued))
    .bind(to_ms(agent.expires))
    .execute(connection)
    .await?;
    gone.iter().map(|id| parse_id(id)).collect()
}

/// Stores that an agent is one no more.
///
/// # Errors
/// When the database cannot be written to.
pub async fn revoke(
    connection: &mut SqliteConnection,
    id: Uuid,
    revoked: &Revoked,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE agents SET revoked_ms = $2, revoked_by = $3, revoke_reason = $4 \
         WHERE id = $1 AND revoked_ms IS NULL",
    )
    .bind(id.to_string())
    .bind(to_ms(revoked.at))
    .bind(&revoked.by)
    .bind(&revoked.reason)
    .execute(connection)
    .await?;
    Ok(())
}

fn from_row(row: &SqliteRow) -> Result<AgentRow, sqlx::Error> {
    let cluster: String = row.try_get("cluster")?;
    let director: String = row.try_get("director")?;
    let id: String = row.try_get("id")?;
    let protocol: i64 = row.try_get("protocol")?;
    let revoked_at: Option<i64> = row.try_get("revoked_ms")?;
    let revoked = match revoked_at {
        None => None,
        Some(at) => Some(Revoked {
            at: from_ms(at)?,
            by: row.try_get("revoked_by")?,
            reason: row.try_get("revoke_reason")?,
        }),
    };
    Ok(AgentRow {
        id: parse_id(&id)?,
        cluster: cluster.parse().map_err(|e| decode("a cluster's name", e))?,
        director: director
            .parse()
            .map_err(|e| decode("a director's name", e))?,
        about: AgentAbout {
            machine: row.try_get("machine")?,
            boot: row.try_get("boot")?,
            version: row.try_get("version")?,
            protocol: protocol.try_into().map_err(|e| decode("a protocol", e))?,
        },
        fingerprint: row.try_get("fingerprint")?,
        enrolled: from_ms(row.try_get("enrolled_ms")?)?,
        issued: from_ms(row.try_get("issued_ms")?)?,
        expires: from_ms(row.try_get("expires_ms")?)?,
        revoked,
    })
}

fn parse_id(id: &str) -> Result<Uuid, sqlx::Error> {
    Uuid::parse_str(id).map_err(|e| decode("an agent's id", e))
}
