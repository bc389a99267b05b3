//! The audit log's own task: refusals go into the database in small batches and at a bounded
//! rate, so that whoever is refused can neither fill the disk nor hold up the writer. What is
//! done is written in its own transaction and passes by here.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use isopath_api::ids::ClusterName;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::auth::{Buckets, By, counted_as};
use crate::clock::Clock;
use crate::store::audit::{self, Entry, Outcome};
use crate::store::{Store, WriteError, tokens};

/// Refusals that may wait: two batches of the most that are written.
const QUEUE: usize = 200;

/// How long a batch is collected.
const BATCH_EVERY: Duration = Duration::from_secs(1);

/// Entries that one principal, or one address of somebody unknown, may cause at once, and how
/// often one more.
const EACH: (u32, Duration) = (20, Duration::from_secs(10));
/// Entries that all of them together may cause at once, and how often one more: some 17,000 a
/// day at the most.
const ALL: (u32, Duration) = (100, Duration::from_secs(5));

/// How often it is told how many refusals were left out, when tokens were used is written, and
/// what is old is deleted.
const CHORES_EVERY: Duration = Duration::from_secs(60);

/// The refusals kept: some two weeks of the highest rate.
const REFUSALS_KEPT: i64 = 250_000;

/// A request that was refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) by: By,
    pub(crate) action: String,
    pub(crate) object: String,
    pub(crate) cluster: Option<ClusterName>,
    pub(crate) status: u16,
    pub(crate) detail: String,
}

/// The way to the task. A clone leads to the same one.
#[derive(Debug, Clone)]
pub(crate) struct Audit {
    queue: mpsc::Sender<(Refusal, Timestamp)>,
    shared: Arc<Shared>,
    clock: Clock,
}

#[derive(Debug)]
struct Shared {
    each: Mutex<Buckets<String>>,
    all: Mutex<Buckets<()>>,
    /// Refusals that were not written since it was last told.
    left_out: AtomicU64,
    /// Whether refusals were written since it was last looked how many are kept.
    written: AtomicBool,
    /// When tokens were used since that was last written, by their names.
    used: Mutex<BTreeMap<String, Timestamp>>,
}

/// Starts the task; it ends with `shutdown`.
pub(crate) fn start(store: Store, clock: Clock, shutdown: CancellationToken) -> Audit {
    let (queue, waiting) = mpsc::channel(QUEUE);
    let shared = Arc::new(Shared {
        each: Mutex::new(Buckets::new(EACH.0, EACH.1)),
        all: Mutex::new(Buckets::new(ALL.0, ALL.1)),
        left_out: AtomicU64::new(0),
        written: AtomicBool::new(false),
        used: Mutex::new(BTreeMap::new()),
    });
    let audit = Audit {
        queue,
        shared: Arc::clone(&shared),
        clock: clock.clone(),
    };
    let task = Task {
        store,
        clock,
        shared,
        kept: REFUSALS_KEPT,
    };
    tokio::spawn(task.run(waiting, shutdown));
    audit
}

impl Audit {
    /// Has a refusal written, unless there are too many of them.
    pub(crate) fn refused(&self, refusal: Refusal) {
        let now = self.clock.now();
        let who = match (refusal.by.name.as_str(), refusal.by.peer) {
            ("", Some(peer)) => format!("from {}", counted_as(peer)),
            (name, _) => name.to_owned(),
        };
        let taken = lock(&self.shared.each).take(&who, now.instant).is_ok()
            && lock(&self.shared.all).take(&(), now.instant).is_ok()
            && self.queue.try_send((refusal, now.wall)).is_ok();
        if !taken {
            self.shared.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Refusals that were not written since it was last told.
    #[cfg(test)]
    pub(crate) fn left_out(&self) -> u64 {
        self.shared.left_out.load(Ordering::Relaxed)
    }

    /// Notes that a token was used now.
    pub(crate) fn token_used(&self, name: &str) {
        let now = self.clock.now().wall;
        let mut used = lock(&self.shared.used);
        match used.get_mut(name) {
            Some(at) => *at = now,
            // There are as many of them as there are tokens.
            None => {
                used.insert(name.to_owned(), now);
            }
        }
    }
}

struct Task {
    store: Store,
    clock: Clock,
    shared: Arc<Shared>,
    /// The refusals kept.
    kept: i64,
}

impl Task {
    async fn run(
        self,
        mut waiting: mpsc::Receiver<(Refusal, Timestamp)>,
        shutdown: CancellationToken,
    ) {
        let mut chores = tokio::time::interval(CHORES_EVERY);
        chores.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Nothing is due at the start.
        chores.reset();
        let mut batch = Vec::with_capacity(QUEUE);
        loop {
            // All of them are cancel-safe: what waits keeps waiting, a tick stays due, and a
            // cancelled token stays so.
            tokio::select! {
                count = waiting.recv_many(&mut batch, QUEUE) => {
                    if count == 0 {
                        return;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(BATCH_EVERY) => {}
                        () = shutdown.cancelled() => {}
                    }
                    while batch.len() < QUEUE && let Ok(more) = waiting.try_recv() {
                        batch.push(more);
                    }
                    self.write(&batch).await;
                    batch.clear();
                }
                _ = chores.tick() => self.chores().await,
                () = shutdown.cancelled() => {
                    self.chores().await;
                    return;
                }
            }
        }
    }

    async fn write(&self, batch: &[(Refusal, Timestamp)]) {
        if let Err(error) = self.try_write(batch).await {
            let count = batch.len() as u64;
            self.shared.left_out.fetch_add(count, Ordering::Relaxed);
            not_written("refusals", &error);
        }
    }

    async fn try_write(&self, batch: &[(Refusal, Timestamp)]) -> Result<(), WriteError> {
        let mut transaction = self.store.begin().await?;
        for (refusal, at) in batch {
            let entry = Entry {
                action: &refusal.action,
                object: &refusal.object,
                cluster: refusal.cluster.as_ref(),
                outcome: Outcome::Refused,
                status: Some(refusal.status),
                detail: &refusal.detail,
            };
            audit::insert(&mut transaction, &refusal.by, entry, *at).await?;
        }
        transaction.commit().await?;
        self.shared.written.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn chores(&self) {
        let left_out = self.shared.left_out.swap(0, Ordering::Relaxed);
        let written = self.shared.written.swap(false, Ordering::Relaxed);
        let used = std::mem::take(&mut *lock(&self.shared.used));
        if left_out == 0 && !written && used.is_empty() {
            return;
        }
        if let Err(error) = self.try_chores((left_out, written), &used).await {
            self.shared.left_out.fetch_add(left_out, Ordering::Relaxed);
            self.shared.written.fetch_or(written, Ordering::Relaxed);
            let mut later = lock(&self.shared.used);
            for (name, at) in used {
                later.entry(name).or_insert(at);
            }
            drop(later);
            not_written("what the audit log left out", &error);
        }
    }

    async fn try_chores(
        &self,
        (left_out, written): (u64, bool),
        used: &BTreeMap<String, Timestamp>,
    ) -> Result<(), WriteError> {
        let mut transaction = self.store.begin().await?;
        for (name, at) in used {
            tokens::touch(&mut transaction, name, *at).await?;
        }
        if left_out > 0 {
            let detail = format!("{left_out} more suppressed");
            let entry = Entry {
                action: "audit.suppress",
                object: "audit log",
                cluster: None,
                outcome: Outcome::Refused,
                status: None,
                detail: &detail,
            };
            let now = self.clock.now().wall;
            audit::insert(&mut transaction, &By::controller(), entry, now).await?;
        }
        // Not with each batch: to find the oldest that is kept takes milliseconds, in which
        // nobody else writes.
        if written || left_out > 0 {
            audit::trim(&mut transaction, self.kept).await?;
        }
        transaction.commit().await
    }
}

fn not_written(what: &str, error: &WriteError) {
    match error {
        // Said once, when it began.
        WriteError::ReadOnly(_) => tracing::debug!("{what} cannot be written: {error}"),
        WriteError::Failed(_) => tracing::warn!(%error, "{what} cannot be written"),
    }
}

/// The locks are never held over an await, and a panic leaves nothing half done behind it.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::auth::Via;
    use crate::testing::url;

    fn refusal(peer: &str) -> Refusal {
        Refusal {
            by: By {
                name: String::new(),
                via: Via::Nothing,
                peer: Some(peer.parse().unwrap()),
                request_id: None,
            },
            action: "POST /login".to_owned(),
            object: "/login".to_owned(),
            cluster: None,
            status: 401,
            detail: String::new(),
        }
    }

    async fn kept(store: &Store) -> Vec<u64> {
        let mut reader = store.read().await.unwrap();
        let filter = audit::Filter::default();
        let entries = audit::list(&mut reader, &filter, None, 1000).await.unwrap();
        entries.into_iter().map(|entry| entry.id).collect()
    }

    #[tokio::test]
    async fn refusals_stay_bounded_also_where_none_was_left_out() {
        let directory = TempDir::new().unwrap();
        let store = Store::open(&url(&directory)).await.unwrap();
        let clock = Clock::default();
        let task = Task {
            store: store.clone(),
            clock: clock.clone(),
            shared: Arc::new(Shared {
                each: Mutex::new(Buckets::new(EACH.0, EACH.1)),
                all: Mutex::new(Buckets::new(ALL.0, ALL.1)),
                left_out: AtomicU64::new(0),
                written: AtomicBool::new(false),
                used: Mutex::default(),
            }),
            kept: 5,
        };
        let mut transaction = store.begin().await.unwrap();
        let done = Entry::done("user.create", "user ada", "");
        let (by, now) = (By::command(), clock.now().wall);
        audit::insert(&mut transaction, &by, done, now)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        for _ in 0..3 {
            let batch: Vec<_> = (0..4).map(|_| (refusal("192.0.2.1"), now)).collect();
            task.write(&batch).await;
            task.chores().await;
        }
        assert_eq!(task.shared.left_out.load(Ordering::Relaxed), 0);
        assert_eq!(
            kept(&store).await,
            [13, 12, 11, 10, 9, 1],
            "the newest, and what was done"
        );
    }

    #[tokio::test]
    async fn a_host_of_many_addresses_is_one() {
        let directory = TempDir::new().unwrap();
        let store = Store::open(&url(&directory)).await.unwrap();
        let shutdown = CancellationToken::new();
        let audit = start(store, Clock::default(), shutdown.clone());
        for n in 0..60 {
            audit.refused(refusal(&format!("2001:db8:1:2::{n}")));
        }
        assert_eq!(audit.left_out(), 60 - u64::from(EACH.0));
        shutdown.cancel();
    }
}
