//! Signing in.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use tokio::sync::Semaphore;

use super::password::verify_password;
use super::rate::Buckets;
use super::{check_origin, session};
use crate::clock::Moment;
use crate::error::Error;
use crate::store::{Store, users};

/// Password checks at a time: each takes 19 MiB and a core.
const CHECKS_AT_ONCE: usize = 2;

/// The longest name that is looked up, in bytes: bounds what the buckets remember.
const LONGEST_NAME: usize = 64;

/// Checks passwords, at a bounded rate.
#[derive(Debug)]
pub struct Login {
    checks: Arc<Semaphore>,
    by_user: Mutex<Buckets<String>>,
    by_peer: Mutex<Buckets<IpAddr>>,
}

impl Default for Login {
    fn default() -> Self {
        Self {
            checks: Arc::new(Semaphore::new(CHECKS_AT_ONCE)),
            by_user: Mutex::new(Buckets::new(5, Duration::from_secs(60))),
            by_peer: Mutex::new(Buckets::new(20, Duration::from_secs(3))),
        }
    }
}

impl Login {
    /// Signs someone in: the value of `Set-Cookie`.
    pub(crate) async fn login(
        &self,
        store: &Store,
        now: Moment,
        request: (&HeaderMap, IpAddr),
        credentials: (&str, &str),
    ) -> Result<HeaderValue, Error> {
        let (headers, peer) = request;
        let (user, password) = credentials;
        check_origin(headers)?;
        take(&self.by_peer, &peer, now)?;
        if user.len() > LONGEST_NAME {
            return Err(wrong());
        }
        take(&self.by_user, &user.to_owned(), now)?;
        let mut reader = store.read().await?;
        let hash = users::password_hash(&mut reader, user).await?;
        drop(reader);
        if !self.verify(password.to_owned(), hash).await? {
            tracing::warn!(%peer, user, "sign-in refused");
            return Err(wrong());
        }
        lock(&self.by_user).reset(&user.to_owned());
        tracing::info!(%peer, user, "signed in");
        session::start(store, user, now.wall).await
    }

    async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, Error> {
        let checks = Arc::clone(&self.checks);
        let permit = checks.try_acquire_owned().map_err(|_| Error::Busy)?;
        let check = move || {
            let matches = verify_password(&password, hash.as_deref());
            // Held until here and not by the request, which may be dropped before.
            drop(permit);
            matches
        };
        tokio::task::spawn_blocking(check)
            .await
            .map_err(|error| Error::Internal {
                what: format!("cannot check a password: {error}"),
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
