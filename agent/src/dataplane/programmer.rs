//! The loop around the planner: observe, plan, execute, observe again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use isopath_api::ids::{Packets, ServiceId, Vip};
use isopath_api::reason::Reason;
use isopath_ipvs::Cause;
use tracing::{info, warn};

use super::error::DataplaneError;
use super::kernel::Kernel;
use super::ledger::Ledger;
use super::observed::Observed;
use super::plan::{Planner, Quiesced};
use super::state::{KernelService, Report, Wanted};
use super::step::{Holds, Step, Subject, subjects};
use crate::causes;
use crate::store::{StoreError, read_json, write_json};

/// How often one call observes and plans anew: adding takes one round, removing an idle real
/// server two (weight 0, then the deletion), and the third finds nothing left to do.
const ROUNDS: usize = 3;

/// Makes the kernel what is wanted of it.
pub(super) struct Programmer {
    interface: String,
    ledger: Ledger,
    ledger_path: PathBuf,
    /// What the file holds.
    saved: Ledger,
    /// Why the file does not hold the ledger.
    unsaved: Option<String>,
    drain_limit: Duration,
    /// Opened when first needed, and anew after it failed.
    kernel: Option<Kernel>,
    quiesced: Quiesced,
    /// What the kernel was last made to have, all of it.
    settled: Option<Wanted>,
    steps: u64,
    drift_repaired: u64,
    /// What failed last time.
    failures: Vec<String>,
}

/// How a round ended.
struct Round {
    observed: Observed,
    /// The steps that failed, and why.
    failed: Vec<(Step, DataplaneError)>,
    /// Differences to what was settled, found before the first step.
    drift: BTreeSet<Subject>,
}

impl Programmer {
    pub(super) fn new(
        interface: String,
        state_dir: &Path,
        drain_limit: Duration,
    ) -> Result<Self, StoreError> {
        let ledger_path = state_dir.join("dataplane.json");
        let ledger: Ledger = read_json(&ledger_path)?.unwrap_or_default();
        Ok(Self {
            interface,
            saved: ledger.clone(),
            ledger,
            ledger_path,
            unsaved: None,
            drain_limit,
            kernel: None,
            quiesced: Quiesced::new(),
            settled: None,
            steps: 0,
            drift_repaired: 0,
            failures: Vec::new(),
        })
    }

    /// The services in the kernel, whoever made them.
    pub(super) async fn services(
        &mut self,
    ) -> Result<BTreeMap<ServiceId, KernelService>, DataplaneError> {
        match self.observe(&Wanted::default()).await {
            Ok(observed) => {
                let services = observed.services.iter();
                Ok(services.map(|(id, it)| (*id, it.report())).collect())
            }
            // Where there is no IPVS, no service was left behind.
            Err(DataplaneError::Ipvs(error)) if matches!(error.cause, Cause::NoModule) => {
                Ok(BTreeMap::new())
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn reconcile(&mut self, wanted: &Wanted) -> Report {
        let mut result = self.rounds(wanted, self.drain_limit).await;
        if result.is_err() {
            // The connection may have been to a module that was loaded anew since.
            result = self.rounds(wanted, self.drain_limit).await;
        }
        let report = match result {
            Ok(round) => self.report(wanted, &round),
            Err(error) => self.blind(wanted, &error),
        };
        self.log(&report.failures);
        report
    }

    /// Logs what fails now and did not before, not the same again each second.
    fn log(&mut self, failures: &[String]) {
        for failure in failures {
            if !self.failures.contains(failure) {
                warn!(failure, "the data plane is not as wanted");
            }
        }
        if failures.is_empty() && !self.failures.is_empty() {
            info!("the data plane is as wanted again");
        }
        self.failures = failures.to_vec();
    }

    /// Removes everything that is ours, without waiting for connections to end.
    pub(super) async fn tear_down(&mut self) -> Report {
        let nothing = Wanted::default();
        let report = match self.rounds(&nothing, Duration::ZERO).await {
            Ok(round) => self.report(&nothing, &round),
            Err(error) => self.blind(&nothing, &error),
        };
        self.log(&report.failures);
        report
    }

    async fn rounds(
        &mut self,
        wanted: &Wanted,
        drain_limit: Duration,
    ) -> Result<Round, DataplaneError> {
        let observed = self.observe(wanted).await?;
        let drift = match &self.settled {
            Some(settled) => subjects(&self.planner(&observed, settled, drain_limit).plan()),
            None => BTreeSet::new(),
        };
        let mut round = Round {
            observed,
            failed: Vec::new(),
            drift,
        };
        for _ in 0..ROUNDS {
            self.keep_books(wanted, &round.observed);
            let steps = self.planner(&round.observed, wanted, drain_limit).plan();
            if steps.is_empty() {
                break;
            }
            let before = self.steps;
            self.execute(&steps, &mut round).await;
            round.observed = self.observe(wanted).await?;
            if self.steps == before {
                break;
            }
        }
        self.keep_books(wanted, &round.observed);
        Ok(round)
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
            now: Instant::now(),
            drain_limit,
        }
    }

    async fn observe(&mut self, wanted: &Wanted) -> Result<Observed, DataplaneError> {
        let kernel = match self.kernel.take() {
            Some(kernel) => kernel,
            None => Kernel::connect().await?,
        };
        let mut interfaces: BTreeSet<String> = self.ledger.interfaces.keys().cloned().collect();
        interfaces.insert(self.interface.clone());
        let ours = self.ledger.services.keys();
        let marks = ours.chain(wanted.services.keys());
        let marks = marks.filter_map(|id| match id.packets {
            Packets::Marked(mark) => Some((mark, id.vip)),
            Packets::To { .. } => None,
        });
        let observed = kernel.observe(interfaces, &marks.collect()).await?;
        self.kernel = Some(kernel);
        Ok(observed)
    }

    /// Brings the ledger and the list of quiesced real servers up to date, on disk too.
    fn keep_books(&mut self, wanted: &Wanted, observed: &Observed) {
        for id in wanted.services.keys() {
            let ours = self.ledger.services.contains_key(id);
            if !ours && observed.services.contains_key(id) {
                info!(service = %id, "taking over a service that was there already");
            }
        }
        self.ledger.update(&self.interface, wanted, observed);
        self.save();

        let mut quiesced = Quiesced::new();
        for id in self.ledger.services.keys() {
            let Some(service) = observed.services.get(id) else {
                continue;
            };
            let wanted = wanted.service(*id);
            for server in &service.real_servers {
                let address = server.spec.address;
                let leaves = wanted.is_none_or(|it| it.real_server(address).is_none());
                if leaves && server.spec.weight == 0 {
                    let since = self.quiesced.get(&(*id, address)).copied();
                    quiesced.insert((*id, address), since.unwrap_or_else(Instant::now));
                }
            }
        }
        self.quiesced = quiesced;
    }

    /// Writes the ledger. Where it cannot be written the work goes on, and that is reported: at
    /// worst a crash now leaves an object that the next agent takes for somebody else's.
    fn save(&mut self) {
        if self.ledger == self.saved {
            return;
        }
        match write_json(&self.ledger_path, &self.ledger) {
            Ok(()) => {
                self.saved = self.ledger.clone();
                self.unsaved = None;
            }
            Err(error) => self.unsaved = Some(causes(&error)),
        }
    }

    async fn execute(&mut self, steps: &[Step], round: &mut Round) {
        let Some(kernel) = &self.kernel else {
            return;
        };
        let mut failed = Vec::new();
        let mut undone: Vec<&Step> = Vec::new();
        for step in steps {
            if undone.iter().any(|earlier| step.needs(earlier)) {
                undone.push(step);
                continue;
            }
            match kernel.execute(step).await {
                Ok(()) => {
                    info!(%step, "changed the kernel");
                    self.steps += 1;
                    self.ledger.record(step);
                    if step.subject().is_some_and(|it| round.drift.remove(&it)) {
                        self.drift_repaired += 1;
                    }
                }
                Err(error) => {
                    undone.push(step);
                    failed.push((step.clone(), error));
                }
            }
        }
        round.failed = failed;
        self.save();
    }

    fn report(&mut self, wanted: &Wanted, round: &Round) -> Report {
        let pending = self
            .planner(&round.observed, wanted, self.drain_limit)
            .plan();
        let done = |step: &Step| step.goes_on_with_removal();
        self.settled = pending.iter().all(done).then(|| wanted.clone());
        let vips = wanted.vips.iter().map(|vip| {
            let first = pending.iter().find(|step| match step.holds(wanted) {
                Holds::All => true,
                Holds::One(held) => held == *vip,
                Holds::None => false,
            });
            (*vip, first.map_or(Ok(()), |step| Err(why(step, round))))
        });
        let services = wanted.services.keys().filter_map(|id| {
            let observed = round.observed.services.get(id)?;
            Some((*id, observed.report()))
        });
        let failed = round.failed.iter().map(|(_, error)| causes(error));
        Report {
            vips: vips.collect(),
            services: services.collect(),
            steps: self.steps,
            drift_repaired: self.drift_repaired,
            failures: failed.chain(self.unsaved.clone()).collect(),
        }
    }

    /// What is reported when the kernel could not be read: nothing is known to be ready.
    fn blind(&self, wanted: &Wanted, error: &DataplaneError) -> Report {
        let not_ready = |vip: &Vip| (*vip, Err(error.reason()));
        Report {
            vips: wanted.vips.iter().map(not_ready).collect(),
            services: BTreeMap::new(),
            steps: self.steps,
            drift_repaired: self.drift_repaired,
            failures: vec![causes(error)],
        }
    }
}

/// Why a step is not done: its own failure, that of one it needs, or something outside that
/// undid it at once.
fn why(step: &Step, round: &Round) -> Reason {
    let mut failed = round.failed.iter();
    match failed.find(|(failed, _)| step == failed || step.needs(failed)) {
        Some((_, error)) => error.reason(),
        None => Reason::DataplaneNotReady {
            what: format!("the kernel does not keep it: {step}"),
        },
    }
}
