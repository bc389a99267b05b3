//! The mutation check: the core is broken in one way after the other, and the property that
//! forbids it has to notice. A property that cannot fail proves nothing.

use isopath_ospf::Sabotage;

use crate::properties::{self, Violation};
use crate::scenario::{self, Options};

/// What is done wrong, and which property says so. 14 is BFD's.
const MUTATIONS: [(Sabotage, u8); 19] = [
    (Sabotage::FloodNothingOn, 1),
    (Sabotage::LoseTheLastState, 2),
    (Sabotage::OutbidNothing, 2),
    (Sabotage::Hurry, 3),
    (Sabotage::ForgetTheHint, 4),
    (Sabotage::AcknowledgeDropped, 5),
    (Sabotage::RetransmitForEver, 5),
    (Sabotage::PurgeNothing, 6),
    (Sabotage::PurgeTooSoon, 6),
    (Sabotage::InviteTransit, 7),
    (Sabotage::StandForElection, 8),
    (Sabotage::FullTooSoon, 9),
    (Sabotage::AskOnce, 10),
    (Sabotage::RepeatTheAuthSequence, 11),
    (Sabotage::KeepUnhealthy, 12),
    (Sabotage::ForgetTheNeighbors, 13),
    (Sabotage::TrailingByte, 15),
    (Sabotage::StandStill, 16),
    (Sabotage::IgnoreTheSeed, 17),
];

/// So many seeds have to be enough to notice.
const SEEDS: u64 = 300;

#[test]
fn every_mutation_is_caught_by_the_property_that_forbids_it() {
    let mut wrong = Vec::new();
    for (sabotage, property) in MUTATIONS {
        // Others may notice first: what is wrong in one way is soon wrong in several.
        let mut violations = (0..SEEDS).filter_map(|seed| caught(seed, sabotage));
        if !violations.any(|violation| violation.property == property) {
            wrong.push(format!(
                "{sabotage:?} goes unnoticed by property {property}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn caught(seed: u64, sabotage: Sabotage) -> Option<Violation> {
    let options = Options {
        sabotage: Some(sabotage),
        ..Options::default()
    };
    let first = scenario::run(seed, options);
    if let Err(violation) = first.result {
        return Some(violation);
    }
    if sabotage != Sabotage::IgnoreTheSeed {
        return None;
    }
    let second = scenario::run(seed, options);
    properties::the_same_seed_gives_the_same_trace(first.hash, second.hash).err()
}
