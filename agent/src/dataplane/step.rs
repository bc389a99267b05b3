//! One change to the kernel.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use isopath_api::ids::{ServiceId, Vip};
use isopath_ipvs::{DestinationSpec, ServiceFlags, ServiceSpec, Timeouts};

use super::sysctl;

/// One change to the kernel, done or not done as a whole except where it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Write a sysctl, named as under `/proc/sys`.
    SetSysctl { key: String, value: &'static str },
    /// Set how long connections are kept.
    SetTimeouts(Timeouts),
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
    /// Change a real server's weight, thresholds, forwarding or tunnel.
    SetRealServer(ServiceId, DestinationSpec),
    /// Take a real server that is on its way out off new connections.
    QuiesceRealServer(ServiceId, DestinationSpec),
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
            Self::SetTimeouts(Timeouts { tcp, tcp_fin, udp }) => {
                write!(
                    f,
                    "set the timeouts to tcp {tcp} s, tcp_fin {tcp_fin} s, udp {udp} s"
                )
            }
            Self::AddInterface(name) => write!(f, "make the dummy interface {name}"),
            Self::RaiseInterface(name) => write!(f, "set interface {name} up"),
            Self::AddVip { interface, vip } => write!(f, "add VIP {vip} to interface {interface}"),
            Self::AddService(id, spec) => write!(f, "add service {id} with {}", Manner(spec)),
            Self::SetService(id, spec) => write!(f, "change service {id} to {}", Manner(spec)),
            Self::HoldConnections => f.write_str("hold connections during the reinsertion"),
            Self::AddRealServer(id, spec) => write!(f, "add real server {} to {id}", Spec(spec)),
            Self::ReinsertRealServer(id, spec) => {
                write!(f, "insert real server {} into {id} again", Spec(spec))
            }
            Self::ReleaseConnections => f.write_str("release connections"),
            Self::SetRealServer(id, spec) => {
                write!(f, "change real server of {id} to {}", Spec(spec))
            }
            Self::QuiesceRealServer(id, spec) => {
                let address = spec.address;
                write!(f, "take real server {address} of {id} off new connections")
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
            upper_threshold,
            lower_threshold,
            ..
        } = self.0;
        write!(f, "{address} (weight {weight}, {forwarding}")?;
        if *upper_threshold > 0 {
            write!(f, ", connections {lower_threshold} to {upper_threshold}")?;
        }
        f.write_str(")")
    }
}

/// How a service schedules, as it stands in a sentence.
struct Manner<'a>(&'a ServiceSpec);

impl fmt::Display for Manner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServiceSpec {
            scheduler,
            flags,
            persistence,
            ..
        } = self.0;
        write!(f, "scheduler {scheduler}")?;
        if flags.contains(ServiceFlags::PERSISTENT) {
            write!(f, ", persistent for {} s", persistence.timeout)?;
        }
        let others = flags.without(ServiceFlags::PERSISTENT);
        if others != ServiceFlags::NONE {
            write!(f, ", flags {:#x}", others.bits())?;
        }
        Ok(())
    }
}

/// What a step is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Sysctl(String),
    Timeouts,
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
    /// What the step is about.
    pub(super) fn subject(&self) -> Subject {
        match self {
            Self::SetSysctl { key, .. } => Subject::Sysctl(key.clone()),
            Self::SetTimeouts(_) => Subject::Timeouts,
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
            | Self::SetRealServer(id, spec)
            | Self::QuiesceRealServer(id, spec) => Subject::RealServer(*id, spec.address),
            Self::DeleteRealServer(id, address) => Subject::RealServer(*id, *address),
            Self::HoldConnections | Self::ReleaseConnections => {
                Subject::Sysctl(sysctl::EXPIRE_NODEST_CONN.to_owned())
            }
        }
    }

    /// What cannot be done when this step was not.
    fn obstacles(&self) -> impl Iterator<Item = Obstacle> {
        let second = match self {
            Self::AddService(id, _) => Some(Obstacle::NoService(*id)),
            Self::AddRealServer(id, _) => Some(Obstacle::NoReplacement(*id)),
            Self::DeleteRealServer(id, _) => Some(Obstacle::RealServerOf(*id)),
            Self::DeleteService(id) => Some(Obstacle::ServiceAt(id.vip)),
            Self::RemoveVip { interface, .. } => Some(Obstacle::VipOn(interface.clone())),
            Self::SetSysctl { .. }
            | Self::SetTimeouts(_)
            | Self::AddInterface(_)
            | Self::RaiseInterface(_)
            | Self::AddVip { .. }
            | Self::SetService(..)
            | Self::HoldConnections
            | Self::ReinsertRealServer(..)
            | Self::ReleaseConnections
            | Self::SetRealServer(..)
            | Self::QuiesceRealServer(..)
            | Self::RemoveInterface(_) => None,
        };
        std::iter::once(Obstacle::Subject(self.subject())).chain(second)
    }

    /// What of an earlier step would stand in this one's way: nothing is added to what is not
    /// there, nothing is removed from under what stays, and a real server goes on serving when
    /// none could be added in its place.
    fn hindered_by(&self) -> impl Iterator<Item = Obstacle> {
        // The order cannot be had without the real server that is missing in it.
        let third = if let Self::ReinsertRealServer(id, _) = self {
            Some(Obstacle::NoReplacement(*id))
        } else {
            None
        };
        let second = match self {
            Self::AddVip { interface, .. } => {
                Some(Obstacle::Subject(Subject::Interface(interface.clone())))
            }
            // A service that could not be changed still has its real servers' weights set.
            Self::AddRealServer(id, _) | Self::SetRealServer(id, _) => {
                Some(Obstacle::NoService(*id))
            }
            // Its connections would be lost.
            Self::ReinsertRealServer(..) => {
                Some(Obstacle::Subject(Self::HoldConnections.subject()))
            }
            Self::QuiesceRealServer(id, _) => Some(Obstacle::NoReplacement(*id)),
            Self::DeleteService(id) => Some(Obstacle::RealServerOf(*id)),
            Self::RemoveVip { vip, .. } => Some(Obstacle::ServiceAt(*vip)),
            Self::RemoveInterface(name) => Some(Obstacle::VipOn(name.clone())),
            Self::SetSysctl { .. }
            | Self::SetTimeouts(_)
            | Self::AddInterface(_)
            | Self::RaiseInterface(_)
            | Self::AddService(..)
            | Self::SetService(..)
            | Self::HoldConnections
            | Self::ReleaseConnections
            | Self::DeleteRealServer(..) => None,
        };
        std::iter::once(Obstacle::Subject(self.subject()))
            .chain(second)
            .chain(third)
    }

    /// Which VIPs the step holds back.
    pub(super) fn holds(&self) -> Holds {
        match self {
            Self::SetSysctl { .. }
            | Self::SetTimeouts(_)
            | Self::AddInterface(_)
            | Self::RaiseInterface(_) => Holds::All,
            Self::AddVip { vip, .. } => Holds::One(*vip),
            Self::AddService(id, _)
            | Self::SetService(id, _)
            | Self::AddRealServer(id, _)
            | Self::ReinsertRealServer(id, _)
            | Self::SetRealServer(id, _) => Holds::One(id.vip),
            Self::HoldConnections
            | Self::ReleaseConnections
            | Self::QuiesceRealServer(..)
            | Self::DeleteRealServer(..)
            | Self::DeleteService(_)
            | Self::RemoveVip { .. }
            | Self::RemoveInterface(_) => Holds::None,
        }
    }

    /// Steps of one rank that follow each other may be given to the kernel together, before it
    /// is known whether the first of them succeeds: where one of them needs an earlier one that
    /// failed, the kernel refuses it too, and nothing else happens. Nothing where a step is done
    /// by itself.
    pub(super) fn rank(&self) -> Option<Rank> {
        match self {
            Self::AddService(..)
            | Self::SetService(..)
            | Self::AddRealServer(..)
            | Self::SetRealServer(..) => Some(Rank::BringUp),
            Self::ReinsertRealServer(..) => Some(Rank::Reinsert),
            Self::QuiesceRealServer(..) => Some(Rank::Quiesce),
            Self::DeleteRealServer(..) => Some(Rank::DeleteRealServers),
            Self::DeleteService(_) => Some(Rank::DeleteServices),
            Self::SetSysctl { .. }
            | Self::SetTimeouts(_)
            | Self::AddInterface(_)
            | Self::RaiseInterface(_)
            | Self::AddVip { .. }
            | Self::HoldConnections
            | Self::ReleaseConnections
            | Self::RemoveVip { .. }
            | Self::RemoveInterface(_) => None,
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

/// Something that was not done, as later steps of the same plan see it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Obstacle {
    /// A step on the same object.
    Subject(Subject),
    /// The service is not there.
    NoService(ServiceId),
    /// A real server of the service was not added.
    NoReplacement(ServiceId),
    /// A real server of the service is still there.
    RealServerOf(ServiceId),
    /// A service of the VIP is still there.
    ServiceAt(Vip),
    /// A VIP is still on the interface.
    VipOn(String),
}

/// What was not done of a plan so far.
#[derive(Debug, Default)]
pub(super) struct Undone(BTreeSet<Obstacle>);

impl Undone {
    /// Whether a step must not be executed.
    pub(super) fn hinders(&self, step: &Step) -> bool {
        !self.0.is_empty() && step.hindered_by().any(|it| self.0.contains(&it))
    }

    /// A step was not executed.
    pub(super) fn add(&mut self, step: &Step) {
        self.0.extend(step.obstacles());
    }
}

/// What an execution came to.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// The services that steps were about, also those that failed.
    pub(super) services: BTreeSet<ServiceId>,
    /// Whether steps were about anything else.
    pub(super) host: bool,
    /// How many were done.
    pub(super) done: usize,
    /// How many failed.
    pub(super) failed: usize,
}

impl Touched {
    /// A step was tried.
    pub(super) fn add(&mut self, step: &Step) {
        match step.subject() {
            Subject::Service(id) | Subject::RealServer(id, _) => {
                self.services.insert(id);
            }
            Subject::Sysctl(_) | Subject::Timeouts | Subject::Interface(_) | Subject::Vip(..) => {
                self.host = true;
            }
        }
    }

    /// Whether no step was tried.
    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty() && !self.host
    }
}

/// Which steps may go together; see [`Step::rank`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    BringUp,
    Reinsert,
    Quiesce,
    DeleteRealServers,
    DeleteServices,
}

/// What a plan is about, removals in progress and what is around a reinsertion aside.
pub(super) fn subjects(steps: &[Step]) -> BTreeSet<Subject> {
    let around = |it: &Step| matches!(it, Step::HoldConnections | Step::ReleaseConnections);
    let steps = steps.iter().filter(|step| !step.goes_on_with_removal());
    steps.filter(|it| !around(it)).map(Step::subject).collect()
}
