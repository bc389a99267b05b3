//! Differences between what is wanted, said and real that last, each with its name.
//!
//! A network that converges differs for a moment: a difference is a condition only after it was
//! seen on every look for [`threshold`]. What nobody can tell at the moment stays as it was seen
//! last, so that a lost report is not taken for an end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use isopath_api::ecmp::EcmpCode;
use isopath_api::ids::{DirectorName, RouterId, Vip};

use super::differences::differences;
use super::truth::{VipTruth, truth};
use crate::clock::Moment;
use crate::control::state::ClusterState;

/// A condition's identity. Those that concern the same thing but for the VIP stand together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// What kind of difference.
    pub code: EcmpCode,
    /// The director it is about.
    pub director: Option<DirectorName>,
    /// The switch or the foreign router it is about.
    pub router: Option<RouterId>,
    /// The VIP it is about.
    pub vip: Option<Vip>,
}

impl Key {
    /// Whether it is the same thing, be it of another VIP.
    pub fn is_alike(&self, other: &Self) -> bool {
        (self.code, &self.director, self.router) == (other.code, &other.director, other.router)
    }

    /// What it is about but for the VIP, such as `director d1 at switch 10.0.0.1`.
    pub fn place(&self) -> Option<String> {
        let router = match self.code {
            EcmpCode::ForeignAnnouncer => "router",
            EcmpCode::NoWitness
            | EcmpCode::VipNotAnnounced
            | EcmpCode::AnnouncedNotInSet
            | EcmpCode::InSetNotWanted
            | EcmpCode::WidthBelowAnnouncers
            | EcmpCode::SwitchSeesNothing
            | EcmpCode::SwitchNotReached
            | EcmpCode::AnnouncingWhileDrained
            | EcmpCode::WitnessesDisagree => "switch",
        };
        match (&self.director, self.router) {
            (Some(director), Some(id)) => Some(format!("director {director} at {router} {id}")),
            (Some(director), None) => Some(format!("director {director}")),
            (None, Some(id)) => Some(format!("{router} {id}")),
            (None, None) => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.vip, self.place()) {
            (Some(vip), Some(place)) => write!(f, "VIP {vip} on {place}"),
            (Some(vip), None) => write!(f, "VIP {vip}"),
            (None, Some(place)) => f.write_str(&place),
            (None, None) => f.write_str("the cluster"),
        }
    }
}

/// What is so, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What is so, and why.
    pub cause: String,
    /// What to do next.
    pub next: &'static str,
}

/// A difference and since when it was seen on every look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// When it was first seen.
    pub first: Moment,
    /// Whether it has lasted for so long that it is a condition.
    pub raised: bool,
    /// What it is now.
    pub difference: Difference,
}

/// The differences of a cluster.
pub type Conditions = BTreeMap<Key, Held>;

/// For how long a difference of a kind is taken for a change on its way.
///
/// An LSA reaches every router in less than a second, its paths are calculated within one more,
/// and a report follows each second. A director that has just come up decides by its checks
/// first, and two databases may differ by a whole round of reports while something changes.
pub fn threshold(code: EcmpCode) -> Duration {
    Duration::from_secs(match code {
        EcmpCode::AnnouncedNotInSet
        | EcmpCode::InSetNotWanted
        | EcmpCode::WidthBelowAnnouncers
        | EcmpCode::SwitchSeesNothing
        | EcmpCode::SwitchNotReached
        | EcmpCode::ForeignAnnouncer
        | EcmpCode::AnnouncingWhileDrained => 3,
        EcmpCode::NoWitness | EcmpCode::VipNotAnnounced | EcmpCode::WitnessesDisagree => 5,
    })
}

/// The differences as of `now`, each since it was first seen.
pub fn conditions(cluster: &ClusterState, now: Moment, started: Moment) -> Conditions {
    let truths = truth(cluster, now, started);
    let mut held = Conditions::new();
    for (key, difference) in differences(cluster, &truths, now) {
        let before = cluster.conditions.get(&key);
        let first = before.map_or(now, |before| before.first);
        let raised = now.since(first) >= threshold(key.code);
        let seen = Held {
            first,
            raised,
            difference,
        };
        held.insert(key, seen);
    }
    for (key, before) in &cluster.conditions {
        if !held.contains_key(key) && is_untold(cluster, &truths, key) {
            held.insert(key.clone(), before.clone());
        }
    }
    held
}

/// Whether nobody can tell at the moment whether a difference of before is still there.
fn is_untold(cluster: &ClusterState, truths: &[VipTruth], key: &Key) -> bool {
    if key.code == EcmpCode::NoWitness {
        return false;
    }
    let director = key.director.as_ref();
    if director.is_some_and(|name| !cluster.directors.contains_key(name)) {
        return false;
    }
    match key.vip {
        Some(vip) => {
            let of_vip = truths.iter().find(|truth| truth.vip == vip);
            of_vip.is_some_and(|truth| !truth.is_known())
        }
        None => {
            // Of a switch nobody is asked without a VIP, nor once it is declared no more.
            let mut declared = cluster.declaration.switch.iter();
            let is_declared = declared.any(|switch| Some(switch.router_id) == key.router);
            let is_known = truths.iter().any(VipTruth::is_known);
            is_declared && !truths.is_empty() && !is_known
        }
    }
}

/// The conditions among the differences, those alike together.
pub fn raised(conditions: &Conditions) -> impl Iterator<Item = (&Key, &Held)> {
    conditions.iter().filter(|(_, held)| held.raised)
}

/// Conditions that are alike but for the VIP.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    /// The first of them.
    pub key: &'a Key,
    /// Its state.
    pub held: &'a Held,
    /// How many there are.
    pub count: usize,
}

impl Group<'_> {
    /// The VIPs in words: the first, and how many more.
    pub fn vips(&self) -> Option<String> {
        let vip = self.key.vip?;
        Some(match self.count - 1 {
            0 => vip.to_string(),
            1 => format!("{vip} and 1 more VIP"),
            more => format!("{vip} and {more} more VIPs"),
        })
    }
}

/// Conditions in groups: a director that is gone is one event, however many VIPs there are.
pub fn groups<'a>(conditions: impl Iterator<Item = (&'a Key, &'a Held)>) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for (key, held) in conditions {
        match groups.last_mut() {
            Some(last) if last.key.is_alike(key) => last.count += 1,
            Some(_) | None => groups.push(Group {
                key,
                held,
                count: 1,
            }),
        }
    }
    groups
}
