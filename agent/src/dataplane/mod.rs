//! The data plane of a director: sysctls, VIPs on their interface, IPVS.
//!
//! [`Dataplane::reconcile`] makes the kernel what is [`Wanted`] of it and reports what it has.
//! It observes, makes a plan (pure, `plan.rs`) and executes it one step at a time; a step that
//! fails stops only what depends on it, and holds back the VIPs that need it. The order is:
//! sysctls, interface, VIPs, services, real servers; removals come last and the other way
//! round.
//!
//! - **Only what is ours is touched.** What was made stands in `dataplane.json` in the state
//!   directory, written before it is made. What is wanted and there already is taken over.
//!   An agent that starts again on the same file finds nothing to do.
//! - **The order of real servers is canonical**, because `mh` builds its table from it: they
//!   are inserted by ascending address and port on every director. The kernel inserts at the
//!   head of its list; where an `mh` service's list is in another order, as few real servers
//!   as possible are inserted again, and no connection is lost over it.
//! - **The `mh` table does not depend on health.** It is built from the last weight above 0, so
//!   a real server that is dead when it is added gets its declared weight first and 0 at once
//!   after.
//! - **A real server that is removed** gets weight 0, and is deleted when its connections have
//!   ended or [`DRAIN_LIMIT`] has passed. So is one whose service is removed.
//! - **Drift** is what differs from what was last reached; it is repaired and counted.

mod error;
mod kernel;
mod ledger;
pub(crate) mod link;
mod observed;
mod plan;
mod programmer;
mod state;
mod step;
mod sysctl;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use isopath_api::config;
use isopath_api::ids::ServiceId;

pub use error::DataplaneError;
pub use state::{KernelRealServer, KernelService, RealServerWanted, Report, ServiceWanted, Wanted};

use crate::store::StoreError;
use programmer::Programmer;

/// How long a removed real server may keep its connections. An agent that restarts in
/// between begins to count anew.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// The data plane of a director.
pub struct Dataplane {
    /// Nothing where nothing is programmed.
    programmer: Option<Programmer>,
}

impl Dataplane {
    /// A data plane of this kind, with its VIPs on `vip_interface`. Nothing is touched yet.
    ///
    /// # Errors
    /// What was written down in `state_dir` cannot be read.
    pub fn new(
        kind: config::Dataplane,
        vip_interface: String,
        state_dir: &Path,
    ) -> Result<Self, StoreError> {
        Self::with_drain_limit(kind, vip_interface, state_dir, DRAIN_LIMIT)
    }

    /// The same with another limit in place of [`DRAIN_LIMIT`].
    ///
    /// # Errors
    /// What was written down in `state_dir` cannot be read.
    pub fn with_drain_limit(
        kind: config::Dataplane,
        vip_interface: String,
        state_dir: &Path,
        drain_limit: Duration,
    ) -> Result<Self, StoreError> {
        let programmer = match kind {
            config::Dataplane::Ipvs => {
                Some(Programmer::new(vip_interface, state_dir, drain_limit)?)
            }
            config::Dataplane::None => None,
        };
        Ok(Self { programmer })
    }

    /// The services in the kernel, whoever made them, and nothing changed: what an agent that
    /// starts finds there.
    ///
    /// # Errors
    /// The kernel cannot be read. Where it has no IPVS, there are no services.
    pub async fn services(&mut self) -> Result<BTreeMap<ServiceId, KernelService>, DataplaneError> {
        match &mut self.programmer {
            Some(programmer) => programmer.services().await,
            None => Ok(BTreeMap::new()),
        }
    }

    /// Makes the kernel what is wanted of it, as far as it goes at once, and reports what it
    /// has. To be called again and again: removals go on, and drift is found.
    pub async fn reconcile(&mut self, wanted: &Wanted) -> Report {
        match &mut self.programmer {
            Some(programmer) => programmer.reconcile(wanted).await,
            None => Report {
                vips: wanted.vips.iter().map(|vip| (*vip, Ok(()))).collect(),
                ..Report::default()
            },
        }
    }

    /// Removes everything that is ours, at once. The VIPs must be withdrawn before. The sysctls
    /// stay: others may have come to rely on them.
    pub async fn tear_down(&mut self) -> Report {
        match &mut self.programmer {
            Some(programmer) => programmer.tear_down().await,
            None => Report::default(),
        }
    }
}
