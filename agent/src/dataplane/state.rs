//! What the data plane is asked for and what it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use isopath_api::declare::{
    Forwarding, Lvs, Persistence, RealServerSpec, Scheduler, SchedulerFlag, ServiceSpec, Tunnel,
};
use isopath_api::digest::{self, ServiceDigest};
use isopath_api::ids::{RealServerId, ServiceId, Vip};
use isopath_api::observed::Stats;
use isopath_api::reason::Reason;
use isopath_ipvs::DestinationSpec;
use serde::Serialize;

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
}

impl ServiceWanted {
    /// What the kernel shall have of a declared service; `effective` says the weight in force of
    /// a real server that is declared with a weight.
    pub fn of(spec: &ServiceSpec, effective: impl Fn(RealServerId, u16) -> u16) -> Self {
        let real_server = |server: &RealServerSpec| {
            let id = spec.real_server_id(server);
            RealServerWanted {
                id,
                weight: digest::table_weight(spec, server),
                upper_threshold: server.upper_threshold,
                lower_threshold: server.lower_threshold,
                effective_weight: effective(id, server.weight),
            }
        };
        Self {
            id: spec.id(),
            scheduler: spec.scheduler,
            flags: spec.flags(),
            persistence: spec.persistence,
            forwarding: spec.forwarding,
            tunnel: spec.tunnel(),
            real_servers: spec.real_server.iter().map(real_server).collect(),
        }
    }

    /// The real servers by their address, which also is their canonical order.
    pub(super) fn by_address(&self) -> BTreeMap<SocketAddr, RealServerWanted> {
        let servers = self.real_servers.iter();
        servers
            .map(|server| (SocketAddr::V4(server.id.0), *server))
            .collect()
    }
}

/// A real server the kernel shall have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RealServerWanted {
    /// Its identity.
    pub id: RealServerId,
    /// The weight that the scheduler's table shall have it with. `mh` builds its table from the
    /// last weight above 0 that it saw (`ip_vs_mh.c`), so this decides the table also while the
    /// real server is dead: a director that started in that time must not share its slots out
    /// for good.
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
    /// The wanted services that the kernel has. One in which nothing changed, no counter either,
    /// is the same allocation from one report to the next.
    pub services: KernelServices,
    /// What decides in the kernel where the clients of each of them land.
    pub digests: Arc<BTreeMap<ServiceId, ServiceDigest>>,
    /// Steps executed since the start.
    pub steps: u64,
    /// Differences that something outside had made and that were repaired since the start.
    pub drift_repaired: u64,
    /// What fails, with its cause and when it is tried next.
    pub failures: Vec<String>,
}

/// What would be done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// Why the kernel could not be read; the steps are for an empty one then.
    pub unread: Option<String>,
    /// The steps in their order, in words.
    pub steps: Vec<String>,
}

/// Services in the kernel. Whoever keeps them shares them.
pub type KernelServices = Arc<BTreeMap<ServiceId, Arc<KernelService>>>;

/// A service in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelService {
    /// What it is.
    pub spec: isopath_ipvs::ServiceSpec,
    /// Its counters.
    pub stats: Stats,
    /// Its real servers in the kernel's order, those on their way out included.
    pub real_servers: Box<[KernelRealServer]>,
}

impl KernelService {
    /// One of its real servers.
    pub fn real_server(&self, id: RealServerId) -> Option<&KernelRealServer> {
        let mut servers = self.real_servers.iter();
        servers.find(|server| server.spec.address == SocketAddr::V4(id.0))
    }
}

/// A real server in the kernel. There may be tens of thousands of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelRealServer {
    /// What it is.
    pub spec: DestinationSpec,
    /// Its active connections.
    pub active: u32,
    /// Its inactive connections.
    pub inactive: u32,
    /// Its counters.
    pub stats: Stats,
}

impl KernelRealServer {
    /// Its name; nothing for one with an IPv6 address, which only somebody else can have added.
    pub fn id(&self) -> Option<RealServerId> {
        match self.spec.address {
            SocketAddr::V4(address) => Some(RealServerId(address)),
            SocketAddr::V6(_) => None,
        }
    }
}
