//! Who is a segment's Designated Router and its Backup (RFC 2328 §9.4), seen by a router of
//! priority 0: the calculation runs over the neighbours only, and a single time, since its second
//! pass is for a router that wins or loses an election itself.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::ids::RouterId;
use crate::neighbor::Neighbor;

/// The outcome: addresses on the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Elected {
    pub(crate) dr: Option<Ipv4Addr>,
    pub(crate) bdr: Option<Ipv4Addr>,
}

impl Elected {
    /// Whether a router is one of the two.
    pub(crate) fn includes(self, address: Ipv4Addr) -> bool {
        self.dr == Some(address) || self.bdr == Some(address)
    }
}

/// A neighbour in 2-Way or above, with what it declares in its Hellos.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) address: Ipv4Addr,
    pub(crate) router_id: RouterId,
    pub(crate) priority: u8,
    pub(crate) dr: Ipv4Addr,
    pub(crate) bdr: Ipv4Addr,
}

impl From<&Neighbor> for Candidate {
    fn from(neighbor: &Neighbor) -> Self {
        Self {
            address: neighbor.address,
            router_id: neighbor.router_id,
            priority: neighbor.priority,
            dr: neighbor.dr,
            bdr: neighbor.bdr,
        }
    }
}

impl Candidate {
    fn declares_itself_dr(&self) -> bool {
        self.dr == self.address
    }

    fn declares_itself_bdr(&self) -> bool {
        self.bdr == self.address
    }
}

/// Elects among the neighbours.
pub(crate) fn elect(neighbors: &[Candidate]) -> Elected {
    let best = |eligible: &dyn Fn(&Candidate) -> bool| {
        neighbors
            .iter()
            .filter(|candidate| candidate.priority > 0 && eligible(candidate))
            .max_by_key(|candidate| (candidate.priority, candidate.router_id))
            .map(|candidate| candidate.address)
    };
    // Step 2: the Backup comes from those that do not declare themselves Designated Router,
    // before all from those that declare themselves Backup.
    let bdr = best(&|candidate| !candidate.declares_itself_dr() && candidate.declares_itself_bdr())
        .or_else(|| best(&|candidate| !candidate.declares_itself_dr()));
    // Step 3: the Designated Router is one that declares itself so, else the Backup.
    let dr = best(&Candidate::declares_itself_dr).or(bdr);
    Elected { dr, bdr }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

    fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 1, 0, last)
    }

    fn candidate(last: u8, priority: u8, dr: Ipv4Addr, bdr: Ipv4Addr) -> Candidate {
        Candidate {
            address: address(last),
            router_id: RouterId(Ipv4Addr::new(10, 0, 0, last)),
            priority,
            dr,
            bdr,
        }
    }

    #[test]
    fn nobody_is_elected_on_an_empty_segment_or_among_priority_zero() {
        assert_eq!(elect(&[]), Elected::default());
        let others = [
            candidate(1, 0, NOBODY, NOBODY),
            candidate(2, 0, NOBODY, NOBODY),
        ];
        assert_eq!(elect(&others), Elected::default());
    }

    #[test]
    fn declared_routers_keep_their_place_against_a_higher_priority() {
        let elected = elect(&[
            candidate(1, 1, address(1), address(2)),
            candidate(2, 1, address(1), address(2)),
            candidate(3, 200, NOBODY, NOBODY),
        ]);
        assert_eq!(elected.dr, Some(address(1)));
        assert_eq!(elected.bdr, Some(address(2)));
    }

    #[test]
    fn the_backup_steps_up_when_nobody_declares_itself_dr() {
        let elected = elect(&[
            candidate(2, 1, address(1), address(2)),
            candidate(3, 9, address(1), address(2)),
        ]);
        assert_eq!(elected.dr, Some(address(2)));
        assert_eq!(elected.bdr, Some(address(2)));
    }

    #[test]
    fn priority_then_router_id_decide_between_declared_routers() {
        let two = [
            candidate(1, 1, address(1), NOBODY),
            candidate(2, 1, address(2), NOBODY),
        ];
        assert_eq!(elect(&two).dr, Some(address(2)), "by router id");
        let three = [two[0], two[1], candidate(3, 2, address(3), NOBODY)];
        assert_eq!(elect(&three).dr, Some(address(3)), "by priority");
        assert_eq!(elect(&three).bdr, None, "all declare themselves DR");
    }
}
