//! Who may use the controller, and what they may do.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::ClusterName;

/// What somebody may do. A higher role may do all that a lower one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees everything but people, tokens and the audit log.
    Viewer,
    /// Declares clusters and drains, as far as no guard refuses.
    Operator,
    /// Passes over guards, and decides who may use the controller.
    Admin,
}

impl Role {
    /// The word for it in files, in the database and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected viewer, operator or admin, found {found:?}")]
pub struct ParseRoleError {
    found: String,
}

impl std::str::FromStr for Role {
    type Err = ParseRoleError;

    fn from_str(text: &str) -> Result<Self, ParseRoleError> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "operator" => Ok(Self::Operator),
            "admin" => Ok(Self::Admin),
            other => Err(ParseRoleError {
                found: other.to_owned(),
            }),
        }
    }
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum TokenRole {
    /// What a viewer may do.
    Viewer,
    /// What an operator may do.
    Operator,
    /// What an admin may do.
    Admin,
    /// The desired state and the reports of one cluster's directors.
    Agent,
}

/// The fewest characters of a password.
pub const SHORTEST_PASSWORD: usize = 12;
/// The most characters of a password.
pub const LONGEST_PASSWORD: usize = 256;
/// The most bytes of a user's or a token's name.
pub const LONGEST_NAME: usize = 64;
/// The most clusters that a token can be good for, where it is not good for all.
pub const MOST_CLUSTERS: usize = 64;

/// Whether a user or a token may be called so: visible ASCII characters that need no escaping in
/// a path.
pub fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._@+".contains(&byte);
    (1..=LONGEST_NAME).contains(&text.len())
        && text.bytes().all(plain)
        && !matches!(text, "." | ".." | "me")
}

/// What is expected of a name that [`is_name`] refuses.
pub const NAME_EXPECTED: &str = "a name of 1 to 64 letters, digits and -._@+ that is not \"me\"";

/// Someone who may sign in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UserView {
    /// Their name.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Whether they may not sign in at present.
    pub disabled: bool,
    /// When they were made.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = "date-time"))]
    pub made: Timestamp,
}

/// `POST /users`
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// Their name.
    #[cfg_attr(
        feature = "openapi",
        schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._@+-]+$")
    )]
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Their password; one is made, and shown in the answer only, where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_length = 12, max_length = 256))]
    pub password: Option<String>,
}

/// The answer to `POST /users`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MadeUser {
    /// The user.
    pub user: UserView,
    /// The password that was made for them: shown here and never again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// `PATCH /users/{name}`: what is absent stays as it is.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct UserChange {
    /// What they may do from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Whether they may not sign in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Their new password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_length = 12, max_length = 256))]
    pub password: Option<String>,
}

/// `POST /users/me/password`
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    /// The present password.
    #[cfg_attr(feature = "openapi", schema(max_length = 256))]
    pub old: String,
    /// The one from now on.
    #[cfg_attr(feature = "openapi", schema(min_length = 12, max_length = 256))]
    pub new: String,
}

/// A token, without itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenView {
    /// Its name, which is its holder's in events.
    pub name: String,
    /// What it is good for.
    pub role: TokenRole,
    /// Where; in every cluster where this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clusters: Option<BTreeSet<ClusterName>>,
    /// Who made it.
    pub made_by: String,
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = "date-time"))]
    pub made: Timestamp,
    /// From when on it is not good any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = "date-time"))]
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = "date-time"))]
    pub revoked: Option<Timestamp>,
    /// When it was last used, to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = "date-time"))]
    pub used: Option<Timestamp>,
}

/// `POST /tokens`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// Its name.
    #[cfg_attr(
        feature = "openapi",
        schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._@+-]+$")
    )]
    pub name: String,
    /// What it is good for.
    pub role: TokenRole,
    /// Where; in every cluster where this is absent. An agent's is good for exactly one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 64))]
    pub clusters: Option<BTreeSet<ClusterName>>,
    /// How many days it is good; until it is revoked where this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 3650))]
    pub expires_days: Option<u16>,
}

/// The answer to `POST /tokens`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MadeToken {
    /// What it is.
    pub info: TokenView,
    /// The token itself: shown here and never again.
    pub token: String,
}

/// Someone who is signed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionView {
    /// What the session is ended by.
    pub id: String,
    /// Who is signed in.
    pub user: String,
    /// The address that signed in.
    pub peer: String,
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = "date-time"))]
    pub made: Timestamp,
    /// When the session was last used, to the minute.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = "date-time"))]
    pub seen: Timestamp,
}

/// How an action ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was refused.
    Refused,
}

impl Outcome {
    /// The word for it in the database and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditView {
    /// Its number; a later one is higher.
    pub id: u64,
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = "date-time"))]
    pub at: Timestamp,
    /// Who asked; empty where nobody known did.
    pub principal: String,
    /// How they showed who they are: `token`, `session`, `certificate`, `command` (on the
    /// controller's machine), `controller` (of itself), `nothing`.
    pub via: String,
    /// The address that asked; absent where it did not come over the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// What was asked for.
    pub action: String,
    /// Of what.
    pub object: String,
    /// The cluster it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
    /// How it ended.
    pub outcome: Outcome,
    /// The HTTP status of a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The caller's words, or why it was refused.
    pub detail: String,
    /// The request's id, as its answer's `X-Request-Id` had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}
