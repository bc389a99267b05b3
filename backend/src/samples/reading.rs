//! What is measured of a cluster at one moment, from the reports that still count.

use std::collections::BTreeMap;

use isopath_api::ids::Vip;
use isopath_api::observed::{Observed, ServiceObserved};

use super::chunk::{Object, Reading};
use crate::clock::Moment;
use crate::control::state::{ClusterState, is_connected};

/// Every declared object's reading. What no director knows is unknown, not 0.
pub(super) fn readings(cluster: &ClusterState, now: Moment) -> BTreeMap<Object, Reading> {
    let mut readings = BTreeMap::new();
    let reports: Vec<_> = cluster
        .directors
        .values()
        .filter_map(|director| director.fresh(now))
        .collect();
    for (name, director) in &cluster.directors {
        let reading = director.fresh(now).map_or(vec![None; 3], of_director);
        readings.insert(Object::Director(name.clone()), reading);
    }
    let services = || reports.iter().flat_map(|report| &report.services);
    for vip in &cluster.declaration.vip {
        let of_vip = services().filter(|service| service.service.vip == vip.address);
        let packets = sum(of_vip.map(packets));
        let width = width(&reports, vip.address);
        readings.insert(Object::Vip(vip.address), vec![width, packets]);
    }
    // By their identities, each with what all directors say of it.
    for spec in &cluster.declaration.service {
        let id = spec.id();
        readings.insert(Object::Service(id), vec![None; 2]);
        for server in &spec.real_server {
            let server = Object::RealServer(id, spec.real_server_id(server));
            readings.insert(server, vec![None; 2]);
        }
    }
    for service in services() {
        let object = Object::Service(service.service);
        add(
            &mut readings,
            &object,
            [connections(service), active(service)],
        );
        for server in &service.real_servers {
            let object = Object::RealServer(service.service, server.real_server);
            let connections = server.stats.map(|stats| stats.connections_per_second);
            let active = server.stats.map(|_| u64::from(server.active));
            add(&mut readings, &object, [connections, active]);
        }
    }
    readings
}

fn of_director(report: &Observed) -> Reading {
    let services = || report.services.iter();
    vec![
        sum(services().map(packets)),
        sum(services().map(connections)),
        sum(services().map(active)),
    ]
}

fn packets(service: &ServiceObserved) -> Option<u64> {
    service.stats.map(|stats| stats.in_packets_per_second)
}

fn connections(service: &ServiceObserved) -> Option<u64> {
    service.stats.map(|stats| stats.connections_per_second)
}

/// Without IPVS nobody counts connections.
fn active(service: &ServiceObserved) -> Option<u64> {
    service.stats?;
    let servers = service.real_servers.iter();
    Some(servers.map(|server| u64::from(server.active)).sum())
}

/// The narrowest equal-cost set that a switch has to the VIP, by a database that is connected.
fn width(reports: &[&Observed], vip: Vip) -> Option<u32> {
    let speakers = reports
        .iter()
        .filter(|report| is_connected(report))
        .filter_map(|report| report.speaker.as_ref());
    let widths = speakers.flat_map(|speaker| &speaker.widths);
    let of_vip = widths.filter(|width| width.vips.contains(&vip));
    of_vip.map(|width| width.width).min()
}

/// The sum of what is known; unknown when nothing is.
fn sum(values: impl Iterator<Item = Option<u64>>) -> Option<u32> {
    let known = values.flatten();
    known
        .fold(None, |sum: Option<u64>, value| {
            Some(sum.unwrap_or(0).saturating_add(value))
        })
        .map(|sum| u32::try_from(sum).unwrap_or(u32::MAX))
}

/// Adds one director's numbers to a declared object's; others are nobody's.
fn add(readings: &mut BTreeMap<Object, Reading>, object: &Object, values: [Option<u64>; 2]) {
    let Some(reading) = readings.get_mut(object) else {
        return;
    };
    for (reading, value) in reading.iter_mut().zip(values) {
        if let Some(value) = value {
            let more = u32::try_from(value).unwrap_or(u32::MAX);
            *reading = Some(reading.unwrap_or(0).saturating_add(more));
        }
    }
}

#[cfg(test)]
mod tests {
    use isopath_api::observed::Stats;

    use super::*;
    use crate::testing::{Known, SERVICE, observed};

    fn reading(known: &Known, object: &str) -> Reading {
        let object = object.parse().unwrap();
        readings(&known.cluster, known.now)[&object].clone()
    }

    fn counted(n: u8) -> Observed {
        let mut observed = observed(n, &[1, 2]);
        let stats = Stats {
            connections_per_second: 10,
            in_packets_per_second: 100 * u64::from(n),
            ..Stats::default()
        };
        let service = &mut observed.services[0];
        service.stats = Some(stats);
        service.real_servers[0].stats = Some(stats);
        observed
    }

    #[test]
    fn what_directors_count_is_added_up() {
        let mut known = Known::new(2);
        known.hear(counted(1));
        known.hear(counted(2));
        let service = format!("service/{SERVICE}");
        let server = format!("real-server/{SERVICE}/10.1.0.11:80");
        assert_eq!(
            reading(&known, "director/d2"),
            [Some(200), Some(10), Some(6)]
        );
        assert_eq!(reading(&known, "vip/10.99.0.1"), [Some(2), Some(300)]);
        assert_eq!(reading(&known, &service), [Some(20), Some(12)]);
        assert_eq!(reading(&known, &server), [Some(20), Some(6)]);
    }

    #[test]
    fn what_nobody_counts_is_unknown() {
        let mut known = Known::new(2);
        let server = format!("real-server/{SERVICE}/10.1.0.11:80");
        assert_eq!(reading(&known, "director/d1"), [None; 3]);
        assert_eq!(reading(&known, "vip/10.99.0.1"), [None; 2]);
        known.hear(observed(1, &[1]));
        assert_eq!(reading(&known, "director/d1"), [None; 3], "no IPVS");
        assert_eq!(reading(&known, "vip/10.99.0.1"), [Some(1), None]);
        assert_eq!(reading(&known, &server), [None; 2]);
        known.hear(counted(1));
        known.pass(std::time::Duration::from_secs(6));
        assert_eq!(reading(&known, "director/d1"), [None; 3], "too old");
    }

    #[test]
    fn absurd_numbers_stay_within_bounds() {
        let mut known = Known::new(2);
        for n in [1, 2] {
            let mut report = counted(n);
            let stats = report.services[0].stats.as_mut().unwrap();
            stats.in_packets_per_second = u64::MAX;
            known.hear(report);
        }
        assert_eq!(reading(&known, "vip/10.99.0.1"), [Some(2), Some(u32::MAX)]);
    }
}
