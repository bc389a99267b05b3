//! Signed-in browsers, by the hash of their cookie's secret.

use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::{from_ms, to_ms};

/// A session as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Who signed in.
    pub user: String,
    /// When.
    pub made: Timestamp,
    /// When the session was last used, to the minute.
    pub seen: Timestamp,
}

/// Stores a new session.
///
/// # Errors
/// When the database cannot be written to.
pub async fn insert(
    connection: &mut SqliteConnection,
    hash: &str,
    user: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO sessions (hash, user, made_ms, seen_ms) VALUES ($1, $2, $3, $3)")
        .bind(hash)
        .bind(user)
        .bind(to_ms(now))
        .execute(connection)
        .await?;
    Ok(())
}

/// The session of a cookie.
///
/// # Errors
/// When the database cannot be read.
pub async fn find(
    connection: &mut SqliteConnection,
    hash: &str,
) -> Result<Option<SessionRow>, sqlx::Error> {
    let row: Option<(String, i64, i64)> =
        sqlx::query_as("SELECT user, made_ms, seen_ms FROM sessions WHERE hash = $1")
            .bind(hash)
            .fetch_optional(connection)
            .await?;
    row.map(|(user, made, seen)| {
        Ok(SessionRow {
            user,
            made: from_ms(made)?,
            seen: from_ms(seen)?,
        })
    })
    .transpose()
}

/// Notes that a session is in use.
///
/// # Errors
/// When the database cannot be written to.
pub async fn touch(
    connection: &mut SqliteConnection,
    hash: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE sessions SET seen_ms = $2 WHERE hash = $1")
        .bind(hash)
        .bind(to_ms(now))
        .execute(connection)
        .await?;
    Ok(())
}

/// Ends a session.
///
/// # Errors
/// When the database cannot be written to.
pub async fn delete(connection: &mut SqliteConnection, hash: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM sessions WHERE hash = $1")
        .bind(hash)
        .execute(connection)
        .await?;
    Ok(())
}

/// Ends every session made before `made` or last used before `seen`.
///
/// # Errors
/// When the database cannot be written to.
pub async fn delete_old(
    connection: &mut SqliteConnection,
    made: Timestamp,
    seen: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM sessions WHERE made_ms < $1 OR seen_ms < $2")
        .bind(to_ms(made))
        .bind(to_ms(seen))
        .execute(connection)
        .await?;
    Ok(())
}
