//! When the task looks, changes and reconciles, on a data plane that only says what it was asked.

use std::collections::BTreeSet;

use isopath_api::ids::Vip;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::*;

/// What the data plane was asked; the wanted state is told by its VIP.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Look(u8),
    Looked(u8),
    Reconcile(u8),
    Change(u8),
}

struct Scripted {
    asked: mpsc::Sender<Asked>,
    /// A look ends when it gets a permit.
    looks: Arc<Semaphore>,
}

impl Scripted {
    async fn say(&self, asked: Asked) {
        self.asked.send(asked).await.unwrap();
    }
}

fn number(wanted: &Wanted) -> u8 {
    wanted.vips.first().unwrap().0.octets()[3]
}

impl Reconciled for Scripted {
    async fn look(&mut self, wanted: &Wanted) {
        self.say(Asked::Look(number(wanted))).await;
        self.looks.acquire().await.unwrap().forget();
        self.say(Asked::Looked(number(wanted))).await;
    }

    async fn reconcile(&mut self, wanted: &Wanted) -> Report {
        self.say(Asked::Reconcile(number(wanted))).await;
        Report::default()
    }

    async fn change(&mut self, wanted: &Wanted) -> Report {
        self.say(Asked::Change(number(wanted))).await;
        Report::default()
    }
}

/// The task on a scripted data plane.
struct Task {
    wanted: watch::Sender<Option<Arc<NumberedWanted>>>,
    reports: watch::Receiver<Arc<KernelReport>>,
    asked: mpsc::Receiver<Asked>,
    looks: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Task {
    /// The task, which has begun to look.
    async fn looking() -> Self {
        let (wanted, receiver) = watch::channel(None);
        let (sender, reports) = watch::channel(Arc::default());
        // More than the task is asked between two of a test's steps.
        let (asker, asked) = mpsc::channel(16);
        let looks = Arc::new(Semaphore::new(0));
        let scripted = Scripted {
            asked: asker,
            looks: Arc::clone(&looks),
        };
        let mut task = Self {
            wanted,
            reports,
            asked,
            looks,
            task: tokio::spawn(keep(scripted, receiver, sender)),
        };
        task.want(1);
        // The first tick comes at once, before or after this change.
        while task.asked().await != Asked::Look(1) {}
        task
    }

    fn want(&self, number: u8) {
        let vips = BTreeSet::from([Vip([10, 99, 0, number].into())]);
        let wanted = Wanted {
            vips,
            ..Wanted::default()
        };
        let number = u64::from(number);
        self.wanted
            .send_replace(Some(Arc::new(NumberedWanted { number, wanted })));
    }

    async fn asked(&mut self) -> Asked {
        let asked = tokio::time::timeout(60 * TICK, self.asked.recv()).await;
        asked.expect("the task does nothing").unwrap()
    }

    async fn reported(&mut self, number: u64) {
        let reported = self.reports.wait_for(|report| report.number == number);
        reported.await.unwrap();
    }
}

/// Where all of a large kernel is being read, a weight of 0 does not wait for it.
#[tokio::test(start_paused = true)]
async fn a_change_interrupts_the_reading() {
    let mut task = Task::looking().await;
    task.want(2);
    assert_eq!(task.asked().await, Asked::Change(2));
    task.reported(2).await;
}

/// However often something changes, drift is found: the reading after an interrupted one is not
/// interrupted.
#[tokio::test(start_paused = true)]
async fn the_reading_is_interrupted_only_once_in_a_row() {
    let mut task = Task::looking().await;
    for number in [2, 4] {
        task.want(number);
        assert_eq!(task.asked().await, Asked::Change(number));
        // Read as part of the reconcile, which nothing interrupts.
        assert_eq!(task.asked().await, Asked::Reconcile(number));
        task.want(number + 1);
        assert_eq!(task.asked().await, Asked::Change(number + 1));
        // From now on it may be interrupted again.
        assert_eq!(task.asked().await, Asked::Look(number + 1));
    }
}

/// What was looked at is what is reconciled, each second.
#[tokio::test(start_paused = true)]
async fn without_a_change_it_looks_and_reconciles() {
    let mut task = Task::looking().await;
    let began = Instant::now();
    for _ in 0..3 {
        task.looks.add_permits(1);
        assert_eq!(task.asked().await, Asked::Looked(1));
        assert_eq!(task.asked().await, Asked::Reconcile(1));
        assert_eq!(task.asked().await, Asked::Look(1));
    }
    assert!(began.elapsed() >= 3 * TICK, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_when_nobody_wants_anything() {
    let Task { wanted, task, .. } = Task::looking().await;
    drop(wanted);
    task.await.unwrap();
}
