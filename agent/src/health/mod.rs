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
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use isopath_api::declare::{CheckKind, ServiceSpec};
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
    /// The service, for its check.
    service: Arc<ServiceSpec>,
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
    /// The services that this is about.
    services: BTreeMap<ServiceId, Arc<ServiceSpec>>,
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
            services: BTreeMap::new(),
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
    /// changed one keeps its health and counts anew. Answers the services that are not what they
    /// were, those that are gone aside.
    pub fn apply(&mut self, services: &[Arc<ServiceSpec>], now: Timestamp) -> Vec<ServiceId> {
        let mut changed = Vec::new();
        let mut before = std::mem::take(&mut self.services);
        for service in services {
            let id = service.id();
            if before.remove(&id).as_ref() != Some(service) {
                self.check_service(service, now);
                changed.push(id);
            }
            self.services.insert(id, Arc::clone(service));
        }
        for gone in before.into_keys() {
            self.unchecked.remove(&gone);
            self.stop(gone);
        }
        changed
    }

    fn check_service(&mut self, service: &Arc<ServiceSpec>, now: Timestamp) {
        let id = service.id();
        let without = self.unchecked.remove(&id);
        let mut before = self.stop(id);
        if service.check.kind == CheckKind::None {
            let since = without.map_or(now, |it| it.since);
            self.unchecked.insert(id, Unchecked::new(service, since));
            return;
        }
        for server in &service.real_server {
            let key = (id, service.real_server_id(server));
            let checked = match before.remove(&key.1) {
                Some(checked) if checked.service.check == service.check => Checked {
                    service: Arc::clone(service),
                    ..checked
                },
                Some(Checked { state, since, .. }) => {
                    self.start(key, service, state.health(), since)
                }
                None => match without.as_ref().filter(|it| it.has(key.1)) {
                    Some(it) => self.start(key, service, Health::Up, it.since),
                    None => self.start(key, service, Health::Unknown, now),
                },
            };
            self.running.insert(key, checked);
        }
    }

    /// Takes the checks of a service, which end when they are dropped.
    fn stop(&mut self, service: ServiceId) -> BTreeMap<RealServerId, Checked> {
        let at = |ip, port| (service, RealServerId(SocketAddrV4::new(ip, port)));
        let all = at(Ipv4Addr::UNSPECIFIED, 0)..=at(Ipv4Addr::BROADCAST, u16::MAX);
        let keys: Vec<CheckKey> = self.running.range(all).map(|(key, _)| *key).collect();
        let taken = keys
            .into_iter()
            .filter_map(|key| self.running.remove_entry(&key));
        taken
            .map(|((_, server), checked)| (server, checked))
            .collect()
    }

    fn start(
        &mut self,
        key: CheckKey,
        service: &Arc<ServiceSpec>,
        health: Health,
        since: Timestamp,
    ) -> Checked {
        let spec = &service.check;
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
            service: Arc::clone(service),
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
        let spec = &checked.service.check;
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

    /// What is known of the real servers of a service.
    pub fn of(&self, service: ServiceId) -> ServiceHealth<'_> {
        ServiceHealth {
            checks: self,
            service,
            unchecked: self.unchecked.get(&service),
        }
    }
}

/// What is known of the real servers of a service.
#[derive(Debug, Clone, Copy)]
pub struct ServiceHealth<'a> {
    checks: &'a Checks,
    service: ServiceId,
    unchecked: Option<&'a Unchecked>,
}

impl<'a> ServiceHealth<'a> {
    /// A check as it stands; nothing where there is none.
    pub fn check(self, server: RealServerId) -> Option<&'a Checked> {
        // A service has one check for all of its real servers, or none.
        match self.unchecked {
            Some(_) => None,
            None => self.checks.check(self.service, server),
        }
    }

    /// The health of a real server; unknown where there is none.
    pub fn health(self, server: RealServerId) -> Health {
        match self.unchecked {
            Some(unchecked) if unchecked.has(server) => Health::Up,
            Some(_) => Health::Unknown,
            None => self.check(server).map_or(Health::Unknown, Checked::health),
        }
    }

    /// Since when its health stands; nothing where there is none.
    pub fn since(self, server: RealServerId) -> Option<Timestamp> {
        match self.unchecked {
            Some(unchecked) => unchecked.has(server).then_some(unchecked.since),
            None => self.check(server).map(|check| check.since),
        }
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
