//! What keeps the database's file bounded: old rows go, empty pages are given back, and the WAL is
//! begun anew.

use std::time::Duration;

use isopath_api::fault::Fault;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::store::retention::{Kept, delete_old};
use crate::store::{Store, WriteError};

/// How often it is looked for what is old.
const EVERY: Duration = Duration::from_secs(60);
/// Rows of one kind in one transaction: whoever else wants to write waits for milliseconds.
const BATCH: u32 = 200;
/// The pause between two transactions.
const PAUSE: Duration = Duration::from_millis(50);
/// Batches of one look: the rest is for the next one.
const MOST_BATCHES: usize = 100;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// `[retention]`: how long things are kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionSettings {
    /// Events.
    #[serde(with = "isopath_api::duration")]
    pub events: Duration,
    /// The most events.
    pub most_events: u64,
    /// Operations, from their end on.
    #[serde(with = "isopath_api::duration")]
    pub operations: Duration,
    /// The audit log.
    #[serde(with = "isopath_api::duration")]
    pub audit: Duration,
    /// Measurements every 10 seconds.
    #[serde(with = "isopath_api::duration")]
    pub samples: Duration,
    /// Their means over 5 minutes.
    #[serde(with = "isopath_api::duration")]
    pub means: Duration,
}

impl Default for RetentionSettings {
    fn default() -> Self {
        Self {
            events: 90 * DAY,
            most_events: 100_000,
            operations: 180 * DAY,
            audit: 400 * DAY,
            samples: 6 * HOUR,
            means: 30 * DAY,
        }
    }
}

impl RetentionSettings {
    /// What is out of bounds, with its pointer.
    pub fn faults(&self) -> Vec<Fault> {
        let decade = 3660 * DAY;
        let mut faults = Vec::new();
        for (key, found, least, most, words) in [
            ("events", self.events, HOUR, decade, "from 1h to 3660days"),
            (
                "operations",
                self.operations,
                HOUR,
                decade,
                "from 1h to 3660days",
            ),
            ("audit", self.audit, DAY, decade, "from 1day to 3660days"),
            // Their means are made of four hours, some minutes after those.
            (
                "samples",
                self.samples,
                5 * HOUR,
                7 * DAY,
                "from 5h to 7days",
            ),
            ("means", self.means, DAY, 400 * DAY, "from 1day to 400days"),
        ] {
            if !(least..=most).contains(&found) {
                let pointer = format!("/retention/{key}");
                let expected = format!("a time {words}");
                faults.push(Fault::new(pointer, expected, format_args!("{found:?}")));
            }
        }
        if !(1000..=10_000_000).contains(&self.most_events) {
            let expected = "a number from 1000 to 10000000";
            faults.push(Fault::new(
                "/retention/most_events",
                expected,
                self.most_events,
            ));
        }
        faults
    }

    fn kept(&self) -> Kept {
        Kept {
            events: self.events,
            most_events: self.most_events,
            operations: self.operations,
            audit: self.audit,
            samples: self.samples,
            means: self.means,
        }
    }
}

/// Keeps the file bounded until `shutdown`.
pub async fn run(
    store: Store,
    clock: Clock,
    settings: RetentionSettings,
    shutdown: CancellationToken,
) {
    let kept = settings.kept();
    loop {
        // Both are cancel-safe: the token stays cancelled, and the pause is the last then.
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        match sweep(&store, &clock, &kept).await {
            // Said by the store itself, once.
            Ok(()) | Err(WriteError::ReadOnly(_)) => {}
            Err(WriteError::Failed(error)) => {
                tracing::error!(%error, "cannot delete what is old; it is tried again");
            }
        }
    }
}

/// One look: what is old goes, as far as [`MOST_BATCHES`] take it, and the file shrinks.
async fn sweep(store: &Store, clock: &Clock, kept: &Kept) -> Result<(), WriteError> {
    for _ in 0..MOST_BATCHES {
        let mut transaction = store.begin().await?;
        let deleted = delete_old(&mut transaction, kept, clock.now().wall, BATCH).await?;
        if deleted == 0 {
            transaction.rollback().await?;
            break;
        }
        transaction.commit().await?;
        tokio::time::sleep(PAUSE).await;
    }
    store.compact().await
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tempfile::TempDir;

    use super::*;
    use crate::store::clusters::{self, Provenance};
    use crate::store::events::{self, NewEvent};
    use crate::store::samples::{self, SampleRow};
    use crate::testing::{CLUSTER, declaration, url};

    fn kept() -> Kept {
        let settings = RetentionSettings {
            events: HOUR,
            most_events: 1000,
            samples: 5 * HOUR,
            means: DAY,
            ..RetentionSettings::default()
        };
        assert_eq!(settings.faults(), []);
        settings.kept()
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        assert_eq!(RetentionSettings::default().faults(), []);
        let settings = RetentionSettings {
            samples: 4 * HOUR,
            most_events: 1,
            ..RetentionSettings::default()
        };
        let faults = settings.faults();
        let pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, ["/retention/samples", "/retention/most_events"]);
    }

    /// One hour of a busy controller.
    async fn fill(store: &Store, now: Timestamp) {
        let mut transaction = store.begin().await.unwrap();
        for n in 0..300 {
            let event = NewEvent {
                at: now,
                cluster: None,
                severity: isopath_api::view::Severity::Info,
                object: format!("director d{n}"),
                what: "Up → Down: ".repeat(30),
                actor: "controller".to_owned(),
            };
            events::insert(&mut transaction, event).await.unwrap();
        }
        for n in 0..12 {
            for (step_s, packed) in [(10, vec![7; 20_000]), (300, vec![7; 9_000])] {
                let row = SampleRow {
                    cluster: CLUSTER.parse().unwrap(),
                    step_s,
                    start_ms: now.as_millisecond() + n,
                    packed,
                };
                samples::put(&mut transaction, &row).await.unwrap();
            }
        }
        transaction.commit().await.unwrap();
    }

    #[tokio::test]
    async fn the_file_does_not_grow_over_many_rounds() {
        let directory = TempDir::new().unwrap();
        let store = Store::open(&url(&directory)).await.unwrap();
        let clock = Clock::default();
        let mut transaction = store.begin().await.unwrap();
        let by = Provenance {
            actor: "ops",
            reason: "",
            at: clock.now().wall,
        };
        let cluster = CLUSTER.parse().unwrap();
        clusters::put_revision(&mut transaction, &cluster, 1, &declaration(1), by)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        let size = |name: &str| {
            let file = directory.path().join(name);
            std::fs::metadata(file).map_or(0, |metadata| metadata.len())
        };
        let mut largest = 0;
        for round in 0..60 {
            fill(&store, clock.now().wall).await;
            sweep(&store, &clock, &kept()).await.unwrap();
            clock.advance(HOUR);
            let (file, wal) = (size("isopath.db"), size("isopath.db-wal"));
            assert!(wal <= 16 << 20, "round {round}: the WAL has {wal} bytes");
            // A day of means is there after 24 rounds; nothing may be added to that.
            match round {
                0..30 => largest = largest.max(file),
                _ => assert!(
                    file <= largest + (256 << 10),
                    "round {round}: {file} bytes after {largest}"
                ),
            }
        }
        let mut reader = store.read().await.unwrap();
        let left = events::last(&mut reader, None, None, 200_000)
            .await
            .unwrap();
        assert!((300..=1000).contains(&left.len()), "{}", left.len());
        clock.advance(40 * DAY);
        drop(reader);
        sweep(&store, &clock, &kept()).await.unwrap();
        assert!(
            size("isopath.db") < largest / 4,
            "what is free is given back: {} of {largest}",
            size("isopath.db")
        );
    }

    #[tokio::test]
    async fn a_reader_delays_the_wal_s_new_beginning_and_does_not_prevent_it() {
        let directory = TempDir::new().unwrap();
        let store = Store::open(&url(&directory)).await.unwrap();
        let clock = Clock::default();
        let wal = || {
            let file = directory.path().join("isopath.db-wal");
            std::fs::metadata(file).map_or(0, |metadata| metadata.len())
        };
        let mut transaction = store.begin().await.unwrap();
        let by = Provenance {
            actor: "ops",
            reason: "",
            at: clock.now().wall,
        };
        let cluster = CLUSTER.parse().unwrap();
        clusters::put_revision(&mut transaction, &cluster, 1, &declaration(1), by)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        let mut reader = store.read().await.unwrap();
        sqlx::query("BEGIN").execute(&mut *reader).await.unwrap();
        events::last(&mut reader, None, None, 1).await.unwrap();
        for _ in 0..40 {
            fill(&store, clock.now().wall).await;
        }
        assert!(wal() > 8 << 20, "the reader holds it back");
        sweep(&store, &clock, &kept()).await.unwrap();
        assert!(wal() > 8 << 20, "whoever reads goes on reading");
        sqlx::query("COMMIT").execute(&mut *reader).await.unwrap();
        drop(reader);
        sweep(&store, &clock, &kept()).await.unwrap();
        assert_eq!(wal(), 0, "it is begun anew");
    }
}
