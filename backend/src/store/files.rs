//! The database's files: where they are, and whose.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

/// A file beside the database: SQLite's `-wal` and `-shm`, and our own.
pub(super) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub(super) fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

/// Whether two names lead to one file, be it still to be made.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    match (resolved(one), resolved(other)) {
        (Some(one), Some(other)) => one == other,
        // What is in a directory that cannot be seen cannot be made or replaced either.
        (None, _) | (_, None) => false,
    }
}

fn resolved(file: &Path) -> Option<PathBuf> {
    fs::canonicalize(file).ok().or_else(|| {
        let directory = fs::canonicalize(directory_of(file)).ok()?;
        Some(directory.join(file.file_name()?))
    })
}

/// Opens a file of the database's, making it where there is none, to append to it.
pub(super) fn open_or_make(path: &Path, database: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().append(true).open(path);
    match open() {
        Err(error) if error.kind() == ErrorKind::NotFound => match make_new(path, database) {
            // Somebody else has made it meanwhile. Where a link leads nothing is made.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && !path.is_symlink() => open(),
            made => made,
        },
        found => found,
    }
}

/// Makes a file that is not there: for its owner alone, who is the database's. A link of that name
/// is not followed: the server's user may have put it there for root to follow.
pub(super) fn make_new(path: &Path, database: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .create_new(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    hand_over(&file, path, database)?;
    Ok(file)
}

/// Gives a file that root has made to the owner of the database, or of its directory where there
/// is none yet: the server that is to use it runs as somebody else.
fn hand_over(file: &File, path: &Path, database: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = match database != path && database.exists() {
        true => fs::metadata(database)?,
        false => fs::metadata(directory_of(database))?,
    };
    let found = file.metadata()?;
    if (found.uid(), found.gid()) == (owner.uid(), owner.gid()) {
        return Ok(());
    }
    fchown(file, Some(owner.uid()), Some(owner.gid()))
}
