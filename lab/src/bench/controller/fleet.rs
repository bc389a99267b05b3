//! Many simulated agents, in one thread.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::{mpsc, oneshot};

use super::agent::{Agent, Heard, Known, Shared};
use super::set::DIRECTORS;

/// Over how long the agents come the first time.
const ARRIVAL: Duration = Duration::from_secs(3);
/// Between two looks at what all of them know.
const LOOK: Duration = Duration::from_millis(50);

/// The agents; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Fleet {
    /// In the order of their clusters.
    pub(super) agents: Vec<Arc<Agent>>,
    /// What they hear.
    pub(super) heard: mpsc::Receiver<Heard>,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Fleet {
    /// Lets the first `count` directors of the clusters, whose agents' tokens these are, have an
    /// agent each. One whose stream has ended waits for at most `first_retry` before it makes
    /// another.
    pub(super) fn start(
        address: SocketAddr,
        tokens: &[String],
        (count, first_retry): (usize, Duration),
    ) -> Result<Self> {
        let mut announcing = BTreeMap::new();
        let mut agents = Vec::new();
        for place in 0..count {
            let cluster = u16::try_from(place / usize::from(DIRECTORS)).context("too many")?;
            let n = u8::try_from(place % usize::from(DIRECTORS)).context("too many")? + 1;
            let token = tokens
                .get(usize::from(cluster))
                .context("no token")?
                .clone();
            let of = announcing
                .entry(cluster)
                .or_insert_with(|| Arc::new(AtomicU8::new(0)));
            agents.push(Arc::new(Agent::new(
                place,
                (cluster, n),
                token,
                Arc::clone(of),
            )));
        }
        // All agents may hear several states before anybody looks.
        let (sender, heard) = mpsc::channel(16 * count.max(64));
        let shared = Arc::new(Shared {
            address,
            first_retry,
            heard: sender,
            paused: AtomicBool::new(false),
            accepts: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("making a runtime")?;
        let work = run(agents.clone(), Arc::clone(&shared), stopped);
        let thread = std::thread::Builder::new()
            .name("agents".to_owned())
            .spawn(move || runtime.block_on(work))
            .context("starting a thread")?;
        Ok(Self {
            agents,
            heard,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// What all agents know.
    pub(super) fn known(&self) -> impl Iterator<Item = (&Agent, Known)> {
        self.agents.iter().map(|agent| (&**agent, agent.known()))
    }

    /// Waits until every agent has heard its desired state since `since` and had a report
    /// acknowledged since then.
    pub(super) async fn complete(&self, since: Instant, within: Duration) -> Result<()> {
        self.all(within, |known| known.is_complete(since)).await
    }

    /// Waits until every agent has had a report acknowledged since `since`.
    pub(super) async fn acknowledged(&self, since: Instant, within: Duration) -> Result<()> {
        self.all(within, |known| known.is_acknowledged(since)).await
    }

    async fn all(&self, within: Duration, is: impl Fn(&Known) -> bool) -> Result<()> {
        let begun = Instant::now();
        loop {
            let missing = self.known().filter(|(_, known)| !is(known));
            let missing: Vec<_> = missing.collect();
            let Some((agent, known)) = missing.first() else {
                return Ok(());
            };
            if begun.elapsed() > within {
                let count = missing.len();
                bail!(
                    "{count} agents are not there, the first is {}: {known}",
                    agent.place
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Throws away what was heard until now.
    pub(super) fn forget(&mut self) {
        while self.heard.try_recv().is_ok() {}
    }

    /// Takes how long the acceptance of each report took since the last call, in seconds.
    pub(super) fn take_accepts(&self) -> Vec<f64> {
        let mut accepts = self
            .shared
            .accepts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut accepts)
    }

    /// Holds reports back, and waits until those under way have been answered.
    pub(super) async fn pause(&self) -> Result<()> {
        self.shared.paused.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        loop {
            let open = self
                .known()
                .filter(|(_, known)| known.sent != known.acknowledged + known.failed);
            let open = open.count();
            if open == 0 {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < Duration::from_secs(10),
                "{open} reports got no answer"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Lets them report again.
    pub(super) fn resume(&self) {
        self.shared.paused.store(false, Ordering::Relaxed);
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It fails where the thread has ended, which is what is wanted.
            stop.send(()).unwrap_or_default();
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("isopath-lab: the agents' thread panicked");
        }
    }
}

async fn run(agents: Vec<Arc<Agent>>, shared: Arc<Shared>, stopped: oneshot::Receiver<()>) {
    let count = u32::try_from(agents.len().max(1)).unwrap_or(u32::MAX);
    for (agent, place) in agents.into_iter().zip(0..) {
        let share = |of: Duration| of / count * place;
        let arrival = share(ARRIVAL);
        tokio::spawn(Arc::clone(&agent).follow(Arc::clone(&shared), arrival));
        tokio::spawn(agent.report(Arc::clone(&shared), share(Duration::from_secs(1))));
    }
    // The sender that is dropped tells the same.
    stopped.await.unwrap_or_default();
}
