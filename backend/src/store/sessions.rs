//! Signed-in browsers, by the hash of their cookie's secret.

use isopath_api::access::Role;
use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::{decode, from_ms, to_ms};

/// A session as stored, with what its user may do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// What it is listed and ended by.
    pub id: String,
    /// Who signed in.
    pub user: String,
    /// What they may do.
    pub role: Role,
    /// Whether they may not sign in any more.
    pub disabled: bool,
    /// The address that signed in.
    pub peer: String,
    /// When.
    pub made: Timestamp,
    /// When the session was last used, to the minute.
    pub seen: Timestamp,
}

/// A session that begins.
#[derive(Debug, Clone, Copy)]
pub struct NewSession<'a> {
    /// What it will be listed and ended by.
    pub id: &'a str,
    /// Of its cookie's secret.
    pub hash: &'a str,
    /// Who signed in.
    pub user: &'a str,
    /// The address that signed in.
    pub peer: &'a str,
}

/// Stores a new session.
///
/// # Errors
/// When the database cannot be written to.
pub async fn insert(
    connection: &mut SqliteConnection,
    session: NewSession<'_>,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO sessions (id, hash, user_name, peer, made_ms, seen_ms) \
         VALUES ($1, $2, $3, $4, $5, $5)",
    )
    .bind(session.id)
    .bind(session.hash)
    .bind(session.user)
    .bind(session.peer)
    .bind(to_ms(now))
    .execute(connection)
    .await?;
    Ok(())
}

type Columns = (String, String, String, bool, String, i64, i64);

fn row(columns: Columns) -> Result<SessionRow, sqlx::Error> {
    let (id, user, role, disabled, peer, made, seen) = columns;
    Ok(SessionRow {
        id,
        user,
        role: role.parse().map_err(|e| decode("a role", e))?,
        disabled,
        peer,
        made: from_ms(made)?,
        seen: from_ms(seen)?,
    })
}

/// The session of a cookie.
///
/// # Errors
/// When the database cannot be read.
pub async fn find(
    connection: &mut SqliteConnection,
    hash: &str,
) -> Result<Option<SessionRow>, sqlx::Error> {
    let found: Option<Columns> = sqlx::query_as(
        "SELECT sessions.id, user_name, role, disabled, peer, sessions.made_ms, seen_ms \
         FROM sessions JOIN users ON users.name = user_name WHERE hash = $1",
    )
    .bind(hash)
    .fetch_optional(connection)
    .await?;
    found.map(row).transpose()
}

/// The sessions after the id `after`, by id.
///
/// # Errors
/// When the database cannot be read.
pub async fn page(
    connection: &mut SqliteConnection,
    after: &str,
    limit: u32,
) -> Result<Vec<SessionRow>, sqlx::Error> {
    let found: Vec<Columns> = sqlx::query_as(
        "SELECT sessions.id, user_name, role, disabled, peer, sessions.made_ms, seen_ms \
         FROM sessions JOIN users ON users.name = user_name \
         WHERE sessions.id > $1 ORDER BY sessions.id LIMIT $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    found.into_iter().map(row).collect()
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

/// Ends the session of a cookie: whose it was.
///
/// # Errors
/// When the database cannot be written to.
pub async fn delete(
    connection: &mut SqliteConnection,
    hash: &str,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("DELETE FROM sessions WHERE hash = $1 RETURNING user_name")
        .bind(hash)
        .fetch_optional(connection)
        .await
}

/// Ends the session of an id: whose it was.
///
/// # Errors
/// When the database cannot be written to.
pub async fn delete_id(
    connection: &mut SqliteConnection,
    id: &str,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("DELETE FROM sessions WHERE id = $1 RETURNING user_name")
        .bind(id)
        .fetch_optional(connection)
        .await
}

/// Ends every session of someone: how many there were.
///
/// # Errors
/// When the database cannot be written to.
pub async fn delete_of(connection: &mut SqliteConnection, user: &str) -> Result<u64, sqlx::Error> {
    let done = sqlx::query("DELETE FROM sessions WHERE user_name = $1")
        .bind(user)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
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
