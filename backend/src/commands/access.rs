//! `isopathd user` and `isopathd token`: who may use the controller, told on its own machine.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use isopath_api::access::{Role, is_name};
use jiff::Timestamp;

use super::CommandError;
use crate::auth::{By, TokenKind, generate_password, hash_password, new_token, token_hash};
use crate::files::{self, FileError};
use crate::store::audit::{self, Entry};
use crate::store::tokens::{Scope, TokenRow};
use crate::store::{Store, tokens, users};

/// Makes the user `admin` where there is no user, and hands its password over: into a new file
/// of its owner's alone where one is named, else to `out`.
pub(super) async fn first_user(
    store: &Store,
    file: Option<&Path>,
    mut out: impl Write,
) -> Result<(), CommandError> {
    // Whoever is in the database that cannot be written to may sign in; nobody is made.
    if store.read_only().is_some() {
        return Ok(());
    }
    let mut reader = store.read().await?;
    if users::any(&mut reader).await? {
        return Ok(());
    }
    drop(reader);
    let password = generate_password();
    if let Some(path) = file {
        // Before there is a user: one whose password nobody can read is of no use.
        write_password(path, &password)?;
    }
    insert_user(store, "admin", Role::Admin, &password, &By::controller()).await?;
    let greeting = match file {
        Some(path) => format!(
            "Made the first user. Sign in as admin with the password in {}; delete the file then\n",
            path.display()
        ),
        None => format!(
            "Made the first user. Sign in as admin with this password, shown only now: {password}\n"
        ),
    };
    // Who has closed the output cannot read it; `user create` makes another user.
    if let Err(error) = out
        .write_all(greeting.as_bytes())
        .and_then(|()| out.flush())
    {
        tracing::warn!(%error, "cannot show the first user's password");
    }
    Ok(())
}

/// Writes the first user's password into a file that is not there yet, or that has the password of
/// a start which was cut off before it made the user. Any other file stays as it is.
///
/// The user outlasts a power failure from the commit on, and so has the password to.
fn write_password(path: &Path, password: &str) -> Result<(), FileError> {
    require_free(path).map_err(FileError::of("make", path))?;
    files::replace_private(path, format!("{password}\n").as_bytes())
}

fn require_free(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() && is_password(&fs::read(path)?) => Ok(()),
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether this is what [`write_password`] writes.
fn is_password(text: &[u8]) -> bool {
    let line = text.strip_suffix(b"\n").unwrap_or_default();
    line.len() == generate_password().len()
        && line
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// `isopathd user create`: the password, where it was generated here.
///
/// # Errors
/// When the name is taken or the password is not one that is taken.
pub async fn create_user(
    database: &str,
    name: &str,
    role: Role,
    password_file: Option<&Path>,
) -> Result<Option<String>, CommandError> {
    check_name(name)?;
    let (password, generated) = match password_file {
        Some(path) => (read_password(path)?, false),
        None => (generate_password(), true),
    };
    let store = Store::open(database).await?;
    let made = insert_user(&store, name, role, &password, &By::command()).await;
    store.close().await;
    made?;
    Ok(generated.then_some(password))
}

async fn insert_user(
    store: &Store,
    name: &str,
    role: Role,
    password: &str,
    by: &By,
) -> Result<(), CommandError> {
    let hash = hash_password(password)?;
    let now = Timestamp::now();
    let mut transaction = store.begin().await?;
    if !users::insert(&mut transaction, name, role, &hash, now).await? {
        return Err(CommandError::Exists {
            what: "user",
            name: name.to_owned(),
        });
    }
    let (object, detail) = (format!("user {name}"), format!("role {role}"));
    let entry = Entry::done("user.create", &object, &detail);
    audit::insert(&mut transaction, by, entry, now).await?;
    transaction.commit().await?;
    Ok(())
}

/// `isopathd token create`: the token.
///
/// # Errors
/// When the name is taken.
pub async fn create_token(
    database: &str,
    name: &str,
    scope: Scope,
    expires: Option<Duration>,
) -> Result<String, CommandError> {
    check_name(name)?;
    let token = new_token(match scope {
        Scope::User { .. } => TokenKind::User,
        Scope::Agent { .. } => TokenKind::Agent,
    });
    let (by, now) = (By::command(), Timestamp::now());
    let mut row = TokenRow::new(name, scope, &by.name, now);
    row.expires = expires
        .map(|after| now.checked_add(after))
        .transpose()
        .map_err(|_| CommandError::Expires)?;
    let store = Store::open(database).await?;
    let made = insert_token(&store, &token, &row, &by).await;
    store.close().await;
    made.map(|()| token)
}

async fn insert_token(
    store: &Store,
    token: &str,
    row: &TokenRow,
    by: &By,
) -> Result<(), CommandError> {
    let mut transaction = store.begin().await?;
    if !tokens::insert(&mut transaction, &token_hash(token), row).await? {
        return Err(CommandError::Exists {
            what: "token",
            name: row.name.clone(),
        });
    }
    let (object, detail) = (format!("token {}", row.name), row.scope.to_string());
    let entry = Entry::done("token.create", &object, &detail);
    audit::insert(&mut transaction, by, entry, row.made).await?;
    transaction.commit().await?;
    Ok(())
}

fn check_name(name: &str) -> Result<(), CommandError> {
    // Whoever has another name could not be changed, nor a token revoked, by the API.
    if is_name(name) {
        Ok(())
    } else {
        Err(CommandError::Name {
            found: name.to_owned(),
        })
    }
}

/// The first line of a file.
fn read_password(path: &Path) -> Result<String, CommandError> {
    let text = std::fs::read_to_string(path).map_err(|source| CommandError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
