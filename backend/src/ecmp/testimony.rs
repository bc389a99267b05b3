//! What the other directors' databases have of one director.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use isopath_api::ids::{DirectorName, NeighborState, RouterId, Vip};
use isopath_api::speaker::Status;

use super::{Witness, witnesses};
use crate::clock::Moment;
use crate::control::state::{ClusterState, DirectorState};

/// Why a director's database does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deaf {
    /// It may yet report: the controller has just started.
    NotYetHeard,
    /// It has not reported since the controller started.
    NeverHeard,
    /// Its last report is too old.
    Silent(Duration),
    /// Its agent cannot reach its speaker.
    NoSpeaker,
    /// Its speaker is Full with nobody, so that its database is its own alone.
    NotFull,
    /// Its speaker is Full for so short a time that it may reach nobody yet.
    JustFull(Duration),
    /// Its speaker does not know of the VIP and says nothing of it.
    UnknownVip,
}

impl fmt::Display for Deaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotYetHeard => f.write_str("it has not been heard since the controller started"),
            Self::NeverHeard => f.write_str("it was never heard"),
            Self::Silent(silent) => write!(f, "it is silent for {} s", silent.as_secs()),
            Self::NoSpeaker => f.write_str("its agent cannot reach its speaker"),
            Self::NotFull => f.write_str("it is Full with no neighbour"),
            Self::JustFull(full) => write!(f, "it is Full for {} s only", full.as_secs()),
            Self::UnknownVip => f.write_str("its speaker does not know of the VIP"),
        }
    }
}

/// For so long a speaker has to be Full before it is believed that others announce nothing. Its
/// neighbour originates its LSA with the new link up to MinLSInterval (5 s) later; until then no
/// path leads anywhere, and nobody who is not reached is listed. A calculation and a report follow.
const SETTLED: Duration = Duration::from_secs(7);

/// How long a speaker has been Full with the neighbour that it is Full with the longest.
fn full_for(speaker: &Status) -> Duration {
    let neighbors = speaker.neighbors.iter();
    let full = neighbors.filter(|it| it.state == NeighborState::Full);
    Duration::from_millis(full.map(|it| it.state_ms).max().unwrap_or(0))
}

/// What other directors say of one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Testimony {
    /// Where it is still listed: by witness, then VIP.
    pub listings: Vec<Listing>,
    /// The other directors whose database counts.
    pub witnesses: Vec<DirectorName>,
    /// The other directors whose database does not, and why.
    pub deaf: Vec<(DirectorName, Deaf)>,
    /// The VIPs that a witness's speaker knows of.
    pub known: BTreeSet<Vip>,
}

/// One place where a director is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Whose database has it so.
    pub witness: DirectorName,
    /// The VIP.
    pub vip: Vip,
    /// What it has.
    pub place: Place,
}

/// In what a director is listed for a VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Among the routers that announce it, at whatever cost.
    Announcers,
    /// In the equal-cost set of a switch: it receives clients.
    EqualCost {
        /// The switch.
        switch: RouterId,
    },
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            witness,
            vip,
            place,
        } = self;
        match place {
            Place::Announcers => write!(f, "the LSDB of {witness} has it announce {vip}"),
            Place::EqualCost { switch } => write!(
                f,
                "the LSDB of {witness} has it in the equal-cost set of {switch} for {vip}"
            ),
        }
    }
}

impl Testimony {
    /// Whether somebody who would know says that nothing is listed. Without a witness nothing is
    /// known, which is not the same as nothing being there.
    pub fn is_out(&self) -> bool {
        !self.witnesses.is_empty() && self.listings.is_empty()
    }

    /// Whether somebody who would know says that no switch sends it clients.
    pub fn is_out_of_sets(&self) -> bool {
        !self.witnesses.is_empty() && self.in_sets().next().is_none()
    }

    /// Where a switch still sends it clients.
    pub fn in_sets(&self) -> impl Iterator<Item = &Listing> {
        let in_set = |listing: &&Listing| matches!(listing.place, Place::EqualCost { .. });
        self.listings.iter().filter(in_set)
    }

    /// Whether another director may yet speak: its silence proves nothing so soon after the
    /// controller's start.
    pub fn is_early(&self) -> bool {
        let early = |(_, why): &(DirectorName, Deaf)| *why == Deaf::NotYetHeard;
        self.deaf.iter().any(early)
    }

    /// Whether a witness would know who announces a VIP.
    pub fn tells_of(&self, vip: Vip) -> bool {
        self.known.contains(&vip)
    }

    /// Whether somebody's database still has it announce anything: then its switch hears it.
    pub fn is_listed(&self) -> bool {
        !self.listings.is_empty()
    }
}

/// What the databases of all *other* directors have of `director`, for one VIP or for all that
/// they know.
///
/// A director that is not declared is listed nowhere.
pub fn testimony(
    cluster: &ClusterState,
    director: &DirectorName,
    vip: Option<Vip>,
    (now, started): (Moment, Moment),
) -> Testimony {
    let mut found = Testimony::default();
    let Some(subject) = cluster.directors.get(director) else {
        return found;
    };
    for (name, witness) in witnesses(cluster, now, started) {
        if name == director {
            continue;
        }
        let witness = witness.and_then(|witness| match vip {
            Some(vip) if !witness.speaker.announcers.contains_key(&vip) => Err(Deaf::UnknownVip),
            Some(_) | None => Ok(witness),
        });
        match witness {
            Err(why) => found.deaf.push((name.clone(), why)),
            Ok(witness) => {
                let full = full_for(witness.speaker);
                if full < SETTLED {
                    found.deaf.push((name.clone(), Deaf::JustFull(full)));
                } else {
                    found.witnesses.push(name.clone());
                    let known = witness.speaker.announcers.keys().copied();
                    found
                        .known
                        .extend(known.filter(|of| vip.is_none_or(|vip| vip == *of)));
                }
                // What it does list is there.
                let listings = listings(witness, subject.router_id, vip);
                found.listings.extend(listings);
            }
        }
    }
    found
}

/// Of each director whether the database of another one lists it for any VIP: then a switch hears
/// it. A director that no other can tell of is left out.
pub fn heard(
    cluster: &ClusterState,
    (now, started): (Moment, Moment),
) -> Vec<(DirectorName, bool)> {
    let mut listed: Vec<(&DirectorName, bool, BTreeSet<RouterId>)> = Vec::new();
    for (name, witness) in witnesses(cluster, now, started) {
        if let Ok(witness) = witness {
            let is_settled = full_for(witness.speaker) >= SETTLED;
            let routers = witness.speaker.announcers.values().flatten();
            listed.push((name, is_settled, routers.copied().collect()));
        }
    }
    let of = |(name, director): (&DirectorName, &DirectorState)| {
        let others = || listed.iter().filter(|(of, ..)| *of != name);
        let heard = others().any(|(.., routers)| routers.contains(&director.router_id));
        let is_told = heard || others().any(|(_, is_settled, _)| *is_settled);
        is_told.then(|| (name.clone(), heard))
    };
    cluster.directors.iter().filter_map(of).collect()
}

fn listings(
    witness: Witness<'_>,
    router: RouterId,
    vip: Option<Vip>,
) -> impl Iterator<Item = Listing> {
    let listing = move |vip, place| Listing {
        witness: witness.name.clone(),
        vip,
        place,
    };
    let is_meant = move |of: Vip| vip.is_none_or(|vip| vip == of);
    let announcers = witness.speaker.announcers.iter();
    let announced = announcers
        .filter(move |(vip, routers)| is_meant(**vip) && routers.contains(&router))
        .map(move |(vip, _)| listing(*vip, Place::Announcers));
    let widths = witness.speaker.widths.iter();
    let in_sets = widths
        .filter(move |width| width.through.contains(&router))
        .flat_map(|width| width.vips.iter().map(|vip| (width.router_id, *vip)))
        .filter(move |(_, vip)| is_meant(*vip))
        .map(move |(switch, vip)| listing(vip, Place::EqualCost { switch }));
    announced.chain(in_sets)
}
