//! Our own LSAs as plain data; what they say is in the database.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{OwnLsa, OwnLsas};
use crate::config::Stub;
use crate::ids::NeighborId;
use crate::lsdb::DbKey;
use crate::moment::{Moment, OutOfRange};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnSnapshot {
    records: Vec<(DbKey, OwnLsaSnapshot)>,
    stale: BTreeSet<DbKey>,
    newcomers: Vec<(DbKey, Vec<NeighborId>)>,
    hint: Option<i32>,
    gathering: Option<Moment>,
    stubs: Vec<Stub>,
    is_asbr: bool,
    forwarding_address: Option<Ipv4Addr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct OwnLsaSnapshot {
    sequence: Option<i32>,
    is_published: bool,
    left: Option<Moment>,
    refresh_due: bool,
    wrapping: bool,
    contentions: Vec<Moment>,
}

impl OwnLsas {
    pub(crate) fn snapshot(&self, base: Instant) -> OwnSnapshot {
        let Self {
            records,
            stale,
            newcomers,
            hint,
            gathering,
            stubs,
            is_asbr,
            forwarding_address,
        } = self;
        OwnSnapshot {
            records: records
                .iter()
                .map(|(&key, own)| (key, own.snapshot(base)))
                .collect(),
            stale: stale.clone(),
            newcomers: newcomers
                .iter()
                .map(|(&key, neighbors)| (key, neighbors.clone()))
                .collect(),
            hint: *hint,
            gathering: gathering.map(|at| Moment::new(at, base)),
            stubs: stubs.clone(),
            is_asbr: *is_asbr,
            forwarding_address: *forwarding_address,
        }
    }

    pub(crate) fn restore(snapshot: OwnSnapshot, base: Instant) -> Result<Self, OutOfRange> {
        let OwnSnapshot {
            records,
            stale,
            newcomers,
            hint,
            gathering,
            stubs,
            is_asbr,
            forwarding_address,
        } = snapshot;
        let record = |(key, own)| Ok((key, OwnLsa::restore(own, base)?));
        Ok(Self {
            records: records
                .into_iter()
                .map(record)
                .collect::<Result<BTreeMap<_, _>, OutOfRange>>()?,
            stale,
            newcomers: newcomers.into_iter().collect(),
            hint,
            gathering: gathering.map(|at| at.instant(base)).transpose()?,
            stubs,
            is_asbr,
            forwarding_address,
        })
    }
}

impl OwnLsa {
    fn snapshot(&self, base: Instant) -> OwnLsaSnapshot {
        let Self {
            sequence,
            is_published,
            left,
            refresh_due,
            wrapping,
            contentions,
        } = self;
        let moment = |at: Instant| Moment::new(at, base);
        OwnLsaSnapshot {
            sequence: *sequence,
            is_published: *is_published,
            left: left.map(moment),
            refresh_due: *refresh_due,
            wrapping: *wrapping,
            contentions: contentions.iter().copied().map(moment).collect(),
        }
    }

    fn restore(snapshot: OwnLsaSnapshot, base: Instant) -> Result<Self, OutOfRange> {
        let OwnLsaSnapshot {
            sequence,
            is_published,
            left,
            refresh_due,
            wrapping,
            contentions,
        } = snapshot;
        let instant = |at: Moment| at.instant(base);
        Ok(Self {
            sequence,
            is_published,
            left: left.map(instant).transpose()?,
            refresh_due,
            wrapping,
            contentions: contentions
                .into_iter()
                .map(instant)
                .collect::<Result<VecDeque<_>, OutOfRange>>()?,
        })
    }
}
