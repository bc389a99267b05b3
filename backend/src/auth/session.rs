//! Signed-in people: the session behind a page's cookie.

use std::net::IpAddr;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use isopath_api::access::Role;
use jiff::{SignedDuration, Timestamp};
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::By;
use super::secret::{hex, random, sha256_hex};
use crate::error::Error;
use crate::store::Store;
use crate::store::audit::{self, Entry};
use crate::store::sessions::{self, NewSession};

/// The cookie's name over plain HTTP, which is for loopback.
pub const COOKIE: &str = "isopath_session";

/// The cookie's name with TLS. Browsers take a `__Host-` cookie from this very host over TLS
/// alone, so no other host of the domain can plant one.
pub const TLS_COOKIE: &str = "__Host-isopath_session";

fn cookie_name(is_tls: bool) -> &'static str {
    if is_tls { TLS_COOKIE } else { COOKIE }
}

const IDLE: SignedDuration = SignedDuration::from_mins(30);
const ABSOLUTE: SignedDuration = SignedDuration::from_hours(12);

/// How stale the time of last use may be: spares a commit for each request.
const TOUCH_EVERY: SignedDuration = SignedDuration::from_mins(1);

/// Someone who is signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Their name.
    pub user: String,
    /// What they may do.
    pub role: Role,
    csrf_token: String,
}

impl Session {
    /// The session of `user` behind a cookie.
    pub(crate) fn new(user: String, role: Role, secret: &SessionSecret) -> Self {
        Self {
            user,
            role,
            csrf_token: sha256_hex(&[b"csrf", secret.0.as_bytes()]),
        }
    }

    /// What every form of a page carries in a hidden field, for [`crate::app::App::check_form`].
    pub fn csrf_token(&self) -> &str {
        &self.csrf_token
    }

    /// Whether pages offer them to change anything.
    pub fn may_operate(&self) -> bool {
        self.role >= Role::Operator
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
    pub fn from_headers(headers: &HeaderMap, is_tls: bool) -> Option<Self> {
        let wanted = cookie_name(is_tls);
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| Self(value.to_owned()))
    }

    pub(super) fn hash(&self) -> String {
        sha256_hex(&[b"session", self.0.as_bytes()])
    }

    fn set_cookie(&self, is_tls: bool) -> HeaderValue {
        let age = Duration::try_from(ABSOLUTE).map_or(0, |age| age.as_secs());
        cookie(&self.0, age, is_tls)
    }
}

/// Starts a session of `user` in the transaction that their sign-in or new password is: the
/// value of `Set-Cookie`.
pub(crate) async fn start(
    connection: &mut SqliteConnection,
    user: &str,
    (peer, is_tls): (IpAddr, bool),
    now: Timestamp,
) -> Result<HeaderValue, sqlx::Error> {
    let secret = SessionSecret::generate();
    sessions::delete_old(connection, before(now, ABSOLUTE), before(now, IDLE)).await?;
    let session = NewSession {
        id: &Uuid::now_v7().to_string(),
        hash: &secret.hash(),
        user,
        peer: &peer.to_string(),
    };
    sessions::insert(connection, session, now).await?;
    Ok(secret.set_cookie(is_tls))
}

/// The session of a request; nothing when it is unknown or too old.
pub(crate) async fn find(
    store: &Store,
    headers: &HeaderMap,
    is_tls: bool,
    now: Timestamp,
) -> Result<Option<Session>, Error> {
    let Some(secret) = SessionSecret::from_headers(headers, is_tls) else {
        return Ok(None);
    };
    let hash = secret.hash();
    let mut reader = store.read().await?;
    let Some(row) = sessions::find(&mut reader, &hash).await? else {
        return Ok(None);
    };
    drop(reader);
    let idle = now.duration_since(row.seen);
    if row.disabled || idle > IDLE || now.duration_since(row.made) > ABSOLUTE {
        return Ok(None);
    }
    if idle > TOUCH_EVERY {
        match touch(store, &hash, now).await {
            // Whoever is signed in still reads; the session may end early for it.
            Ok(()) | Err(Error::ReadOnly(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(Session::new(row.user, row.role, &secret)))
}

async fn touch(store: &Store, hash: &str, now: Timestamp) -> Result<(), Error> {
    let mut transaction = store.begin().await?;
    sessions::touch(&mut transaction, hash, now).await?;
    transaction.commit().await?;
    Ok(())
}

/// Ends the session of a request: the value of `Set-Cookie` that makes the browser forget it.
pub(crate) async fn end(
    store: &Store,
    headers: &HeaderMap,
    is_tls: bool,
    by: &By,
    now: Timestamp,
) -> Result<HeaderValue, Error> {
    if let Some(secret) = SessionSecret::from_headers(headers, is_tls) {
        let mut transaction = store.begin().await?;
        if let Some(user) = sessions::delete(&mut transaction, &secret.hash()).await? {
            let object = format!("user {user}");
            let entry = Entry::done("session.end", &object, "");
            audit::insert(&mut transaction, by, entry, now).await?;
        }
        transaction.commit().await?;
    }
    Ok(cookie("", 0, is_tls))
}

fn cookie(value: &str, max_age_s: u64, is_tls: bool) -> HeaderValue {
    let name = cookie_name(is_tls);
    let secure = if is_tls { "; Secure" } else { "" };
    let text =
        format!("{name}={value}; Path=/; Max-Age={max_age_s}{secure}; HttpOnly; SameSite=Strict");
    HeaderValue::from_str(&text).expect("hexadecimal and attributes are visible ASCII")
}

fn before(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.checked_sub(by).unwrap_or(Timestamp::UNIX_EPOCH)
}
