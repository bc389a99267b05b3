//! Copies of the database, and putting one in its place.
//!
//! A copy is made by SQLite itself while the server writes: a copied file would lack what stands
//! in the WAL. A database that is put in the place of a later one begins a new epoch, so that
//! agents take its lower generations (`docs/adr/0026-what-is-durable.md`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use isopath_api::view::Severity;
use jiff::Timestamp;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use uuid::Uuid;

use super::events::{self, NewEvent};
use super::integrity::{Depth, check};
use super::open::{self, OpenError, ServeLock, connect_options, unreadable};
use super::{enroll_tokens, epoch, sessions};
use crate::files::{self, FileError, beside, directory_of};

/// A copy that was not made, or not put in place.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// A file cannot be made, read or moved.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is something of that name.
    #[error("{} exists; --force overwrites it", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The copy would take a place of the database's own.
    #[error("{} is a file of the database itself", path.display())]
    Itself {
        /// The file.
        path: PathBuf,
    },
    /// What was copied, or is to be put in place, is not whole or not ours.
    #[error("{} is not a backup that can be used: {why}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Where a copy went and how large it is.
#[derive(Debug)]
pub struct Made {
    /// Its size in bytes.
    pub bytes: u64,
}

/// What putting a backup in place left behind.
#[derive(Debug)]
pub struct Restored {
    /// The database that was there before; nothing if there was none.
    pub aside: Option<PathBuf>,
    /// The new epoch.
    pub epoch: String,
}

/// Copies the database at `url` to `file`, whoever writes to it meanwhile. The file is there when
/// all of it is on the disk, or not at all.
///
/// # Errors
/// When there is a file of that name and not `force`, and when anything fails; nothing is left
/// behind then.
pub async fn backup(url: &str, file: &Path, force: bool) -> Result<Made, BackupError> {
    let source = connect_options(url)?;
    let database = source.get_filename().to_owned();
    if !database.exists() {
        return Err(FileError::of("read", &database)(io::ErrorKind::NotFound.into()).into());
    }
    // Whoever has it open would go on writing to a file without a name.
    let own = ["", "-wal", "-shm", "-journal", "-serve"].map(|suffix| beside(&database, suffix));
    if own.iter().any(|own| files::is_same(own, file)) {
        return Err(BackupError::Itself { path: file.into() });
    }
    if !force && file.exists() {
        return Err(BackupError::Exists { path: file.into() });
    }
    // What one that was killed left is not in the way of the next.
    let temporary = beside(file, &format!(".{}.tmp", Uuid::new_v4().simple()));
    if temporary.to_str().is_none() {
        let why = io::Error::new(ErrorKind::InvalidInput, "its name is not UTF-8");
        return Err(FileError::of("make", file)(why).into());
    }
    // It holds what the database holds: for its owner alone. SQLite takes an empty file.
    OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(FileError::of("make", &temporary))?;
    let made = copy_and_place(source, &temporary, file, force).await;
    if made.is_err() {
        // The error that is told is the one that came first.
        drop(fs::remove_file(&temporary));
    }
    made
}

async fn copy_and_place(
    source: SqliteConnectOptions,
    temporary: &Path,
    file: &Path,
    force: bool,
) -> Result<Made, BackupError> {
    let database = source.get_filename().to_owned();
    let mut connection = source
        .create_if_missing(false)
        .read_only(true)
        .connect()
        .await
        .map_err(|error| unreadable(error, &database))?;
    sqlx::query("VACUUM INTO $1")
        .bind(temporary.to_string_lossy().into_owned())
        .execute(&mut connection)
        .await?;
    connection.close().await?;
    let mut copy = open_copy(temporary).await?;
    require_whole(&mut copy, temporary, Depth::Quick).await?;
    copy.close().await?;
    files::sync(temporary)?;
    let bytes = fs::metadata(temporary)
        .map_err(FileError::of("read", temporary))?
        .len();
    if force {
        fs::rename(temporary, file).map_err(FileError::of("make", file))?;
    } else {
        place_new(temporary, file)?;
    }
    files::sync(&directory_of(file))?;
    Ok(Made { bytes })
}

/// Gives a file its name, unless somebody else has made one of that name meanwhile.
fn place_new(temporary: &Path, file: &Path) -> Result<(), BackupError> {
    match renameat_with(CWD, temporary, CWD, file, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(BackupError::Exists { path: file.into() }),
        // A file system that cannot rename so has hard links, which fail as well where there is a
        // file.
        Err(Errno::INVAL | Errno::NOSYS) => {
            fs::hard_link(temporary, file).map_err(FileError::of("make", file))?;
            Ok(files::remove(temporary)?)
        }
        Err(errno) => Err(FileError::of("make", file)(errno.into()).into()),
    }
}

/// Puts the backup `file` in the place of the database at `url`, which no server may use
/// meanwhile. What was there stays beside it.
///
/// # Errors
/// When a server runs, when the backup is not whole, not ours or a later release's, and when a
/// file cannot be moved; what was there is then still in force.
pub async fn restore(url: &str, file: &Path, now: Timestamp) -> Result<Restored, BackupError> {
    let database = connect_options(url)?.get_filename().to_owned();
    let _lock = ServeLock::take(url)?;
    let unusable = |why: &str| BackupError::Unusable {
        path: file.to_owned(),
        why: why.to_owned(),
    };
    let temporary = beside(&database, "-restore");
    if files::is_same(&temporary, file) {
        return Err(unusable(
            "a restore makes its own copy under this name: rename it first",
        ));
    }
    for (suffix, what) in [("-wal", "WAL"), ("-journal", "journal")] {
        if fs::metadata(beside(file, suffix)).is_ok_and(|it| it.len() > 0) {
            return Err(unusable(&format!(
                "it has a {what} beside it: it is a database in use, not what `isopathd backup` \
                 made"
            )));
        }
    }
    let mut backup = open_copy(file).await?;
    require_whole(&mut backup, file, Depth::Full).await?;
    match open::age(&mut backup).await? {
        open::Age::Ours => {}
        open::Age::Newer => return Err(unusable("a later release made it")),
        open::Age::Foreign => return Err(unusable("it is no database of isopathd")),
    }
    backup.close().await?;
    // One that was killed has left its own, and SQLite would take a journal for the copy's.
    remove_with_journals(&temporary)?;
    let restored = copy_and_replace(url, &database, file, &temporary, now).await;
    if restored.is_err() {
        // The error that is told is the one that came first.
        drop(remove_with_journals(&temporary));
    }
    restored
}

async fn copy_and_replace(
    url: &str,
    database: &Path,
    file: &Path,
    temporary: &Path,
    now: Timestamp,
) -> Result<Restored, BackupError> {
    let mut source = File::open(file).map_err(FileError::of("read", file))?;
    let mut copy =
        files::make_new(temporary, database).map_err(FileError::of("make", temporary))?;
    io::copy(&mut source, &mut copy).map_err(FileError::of("make", temporary))?;
    drop(copy);
    let epoch = begin_anew(temporary, file, now).await?;
    let mut copy = open_copy(temporary).await?;
    require_whole(&mut copy, temporary, Depth::Quick).await?;
    copy.close().await?;
    files::sync(temporary)?;
    let aside = put_aside(url, database, now).await?;
    fs::rename(temporary, database).map_err(FileError::of("replace", database))?;
    files::sync(&directory_of(database))?;
    Ok(Restored { aside, epoch })
}

/// Removes a database and what SQLite has beside it.
fn remove_with_journals(database: &Path) -> Result<(), BackupError> {
    for suffix in ["", "-journal", "-wal", "-shm"] {
        files::remove(&beside(database, suffix))?;
    }
    Ok(())
}

/// Gives a database that is about to be put in place a new epoch.
async fn begin_anew(database: &Path, backup: &Path, now: Timestamp) -> Result<String, BackupError> {
    let mut connection = SqliteConnectOptions::new()
        .filename(database)
        // A WAL would have to be moved with it.
        .journal_mode(SqliteJournalMode::Delete)
        .foreign_keys(true)
        .connect()
        .await?;
    open::migrate(&mut connection).await?;
    let mut transaction = connection.begin().await?;
    let epoch = epoch::renew(&mut transaction, now).await?;
    // Whoever has signed out since the backup stays signed out.
    sessions::delete_old(&mut transaction, now, now).await?;
    // One that was used since the backup would be good again.
    enroll_tokens::delete_all(&mut transaction).await?;
    let name = backup.file_name().unwrap_or(backup.as_os_str());
    let event = NewEvent {
        at: now,
        cluster: None,
        severity: Severity::Warning,
        object: "database".to_owned(),
        what: format!(
            "restored from {}; what was done after that backup is undone",
            name.to_string_lossy()
        ),
        actor: "isopathd restore".to_owned(),
    };
    events::insert(&mut transaction, event).await?;
    transaction.commit().await?;
    connection.close().await?;
    Ok(epoch)
}

/// Keeps the present database under another name, complete with its WAL, and in its place until
/// it is replaced.
async fn put_aside(
    url: &str,
    database: &Path,
    now: Timestamp,
) -> Result<Option<PathBuf>, BackupError> {
    if !database.exists() {
        return Ok(None);
    }
    if let Err(error) = fold_wal(url).await {
        // One that is damaged is the reason why another is put in its place.
        tracing::warn!(%error, "the database that is there cannot be closed properly");
    }
    let name = format!(".before-restore-{}", now.strftime("%Y%m%dT%H%M%S%.fZ"));
    let aside = beside(database, &name);
    fs::hard_link(database, &aside).map_err(FileError::of("make", &aside))?;
    // One that stayed would be taken for the new database's own.
    for suffix in ["-wal", "-journal"] {
        let (log, aside) = (beside(database, suffix), beside(&aside, suffix));
        if log.exists() {
            fs::rename(&log, &aside).map_err(FileError::of("make", &aside))?;
        }
    }
    files::remove(&beside(database, "-shm"))?;
    files::sync(&directory_of(database))?;
    Ok(Some(aside))
}

/// Brings what stands in the WAL into the database; the last connection removes it.
async fn fold_wal(url: &str) -> Result<(), BackupError> {
    let mut connection = connect_options(url)?
        .create_if_missing(false)
        .connect()
        .await?;
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(&mut connection)
        .await?;
    connection.close().await?;
    Ok(())
}

/// A file that nobody changes.
async fn open_copy(file: &Path) -> Result<SqliteConnection, BackupError> {
    let missing = fs::metadata(file).err();
    if let Some(source) = missing {
        return Err(FileError::of("read", file)(source).into());
    }
    SqliteConnectOptions::new()
        .filename(file)
        .immutable(true)
        .read_only(true)
        .connect()
        .await
        .map_err(|error| not_whole(error, file))
}

async fn require_whole(
    connection: &mut SqliteConnection,
    file: &Path,
    depth: Depth,
) -> Result<(), BackupError> {
    let findings = check(connection, depth)
        .await
        .map_err(|error| not_whole(error, file))?;
    if findings.is_empty() {
        return Ok(());
    }
    Err(BackupError::Unusable {
        path: file.to_owned(),
        why: open::first(&findings),
    })
}

fn not_whole(error: sqlx::Error, file: &Path) -> BackupError {
    match super::integrity::damage(&error) {
        Some(why) => BackupError::Unusable {
            path: file.to_owned(),
            why,
        },
        None => BackupError::Database(error),
    }
}
