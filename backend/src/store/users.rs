//! People who may sign in.

use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::to_ms;

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

/// Stores a user; whether there was none of that name.
///
/// # Errors
/// When the database cannot be written to.
pub async fn insert(
    connection: &mut SqliteConnection,
    name: &str,
    password_hash: &str,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO users (name, password_hash, made_ms) VALUES ($1, $2, $3) \
         ON CONFLICT DO NOTHING",
    )
    .bind(name)
    .bind(password_hash)
    .bind(to_ms(now))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}
