//! Who should announce each VIP, who says it does, and who really is in the equal-cost set of
//! each switch, as `GET /api/v1/clusters/{c}/ecmp` answers it.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{ClusterName, DirectorName, RouterId, Vip};
use crate::paths::PathCost;

/// The equal-cost sets of a cluster, as of one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EcmpView {
    /// `isopath.ecmp/1`; fields are only ever added.
    pub schema: String,
    /// The cluster.
    pub cluster: ClusterName,
    /// The controller's clock.
    pub as_of: Timestamp,
    /// The VIPs in their declared order.
    pub vips: Vec<EcmpVip>,
    /// What is not as it should be, by code.
    pub conditions: Vec<EcmpCondition>,
}

/// A VIP: wanted, said and real.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EcmpVip {
    /// The VIP.
    pub vip: Vip,
    /// What is wanted of each director, in their declared order.
    pub wanted: Vec<EcmpWanted>,
    /// The directors that say they announce it.
    pub said: Vec<EcmpSaid>,
    /// The routers that announce it, at whatever cost, as most witnesses have it.
    pub announcers: Vec<EcmpRouter>,
    /// How each switch spreads it, as most witnesses have it, by router id.
    pub switches: Vec<EcmpSwitch>,
    /// The directors whose link-state database is counted. Without any, who announces it is not
    /// known, rather than nobody.
    pub witnesses: Vec<DirectorName>,
    /// The directors whose database is not counted, and why.
    pub not_counted: Vec<EcmpNotCounted>,
    /// The witnesses that have other announcers than most.
    pub dissent: Vec<EcmpDissent>,
}

/// What is wanted of a director for a VIP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EcmpWanted {
    /// The director.
    pub director: DirectorName,
    /// Whether it should announce it.
    pub wish: EcmpWish,
    /// At this cost, where it should.
    pub cost: Option<u16>,
    /// Whether that is the lowest cost of all that should: then switches are to send it clients.
    pub lowest: bool,
}

/// Whether a director should announce a VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum EcmpWish {
    /// It should.
    Announce,
    /// It is on its way out: both is right.
    Leaving,
    /// It should not.
    Out,
}

/// What a director says of its own announcement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EcmpSaid {
    /// The director.
    pub director: DirectorName,
    /// The metric.
    pub cost: u16,
    /// Whether every Full neighbour of it has acknowledged it.
    pub acknowledged: bool,
    /// Whether it is Full with anybody, without which nobody hears it.
    pub connected: bool,
}

/// A router, and the director that it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EcmpRouter {
    /// Its router id.
    pub router_id: RouterId,
    /// The director; nothing where the router is none of this cluster's.
    pub director: Option<DirectorName>,
}

/// How a switch spreads a VIP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EcmpSwitch {
    /// Its router id.
    pub switch: RouterId,
    /// Its declared name.
    pub name: Option<String>,
    /// How many equal-cost next hops it has; 0 without a path.
    pub width: u32,
    /// The routers that announce the VIP at the lowest cost.
    pub through: Vec<EcmpRouter>,
    /// That cost; nothing without a path.
    pub cost: Option<PathCost>,
    /// The witnesses that have it otherwise.
    pub dissent: Vec<EcmpDissent>,
}

/// A director whose database is not counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EcmpNotCounted {
    /// The director.
    pub director: DirectorName,
    /// Why not.
    pub why: String,
}

/// A witness that has something otherwise than most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EcmpDissent {
    /// The director.
    pub witness: DirectorName,
    /// The routers that it has.
    pub has: Vec<EcmpRouter>,
}

/// A difference between what is wanted, said and real that lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EcmpCondition {
    /// What kind of difference.
    pub code: EcmpCode,
    /// What it is about, such as `VIP 10.99.0.1 on director d1`.
    pub object: String,
    /// The VIP, where it is about one.
    pub vip: Option<Vip>,
    /// The director, where it is about one.
    pub director: Option<DirectorName>,
    /// The switch or the foreign router, where it is about one.
    pub router: Option<RouterId>,
    /// What is so, and why.
    pub cause: String,
    /// Since when, by the controller's clock.
    pub since: Timestamp,
    /// What to do next.
    pub next: String,
}

/// The kinds of differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum EcmpCode {
    /// No director's database can be counted, so that nobody knows who announces the VIP.
    NoWitness,
    /// A director should announce the VIP, and does not.
    VipNotAnnounced,
    /// A director announces the VIP at the lowest cost wanted, and a switch does not use it.
    AnnouncedNotInSet,
    /// A switch sends clients to a director that should not get any.
    InSetNotWanted,
    /// A switch has fewer equal-cost next hops than directors announce the VIP for it.
    WidthBelowAnnouncers,
    /// A switch has no path to a VIP that is announced.
    SwitchSeesNothing,
    /// No director's database reaches a declared switch.
    SwitchNotReached,
    /// A router that is no director of the cluster announces the VIP.
    ForeignAnnouncer,
    /// A drained director announces the VIP.
    AnnouncingWhileDrained,
    /// A director's database has the VIP otherwise than most.
    WitnessesDisagree,
}

impl EcmpCode {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::NoWitness,
        Self::VipNotAnnounced,
        Self::AnnouncedNotInSet,
        Self::InSetNotWanted,
        Self::WidthBelowAnnouncers,
        Self::SwitchSeesNothing,
        Self::SwitchNotReached,
        Self::ForeignAnnouncer,
        Self::AnnouncingWhileDrained,
        Self::WitnessesDisagree,
    ];

    /// The stable code, as the metric's label and the JSON have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoWitness => "no-witness",
            Self::VipNotAnnounced => "vip-not-announced",
            Self::AnnouncedNotInSet => "announced-not-in-set",
            Self::InSetNotWanted => "in-set-not-wanted",
            Self::WidthBelowAnnouncers => "width-below-announcers",
            Self::SwitchSeesNothing => "switch-sees-nothing",
            Self::SwitchNotReached => "switch-not-reached",
            Self::ForeignAnnouncer => "foreign-announcer",
            Self::AnnouncingWhileDrained => "announcing-while-drained",
            Self::WitnessesDisagree => "witnesses-disagree",
        }
    }
}

impl fmt::Display for EcmpCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_written_as_it_is_named() {
        for code in EcmpCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}
