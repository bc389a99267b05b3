//! Signed-in people: the session behind a page's cookie.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use jiff::{SignedDuration, Timestamp};

use super::secret::{hex, random, sha256_hex};
use crate::error::Error;
use crate::store::{Store, sessions};

/// The cookie's name. With TLS it will be `__Host-` before it, which browsers refuse over
/// plain HTTP.
pub const COOKIE: &str = "isopath_session";

const IDLE: SignedDuration = SignedDuration::from_mins(30);
const ABSOLUTE: SignedDuration = SignedDuration::from_hours(12);

/// How stale the time of last use may be: spares a commit for each request.
const TOUCH_EVERY: SignedDuration = SignedDuration::from_mins(1);

/// Someone who is signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Their name.
    pub user: String,
    csrf_token: String,
}

impl Session {
    /// The session of `user` behind a cookie.
    pub(crate) fn new(user: String, secret: &SessionSecret) -> Self {
        Self {
            user,
            csrf_token: sha256_hex(&[b"csrf", secret.0.as_bytes()]),
        }
    }

    /// What every form of a page carries in a hidden field, for [`crate::app::App::check_form`].
    pub fn csrf_token(&self) -> &str {
        &self.csrf_token
    }
}

/// The cookie's value: 256 random bits, of which only a hash is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionSecret(String);

impl std::fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionSecret(…)")
    }
}

impl SessionSecret {
    /// A fresh one.
    pub fn generate() -> Self {
        Self(hex(&random::<32>()))
    }

    /// The one that the request's cookie carries.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(name, _)| *name == COOKIE)
            .map(|(_, value)| Self(value.to_owned()))
    }

    fn hash(&self) -> String {
        sha256_hex(&[b"session", self.0.as_bytes()])
    }

    fn set_cookie(&self) -> HeaderValue {
        let age = Duration::try_from(ABSOLUTE).map_or(0, |age| age.as_secs());
        cookie(&self.0, age)
    }
}

/// Starts a session: the value of `Set-Cookie`.
pub(super) async fn start(store: &Store, user: &str, now: Timestamp) -> Result<HeaderValue, Error> {
    let secret = SessionSecret::generate();
    let mut transaction = store.begin().await?;
    sessions::delete_old(&mut transaction, before(now, ABSOLUTE), before(now, IDLE)).await?;
    sessions::insert(&mut transaction, &secret.hash(), user, now).await?;
    transaction.commit().await?;
    Ok(secret.set_cookie())
}

/// The session of a request; nothing when it is unknown or too old.
pub(crate) async fn find(
    store: &Store,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<Option<Session>, Error> {
    let Some(secret) = SessionSecret::from_headers(headers) else {
        return Ok(None);
    };
    let hash = secret.hash();
    let mut reader = store.read().await?;
    let Some(row) = sessions::find(&mut reader, &hash).await? else {
        return Ok(None);
    };
    drop(reader);
    let idle = now.duration_since(row.seen);
    if idle > IDLE || now.duration_since(row.made) > ABSOLUTE {
        return Ok(None);
    }
    if idle > TOUCH_EVERY {
        let mut transaction = store.begin().await?;
        sessions::touch(&mut transaction, &hash, now).await?;
        transaction.commit().await?;
    }
    Ok(Some(Session::new(row.user, &secret)))
}

/// Ends the session of a request: the value of `Set-Cookie` that makes the browser forget it.
pub(crate) async fn end(store: &Store, headers: &HeaderMap) -> Result<HeaderValue, Error> {
    if let Some(secret) = SessionSecret::from_headers(headers) {
        let mut transaction = store.begin().await?;
        sessions::delete(&mut transaction, &secret.hash()).await?;
        transaction.commit().await?;
    }
    Ok(cookie("", 0))
}

fn cookie(value: &str, max_age_s: u64) -> HeaderValue {
    let text = format!("{COOKIE}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Strict");
    HeaderValue::from_str(&text).expect("hexadecimal and attributes are visible ASCII")
}

fn before(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.checked_sub(by).unwrap_or(Timestamp::UNIX_EPOCH)
}
