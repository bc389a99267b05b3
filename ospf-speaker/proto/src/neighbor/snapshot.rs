//! A neighbour as plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Neighbor, State};
use crate::auth::Received;
use crate::dbdesc::Exchange;
use crate::ids::RouterId;
use crate::lsdb::DbKey;
use crate::moment::{Moment, OutOfRange};
use crate::packet::LsaHeader;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NeighborSnapshot {
    router_id: RouterId,
    address: Ipv4Addr,
    priority: u8,
    dr: Ipv4Addr,
    bdr: Ipv4Addr,
    state: State,
    since: Moment,
    #[serde(default)]
    received: Option<Received>,
    exchange: Exchange,
    requests: Vec<(DbKey, LsaHeader)>,
    outstanding: BTreeSet<DbKey>,
    retransmit: Vec<(DbKey, Moment)>,
}

impl Neighbor {
    pub(crate) fn snapshot(&self, base: Instant) -> NeighborSnapshot {
        let Self {
            router_id,
            address,
            priority,
            dr,
            bdr,
            state,
            since,
            received,
            exchange,
            requests,
            outstanding,
            retransmit,
        } = self;
        NeighborSnapshot {
            router_id: *router_id,
            address: *address,
            priority: *priority,
            dr: *dr,
            bdr: *bdr,
            state: *state,
            since: Moment::new(*since, base),
            received: *received,
            exchange: exchange.clone(),
            requests: requests
                .iter()
                .map(|(&key, &header)| (key, header))
                .collect(),
            outstanding: outstanding.clone(),
            retransmit: retransmit
                .iter()
                .map(|(&key, &sent)| (key, Moment::new(sent, base)))
                .collect(),
        }
    }

    pub(crate) fn restore(snapshot: NeighborSnapshot, base: Instant) -> Result<Self, OutOfRange> {
        let NeighborSnapshot {
            router_id,
            address,
            priority,
            dr,
            bdr,
            state,
            since,
            received,
            exchange,
            requests,
            outstanding,
            retransmit,
        } = snapshot;
        let sent = |(key, sent): (DbKey, Moment)| Ok((key, sent.instant(base)?));
        Ok(Self {
            router_id,
            address,
            priority,
            dr,
            bdr,
            state,
            since: since.instant(base)?,
            received,
            exchange,
            requests: requests.into_iter().collect(),
            outstanding,
            retransmit: retransmit
                .into_iter()
                .map(sent)
                .collect::<Result<BTreeMap<DbKey, Instant>, OutOfRange>>()?,
        })
    }
}
