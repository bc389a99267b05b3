//! The database: SQLite in WAL mode, one file per aggregate.
//!
//! There is one connection that writes, so transactions queue here and not in SQLite's busy
//! handler, and a small pool of readers. The statements are plain SQL that PostgreSQL would
//! take as well.

pub mod clusters;
pub mod directors;
pub mod epoch;
pub mod events;
pub mod operations;
pub mod sessions;
pub mod tokens;
pub mod users;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sqlx::migrate::Migrator;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{Sqlite, Transaction};

static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// The first SQLite without the WAL reset bug, by which connections of one process that
/// checkpoint at the same moment could corrupt the database.
const OLDEST_SQLITE: (u32, u32, u32) = (3, 51, 3);

/// Readers fetch whole answers and give the connection back, so a few are plenty.
const READERS: u32 = 4;

/// How long anybody waits for a connection or a lock before the answer is 503.
const WAIT: Duration = Duration::from_secs(5);

/// A database that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is not one of SQLite.
    #[error("expected a database URL such as sqlite://isopath.db, found {url:?}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it beyond its scheme.
        source: Option<sqlx::Error>,
    },
    /// The file cannot be made or opened.
    #[error("cannot open {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another controller serves from it.
    #[error("another isopathd serves from {}", path.display())]
    Locked {
        /// The database.
        path: PathBuf,
    },
    /// The library is one that loses data.
    #[error("SQLite {found} has a bug that corrupts databases in WAL mode; 3.51.3 is needed")]
    TooOld {
        /// The version linked.
        found: String,
    },
    /// The database cannot be read.
    #[error("cannot read the database")]
    Sqlx(#[from] sqlx::Error),
    /// The tables cannot be made or changed.
    #[error("cannot bring the database's tables up to date")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

/// The open database. A clone is the same database.
#[derive(Debug, Clone)]
pub struct Store {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Store {
    /// Opens the database at `url`, making it where there is none, and brings its tables up
    /// to date.
    ///
    /// # Errors
    /// All of [`OpenError`] but [`OpenError::Locked`].
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        let options = connect_options(url)?;
        let path = options.get_filename().to_owned();
        // It holds hashes of secrets: made here, since SQLite would let everyone read it.
        // The WAL takes over the mode of the database.
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| OpenError::File { path, source })?;
        let writer = SqlitePoolOptions::new()
            .min_connections(1)
            .max_connections(1)
            .acquire_timeout(WAIT)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_with(writer_options(options.clone()))
            .await?;
        check_version(&writer).await?;
        MIGRATOR.run(&writer).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(WAIT)
            .idle_timeout(Duration::from_secs(60))
            .connect_lazy_with(options.read_only(true));
        Ok(Self { writer, readers })
    }

    /// Starts a transaction that writes: nobody else's writes come between what it reads and
    /// what it commits.
    ///
    /// # Errors
    /// When the database cannot be written to.
    pub async fn begin(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        self.writer.begin_with("BEGIN IMMEDIATE").await
    }

    /// A connection that only reads.
    ///
    /// # Errors
    /// When all of them are busy for long, or the database cannot be read.
    pub async fn read(&self) -> Result<PoolConnection<Sqlite>, sqlx::Error> {
        self.readers.acquire().await
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
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// The one `isopathd serve` of a database: a lock that lasts as long as this value.
#[derive(Debug)]
pub struct ServeLock {
    _file: File,
}

impl ServeLock {
    /// Takes the lock of the database at `url`: a file beside it, since SQLite's own locks on
    /// the database come and go. The kernel frees it however the process ends.
    ///
    /// # Errors
    /// [`OpenError::Locked`] when another process has it, and when the file cannot be made.
    pub fn take(url: &str) -> Result<Self, OpenError> {
        let database = connect_options(url)?.get_filename().to_owned();
        let path = lock_path(&database);
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| OpenError::File {
                path: path.clone(),
                source,
            })?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(Errno::WOULDBLOCK) => Err(OpenError::Locked { path: database }),
            Err(errno) => Err(OpenError::File {
                path,
                source: errno.into(),
            }),
        }
    }
}

fn lock_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-serve");
    name.into()
}

fn connect_options(url: &str) -> Result<SqliteConnectOptions, OpenError> {
    let refused = |source| OpenError::Url {
        url: url.to_owned(),
        source,
    };
    let file = url.strip_prefix("sqlite://");
    if file.is_none_or(|file| file.is_empty() || file.starts_with(":memory:")) {
        return Err(refused(None));
    }
    let options = SqliteConnectOptions::from_str(url).map_err(|error| refused(Some(error)))?;
    Ok(options
        .create_if_missing(true)
        .busy_timeout(WAIT)
        .foreign_keys(true))
}

/// What only a connection that writes can set.
fn writer_options(options: SqliteConnectOptions) -> SqliteConnectOptions {
    options
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal)
        // NORMAL may lose commits that were acknowledged when the power fails.
        .synchronous(SqliteSynchronous::Full)
        .pragma("journal_size_limit", (64 << 20).to_string())
}

async fn check_version(pool: &SqlitePool) -> Result<(), OpenError> {
    let found: String = sqlx::query_scalar("SELECT sqlite_version()")
        .fetch_one(pool)
        .await?;
    if is_new_enough(&found) {
        Ok(())
    } else {
        Err(OpenError::TooOld { found })
    }
}

fn is_new_enough(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next()) >= OLDEST_SQLITE
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
mod tests;
