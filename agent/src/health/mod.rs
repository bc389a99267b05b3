//! The checks of the real servers.
//!
//! Each check is a task with a timer of its own. It takes one of a bounded number of permits
//! for the time of one try, so that many dead real servers cannot use up the process's file
//! descriptors; the wait for a permit counts neither towards the try's timeout nor moves the
//! schedule of the later tries. [`Checks`] owns the state of all checks and is itself owned by
//! the control loop, which hands it the [`Outcome`]s that the tasks send.

mod probe;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use isopath_api::declare::{CheckKind, CheckSpec, ServiceSpec};
use isopath_api::ids::{RealServerId, ServiceId};
use isopath_api::observed::{CheckResult, Health};
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use probe::Target;
pub use state::HealthState;

use crate::tls::CheckTls;

/// How many tries run at the same time: a socket each, well below the usual limit of 1024
/// descriptors. 500 ms long tries that all time out leave room for 1000 checks a second.
const MAX_IN_FLIGHT: usize = 512;

/// Outcomes that wait for the control loop. It takes them in batches; when it is behind, the
/// checks wait instead of filling memory.
const OUTCOMES: usize = 1024;

/// The longest time that the first try of a check is put off, so that checks which start
/// together do not stay together.
const MAX_PHASE: Duration = Duration::from_secs(1);

/// What identifies a check.
pub type CheckKey = (ServiceId, RealServerId);

/// What one try of a check found.
#[derive(Debug)]
pub struct Outcome {
    key: CheckKey,
    /// The check's own number: tells a late outcome of a replaced check from a new one.
    serial: u64,
    ok: bool,
    detail: String,
    took: Duration,
}

/// One check and the health it found.
#[derive(Debug)]
pub struct Checked {
    spec: CheckSpec,
    serial: u64,
    state: HealthState,
    /// Since when the health stands.
    pub since: Timestamp,
    /// The last try.
    pub last: Option<CheckResult>,
    _task: AbortOnDropHandle<()>,
}

impl Checked {
    /// The health as it stands.
    pub fn health(&self) -> Health {
        self.state.health()
    }
}

/// The real servers of a service that count as healthy without a check.
#[derive(Debug)]
struct Unchecked {
    since: Timestamp,
    /// In ascending order.
    servers: Box<[RealServerId]>,
}

impl Unchecked {
    fn new(service: &ServiceSpec, since: Timestamp) -> Self {
        let servers = service.real_server.iter();
        let mut servers: Box<[_]> = servers.map(|it| service.real_server_id(it)).collect();
        servers.sort_unstable();
        Self { since, servers }
    }

    fn has(&self, server: RealServerId) -> bool {
        self.servers.binary_search(&server).is_ok()
    }
}

/// All checks of this director.
#[derive(Debug)]
pub struct Checks {
    running: BTreeMap<CheckKey, Checked>,
    unchecked: BTreeMap<ServiceId, Unchecked>,
    next_serial: u64,
    tls: Arc<CheckTls>,
    permits: Arc<Semaphore>,
    outcomes: mpsc::Sender<Outcome>,
}

impl Checks {
    /// No checks yet, and where their outcomes will come out.
    pub fn new() -> (Self, mpsc::Receiver<Outcome>) {
        let (outcomes, receiver) = mpsc::channel(OUTCOMES);
        let checks = Self {
            running: BTreeMap::new(),
            unchecked: BTreeMap::new(),
            next_serial: 0,
            tls: Arc::new(CheckTls::new()),
            permits: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            outcomes,
        };
        (checks, receiver)
    }

    /// Makes the running checks those of `services`. An unchanged check goes on undisturbed; a
    /// changed one keeps its health and counts anew.
    pub fn apply(&mut self, services: &[ServiceSpec], now: Timestamp) {
        let mut before = std::mem::take(&mut self.running);
        let unchecked = std::mem::take(&mut self.unchecked);
        for service in services {
            let without = unchecked.get(&service.id());
            if service.check.kind == CheckKind::None {
                let since = without.map_or(now, |it| it.since);
                let servers = Unchecked::new(service, since);
                self.unchecked.insert(service.id(), servers);
                continue;
            }
            for server in &service.real_server {
                let key = (service.id(), service.real_server_id(server));
                let checked = match before.remove(&key) {
                    Some(checked) if checked.spec == service.check => checked,
                    Some(Checked { state, since, .. }) => {
                        self.start(key, &service.check, state.health(), since)
                    }
                    None => match without.filter(|it| it.has(key.1)) {
                        Some(it) => self.start(key, &service.check, Health::Up, it.since),
                        None => self.start(key, &service.check, Health::Unknown, now),
                    },
                };
                self.running.insert(key, checked);
            }
        }
    }

    fn start(
        &mut self,
        key: CheckKey,
        spec: &CheckSpec,
        health: Health,
        since: Timestamp,
    ) -> Checked {
        let serial = self.next_serial;
        self.next_serial += 1;
        let check = Check {
            key,
            serial,
            interval: spec.interval,
            target: Target::new(key, spec, Arc::clone(&self.tls)),
            permits: Arc::clone(&self.permits),
            outcomes: self.outcomes.clone(),
        };
        Checked {
            spec: spec.clone(),
            serial,
            state: HealthState::resumed(health),
            since,
            last: None,
            _task: AbortOnDropHandle::new(tokio::spawn(check.run())),
        }
    }

    /// Counts an outcome; answers the check and its new health where that changed.
    pub fn take(&mut self, outcome: Outcome, now: Timestamp) -> Option<(CheckKey, Health)> {
        let checked = self
            .running
            .get_mut(&outcome.key)
            .filter(|checked| checked.serial == outcome.serial)?;
        let spec = &checked.spec;
        let change = checked.state.observe(outcome.ok, spec.rise, spec.fall);
        if change.is_some() {
            checked.since = now;
        }
        checked.last = Some(CheckResult {
            ok: outcome.ok,
            detail: outcome.detail,
            took_ms: u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX),
            in_a_row: checked.state.in_a_row(),
            at: now,
        });
        change.map(|health| (outcome.key, health))
    }

    /// What a try of the running check would bring, for the tests of others.
    #[cfg(test)]
    pub(crate) fn outcome(&self, service: ServiceId, server: RealServerId, ok: bool) -> Outcome {
        let check = self.check(service, server).expect("the check runs");
        Outcome {
            key: (service, server),
            serial: check.serial,
            ok,
            detail: "played".to_owned(),
            took: Duration::ZERO,
        }
    }

    /// A check as it stands; nothing where there is none.
    pub fn check(&self, service: ServiceId, server: RealServerId) -> Option<&Checked> {
        self.running.get(&(service, server))
    }

    /// The health of a real server; unknown where there is none.
    pub fn health(&self, service: ServiceId, server: RealServerId) -> Health {
        match self.check(service, server) {
            Some(check) => check.health(),
            None if self.without_check(service, server).is_some() => Health::Up,
            None => Health::Unknown,
        }
    }

    /// Since when its health stands; nothing where there is none.
    pub fn since(&self, service: ServiceId, server: RealServerId) -> Option<Timestamp> {
        match self.check(service, server) {
            Some(check) => Some(check.since),
            None => self.without_check(service, server).map(|it| it.since),
        }
    }

    fn without_check(&self, service: ServiceId, server: RealServerId) -> Option<&Unchecked> {
        self.unchecked.get(&service).filter(|it| it.has(server))
    }
}

/// The task of one check.
struct Check {
    key: CheckKey,
    serial: u64,
    interval: Duration,
    target: Target,
    permits: Arc<Semaphore>,
    outcomes: mpsc::Sender<Outcome>,
}

impl Check {
    async fn run(self) {
        let phase = self.interval.min(MAX_PHASE).mul_f64(fastrand::f64());
        let mut next = Instant::now() + phase;
        loop {
            sleep_until(next).await;
            let Ok(permit) = self.permits.acquire().await else {
                return;
            };
            let start = Instant::now();
            // A try takes kilobytes, and thousands of checks mostly wait for their next one.
            let verdict = Box::pin(self.target.probe()).await;
            let took = start.elapsed();
            drop(permit);
            let (ok, detail) = match verdict {
                Ok(detail) => (true, detail),
                Err(failure) => (false, failure.to_string()),
            };
            let outcome = Outcome {
                key: self.key,
                serial: self.serial,
                ok,
                detail,
                took,
            };
            if self.outcomes.send(outcome).await.is_err() {
                return;
            }
            next = (next + jittered(self.interval)).max(Instant::now());
        }
    }
}

/// The interval give or take a tenth, so that checks which fell into step fall out of it.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}

#[cfg(test)]
mod tests;
