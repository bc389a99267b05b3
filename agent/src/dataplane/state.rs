//! What the data plane is asked for and what it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use isopath_api::declare::{Forwarding, Lvs, Persistence, Scheduler, SchedulerFlag, Tunnel};
use isopath_api::ids::{RealServerId, ServiceId, Vip};
use isopath_api::observed::Stats;
use isopath_api::reason::Reason;

/// Everything this director's kernel shall have; always complete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The addresses on the VIPs' interface.
    pub vips: BTreeSet<Vip>,
    /// The services. One that stays as it is stays the same allocation from one wanted state to
    /// the next: among a thousand services that tells at once which of them changed.
    pub services: BTreeMap<ServiceId, Arc<ServiceWanted>>,
    /// The settings that all services share.
    pub lvs: Lvs,
}

/// A service the kernel shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceWanted {
    /// Its identity.
    pub id: ServiceId,
    /// Its scheduler.
    pub scheduler: Scheduler,
    /// The scheduler's flags.
    pub flags: BTreeSet<SchedulerFlag>,
    /// Whether and how long a client stays with its real server.
    pub persistence: Option<Persistence>,
    /// How packets reach its real servers.
    pub forwarding: Forwarding,
    /// The tunnel to them; with forwarding method `tun` alone.
    pub tunnel: Option<Tunnel>,
    /// Its real servers, each once, in any order: the kernel's order is canonical.
    pub real_servers: Vec<RealServerWanted>,
}

impl Wanted {
    /// Whether nothing is wanted: then the settings that all services share do not matter.
    pub fn is_empty(&self) -> bool {
        self.vips.is_empty() && self.services.is_empty()
    }

    pub(super) fn service(&self, id: ServiceId) -> Option<&ServiceWanted> {
        self.services.get(&id).map(|service| &**service)
    }
}

impl ServiceWanted {
    pub(super) fn real_server(&self, address: SocketAddr) -> Option<RealServerWanted> {
        let mut servers = self.real_servers.iter();
        let server = servers.find(|server| SocketAddr::V4(server.id.0) == address);
        server.copied()
    }
}

/// A real server the kernel shall have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RealServerWanted {
    /// Its identity.
    pub id: RealServerId,
    /// The declared weight. `mh` builds its table from the last weight above 0 that it saw
    /// (`ip_vs_mh.c`), so this decides the table also while the real server is dead: a
    /// director that started in that time must not share its slots out for good.
    pub weight: u16,
    /// The connections at which it takes no new ones; 0 for no limit.
    pub upper_threshold: u32,
    /// The connections below which it takes new ones again; 0 for the kernel's own.
    pub lower_threshold: u32,
    /// The weight in force: the declared one, or 0 while the real server is dead.
    pub effective_weight: u16,
}

/// What the kernel has, and how it got there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Each wanted VIP: ready to be announced, or why not.
    pub vips: BTreeMap<Vip, Result<(), Reason>>,
    /// The wanted services that the kernel has.
    pub services: BTreeMap<ServiceId, KernelService>,
    /// Steps executed since the start.
    pub steps: u64,
    /// Differences that something outside had made and that were repaired since the start.
    pub drift_repaired: u64,
    /// What failed this time, with its cause.
    pub failures: Vec<String>,
}

/// A service in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelService {
    /// Its counters.
    pub stats: Stats,
    /// Its real servers, those on their way out included.
    pub real_servers: BTreeMap<RealServerId, KernelRealServer>,
}

/// A real server in the kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KernelRealServer {
    /// Its weight.
    pub weight: u32,
    /// Its active connections.
    pub active: u32,
    /// Its inactive connections.
    pub inactive: u32,
    /// Its counters.
    pub stats: Stats,
}
