//! One simulated agent: a stream that is held open, and a report each second on a connection of
//! its own, both made anew as `isopath-agent` does it.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use isopath_api::desired::{AdminState, Desired};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::set::{cluster_name, instance, observed, router_id};
use super::template::Template;
use super::wire::{Answer, Connection, request};

/// How often it reports.
const PERIOD: Duration = Duration::from_secs(1);
/// How long it waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The bound of the delays before a stream is made anew, but for the first.
const MAX_RETRY: Duration = Duration::from_secs(15);
/// Refusals that are kept to be told.
const TOLD: usize = 3;

/// What all agents share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) address: SocketAddr,
    /// The first delay before a stream is made anew is at most this.
    pub(super) first_retry: Duration,
    /// What agents heard on their streams.
    pub(super) heard: mpsc::Sender<Heard>,
    /// Whether reports are being held back.
    pub(super) paused: AtomicBool,
    /// From the sending of a report to the end of its answer, in seconds.
    pub(super) accepts: Mutex<Vec<f64>>,
}

/// A desired state that reached an agent.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    /// The agent's place in the fleet.
    pub(super) agent: usize,
    /// When.
    pub(super) at: Instant,
    /// What it was.
    pub(super) wanted: Wanted,
}

/// What is to be known of a desired state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) generation: u64,
    pub(super) revision: u64,
    /// What the operator wants of the director.
    pub(super) admin: AdminState,
    /// Of the whole text.
    pub(super) hash: u64,
}

/// An agent.
#[derive(Debug)]
pub(super) struct Agent {
    /// Its place in the fleet.
    pub(super) place: usize,
    pub(super) cluster: u16,
    pub(super) n: u8,
    token: String,
    /// A bit for each director of the cluster that announces.
    announcing: Arc<AtomicU8>,
    known: Mutex<Known>,
    /// Something changed that the controller should see at once.
    urgent: Notify,
}

/// What an agent knows and did.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// The desired state in force.
    desired: Option<Arc<Desired>>,
    /// The same in short.
    pub(super) wanted: Option<Wanted>,
    /// When it last came.
    pub(super) heard_at: Option<Instant>,
    /// The number of the last report that was sent.
    pub(super) sent: u64,
    /// How many were acknowledged.
    pub(super) acknowledged: u64,
    /// When the last one was.
    pub(super) acknowledged_at: Option<Instant>,
    /// How many got no answer or another one.
    pub(super) failed: u64,
    /// Why the first of them did.
    pub(super) why: Vec<String>,
}

impl Known {
    /// Whether a report was acknowledged since `since`.
    pub(super) fn is_acknowledged(&self, since: std::time::Instant) -> bool {
        let since = Instant::from_std(since);
        self.acknowledged_at.is_some_and(|at| at >= since)
    }

    /// Whether the desired state came since then as well.
    pub(super) fn is_complete(&self, since: std::time::Instant) -> bool {
        let heard = self
            .heard_at
            .is_some_and(|at| at >= Instant::from_std(since));
        heard && self.is_acknowledged(since)
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            wanted,
            sent,
            acknowledged,
            failed,
            why,
            ..
        } = self;
        write!(
            f,
            "{wanted:?}; {sent} reports, {acknowledged} acknowledged, {failed} failed {why:?}"
        )
    }
}

impl Agent {
    pub(super) fn new(
        place: usize,
        (cluster, n): (u16, u8),
        token: String,
        announcing: Arc<AtomicU8>,
    ) -> Self {
        Self {
            place,
            cluster,
            n,
            token,
            announcing,
            known: Mutex::default(),
            urgent: Notify::new(),
        }
    }

    /// What it knows now.
    pub(super) fn known(&self) -> Known {
        self.with(|known| known.clone())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Known) -> T) -> T {
        work(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn path(&self, of: &str) -> String {
        let cluster = cluster_name(self.cluster);
        format!("/api/v1/clusters/{cluster}/directors/d{}/{of}", self.n)
    }

    fn failed(&self, why: String) {
        self.with(|known| {
            known.failed += 1;
            if known.why.len() < TOLD {
                known.why.push(why);
            }
        });
    }

    /// Holds a stream open for as long as the future is polled; the first attempt comes after
    /// `delay`.
    pub(super) async fn follow(self: Arc<Self>, shared: Arc<Shared>, delay: Duration) {
        sleep(delay).await;
        let mut attempt: u32 = 0;
        loop {
            let opened = self.stream(&shared, &mut attempt).await;
            // Whether it was refused or ended, the delay before the next is the same.
            drop(opened);
            let bound = match attempt {
                0 => shared.first_retry,
                later => Duration::from_secs(1 << later.min(4)).min(MAX_RETRY),
            };
            attempt += 1;
            sleep(bound.mul_f64(fastrand::f64())).await;
        }
    }

    /// Opens a stream and reads it to its end.
    async fn stream(&self, shared: &Shared, attempt: &mut u32) -> Result<()> {
        let mut connection = Connection::open(shared.address).await?;
        let router_id = router_id(self.cluster, self.n).to_string();
        let instance = instance(self.cluster, self.n);
        let headers = [
            ("accept", "text/event-stream"),
            ("isopath-router-id", router_id.as_str()),
            ("isopath-instance", instance.as_str()),
        ];
        let path = self.path("desired");
        let ask = request(("GET", &path), &self.token, &headers, None);
        connection.send(&ask).await?;
        let head = connection.head().await?;
        if head.status != 200 {
            bail!("the stream was refused: {}", head.status);
        }
        *attempt = 0;
        let mut text = Vec::new();
        while connection.chunk(&mut text).await? {
            if text.ends_with(b"\n\n") {
                self.hear(shared, &text)?;
                text.clear();
            }
        }
        Ok(())
    }

    /// Takes an event in force.
    fn hear(&self, shared: &Shared, event: &[u8]) -> Result<()> {
        let at = Instant::now();
        let event = std::str::from_utf8(event).context("an event is not UTF-8")?;
        let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) else {
            return Ok(());
        };
        let mut hasher = DefaultHasher::new();
        data.hash(&mut hasher);
        let hash = hasher.finish();
        let same = self.with(|known| {
            known.heard_at = Some(at);
            known.wanted.filter(|wanted| wanted.hash == hash)
        });
        let wanted = match same {
            Some(wanted) => wanted,
            None => self.take(data, hash)?,
        };
        let heard = Heard {
            agent: self.place,
            at,
            wanted,
        };
        shared.heard.try_send(heard).context("telling of an event")
    }

    fn take(&self, data: &str, hash: u64) -> Result<Wanted> {
        let desired: Desired = serde_json::from_str(data).context("reading a desired state")?;
        let wanted = Wanted {
            generation: desired.generation,
            revision: desired.revision,
            admin: desired.admin_state,
            hash,
        };
        let bit = 1 << (self.n - 1);
        if wanted.admin != AdminState::Drained {
            self.announcing.fetch_or(bit, Ordering::Relaxed);
        } else {
            self.announcing.fetch_and(!bit, Ordering::Relaxed);
        }
        self.with(|known| {
            known.desired = Some(Arc::new(desired));
            known.wanted = Some(wanted);
        });
        self.urgent.notify_one();
        Ok(wanted)
    }

    /// Reports for as long as the future is polled, each second from `phase` on.
    pub(super) async fn report(self: Arc<Self>, shared: Arc<Shared>, phase: Duration) {
        let mut reporter = Reporter::default();
        let mut next = Instant::now() + phase;
        let mut failures: u32 = 0;
        loop {
            // Both are cancel-safe: a notification that is not taken stays, a sleep holds nothing.
            tokio::select! {
                () = self.urgent.notified() => {}
                () = sleep_until(next) => next += PERIOD,
            }
            if shared.paused.load(Ordering::Relaxed) {
                continue;
            }
            match reporter.report(&self, &shared).await {
                Ok(None) => {}
                Ok(Some(took)) => {
                    failures = 0;
                    let mut accepts = shared
                        .accepts
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    accepts.push(took.as_secs_f64());
                }
                Err(error) => {
                    reporter.connection = None;
                    self.failed(format!("{error:#}"));
                    let jitter = Duration::from_secs(1 << failures.min(2)).mul_f64(fastrand::f64());
                    failures += 1;
                    next = Instant::now() + PERIOD.max(jitter);
                }
            }
        }
    }
}

/// What an agent keeps from report to report.
#[derive(Debug, Default)]
struct Reporter {
    connection: Option<Connection>,
    /// What it was made of, and the template.
    template: Option<((u64, u8), Template)>,
    body: Vec<u8>,
}

impl Reporter {
    /// Sends a report: how long its acceptance took; nothing while there is nothing to report.
    async fn report(&mut self, agent: &Agent, shared: &Shared) -> Result<Option<Duration>> {
        let Some((wanted, desired)) = agent.with(|known| {
            known.sent += u64::from(known.desired.is_some());
            Some((known.wanted?, known.desired.clone()?))
        }) else {
            return Ok(None);
        };
        let sequence = agent.with(|known| known.sent);
        let announcing = agent.announcing.load(Ordering::Relaxed);
        let key = (wanted.hash, announcing);
        let template = match &mut self.template {
            Some((of, template)) if *of == key => template,
            slot => {
                let observed = observed(agent.cluster, agent.n, &desired, announcing)?;
                &mut slot.insert((key, Template::new(&observed)?)).1
            }
        };
        self.body.clear();
        template.render(sequence, wanted.generation, &mut self.body);
        let path = agent.path("observed");
        let text = request(("POST", &path), &agent.token, &[], Some(&self.body));
        let begun = Instant::now();
        let answer = timeout(ANSWER_TIMEOUT, self.exchange(shared.address, &text)).await;
        let answer = answer.context("no answer in time")??;
        let took = begun.elapsed();
        if answer.status != 200 {
            bail!(
                "{}: {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            );
        }
        agent.with(|known| {
            known.acknowledged += 1;
            known.acknowledged_at = Some(Instant::now());
        });
        Ok(Some(took))
    }

    async fn exchange(&mut self, address: SocketAddr, text: &[u8]) -> Result<Answer> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            slot => slot.insert(Connection::open(address).await.context("connecting")?),
        };
        connection.ask(text).await.context("reporting")
    }
}
