//! What can go wrong, each with what was being done.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use netlink_packet_core::DecodeError;
use rustix::io::Errno;

use crate::change::Change;
use crate::destination::{DestinationSpec, TunnelKind};
use crate::scheduler::Scheduler;
use crate::service::{Netmask, ServiceKey, ServiceSpec};
use crate::socket::Failure;
use isopath_mh::Family;

/// A failed operation. `Display` says what was tried; the cause is the source.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}")]
pub struct Error {
    /// What was being done, and to what.
    pub operation: Operation,
    /// Why it failed.
    #[source]
    pub cause: Cause,
    /// The error number of the kernel's refusal; none where the kernel did not refuse.
    pub errno: Option<i32>,
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
    /// Deleting all services.
    Flush,
    /// Zeroing all counters.
    Zero,
    /// Zeroing the counters of a service and its destinations.
    ZeroService(ServiceKey),
    /// Reading all services.
    ListServices,
    /// Reading one service.
    ReadService(ServiceKey),
    /// Adding a service with a scheduler.
    AddService(ServiceKey, Scheduler),
    /// Changing a service; its scheduler is given.
    SetService(ServiceKey, Scheduler),
    /// Deleting a service.
    DeleteService(ServiceKey),
    /// Reading a service's destinations.
    ListDestinations(ServiceKey),
    /// Reading the entries of services' destinations.
    ListEntries,
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
            Self::Flush => f.write_str("delete all services of IPVS"),
            Self::Zero => f.write_str("zero all counters of IPVS"),
            Self::ZeroService(key) => write!(f, "zero the counters of service {key}"),
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
            Self::ListEntries => f.write_str("list the real servers of services by getsockopt"),
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

/// Why an operation failed. Where it stands for one error number of the kernel, that is named.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The generic netlink family is not there.
    #[error("this kernel has no IPVS loaded (ENOENT); `modprobe ip_vs` loads it")]
    NoModule,
    /// The process may not.
    #[error("it needs CAP_NET_ADMIN (EPERM)")]
    NoPermission,
    /// The service or destination is there already.
    #[error("it is there already (EEXIST)")]
    Exists,
    /// The service is not there.
    #[error("there is no such service (ESRCH)")]
    NoService,
    /// The service is there, the destination is not.
    #[error("there is no such real server (ENOENT)")]
    NoDestination,
    /// The kernel has no such scheduler, or its module cannot be loaded.
    #[error("the kernel has no scheduler {0} (ENOENT); `modprobe ip_vs_{0}` loads it")]
    UnknownScheduler(Scheduler),
    /// The kernel has no such scheduler or no such persistence engine; it does not say which.
    #[error("the kernel has no persistence engine {0}, or not that scheduler (ENOENT)")]
    UnknownEngine(Box<str>),
    /// The netmask of an IPv6 service is not a prefix length of 1 to 128.
    #[error("{0} is no prefix length for IPv6 persistence, which takes 1 to 128 (EINVAL)")]
    BadNetmask(u32),
    /// The lower threshold is above the upper one.
    #[error("the lower threshold {lower} is above the upper one {upper} (ERANGE)")]
    BadThresholds {
        /// The lower threshold.
        lower: u32,
        /// The upper threshold.
        upper: u32,
    },
    /// The weight is more than a signed number of 32 bits holds.
    #[error("the weight {0} is more than 2147483647 (ERANGE)")]
    BadWeight(u32),
    /// A destination of the other family than its service is not in a tunnel, or the kernel
    /// synchronises connections, which excludes it.
    #[error(
        "a real server of the other address family must be reached by tunnel, and without \
         connection synchronisation (EINVAL)"
    )]
    MixedFamilies,
    /// A GUE tunnel has no port.
    #[error("a GUE tunnel needs a port (EINVAL)")]
    NoTunnelPort,
    /// The address is none that packets can be sent to, such as a multicast one.
    #[error("its address is not one of a host (EINVAL)")]
    BadAddress,
    /// The kernel was built without what is asked for, such as IPv6.
    #[error("this kernel does not support it")]
    Unsupported(#[source] io::Error),
    /// The kernel refused for another reason.
    #[error("the kernel refused")]
    Kernel(#[source] io::Error),
    /// The socket failed.
    #[error("the netlink socket failed")]
    Socket(#[source] io::Error),
    /// The kernel's answer was lost for lack of memory.
    #[error("the kernel's answer was lost; whether it was done is unknown")]
    Lost,
    /// The connection ended before the answer did.
    #[error("the netlink connection ended")]
    Closed,
    /// The answer was not understood.
    #[error("the kernel's answer was not understood")]
    Decode(#[source] DecodeError),
}

impl Error {
    /// The failure of an operation that is no [`Change`].
    pub(crate) fn new(operation: Operation, failure: Failure) -> Self {
        let opening = operation == Operation::Connect;
        Self::with(operation, failure, |errno| {
            (opening && errno == Errno::NOENT).then_some(Cause::NoModule)
        })
    }

    /// The failure of a change.
    pub(crate) fn of_change(change: &Change, failure: Failure) -> Self {
        Self::with(change.operation(), failure, |errno| match change {
            Change::AddService(spec) | Change::SetService(spec) => service_cause(errno, spec),
            Change::AddDestination(key, spec) | Change::SetDestination(key, spec) => {
                destination_cause(errno, key, spec)
            }
            Change::DeleteDestination(..) => {
                (errno == Errno::NOENT).then_some(Cause::NoDestination)
            }
            Change::DeleteService(_) | Change::ZeroService(_) => None,
        })
    }

    /// The failure of an operation; `special` knows what an error number means for it alone.
    fn with(
        operation: Operation,
        failure: Failure,
        special: impl FnOnce(Errno) -> Option<Cause>,
    ) -> Self {
        let (cause, errno) = match failure {
            Failure::Refused(number) => {
                // Other numbers than these are no `Errno`.
                let errno = (1..4096).contains(&number);
                let errno = errno.then(|| Errno::from_raw_os_error(number));
                let cause = errno.and_then(|errno| special(errno).or_else(|| general(errno)));
                let other = || Cause::Kernel(io::Error::from_raw_os_error(number));
                (cause.unwrap_or_else(other), Some(number))
            }
            Failure::Socket(errno) => (Cause::Socket(errno.into()), None),
            Failure::Lost => (Cause::Lost, None),
            Failure::Incomplete => (Cause::Closed, None),
            Failure::Decode(error) => (Cause::Decode(error), None),
        };
        Self {
            operation,
            cause,
            errno,
        }
    }
}

/// What an error number means whatever was being done (`ip_vs_genl_set_cmd`).
fn general(errno: Errno) -> Option<Cause> {
    match errno {
        Errno::PERM => Some(Cause::NoPermission),
        Errno::EXIST => Some(Cause::Exists),
        Errno::SRCH => Some(Cause::NoService),
        Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT | Errno::OPNOTSUPP => {
            Some(Cause::Unsupported(errno.into()))
        }
        _ => None,
    }
}

/// What an error number means for a service that is added or changed (`ip_vs_add_service`,
/// `ip_vs_edit_service`).
fn service_cause(errno: Errno, spec: &ServiceSpec) -> Option<Cause> {
    match (errno, &spec.persistence_engine, spec.persistence.netmask) {
        (Errno::NOENT, None, _) => Some(Cause::UnknownScheduler(spec.scheduler.clone())),
        (Errno::NOENT, Some(engine), _) => Some(Cause::UnknownEngine(engine.as_str().into())),
        (Errno::INVAL, _, Netmask::V6(prefix)) if !(1..=128).contains(&prefix) => {
            Some(Cause::BadNetmask(prefix))
        }
        _ => None,
    }
}

/// What an error number means for a destination that is added or changed
/// (`ip_vs_genl_set_cmd`, `ip_vs_new_dest`, `ip_vs_add_dest`, `ip_vs_edit_dest`).
fn destination_cause(errno: Errno, key: &ServiceKey, spec: &DestinationSpec) -> Option<Cause> {
    let (lower, upper) = (spec.lower_threshold, spec.upper_threshold);
    let mixed = Family::of(spec.address.ip()) != key.family();
    match errno {
        Errno::NOENT => Some(Cause::NoDestination),
        Errno::RANGE if i32::try_from(spec.weight).is_err() => Some(Cause::BadWeight(spec.weight)),
        Errno::RANGE if lower > upper => Some(Cause::BadThresholds { lower, upper }),
        Errno::INVAL if mixed => Some(Cause::MixedFamilies),
        Errno::INVAL if spec.tunnel.kind == TunnelKind::Gue && spec.tunnel.port == 0 => {
            Some(Cause::NoTunnelPort)
        }
        Errno::INVAL => Some(Cause::BadAddress),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
