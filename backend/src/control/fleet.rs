//! What the controller knows of its agents, and what it refuses of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use isopath_api::ids::{ClusterName, DirectorName};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::store::agents::AgentRow;

/// The agents that have enrolled.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// By the UUID in their certificates.
    pub agents: BTreeMap<Uuid, AgentState>,
    /// Enrolments and renewals that were refused since the start, by cause.
    pub enrollments_refused: BTreeMap<EnrollmentRefused, u64>,
}

/// An agent that has enrolled.
#[derive(Debug, Clone)]
pub struct AgentState {
    /// As it is stored.
    pub row: Arc<AgentRow>,
    /// Cancelled when it is revoked: its streams end with it.
    pub ended: CancellationToken,
}

impl AgentState {
    /// An agent as stored.
    pub fn new(row: AgentRow) -> Self {
        let ended = CancellationToken::new();
        if row.revoked.is_some() {
            ended.cancel();
        }
        Self {
            row: Arc::new(row),
            ended,
        }
    }
}

impl Fleet {
    /// The agent that a director has now.
    pub fn of(&self, cluster: &ClusterName, director: &DirectorName) -> Option<&AgentState> {
        self.agents.values().find(|agent| {
            let row = &agent.row;
            row.revoked.is_none() && row.cluster == *cluster && row.director == *director
        })
    }
}

/// Why an enrolment or a renewal was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EnrollmentRefused {
    /// There is no such token.
    UnknownToken,
    /// The token made an agent before.
    UsedToken,
    /// The token is too old.
    ExpiredToken,
    /// The director has an agent on another machine, which reports.
    AnotherMachine,
    /// The request for a certificate cannot be used.
    BadRequest,
}

impl EnrollmentRefused {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::UnknownToken,
        Self::UsedToken,
        Self::ExpiredToken,
        Self::AnotherMachine,
        Self::BadRequest,
    ];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownToken => "unknown-token",
            Self::UsedToken => "used-token",
            Self::ExpiredToken => "expired-token",
            Self::AnotherMachine => "another-machine",
            Self::BadRequest => "bad-request",
        }
    }
}

/// Why a report or a stream of an agent was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refused {
    /// It calls itself another director, has another router id, or is a second one.
    WrongAgent,
    /// Its certificate is another director's, or is used on another machine.
    WrongIdentity,
    /// It speaks a protocol that this controller does not.
    Protocol,
    /// A newer report of the same run came before.
    Overtaken,
    /// The same run had a later generation in force before.
    GenerationBack,
    /// A generation that this controller never gave out.
    GenerationAhead,
    /// The same run followed this controller before, and now another one or none.
    EpochBack,
    /// The body is no report.
    Malformed,
    /// Numbers, texts or times that cannot be.
    Absurd,
    /// A VIP or a service that its generation does not have.
    Undeclared,
}

impl Refused {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::WrongAgent,
        Self::WrongIdentity,
        Self::Protocol,
        Self::Overtaken,
        Self::GenerationBack,
        Self::GenerationAhead,
        Self::EpochBack,
        Self::Malformed,
        Self::Absurd,
        Self::Undeclared,
    ];

    /// The word in the API and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WrongAgent => "wrong-agent",
            Self::WrongIdentity => "wrong-identity",
            Self::Protocol => "protocol",
            Self::Overtaken => "overtaken",
            Self::GenerationBack => "generation-back",
            Self::GenerationAhead => "generation-ahead",
            Self::EpochBack => "epoch-back",
            Self::Malformed => "malformed",
            Self::Absurd => "absurd",
            Self::Undeclared => "undeclared",
        }
    }

    /// Whether it is told as something wrong. A report that was under way for too long is counted
    /// only: it harms nobody, and a slow network is the likeliest cause.
    pub fn is_shown(self) -> bool {
        self != Self::Overtaken
    }

    /// What an operator would do about it.
    pub fn next(self) -> &'static str {
        match self {
            Self::WrongAgent => "stop that agent, or give it a name and router id of its own",
            Self::WrongIdentity => {
                "find out who has a copy of that agent's key; revoke the agent (`isopath agents \
                 revoke`) and enrol it anew"
            }
            Self::Protocol => "upgrade the controller first, then the agents",
            Self::Overtaken => "see whether two programs report with one agent's state directory",
            Self::GenerationBack | Self::EpochBack => {
                "restart the agent; if it happens again, see whether something else reports in \
                 its name"
            }
            Self::GenerationAhead => {
                "an older database was put back without `isopathd restore`, which begins a new \
                 epoch: restore it with that"
            }
            Self::Malformed | Self::Absurd | Self::Undeclared => {
                "see the agent's version, its clock and its log on the director"
            }
        }
    }
}
