//! The loop around the planner: observe, plan, execute, observe again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use isopath_api::ids::{Packets, Vip};
use isopath_api::reason::Reason;
use isopath_ipvs::Cause;
use tracing::{info, warn};

use super::digest::Digests;
use super::error::DataplaneError;
use super::kernel::{Kernel, Scope};
use super::ledger::Ledger;
use super::observed::Observed;
use super::plan::{AtRest, Plan, Planner, Quiesced};
use super::retry::{Now, Retries};
use super::state::{KernelServices, Preview, Report, Wanted};
use super::step::{Holds, Step, Subject, Touched, Undone, subjects};
use super::sysctl;
use crate::causes;
use crate::store::{StoreError, read_json, write_json};

/// How often one call plans anew: adding takes one round, removing an idle real server two
/// (weight 0, then the deletion), and the third finds nothing left to do.
const ROUNDS: usize = 3;

/// For how long what was read of the kernel is good enough to plan a change on: not much longer
/// than the period in which all of it is read.
const FRESH: Duration = Duration::from_secs(3);

/// How many steps of a plan are logged one by one; of more there is one line.
const LOGGED: usize = 40;

/// Makes the kernel what is wanted of it.
pub(super) struct Programmer {
    interface: String,
    ledger: Ledger,
    ledger_path: PathBuf,
    /// What the file holds.
    saved: Ledger,
    /// Why the file does not hold the ledger.
    unsaved: Option<String>,
    /// Opened when first needed, and anew after it failed.
    kernel: Option<Kernel>,
    /// What the kernel had, and when all of it was read.
    seen: Option<(Observed, Instant)>,
    /// The same, read by [`Self::look`] for the reconcile that follows.
    looked: Option<(Observed, Instant)>,
    at_rest: AtRest,
    quiesced: Quiesced,
    retries: Retries,
    /// What the kernel was last made to have, all of it.
    settled: Option<Wanted>,
    /// What was reported last, where nothing failed and nothing was left to be done or waited for.
    idle: Option<Report>,
    counts: Counts,
    /// What failed last time, without the times.
    failures: BTreeSet<String>,
    digests: Digests,
}

/// What was done since the start.
#[derive(Default)]
struct Counts {
    steps: u64,
    drift_repaired: u64,
}

/// How much of the kernel is read before planning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// All of it: finds drift.
    Everything,
    /// Nothing where it was read a moment ago.
    Nothing,
}

/// How a reconcile ended.
struct Outcome {
    observed: Observed,
    /// What is left to be done.
    pending: Vec<Step>,
}

impl Programmer {
    pub(super) fn new(interface: String, state_dir: &Path) -> Result<Self, StoreError> {
        let ledger_path = state_dir.join("dataplane.json");
        let ledger: Ledger = read_json(&ledger_path)?.unwrap_or_default();
        Ok(Self {
            interface,
            saved: ledger.clone(),
            ledger,
            ledger_path,
            unsaved: None,
            kernel: None,
            seen: None,
            looked: None,
            at_rest: AtRest::default(),
            quiesced: Quiesced::new(),
            retries: Retries::default(),
            settled: None,
            idle: None,
            counts: Counts::default(),
            failures: BTreeSet::new(),
            digests: Digests::default(),
        })
    }

    /// The services in the kernel, whoever made them.
    pub(super) async fn services(&mut self) -> Result<KernelServices, DataplaneError> {
        match self.observe(&Wanted::default()).await {
            Ok(observed) => Ok(observed.services),
            // Where there is no IPVS, no service was left behind.
            Err(DataplaneError::Ipvs(error)) if matches!(error.cause, Cause::NoModule) => {
                Ok(KernelServices::default())
            }
            Err(error) => Err(error),
        }
    }

    /// What would be done to make the kernel what is wanted. Where it cannot be read, why, and
    /// what would be done to an empty one.
    pub(super) async fn preview(&mut self, wanted: &Wanted) -> Preview {
        let (observed, unread) = match self.observe(wanted).await {
            Ok(observed) => (observed, None),
            Err(error) => (Observed::default(), Some(causes(&error))),
        };
        self.ledger.update(&self.interface, wanted, &observed);
        let plan = self.plan(&observed, wanted, wanted.lvs.drain_limit.0);
        Preview {
            unread,
            steps: plan.steps.iter().map(Step::to_string).collect(),
        }
    }

    /// Reads all of the kernel for a reconcile that follows at once, which reads it itself where
    /// that fails. The future may be dropped: nothing has happened then.
    pub(super) async fn look(&mut self, wanted: &Wanted) {
        let observed = self.observe(wanted).await;
        self.looked = observed.map(|observed| (observed, Instant::now())).ok();
    }

    pub(super) async fn reconcile(&mut self, wanted: &Wanted, look: Look) -> Report {
        if look == Look::Everything
            && let Some(report) = self.unchanged(wanted).await
        {
            return report;
        }
        self.idle = None;
        let limit = wanted.lvs.drain_limit.0;
        let mut result = self.rounds(wanted, look, limit).await;
        if result.is_err() {
            // The connection may have been to a module that was loaded anew since.
            result = self.rounds(wanted, Look::Everything, limit).await;
        }
        match result {
            Ok(outcome) => self.report(wanted, outcome),
            Err(error) => self.blind(wanted, &error),
        }
    }

    /// Reads all of the kernel where nothing was left to be done for what is wanted, and answers
    /// with the report of then if nothing has changed since. Otherwise what was read is there for
    /// whoever goes on.
    async fn unchanged(&mut self, wanted: &Wanted) -> Option<Report> {
        if self.idle.is_none() || self.settled.as_ref() != Some(wanted) {
            return None;
        }
        if self.looked.is_none() {
            self.look(wanted).await;
        }
        let (seen, _) = self.seen.as_ref()?;
        let (now, _) = self.looked.as_ref()?;
        if now != seen {
            return None;
        }
        self.seen = self.looked.take();
        self.idle.clone()
    }

    /// Removes everything that is ours, without waiting for connections to end.
    pub(super) async fn tear_down(&mut self) -> Report {
        let nothing = Wanted::default();
        let rounds = self.rounds(&nothing, Look::Everything, Duration::ZERO);
        match rounds.await {
            Ok(outcome) => self.report(&nothing, outcome),
            Err(error) => self.blind(&nothing, &error),
        }
    }

    async fn rounds(
        &mut self,
        wanted: &Wanted,
        look: Look,
        drain_limit: Duration,
    ) -> Result<Outcome, DataplaneError> {
        let looked = self.looked.take();
        let (seen, read) = match look {
            Look::Everything => (looked, true),
            Look::Nothing => {
                let seen = self.seen.take_if(|(_, at)| at.elapsed() < FRESH);
                let read = seen.is_none();
                (seen, read)
            }
        };
        let (mut observed, at) = match seen {
            Some(seen) => seen,
            None => (self.observe(wanted).await?, Instant::now()),
        };
        self.keep_books(wanted, &observed);
        let mut plan = self.plan(&observed, wanted, drain_limit);
        let mut drift = match &self.settled {
            Some(settled) if read && settled == wanted => subjects(&plan.steps),
            Some(settled) if read => {
                let drifted = self.planner(&observed, settled, drain_limit).plan();
                subjects(&drifted.steps)
            }
            Some(_) | None => BTreeSet::new(),
        };
        for _ in 0..ROUNDS {
            let touched = self
                .execute(&plan.steps, (wanted, &observed), &mut drift)
                .await;
            if touched.is_empty() {
                break;
            }
            // A large plan does not stay beside what is read again and the next plan.
            drop(std::mem::take(&mut plan.steps));
            let scope = self.scope(wanted);
            if let Some(kernel) = &mut self.kernel {
                let again = kernel.observe_again(&scope, &touched, &mut observed);
                again.await.inspect_err(|_| self.kernel = None)?;
            }
            self.keep_books(wanted, &observed);
            plan = self.plan(&observed, wanted, drain_limit);
            if touched.done == 0 {
                break;
            }
        }
        self.save(self.ledger.clone());
        self.retries.keep(&plan.steps);
        self.at_rest.replace(&plan, wanted, &observed);
        self.seen = Some((observed.clone(), at));
        Ok(Outcome {
            observed,
            pending: plan.steps,
        })
    }

    fn plan(&self, observed: &Observed, wanted: &Wanted, drain_limit: Duration) -> Plan {
        self.planner(observed, wanted, drain_limit).plan()
    }

    fn planner<'a>(
        &'a self,
        observed: &'a Observed,
        wanted: &'a Wanted,
        drain_limit: Duration,
    ) -> Planner<'a> {
        Planner {
            interface: &self.interface,
            observed,
            wanted,
            ledger: &self.ledger,
            quiesced: &self.quiesced,
            at_rest: &self.at_rest,
            now: Instant::now(),
            drain_limit,
        }
    }

    async fn observe(&mut self, wanted: &Wanted) -> Result<Observed, DataplaneError> {
        let kernel = match self.kernel.take() {
            Some(kernel) => kernel,
            None => Kernel::connect().await?,
        };
        // It stays ours while it is being read: whoever drops the future leaves all as it was.
        let kernel = self.kernel.insert(kernel);
        let before = self.seen.as_ref().map(|(observed, _)| observed);
        let scope = Self::scope_of(&self.ledger, &self.interface, wanted);
        let observed = kernel.observe(&scope, before).await;
        if observed.is_err() {
            self.kernel = None;
            self.seen = None;
        }
        observed
    }

    fn scope(&self, wanted: &Wanted) -> Scope {
        Self::scope_of(&self.ledger, &self.interface, wanted)
    }

    fn scope_of(ledger: &Ledger, interface: &str, wanted: &Wanted) -> Scope {
        let mut interfaces: BTreeSet<String> = ledger.interfaces.keys().cloned().collect();
        interfaces.insert(interface.to_owned());
        let ours = ledger.services.keys();
        let marks = ours.chain(wanted.services.keys());
        let marks = marks.filter_map(|id| match id.packets {
            Packets::Marked(mark) => Some((mark, id.vip)),
            Packets::To { .. } => None,
        });
        Scope {
            interfaces,
            marks: marks.collect(),
        }
    }

    /// Brings the ledger and the list of quiesced real servers up to date.
    fn keep_books(&mut self, wanted: &Wanted, observed: &Observed) {
        for id in wanted.services.keys() {
            let ours = self.ledger.services.contains_key(id);
            if !ours && observed.services.contains_key(id) {
                info!(service = %id, "taking over a service that was there already");
            }
        }
        self.ledger.update(&self.interface, wanted, observed);

        let mut quiesced = Quiesced::new();
        for id in self.ledger.services.keys() {
            let Some(service) = observed.services.get(id) else {
                continue;
            };
            let shall = wanted.services.get(id);
            if shall.is_some_and(|shall| self.at_rest.has(shall, service)) {
                continue;
            }
            let shall = shall.map(|shall| shall.by_address()).unwrap_or_default();
            let quiet = service.real_servers.iter().map(|server| &server.spec);
            for spec in quiet.filter(|spec| spec.weight == 0) {
                if !shall.contains_key(&spec.address) {
                    let key = (*id, spec.address);
                    let since = self.quiesced.get(&key).copied();
                    quiesced.insert(key, since.unwrap_or_else(Instant::now));
                }
            }
        }
        self.quiesced = quiesced;
    }

    /// Writes a ledger. Where it cannot be written the work goes on, and that is reported: at
    /// worst a crash now leaves an object that the next agent takes for somebody else's.
    fn save(&mut self, ledger: Ledger) {
        if ledger == self.saved {
            self.unsaved = None;
            return;
        }
        match write_json(&self.ledger_path, &ledger) {
            Ok(()) => {
                self.saved = ledger;
                self.unsaved = None;
            }
            Err(error) => self.unsaved = Some(causes(&error)),
        }
    }

    /// Executes a plan, except for what waits for its next try and what needs what was not done.
    async fn execute(
        &mut self,
        steps: &[Step],
        (wanted, observed): (&Wanted, &Observed),
        drift: &mut BTreeSet<Subject>,
    ) -> Touched {
        let mut touched = Touched::default();
        if steps.is_empty() {
            return touched;
        }
        // Before anything is made, it stands in the file as ours.
        self.save(self.ledger.ahead_of(steps));
        let mut undone = Undone::default();
        let mut rest = steps;
        while let Some(first) = rest.first() {
            let together = match first.rank() {
                Some(rank) => rest.iter().take_while(|it| it.rank() == Some(rank)).count(),
                None => 1,
            };
            let (some, later) = rest.split_at(together);
            rest = later;
            let now = Now::read();
            let mut due = Vec::with_capacity(some.len());
            for step in some {
                let wait = self.retries.hold(step, |it| observed.shape(it), now);
                if wait || undone.hinders(step) {
                    undone.add(step);
                } else {
                    due.push(step);
                }
            }
            let results = match &self.kernel {
                Some(kernel) if first.rank().is_some() => kernel.execute_together(&due).await,
                Some(kernel) => {
                    let mut results = Vec::new();
                    for step in &due {
                        results.push(kernel.execute(step).await);
                    }
                    results
                }
                None => return touched,
            };
            for (step, result) in due.into_iter().zip(results) {
                let seen = (wanted, observed);
                let done = self.take_result(step, result, seen, &mut undone, &mut touched);
                if done && !drift.is_empty() && drift.remove(&step.subject()) {
                    self.counts.drift_repaired += 1;
                }
            }
        }
        if touched.done > LOGGED {
            let (steps, failed) = (touched.done, touched.failed);
            info!(steps, failed, "changed the kernel");
        }
        touched
    }

    /// Takes note of what became of a step; answers whether it was done.
    fn take_result(
        &mut self,
        step: &Step,
        result: Result<(), DataplaneError>,
        (wanted, observed): (&Wanted, &Observed),
        undone: &mut Undone,
        touched: &mut Touched,
    ) -> bool {
        let done = result.is_ok();
        touched.add(step);
        match result {
            Ok(()) => {
                touched.done += 1;
                if touched.done <= LOGGED {
                    info!(%step, "changed the kernel");
                }
                self.counts.steps += 1;
                self.ledger.record(step, observed, wanted);
            }
            // It was given to the kernel together with what it needs, and that had failed.
            Err(_) if undone.hinders(step) => undone.add(step),
            Err(error) => {
                touched.failed += 1;
                let error = (causes(&error), reason(&error, observed));
                let shape = |it: &Subject| observed.shape(it);
                self.retries.failed(step, shape, error, Now::read());
                undone.add(step);
            }
        }
        done
    }

    fn report(&mut self, wanted: &Wanted, outcome: Outcome) -> Report {
        let Outcome { observed, pending } = outcome;
        let done = |step: &Step| step.goes_on_with_removal();
        self.settled = pending.iter().all(done).then(|| wanted.clone());
        let services = wanted.services.keys().filter_map(|id| {
            let service = observed.services.get(id)?;
            Some((*id, Arc::clone(service)))
        });
        let failures = self.retries.failures();
        let failures: Vec<String> = failures.map(|failure| failure.report()).collect();
        let texts = self.retries.failures().map(|failure| failure.text.clone());
        let texts = texts.chain(self.unsaved.clone()).collect();
        let digests = self.digests.of(wanted, &observed, &self.ledger);
        let report = Report {
            digests,
            vips: self.readiness(wanted, &observed, &pending),
            services: Arc::new(services.collect()),
            steps: self.counts.steps,
            drift_repaired: self.counts.drift_repaired,
            failures: failures.into_iter().chain(self.unsaved.clone()).collect(),
        };
        self.log(texts);
        let at_rest = pending.is_empty() && self.quiesced.is_empty() && report.failures.is_empty();
        self.idle = at_rest.then(|| report.clone());
        report
    }

    /// Each wanted VIP: ready, or why not.
    ///
    /// A sysctl that is not as it must be withdraws no VIP that was announced before, so it must
    /// not hide what does.
    fn readiness(
        &self,
        wanted: &Wanted,
        observed: &Observed,
        pending: &[Step],
    ) -> BTreeMap<Vip, Result<(), Reason>> {
        let (mut all, mut sysctl) = (None, None);
        let mut held: BTreeMap<Vip, &Step> = BTreeMap::new();
        for step in pending {
            match step.holds() {
                Holds::All if matches!(step, Step::SetSysctl { .. }) => {
                    sysctl = sysctl.or(Some(step));
                }
                Holds::All => all = all.or(Some(step)),
                Holds::One(vip) => {
                    held.entry(vip).or_insert(step);
                }
                Holds::None => {}
            }
        }
        let ready = |vip: &Vip| match all.or(held.get(vip).copied()).or(sysctl) {
            Some(step) => Err(self.why(step, observed)),
            None => Ok(()),
        };
        wanted.vips.iter().map(|vip| (*vip, ready(vip))).collect()
    }

    /// Why a step is not done: its own failure, that of one it needs, or something outside that
    /// undid it at once.
    fn why(&self, step: &Step, observed: &Observed) -> Reason {
        match (self.retries.why(step), step) {
            (Some(failure), _) => failure.reason.clone(),
            (None, Step::SetSysctl { key, value }) => {
                sysctl::refused(key, value, &observed.sysctls)
            }
            (None, Step::RaiseInterface(interface)) => Reason::InterfaceDown {
                interface: interface.clone(),
            },
            (None, step) => Reason::DataplaneNotReady {
                what: format!("the kernel does not keep it: {step}"),
            },
        }
    }

    /// Logs what fails now and did not before, not the same again each second.
    fn log(&mut self, failures: BTreeSet<String>) {
        for failure in failures.difference(&self.failures) {
            warn!(failure, "the data plane is not as wanted");
        }
        if failures.is_empty() && !self.failures.is_empty() {
            info!("the data plane is as wanted again");
        }
        self.failures = failures;
    }

    /// What is reported when the kernel could not be read: nothing is known to be ready.
    fn blind(&mut self, wanted: &Wanted, error: &DataplaneError) -> Report {
        let not_ready = |vip: &Vip| (*vip, Err(error.reason()));
        let failure = causes(error);
        self.log([failure.clone()].into());
        Report {
            vips: wanted.vips.iter().map(not_ready).collect(),
            services: KernelServices::default(),
            digests: Arc::default(),
            steps: self.counts.steps,
            drift_repaired: self.counts.drift_repaired,
            failures: vec![failure],
        }
    }
}

/// Why a VIP that needs what failed is not announced.
fn reason(error: &DataplaneError, observed: &Observed) -> Reason {
    match error {
        DataplaneError::SetSysctl { key, value, .. } => {
            sysctl::refused(key, value, &observed.sysctls)
        }
        error => error.reason(),
    }
}
