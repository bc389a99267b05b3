//! Why the controller did not do what it was asked, and the problem details that say so.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use isopath_api::fault::Fault;
use isopath_api::problem::{MEDIA_TYPE, Problem};
use jiff::Timestamp;
use uuid::Uuid;

use crate::asked::{self, Why};
use crate::store::disk::{self, PROBE_EVERY};
use crate::store::{ReadOnly, WriteError};

/// A request that was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The thing does not exist.
    #[error("there is no {what}")]
    NotFound {
        /// Such as `cluster edge-fra`.
        what: String,
    },
    /// The path exists and takes other methods.
    #[error("this resource does not take that method")]
    MethodNotAllowed,
    /// The query or a header could not be read.
    #[error("{detail}")]
    BadRequest {
        /// What was expected and what was found.
        detail: String,
    },
    /// The body breaks rules.
    #[error("the body breaks {} rule(s)", faults.len())]
    Invalid {
        /// Each with its JSON pointer.
        faults: Vec<Fault>,
    },
    /// The body is larger than the resource takes.
    #[error("the body is larger than this resource takes")]
    TooLarge,
    /// The body is not of the type the resource takes.
    #[error("expected content of type {expected}")]
    MediaType {
        /// The media type wanted.
        expected: &'static str,
    },
    /// What was asked contradicts the present state.
    #[error("{detail}")]
    Conflict {
        /// Names what it contradicts and what to do.
        detail: String,
    },
    /// A guard refused.
    #[error("{detail}")]
    Guard {
        /// The guards' names.
        guards: Vec<String>,
        /// What would have been lost and what to do.
        detail: String,
    },
    /// The request does not say which state it changes.
    #[error("{detail}")]
    PreconditionRequired {
        /// Which header to send.
        detail: String,
    },
    /// What was to be changed is not in the state that the request names.
    #[error("{detail}")]
    PreconditionFailed {
        /// The state that it is in, and what to do.
        detail: String,
        /// The revision in force, where there is one.
        current: Option<u64>,
    },
    /// The key of a request was another one's.
    #[error(
        "the key {key:?} was sent with another request before; every request wants a key of its own"
    )]
    KeyReused {
        /// The key.
        key: String,
    },
    /// Nobody, or nobody known, asks.
    #[error("{detail}")]
    Unauthenticated {
        /// What is missing.
        detail: String,
    },
    /// Whoever asks may not.
    #[error("{detail}")]
    Forbidden {
        /// What it takes.
        detail: String,
    },
    /// Asked too often.
    #[error("too many tries; wait {retry_after_s} s")]
    TooMany {
        /// When the next try will be looked at, in seconds.
        retry_after_s: u64,
    },
    /// The request took too long to arrive, or to be answered.
    #[error("the request was not there within {within_s} s")]
    TooSlow {
        /// How long is waited, in seconds.
        within_s: u64,
    },
    /// Asked while too much else is under way.
    #[error("the controller is busy; try again in a second")]
    Busy,
    /// The controller is stopping.
    #[error("the controller is stopping")]
    Stopping,
    /// The database takes no writes.
    #[error("{0}")]
    ReadOnly(ReadOnly),
    /// The database failed.
    #[error("the database failed")]
    Storage(#[source] sqlx::Error),
    /// Something that should not happen did.
    #[error("{what}")]
    Internal {
        /// The operation that failed and why.
        what: String,
    },
}

impl Error {
    /// A missing thing, such as `cluster edge-fra`.
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::NotFound {
            what: what.to_string(),
        }
    }

    /// A contradiction with the present state.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::Conflict {
            detail: detail.into(),
        }
    }

    /// What happened with every fault of a body, for whoever does not see the problem details.
    pub fn in_full(&self) -> String {
        match self {
            Self::Invalid { faults } => {
                let faults: Vec<_> = faults.iter().take(3).map(ToString::to_string).collect();
                faults.join("; ")
            }
            _ => self.to_string(),
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BadRequest { .. } => StatusCode::BAD_REQUEST,
            Self::Invalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Conflict { .. } | Self::Guard { .. } => StatusCode::CONFLICT,
            Self::PreconditionRequired { .. } => StatusCode::PRECONDITION_REQUIRED,
            Self::PreconditionFailed { .. } => StatusCode::PRECONDITION_FAILED,
            Self::KeyReused { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unauthenticated { .. } => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } => StatusCode::FORBIDDEN,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::TooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::Busy | Self::Stopping | Self::ReadOnly(_) | Self::Storage(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The kind of problem: the last part of its URI, and its title.
    fn kind(&self) -> (&'static str, &'static str) {
        match self {
            Self::NotFound { .. } => ("not-found", "No such thing"),
            Self::MethodNotAllowed => ("method-not-allowed", "Not a method of this resource"),
            Self::BadRequest { .. } => ("bad-request", "Request not understood"),
            Self::Invalid { .. } => ("invalid", "Body refused"),
            Self::TooLarge => ("too-large", "Body too large"),
            Self::MediaType { .. } => ("media-type", "Wrong type of content"),
            Self::Conflict { .. } => ("conflict", "Contradicts the present state"),
            Self::Guard { .. } => ("guard-refused", "Refused by a guard"),
            Self::PreconditionRequired { .. } => ("precondition-required", "Precondition missing"),
            Self::PreconditionFailed { .. } => ("precondition-failed", "Changed in between"),
            Self::KeyReused { .. } => ("key-reused", "Key of another request"),
            Self::Unauthenticated { .. } => ("unauthenticated", "Not signed in"),
            Self::Forbidden { .. } => ("forbidden", "Not allowed"),
            Self::TooMany { .. } => ("too-many-requests", "Too many tries"),
            Self::TooSlow { .. } => ("too-slow", "Request too slow"),
            Self::Busy => ("busy", "Busy"),
            Self::Stopping => ("stopping", "Stopping"),
            Self::ReadOnly(_) => ("read-only", "Database read-only"),
            Self::Storage(_) => ("storage", "Database unavailable"),
            Self::Internal { .. } => ("internal", "Internal error"),
        }
    }

    /// The problem details, as the API answers them and as a page may show them.
    pub fn problem(&self) -> Problem {
        let (kind, title) = self.kind();
        Problem {
            kind: format!("/problems/{kind}"),
            title: title.to_owned(),
            status: self.status().as_u16(),
            detail: self.to_string(),
            errors: match self {
                Self::Invalid { faults } => faults.clone(),
                _ => Vec::new(),
            },
            guards: match self {
                Self::Guard { guards, .. } => guards.clone(),
                _ => Vec::new(),
            },
            request_id: None,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match disk::refused(&error) {
            Some(cause) => Self::ReadOnly(ReadOnly {
                since: Timestamp::now(),
                cause,
            }),
            None => Self::Storage(error),
        }
    }
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ReadOnly(read_only) => Self::ReadOnly(read_only),
            WriteError::Failed(error) => Self::Storage(error),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut problem = self.problem();
        if status.is_server_error() {
            let id = asked::request_id().unwrap_or_else(|| Uuid::now_v7().to_string());
            let cause = std::error::Error::source(&self).map(ToString::to_string);
            match self {
                // Said once, when it began; what comes of it is no news.
                Self::ReadOnly(_) => tracing::debug!(request_id = %id, "{self}"),
                _ => tracing::error!(request_id = %id, %status, cause, "{self}"),
            }
            problem.request_id = Some(id);
        }
        let body = serde_json::to_vec(&problem).expect("problem details have string keys only");
        let media_type = HeaderValue::from_static(MEDIA_TYPE);
        let mut response = (status, [(header::CONTENT_TYPE, media_type)], body).into_response();
        response.extensions_mut().insert(Why(problem.detail));
        match self {
            Self::Unauthenticated { .. } => {
                let challenge = HeaderValue::from_static("Bearer realm=\"isopath\"");
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, challenge);
            }
            Self::PreconditionFailed {
                current: Some(revision),
                ..
            } => {
                let tag = crate::rest::etag_value(revision);
                response.headers_mut().insert(header::ETAG, tag);
            }
            Self::TooMany { retry_after_s } => {
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
            }
            Self::ReadOnly(_) => {
                response.headers_mut().insert(
                    header::RETRY_AFTER,
                    HeaderValue::from(PROBE_EVERY.as_secs()),
                );
            }
            Self::Busy | Self::Stopping | Self::Storage(_) => {
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from(1));
            }
            _ => {}
        }
        response
    }
}
