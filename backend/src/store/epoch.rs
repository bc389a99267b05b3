//! The life of this database.

use jiff::Timestamp;
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::to_ms;

/// The database's epoch, made at the first call. Generations count within it: an operator who
/// restores an older database gives it a new one, so that agents do not take old for new
/// (each report says which one the director follows).
///
/// # Errors
/// When the database cannot be written to.
pub async fn load_or_make(
    connection: &mut SqliteConnection,
    now: Timestamp,
) -> Result<String, sqlx::Error> {
    if let Some(epoch) = find(connection).await? {
        return Ok(epoch);
    }
    sqlx::query("INSERT INTO epoch (id, epoch, made_ms) VALUES (1, $1, $2) ON CONFLICT DO NOTHING")
        .bind(Uuid::new_v4().simple().to_string())
        .bind(to_ms(now))
        .execute(&mut *connection)
        .await?;
    find(connection).await?.ok_or(sqlx::Error::RowNotFound)
}

/// Begins another life: the generations before count no more.
///
/// # Errors
/// When the database cannot be written to.
pub async fn renew(
    connection: &mut SqliteConnection,
    now: Timestamp,
) -> Result<String, sqlx::Error> {
    sqlx::query_scalar(
        "INSERT INTO epoch (id, epoch, made_ms) VALUES (1, $1, $2) ON CONFLICT (id) \
         DO UPDATE SET epoch = excluded.epoch, made_ms = excluded.made_ms RETURNING epoch",
    )
    .bind(Uuid::new_v4().simple().to_string())
    .bind(to_ms(now))
    .fetch_one(connection)
    .await
}

async fn find(connection: &mut SqliteConnection) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT epoch FROM epoch WHERE id = 1")
        .fetch_optional(connection)
        .await
}

/// The smallest write there is: it changes nothing.
///
/// # Errors
/// When the database cannot be written to.
pub async fn touch(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE epoch SET made_ms = made_ms WHERE id = 1")
        .execute(connection)
        .await?;
    Ok(())
}
