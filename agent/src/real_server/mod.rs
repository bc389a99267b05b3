//! The real server's role: `isopath-agent real-server up|down|status`.
//!
//! A real server of DR or TUN has the VIP among its own addresses and must not be heard to have
//! it. This sets a host up for that and takes it away again; nothing of ours runs in between.
//! Like the data plane of a director it observes the kernel, makes a plan (pure, `plan.rs`) and
//! executes it step by step, until the kernel has what is wanted.
//!
//! - **A VIP is there only while nobody answers ARP for it**: sysctls first, addresses after
//!   them; the other way round on the way down.
//! - **What was there before is written down before it is changed** (`ledger.rs`), so that a
//!   crash at any moment leaves nothing that `down` does not take back. What was right already
//!   is not ours, and stays.
//! - **`down` gives back only what still is as `up` has set it**; what somebody else has changed
//!   since stays, and is told. What was written down before a boot, or in another network
//!   namespace, says nothing about this kernel and is dropped.
//! - **`status`** ([`audit`]) finds what is wrong, whoever set the host up.

pub mod audit;
pub mod command;
mod error;
mod fou;
mod kernel;
mod ledger;
mod netlink;
mod nft;
mod observed;
mod plan;
mod sockets;
mod step;
#[cfg(test)]
mod testing;
mod wanted;

use std::path::Path;

use isopath_api::declare::Forwarding;
use isopath_api::real_server::RealServerFile;

pub use error::RealServerError;

use crate::run::FileError;
use audit::Finding;
use kernel::{Kernel, Parts};
use ledger::{Ledger, LedgerFile};
use observed::Observed;
use plan::Release;
use step::Step;
use wanted::Wanted;

/// How often is planned anew: once for interfaces that have to be made first, once for the rest,
/// and once to see that nothing is left.
const ROUNDS: usize = 4;

/// A real server, as its file declares it.
pub struct RealServer {
    file: RealServerFile,
    ledger_file: LedgerFile,
    kernel: Kernel,
}

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Each change, a sentence each; empty where nothing was to be done.
    pub steps: Vec<String>,
    /// What stays as somebody else has made it, a sentence each.
    pub left: Vec<String>,
}

/// Reads a real server's file.
///
/// # Errors
/// It cannot be read or has faults.
pub fn read_file(path: &Path) -> Result<RealServerFile, FileError> {
    let text = std::fs::read_to_string(path).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(RealServerFile::parse(&path.display().to_string(), &text)?)
}

impl RealServer {
    /// Connects to the kernel, in the network namespace of this thread. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub fn new(file: RealServerFile) -> Result<Self, RealServerError> {
        Ok(Self {
            ledger_file: LedgerFile::new(&file.real_server.state_dir),
            kernel: Kernel::connect()?,
            file,
        })
    }

    /// Sets the host up; what is right already is left alone.
    ///
    /// # Errors
    /// The file asks for what this host does not have, or the kernel refuses a step; then the
    /// later ones are not taken.
    pub async fn up(&self) -> Result<Done, RealServerError> {
        let mut ledger = self.ledger()?;
        let mut done = Done::default();
        for _ in 0..ROUNDS {
            let observed = self.kernel.observe(self.parts(&ledger)).await?;
            if let Some(refusal) = audit::refusals(&self.file, &observed).first() {
                return Err(RealServerError::Refused(refusal.to_string()));
            }
            let wanted = Wanted::new(&self.file, &observed);
            let Release { steps, left } = plan::up(&wanted, &observed, &ledger);
            if steps.is_empty() {
                done.left = left;
                return Ok(done);
            }
            for step in &steps {
                ledger.intend(step);
            }
            self.ledger_file.write(&ledger)?;
            let result = self
                .execute(&steps, &observed, &mut ledger, &mut done)
                .await;
            self.ledger_file.write(&ledger)?;
            result?;
        }
        Err(RealServerError::Unsettled(ROUNDS))
    }

    /// Takes away what `up` has set up, and gives back what was there before.
    ///
    /// # Errors
    /// The kernel refuses a step; what is left stays written down.
    pub async fn down(&self) -> Result<Done, RealServerError> {
        let mut ledger = self.ledger()?;
        let observed = self.kernel.observe(self.parts(&ledger)).await?;
        let Release { steps, left } = plan::down(&ledger, &observed);
        let mut done = Done {
            left,
            ..Done::default()
        };
        let result = self
            .execute(&steps, &observed, &mut ledger, &mut done)
            .await;
        if result.is_ok() {
            // What is left in it has nothing in the kernel that could be taken back.
            ledger = Ledger::new(ledger.place);
        }
        self.ledger_file.write(&ledger)?;
        result.map(|()| done)
    }

    /// Everything that is wrong, nothing where the host serves as the file says.
    ///
    /// # Errors
    /// The kernel cannot be read.
    pub async fn status(&self) -> Result<Vec<Finding>, RealServerError> {
        let ledger = self.ledger()?;
        let observed = self.kernel.observe(self.parts(&ledger)).await?;
        Ok(audit::audit(&self.file, &observed, &ledger))
    }

    /// The steps one after the other. The first that fails ends it: an address must not come
    /// before its settings, nor stay after them.
    async fn execute(
        &self,
        steps: &[Step],
        observed: &Observed,
        ledger: &mut Ledger,
        done: &mut Done,
    ) -> Result<(), RealServerError> {
        for step in steps {
            self.kernel.execute(step, observed).await?;
            ledger.forget(step);
            done.steps.push(step.to_string());
        }
        Ok(())
    }

    /// What is written down about this network of this kernel.
    fn ledger(&self) -> Result<Ledger, RealServerError> {
        let place = self.kernel.place()?;
        let written = self.ledger_file.read()?;
        Ok(written
            .filter(|ledger| ledger.place == place)
            .unwrap_or_else(|| Ledger::new(place)))
    }

    fn parts(&self, ledger: &Ledger) -> Parts {
        let mut tunnels = self
            .file
            .vip
            .iter()
            .filter(|vip| vip.forwarding == Forwarding::Tun);
        Parts {
            mss: ledger.mss || tunnels.clone().next().is_some(),
            ports: !ledger.ports.is_empty() || tunnels.any(|vip| vip.tunnel().port.is_some()),
        }
    }
}
