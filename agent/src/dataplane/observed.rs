//! What the kernel has of what concerns us.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use isopath_api::declare::{self, Forwarding, SchedulerFlag, TunnelChecksum, TunnelKind};
use isopath_api::ids::{Packets, Protocol, ServiceId, Vip};
use isopath_api::observed::Stats;
use isopath_ipvs::{
    Destination, DestinationSpec, Family, Netmask, Persistence, ServiceFlags, ServiceKey,
    ServiceSpec, Timeouts,
};

use super::state::{
    KernelRealServer, KernelService, KernelServices, RealServerWanted, ServiceWanted,
};
use super::step::Subject;

/// What the kernel has of what concerns us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Observed {
    /// The sysctls that matter, named as under `/proc/sys`; nothing for one that is missing.
    pub(super) sysctls: BTreeMap<String, Option<String>>,
    /// The interfaces that carry or shall carry our VIPs, those that exist.
    pub(super) interfaces: BTreeMap<String, ObservedInterface>,
    /// How long connections are kept; nothing before it was read.
    pub(super) timeouts: Option<Timeouts>,
    /// The services, also those that are not ours.
    pub(super) services: KernelServices,
}

impl Observed {
    /// What there is of a step's subject, counters aside, as a text to compare.
    pub(super) fn shape(&self, subject: &Subject) -> String {
        match subject {
            Subject::Sysctl(key) => format!("{:?}", self.sysctls.get(key)),
            Subject::Timeouts => format!("{:?}", self.timeouts),
            Subject::Interface(name) => format!("{:?}", self.interfaces.get(name)),
            Subject::Vip(name, vip) => {
                let interface = self.interfaces.get(name);
                format!("{:?}", interface.map(|it| it.vips.contains(vip)))
            }
            Subject::Service(id) => format!("{:?}", self.services.get(id).map(|it| &it.spec)),
            Subject::RealServer(id, address) => {
                format!("{:?}", self.real_server(*id, *address).map(|it| &it.spec))
            }
        }
    }

    pub(super) fn real_server(
        &self,
        id: ServiceId,
        address: SocketAddr,
    ) -> Option<&KernelRealServer> {
        let mut servers = self.services.get(&id)?.real_servers.iter();
        servers.find(|server| server.spec.address == address)
    }
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ObservedInterface {
    /// Whether it is up.
    pub(super) up: bool,
    /// Its /32 addresses.
    pub(super) vips: BTreeSet<Vip>,
    /// Whether it has other IPv4 addresses.
    pub(super) others: bool,
}

/// A service as it is kept and reported.
pub(super) fn kernel_service(
    service: isopath_ipvs::Service,
    destinations: impl IntoIterator<Item = Destination>,
) -> KernelService {
    let servers = destinations.into_iter().map(|server| KernelRealServer {
        spec: server.spec,
        active: server.active,
        inactive: server.inactive,
        stats: stats(server.stats),
    });
    KernelService {
        spec: service.spec,
        stats: stats(service.stats),
        real_servers: servers.collect(),
    }
}

/// The counters that are kept and reported.
pub(super) fn stats(stats: isopath_ipvs::Stats) -> Stats {
    Stats {
        connections: stats.connections,
        in_packets: stats.in_packets,
        out_packets: stats.out_packets,
        in_bytes: stats.in_bytes,
        out_bytes: stats.out_bytes,
        connections_per_second: stats.connections_per_second,
        in_packets_per_second: stats.in_packets_per_second,
    }
}

/// The kernel's name of a service.
pub(super) fn service_key(id: ServiceId) -> ServiceKey {
    match id.packets {
        Packets::To { protocol, port } => ServiceKey::Address {
            protocol: match protocol {
                Protocol::Tcp => isopath_ipvs::Protocol::Tcp,
                Protocol::Udp => isopath_ipvs::Protocol::Udp,
                Protocol::Sctp => isopath_ipvs::Protocol::Sctp,
            },
            address: SocketAddr::new(IpAddr::V4(id.vip.0), port),
        },
        Packets::Marked(mark) => ServiceKey::Mark {
            family: Family::V4,
            mark,
        },
    }
}

/// Our name of a service; nothing for one that we could not have made. The kernel does not know
/// whose VIP a mark is for: `marks` does.
pub(super) fn service_id(key: &ServiceKey, marks: &BTreeMap<u32, Vip>) -> Option<ServiceId> {
    match key {
        ServiceKey::Address { protocol, address } => {
            let (IpAddr::V4(vip), port @ 1..) = (address.ip(), address.port()) else {
                return None;
            };
            let protocol = match protocol {
                isopath_ipvs::Protocol::Tcp => Protocol::Tcp,
                isopath_ipvs::Protocol::Udp => Protocol::Udp,
                isopath_ipvs::Protocol::Sctp => Protocol::Sctp,
                isopath_ipvs::Protocol::Other(_) => return None,
            };
            Some(ServiceId::to(protocol, Vip(vip), port))
        }
        ServiceKey::Mark {
            family: Family::V4,
            mark,
        } => Some(ServiceId {
            vip: *marks.get(mark)?,
            packets: Packets::Marked(*mark),
        }),
        ServiceKey::Mark {
            family: Family::V6, ..
        } => None,
    }
}

/// How long the kernel shall keep connections.
pub(super) fn timeouts(wanted: &declare::Timeouts) -> Timeouts {
    let seconds = |timeout: Duration| u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX);
    Timeouts {
        tcp: seconds(wanted.tcp),
        tcp_fin: seconds(wanted.tcp_fin),
        udp: seconds(wanted.udp),
    }
}

/// What the kernel shall have of a wanted service.
pub(super) fn service_spec(wanted: &ServiceWanted) -> ServiceSpec {
    let flag = |flag: &SchedulerFlag| match flag {
        SchedulerFlag::MhFallback => ServiceFlags::MH_FALLBACK,
        SchedulerFlag::MhPort => ServiceFlags::MH_PORT,
        SchedulerFlag::ShFallback => ServiceFlags::SH_FALLBACK,
        SchedulerFlag::ShPort => ServiceFlags::SH_PORT,
        SchedulerFlag::OnePacket => ServiceFlags::ONE_PACKET,
    };
    let mut flags = wanted
        .flags
        .iter()
        .map(flag)
        .fold(ServiceFlags::NONE, |all, one| all | one);
    let mut spec = ServiceSpec::new(service_key(wanted.id), wanted.scheduler.as_str());
    if let Some(persistence) = wanted.persistence {
        flags = flags | ServiceFlags::PERSISTENT;
        let netmask = persistence.netmask.unwrap_or(declare::Netmask::HOST);
        spec.persistence = Persistence {
            timeout: u32::try_from(persistence.timeout.as_secs()).unwrap_or(u32::MAX),
            netmask: Netmask::V4(netmask.address()),
        };
    }
    ServiceSpec { flags, ..spec }
}

/// What the kernel shall have of a wanted real server.
pub(super) fn destination_spec(
    service: &ServiceWanted,
    wanted: RealServerWanted,
) -> DestinationSpec {
    let forwarding = match service.forwarding {
        Forwarding::Dr => isopath_ipvs::Forwarding::DirectRoute,
        Forwarding::Tun => isopath_ipvs::Forwarding::Tunnel,
        Forwarding::Nat => isopath_ipvs::Forwarding::Masquerade,
    };
    let weight = u32::from(wanted.effective_weight);
    DestinationSpec {
        upper_threshold: wanted.upper_threshold,
        lower_threshold: wanted.lower_threshold,
        tunnel: service.tunnel.map(tunnel).unwrap_or_default(),
        ..DestinationSpec::new(SocketAddr::V4(wanted.id.0), forwarding, weight)
    }
}

fn tunnel(declared: declare::Tunnel) -> isopath_ipvs::Tunnel {
    isopath_ipvs::Tunnel {
        kind: match declared.kind {
            TunnelKind::Ipip => isopath_ipvs::TunnelKind::Ipip,
            TunnelKind::Gue => isopath_ipvs::TunnelKind::Gue,
            TunnelKind::Gre => isopath_ipvs::TunnelKind::Gre,
        },
        port: declared.port.unwrap_or(0),
        checksum: match declared.checksum {
            TunnelChecksum::None => isopath_ipvs::TunnelChecksum::None,
            TunnelChecksum::Csum => isopath_ipvs::TunnelChecksum::Full,
            TunnelChecksum::Remcsum => isopath_ipvs::TunnelChecksum::Remote,
        },
    }
}
