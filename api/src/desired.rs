//! What the controller asks of one director.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::declare::{Lvs, ServiceSpec, VipSpec};
use crate::digest::ServiceDigest;
use crate::ids::{ClusterName, DirectorName, RouterId, ServiceId, Vip};

/// The whole desired state of one director; always complete, never a difference.
///
/// A lower generation of the same epoch is refused by the agent, and so is the same
/// generation with other content. `epoch` changes only when an older database was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Desired {
    /// The life of the controller's database that the generation counts in.
    pub epoch: String,
    /// Counts every change of this director's desired state, from 1.
    pub generation: u64,
    /// The cluster's revision it was derived from.
    pub revision: u64,
    /// The cluster.
    pub cluster: ClusterName,
    /// The director it is for.
    pub director: DirectorName,
    /// The router id the director must have.
    pub router_id: RouterId,
    /// Whether the director shall announce.
    pub admin_state: AdminState,
    /// The operator's words for an admin state other than active.
    #[serde(default)]
    pub admin_reason: String,
    /// The settings that all services share.
    #[serde(default)]
    pub lvs: Lvs,
    /// What the digest of each service must be for its VIP to be announced in the stateless
    /// profile.
    #[serde(default)]
    pub digests: BTreeMap<ServiceId, ServiceDigest>,
    /// The VIPs.
    pub vip: Vec<VipSpec>,
    /// The services.
    pub service: Vec<ServiceSpec>,
    /// VIPs that this director does not announce although they and their services stay, with the
    /// operator's words. An agent that does not know the field refuses the whole where it is
    /// there, and says so: nobody takes its VIP for withdrawn.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub withdraw: BTreeMap<Vip, String>,
}

/// What the operator wants of a director, apart from its health.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum AdminState {
    /// It serves.
    #[default]
    Active,
    /// It is on its way out. A director that is sent this announces what it announces already at
    /// the highest metric, and nothing anew; one that does not know that yet withdraws.
    Draining,
    /// It has withdrawn; it stays so until it is undrained.
    Drained,
}

impl AdminState {
    /// The word used in the API, the database and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Drained => "drained",
        }
    }
}

impl std::fmt::Display for AdminState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
