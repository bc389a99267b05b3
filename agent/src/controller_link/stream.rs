//! The stream of the desired state.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use isopath_api::desired::Desired;
use jiff::Timestamp;
use reqwest::header::{ACCEPT, HeaderValue};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::sse::{Event, Parser};
use super::{Api, LinkError, LinkHealth, note, retry_delay, succeeded};
use crate::causes;
use crate::desired::{Admission, Identity, Intent, Refusal, admit};
use crate::store;

/// The controller sends something at least each 10 s; a stream silent for this long is dead.
const SILENCE: Duration = Duration::from_secs(30);

/// How long the answer to the request for the stream may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long reports may be answered with a generation that the stream has not brought before
/// the stream is made anew.
const BEHIND: Duration = Duration::from_secs(3);

/// Within this the stream follows a report that got through. Reports themselves come back spread
/// over a longer time.
const AFTER_REPORT: Duration = Duration::from_secs(1);

pub(super) struct Stream<'a> {
    pub(super) api: &'a Api,
    pub(super) identity: &'a Identity,
    pub(super) desired_file: &'a Path,
    pub(super) in_force: Option<Arc<Desired>>,
    pub(super) intents: &'a watch::Sender<Option<Arc<Intent>>>,
    pub(super) health: &'a watch::Sender<LinkHealth>,
    /// The event id that the answers to reports want, `epoch:generation`.
    pub(super) wanted: watch::Receiver<Option<String>>,
}

impl Stream<'_> {
    pub(super) async fn run(mut self) {
        let mut attempt = 0;
        loop {
            let Err(error) = self.follow(&mut attempt).await;
            self.health.send_modify(|health| {
                if std::mem::take(&mut health.connected) {
                    health.since = Timestamp::now();
                }
                let problem = Some(causes(&error));
                note(&mut health.stream_problem, problem, "the stream from");
            });
            self.wait(attempt, &error).await;
            attempt = attempt.saturating_add(1);
        }
    }

    /// Waits before the next attempt. A report that gets through shows that a controller that
    /// could not be reached is back, and cuts the wait short.
    async fn wait(&mut self, attempt: u32, error: &LinkError) {
        let delay = sleep(retry_delay(attempt, error, fastrand::f64()));
        let unreachable = matches!(error, LinkError::Transport(_));
        self.wanted.mark_unchanged();
        // Both arms are cancel-safe: `changed` marks a value as seen only when it completes,
        // and a sleep holds nothing.
        tokio::select! {
            () = delay => {}
            Ok(()) = self.wanted.changed(), if unreachable => {
                sleep(AFTER_REPORT.mul_f64(fastrand::f64())).await;
            }
        }
    }

    /// Opens a stream and follows it until it breaks.
    async fn follow(&mut self, attempt: &mut u32) -> Result<Infallible, LinkError> {
        let request = self
            .api
            .get("desired")?
            .header(ACCEPT, HeaderValue::from_static("text/event-stream"));
        // With the whole of a refusal: one that never ends must not keep the agent from trying
        // again.
        let answered = async { succeeded(request.send().await?).await };
        let response = timeout(ANSWER_TIMEOUT, answered)
            .await
            .map_err(|_| LinkError::Silent(ANSWER_TIMEOUT))??;
        let mut pieces = response.bytes_stream();
        *attempt = 0;
        self.health.send_modify(|health| {
            health.connected = true;
            health.since = Timestamp::now();
            note(&mut health.stream_problem, None, "the stream from");
        });

        let mut parser = Parser::default();
        let mut seen = String::new();
        let mut heard = Instant::now();
        let mut behind = None;
        loop {
            let behind_until = behind.map(|since: Instant| since + BEHIND);
            let silent_at = heard + SILENCE;
            let deadline = behind_until.map_or(silent_at, |until| until.min(silent_at));
            // Each arm is cancel-safe: the body keeps what has not been taken out of it,
            // `changed` marks a value as seen only when it completes, a sleep holds nothing.
            tokio::select! {
                piece = pieces.next() => {
                    let piece = piece.ok_or(LinkError::Closed)??;
                    heard = Instant::now();
                    let events = parser.feed(&piece);
                    for event in events.map_err(|error| LinkError::Malformed(error.into()))? {
                        seen.clone_from(&event.id);
                        self.take(event).await?;
                    }
                }
                changed = self.wanted.changed() => changed.map_err(|_| LinkError::Closed)?,
                () = sleep_until(deadline) => {
                    return Err(match behind {
                        Some(_) if deadline < silent_at => LinkError::Behind(
                            self.wanted.borrow().clone().unwrap_or_default(),
                        ),
                        Some(_) | None => LinkError::Silent(SILENCE),
                    });
                }
            }
            let is_behind = self.wanted.borrow().as_ref().is_some_and(|id| *id != seen);
            behind = is_behind.then(|| behind.unwrap_or_else(Instant::now));
        }
    }

    /// Takes one event. A desired state that is refused does not end the stream: the next one
    /// may be better. One that cannot be kept does, so that it is sent again.
    async fn take(&mut self, event: Event) -> Result<(), LinkError> {
        if event.name != "desired" {
            return Ok(());
        }
        match self.accept(&event).await {
            Ok(()) => {
                self.health.send_modify(|health| {
                    note(&mut health.stream_problem, None, "the stream from")
                });
                Ok(())
            }
            Err(error @ LinkError::Desired(_)) => {
                self.health.send_modify(|health| {
                    let problem = Some(causes(&error));
                    note(&mut health.stream_problem, problem, "the stream from");
                });
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn accept(&mut self, event: &Event) -> Result<(), LinkError> {
        let in_force = self.in_force.as_deref();
        let desired = match admit(&event.data, in_force, self.identity)? {
            Admission::InForce => return Ok(()),
            Admission::New(desired) => *desired,
        };
        let id = event_id(&desired.epoch, desired.generation);
        if event.id != id {
            let found = event.id.clone();
            return Err(Refusal::Mislabelled {
                found,
                expected: id,
            }
            .into());
        }
        let desired = Arc::new(desired);
        store::write_json_apart(self.desired_file.to_owned(), Arc::clone(&desired)).await?;
        tracing::info!(
            epoch = desired.epoch,
            generation = desired.generation,
            revision = desired.revision,
            admin_state = %desired.admin_state,
            "accepted a desired state"
        );
        let intent = Intent::from(Desired::clone(&desired));
        self.in_force = Some(desired);
        self.intents.send_replace(Some(Arc::new(intent)));
        Ok(())
    }
}

/// The id of the event that carries a generation.
pub(super) fn event_id(epoch: &str, generation: u64) -> String {
    format!("{epoch}:{generation}")
}
