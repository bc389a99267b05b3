//! The task that owns the data plane.
//!
//! It runs apart from the control loop, so that a slow kernel never delays a withdrawal. What
//! is wanted comes with a number and each report says which number it is about: a VIP is only
//! announced anew once what it needs has been executed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use isopath_api::ids::ServiceId;
use isopath_api::observed::Reconciles;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::causes;
use crate::dataplane::{Dataplane, KernelService, Report, Wanted};
use crate::health::CheckKey;
use crate::memory;

/// How often the kernel is looked at when nothing changes: finds drift and reads the counters.
const TICK: Duration = Duration::from_secs(1);

/// How long the kernel may take to say what it has when the agent starts.
const ADOPTION_TIMEOUT: Duration = Duration::from_secs(5);

/// How often free memory is given back when nothing changes: reports and scrapes of a large set
/// use some, too. After a change it is given back with the next look.
const GIVE_BACK: Duration = Duration::from_secs(60);

/// What the kernel shall have, and its number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NumberedWanted {
    /// Rises with each change.
    pub number: u64,
    /// What the kernel shall have.
    pub wanted: Wanted,
}

/// What the kernel has after an execution.
#[derive(Debug, Clone, Default)]
pub struct KernelReport {
    /// The number of what was executed.
    pub number: u64,
    /// The outcome.
    pub report: Report,
    /// How often the kernel was compared with what is wanted.
    pub reconciles: Reconciles,
}

/// What the task asks of the data plane; see [`Dataplane`], which tests replace.
trait Reconciled {
    async fn look(&mut self, wanted: &Wanted);
    async fn reconcile(&mut self, wanted: &Wanted) -> Report;
    async fn change(&mut self, wanted: &Wanted) -> Report;
}

impl Reconciled for Dataplane {
    async fn look(&mut self, wanted: &Wanted) {
        self.look(wanted).await;
    }

    async fn reconcile(&mut self, wanted: &Wanted) -> Report {
        self.reconcile(wanted).await
    }

    async fn change(&mut self, wanted: &Wanted) -> Report {
        self.change(wanted).await
    }
}

/// Executes what is wanted, whenever it changes and each second, until nobody wants anything.
/// Before the first wanted state nothing is touched.
pub async fn run(
    dataplane: Dataplane,
    wanted: watch::Receiver<Option<Arc<NumberedWanted>>>,
    reports: watch::Sender<Arc<KernelReport>>,
) {
    keep(dataplane, wanted, reports).await;
}

async fn keep(
    mut dataplane: impl Reconciled,
    mut wanted: watch::Receiver<Option<Arc<NumberedWanted>>>,
    reports: watch::Sender<Arc<KernelReport>>,
) {
    let mut reconciles = Reconciles::default();
    let mut steps = 0;
    let mut put_off = false;
    // Whether a change has used memory that is not given back yet, and when that was done last.
    let (mut used, mut given) = (false, Instant::now());
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Both arms are cancel-safe: `changed` marks a value as seen only when it completes,
        // and a tick that is not taken stays.
        let mut changed = tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() { return }
                true
            }
            _ = tick.tick() => false,
        };
        let Some(mut next) = wanted.borrow_and_update().clone() else {
            continue;
        };
        let began = Instant::now();
        // A change does not wait until all of a large kernel is read, but only once in a row:
        // drift has to be found however often something changes. Dropping `look` is safe.
        if !changed && !put_off {
            tokio::select! {
                biased;
                again = wanted.changed() => {
                    if again.is_err() { return }
                    let Some(newer) = wanted.borrow_and_update().clone() else {
                        continue;
                    };
                    next = newer;
                    changed = true;
                    put_off = true;
                }
                () = dataplane.look(&next.wanted) => {}
            }
        } else if !changed {
            put_off = false;
        }
        // No time limit is over all of it: a large set takes as long as it takes, and each call
        // of the kernel has a limit of its own.
        let report = if changed {
            dataplane.change(&next.wanted).await
        } else {
            let report = dataplane.reconcile(&next.wanted).await;
            // Where reading all of it takes so long, half of the time is left to others.
            tick.reset_after(TICK.max(2 * began.elapsed()));
            report
        };
        let kind = if report.steps == steps {
            &mut reconciles.unchanged
        } else {
            &mut reconciles.changed
        };
        kind.add(began.elapsed());
        steps = report.steps;
        reports.send_replace(Arc::new(KernelReport {
            number: next.number,
            report,
            reconciles,
        }));
        if changed {
            used = true;
        } else if used || given.elapsed() >= GIVE_BACK {
            memory::give_back();
            (used, given) = (false, Instant::now());
        }
    }
}

/// The weights that the kernel has when the agent starts: those above 0 stay until the checks
/// have decided. Nothing where the kernel has no IPVS or is not used.
pub async fn adopted_weights(dataplane: &mut Dataplane) -> BTreeMap<CheckKey, u32> {
    let services = match timeout(ADOPTION_TIMEOUT, dataplane.services()).await {
        Ok(Ok(services)) => services,
        Ok(Err(error)) => {
            let error = causes(&error);
            tracing::warn!(error, "cannot read the weights in the kernel");
            return BTreeMap::new();
        }
        Err(_) => {
            tracing::warn!("the kernel did not say its weights within {ADOPTION_TIMEOUT:?}");
            return BTreeMap::new();
        }
    };
    let weight = |(id, service): (&ServiceId, &Arc<KernelService>)| {
        let id = *id;
        let servers = Arc::clone(service);
        let count = servers.real_servers.len();
        (0..count).filter_map(move |index| {
            let server = &servers.real_servers[index];
            Some(((id, server.id()?), server.spec.weight))
        })
    };
    services.iter().flat_map(weight).collect()
}

#[cfg(test)]
mod tests;
