//! Which services are still as they were read last.
//!
//! They are compared with what the kernel's older interface says ([`ServiceEntry`],
//! [`DestinationEntry`]). Nothing is taken from it but that nothing changed.

use isopath_api::observed::Stats;
use isopath_ipvs::{DestinationEntry, Service, ServiceEntry};

use super::observed::stats;
use super::state::{KernelRealServer, KernelService};

/// Whether a service is still what it was, and its real servers are such that entries can say
/// whether they are.
pub(super) fn can_be_told(known: &KernelService, service: &Service) -> bool {
    known.spec == service.spec && known.stats == stats(service.stats) && can_say_servers(known)
}

/// Whether entries can say all of a service and its real servers.
pub(super) fn can_say(known: &KernelService) -> bool {
    ServiceEntry::can_say(&known.spec) && can_say_servers(known)
}

fn can_say_servers(known: &KernelService) -> bool {
    let mut servers = known.real_servers.iter();
    servers.all(|server| DestinationEntry::can_say(&server.spec))
}

/// Whether a service is still what it was, and so are its real servers, as far as entries say it.
pub(super) fn all_is_still(
    known: &KernelService,
    service: &ServiceEntry,
    servers: &[DestinationEntry],
) -> bool {
    service.is(&known.spec)
        && stats(service.stats) == narrow(known.stats)
        && is_still(known, servers)
}

/// Whether a service's real servers are still what they were, in their order.
pub(super) fn is_still(known: &KernelService, entries: &[DestinationEntry]) -> bool {
    let servers = &known.real_servers;
    servers.len() == entries.len()
        && servers
            .iter()
            .zip(entries)
            .all(|(server, entry)| server_is(server, entry))
}

fn server_is(server: &KernelRealServer, entry: &DestinationEntry) -> bool {
    entry.is(&server.spec)
        && entry.active == server.active
        && entry.inactive == server.inactive
        && stats(entry.stats) == narrow(server.stats)
}

/// The counters as an entry has them, see [`isopath_ipvs::Stats::narrow`].
fn narrow(kept: Stats) -> Stats {
    let narrow = isopath_ipvs::Stats {
        connections: kept.connections,
        in_packets: kept.in_packets,
        out_packets: kept.out_packets,
        in_bytes: kept.in_bytes,
        out_bytes: kept.out_bytes,
        connections_per_second: kept.connections_per_second,
        in_packets_per_second: kept.in_packets_per_second,
        ..isopath_ipvs::Stats::default()
    };
    stats(narrow.narrow())
}

#[cfg(test)]
mod tests;
