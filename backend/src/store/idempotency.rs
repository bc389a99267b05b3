//! Answers to requests that carried an `Idempotency-Key`.

use jiff::Timestamp;
use sqlx::{FromRow, SqliteConnection};

use super::{from_int, to_int, to_ms};

/// A request that names itself, so that it can be sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Who asks.
    pub actor: String,
    /// Their name for the request.
    pub key: String,
    /// A hash of everything that the request says.
    pub request: String,
}

/// An answer as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The hash of the request that it answers.
    pub request: String,
    /// Its status.
    pub status: u16,
    /// Its `Location`.
    pub location: Option<String>,
    /// Its `ETag`.
    pub etag: Option<String>,
    /// Its body; nothing where it held a secret.
    pub body: Option<String>,
}

/// The answer that was given under a key.
///
/// # Errors
/// When the database cannot be read.
pub async fn find(
    connection: &mut SqliteConnection,
    key: &Key,
) -> Result<Option<Stored>, sqlx::Error> {
    #[derive(FromRow)]
    struct Row {
        request: String,
        status: i64,
        location: Option<String>,
        etag: Option<String>,
        body: Option<String>,
    }
    let row: Option<Row> = sqlx::query_as(
        "SELECT request, status, location, etag, body FROM idempotency \
         WHERE actor = $1 AND key = $2",
    )
    .bind(&key.actor)
    .bind(&key.key)
    .fetch_optional(connection)
    .await?;
    row.map(|row| {
        Ok(Stored {
            request: row.request,
            status: u16::try_from(from_int(row.status)?).unwrap_or(500),
            location: row.location,
            etag: row.etag,
            body: row.body,
        })
    })
    .transpose()
}

/// Stores an answer under its key. It says whether it did: not where another request was
/// answered under the same key in between.
///
/// # Errors
/// When the database cannot be written to.
pub async fn insert(
    connection: &mut SqliteConnection,
    key: &Key,
    answer: &Stored,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO idempotency (actor, key, request, status, location, etag, body, made_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (actor, key) DO NOTHING",
    )
    .bind(&key.actor)
    .bind(&key.key)
    .bind(&answer.request)
    .bind(to_int(u64::from(answer.status)))
    .bind(&answer.location)
    .bind(&answer.etag)
    .bind(&answer.body)
    .bind(to_ms(now))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}
