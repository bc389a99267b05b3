//! What can go wrong with a real server.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::step::dotted;
use crate::dataplane::DataplaneError;
use crate::store::StoreError;

/// Why a real server could not be set up, taken down or audited.
#[derive(Debug, Error)]
pub enum RealServerError {
    /// Interfaces and addresses.
    #[error(transparent)]
    Link(#[from] DataplaneError),
    /// The state directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of the kernel.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of the kernel has something else in it than it should.
    #[error("expected {expected} in {}, found {found:?}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What it should have.
        expected: &'static str,
        /// What it has.
        found: String,
    },
    /// A sysctl was not taken.
    #[error("cannot set {} to {value}", dotted(key))]
    SetSysctl {
        /// Its name, as under `/proc/sys`.
        key: String,
        /// The value.
        value: u32,
        /// Why not.
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("cannot {what}")]
    Netlink {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// The kernel lacks a module and could not load it.
    #[error("this kernel has no {module}, which {what} needs: `modprobe {module}` says why")]
    NoModule {
        /// The module.
        module: &'static str,
        /// What it is for.
        what: String,
    },
    /// The file asks for what this host cannot be given.
    #[error("{0}")]
    Refused(String),
    /// It went on for too long: somebody else undoes what is done.
    #[error("the kernel still differs after {0} rounds: who else changes it?")]
    Unsettled(usize),
}
