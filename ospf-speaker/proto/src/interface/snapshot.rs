//! An interface as plain data.

use std::net::Ipv4Addr;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Interface;
use crate::auth::Authenticator;
use crate::config::{InterfaceConfig, LinkState};
use crate::election::Elected;
use crate::lsdb::DbKey;
use crate::moment::OutOfRange;
use crate::neighbor::{Neighbor, NeighborSnapshot};
use crate::packet::LsaHeader;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InterfaceSnapshot {
    /// As our Router-LSA has it, or is about to.
    pub(crate) cost: u16,
    link: Option<LinkState>,
    is_listening: bool,
    is_reserved: bool,
    neighbors: Vec<(Ipv4Addr, NeighborSnapshot)>,
    elected: Elected,
    delayed_acks: Vec<LsaHeader>,
    floods: Vec<DbKey>,
    #[serde(default)]
    next_auth_sequence: u32,
}

impl Interface {
    pub(crate) fn snapshot(&self, base: Instant) -> InterfaceSnapshot {
        let Self {
            // But for the cost, the configuration is the successor's own.
            settings,
            auth,
            link,
            is_listening,
            is_reserved,
            neighbors,
            elected,
            delayed_acks,
            floods,
        } = self;
        InterfaceSnapshot {
            cost: settings.cost,
            link: *link,
            is_listening: *is_listening,
            is_reserved: *is_reserved,
            neighbors: neighbors
                .iter()
                .map(|(&key, neighbor)| (key, neighbor.snapshot(base)))
                .collect(),
            elected: *elected,
            delayed_acks: delayed_acks.clone(),
            floods: floods.clone(),
            next_auth_sequence: auth.next_sequence,
        }
    }

    pub(crate) fn restore(
        settings: InterfaceConfig,
        snapshot: InterfaceSnapshot,
        base: Instant,
    ) -> Result<Self, OutOfRange> {
        let InterfaceSnapshot {
            cost: _,
            link,
            is_listening,
            is_reserved,
            neighbors,
            elected,
            delayed_acks,
            floods,
            next_auth_sequence,
        } = snapshot;
        let neighbor = |(key, neighbor)| Ok((key, Neighbor::restore(neighbor, base)?));
        Ok(Self {
            settings,
            // The keys are the successor's own: see `Router::set_authentication`.
            auth: Authenticator::new(next_auth_sequence),
            link,
            is_listening,
            is_reserved,
            neighbors: neighbors
                .into_iter()
                .map(neighbor)
                .collect::<Result<_, OutOfRange>>()?,
            elected,
            delayed_acks,
            floods,
        })
    }
}
