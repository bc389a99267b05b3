//! Opening the database: its files, its lock, its tables, and what to do about a disk that takes
//! no writes.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{Connection, SqliteConnection};

use super::disk::{Disk, refused};
use super::{READERS, ReadOnly, Store, WAIT, integrity};
use crate::files::{beside, directory_of, open_or_make};

pub(super) static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// The first SQLite without the WAL reset bug, by which connections of one process that
/// checkpoint at the same moment could corrupt the database.
const OLDEST_SQLITE: (u32, u32, u32) = (3, 51, 3);

/// How often it is looked whether a server that has just started has brought the tables up to date.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Findings named in an error; `isopathd check` prints them all.
const NAMED: usize = 5;

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
    /// It is not as this release needs it, and a server of another one serves from it.
    #[error(
        "{} is not as this release needs it, and an isopathd of another release serves from it: \
         restart that first; nothing was changed",
        path.display()
    )]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// A later release has changed its tables.
    #[error("{} was last used by a later release of isopathd: use that one", path.display())]
    Newer {
        /// The database.
        path: PathBuf,
    },
    /// The library is one that loses data.
    #[error("SQLite {found} has a bug that corrupts databases in WAL mode; 3.51.3 is needed")]
    TooOld {
        /// The version linked.
        found: String,
    },
    /// The file is not what SQLite or the controller left there.
    #[error(
        "{} is damaged: {}; restore a backup with `isopathd restore --database sqlite://{} FILE`, \
         which keeps what is there now beside it",
        path.display(), first(findings), path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What is wrong with it.
        findings: Vec<String>,
    },
    /// It can only be read, and is another release's.
    #[error(
        "{} cannot be written to ({cause}) and is not as this release needs it: start once with \
         a disk that takes writes",
        path.display()
    )]
    NotUpToDate {
        /// The database.
        path: PathBuf,
        /// Why it takes no writes.
        cause: String,
    },
    /// The database cannot be read.
    #[error("cannot read the database")]
    Sqlx(#[from] sqlx::Error),
    /// The tables cannot be made or changed.
    #[error("cannot bring the database's tables up to date")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

pub(super) fn first(findings: &[String]) -> String {
    let mut text = findings[..findings.len().min(NAMED)].join("; ");
    if findings.len() > NAMED {
        text.push_str(&format!("; and {} more", findings.len() - NAMED));
    }
    text
}

impl Store {
    /// Opens the database at `url`, making it where there is none, and brings its tables up
    /// to date.
    ///
    /// # Errors
    /// All of [`OpenError`] but [`OpenError::Locked`] and what a check finds.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        Self::open_with(url, false).await
    }

    /// The same for a server, which first looks whether the database is whole.
    ///
    /// # Errors
    /// All of [`OpenError`] but [`OpenError::Locked`].
    pub async fn open_checked(url: &str) -> Result<Self, OpenError> {
        Self::open_with(url, true).await
    }

    async fn open_with(url: &str, checked: bool) -> Result<Self, OpenError> {
        let options = connect_options(url)?;
        let path = options.get_filename().to_owned();
        // It holds hashes of secrets: made here, since SQLite would let everyone read it.
        // The WAL takes over the mode of the database.
        match open_or_make(&path, &path) {
            Ok(_) => {}
            Err(error) if takes_no_writes(&error) && path.exists() => {
                return open_read_only(options, error.to_string(), checked).await;
            }
            Err(source) => return Err(OpenError::File { path, source }),
        }
        let writer = writer_pool(options.clone());
        let mut connection = match writer.acquire().await {
            Ok(connection) => connection,
            Err(error) => match refused(&error) {
                Some(cause) => return open_read_only(options, cause, checked).await,
                None => return Err(unreadable(error, &path)),
            },
        };
        check_version(&mut connection).await?;
        if checked {
            check(&mut connection, &path).await?;
        }
        if !is_up_to_date(&mut connection).await? {
            refuse_newer(&mut connection, &path).await?;
            // A server has the lock already.
            match checked {
                true => migrate(&mut connection).await?,
                false => migrate_alone(url, &mut connection).await?,
            }
        }
        drop(connection);
        Ok(Self::new(writer, readers(options.clone()), None, options))
    }
}

/// Opens a database whose disk takes no writes, if it is one of this release.
async fn open_read_only(
    options: SqliteConnectOptions,
    cause: String,
    checked: bool,
) -> Result<Store, OpenError> {
    let path = options.get_filename().to_owned();
    let wal = std::fs::metadata(beside(&path, "-wal"));
    let reading = options
        .clone()
        .create_if_missing(false)
        // Without a WAL nothing is read but the database, and SQLite need not make the shared
        // memory beside it, which it could not.
        .immutable(wal.map_or(true, |wal| wal.len() == 0));
    let readers = readers(reading);
    let mut connection = readers
        .acquire()
        .await
        .map_err(|error| unreadable(error, &path))?;
    check_version(&mut connection).await?;
    if checked {
        check(&mut connection, &path).await?;
    }
    if !is_up_to_date(&mut connection).await? {
        refuse_newer(&mut connection, &path).await?;
        return Err(OpenError::NotUpToDate { path, cause });
    }
    drop(connection);
    let state = ReadOnly {
        since: Timestamp::now(),
        cause,
    };
    tracing::error!("{state}");
    let writer = writer_pool(options.clone());
    Ok(Store::new(writer, readers, Some(state), options))
}

impl Store {
    fn new(
        writer: SqlitePool,
        readers: SqlitePool,
        state: Option<ReadOnly>,
        options: SqliteConnectOptions,
    ) -> Self {
        Self {
            writer,
            readers: tokio::sync::watch::Sender::new(readers).into(),
            read_only_readers: AtomicBool::new(state.is_some()).into(),
            disk: Disk::new(state).into(),
            directory: directory_of(options.get_filename()).into(),
            options: options.into(),
        }
    }
}

fn writer_pool(options: SqliteConnectOptions) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(WAIT)
        .max_lifetime(None)
        .idle_timeout(None)
        // SQLite undoes a transaction by itself when the disk refuses it, after which the
        // connection's idea of where it stands is wrong: another one takes its place.
        .after_release(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        .connect_lazy_with(writer_options(options))
}

pub(super) fn readers(options: SqliteConnectOptions) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(WAIT)
        .idle_timeout(std::time::Duration::from_secs(60))
        .connect_lazy_with(options.read_only(true))
}

async fn check(connection: &mut SqliteConnection, path: &Path) -> Result<(), OpenError> {
    let findings = integrity::check(connection, integrity::Depth::Quick).await?;
    if findings.is_empty() {
        return Ok(());
    }
    Err(OpenError::Damaged {
        path: path.to_owned(),
        findings,
    })
}

/// A database that SQLite cannot even begin to read.
pub(super) fn unreadable(error: sqlx::Error, path: &Path) -> OpenError {
    match integrity::damage(&error) {
        Some(finding) => OpenError::Damaged {
            path: path.to_owned(),
            findings: vec![finding],
        },
        None => OpenError::Sqlx(error),
    }
}

/// Whether it has exactly this release's tables: nothing need be written for them.
pub(super) async fn is_up_to_date(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let table: Option<String> = sqlx::query_scalar(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name = '_sqlx_migrations'",
    )
    .fetch_optional(&mut *connection)
    .await?;
    if table.is_none() {
        return Ok(false);
    }
    let applied: Vec<(i64, Vec<u8>)> = sqlx::query_as(
        "SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version",
    )
    .fetch_all(connection)
    .await?;
    let ours = MIGRATOR.iter().map(|it| (it.version, it.checksum.to_vec()));
    Ok(applied.into_iter().eq(ours))
}

/// Brings a database's tables up to date.
pub(super) async fn migrate(connection: &mut SqliteConnection) -> Result<(), OpenError> {
    Ok(MIGRATOR.run(connection).await?)
}

/// The same while no server uses them: one of another release would go on with tables that it does
/// not know.
async fn migrate_alone(url: &str, connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let began = Instant::now();
    loop {
        match ServeLock::take(url) {
            Ok(_lock) => return migrate(connection).await,
            // One that is just starting brings them up to date itself.
            Err(OpenError::Locked { .. }) if began.elapsed() < WAIT => {}
            Err(OpenError::Locked { path }) => return Err(OpenError::InUse { path }),
            Err(error) => return Err(error),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        if is_up_to_date(connection).await? {
            return Ok(());
        }
    }
}

async fn refuse_newer(connection: &mut SqliteConnection, path: &Path) -> Result<(), OpenError> {
    match age(connection).await? {
        Age::Ours | Age::Foreign => Ok(()),
        Age::Newer => Err(OpenError::Newer {
            path: path.to_owned(),
        }),
    }
}

/// Whose tables a database has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// This release's, or those of one before.
    Ours,
    /// A later release's.
    Newer,
    /// Somebody else's.
    Foreign,
}

pub(super) async fn age(connection: &mut SqliteConnection) -> Result<Age, sqlx::Error> {
    let tables: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM sqlite_schema \
         WHERE type = 'table' AND name IN ('_sqlx_migrations', 'epoch', 'clusters')",
    )
    .fetch_one(&mut *connection)
    .await?;
    if tables != 3 {
        return Ok(Age::Foreign);
    }
    let newest: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
        .fetch_one(connection)
        .await?;
    let ours = MIGRATOR.iter().map(|it| it.version).max();
    Ok(if newest > ours { Age::Newer } else { Age::Ours })
}

fn takes_no_writes(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ReadOnlyFilesystem | ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

/// The one `isopathd serve` of a database: a lock that lasts as long as this value.
#[derive(Debug)]
pub struct ServeLock {
    /// Nothing where nobody can ever have written: a file system that is read-only and has no
    /// lock file yet.
    _file: Option<File>,
}

impl ServeLock {
    /// Takes the lock of the database at `url`: a file beside it, since SQLite's own locks on
    /// the database come and go. The kernel frees it however the process ends.
    ///
    /// # Errors
    /// [`OpenError::Locked`] when another process has it, and when the file cannot be made.
    pub fn take(url: &str) -> Result<Self, OpenError> {
        let database = connect_options(url)?.get_filename().to_owned();
        let path = beside(&database, "-serve");
        let failed = |source| OpenError::File {
            path: path.clone(),
            source,
        };
        let file = match open_or_make(&path, &database) {
            Ok(file) => file,
            Err(error) if takes_no_writes(&error) => match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return Ok(Self { _file: None });
                }
                Err(error) => return Err(failed(error)),
            },
            Err(error) => return Err(failed(error)),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: Some(file) }),
            Err(Errno::WOULDBLOCK) => Err(OpenError::Locked { path: database }),
            Err(errno) => Err(failed(errno.into())),
        }
    }
}

/// The file of the database at `url`.
///
/// # Errors
/// [`OpenError::Url`].
pub fn file_of(url: &str) -> Result<PathBuf, OpenError> {
    Ok(connect_options(url)?.get_filename().to_owned())
}

/// How the database at `url` is connected to.
///
/// # Errors
/// [`OpenError::Url`].
pub fn options_of(url: &str) -> Result<SqliteConnectOptions, OpenError> {
    connect_options(url)
}

pub(super) fn connect_options(url: &str) -> Result<SqliteConnectOptions, OpenError> {
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

async fn check_version(connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let found: String = sqlx::query_scalar("SELECT sqlite_version()")
        .fetch_one(connection)
        .await?;
    if is_new_enough(&found) {
        Ok(())
    } else {
        Err(OpenError::TooOld { found })
    }
}

pub(super) fn is_new_enough(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next()) >= OLDEST_SQLITE
}
