//! What can go wrong, each with what was being done.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use netlink_packet_core::DecodeError;
use rustix::io::Errno;

use crate::service::ServiceKey;

/// A failed operation. `Display` says what was tried; the cause is the source.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}")]
pub struct Error {
    /// What was being done.
    pub operation: Operation,
    /// Why it failed.
    #[source]
    pub cause: Cause,
}

/// What was being done, and to what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Opening the connection.
    Connect,
    /// Reading the version.
    ReadInfo,
    /// Reading the timeouts.
    ReadTimeouts,
    /// Writing the timeouts.
    SetTimeouts,
    /// Reading all services.
    ListServices,
    /// Reading one service.
    ReadService(ServiceKey),
    /// Adding a service with a scheduler.
    AddService(ServiceKey, String),
    /// Changing a service; its scheduler is given.
    SetService(ServiceKey, String),
    /// Deleting a service.
    DeleteService(ServiceKey),
    /// Reading a service's destinations.
    ListDestinations(ServiceKey),
    /// Adding a destination to a service.
    AddDestination(ServiceKey, SocketAddr),
    /// Changing a destination of a service.
    SetDestination(ServiceKey, SocketAddr),
    /// Deleting a destination of a service.
    DeleteDestination(ServiceKey, SocketAddr),
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("open IPVS"),
            Self::ReadInfo => f.write_str("read the version of IPVS"),
            Self::ReadTimeouts => f.write_str("read the timeouts of IPVS"),
            Self::SetTimeouts => f.write_str("set the timeouts of IPVS"),
            Self::ListServices => f.write_str("list the services of IPVS"),
            Self::ReadService(key) => write!(f, "read service {key}"),
            Self::AddService(key, scheduler) => {
                write!(f, "add service {key} with scheduler {scheduler}")
            }
            Self::SetService(key, scheduler) => {
                write!(f, "change service {key} to scheduler {scheduler}")
            }
            Self::DeleteService(key) => write!(f, "delete service {key}"),
            Self::ListDestinations(key) => write!(f, "list the real servers of service {key}"),
            Self::AddDestination(key, address) => {
                write!(f, "add real server {address} to service {key}")
            }
            Self::SetDestination(key, address) => {
                write!(f, "change real server {address} of service {key}")
            }
            Self::DeleteDestination(key, address) => {
                write!(f, "delete real server {address} of service {key}")
            }
        }
    }
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The generic netlink family is not there.
    #[error("this kernel has no IPVS loaded; `modprobe ip_vs` loads it")]
    NoModule,
    /// The process may not.
    #[error("it needs CAP_NET_ADMIN")]
    NoPermission,
    /// The service or destination is there already.
    #[error("it is there already")]
    Exists,
    /// The service is not there.
    #[error("there is no such service")]
    NoService,
    /// The service is there, the destination is not.
    #[error("there is no such real server")]
    NoDestination,
    /// The kernel has no such scheduler or persistence engine, or its module is not loaded.
    #[error("the kernel has no scheduler {0:?}; `modprobe ip_vs_{0}` loads it")]
    UnknownScheduler(String),
    /// The kernel refused for another reason.
    #[error("the kernel refused")]
    Kernel(#[source] io::Error),
    /// The socket failed.
    #[error("the netlink socket failed")]
    Socket(#[source] io::Error),
    /// The connection ended before the answer did.
    #[error("the netlink connection ended")]
    Closed,
    /// The answer was not understood.
    #[error("the kernel's answer was not understood")]
    Decode(#[source] DecodeError),
}

impl Cause {
    /// What an error number means for an operation, as `ip_vs_genl_set_cmd` and what it calls
    /// return it.
    pub(crate) fn from_errno(error: io::Error, operation: &Operation) -> Self {
        use Operation::{AddService, Connect, DeleteDestination, SetDestination, SetService};
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        match (errno, operation) {
            (Some(Errno::PERM | Errno::ACCESS), _) => Self::NoPermission,
            (Some(Errno::EXIST), _) => Self::Exists,
            (Some(Errno::SRCH), _) => Self::NoService,
            (Some(Errno::NOENT), Connect) => Self::NoModule,
            (Some(Errno::NOENT), AddService(_, name) | SetService(_, name)) => {
                Self::UnknownScheduler(name.clone())
            }
            (Some(Errno::NOENT), SetDestination(..) | DeleteDestination(..)) => Self::NoDestination,
            _ => Self::Kernel(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_number_means_what_the_kernel_means_by_it() {
        let address = SocketAddr::from(([10, 99, 0, 1], 80));
        let key = ServiceKey::tcp(address);
        let add = || Operation::AddService(key, "mh".to_owned());
        let set = || Operation::SetService(key, "mh".to_owned());
        let cases = [
            (
                Errno::PERM,
                Operation::ListServices,
                "it needs CAP_NET_ADMIN",
            ),
            (
                Errno::NOENT,
                Operation::Connect,
                "`modprobe ip_vs` loads it",
            ),
            (Errno::NOENT, add(), "`modprobe ip_vs_mh` loads it"),
            (Errno::NOENT, set(), "`modprobe ip_vs_mh` loads it"),
            (Errno::EXIST, add(), "it is there already"),
            (Errno::SRCH, set(), "there is no such service"),
            (
                Errno::NOENT,
                Operation::DeleteDestination(key, address),
                "there is no such real server",
            ),
            (Errno::RANGE, add(), "the kernel refused"),
        ];
        for (errno, operation, expected) in cases {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            let cause = Cause::from_errno(error, &operation).to_string();
            assert!(
                cause.contains(expected),
                "{errno:?} of {operation}: {cause}"
            );
        }
    }
}
