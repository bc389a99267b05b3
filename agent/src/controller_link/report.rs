//! Reports of what this director observes.
//!
//! A report is always whole and made when it is sent, so reports are never queued: what
//! happened while one was on its way, or while they failed, is in the next.

use std::sync::Arc;
use std::time::Duration;

use isopath_api::observed::{Acknowledged, Observed};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::stream::event_id;
use super::{Api, FIRST_RETRY, LinkError, LinkHealth, SnapshotRequest, asked_for, note, succeeded};
use crate::causes;

/// How often a report goes out when the controller does not say otherwise.
const INTERVAL: Duration = Duration::from_secs(1);

/// What the controller may ask for.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
const MAX_INTERVAL: Duration = Duration::from_secs(30);

/// The least time between the starts of two reports: changes that come together (a decision
/// and the speaker's answer to it) mostly travel together, and a drain waits no longer.
const PACE: Duration = Duration::from_millis(20);

/// How long the answer to a report may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Reports<'a> {
    pub(super) api: &'a Api,
    pub(super) snapshots: mpsc::Sender<SnapshotRequest>,
    pub(super) urgent: &'a Arc<Notify>,
    pub(super) health: &'a watch::Sender<LinkHealth>,
    /// Tells the stream which event id the controller wants this director to have.
    pub(super) wanted: watch::Sender<Option<String>>,
}

impl Reports<'_> {
    /// Reports that fail come back within the time of the first retry of a stream, each at a moment
    /// of its own: well below the time after which the controller counts a director as lost.
    pub(super) async fn run(self) {
        let mut failures = 0_u32;
        let mut next = Instant::now();
        loop {
            if failures == 0 {
                // Both arms are cancel-safe: a notification that is not taken stays, a sleep
                // holds nothing.
                tokio::select! {
                    () = self.urgent.notified() => {}
                    () = sleep_until(next) => {}
                }
            } else {
                sleep_until(next).await;
            }
            let start = Instant::now();
            let Some(observed) = self.snapshot().await else {
                return;
            };
            let result = timeout(ANSWER_TIMEOUT, self.post(&observed)).await;
            let result = result.unwrap_or(Err(LinkError::Silent(ANSWER_TIMEOUT)));
            let problem = result.as_ref().err().map(|error| causes(error));
            self.health.send_if_modified(|health| {
                let changed = health.report_problem != problem;
                note(&mut health.report_problem, problem, "reports to");
                changed
            });
            next = match result {
                Ok(acknowledged) => {
                    failures = 0;
                    let id = event_id(&acknowledged.epoch, acknowledged.generation);
                    self.wanted.send_replace(Some(id));
                    let interval = Duration::from_millis(acknowledged.interval_ms);
                    start + interval.clamp(MIN_INTERVAL, MAX_INTERVAL)
                }
                Err(error) => {
                    let delay = asked_for(&error) + FIRST_RETRY.mul_f64(fastrand::f64());
                    failures = failures.saturating_add(1);
                    Instant::now() + INTERVAL.max(delay)
                }
            };
            sleep_until(start + PACE).await;
        }
    }

    /// What is observed now; nothing when the control loop has ended.
    async fn snapshot(&self) -> Option<Box<Observed>> {
        let (sender, receiver) = oneshot::channel();
        self.snapshots.send(sender).await.ok()?;
        receiver.await.ok()
    }

    async fn post(&self, observed: &Observed) -> Result<Acknowledged, LinkError> {
        let request = self.api.post("observed")?.json(observed);
        let response = succeeded(request.send().await?).await?;
        Ok(response.json().await?)
    }
}
