//! The server's files: made for it alone, replaced whole, and its own where root makes them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

/// A file that cannot be made, read or moved.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}", path.display())]
pub struct FileError {
    /// What was tried.
    pub what: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

impl FileError {
    /// What an error of the system makes of trying to `what` a file.
    pub(crate) fn of(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { what, path, source }
    }
}

/// A file beside another: SQLite's `-wal` and `-shm`, and our own.
pub(crate) fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub(crate) fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

/// Whether two names lead to one file, be it still to be made.
pub(crate) fn is_same(one: &Path, other: &Path) -> bool {
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

/// Opens a file to append to it, making it as [`make_new`] where there is none.
pub(crate) fn open_or_make(path: &Path, like: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().append(true).open(path);
    match open() {
        Err(error) if error.kind() == ErrorKind::NotFound => match make_new(path, like) {
            // Somebody else has made it meanwhile. Where a link leads nothing is made.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && !path.is_symlink() => open(),
            made => made,
        },
        found => found,
    }
}

/// Makes a file that is not there: for its owner alone, who is that of `like`, or of its directory
/// where there is no such file. A link of that name is not followed: the server's user may have
/// put it there for root to follow.
pub(crate) fn make_new(path: &Path, like: &Path) -> io::Result<File> {
    let owner = match like.exists() {
        true => fs::metadata(like)?,
        false => fs::metadata(directory_of(path))?,
    };
    let file = OpenOptions::new()
        .create_new(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    hand_over(&file, &owner)?;
    Ok(file)
}

/// Makes a directory and those above it, each for its owner alone, who is that of the one above.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = directory_of(path);
    make_directory(&above)?;
    DirBuilder::new().mode(0o700).create(path)?;
    hand_over(&File::open(path)?, &fs::metadata(above)?)
}

/// Gives what root has made to somebody: the server that is to use it runs as somebody else.
fn hand_over(made: &File, owner: &fs::Metadata) -> io::Result<()> {
    let found = made.metadata()?;
    let is_theirs = (found.uid(), found.gid()) == (owner.uid(), owner.gid());
    if is_theirs || !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    fchown(made, Some(owner.uid()), Some(owner.gid()))
}

/// Replaces a file that only its owner may read: after a crash at any moment it holds either the
/// old or the new content.
///
/// # Errors
/// It cannot be written or replaced; the old content is there then.
pub(crate) fn replace_private(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let temporary = beside(path, ".new");
    // One that a crash left may have other permissions.
    remove(&temporary)?;
    let mut file = make_new(&temporary, path).map_err(FileError::of("make", &temporary))?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(FileError::of("write", &temporary))?;
    fs::rename(&temporary, path).map_err(FileError::of("replace", path))?;
    sync(&directory_of(path))
}

/// Removes a file, which need not be there.
///
/// # Errors
/// It cannot be removed.
pub(crate) fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(FileError::of("remove", path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Waits until a file or a directory is on the disk.
///
/// # Errors
/// It cannot be opened or written.
pub(crate) fn sync(path: &Path) -> Result<(), FileError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(FileError::of("write", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_name_alone_is_in_the_directory_where_one_is() {
        assert_eq!(directory_of(Path::new("isopath.db")), Path::new("."));
        assert_eq!(directory_of(Path::new("/isopath.db")), Path::new("/"));
    }

    #[test]
    fn a_private_file_is_replaced_whatever_was_left() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("key");
        fs::write(beside(&path, ".new"), "left by a crash").unwrap();
        for content in ["one", "two"] {
            replace_private(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_root_makes_is_the_owner_s_of_the_directory() {
        const OWNER: u32 = 65534;
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: what_root_makes: giving a file away needs root");
            return;
        }
        let directory = TempDir::new().unwrap();
        chown(directory.path(), Some(OWNER), Some(OWNER)).unwrap();
        let (tls, key) = (directory.path().join("a/tls"), "a/tls/ca.key");
        make_directory(&tls).unwrap();
        replace_private(&tls.join("ca.key"), b"key").unwrap();
        for name in ["a", "a/tls", key] {
            let is = directory.path().join(name).metadata().unwrap();
            assert_eq!((is.uid(), is.gid()), (OWNER, OWNER), "{name}");
        }
        chown(tls.join("ca.key"), Some(OWNER - 1), Some(OWNER - 1)).unwrap();
        replace_private(&tls.join("ca.key"), b"another").unwrap();
        let is = tls.join("ca.key").metadata().unwrap();
        assert_eq!(is.uid(), OWNER - 1, "as the one before");
    }
}
