//! The loop with the other ends of its channels.

use tokio::sync::oneshot;

use super::*;

/// A test that waits longer than this has failed.
const DEADLINE: Duration = Duration::from_secs(10);

/// The loop under test and the other ends of its channels.
struct Loop {
    intents: watch::Sender<Option<Arc<Intent>>>,
    speaker: mpsc::Sender<SpeakerEvent>,
    kernel: watch::Sender<Arc<KernelReport>>,
    gate: watch::Sender<Arc<GateReport>>,
    snapshots: mpsc::Sender<SnapshotRequest>,
    published: watch::Receiver<Option<Publication>>,
    wanted: watch::Receiver<Option<Arc<NumberedWanted>>>,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
    _overrides: watch::Sender<ByVip>,
}

impl Loop {
    fn start(bench: Bench) -> Self {
        let (intents, intents_receiver) = watch::channel(None);
        let (speaker, speaker_receiver) = mpsc::channel(16);
        let (kernel, kernel_receiver) = watch::channel(Arc::default());
        let (gate, gate_receiver) = watch::channel(Arc::default());
        let (snapshots, snapshots_receiver) = mpsc::channel(16);
        let (overrides, overrides_receiver) = watch::channel(ByVip::default());
        let (published_sender, published) = watch::channel(None);
        let (wanted_sender, wanted) = watch::channel(None);
        let stop = CancellationToken::new();
        let channels = Channels {
            intents: intents_receiver,
            outcomes: bench.outcomes,
            speaker: speaker_receiver,
            kernel: kernel_receiver,
            gate: gate_receiver,
            snapshots: snapshots_receiver,
            overrides: overrides_receiver,
            controller: None,
            published: published_sender,
            wanted: wanted_sender,
            urgent: Arc::new(Notify::new()),
            beat: Duration::from_millis(10),
            stop: stop.clone(),
        };
        Self {
            intents,
            speaker,
            kernel,
            gate,
            snapshots,
            published,
            wanted,
            stop,
            ended: tokio::spawn(run(bench.state, channels)),
            _overrides: overrides,
        }
    }

    /// Waits until what is published fits.
    async fn published(&mut self, what: &str, fits: impl FnMut(&Publication) -> bool) {
        let mut fits = fits;
        let wait = self
            .published
            .wait_for(|it| it.as_ref().is_some_and(&mut fits));
        let outcome = timeout(DEADLINE, wait).await;
        assert!(outcome.is_ok(), "{what}: not published within {DEADLINE:?}");
    }
}

/// An intent without services: announced as soon as the kernel is ready.
fn bare() -> Arc<Intent> {
    intent(|intent| intent.services.clear())
}

async fn announced_loop() -> Loop {
    let mut it = Loop::start(Bench::new());
    it.speaker.send(connected(&[])).await.unwrap();
    it.intents.send_replace(Some(bare()));
    let number = {
        let wait = it.wanted.wait_for(Option::is_some);
        let wanted = timeout(DEADLINE, wait).await.unwrap().unwrap();
        wanted.as_ref().unwrap().number
    };
    it.kernel.send_replace(kernel_has(number));
    it.gate.send_replace(gate_found(number, &[]));
    it.published("the VIP", |it| it.set.len() == 1).await;
    it
}

#[tokio::test]
async fn a_drain_is_published_without_waiting_for_the_kernel() {
    // Nobody answers for the kernel from here on: a loop that waited for it would hang.
    let mut it = announced_loop().await;
    let drained = intent(|intent| {
        intent.services.clear();
        intent.generation = 2;
        intent.admin_state = AdminState::Drained;
        intent.admin_reason = "kernel".to_owned();
    });
    it.intents.send_replace(Some(drained));
    it.published("the withdrawal", |it| {
        let text = "kernel".to_owned();
        it.set.is_empty() && it.withheld[0].reason == Reason::Drained { text }
    })
    .await;
    let (reply, observed) = oneshot::channel();
    it.snapshots.send(reply).await.unwrap();
    let observed = timeout(DEADLINE, observed).await.unwrap().unwrap();
    assert_eq!(observed.generation, 2, "the drain is acknowledged");
}

#[tokio::test]
async fn the_loop_beats_while_nothing_changes() {
    let mut it = announced_loop().await;
    for beat in 0..3 {
        let changed = timeout(DEADLINE, it.published.changed()).await;
        assert!(changed.is_ok(), "no beat after {beat}");
    }
}

#[tokio::test]
async fn a_stop_leaves_a_speaker_of_others_alone() {
    let mut it = announced_loop().await;
    it.stop.cancel();
    timeout(DEADLINE, &mut it.ended).await.unwrap().unwrap();
    let last = it.published.borrow().clone().unwrap();
    assert_eq!(last.set.len(), 1, "a restart of the agent withdrew the VIP");
}

#[tokio::test]
async fn a_stop_withdraws_from_its_own_speaker_first() {
    let mut it = announced_loop().await;
    let ours = SpeakerEvent::Connected {
        status: status(&[Source::Agent]),
        ours: true,
    };
    it.speaker.send(ours).await.unwrap();
    // The speaker says nothing more until the loop has taken this.
    let (reply, observed) = oneshot::channel();
    it.snapshots.send(reply).await.unwrap();
    timeout(DEADLINE, observed).await.unwrap().unwrap();

    it.stop.cancel();
    it.published("the withdrawal", |it| {
        it.set.is_empty() && it.withheld[0].reason == Reason::Stopping
    })
    .await;
    assert!(!it.ended.is_finished(), "it did not wait for the speaker");
    it.speaker
        .send(SpeakerEvent::Changed(status(&[])))
        .await
        .unwrap();
    timeout(DEADLINE, &mut it.ended).await.unwrap().unwrap();
}
