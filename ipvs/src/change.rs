//! Changes of the kernel's tables, as many at a time as one likes.

use std::net::SocketAddr;

use crate::destination::DestinationSpec;
use crate::error::Operation;
use crate::service::{ServiceKey, ServiceSpec};

/// A change of the kernel's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Adds a service. The kernel loads the scheduler's module where it can.
    AddService(ServiceSpec),
    /// Changes a service's scheduler, flags and persistence.
    SetService(ServiceSpec),
    /// Deletes a service and its destinations.
    DeleteService(ServiceKey),
    /// Adds a destination to a service, at the head of the kernel's list.
    AddDestination(ServiceKey, DestinationSpec),
    /// Changes a destination's forwarding, weight, thresholds and tunnel.
    SetDestination(ServiceKey, DestinationSpec),
    /// Deletes a destination of a service. Its connections go on with it until they end.
    DeleteDestination(ServiceKey, SocketAddr),
    /// Zeroes the counters of a service and of its destinations.
    ZeroService(ServiceKey),
}

impl Change {
    /// What is done, and to what.
    pub fn operation(&self) -> Operation {
        match self {
            Self::AddService(spec) => Operation::AddService(spec.key, spec.scheduler.clone()),
            Self::SetService(spec) => Operation::SetService(spec.key, spec.scheduler.clone()),
            Self::DeleteService(key) => Operation::DeleteService(*key),
            Self::AddDestination(key, spec) => Operation::AddDestination(*key, spec.address),
            Self::SetDestination(key, spec) => Operation::SetDestination(*key, spec.address),
            Self::DeleteDestination(key, address) => Operation::DeleteDestination(*key, *address),
            Self::ZeroService(key) => Operation::ZeroService(*key),
        }
    }
}
