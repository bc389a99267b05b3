//! Of each VIP: what is wanted, what is said, and what the databases have.

use std::collections::{BTreeMap, BTreeSet};

use isopath_api::declare::VipSpec;
use isopath_api::desired::AdminState;
use isopath_api::ids::{DirectorName, RouterId, Vip};
use isopath_api::paths::{PathCost, Width};

use super::{Deaf, Witness, witnesses};
use crate::clock::Moment;
use crate::control::state::{ClusterState, DirectorState, is_connected};

/// What is wanted of a director for a VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// It should announce it.
    Announce {
        /// At this cost.
        cost: u16,
    },
    /// It is on its way out: announcing is right, and not announcing too.
    Leaving,
    /// It should not announce it.
    Out,
}

/// A VIP: wanted, said and real.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VipTruth {
    /// The VIP.
    pub vip: Vip,
    /// What is wanted of each declared director.
    pub wishes: BTreeMap<DirectorName, Wish>,
    /// Those that should announce it at the lowest cost, over which switches should spread it.
    pub lowest: BTreeSet<DirectorName>,
    /// Those whose fresh report says that their own database carries their announcement.
    pub said: BTreeMap<DirectorName, Said>,
    /// The directors whose database is counted.
    pub witnesses: Vec<DirectorName>,
    /// Those whose database is not, and why.
    pub deaf: Vec<(DirectorName, Deaf)>,
    /// The routers that announce it, at whatever cost, as most databases have it.
    pub announcers: BTreeSet<RouterId>,
    /// The witnesses that have other announcers.
    pub dissent: Vec<Dissent<BTreeSet<RouterId>>>,
    /// The switches that a witness reaches, by router id.
    pub switches: Vec<SwitchTruth>,
}

/// What a director says of its own announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// The metric.
    pub cost: u16,
    /// Whether every Full neighbour has acknowledged it.
    pub acknowledged: bool,
    /// Whether it is Full with anybody, without which nobody hears it.
    pub connected: bool,
}

/// How a switch spreads a VIP, as most databases have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchTruth {
    /// The switch.
    pub switch: RouterId,
    /// The set.
    pub equal: Equal,
    /// The witnesses that have it otherwise.
    pub dissent: Vec<Dissent<Equal>>,
}

/// An equal-cost set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equal {
    /// The routers that announce the VIP at the lowest cost.
    pub through: BTreeSet<RouterId>,
    /// How many next hops lead to them; 0 without a path.
    pub width: u32,
    /// That cost.
    pub cost: Option<PathCost>,
}

/// What a witness has otherwise than most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dissent<T> {
    /// The witness.
    pub witness: DirectorName,
    /// What it has.
    pub has: T,
}

impl VipTruth {
    /// The directors that should announce it.
    pub fn wanted(&self) -> impl Iterator<Item = &DirectorName> {
        let announce = |(_, wish): &(&DirectorName, &Wish)| matches!(wish, Wish::Announce { .. });
        self.wishes.iter().filter(announce).map(|(name, _)| name)
    }

    /// Whether any database is known.
    pub fn is_known(&self) -> bool {
        !self.witnesses.is_empty()
    }
}

/// What is wanted of a director for a VIP: by the declaration, and by what the operator wants of
/// the director and of the VIP.
pub fn wish(
    cluster: &ClusterState,
    spec: &VipSpec,
    name: &DirectorName,
    director: &DirectorState,
) -> Wish {
    match cluster.quiesced.vip(spec.address) {
        AdminState::Active => {}
        AdminState::Draining => return Wish::Leaving,
        AdminState::Drained => return Wish::Out,
    }
    match director.admin_state {
        AdminState::Active => Wish::Announce {
            cost: spec.cost_at(name),
        },
        AdminState::Draining => Wish::Leaving,
        AdminState::Drained => Wish::Out,
    }
}

/// Every declared VIP, in the declared order.
pub fn truth(cluster: &ClusterState, now: Moment, started: Moment) -> Vec<VipTruth> {
    let mut heard = Vec::new();
    let mut deaf = Vec::new();
    for (name, witness) in witnesses(cluster, now, started) {
        match witness {
            Ok(witness) => heard.push(witness),
            Err(why) => deaf.push((name.clone(), why)),
        }
    }
    let specs = cluster.declaration.vip.iter();
    specs
        .map(|spec| of_vip(cluster, spec, now, (&heard, &deaf)))
        .collect()
}

fn of_vip(
    cluster: &ClusterState,
    spec: &VipSpec,
    now: Moment,
    (heard, deaf): (&[Witness<'_>], &[(DirectorName, Deaf)]),
) -> VipTruth {
    let vip = spec.address;
    let directors = cluster.directors.iter();
    let wishes: BTreeMap<DirectorName, Wish> = directors
        .map(|(name, director)| (name.clone(), wish(cluster, spec, name, director)))
        .collect();
    let mut deaf = deaf.to_vec();
    let mut witnesses = Vec::new();
    for witness in heard {
        if witness.speaker.announcers.contains_key(&vip) {
            witnesses.push(*witness);
        } else {
            deaf.push((witness.name.clone(), Deaf::UnknownVip));
        }
    }
    let announcers = witnesses.iter().map(|witness| {
        let routers = witness.speaker.announcers.get(&vip).into_iter().flatten();
        (*witness, routers.copied().collect())
    });
    let (announcers, dissent) = agree(announcers.collect());
    VipTruth {
        vip,
        lowest: lowest(&wishes),
        wishes,
        said: said(cluster, vip, now),
        switches: switches(cluster, vip, &witnesses),
        witnesses: witnesses.iter().map(|it| it.name.clone()).collect(),
        deaf,
        announcers: announcers.unwrap_or_default(),
        dissent,
    }
}

fn lowest(wishes: &BTreeMap<DirectorName, Wish>) -> BTreeSet<DirectorName> {
    let cost_of = |wish: &Wish| match wish {
        Wish::Announce { cost } => Some(*cost),
        Wish::Leaving | Wish::Out => None,
    };
    let Some(lowest) = wishes.values().filter_map(cost_of).min() else {
        return BTreeSet::new();
    };
    let cheapest = wishes
        .iter()
        .filter(|(_, wish)| cost_of(wish) == Some(lowest));
    cheapest.map(|(name, _)| name.clone()).collect()
}

fn said(cluster: &ClusterState, vip: Vip, now: Moment) -> BTreeMap<DirectorName, Said> {
    let of = |(name, director): (&DirectorName, &DirectorState)| {
        let observed = director.fresh(now)?;
        let speaker = observed.speaker.as_ref()?;
        let mut announced = speaker.announced.iter();
        let announced = announced.find(|it| it.vip == vip && it.in_lsdb)?;
        let said = Said {
            cost: announced.cost,
            acknowledged: announced.acknowledged,
            connected: is_connected(observed),
        };
        Some((name.clone(), said))
    };
    cluster.directors.iter().filter_map(of).collect()
}

fn switches(cluster: &ClusterState, vip: Vip, witnesses: &[Witness<'_>]) -> Vec<SwitchTruth> {
    let mut seen: BTreeMap<RouterId, Vec<(Witness<'_>, Equal)>> = BTreeMap::new();
    for witness in witnesses {
        let widths = witness.speaker.widths.iter();
        // The VIPs of a width are ascending.
        let of_vip = widths.filter(|width| width.vips.binary_search(&vip).is_ok());
        for width in of_vip {
            // A neighbour on a shared network counts as one that forwards: a director does not.
            if cluster.director_of(width.router_id).is_none() {
                let seen = seen.entry(width.router_id).or_default();
                seen.push((*witness, Equal::from(width)));
            }
        }
    }
    let switch = |(switch, seen)| {
        let (equal, dissent) = agree(seen);
        Some(SwitchTruth {
            switch,
            equal: equal?,
            dissent,
        })
    };
    seen.into_iter().filter_map(switch).collect()
}

impl From<&Width> for Equal {
    fn from(width: &Width) -> Self {
        Self {
            through: width.through.iter().copied().collect(),
            width: width.width,
            cost: width.cost,
        }
    }
}

/// What most witnesses have, and those that have it otherwise. Of two that equally many have,
/// the one that was said last: while a change is being flooded the newer is the later truth.
fn agree<T: PartialEq>(mut seen: Vec<(Witness<'_>, T)>) -> (Option<T>, Vec<Dissent<T>>) {
    // As nearly always: all have the same.
    if seen.iter().skip(1).all(|(_, has)| *has == seen[0].1) {
        return (seen.pop().map(|(_, has)| has), Vec::new());
    }
    let standing = |(_, has): &(Witness<'_>, T)| {
        let same = || seen.iter().filter(|(_, other)| other == has);
        let latest = same().map(|(witness, _)| witness.heard.instant).max();
        (same().count(), latest)
    };
    let most = (0..seen.len()).max_by_key(|index| standing(&seen[*index]));
    let Some(most) = most else {
        return (None, Vec::new());
    };
    let (_, agreed) = seen.swap_remove(most);
    seen.retain(|(_, has)| *has != agreed);
    seen.sort_by_key(|(witness, _)| witness.name);
    let dissent = seen.into_iter().map(|(witness, has)| Dissent {
        witness: witness.name.clone(),
        has,
    });
    let dissent = dissent.collect();
    (Some(agreed), dissent)
}
