//! What is old enough to go, table by table, a small batch at a time.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::{Row, SqliteConnection};

use super::to_ms;

/// How long things are kept, and how many events at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Events.
    pub events: Duration,
    /// The most events.
    pub most_events: u64,
    /// Operations, from their end on.
    pub operations: Duration,
    /// The audit log.
    pub audit: Duration,
    /// Samples in their own resolution.
    pub samples: Duration,
    /// Their means.
    pub means: Duration,
}

/// Answers kept for requests that are sent again: nobody does so after a day.
const IDEMPOTENCY: Duration = Duration::from_secs(24 * 3600);
/// Sessions: none is good for so long.
const SESSIONS: Duration = Duration::from_secs(24 * 3600);
/// Tokens that are good no more: shown for as long as somebody may ask what became of them.
const TOKENS: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a kind of row goes by.
struct Rule {
    kept: fn(&Kept) -> Duration,
    /// Deletes at most `$2` rows that are older than `$1`.
    delete: &'static str,
}

/// In each the condition is one that an index answers, or the table is small.
const RULES: [Rule; 9] = [
    Rule {
        kept: |kept| kept.events,
        delete: "DELETE FROM events WHERE id IN \
                 (SELECT id FROM events WHERE at_ms < $1 ORDER BY at_ms LIMIT $2)",
    },
    Rule {
        kept: |kept| kept.operations,
        delete: "DELETE FROM operations WHERE id IN \
                 (SELECT id FROM operations WHERE ended_ms < $1 LIMIT $2)",
    },
    Rule {
        kept: |kept| kept.audit,
        delete: "DELETE FROM audit WHERE id IN \
                 (SELECT id FROM audit WHERE at_ms < $1 ORDER BY at_ms LIMIT $2)",
    },
    Rule {
        kept: |kept| kept.samples,
        delete: "DELETE FROM samples WHERE (cluster, step_s, start_ms) IN \
                 (SELECT cluster, step_s, start_ms FROM samples \
                  WHERE step_s = 10 AND start_ms < $1 LIMIT $2)",
    },
    Rule {
        kept: |kept| kept.means,
        delete: "DELETE FROM samples WHERE (cluster, step_s, start_ms) IN \
                 (SELECT cluster, step_s, start_ms FROM samples \
                  WHERE step_s = 300 AND start_ms < $1 LIMIT $2)",
    },
    Rule {
        kept: |_| IDEMPOTENCY,
        delete: "DELETE FROM idempotency WHERE (actor, key) IN \
                 (SELECT actor, key FROM idempotency WHERE made_ms < $1 LIMIT $2)",
    },
    Rule {
        kept: |_| SESSIONS,
        delete: "DELETE FROM sessions WHERE id IN \
                 (SELECT id FROM sessions WHERE made_ms < $1 LIMIT $2)",
    },
    Rule {
        kept: |_| TOKENS,
        delete: "DELETE FROM tokens WHERE name IN (SELECT name FROM tokens \
                 WHERE revoked_ms < $1 OR expires_ms < $1 LIMIT $2)",
    },
    Rule {
        kept: |_| TOKENS,
        delete: "DELETE FROM enroll_tokens WHERE hash IN \
                 (SELECT hash FROM enroll_tokens WHERE expires_ms < $1 LIMIT $2)",
    },
];

/// Deletes at most `batch` rows of each kind that is too old: how many there were.
///
/// # Errors
/// When the database cannot be written to.
pub async fn delete_old(
    connection: &mut SqliteConnection,
    kept: &Kept,
    now: Timestamp,
    batch: u32,
) -> Result<u64, sqlx::Error> {
    let mut deleted = 0;
    for rule in &RULES {
        let oldest = now
            .checked_sub((rule.kept)(kept))
            .unwrap_or(Timestamp::UNIX_EPOCH);
        let done = sqlx::query(rule.delete)
            .bind(to_ms(oldest))
            .bind(batch)
            .execute(&mut *connection)
            .await?;
        deleted += done.rows_affected();
    }
    let done = sqlx::query(
        "DELETE FROM events WHERE id IN (SELECT id FROM events \
         WHERE id <= (SELECT max(id) FROM events) - $1 ORDER BY id LIMIT $2)",
    )
    .bind(super::to_int(kept.most_events))
    .bind(batch)
    .execute(connection)
    .await?;
    Ok(deleted + done.rows_affected())
}

/// Pages of the file that hold nothing.
///
/// # Errors
/// When the database cannot be read.
pub async fn free_pages(connection: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
    let free = sqlx::query("PRAGMA freelist_count")
        .fetch_one(connection)
        .await?;
    super::from_int(free.try_get(0)?)
}

/// Gives pages that hold nothing back to the file system, at most `pages`. Outside a transaction.
///
/// # Errors
/// When the database cannot be written to.
pub async fn shrink(connection: &mut SqliteConnection, pages: u32) -> Result<(), sqlx::Error> {
    // It gives back one page a step: all of its rows have to be fetched.
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "PRAGMA incremental_vacuum({pages})"
    )))
    .fetch_all(connection)
    .await?;
    Ok(())
}

/// Brings all that stands in the WAL into the database and empties the WAL, if no reader needs it
/// at this moment; whether that was so. Outside a transaction.
///
/// SQLite does most of it with each commit, but begins the WAL anew only when it finds no reader:
/// with readers always there it would only grow.
///
/// # Errors
/// When the database cannot be written to.
pub async fn empty_wal(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // Whoever wants to write waits for this, so it waits for readers for a moment only.
    sqlx::query("PRAGMA busy_timeout = 100")
        .execute(&mut *connection)
        .await?;
    let done = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
        .fetch_one(&mut *connection)
        .await;
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "PRAGMA busy_timeout = {}",
        super::WAIT.as_millis()
    )))
    .execute(connection)
    .await?;
    let busy: i64 = done?.try_get(0)?;
    Ok(busy == 0)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::store::Store;

    /// A table that is read from its beginning to its end for each batch would be read so for as
    /// long as nothing in it is old enough.
    #[tokio::test]
    async fn what_is_too_old_is_found_by_an_index() {
        let directory = TempDir::new().unwrap();
        let store = Store::open(&crate::testing::url(&directory)).await.unwrap();
        let mut connection = store.read().await.unwrap();
        for table in ["events", "operations", "audit", "samples", "idempotency"] {
            let of_table = format!("DELETE FROM {table} ");
            let rules: Vec<&Rule> = RULES
                .iter()
                .filter(|rule| rule.delete.starts_with(&of_table))
                .collect();
            assert!(!rules.is_empty(), "nothing deletes from {table}");
            for rule in rules {
                let explain = format!("EXPLAIN QUERY PLAN {}", rule.delete);
                let plan: Vec<String> = sqlx::query(sqlx::AssertSqlSafe(explain))
                    .bind(1_000_i64)
                    .bind(1_i64)
                    .fetch_all(&mut *connection)
                    .await
                    .unwrap()
                    .iter()
                    .map(|row| row.get("detail"))
                    .collect();
                let whole = plan.iter().find(|step| step.starts_with("SCAN"));
                assert_eq!(whole, None, "{table}: {plan:?}");
            }
        }
    }
}
