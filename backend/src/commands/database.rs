//! Commands for the database itself: copies, putting one in place, and the check.

use std::path::Path;

use jiff::Timestamp;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use crate::store::backup::{self, BackupError};
use crate::store::integrity::{self, Depth};
use crate::store::{OpenError, options_of};

/// A check that did not find a database that is whole.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The URL is none.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The database.
        path: String,
        /// Why.
        source: sqlx::Error,
    },
    /// It is damaged.
    #[error("{path} is damaged:\n{}", findings.join("\n"))]
    Damaged {
        /// The database.
        path: String,
        /// Everything that is wrong with it.
        findings: Vec<String>,
    },
}

/// `isopathd backup`: what to tell.
///
/// # Errors
/// All of [`backup::BackupError`].
pub async fn backup(database: &str, file: &Path, force: bool) -> Result<String, BackupError> {
    let made = backup::backup(database, file, force).await?;
    Ok(format!("{}: {} bytes", file.display(), made.bytes))
}

/// `isopathd restore`: what to tell.
///
/// # Errors
/// All of [`backup::BackupError`].
pub async fn restore(database: &str, file: &Path) -> Result<String, BackupError> {
    let restored = backup::restore(database, file, Timestamp::now()).await?;
    let aside = restored.aside.map_or_else(String::new, |aside| {
        format!("; the database that was there is {}", aside.display())
    });
    Ok(format!(
        "{} is in force, in the new epoch {}{aside}. Everybody has to sign in again; users, \
         tokens and agents are those of the backup: revoke again what was revoked since.",
        file.display(),
        restored.epoch
    ))
}

/// `isopathd check`: what to tell.
///
/// # Errors
/// [`CheckError::Damaged`] with everything that is wrong, and when it cannot be read.
pub async fn check(database: &str) -> Result<String, CheckError> {
    let options = options_of(database)?;
    let path = options.get_filename().display().to_string();
    match findings(options.create_if_missing(false).read_only(true)).await {
        Ok(findings) if findings.is_empty() => Ok(format!("{path} is whole")),
        Ok(findings) => Err(CheckError::Damaged { path, findings }),
        Err(source) => match integrity::damage(&source) {
            Some(finding) => Err(CheckError::Damaged {
                path,
                findings: vec![finding],
            }),
            None => Err(CheckError::Read { path, source }),
        },
    }
}

async fn findings(options: SqliteConnectOptions) -> Result<Vec<String>, sqlx::Error> {
    let mut connection = options.connect().await?;
    integrity::check(&mut connection, Depth::Full).await
}
