//! People who may sign in.

use isopath_api::access::Role;
use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::{decode, from_ms, to_ms};

/// Someone as stored, but for the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRow {
    /// Their name.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Whether they may not sign in at present.
    pub disabled: bool,
    /// When they were made.
    pub made: Timestamp,
}

/// Whether anybody may sign in.
///
/// # Errors
/// When the database cannot be read.
pub async fn any(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let name: Option<String> = sqlx::query_scalar("SELECT name FROM users LIMIT 1")
        .fetch_optional(connection)
        .await?;
    Ok(name.is_some())
}

/// The hash of someone's password.
///
/// # Errors
/// When the database cannot be read.
pub async fn password_hash(
    connection: &mut SqliteConnection,
    name: &str,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT password_hash FROM users WHERE name = $1")
        .bind(name)
        .fetch_optional(connection)
        .await
}

/// Whether someone may sign in with the password of this hash now.
///
/// # Errors
/// When the database cannot be read.
pub async fn has_password(
    connection: &mut SqliteConnection,
    name: &str,
    password_hash: &str,
) -> Result<bool, sqlx::Error> {
    let found: Option<String> = sqlx::query_scalar(
        "SELECT name FROM users WHERE name = $1 AND password_hash = $2 AND disabled = 0",
    )
    .bind(name)
    .bind(password_hash)
    .fetch_optional(connection)
    .await?;
    Ok(found.is_some())
}

/// Someone by name.
///
/// # Errors
/// When the database cannot be read.
pub async fn find(
    connection: &mut SqliteConnection,
    name: &str,
) -> Result<Option<UserRow>, sqlx::Error> {
    let found: Option<Columns> =
        sqlx::query_as("SELECT name, role, disabled, made_ms FROM users WHERE name = $1")
            .bind(name)
            .fetch_optional(connection)
            .await?;
    found.map(row).transpose()
}

/// The people after the name `after`, by name.
///
/// # Errors
/// When the database cannot be read.
pub async fn page(
    connection: &mut SqliteConnection,
    after: &str,
    limit: u32,
) -> Result<Vec<UserRow>, sqlx::Error> {
    let found: Vec<Columns> = sqlx::query_as(
        "SELECT name, role, disabled, made_ms FROM users WHERE name > $1 ORDER BY name LIMIT $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    found.into_iter().map(row).collect()
}

type Columns = (String, String, bool, i64);

fn row((name, role, disabled, made): Columns) -> Result<UserRow, sqlx::Error> {
    Ok(UserRow {
        name,
        role: role.parse().map_err(|e| decode("a role", e))?,
        disabled,
        made: from_ms(made)?,
    })
}

/// How many admins may sign in.
///
/// # Errors
/// When the database cannot be read.
pub async fn admins(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT COUNT(*) FROM users WHERE role = 'admin' AND disabled = 0")
        .fetch_one(connection)
        .await
}

/// Stores a user; whether there was none of that name.
///
/// # Errors
/// When the database cannot be written to.
pub async fn insert(
    connection: &mut SqliteConnection,
    name: &str,
    role: Role,
    password_hash: &str,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO users (name, role, password_hash, made_ms) VALUES ($1, $2, $3, $4) \
         ON CONFLICT DO NOTHING",
    )
    .bind(name)
    .bind(role.as_str())
    .bind(password_hash)
    .bind(to_ms(now))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Changes what someone may do.
///
/// # Errors
/// When the database cannot be written to.
pub async fn set(
    connection: &mut SqliteConnection,
    name: &str,
    role: Role,
    disabled: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE users SET role = $2, disabled = $3 WHERE name = $1")
        .bind(name)
        .bind(role.as_str())
        .bind(disabled)
        .execute(connection)
        .await?;
    Ok(())
}

/// Changes someone's password.
///
/// # Errors
/// When the database cannot be written to.
pub async fn set_password(
    connection: &mut SqliteConnection,
    name: &str,
    password_hash: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE users SET password_hash = $2 WHERE name = $1")
        .bind(name)
        .bind(password_hash)
        .execute(connection)
        .await?;
    Ok(())
}

/// Removes someone, and their sessions with them.
///
/// # Errors
/// When the database cannot be written to.
pub async fn delete(connection: &mut SqliteConnection, name: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM users WHERE name = $1")
        .bind(name)
        .execute(connection)
        .await?;
    Ok(())
}
