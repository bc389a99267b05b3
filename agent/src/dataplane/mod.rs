//! The data plane of a director: sysctls, VIPs on their interface, IPVS.
//!
//! [`Dataplane::reconcile`] makes the kernel what is [`Wanted`] of it and reports what it has.
//! It observes, makes a plan (pure, `plan.rs`) and executes it, with steps of one rank together;
//! a step that fails stops only what depends on it, holds back the VIPs that need it, and is
//! tried again later (`retry.rs`). The order is: sysctls, timeouts, interface, VIPs, services,
//! real servers; then real servers are taken off new connections, and removals come last and the
//! other way round.
//!
//! - **Only what is ours is touched.** What was made stands in `dataplane.json` in the state
//!   directory, written before it is made. What is wanted and there already is taken over.
//!   An agent that starts again on the same file finds nothing to do.
//! - **The order of real servers is canonical**, because `mh` builds its table from it and some
//!   other schedulers go by it: they are inserted by ascending address and port on every
//!   director. The kernel inserts at the head of its list; where the list of such a service is in
//!   another order, as few real servers as possible are inserted again, and no connection is lost
//!   over it.
//! - **The `mh` table does not depend on health.** It is built from the last weight above 0, so
//!   a real server that is dead when it is added gets its declared weight first and 0 at once
//!   after.
//! - **A real server that is removed** gets weight 0, and is deleted when its connections have
//!   ended or the declared limit has passed. So is one whose service is removed.
//! - **Drift** is what differs from what was last reached; it is repaired and counted.

mod digest;
mod error;
mod kernel;
mod ledger;
pub(crate) mod link;
mod observed;
mod plan;
mod programmer;
mod retry;
mod state;
mod step;
mod sysctl;
mod unchanged;

use std::path::Path;

use isopath_api::config;

pub use error::DataplaneError;
pub use state::{
    KernelRealServer, KernelService, KernelServices, Preview, RealServerWanted, Report,
    ServiceWanted, Wanted,
};

use crate::store::StoreError;
use programmer::{Look, Programmer};

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
        let programmer = match kind {
            config::Dataplane::Ipvs => Some(Programmer::new(vip_interface, state_dir)?),
            config::Dataplane::None => None,
        };
        Ok(Self { programmer })
    }

    /// The services in the kernel, whoever made them, and nothing changed: what an agent that
    /// starts finds there.
    ///
    /// # Errors
    /// The kernel cannot be read. Where it has no IPVS, there are no services.
    pub async fn services(&mut self) -> Result<KernelServices, DataplaneError> {
        match &mut self.programmer {
            Some(programmer) => programmer.services().await,
            None => Ok(KernelServices::default()),
        }
    }

    /// What [`Self::reconcile`] would do, in words; nothing is changed.
    pub async fn preview(&mut self, wanted: &Wanted) -> Preview {
        match &mut self.programmer {
            Some(programmer) => programmer.preview(wanted).await,
            None => Preview::default(),
        }
    }

    /// Reads all of the kernel, which [`Self::reconcile`] does itself otherwise. Whoever has
    /// something more urgent may drop the future.
    pub async fn look(&mut self, wanted: &Wanted) {
        if let Some(programmer) = &mut self.programmer {
            programmer.look(wanted).await;
        }
    }

    /// Makes the kernel what is wanted of it, as far as it goes at once, and reports what it
    /// has. All of the kernel is read. To be called again and again: removals go on, and drift is
    /// found.
    pub async fn reconcile(&mut self, wanted: &Wanted) -> Report {
        self.make(wanted, Look::Everything).await
    }

    /// The same for something else than what was wanted last, without looking for drift: where
    /// the kernel was read a moment ago, only what is changed is read again.
    pub async fn change(&mut self, wanted: &Wanted) -> Report {
        self.make(wanted, Look::Nothing).await
    }

    async fn make(&mut self, wanted: &Wanted, look: Look) -> Report {
        match &mut self.programmer {
            Some(programmer) => programmer.reconcile(wanted, look).await,
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
