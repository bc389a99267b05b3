//! Requests that may be sent again: `Idempotency-Key`.
//!
//! A handler has the key from [`super::body::JsonBody::key`]. [`replay`] answers what was answered
//! before; otherwise the key goes with the command to the task that owns the state, which calls
//! [`remember`] in the transaction of the change. Of two that arrive at the same moment the second
//! is refused there and finds the answer when it is sent once more. A refusal is never stored:
//! what is sent again after it is looked at anew.

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;
use sqlx::SqliteConnection;

use crate::app::App;
use crate::auth::sha256_hex;
use crate::error::Error;
use crate::store::idempotency::{self, Key, Stored};

/// The header with the caller's name for the request.
pub(crate) const HEADER: &str = "idempotency-key";

/// Says that an answer is the one of before.
const REPLAYED: &str = "idempotency-replayed";

/// The longest key, in characters.
const LONGEST: usize = 64;

/// The key of a request; nothing where it carries none.
///
/// # Errors
/// [`Error::BadRequest`] for a key of another form.
pub(super) fn key(
    actor: &str,
    (method, uri, headers): (&Method, &Uri, &HeaderMap),
    body: &[u8],
) -> Result<Option<Key>, Error> {
    let Some(value) = headers.get(HEADER) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let is_visible = |byte: u8| byte.is_ascii_graphic();
    if text.is_empty() || text.len() > LONGEST || !text.bytes().all(is_visible) {
        return Err(Error::BadRequest {
            detail: format!(
                "header {HEADER}: expected 1 to {LONGEST} visible ASCII characters, found {value:?}"
            ),
        });
    }
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    Ok(Some(Key {
        actor: actor.to_owned(),
        key: text.to_owned(),
        request: sha256_hex(&[
            method.as_str().as_bytes(),
            b" ",
            target.as_bytes(),
            b"\n",
            body,
        ]),
    }))
}

/// The answer that was given to the same request before.
///
/// # Errors
/// [`Error::KeyReused`] where the key was another request's, and [`Error::Conflict`] where the
/// answer held a secret.
pub(super) async fn replay(app: &App, key: Option<&Key>) -> Result<Option<Response>, Error> {
    let Some(key) = key else {
        return Ok(None);
    };
    let mut reader = app.store().read().await?;
    let Some(stored) = idempotency::find(&mut reader, key).await? else {
        return Ok(None);
    };
    drop(reader);
    if stored.request != key.request {
        return Err(Error::KeyReused {
            key: key.key.clone(),
        });
    }
    let Some(body) = stored.body else {
        return Err(Error::conflict(format!(
            "the request of key {:?} was carried out, and its answer held a secret that is shown \
             once only",
            key.key
        )));
    };
    let status = StatusCode::from_u16(stored.status).unwrap_or(StatusCode::OK);
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    for (name, value) in [
        (header::LOCATION, stored.location),
        (header::ETAG, stored.etag),
    ] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.insert(name, value);
        }
    }
    Ok(Some(response))
}

/// What an answer is but for its body.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frame {
    /// Its status.
    pub(crate) status: u16,
    /// Its `Location`.
    pub(crate) location: Option<String>,
    /// Its `ETag`.
    pub(crate) etag: Option<String>,
}

/// Stores the answer to a request that has a key, in the transaction of what it changed.
///
/// # Errors
/// [`Error::Conflict`] where another request with the same key was carried out in between, and
/// [`Error::Storage`].
pub(crate) async fn remember(
    connection: &mut SqliteConnection,
    key: Option<&Key>,
    frame: Frame,
    body: &impl Serialize,
    now: Timestamp,
) -> Result<(), Error> {
    let Some(key) = key else {
        return Ok(());
    };
    let text = serde_json::to_string(body).expect("answers have string keys only");
    let answer = Stored {
        request: key.request.clone(),
        status: frame.status,
        location: frame.location,
        etag: frame.etag,
        body: Some(text),
    };
    if idempotency::insert(connection, key, &answer, now).await? {
        Ok(())
    } else {
        Err(Error::conflict(format!(
            "another request with the key {:?} was carried out just now; send this one again for \
             its answer",
            key.key
        )))
    }
}
