//! Measurements over time, for the charts: taken from what is known every [`STEP_S`] seconds,
//! kept in that resolution for hours and as means of [`COARSE_S`] seconds for weeks.
//!
//! A window's points are in memory until it ends, then one packed row for each cluster; a kill
//! costs at most that one window ([`WINDOW_S`]). Samples are no acknowledged writes: the task
//! beside the one that owns the state writes them, so that no report waits for them, and drops
//! the oldest when the database takes none for long.
//!
//! How much that is: a cluster of 8 directors with one VIP, one service and 20 real servers has
//! 68 series. A point is one to three bytes, and none where it stays the same for long. With numbers
//! that change at every point 125 such clusters take at most 70 MiB for 6 hours of 10 seconds and
//! 220 MiB for 30 days of 5 minutes (`tests::a_thousand_directors_stay_within_the_bound` measures
//! it).

mod chunk;
mod query;
mod reading;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use isopath_api::ids::ClusterName;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use chunk::{Chunk, KINDS, Object};
pub use query::{Range, Selection, find};

use crate::clock::{Clock, Moment};
use crate::control::Control;
use crate::control::state::World;
use crate::error::Error;
use crate::store::samples::{self, SampleRow};
use crate::store::{Store, WriteError};
use reading::readings;

/// The time between two measurements, in seconds.
pub const STEP_S: u32 = 10;
/// What one stored row of them spans, in seconds: it is one point of the coarse ones.
pub const WINDOW_S: u32 = 300;
/// The time between two points of what is kept for long, in seconds.
pub const COARSE_S: u32 = WINDOW_S;
/// What one stored row of those spans, in seconds.
pub const COARSE_WINDOW_S: u32 = 4 * 3600;

/// Rows that wait for the database: hours of a hundred clusters, some megabytes.
const MOST_WAITING: usize = 4096;
/// Rows of one transaction: whoever else wants to write waits for a few milliseconds at most.
const BATCH: usize = 25;
/// Clusters whose means are made at one measurement: all have their turn in minutes, of the hours
/// that there are.
const ROLLED_UP_AT_ONCE: usize = 4;

/// The windows that have not ended: when they began, and what was measured of each cluster.
#[derive(Debug, Clone, Default)]
pub struct Open {
    pub(crate) start_ms: i64,
    pub(crate) chunks: BTreeMap<ClusterName, Arc<Chunk>>,
}

/// Takes the measurements until `shutdown`, and stores what it has then.
pub(crate) async fn run(
    (store, clock, control): (Store, Clock, Control),
    shown: watch::Sender<Open>,
    shutdown: CancellationToken,
) {
    let mut recorder = Recorder::new(store, shown);
    recorder.start(clock.now(), &shutdown).await;
    loop {
        let past = clock.now().wall.as_millisecond().rem_euclid(ms(STEP_S));
        let pause = Duration::from_millis((ms(STEP_S) - past).unsigned_abs());
        // Both are cancel-safe: the token stays cancelled, and a pause cut short is the last.
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
        let now = clock.now();
        recorder.record(&control.world(), now);
        recorder.store_waiting().await;
        recorder.make_means(now).await;
    }
    recorder.close_window();
    recorder.store_waiting().await;
}

/// Seconds as the tables have them.
pub(crate) fn ms(seconds: u32) -> i64 {
    i64::from(seconds) * 1000
}

/// The beginning of the window of `span_s` seconds that a moment is in.
pub(crate) fn window(at_ms: i64, span_s: u32) -> i64 {
    at_ms - at_ms.rem_euclid(ms(span_s))
}

/// The place of a moment among the points of a window.
pub(crate) fn place(at_ms: i64, start_ms: i64, step_s: u32) -> usize {
    usize::try_from((at_ms - start_ms).div_euclid(ms(step_s))).unwrap_or(0)
}

struct Recorder {
    store: Store,
    open: Open,
    /// Windows that ended and are not stored yet, the earliest first.
    waiting: VecDeque<SampleRow>,
    /// The beginning of the first window whose means may still be to be made.
    next_means: BTreeMap<ClusterName, i64>,
    shown: watch::Sender<Open>,
}

impl Recorder {
    fn new(store: Store, shown: watch::Sender<Open>) -> Self {
        Self {
            store,
            open: Open::default(),
            waiting: VecDeque::new(),
            next_means: BTreeMap::new(),
            shown,
        }
    }

    /// Goes on where a controller before has stopped.
    async fn start(&mut self, now: Moment, shutdown: &CancellationToken) {
        if let Err(error) = self.load(now).await {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "cannot read the last measurements");
        }
        // After a long stop those of all clusters are due, of samples that are old enough to be
        // deleted in a minute.
        while !shutdown.is_cancelled() && self.make_means(now).await {}
    }

    async fn load(&mut self, now: Moment) -> Result<(), Error> {
        let mut reader = self.store.read().await?;
        let start_ms = window(now.wall.as_millisecond(), WINDOW_S);
        self.open.start_ms = start_ms;
        for row in samples::at(&mut reader, STEP_S, start_ms).await? {
            if let Some(chunk) = Chunk::unpack(&row.packed) {
                self.open.chunks.insert(row.cluster, chunk.into());
            }
        }
        for (cluster, (first, _)) in samples::spans(&mut reader, STEP_S).await? {
            self.next_means
                .insert(cluster, window(first, COARSE_WINDOW_S));
        }
        // Where nothing is left to make means of, those that there are stay all the same: samples
        // of a clock that was set back would replace them.
        for (cluster, (_, last)) in samples::spans(&mut reader, COARSE_S).await? {
            self.next_means.insert(cluster, last + ms(COARSE_WINDOW_S));
        }
        self.shown.send_replace(self.open.clone());
        Ok(())
    }

    /// Takes one measurement of every cluster.
    fn record(&mut self, world: &World, now: Moment) {
        let now_ms = now.wall.as_millisecond();
        let start_ms = window(now_ms, WINDOW_S);
        if start_ms != self.open.start_ms {
            self.close_window();
            self.open.start_ms = start_ms;
        }
        let place = place(now_ms, start_ms, STEP_S);
        for (name, cluster) in &world.clusters {
            let chunk = self.open.chunks.entry(name.clone()).or_default();
            Arc::make_mut(chunk).push(place, readings(cluster, now));
        }
        self.shown.send_replace(self.open.clone());
    }

    fn close_window(&mut self) {
        let start_ms = self.open.start_ms;
        for (cluster, chunk) in std::mem::take(&mut self.open.chunks) {
            self.next_means
                .entry(cluster.clone())
                .or_insert_with(|| window(start_ms, COARSE_WINDOW_S));
            if self.waiting.len() == MOST_WAITING {
                self.waiting.pop_front();
            }
            self.waiting.push_back(SampleRow {
                cluster,
                step_s: STEP_S,
                start_ms,
                packed: chunk.pack(),
            });
        }
    }

    /// Stores the windows that ended, as far as the database takes them.
    async fn store_waiting(&mut self) {
        while !self.waiting.is_empty() {
            match self.store_batch().await {
                Ok(stored) => drop(self.waiting.drain(..stored)),
                // Said by the store itself, once.
                Err(WriteError::ReadOnly(_)) => return,
                Err(WriteError::Failed(error)) => {
                    tracing::error!(%error, "cannot store measurements; it is tried again");
                    return;
                }
            }
        }
    }

    async fn store_batch(&self) -> Result<usize, WriteError> {
        let mut transaction = self.store.begin().await?;
        let batch = self.waiting.len().min(BATCH);
        for row in self.waiting.iter().take(batch) {
            samples::put(&mut transaction, row).await?;
        }
        transaction.commit().await?;
        Ok(batch)
    }

    /// Makes the means of windows that ended, a few clusters at a time; whether there
    /// were any.
    async fn make_means(&mut self, now: Moment) -> bool {
        match self.roll_up(now).await {
            Ok(any) => any,
            // Said by the store itself, once.
            Err(Error::ReadOnly(_)) => false,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "cannot make the means of measurements");
                false
            }
        }
    }

    async fn roll_up(&mut self, now: Moment) -> Result<bool, Error> {
        // What is still to be stored may belong to them.
        if !self.waiting.is_empty() {
            return Ok(false);
        }
        let ended = window(now.wall.as_millisecond(), COARSE_WINDOW_S);
        let due = self.next_means.iter().filter(|(_, next)| **next < ended);
        let due: Vec<_> = due
            .take(ROLLED_UP_AT_ONCE)
            .map(|(cluster, next)| (cluster.clone(), *next))
            .collect();
        let any = !due.is_empty();
        for (cluster, from_ms) in due {
            let start_ms = self.first_window(&cluster, (from_ms, ended)).await?;
            let end_ms = start_ms + ms(COARSE_WINDOW_S);
            if start_ms < ended {
                self.roll_up_window(&cluster, (start_ms, end_ms)).await?;
            }
            self.next_means.insert(cluster, end_ms.min(ended));
        }
        Ok(any)
    }

    /// The beginning of the first window from `from_ms` on that anything was measured in, or
    /// `ended`: windows without anything are passed over, however long nobody measured.
    async fn first_window(
        &self,
        cluster: &ClusterName,
        (from_ms, ended): (i64, i64),
    ) -> Result<i64, Error> {
        let mut reader = self.store.read().await?;
        let first = samples::first(&mut reader, cluster, STEP_S, (from_ms, ended)).await?;
        Ok(first.map_or(ended, |first| window(first, COARSE_WINDOW_S)))
    }

    async fn roll_up_window(
        &self,
        cluster: &ClusterName,
        (start_ms, end_ms): (i64, i64),
    ) -> Result<(), Error> {
        let mut reader = self.store.read().await?;
        let rows = samples::between(&mut reader, cluster, STEP_S, (start_ms, end_ms)).await?;
        drop(reader);
        let means = means(start_ms, &rows);
        if means.points() > 0 {
            let row = SampleRow {
                cluster: cluster.clone(),
                step_s: COARSE_S,
                start_ms,
                packed: means.pack(),
            };
            let mut transaction = self.store.begin().await?;
            samples::put(&mut transaction, &row).await?;
            transaction.commit().await?;
        }
        Ok(())
    }
}

/// The coarse window that begins at `start_ms`, of the windows in it.
fn means(start_ms: i64, rows: &[SampleRow]) -> Chunk {
    let mut means = Chunk::default();
    for row in rows {
        if let Some(chunk) = Chunk::unpack(&row.packed) {
            means.push(place(row.start_ms, start_ms, COARSE_S), chunk.mean());
        }
    }
    means
}

#[cfg(test)]
mod tests;
