//! On whose word something is done, as the audit log has it.

use std::net::IpAddr;

/// How somebody showed who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// By a bearer token.
    Token,
    /// By a session's cookie.
    Session,
    /// By a client certificate.
    Certificate,
    /// By running `isopathd` on the controller's machine.
    Command,
    /// It is the controller itself.
    Controller,
    /// Not at all.
    Nothing,
}

impl Via {
    /// The word for it in the database and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Session => "session",
            Self::Certificate => "certificate",
            Self::Command => "command",
            Self::Controller => "controller",
            Self::Nothing => "nothing",
        }
    }
}

/// On whose word something is done, and how it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// Their name, which events and revisions show.
    pub name: String,
    /// How they showed who they are.
    pub via: Via,
    /// The address that asked; nothing where it did not come over the network.
    pub peer: Option<IpAddr>,
    /// The request's id, as its answer's `X-Request-Id` has it.
    pub request_id: Option<String>,
}

impl By {
    /// What the controller does of itself.
    pub fn controller() -> Self {
        Self::here("controller", Via::Controller)
    }

    /// What is done by running `isopathd`.
    pub fn command() -> Self {
        Self::here("isopathd", Via::Command)
    }

    fn here(name: &str, via: Via) -> Self {
        Self {
            name: name.to_owned(),
            via,
            peer: None,
            request_id: None,
        }
    }
}
