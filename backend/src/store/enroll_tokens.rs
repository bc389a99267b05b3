//! One-time tokens of agents, by their hash.

use std::time::Duration;

use isopath_api::ids::{ClusterName, DirectorName};
use jiff::Timestamp;
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{decode, to_ms};

/// For so long a token that was used or is too old is known as such.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A token before it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEnrollToken {
    /// The cluster of the director.
    pub cluster: ClusterName,
    /// The director whose agent it makes.
    pub director: DirectorName,
    /// Who made it.
    pub made_by: String,
    /// Until when it is good.
    pub expires: Timestamp,
}

/// What became of a token that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consumed {
    /// It was good, and is no more.
    Good {
        /// The cluster of the director.
        cluster: ClusterName,
        /// The director whose agent it makes.
        director: DirectorName,
    },
    /// There was never such a token, or long ago.
    Unknown,
    /// It was used before, or is too old.
    Spent {
        /// The cluster of its director.
        cluster: ClusterName,
        /// Its director.
        director: DirectorName,
        /// Whether it was used, rather than too old.
        used: bool,
        /// Whether it was tried in vain for the first time.
        first: bool,
    },
}

/// Stores a token and forgets those that were spent long ago.
///
/// # Errors
/// When the database cannot be written to.
pub async fn insert(
    connection: &mut SqliteConnection,
    hash: &str,
    token: &NewEnrollToken,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let forgotten = now.checked_sub(KEPT).unwrap_or(Timestamp::MIN);
    sqlx::query("DELETE FROM enroll_tokens WHERE expires_ms < $1")
        .bind(to_ms(forgotten))
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO enroll_tokens (hash, cluster, director, made_by, made_ms, expires_ms) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(hash)
    .bind(token.cluster.as_str())
    .bind(token.director.as_str())
    .bind(&token.made_by)
    .bind(to_ms(now))
    .bind(to_ms(token.expires))
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets all of them: which were used is not known any more.
///
/// # Errors
/// When the database cannot be written to.
pub async fn delete_all(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM enroll_tokens")
        .execute(connection)
        .await?;
    Ok(())
}

/// Uses a token up for `agent`, if it is good.
///
/// # Errors
/// When the database cannot be written to.
pub async fn consume(
    connection: &mut SqliteConnection,
    hash: &str,
    agent: Uuid,
    now: Timestamp,
) -> Result<Consumed, sqlx::Error> {
    let good: Option<(String, String)> = sqlx::query_as(
        "UPDATE enroll_tokens SET used_ms = $2, agent = $3 \
         WHERE hash = $1 AND used_ms IS NULL AND expires_ms > $2 RETURNING cluster, director",
    )
    .bind(hash)
    .bind(to_ms(now))
    .bind(agent.to_string())
    .fetch_optional(&mut *connection)
    .await?;
    if let Some((cluster, director)) = good {
        let (cluster, director) = names(&cluster, &director)?;
        return Ok(Consumed::Good { cluster, director });
    }
    let spent: Option<(String, String, Option<i64>, Option<i64>)> = sqlx::query_as(
        "SELECT cluster, director, used_ms, refused_ms FROM enroll_tokens WHERE hash = $1",
    )
    .bind(hash)
    .fetch_optional(connection)
    .await?;
    let Some((cluster, director, used, refused)) = spent else {
        return Ok(Consumed::Unknown);
    };
    let (cluster, director) = names(&cluster, &director)?;
    Ok(Consumed::Spent {
        cluster,
        director,
        used: used.is_some(),
        first: refused.is_none(),
    })
}

/// Notes that a token was tried in vain.
///
/// # Errors
/// When the database cannot be written to.
pub async fn note_refused(
    connection: &mut SqliteConnection,
    hash: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE enroll_tokens SET refused_ms = $2 WHERE hash = $1 AND refused_ms IS NULL")
        .bind(hash)
        .bind(to_ms(now))
        .execute(connection)
        .await?;
    Ok(())
}

fn names(cluster: &str, director: &str) -> Result<(ClusterName, DirectorName), sqlx::Error> {
    Ok((
        cluster.parse().map_err(|e| decode("a cluster's name", e))?,
        director
            .parse()
            .map_err(|e| decode("a director's name", e))?,
    ))
}
