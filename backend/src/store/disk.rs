//! What becomes of the database when its disk does not take writes any more.
//!
//! A disk that is full, fails or is read-only turns the store read-only: writes are refused at
//! once, with since when and why, and everything that needs none goes on. Only a write that
//! worked ([`Store::probe`](super::Store::probe)) turns it back.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use sqlx::{Sqlite, SqliteConnection, Transaction};
use tokio::sync::{Notify, watch};

/// How often a disk that did not take a write is tried again.
pub const PROBE_EVERY: Duration = Duration::from_secs(2);

/// The primary result codes of SQLite (<https://www.sqlite.org/rescode.html>) that say that the
/// disk did not take a write.
mod code {
    pub(super) const READONLY: i32 = 8;
    pub(super) const IOERR: i32 = 10;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANTOPEN: i32 = 14;
    /// Extended ones of [`IOERR`] that are about reading: no write has failed.
    pub(super) const IOERR_READ: i32 = IOERR | (1 << 8);
    pub(super) const IOERR_SHORT_READ: i32 = IOERR | (2 << 8);
}

/// The database takes no writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadOnly {
    /// Since when.
    pub since: Timestamp,
    /// What the disk did, in words.
    pub cause: String,
}

impl fmt::Display for ReadOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { since, cause } = self;
        write!(
            f,
            "the database is read-only since {since:.0}: {cause}; what is known is still served, \
             changes are refused until it can be written to again"
        )
    }
}

/// A write that was not done.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The disk does not take writes.
    #[error("{0}")]
    ReadOnly(ReadOnly),
    /// The database failed otherwise.
    #[error("the database failed")]
    Failed(#[from] sqlx::Error),
}

/// What a disk did that refused a write; nothing when the error is another one.
pub(crate) fn refused(error: &sqlx::Error) -> Option<String> {
    let error = error.as_database_error()?;
    let extended: i32 = error.code()?.parse().ok()?;
    let words = match extended & 0xff {
        code::FULL => "the disk is full",
        code::READONLY => "the file system or the file is read-only",
        code::CANTOPEN => "its files cannot be opened or made",
        code::IOERR if [code::IOERR_READ, code::IOERR_SHORT_READ].contains(&extended) => {
            return None;
        }
        code::IOERR => "the disk fails",
        _ => return None,
    };
    Some(format!("{words} (SQLite {extended}: {})", error.message()))
}

/// Whether the disk takes writes, for all clones of a store.
#[derive(Debug)]
pub(super) struct Disk {
    state: watch::Sender<Option<ReadOnly>>,
    /// A transaction ended without a commit: perhaps the disk refused one of its statements.
    suspect: Notify,
    /// Commits that were tried since the start.
    commits: AtomicU64,
}

impl Disk {
    pub(super) fn new(state: Option<ReadOnly>) -> Self {
        Self {
            state: watch::Sender::new(state),
            suspect: Notify::new(),
            commits: AtomicU64::new(0),
        }
    }

    pub(super) fn read_only(&self) -> Option<ReadOnly> {
        self.state.borrow().clone()
    }

    /// Changes with every commit, before its caller knows of it.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Acquire)
    }

    pub(super) fn changes(&self) -> watch::Receiver<Option<ReadOnly>> {
        self.state.subscribe()
    }

    /// Resolves when a transaction ended without a commit since the last call.
    pub(super) async fn suspected(&self) {
        self.suspect.notified().await;
    }

    /// Takes note of a write that failed.
    pub(super) fn judge(&self, error: sqlx::Error) -> WriteError {
        let Some(cause) = refused(&error) else {
            return WriteError::Failed(error);
        };
        let mut found = ReadOnly {
            since: Timestamp::now(),
            cause,
        };
        self.state.send_if_modified(|state| match state {
            Some(known) => {
                found.since = known.since;
                false
            }
            None => {
                tracing::error!("{found}");
                *state = Some(found.clone());
                true
            }
        });
        WriteError::ReadOnly(found)
    }

    /// Takes note of a write that worked.
    pub(super) fn writable(&self) {
        self.state.send_if_modified(|state| {
            let Some(ReadOnly { since, .. }) = state.take() else {
                return false;
            };
            tracing::info!("the database takes writes again; it was read-only since {since:.0}");
            true
        });
    }
}

/// A transaction that writes. Dropped without [`Write::commit`] it never was.
#[derive(Debug)]
pub struct Write {
    /// Nothing once it has ended.
    transaction: Option<Transaction<'static, Sqlite>>,
    disk: Arc<Disk>,
}

impl Write {
    pub(super) fn new(transaction: Transaction<'static, Sqlite>, disk: Arc<Disk>) -> Self {
        Self {
            transaction: Some(transaction),
            disk,
        }
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// When it is not: nothing of it was done, as far as anybody can see.
    pub async fn commit(mut self) -> Result<(), WriteError> {
        match self.transaction.take() {
            Some(transaction) => {
                let committed = transaction.commit().await;
                // Also when it failed: what is asked once too often costs little.
                self.disk.commits.fetch_add(1, Ordering::Release);
                committed.map_err(|error| self.disk.judge(error))
            }
            None => Ok(()),
        }
    }

    /// Undoes it.
    ///
    /// # Errors
    /// When the database failed; it is undone all the same.
    pub async fn rollback(mut self) -> Result<(), WriteError> {
        match self.transaction.take() {
            Some(transaction) => Ok(transaction.rollback().await?),
            None => Ok(()),
        }
    }
}

impl Deref for Write {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        self.transaction.as_ref().expect(OPEN)
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.transaction.as_mut().expect(OPEN)
    }
}

const OPEN: &str = "only what consumes the value ends the transaction";

impl Drop for Write {
    fn drop(&mut self) {
        if self.transaction.is_some() {
            self.disk.suspect.notify_one();
        }
    }
}
