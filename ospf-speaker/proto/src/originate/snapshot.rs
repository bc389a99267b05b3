//! Our own LSA as plain data.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{OwnRouterLsa, Published};
use crate::config::Stub;
use crate::ids::NeighborId;
use crate::moment::{Moment, OutOfRange};
use crate::packet::Hex;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnSnapshot {
    is_stale: bool,
    newcomers: Vec<NeighborId>,
    sequence: Option<i32>,
    published: Option<PublishedSnapshot>,
    left: Option<Moment>,
    refresh_due: bool,
    wrapping: bool,
    gathering: Option<Moment>,
    contentions: Vec<Moment>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PublishedSnapshot {
    body: Hex,
    stubs: Vec<Stub>,
}

impl OwnRouterLsa {
    pub(crate) fn snapshot(&self, base: Instant) -> OwnSnapshot {
        let Self {
            is_stale,
            newcomers,
            sequence,
            published,
            left,
            refresh_due,
            wrapping,
            gathering,
            contentions,
        } = self;
        let moment = |at: Instant| Moment::new(at, base);
        OwnSnapshot {
            is_stale: *is_stale,
            newcomers: newcomers.clone(),
            sequence: *sequence,
            published: published.as_ref().map(|Published { body, stubs }| {
                let (body, stubs) = (Hex(body.clone()), stubs.clone());
                PublishedSnapshot { body, stubs }
            }),
            left: left.map(moment),
            refresh_due: *refresh_due,
            wrapping: *wrapping,
            gathering: gathering.map(moment),
            contentions: contentions.iter().copied().map(moment).collect(),
        }
    }

    pub(crate) fn restore(snapshot: OwnSnapshot, base: Instant) -> Result<Self, OutOfRange> {
        let OwnSnapshot {
            is_stale,
            newcomers,
            sequence,
            published,
            left,
            refresh_due,
            wrapping,
            gathering,
            contentions,
        } = snapshot;
        let instant = |at: Moment| at.instant(base);
        Ok(Self {
            is_stale,
            newcomers,
            sequence,
            published: published.map(|PublishedSnapshot { body, stubs }| Published {
                body: body.0,
                stubs,
            }),
            left: left.map(instant).transpose()?,
            refresh_due,
            wrapping,
            gathering: gathering.map(instant).transpose()?,
            contentions: contentions
                .into_iter()
                .map(instant)
                .collect::<Result<_, OutOfRange>>()?,
        })
    }
}
