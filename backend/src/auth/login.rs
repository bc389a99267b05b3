//! Passwords at a bounded rate: signing in, and setting a new one.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use isopath_api::access::LONGEST_NAME;
use isopath_api::fault::Fault;
use tokio::sync::Semaphore;

use super::password::{is_outdated, verify_password};
use super::rate::{Buckets, counted_as};
use super::{By, PasswordError, SessionSecret, Via, check_origin, hash_password, session};
use crate::asked;
use crate::clock::Moment;
use crate::error::Error;
use crate::store::audit::{self, Entry};
use crate::store::{Store, sessions, users};

/// Passwords hashed at a time: each takes 19 MiB and a core.
const HASHES_AT_ONCE: usize = 2;

/// Tries of one account at once, and how often one more.
const BY_USER: (u32, Duration) = (5, Duration::from_secs(60));

/// Checks and hashes passwords.
#[derive(Debug)]
pub struct Login {
    hashes: Arc<Semaphore>,
    by_user: Mutex<Buckets<String>>,
    by_peer: Mutex<Buckets<IpAddr>>,
}

/// A request to sign in, but for the name and the password.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignIn<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) peer: IpAddr,
    pub(crate) is_tls: bool,
}

/// Somebody whose password was checked.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) user: &'a str,
    /// What was stored of the password when it was checked.
    pub(crate) hash: &'a str,
}

impl Login {
    /// Lets an address try `per_minute` times a minute.
    pub(crate) fn new(per_minute: u32) -> Self {
        let every = Duration::from_secs(60) / per_minute.max(1);
        Self {
            hashes: Arc::new(Semaphore::new(HASHES_AT_ONCE)),
            by_user: Mutex::new(Buckets::new(BY_USER.0, BY_USER.1)),
            by_peer: Mutex::new(Buckets::new(per_minute, every)),
        }
    }

    /// Signs someone in: the value of `Set-Cookie`. Whatever session the browser had ends.
    pub(crate) async fn login(
        &self,
        store: &Store,
        now: Moment,
        from: SignIn<'_>,
        (user, password): (&str, &str),
    ) -> Result<HeaderValue, Error> {
        check_origin(from.headers)?;
        take(&self.by_peer, &counted_as(from.peer), now)?;
        let hash = self.check(store, now, user, password).await?;
        // Parameters of another time are replaced while the password is at hand.
        let fresh = match is_outdated(&hash) {
            true => self.hash(password.to_owned()).await.ok(),
            false => None,
        };
        let known = Known { user, hash: &hash };
        self.begin(store, now, from, (known, fresh)).await
    }

    /// Starts the session of somebody whose password was checked, unless that is another one by
    /// now: an admin who sets a new one while it is checked has ended all sessions.
    pub(crate) async fn begin(
        &self,
        store: &Store,
        now: Moment,
        from: SignIn<'_>,
        (Known { user, hash }, fresh): (Known<'_>, Option<String>),
    ) -> Result<HeaderValue, Error> {
        let by = By {
            name: user.to_owned(),
            via: Via::Session,
            peer: Some(from.peer),
            request_id: asked::request_id(),
        };
        let object = format!("user {user}");
        let mut transaction = store.begin().await?;
        if !users::has_password(&mut transaction, user, hash).await? {
            return Err(Error::Busy);
        }
        if let Some(before) = SessionSecret::from_headers(from.headers, from.is_tls) {
            sessions::delete(&mut transaction, &before.hash()).await?;
        }
        if let Some(fresh) = fresh {
            users::set_password(&mut transaction, user, &fresh).await?;
        }
        let to = (from.peer, from.is_tls);
        let cookie = session::start(&mut transaction, user, to, now.wall).await?;
        let entry = Entry::done("session.start", &object, "");
        audit::insert(&mut transaction, &by, entry, now.wall).await?;
        transaction.commit().await?;
        tracing::info!(peer = %from.peer, user, "signed in");
        Ok(cookie)
    }

    /// Checks someone's password: what is stored of it. Says nothing of whether the name or the
    /// password was wrong, and takes as long for either.
    pub(crate) async fn check(
        &self,
        store: &Store,
        now: Moment,
        user: &str,
        password: &str,
    ) -> Result<String, Error> {
        if user.len() > LONGEST_NAME {
            return Err(wrong());
        }
        take(&self.by_user, &user.to_owned(), now)?;
        let mut reader = store.read().await?;
        let hash = users::password_hash(&mut reader, user).await?;
        let found = users::find(&mut reader, user).await?;
        drop(reader);
        let (password, stored) = (password.to_owned(), hash.clone());
        let matches = self
            .in_turn(move || verify_password(&password, stored.as_deref()))
            .await?;
        match (matches, hash, found) {
            (true, Some(hash), Some(found)) if !found.disabled => {
                lock(&self.by_user).reset(&user.to_owned());
                Ok(hash)
            }
            (_, _, found) => {
                // People type passwords into the field of the name: only a known one is said.
                let known = found.map(|found| found.name);
                tracing::warn!(user = known, "a password is refused");
                Err(wrong())
            }
        }
    }

    /// What is stored of a new password.
    pub(crate) async fn hash(&self, password: String) -> Result<String, Error> {
        self.in_turn(move || hash_password(&password))
            .await?
            .map_err(|error| match error {
                PasswordError::Length { found } => Error::Invalid {
                    faults: vec![Fault::new(
                        "/password",
                        "12 to 256 characters",
                        format_args!("{found} characters"),
                    )],
                },
                PasswordError::Hash => Error::Internal {
                    what: "cannot hash a password".to_owned(),
                },
            })
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let hashes = Arc::clone(&self.hashes);
        let permit = hashes.try_acquire_owned().map_err(|_| Error::Busy)?;
        let work = move || {
            let done = work();
            // Held until here and not by the request, which may be dropped before.
            drop(permit);
            done
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Error::Internal {
                what: format!("cannot hash a password: {error}"),
            })
    }
}

fn wrong() -> Error {
    Error::Unauthenticated {
        detail: "the name or the password is wrong".to_owned(),
    }
}

fn take<K: Eq + std::hash::Hash + Clone>(
    buckets: &Mutex<Buckets<K>>,
    key: &K,
    now: Moment,
) -> Result<(), Error> {
    lock(buckets)
        .take(key, now.instant)
        .map_err(|wait| Error::TooMany {
            retry_after_s: wait.as_secs() + 1,
        })
}

/// The lock is never held over an await, and a panic leaves nothing half done behind it.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
