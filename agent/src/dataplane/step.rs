//! One change to the kernel.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use isopath_api::ids::{ServiceId, Vip};
use isopath_ipvs::{DestinationSpec, ServiceSpec};

use super::state::Wanted;

/// One change to the kernel, done or not done as a whole except where it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Write a sysctl, named as under `/proc/sys`.
    SetSysctl { key: String, value: &'static str },
    /// Make the dummy interface, up.
    AddInterface(String),
    /// Set the interface up.
    RaiseInterface(String),
    /// Put a VIP on the interface.
    AddVip { interface: String, vip: Vip },
    /// Add a service without real servers.
    AddService(ServiceId, ServiceSpec),
    /// Change a service's scheduler, flags or persistence.
    SetService(ServiceId, ServiceSpec),
    /// Let packets of connections to a missing real server be dropped instead of letting them
    /// end the connection, until [`Step::ReleaseConnections`].
    HoldConnections,
    /// Add a real server, at the head of the kernel's list.
    AddRealServer(ServiceId, DestinationSpec),
    /// Delete a real server and add it again at once, at the head of the kernel's list. The
    /// kernel finds it in its trash with its connections and counters. If only the deletion
    /// works, the next plan adds it.
    ReinsertRealServer(ServiceId, DestinationSpec),
    /// Undo [`Step::HoldConnections`].
    ReleaseConnections,
    /// Change a real server's weight or forwarding.
    SetRealServer(ServiceId, DestinationSpec),
    /// Delete a real server.
    DeleteRealServer(ServiceId, SocketAddr),
    /// Delete a service.
    DeleteService(ServiceId),
    /// Take a VIP off an interface.
    RemoveVip { interface: String, vip: Vip },
    /// Delete an interface that was made by us.
    RemoveInterface(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetSysctl { key, value } => write!(f, "set {} to {value}", key.replace('/', ".")),
            Self::AddInterface(name) => write!(f, "make the dummy interface {name}"),
            Self::RaiseInterface(name) => write!(f, "set interface {name} up"),
            Self::AddVip { interface, vip } => write!(f, "add VIP {vip} to interface {interface}"),
            Self::AddService(id, spec) => {
                write!(f, "add service {id} with scheduler {}", spec.scheduler)
            }
            Self::SetService(id, spec) => {
                write!(f, "change service {id} to scheduler {}", spec.scheduler)
            }
            Self::HoldConnections => f.write_str("hold connections during the reinsertion"),
            Self::AddRealServer(id, spec) => write!(f, "add real server {} to {id}", Spec(spec)),
            Self::ReinsertRealServer(id, spec) => {
                write!(f, "insert real server {} into {id} again", Spec(spec))
            }
            Self::ReleaseConnections => f.write_str("release connections"),
            Self::SetRealServer(id, spec) => {
                write!(f, "change real server of {id} to {}", Spec(spec))
            }
            Self::DeleteRealServer(id, address) => {
                write!(f, "delete real server {address} of {id}")
            }
            Self::DeleteService(id) => write!(f, "delete service {id}"),
            Self::RemoveVip { interface, vip } => {
                write!(f, "remove VIP {vip} from interface {interface}")
            }
            Self::RemoveInterface(name) => write!(f, "delete interface {name}"),
        }
    }
}

/// A real server as it stands in a sentence.
struct Spec<'a>(&'a DestinationSpec);

impl fmt::Display for Spec<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DestinationSpec {
            address,
            weight,
            forwarding,
            ..
        } = self.0;
        write!(f, "{address} (weight {weight}, {forwarding})")
    }
}

/// What a step is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Sysctl(String),
    Interface(String),
    Vip(String, Vip),
    Service(ServiceId),
    RealServer(ServiceId, SocketAddr),
}

/// Which VIPs cannot be announced before a step is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    All,
    One(Vip),
    None,
}

impl Step {
    /// What the step is about; nothing for the steps around a reinsertion.
    pub(super) fn subject(&self) -> Option<Subject> {
        Some(match self {
            Self::SetSysctl { key, .. } => Subject::Sysctl(key.clone()),
            Self::AddInterface(name) | Self::RaiseInterface(name) | Self::RemoveInterface(name) => {
                Subject::Interface(name.clone())
            }
            Self::AddVip { interface, vip } | Self::RemoveVip { interface, vip } => {
                Subject::Vip(interface.clone(), *vip)
            }
            Self::AddService(id, _) | Self::SetService(id, _) | Self::DeleteService(id) => {
                Subject::Service(*id)
            }
            Self::AddRealServer(id, spec)
            | Self::ReinsertRealServer(id, spec)
            | Self::SetRealServer(id, spec) => Subject::RealServer(*id, spec.address),
            Self::DeleteRealServer(id, address) => Subject::RealServer(*id, *address),
            Self::HoldConnections | Self::ReleaseConnections => return None,
        })
    }

    /// Whether the step must not be executed when an earlier one of its plan was not: nothing
    /// is added to what is not there, and nothing is removed from under what stays.
    pub(super) fn needs(&self, earlier: &Self) -> bool {
        if self.subject().is_some() && self.subject() == earlier.subject() {
            return true;
        }
        match (self, earlier) {
            (Self::AddVip { interface, .. }, Self::AddInterface(name)) => interface == name,
            // A service that could not be changed still has its real servers' weights set.
            (
                Self::AddRealServer(id, _)
                | Self::ReinsertRealServer(id, _)
                | Self::SetRealServer(id, _),
                Self::AddService(service, _),
            ) => id == service,
            (Self::DeleteService(id), Self::DeleteRealServer(service, _)) => id == service,
            (Self::RemoveVip { vip, .. }, Self::DeleteService(id)) => *vip == id.vip,
            (Self::RemoveInterface(name), Self::RemoveVip { interface, .. }) => name == interface,
            _ => false,
        }
    }

    /// Which VIPs the step holds back.
    pub(super) fn holds(&self, wanted: &Wanted) -> Holds {
        match self {
            Self::SetSysctl { .. } | Self::AddInterface(_) | Self::RaiseInterface(_) => Holds::All,
            Self::AddVip { vip, .. } => Holds::One(*vip),
            Self::AddService(id, _) | Self::SetService(id, _) => Holds::One(id.vip),
            Self::AddRealServer(id, spec)
            | Self::ReinsertRealServer(id, spec)
            | Self::SetRealServer(id, spec) => {
                let service = wanted.service(*id);
                match service.and_then(|service| service.real_server(spec.address)) {
                    Some(_) => Holds::One(id.vip),
                    None => Holds::None,
                }
            }
            Self::HoldConnections
            | Self::ReleaseConnections
            | Self::DeleteRealServer(..)
            | Self::DeleteService(_)
            | Self::RemoveVip { .. }
            | Self::RemoveInterface(_) => Holds::None,
        }
    }

    /// Whether the step only goes on with a removal that was begun before: it may wait for
    /// connections to end and is no drift.
    pub(super) fn goes_on_with_removal(&self) -> bool {
        matches!(
            self,
            Self::DeleteRealServer(..)
                | Self::DeleteService(_)
                | Self::RemoveVip { .. }
                | Self::RemoveInterface(_)
        )
    }
}

/// What a plan is about, removals in progress aside.
pub(super) fn subjects(steps: &[Step]) -> BTreeSet<Subject> {
    let steps = steps.iter().filter(|step| !step.goes_on_with_removal());
    steps.filter_map(Step::subject).collect()
}
