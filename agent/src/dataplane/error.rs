//! What can go wrong with the data plane.

use std::io;

use isopath_api::reason::Reason;
use isopath_ipvs::Cause;
use thiserror::Error;

use crate::causes;

/// Why the kernel could not be read or changed.
#[derive(Debug, Error)]
pub enum DataplaneError {
    /// IPVS.
    #[error(transparent)]
    Ipvs(#[from] isopath_ipvs::Error),
    /// It does not answer.
    #[error("the kernel does not answer")]
    Silent,
    /// The socket to the kernel's routing side.
    #[error("cannot open rtnetlink")]
    Open(#[source] io::Error),
    /// An interface or its addresses.
    #[error("cannot {what}")]
    Link {
        /// What was tried, and on what.
        what: String,
        /// Why not.
        source: rtnetlink::Error,
    },
    /// The kernel has no dummy interfaces.
    #[error("cannot make the dummy interface {0}: `modprobe dummy` loads its module")]
    NoDummy(String),
    /// An interface that was there is gone.
    #[error("interface {0} is gone")]
    InterfaceGone(String),
    /// The sysctls could not be read.
    #[error("cannot read the sysctls")]
    ReadSysctls(#[source] io::Error),
    /// A sysctl was not taken.
    #[error("cannot set {} to {value}", key.replace('/', "."))]
    SetSysctl {
        /// Its name, as under `/proc/sys`.
        key: String,
        /// The value.
        value: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl DataplaneError {
    /// Why a VIP that needs what failed is not announced.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Ipvs(error) => match &error.cause {
                Cause::NoModule => Reason::NoIpvs,
                Cause::UnknownScheduler(name) => Reason::NoScheduler {
                    scheduler: name.to_string(),
                },
                _ => self.not_ready(),
            },
            Self::Silent
            | Self::Open(_)
            | Self::Link { .. }
            | Self::NoDummy(_)
            | Self::InterfaceGone(_)
            | Self::ReadSysctls(_)
            | Self::SetSysctl { .. } => self.not_ready(),
        }
    }

    fn not_ready(&self) -> Reason {
        let what = causes(self);
        Reason::DataplaneNotReady { what }
    }
}
