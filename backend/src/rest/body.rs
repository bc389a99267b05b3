//! JSON bodies, each refusal with problem details.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use isopath_api::fault::{Fault, parse_json};
use serde::de::DeserializeOwned;

use super::idempotency;
use crate::auth::Principal;
use crate::error::Error;
use crate::store::idempotency::Key;

/// A JSON body that is read whole but not parsed yet; empty when there is none.
#[derive(Debug)]
pub(super) struct JsonBody {
    bytes: Bytes,
    head: Parts,
}

impl JsonBody {
    /// Parses the body and lets `validate` look at the whole of it.
    pub(super) fn parse<T: DeserializeOwned>(
        &self,
        validate: impl FnOnce(&T) -> Vec<Fault>,
    ) -> Result<T, Error> {
        // serde takes a list for a structure, its fields in their order.
        if self.bytes.trim_ascii_start().starts_with(b"[") {
            let faults = vec![Fault::new("", "an object", "a list")];
            return Err(Error::Invalid { faults });
        }
        parse_json(&self.bytes, validate).map_err(|faults| Error::Invalid { faults })
    }

    /// The request's own name, by which `principal` may send it again. A user and a token of one
    /// name are two.
    pub(super) fn key(&self, principal: &Principal) -> Result<Option<Key>, Error> {
        let head = (&self.head.method, &self.head.uri, &self.head.headers);
        let actor = format!("{} {}", principal.via.as_str(), principal.name);
        idempotency::key(&actor, head, &self.bytes)
    }

    /// Parses the body, or takes the default where there is none.
    pub(super) fn parse_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Error> {
        // `null` says as little as nothing.
        if self.bytes.is_empty() || self.bytes.trim_ascii() == b"null" {
            Ok(T::default())
        } else {
            self.parse(|_| Vec::new())
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let is_json = is_json(request.headers());
        let (head, body) = request.into_parts();
        let request = Request::from_parts(head.clone(), body);
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| {
                if rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
                    Error::TooLarge
                } else {
                    Error::BadRequest {
                        detail: rejection.body_text(),
                    }
                }
            })?;
        if bytes.is_empty() || is_json {
            Ok(Self { bytes, head })
        } else {
            Err(Error::MediaType {
                expected: "application/json",
            })
        }
    }
}

/// Whether a body says that it is JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use isopath_api::access::Role;

    use super::*;
    use crate::auth::Via;
    use crate::store::tokens::Clusters;

    #[tokio::test]
    async fn the_keys_of_a_user_and_a_token_of_one_name_never_meet() {
        let request = Request::post("/x").header(idempotency::HEADER, "k-1");
        let request = request.body(Body::empty()).unwrap();
        let body = JsonBody::from_request(request, &()).await.unwrap();
        let key = |via| {
            let principal = Principal {
                name: "mia".to_owned(),
                role: Role::Operator,
                clusters: Clusters::All,
                via,
                peer: std::net::Ipv4Addr::LOCALHOST.into(),
                request_id: None,
            };
            body.key(&principal).unwrap().unwrap()
        };
        let (session, token) = (key(Via::Session), key(Via::Token));
        assert_eq!(session, key(Via::Session));
        assert_ne!(session.actor, token.actor);
    }
}
