//! JSON bodies, each refusal with problem details.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use isopath_api::fault::{Fault, parse_json};
use serde::de::DeserializeOwned;

use crate::error::Error;

/// A JSON body that is read whole but not parsed yet; empty when there is none.
#[derive(Debug)]
pub(super) struct JsonBody {
    bytes: Bytes,
}

impl JsonBody {
    /// Parses the body and lets `validate` look at the whole of it.
    pub(super) fn parse<T: DeserializeOwned>(
        &self,
        validate: impl FnOnce(&T) -> Vec<Fault>,
    ) -> Result<T, Error> {
        parse_json(&self.bytes, validate).map_err(|faults| Error::Invalid { faults })
    }

    /// Parses the body, or takes the default where there is none.
    pub(super) fn parse_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Error> {
        if self.bytes.is_empty() {
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
            Ok(Self { bytes })
        } else {
            Err(Error::MediaType {
                expected: "application/json",
            })
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}
