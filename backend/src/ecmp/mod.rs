//! Who should announce each VIP, who says it does, and who really is in the equal-cost set of
//! each switch: computed purely from what is declared and what the directors report.
//!
//! Nobody asks a switch. Each director's speaker holds the same link-state database as the
//! switches of its area and calculates from it what they calculate (RFC 2328 §16.1, from the
//! switch's place in the graph); its reports carry the result. So every director is a witness
//! of all the others, and of itself the least trustworthy one: [`testimony`] about a director
//! leaves that director out.

mod conditions;
mod differences;
mod testimony;
mod truth;
mod view;

pub use conditions::{
    Conditions, Difference, Group, Held, Key, conditions, groups, raised, threshold,
};
pub use differences::meant;
pub use testimony::{Deaf, Listing, Place, Testimony, heard, testimony};
pub use truth::{Dissent, Equal, Said, SwitchTruth, VipTruth, Wish, truth, wish};
pub use view::{listed, view};

use isopath_api::ids::DirectorName;
use isopath_api::speaker::Status;

use crate::clock::Moment;
use crate::control::state::{ClusterState, DirectorState, Liveness, is_connected};

/// A director whose database counts.
#[derive(Clone, Copy)]
struct Witness<'a> {
    name: &'a DirectorName,
    speaker: &'a Status,
    /// When it said so.
    heard: Moment,
}

/// The directors by whether their database counts, in the order of their names.
fn witnesses(
    cluster: &ClusterState,
    now: Moment,
    started: Moment,
) -> impl Iterator<Item = (&DirectorName, Result<Witness<'_>, Deaf>)> {
    cluster
        .directors
        .iter()
        .map(move |(name, director)| (name, witness(name, director, now, started)))
}

fn witness<'a>(
    name: &'a DirectorName,
    director: &'a DirectorState,
    now: Moment,
    started: Moment,
) -> Result<Witness<'a>, Deaf> {
    let silent = |liveness| match liveness {
        Liveness::Stale(silent) | Liveness::Lost(silent) => Deaf::Silent(silent),
        Liveness::NotYetHeard => Deaf::NotYetHeard,
        Liveness::NeverHeard | Liveness::Fresh => Deaf::NeverHeard,
    };
    let (Some(report), Some(observed)) = (&director.report, director.fresh(now)) else {
        return Err(silent(director.liveness(now, started)));
    };
    let speaker = observed.speaker.as_ref().ok_or(Deaf::NoSpeaker)?;
    // Alone it hears of nobody's withdrawal, and of nobody's announcement either.
    if !is_connected(observed) {
        return Err(Deaf::NotFull);
    }
    Ok(Witness {
        name,
        speaker,
        heard: report.received,
    })
}

#[cfg(test)]
mod tests;
