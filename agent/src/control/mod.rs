//! The control loop: one task that owns what this director wants and sees.
//!
//! Everything comes in over channels and goes out over channels, and nothing in the loop waits
//! for anything else, so a withdrawal is on its way to the speaker within the turn of the loop
//! that learnt its cause:
//!
//! ```text
//! desired state ─┐                     ┌─▶ speaker link: the announced set
//! check outcomes ┼─▶ State ── settle ──┼─▶ kernel task: what IPVS shall have
//! speaker status ┤                     └─▶ reports: what changed is worth telling at once
//! kernel reports ┤
//! gate reports   ┘
//! ```

mod conditions;
mod observe;
mod state;

use std::sync::Arc;
use std::time::Duration;

use isopath_api::speaker::Source;
use jiff::Timestamp;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::controller_link::{LinkHealth, SnapshotRequest};
use crate::desired::Intent;
use crate::health::Outcome;
use crate::kernel::{KernelReport, NumberedWanted};
use crate::overrides::ByVip;
use crate::readiness::GateReport;
use crate::speaker_link::{Publication, SpeakerEvent};

pub use state::{About, State};

/// Outcomes of checks taken in one turn of the loop. Each takes about a microsecond, so what
/// comes after them waits less than a millisecond.
const OUTCOMES_PER_TURN: usize = 256;

/// How long a stop waits for the speaker to have withdrawn.
const WITHDRAW_TIMEOUT: Duration = Duration::from_secs(3);

/// The channels of the control loop.
pub struct Channels {
    /// What this director shall do; nothing before the first word on it.
    pub intents: watch::Receiver<Option<Arc<Intent>>>,
    /// Outcomes of checks.
    pub outcomes: mpsc::Receiver<Outcome>,
    /// From the speaker's link.
    pub speaker: mpsc::Receiver<SpeakerEvent>,
    /// From the kernel's task.
    pub kernel: watch::Receiver<Arc<KernelReport>>,
    /// From the gate's task.
    pub gate: watch::Receiver<Arc<GateReport>>,
    /// Questions for a report.
    pub snapshots: mpsc::Receiver<SnapshotRequest>,
    /// Operators' overrides.
    pub overrides: watch::Receiver<ByVip>,
    /// How the link to the controller is; nothing without one.
    pub controller: Option<watch::Receiver<LinkHealth>>,
    /// To the speaker's link.
    pub published: watch::Sender<Option<Publication>>,
    /// To the kernel's task.
    pub wanted: watch::Sender<Option<Arc<NumberedWanted>>>,
    /// Something changed that the controller should see at once.
    pub urgent: Arc<Notify>,
    /// The time between two signs of life to the speaker.
    pub beat: Duration,
    /// Ends the loop.
    pub stop: CancellationToken,
}

/// Runs until it is stopped.
///
/// A speaker that runs by itself keeps the set for `agent_hold` after this returns, so a
/// restart of the agent moves nothing. One that the agent started stops with it, and so
/// everything is withdrawn before this returns.
pub async fn run(mut state: State, mut channels: Channels) {
    let mut beat = interval(channels.beat);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stop = channels.stop.clone();
    let mut outcomes = Vec::with_capacity(OUTCOMES_PER_TURN);
    // Set before the loop's start, so that a state from the disk is applied at once.
    channels.intents.mark_changed();
    loop {
        let mut beats = false;
        // Biased, so that the operator's word goes before a flood of outcomes. The beat comes
        // first and is rare, so it starves nobody. Every arm is cancel-safe: a channel's
        // `recv`, `recv_many` and `changed` and an interval's `tick` lose nothing.
        let news = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = beat.tick() => {
                beats = true;
                state.let_go(Instant::now())
            }
            changed = channels.intents.changed() => {
                if changed.is_err() { break }
                let intent = channels.intents.borrow_and_update().clone();
                intent.is_some_and(|intent| state.apply(intent, Timestamp::now()))
            }
            event = channels.speaker.recv() => match event {
                Some(event) => state.take_speaker(event),
                None => break,
            },
            changed = channels.kernel.changed() => {
                if changed.is_err() { break }
                let report = channels.kernel.borrow_and_update().clone();
                state.take_kernel(report)
            }
            changed = channels.gate.changed() => {
                if changed.is_err() { break }
                let report = channels.gate.borrow_and_update().clone();
                state.take_gate(report)
            }
            changed = channels.overrides.changed() => {
                if changed.is_err() { break }
                state.take_overrides(channels.overrides.borrow_and_update().clone())
            }
            count = channels.outcomes.recv_many(&mut outcomes, OUTCOMES_PER_TURN) => {
                if count == 0 { break }
                let now = Timestamp::now();
                outcomes.drain(..).fold(false, |news, one| state.take_outcome(one, now) | news)
            }
            Some(reply) = channels.snapshots.recv() => {
                answer(&mut state, &channels, reply);
                continue;
            }
        };
        if news {
            settle(&mut state, &channels);
        }
        if beats {
            publish(&state, &channels, true);
        }
    }
    if state.owns_speaker() {
        withdraw(&mut state, &mut channels).await;
    }
}

/// Decides anew: withdrawals go out before the kernel is touched; announcements wait for the
/// kernel by themselves, since their VIPs are not ready before its report.
fn settle(state: &mut State, channels: &Channels) {
    let wanted = state.settle(Timestamp::now());
    publish(state, channels, false);
    if let Some(wanted) = wanted {
        channels.wanted.send_replace(Some(Arc::new(wanted)));
    }
    channels.urgent.notify_one();
}

/// Tells the speaker's link what to announce: when it changed, and as a sign of life.
fn publish(state: &State, channels: &Channels, beat: bool) {
    let Some(publication) = state.publication() else {
        return;
    };
    channels.published.send_if_modified(|published| {
        let changed = published.as_ref() != Some(&publication);
        *published = Some(publication);
        changed || beat
    });
}

fn answer(state: &mut State, channels: &Channels, reply: SnapshotRequest) {
    let controller = channels.controller.as_ref();
    let link = controller.map(|link| link.borrow().observed());
    let observed = state.observed(Timestamp::now(), link);
    if reply.send(Box::new(observed)).is_err() {
        tracing::debug!("nobody waits for the report any more");
    }
}

/// Withdraws everything and waits, within bounds, until the speaker has done so.
async fn withdraw(state: &mut State, channels: &mut Channels) {
    state.stop();
    settle(state, channels);
    let withdrawn = async {
        while state.announced_by_speaker(Source::Agent) {
            match channels.speaker.recv().await {
                Some(event) => state.take_speaker(event),
                None => return,
            };
        }
    };
    if timeout(WITHDRAW_TIMEOUT, withdrawn).await.is_err() {
        tracing::warn!("the speaker had not withdrawn everything within {WITHDRAW_TIMEOUT:?}");
    }
}

#[cfg(test)]
mod tests;
