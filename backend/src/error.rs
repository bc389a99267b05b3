//! Why the controller did not do what it was asked, and the problem details that say so.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use isopath_api::fault::Fault;
use isopath_api::problem::{MEDIA_TYPE, Problem};
use uuid::Uuid;

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
    /// Asked while too much else is under way.
    #[error("the controller is busy; try again in a second")]
    Busy,
    /// The controller is stopping.
    #[error("the controller is stopping")]
    Stopping,
    /// The database failed.
    #[error("the database failed")]
    Storage(#[from] sqlx::Error),
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
            Self::Unauthenticated { .. } => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } => StatusCode::FORBIDDEN,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy | Self::Stopping | Self::Storage(_) => StatusCode::SERVICE_UNAVAILABLE,
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
            Self::Unauthenticated { .. } => ("unauthenticated", "Not signed in"),
            Self::Forbidden { .. } => ("forbidden", "Not allowed"),
            Self::TooMany { .. } => ("too-many-requests", "Too many tries"),
            Self::Busy => ("busy", "Busy"),
            Self::Stopping => ("stopping", "Stopping"),
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

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut problem = self.problem();
        if status.is_server_error() {
            let id = Uuid::now_v7().to_string();
            let cause = std::error::Error::source(&self).map(ToString::to_string);
            tracing::error!(request_id = %id, %status, cause, "{self}");
            problem.request_id = Some(id);
        }
        let body = serde_json::to_vec(&problem).expect("problem details have string keys only");
        let media_type = HeaderValue::from_static(MEDIA_TYPE);
        let mut response = (status, [(header::CONTENT_TYPE, media_type)], body).into_response();
        match self {
            Self::Unauthenticated { .. } => {
                let challenge = HeaderValue::from_static("Bearer realm=\"isopath\"");
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, challenge);
            }
            Self::TooMany { retry_after_s } => {
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
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
