//! Measurements, as they are asked for.

use std::collections::BTreeMap;
use std::str::FromStr;

use isopath_api::ids::{ClusterName, ParseIdError};

use super::chunk::{Chunk, KINDS, Object};
use super::{COARSE_S, COARSE_WINDOW_S, Open, STEP_S, WINDOW_S, ms, window};
use crate::store::samples;
use sqlx::SqliteConnection;

/// Which objects are asked for: one, or all of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// One.
    One(Object),
    /// All of a kind, which is one of [`KINDS`].
    Kind(&'static str),
}

impl Selection {
    fn has(&self, object: &Object) -> bool {
        match self {
            Self::One(one) => one == object,
            Self::Kind(kind) => *kind == object.kind(),
        }
    }
}

impl FromStr for Selection {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match KINDS.into_iter().find(|kind| *kind == text) {
            Some(kind) => Ok(Self::Kind(kind)),
            None => text.parse().map(Self::One),
        }
    }
}

/// Which points are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first, a multiple of the step.
    pub from_ms: i64,
    /// How many.
    pub points: usize,
    /// The time from one to the next, in seconds: [`STEP_S`] or [`COARSE_S`].
    pub step_s: u32,
}

impl Range {
    /// The points from `from_ms` on and before `to_ms`.
    pub fn new(from_ms: i64, to_ms: i64, step_s: u32) -> Self {
        let from_ms = window(from_ms, step_s);
        let points = (to_ms - from_ms).max(0) as u64;
        Self {
            from_ms,
            points: usize::try_from(points.div_ceil(ms(step_s).unsigned_abs()))
                .unwrap_or(usize::MAX),
            step_s,
        }
    }

    fn to_ms(self) -> i64 {
        let points = i64::try_from(self.points).unwrap_or(i64::MAX);
        self.from_ms
            .saturating_add(points.saturating_mul(ms(self.step_s)))
    }
}

/// What was measured of each object: the points of each series, nothing where it was not known.
pub(crate) type Found = BTreeMap<Object, Vec<Vec<Option<u32>>>>;

/// The measurements of a cluster: stored ones, and those of the window that has not ended.
///
/// # Errors
/// When the database cannot be read.
pub async fn find(
    connection: &mut SqliteConnection,
    open: &Open,
    (cluster, selection): (&ClusterName, &Selection),
    range: Range,
) -> Result<Found, sqlx::Error> {
    let mut found = Found::new();
    let mut fine_from = range.from_ms;
    if range.step_s == COARSE_S {
        let from = window(range.from_ms, COARSE_WINDOW_S);
        let stored = samples::between(connection, cluster, COARSE_S, (from, range.to_ms())).await?;
        for row in stored {
            if let Some(chunk) = Chunk::unpack(&row.packed) {
                add(&mut found, selection, range, (row.start_ms, &chunk));
            }
            fine_from = fine_from.max(row.start_ms + ms(COARSE_WINDOW_S));
        }
    }
    let from = window(fine_from, WINDOW_S);
    let stored = samples::between(connection, cluster, STEP_S, (from, range.to_ms())).await?;
    let stored = stored
        .into_iter()
        .filter(|row| row.start_ms != open.start_ms)
        .filter_map(|row| Some((row.start_ms, Chunk::unpack(&row.packed)?)));
    let chunks = open.chunks.get(cluster);
    let chunks = chunks.map(|chunk| (open.start_ms, Chunk::clone(chunk)));
    for (start_ms, chunk) in stored.chain(chunks) {
        if range.step_s == STEP_S {
            add(&mut found, selection, range, (start_ms, &chunk));
        } else if start_ms >= from {
            let mut mean = Chunk::default();
            mean.push(0, chunk.mean());
            add(&mut found, selection, range, (start_ms, &mean));
        }
    }
    Ok(found)
}

/// Puts a window's points into their places.
fn add(found: &mut Found, selection: &Selection, range: Range, (start_ms, chunk): (i64, &Chunk)) {
    let first = (start_ms - range.from_ms).div_euclid(ms(range.step_s));
    for (object, series) in chunk.objects().filter(|(object, _)| selection.has(object)) {
        let into = found
            .entry(object.clone())
            .or_insert_with(|| vec![vec![None; range.points]; series.len()]);
        for (into, points) in into.iter_mut().zip(series) {
            for (place, point) in (first..).zip(points) {
                let place = usize::try_from(place).ok();
                if let Some(slot) = place.and_then(|place| into.get_mut(place)) {
                    *slot = *point;
                }
            }
        }
    }
}
