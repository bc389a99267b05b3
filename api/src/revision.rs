//! Revisions of a cluster's declaration: what lies between two of them, and the way back.

use serde::{Deserialize, Serialize};

use crate::compare::Change;
use crate::ids::{ClusterName, DirectorName, ServiceId};

/// What lies between two declarations of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeclarationDiff {
    /// What is declared otherwise.
    pub changes: Vec<Change>,
    /// What each director would have otherwise; those that would have nothing otherwise are left
    /// out.
    pub directors: Vec<DirectorDiff>,
    /// The services with `mh` whose clients would move.
    pub slots: Vec<SlotsMoved>,
}

/// What a director would have otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DirectorDiff {
    /// The director.
    pub director: DirectorName,
    /// Its part in the change.
    pub part: DirectorPart,
    /// The differences in what is wanted of it: its router id, its VIPs each at its cost there,
    /// the services with their real servers, weights and checks, and the settings that all
    /// services share.
    pub changes: Vec<Change>,
}

/// A director's part in a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum DirectorPart {
    /// It is new.
    Added,
    /// It is declared no more.
    Removed,
    /// Something else is wanted of it.
    Changed,
}

/// How many clients of a service would get another real server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SlotsMoved {
    /// The service.
    pub service: ServiceId,
    /// The slots of the kernel's table that would have another real server.
    #[cfg_attr(feature = "openapi", schema(minimum = 0))]
    pub moved: usize,
    /// All slots of the table, as most kernels are built (`CONFIG_IP_VS_MH_TAB_INDEX=12`).
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub slots: usize,
    /// The same in per cent: the share of the service's new clients.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 100))]
    pub percent: f64,
}

/// What `GET /api/v1/clusters/{c}/revisions/{n}/diff` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RevisionDiff {
    /// The cluster.
    pub cluster: ClusterName,
    /// The revision that is looked at.
    pub revision: u64,
    /// The one that it is compared with; 0 for nothing, before the first.
    pub against: u64,
    /// What the revision has otherwise.
    #[serde(flatten)]
    pub diff: DeclarationDiff,
}

/// The body of `POST /api/v1/clusters/{c}/revisions/{n}/rollback`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The operator's words.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_length = 500))]
    pub reason: String,
    /// Guards to pass over, such as `large_removal`; wants a reason.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 16))]
    pub override_guards: Vec<String>,
}
