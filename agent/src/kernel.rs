//! The task that owns the data plane.
//!
//! It runs apart from the control loop, so that a slow kernel never delays a withdrawal. What
//! is wanted comes with a number and each report says which number it is about: a VIP is only
//! announced anew once what it needs has been executed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isopath_api::ids::ServiceId;
use isopath_api::observed::Reconciles;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::causes;
use crate::dataplane::{Dataplane, KernelService, Report, Wanted};
use crate::health::CheckKey;

/// How often the kernel is looked at when nothing changes: finds drift and reads the counters.
const TICK: Duration = Duration::from_secs(1);

/// How long an execution may take: thousands of services take a fraction of it.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the kernel may take to say what it has when the agent starts.
const ADOPTION_TIMEOUT: Duration = Duration::from_secs(2);

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

/// Executes what is wanted, whenever it changes and each second, until nobody wants anything.
/// Before the first wanted state nothing is touched.
pub async fn run(
    mut dataplane: Dataplane,
    mut wanted: watch::Receiver<Option<Arc<NumberedWanted>>>,
    reports: watch::Sender<Arc<KernelReport>>,
) {
    let mut reconciles = Reconciles::default();
    let mut steps = 0;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Both arms are cancel-safe: `changed` marks a value as seen only when it completes,
        // and a tick that is not taken stays.
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            _ = tick.tick() => {}
        }
        let Some(next) = wanted.borrow_and_update().clone() else {
            continue;
        };
        let started = Instant::now();
        match timeout(RECONCILE_TIMEOUT, dataplane.reconcile(&next.wanted)).await {
            Ok(report) => {
                let kind = if report.steps == steps {
                    &mut reconciles.unchanged
                } else {
                    &mut reconciles.changed
                };
                kind.add(started.elapsed());
                steps = report.steps;
                reports.send_replace(Arc::new(KernelReport {
                    number: next.number,
                    report,
                    reconciles,
                }));
            }
            // What was ready stays announced: the kernel goes on forwarding what it has.
            Err(_) => reports.send_modify(|last| {
                let what = format!("the kernel did not answer within {RECONCILE_TIMEOUT:?}");
                Arc::make_mut(last).report.failures = vec![what];
            }),
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
    let weight = |(id, service): (ServiceId, KernelService)| {
        let servers = service.real_servers.into_iter();
        servers.map(move |(server, kernel)| ((id, server), kernel.weight))
    };
    services.into_iter().flat_map(weight).collect()
}
