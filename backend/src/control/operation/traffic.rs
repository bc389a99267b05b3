//! Whether traffic still comes, by what the directors' kernels count.

use std::time::Duration;

use isopath_api::config::Dataplane;
use isopath_api::ids::{Packets, Protocol, ServiceId, Vip};
use isopath_api::observed::{Observed, RealServerObserved, ServiceObserved};

use super::Target;
use crate::clock::Moment;
use crate::control::state::STALE;

/// Traffic has left where it was below this for [`QUIET_FOR`]: packets a second. Above 0, since a
/// scanner, or the last repetitions of a client that has gone, must not keep a drain from ending.
const QUIET_PPS: f64 = 10.0;
/// How long it must have stayed away.
pub(super) const QUIET_FOR: Duration = Duration::from_secs(10);

/// What a director's kernel has counted of the packets to VIPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// There is no data plane that could count.
    NoDataplane,
    /// The VIPs have no services there.
    NoServices,
    /// It has not been read yet.
    NotYet,
    /// Packets from clients since the services were made.
    Packets(u64),
}

/// What `observed` has counted of the packets to `vips`.
pub(super) fn counted(observed: &Observed, vips: &[Vip]) -> Counted {
    match observed.dataplane.kind {
        Dataplane::None => return Counted::NoDataplane,
        Dataplane::Ipvs => {}
    }
    let mut services = of_vips(observed, vips).peekable();
    if services.peek().is_none() {
        return Counted::NoServices;
    }
    let packets = services.map(|service| service.stats.map(|stats| stats.in_packets));
    packets
        .sum::<Option<u64>>()
        .map_or(Counted::NotYet, Counted::Packets)
}

fn of_vips<'a>(
    observed: &'a Observed,
    vips: &'a [Vip],
) -> impl Iterator<Item = &'a ServiceObserved> {
    let services = observed.services.iter();
    services.filter(|service| vips.contains(&service.service.vip))
}

/// Packets a second that concern a target there, by the kernel's own estimate; nothing where
/// nobody counts.
pub(crate) fn rate(observed: &Observed, target: &Target, vips: &[Vip]) -> Option<u64> {
    match target {
        Target::Director(_) | Target::Vip(_) => {
            let rates = of_vips(observed, vips).map(|service| service.stats);
            sum(rates.map(|stats| stats.map(|stats| stats.in_packets_per_second)))
        }
        Target::RealServer(..) => {
            let rates = servers(observed, target).map(|(_, server)| server.stats);
            sum(rates.map(|stats| stats.map(|stats| stats.in_packets_per_second)))
        }
    }
}

/// The sum of what is known; nothing where nothing is.
fn sum(values: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    values
        .flatten()
        .fold(None, |sum, value| Some(sum.unwrap_or(0) + value))
}

/// The connections that concern a target there: active, inactive.
pub(crate) fn connections(observed: &Observed, target: &Target, vips: &[Vip]) -> (u64, u64) {
    let add = |(active, inactive), server: &RealServerObserved| {
        (
            active + u64::from(server.active),
            inactive + u64::from(server.inactive),
        )
    };
    match target {
        Target::Director(_) | Target::Vip(_) => of_vips(observed, vips)
            .flat_map(|service| &service.real_servers)
            .fold((0, 0), add),
        Target::RealServer(..) => servers(observed, target)
            .map(|(_, server)| server)
            .fold((0, 0), add),
    }
}

/// The real servers there that a target is.
fn servers<'a>(
    observed: &'a Observed,
    target: &'a Target,
) -> impl Iterator<Item = (ServiceId, &'a RealServerObserved)> {
    let services = observed.services.iter();
    services
        .flat_map(|service| {
            let servers = service.real_servers.iter();
            servers.map(|server| (service.service, server))
        })
        .filter(move |(service, server)| match target {
            Target::RealServer(name, only) => {
                name.is(server.real_server) && only.is_none_or(|only| only == *service)
            }
            Target::Director(_) | Target::Vip(_) => false,
        })
}

/// The connections of a service that must be gone before its real server may go: of UDP the
/// inactive ones as well, since IPVS calls none of them active.
pub(super) fn remaining(service: ServiceId, server: &RealServerObserved) -> u64 {
    let inactive = match service.packets {
        Packets::To {
            protocol: Protocol::Tcp | Protocol::Sctp,
            ..
        } => 0,
        // A mark may stand for packets of any protocol.
        Packets::To {
            protocol: Protocol::Udp,
            ..
        }
        | Packets::Marked(_) => server.inactive,
    };
    u64::from(server.active) + u64::from(inactive)
}

/// A count of packets, and when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    packets: u64,
    /// How often the kernel was read until then; 0 where the agent does not say.
    reads: u64,
    /// When it came.
    at: Moment,
}

impl Reading {
    /// What a report that came then has counted.
    pub(super) fn new(observed: &Observed, packets: u64, at: Moment) -> Self {
        let reconciles = observed.dataplane.reconciles;
        Self {
            packets,
            reads: reconciles.unchanged.count + reconciles.changed.count,
            at,
        }
    }
}

/// How a director's count goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quiet {
    /// What was read last.
    last: Reading,
    /// Since when too few came; nothing while they come.
    since: Option<Moment>,
}

impl Quiet {
    /// After another reading.
    pub(super) fn next(before: Option<Self>, reading: Reading) -> Self {
        let begun = Self {
            last: reading,
            since: None,
        };
        // Counters that begin anew say nothing about the time before.
        let Some(before) = before.filter(|before| before.last.packets <= reading.packets) else {
            return begun;
        };
        let passed = reading.at.since(before.last.at);
        // The same count once more, which a kernel that is slow to read does not make true.
        let is_same = reading.reads != 0 && reading.reads == before.last.reads;
        if passed.is_zero() || is_same {
            return before;
        }
        // After a longer silence all of them may have come at its end.
        let counts = passed.min(STALE).as_secs_f64();
        let is_quiet = (reading.packets - before.last.packets) as f64 <= QUIET_PPS * counts;
        Self {
            since: is_quiet.then(|| before.since.unwrap_or(before.last.at)),
            ..begun
        }
    }

    /// How long it has been quiet.
    pub(super) fn lasted(self) -> Duration {
        self.since
            .map_or(Duration::ZERO, |since| self.last.at.since(since))
    }
}
