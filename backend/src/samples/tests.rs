use isopath_api::observed::Stats;
use jiff::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::store::clusters::{self, Provenance};
use crate::testing::{CLUSTER, Known, declaration, observed, url};

struct Recording {
    _directory: TempDir,
    recorder: Recorder,
    known: Known,
}

fn cluster() -> ClusterName {
    CLUSTER.parse().unwrap()
}

impl Recording {
    /// At the beginning of a coarse window.
    async fn begin() -> Self {
        let directory = TempDir::new().unwrap();
        let store = Store::open(&url(&directory)).await.unwrap();
        let mut transaction = store.begin().await.unwrap();
        let by = Provenance {
            actor: "ops",
            reason: "",
            at: Timestamp::UNIX_EPOCH,
        };
        clusters::put_revision(&mut transaction, &cluster(), 1, &declaration(2), by)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        let mut known = Known::new(2);
        known.now.wall = "2026-03-02T04:00:00Z".parse().unwrap();
        let mut recorder = Recorder::new(store, watch::Sender::default());
        recorder.load(known.now).await.unwrap();
        Self {
            _directory: directory,
            recorder,
            known,
        }
    }

    /// One measurement, of so many packets a second at d1, and what follows from it.
    async fn measure(&mut self, packets: u64) {
        let mut report = observed(1, &[1]);
        report.services[0].stats = Some(Stats {
            in_packets_per_second: packets,
            ..Stats::default()
        });
        self.known.hear(report);
        self.known.cluster.name = cluster();
        let mut world = World::new("e1".to_owned(), self.known.started);
        let state = Arc::new(self.known.cluster.clone());
        world.clusters.insert(cluster(), state);
        self.recorder.record(&world, self.known.now);
        self.recorder.store_waiting().await;
        self.recorder.roll_up(self.known.now).await.unwrap();
        self.known.pass(Duration::from_secs(STEP_S.into()));
    }

    /// d1's packets a second, from a moment on.
    async fn packets(&self, from: &str, seconds: i64, step_s: u32) -> Vec<Option<u32>> {
        let from: Timestamp = from.parse().unwrap();
        let from = from.as_millisecond();
        let range = Range::new(from, from + seconds * 1000, step_s);
        let selection = Selection::One("director/d1".parse().unwrap());
        let mut reader = self.recorder.store.read().await.unwrap();
        let open = self.recorder.shown.borrow().clone();
        let mut found = find(&mut reader, &open, (&cluster(), &selection), range)
            .await
            .unwrap();
        let object = "director/d1".parse().unwrap();
        found
            .remove(&object)
            .map_or_else(Vec::new, |mut series| series.remove(0))
    }

    async fn rows(&self, step_s: u32) -> usize {
        let mut reader = self.recorder.store.read().await.unwrap();
        let all = (0, i64::MAX);
        let rows = samples::between(&mut reader, &cluster(), step_s, all).await;
        rows.unwrap().len()
    }
}

#[tokio::test]
async fn what_was_measured_is_found_in_memory_and_stored() {
    let mut recording = Recording::begin().await;
    for n in 0..31 {
        recording.measure(100 + n).await;
    }
    assert_eq!(recording.rows(STEP_S).await, 1, "one window has ended");
    let found = recording.packets("2026-03-02T03:59:50Z", 40, STEP_S).await;
    assert_eq!(found, [None, Some(100), Some(101), Some(102)]);
    let found = recording.packets("2026-03-02T04:04:50Z", 30, STEP_S).await;
    assert_eq!(found, [Some(129), Some(130), None]);
}

#[tokio::test]
async fn means_of_hours_are_stored_and_the_present_ones_made_when_asked() {
    let mut recording = Recording::begin().await;
    let points = (COARSE_WINDOW_S + 2 * WINDOW_S) / STEP_S;
    for n in 0..u64::from(points) {
        recording.measure(n / 30).await;
    }
    assert_eq!(recording.rows(COARSE_S).await, 1);
    let found = recording
        .packets("2026-03-02T07:50:00Z", 1500, COARSE_S)
        .await;
    assert_eq!(found, [Some(46), Some(47), Some(48), Some(49), None]);
}

#[tokio::test]
async fn a_controller_that_starts_goes_on_where_one_before_stopped() {
    let mut recording = Recording::begin().await;
    for n in 0..5 {
        recording.measure(n).await;
    }
    recording.recorder.close_window();
    recording.recorder.store_waiting().await;
    let store = recording.recorder.store.clone();
    recording.recorder = Recorder::new(store, watch::Sender::default());
    recording.recorder.load(recording.known.now).await.unwrap();
    recording.known.pass(Duration::from_secs(10));
    recording.measure(9).await;
    let found = recording.packets("2026-03-02T04:00:30Z", 40, STEP_S).await;
    assert_eq!(found, [Some(3), Some(4), None, Some(9)]);
}

/// Windows of a month in which nobody measured are not gone through one by one, and those before
/// and after are made once each.
#[tokio::test]
async fn a_long_stop_neither_loses_means_nor_delays_those_to_come() {
    let mut recording = Recording::begin().await;
    let hour = u64::from(3600 / STEP_S);
    for n in 0..hour {
        recording.measure(n).await;
    }
    recording.recorder.close_window();
    recording.recorder.store_waiting().await;
    assert_eq!(recording.rows(COARSE_S).await, 0);
    let month = Duration::from_secs(30 * 24 * 3600);
    recording.known.pass(month);
    let store = recording.recorder.store.clone();
    recording.recorder = Recorder::new(store, watch::Sender::default());
    let now = recording.known.now;
    recording.recorder.load(now).await.unwrap();
    let mut steps = 0;
    while recording.recorder.make_means(now).await {
        steps += 1;
    }
    assert!(steps <= 2, "{steps}");
    assert_eq!(recording.rows(COARSE_S).await, 1, "those before the stop");
    // As retention deletes what is old: the means stay as they are.
    let mut transaction = recording.recorder.store.begin().await.unwrap();
    sqlx::query("DELETE FROM samples WHERE step_s = 10")
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    for n in 0..4 * hour {
        recording.measure(n).await;
    }
    assert_eq!(recording.rows(COARSE_S).await, 2, "and those after it");
    let found = recording
        .packets("2026-03-02T04:50:00Z", 900, COARSE_S)
        .await;
    assert_eq!(found, [Some(315), Some(345), None]);
}

/// One that starts has all of them made at once, before what they are made of is deleted.
#[tokio::test]
async fn the_means_of_all_clusters_are_due_at_a_start_and_made() {
    let mut recording = Recording::begin().await;
    recording.measure(1).await;
    recording.recorder.close_window();
    recording.recorder.store_waiting().await;
    let names: Vec<ClusterName> = (0..3 * ROLLED_UP_AT_ONCE)
        .map(|n| format!("c{n}").parse().unwrap())
        .collect();
    let store = recording.recorder.store.clone();
    let mut transaction = store.begin().await.unwrap();
    let mut reader = store.read().await.unwrap();
    let all = (0, i64::MAX);
    let rows = samples::between(&mut reader, &cluster(), STEP_S, all).await;
    let row = rows.unwrap().remove(0);
    for name in &names {
        let by = Provenance {
            actor: "ops",
            reason: "",
            at: Timestamp::UNIX_EPOCH,
        };
        clusters::put_revision(&mut transaction, name, 1, &declaration(2), by)
            .await
            .unwrap();
        let row = SampleRow {
            cluster: name.clone(),
            ..row.clone()
        };
        samples::put(&mut transaction, &row).await.unwrap();
    }
    transaction.commit().await.unwrap();
    recording
        .known
        .pass(Duration::from_secs(COARSE_WINDOW_S.into()));
    let mut recorder = Recorder::new(store, watch::Sender::default());
    let now = recording.known.now;
    recorder.start(now, &CancellationToken::new()).await;
    for name in &names {
        let rows = samples::between(&mut reader, name, COARSE_S, all).await;
        assert_eq!(rows.unwrap().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn what_cannot_be_stored_waits_within_bounds() {
    let mut recording = Recording::begin().await;
    recording.recorder.store.close().await;
    let world = |known: &Known| {
        let mut world = World::new("e1".to_owned(), known.started);
        let state = Arc::new(known.cluster.clone());
        world.clusters.insert(cluster(), state);
        world
    };
    for _ in 0..=MOST_WAITING + 10 {
        recording
            .recorder
            .record(&world(&recording.known), recording.known.now);
        recording.known.pass(Duration::from_secs(WINDOW_S.into()));
    }
    recording.recorder.store_waiting().await;
    assert_eq!(recording.recorder.waiting.len(), MOST_WAITING);
    let rows = &recording.recorder.waiting;
    assert!(rows[0].start_ms < rows[MOST_WAITING - 1].start_ms);
}

/// The bound of the module's documentation, with numbers that change at every point.
#[test]
fn a_thousand_directors_stay_within_the_bound() {
    let objects: Vec<Object> = (1..=8)
        .map(|n| format!("director/d{n}"))
        .chain([
            "vip/10.99.0.1".to_owned(),
            "service/tcp:10.99.0.1:80".to_owned(),
        ])
        .chain((1..=20).map(|n| format!("real-server/tcp:10.99.0.1:80/10.1.0.{n}:80")))
        .map(|name| name.parse().unwrap())
        .collect();
    let series: usize = objects.iter().map(|object| object.series().len()).sum();
    assert_eq!(series, 68);
    let packed = |points: u32| {
        let mut chunk = Chunk::default();
        let mut noise = 1_u32;
        for place in 0..points as usize {
            let readings = objects.iter().map(|object| {
                let reading = object.series().iter().map(|_| {
                    noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    // A rate of some thousands a second that varies by a quarter.
                    Some(4000 + (noise >> 22))
                });
                (object.clone(), reading.collect())
            });
            chunk.push(place, readings.collect());
        }
        chunk.pack().len() as u64
    };
    let clusters = 125;
    let fine_rows = u64::from(6 * 3600 / WINDOW_S) * clusters;
    let fine = packed(WINDOW_S / STEP_S) * fine_rows;
    let coarse_rows = u64::from(30 * 24 * 3600 / COARSE_WINDOW_S) * clusters;
    let coarse = packed(COARSE_WINDOW_S / COARSE_S) * coarse_rows;
    // A row's last page is half empty on the average.
    let fine = (fine + fine_rows * 2048) >> 20;
    let coarse = (coarse + coarse_rows * 2048) >> 20;
    println!("{fine} MiB in steps of 10 s, {coarse} MiB in steps of 5 min");
    assert!(fine <= 70, "{fine} MiB");
    assert!(coarse <= 220, "{coarse} MiB");
}
