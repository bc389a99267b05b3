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
    sqlx::query("INSERT INTO epoch (id, epoch, made_ms) VALUES (1, $1, $2) ON CONFLICT DO NOTHING")
        .bind(Uuid::new_v4().simple().to_string())
        .bind(to_ms(now))
        .execute(&mut *connection)
        .await?;
    sqlx::query_scalar("SELECT epoch FROM epoch WHERE id = 1")
        .fetch_one(connection)
        .await
}
