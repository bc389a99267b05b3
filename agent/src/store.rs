//! Small JSON files in the state directory, replaced as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use uuid::Uuid;

/// A file of the state directory that cannot be read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// The operation.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The content is not what this agent wrote.
    #[error("{} is damaged; move it away to start without it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and how.
        source: serde_json::Error,
    },
}

impl StoreError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// Makes a directory and its parents.
///
/// # Errors
/// It cannot be made.
pub fn make_directory(path: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(path).map_err(StoreError::io("make the directory", path))
}

/// Reads a file; nothing where there is none.
///
/// # Errors
/// It cannot be read, or is damaged.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| StoreError::Damaged {
            path: path.to_owned(),
            source,
        })
}

/// Replaces a file: after a crash at any moment it holds either the old or the new content,
/// and once this returns it is the new one.
///
/// # Errors
/// It cannot be written; the old content stands then.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(value).map_err(|source| StoreError::Damaged {
        path: path.to_owned(),
        source,
    })?;
    write(path, &bytes)
}

/// The same on a thread that may wait for the disk.
///
/// # Errors
/// As [`write_json`].
pub async fn write_json_apart<T>(path: PathBuf, value: Arc<T>) -> Result<(), StoreError>
where
    T: Serialize + Send + Sync + 'static,
{
    let at = path.clone();
    let written = tokio::task::spawn_blocking(move || write_json(&path, &*value)).await;
    written.unwrap_or_else(|error| Err(StoreError::io("write", &at)(io::Error::other(error))))
}

/// The same for what nobody but the owner may read.
///
/// # Errors
/// As [`write_json`].
pub fn write_private_json(path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(value).map_err(|source| StoreError::Damaged {
        path: path.to_owned(),
        source,
    })?;
    write_as(path, &bytes, 0o600)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    write_as(path, bytes, 0o666)
}

fn write_as(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let temporary = path.with_extension("new");
    // One that a crash left may have another mode.
    remove(&temporary)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .map_err(StoreError::io("create", &temporary))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(StoreError::io("write", &temporary))?;
    fs::rename(&temporary, path).map_err(StoreError::io("replace", path))?;
    // The rename itself is only durable once its directory is.
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(StoreError::io("sync", directory))
}

/// Removes a file, which need not be there.
///
/// # Errors
/// It cannot be removed.
pub fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The identity that is made once and kept in the state directory: it tells two directors apart
/// that were given one name.
///
/// # Errors
/// It can neither be read nor made.
pub fn instance(state_dir: &Path) -> Result<String, StoreError> {
    let path = state_dir.join("instance");
    match fs::read_to_string(&path) {
        Ok(text) if Uuid::parse_str(text.trim()).is_ok() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(StoreError::io("read", &path)(error)),
    }
    let instance = Uuid::new_v4().to_string();
    write(&path, format!("{instance}\n").as_bytes())?;
    Ok(instance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::tempdir;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_leaves_no_temporary_behind() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("desired.json");
        assert_eq!(read_json::<Vec<u8>>(&path).unwrap(), None);
        write_json(&path, &vec![1, 2, 3]).unwrap();
        write_json(&path, &vec![4]).unwrap();
        assert_eq!(read_json::<Vec<u8>>(&path).unwrap(), Some(vec![4]));
        let names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["desired.json"]);
    }

    #[test]
    fn the_instance_is_made_once_and_again_only_when_its_file_is_unusable() {
        let dir = tempdir().unwrap();
        let first = instance(dir.path()).unwrap();
        assert_eq!(instance(dir.path()).unwrap(), first);
        fs::write(dir.path().join("instance"), "").unwrap();
        let second = instance(dir.path()).unwrap();
        assert_ne!(
            second, first,
            "an emptied file must not give the same identity"
        );
        assert!(Uuid::parse_str(&second).is_ok(), "{second:?} is not a UUID");
    }
}
