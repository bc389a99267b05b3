//! The database: SQLite in WAL mode, one file per aggregate.
//!
//! There is one connection that writes, so transactions queue here and not in SQLite's busy
//! handler, and a small pool of readers. The statements are plain SQL that PostgreSQL would
//! take as well.

pub mod agents;
pub mod audit;
pub mod backup;
pub mod clusters;
pub mod declared;
pub mod directors;
pub mod disk;
pub mod enroll_tokens;
pub mod epoch;
pub mod events;
pub mod idempotency;
pub mod integrity;
pub mod interfaces;
mod open;
pub mod operations;
pub mod quiesced;
pub mod retention;
pub mod samples;
pub mod sessions;
pub mod tokens;
pub mod users;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{Access, access, statvfs};
use sqlx::Sqlite;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use disk::{ReadOnly, Write, WriteError};
pub use open::{OpenError, ServeLock, file_of, options_of};

use disk::{Disk, PROBE_EVERY};

/// Readers fetch whole answers and give the connection back, so a few are plenty.
const READERS: u32 = 4;

/// How long anybody waits for a connection or a lock before the answer is 503.
const WAIT: Duration = Duration::from_secs(5);

/// The free space, in bytes, from which a disk that was full counts as worth a try: what the WAL
/// grows by between two checkpoints.
const ROOM: u64 = 4 << 20;

/// Free pages that are left in the file for what comes next.
const FREE_PAGES: u64 = 64;
/// Free pages given back in one go: some milliseconds.
const PAGES_AT_ONCE: u32 = 256;
/// How often in a row they are: what is more waits for the next time.
const MOST_STEPS: usize = 64;
/// The size, in bytes, from which the WAL is begun anew. In between SQLite's own checkpoints keep
/// it at some 4 MiB as long as readers come and go.
const LARGE_WAL: u64 = 8 << 20;

/// The open database. A clone is the same database.
#[derive(Debug, Clone)]
pub struct Store {
    writer: SqlitePool,
    readers: Arc<watch::Sender<SqlitePool>>,
    /// Whether they are those of a disk that takes no writes ([`Store::renew_readers`]).
    read_only_readers: Arc<AtomicBool>,
    disk: Arc<Disk>,
    /// Where the database's files are.
    directory: Arc<Path>,
    options: Arc<SqliteConnectOptions>,
}

impl Store {
    /// Starts a transaction that writes: nobody else's writes come between what it reads and
    /// what it commits.
    ///
    /// # Errors
    /// When the database is read-only or fails.
    pub async fn begin(&self) -> Result<Write, WriteError> {
        if let Some(read_only) = self.read_only() {
            return Err(WriteError::ReadOnly(read_only));
        }
        self.begin_anyway().await
    }

    async fn begin_anyway(&self) -> Result<Write, WriteError> {
        match self.writer.begin_with("BEGIN IMMEDIATE").await {
            Ok(transaction) => Ok(Write::new(transaction, Arc::clone(&self.disk))),
            Err(error) => Err(self.disk.judge(error)),
        }
    }

    /// Since when and why the database takes no writes; nothing while it does.
    pub fn read_only(&self) -> Option<ReadOnly> {
        self.disk.read_only()
    }

    /// Changes with every commit of this process: what was read before may be otherwise now.
    pub fn commits(&self) -> u64 {
        self.disk.commits()
    }

    /// Changes whenever [`Store::read_only`] does.
    pub fn disk_changes(&self) -> watch::Receiver<Option<ReadOnly>> {
        self.disk.changes()
    }

    /// Tries whether the disk takes a write, and takes note of it.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn probe(&self) -> Result<(), WriteError> {
        if let Some(known) = self.read_only() {
            if !self.has_room() || access(self.options.get_filename(), Access::WRITE_OK).is_err() {
                return Err(WriteError::ReadOnly(known));
            }
            self.renew_readers().await;
            let tried = self.try_to_write().await;
            if tried.is_err() {
                // Somebody may have read while the readers were renewed, and have what the former
                // ones had.
                self.read_only_readers.store(true, Ordering::Relaxed);
            }
            return tried;
        }
        self.try_to_write().await
    }

    async fn try_to_write(&self) -> Result<(), WriteError> {
        let mut transaction = self.begin_anyway().await?;
        if let Err(error) = epoch::touch(&mut transaction).await {
            drop(transaction);
            return Err(self.disk.judge(error));
        }
        transaction.commit().await?;
        self.disk.writable();
        Ok(())
    }

    /// Readers of a database that was opened on a disk that takes no writes do not see what is
    /// written, and as long as one of them is there, nobody in this process can write: SQLite
    /// shares the memory beside the WAL, which they could only open for reading.
    async fn renew_readers(&self) {
        if self.read_only_readers.swap(false, Ordering::Relaxed) {
            let others = open::readers((*self.options).clone());
            self.readers.send_replace(others).close().await;
        }
    }

    /// Whether the disk has [`ROOM`]: with less, the next writes would fail again.
    fn has_room(&self) -> bool {
        statvfs(&*self.directory).is_ok_and(|fs| fs.f_bavail.saturating_mul(fs.f_frsize) >= ROOM)
    }

    /// Notices by itself, until `shutdown`, when the disk takes writes again, and when it has
    /// refused one before the commit.
    pub async fn watch_disk(self, shutdown: CancellationToken) {
        let mut changes = self.disk_changes();
        loop {
            let read_only = changes.borrow_and_update().is_some();
            // All four are cancel-safe: a token stays cancelled, a suspicion stays noted until
            // it is taken, a change is seen until it is, and a pause that was cut short begins
            // anew.
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = changes.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                () = self.disk.suspected(), if !read_only => {}
                () = tokio::time::sleep(PROBE_EVERY), if read_only => {}
            }
            if let Err(WriteError::Failed(error)) = self.probe().await {
                tracing::warn!(%error, "cannot tell whether the database takes writes");
            }
            if self.read_only().is_none() {
                // However many transactions end without a commit, one of these costs little.
                tokio::time::sleep(PROBE_EVERY).await;
            }
        }
    }

    /// Gives free pages back and begins the WAL anew once it is large, a little at a time.
    ///
    /// # Errors
    /// When the database cannot be written to.
    pub async fn compact(&self) -> Result<(), WriteError> {
        if let Some(read_only) = self.read_only() {
            return Err(WriteError::ReadOnly(read_only));
        }
        let judge = |error| self.disk.judge(error);
        let mut given_back = false;
        for _ in 0..MOST_STEPS {
            let mut writer = self.writer.acquire().await.map_err(judge)?;
            let free = retention::free_pages(&mut writer).await.map_err(judge)?;
            if free <= FREE_PAGES {
                break;
            }
            let done = retention::shrink(&mut writer, PAGES_AT_ONCE).await;
            done.map_err(judge)?;
            given_back = true;
            drop(writer);
            // Whoever else wants to write has a turn.
            tokio::task::yield_now().await;
        }
        let wal = crate::files::beside(self.options.get_filename(), "-wal");
        let is_large = std::fs::metadata(wal).is_ok_and(|wal| wal.len() >= LARGE_WAL);
        // The file itself is cut when what was given back is brought from the WAL into it.
        if is_large || given_back {
            let mut writer = self.writer.acquire().await.map_err(judge)?;
            if !retention::empty_wal(&mut writer).await.map_err(judge)? {
                tracing::debug!("somebody reads: the WAL is begun anew another time");
            }
        }
        Ok(())
    }

    /// A connection that only reads.
    ///
    /// # Errors
    /// When all of them are busy for long, or the database cannot be read.
    pub async fn read(&self) -> Result<PoolConnection<Sqlite>, sqlx::Error> {
        let readers = self.readers.borrow().clone();
        readers.acquire().await
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn ping(&self) -> Result<(), sqlx::Error> {
        let mut reader = self.read().await?;
        sqlx::query_scalar::<_, i64>("SELECT id FROM epoch")
            .fetch_optional(&mut *reader)
            .await?;
        Ok(())
    }

    /// Closes all connections; the last one folds the WAL into the database.
    pub async fn close(&self) {
        let readers = self.readers.borrow().clone();
        readers.close().await;
        self.writer.close().await;
    }
}

/// A moment as the tables have it.
fn to_ms(at: Timestamp) -> i64 {
    at.as_millisecond()
}

/// A moment from the tables.
fn from_ms(ms: i64) -> Result<Timestamp, sqlx::Error> {
    Timestamp::from_millisecond(ms).map_err(|error| decode("a time", error))
}

/// A count as the tables have it: none of ours comes near the limit.
fn to_int(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A count from the tables.
fn from_int(value: i64) -> Result<u64, sqlx::Error> {
    u64::try_from(value).map_err(|error| decode("a count", error))
}

/// A text of the tables that the program cannot have written.
fn decode(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    tracing::error!(what, %error, "the database holds a value that cannot be read");
    sqlx::Error::Decode(Box::new(error))
}

#[cfg(test)]
use open::is_new_enough;
#[cfg(test)]
mod tests;
