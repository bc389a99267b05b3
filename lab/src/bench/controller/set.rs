//! The clusters that are declared, and what a director of one reports.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use isopath_api::config::Dataplane;
use isopath_api::declare::{AnnounceAs, Declaration, ServiceSpec, VipSpec};
use isopath_api::desired::{AdminState, Desired};
use isopath_api::ids::{AreaId, BfdState, NeighborState, RouterId, Vip};
use isopath_api::interface::{Authentication, Interface};
use isopath_api::observed::{
    CheckResult, ControllerObserved, DataplaneObserved, Health, Observed, RealServerObserved,
    Reconciles, ServiceObserved, Stats, Timed, VipObserved,
};
use isopath_api::paths::{Lateness, PathCost, Width};
use isopath_api::reason::Reason;
use isopath_api::speaker::{Announced, Neighbor, Owner, Source, Status, Withheld};
use jiff::Timestamp;
use serde_json::json;

use super::template::{AT, GENERATION, SEQUENCE, counter};

/// The most directors of a cluster, as many as are declared of each.
pub(super) const DIRECTORS: u8 = 8;

/// What a cluster is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// How many services.
    pub(super) services: u16,
    /// How many real servers each of them has.
    pub(super) real_servers: u8,
}

impl Shape {
    /// One of many clusters: 20 real servers.
    pub(super) const USUAL: Self = Self {
        services: 2,
        real_servers: 10,
    };

    /// The large one: 2,000 real servers.
    pub(super) const LARGE: Self = Self {
        services: 100,
        real_servers: 20,
    };

    /// How many services have a VIP in common.
    const PER_VIP: u16 = 10;

    /// What is declared of the cluster with this number. `weight` is that of the first real
    /// server of the first service: a declaration with another one is another revision.
    pub(super) fn declaration(self, cluster: u16, weight: u16) -> Result<Declaration> {
        let vips = self.services.div_ceil(Self::PER_VIP);
        let directors = (1..=DIRECTORS)
            .map(|n| json!({ "name": format!("d{n}"), "router_id": router_id(cluster, n) }));
        let services = (0..self.services).map(|service| {
            let servers = (1..=self.real_servers).map(|server| {
                let own = if (service, server) == (0, 1) {
                    weight
                } else {
                    1
                };
                json!({ "address": address(150, cluster, server), "weight": own })
            });
            json!({
                "vip": vip(cluster, service / Self::PER_VIP),
                "protocol": "tcp",
                "port": 80 + service % Self::PER_VIP,
                "scheduler": "mh",
                "check": { "type": "http", "path": "/healthz", "status": "200-399" },
                "real_server": servers.collect::<Vec<_>>(),
            })
        });
        serde_json::from_value(json!({
            "director": directors.collect::<Vec<_>>(),
            "switch": switches(cluster).map(|(name, id)| json!({ "name": name, "router_id": id })),
            "vip": (0..vips).map(|n| json!({ "address": vip(cluster, n) })).collect::<Vec<_>>(),
            "service": services.collect::<Vec<_>>(),
        }))
        .context("the benchmark's own declaration is none")
    }
}

/// The name of a cluster.
pub(super) fn cluster_name(cluster: u16) -> String {
    format!("c{cluster:03}")
}

/// An address of which no two clusters have the same.
fn address(network: u8, cluster: u16, host: u8) -> Ipv4Addr {
    let [high, low] = cluster.to_be_bytes();
    Ipv4Addr::new(10, network + high, low, host)
}

/// The router id of a director.
pub(super) fn router_id(cluster: u16, n: u8) -> RouterId {
    RouterId(address(10, cluster, n))
}

fn vip(cluster: u16, n: u16) -> Vip {
    let [_, low] = (n + 1).to_be_bytes();
    Vip(address(100, cluster, low))
}

fn switches(cluster: u16) -> [(&'static str, RouterId); 2] {
    [
        ("sw1", RouterId(address(10, cluster, 251))),
        ("sw2", RouterId(address(10, cluster, 252))),
    ]
}

/// What the director `d<n>` of a cluster reports once it has a desired state: all is well, and
/// the directors of `announcing` (a bit each, that of `d1` the lowest) announce. What changes with
/// every report has the marks of [`super::template`] in it.
pub(super) fn observed(cluster: u16, n: u8, desired: &Desired, announcing: u8) -> Result<Observed> {
    let since = Timestamp::now();
    let text = || desired.admin_reason.clone();
    let reason = || match desired.admin_state {
        AdminState::Active => Reason::Healthy,
        AdminState::Draining => Reason::Draining { text: text() },
        AdminState::Drained => Reason::Drained { text: text() },
    };
    let vips = desired.vip.iter().map(|vip| VipObserved {
        vip: vip.address,
        cost: cost(desired, vip),
        reason: reason(),
        since,
    });
    let services = desired.service.iter().map(|spec| ServiceObserved {
        service: spec.id(),
        real_servers: real_servers(spec, since),
        leaving: Vec::new(),
        stats: Some(stats(1_000)),
        digest: desired.digests.get(&spec.id()).cloned(),
    });
    Ok(Observed {
        director: desired.director.clone(),
        router_id: desired.router_id,
        instance: instance(cluster, n),
        run: format!("run-of-{}", instance(cluster, n)),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        at: AT.parse().context("the mark of the time is none")?,
        sequence: SEQUENCE,
        epoch: Some(desired.epoch.clone()),
        generation: GENERATION,
        speaker: Some(speaker(cluster, n, desired, announcing)),
        vips: vips.collect(),
        services: services.collect(),
        dataplane: DataplaneObserved {
            kind: Dataplane::Ipvs,
            steps: 42,
            drift_repaired: 0,
            reconciles: Reconciles {
                unchanged: Timed {
                    count: counter(1),
                    took_us: counter(900),
                },
                changed: Timed {
                    count: 3,
                    took_us: 4_200,
                },
            },
            failures: Vec::new(),
            conditions: Vec::new(),
        },
        controller: Some(ControllerObserved {
            url: "https://controller.example:8443".to_owned(),
            connected: true,
            since,
            problem: None,
        }),
    })
}

/// What a VIP is announced at; nothing when it is withdrawn.
fn cost(desired: &Desired, vip: &VipSpec) -> Option<u16> {
    match desired.admin_state {
        AdminState::Active => Some(vip.announce.cost),
        AdminState::Draining => Some(u16::MAX),
        AdminState::Drained => None,
    }
}

/// The agent's instance.
pub(super) fn instance(cluster: u16, n: u8) -> String {
    format!("5e55a0a4-0000-4000-8{cluster:03}-0000000000{n:02}")
}

fn real_servers(spec: &ServiceSpec, since: Timestamp) -> Vec<RealServerObserved> {
    let mut servers: Vec<_> = spec.real_server.iter().collect();
    servers.sort_by_key(|server| spec.real_server_id(server));
    let servers = servers.into_iter().map(|server| RealServerObserved {
        real_server: spec.real_server_id(server),
        health: Health::Up,
        since,
        last_check: Some(CheckResult {
            ok: true,
            detail: "HTTP 200".to_owned(),
            took_ms: 2,
            in_a_row: 4_711,
            at: AT.parse().unwrap_or(since),
        }),
        weight: server.weight,
        effective_weight: Some(u32::from(server.weight)),
        active: 312,
        inactive: 57,
        stats: Some(stats(50)),
    });
    servers.collect()
}

/// Counters that rise with each report, by `step` connections.
fn stats(step: u16) -> Stats {
    Stats {
        connections: counter(step),
        in_packets: counter(step.saturating_mul(12)),
        out_packets: 0,
        in_bytes: counter(step.saturating_mul(60)),
        out_bytes: 0,
        connections_per_second: u64::from(step),
        in_packets_per_second: u64::from(step) * 12,
    }
}

fn speaker(cluster: u16, n: u8, desired: &Desired, announcing: u8) -> Status {
    let announcers = (1..=DIRECTORS).filter(|n| announcing & (1 << (n - 1)) != 0);
    let announcers: Vec<RouterId> = announcers.map(|n| router_id(cluster, n)).collect();
    let vips: Vec<Vip> = desired.vip.iter().map(|vip| vip.address).collect();
    let announced = desired.vip.iter().filter_map(|vip| {
        Some(Announced {
            vip: vip.address,
            cost: cost(desired, vip)?,
            kind: AnnounceAs::Stub,
            source: Source::Agent,
            in_lsdb: true,
            acknowledged: true,
        })
    });
    let withdrawn = desired.admin_state == AdminState::Drained;
    let withheld = vips.iter().filter(|_| withdrawn).map(|vip| Withheld {
        vip: *vip,
        reason: Reason::Drained {
            text: desired.admin_reason.clone(),
        },
    });
    let widths = switches(cluster).map(|(_, router_id)| Width {
        router_id,
        vips: vips.clone(),
        width: u32::from(announcing.count_ones() as u16),
        through: announcers.clone(),
        cost: (!announcers.is_empty()).then_some(PathCost::IntraArea { cost: 11 }),
    });
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: 812,
        origin_pid: 812,
        router_id: desired.router_id,
        area: AreaId(Ipv4Addr::UNSPECIFIED),
        up_ms: counter(1_000),
        neighbors: neighbors(cluster, n),
        announced: announced.collect(),
        withheld: withheld.collect(),
        owner: Owner::Connected {
            pid: 813,
            silent_ms: 140,
        },
        announcers: vips.iter().map(|vip| (*vip, announcers.clone())).collect(),
        widths: widths.into(),
        lateness: ["hello", "bfd"]
            .map(|kind| (kind.to_owned(), lateness()))
            .into(),
        interfaces: interfaces(n),
        counters: counters(),
    }
}

fn neighbors(cluster: u16, n: u8) -> Vec<Neighbor> {
    let neighbor = |(interface, (_, router_id)): (&str, (&str, RouterId))| Neighbor {
        interface: interface.to_owned(),
        router_id,
        address: Ipv4Addr::new(10, 0, n, 1),
        state: NeighborState::Full,
        priority: 1,
        state_ms: counter(1_000),
        dead_ms: 3_412,
        bfd: Some(BfdState::Up),
        auth_key: Some(1),
    };
    let switches = ["eth1", "eth2"].into_iter().zip(switches(cluster));
    switches.map(neighbor).collect()
}

fn interfaces(n: u8) -> Vec<Interface> {
    let interface = |name: &str| Interface {
        name: name.to_owned(),
        address: Some(Ipv4Addr::new(10, 0, n, 2)),
        unnumbered: false,
        auth: Authentication::None,
        refused: None,
    };
    ["eth1", "eth2"].map(interface).into()
}

fn lateness() -> Lateness {
    Lateness {
        packets: [counter(1), 12, 0, 0, 0, 0],
        sum_us: counter(110),
        max_us: 2_014,
    }
}

/// As many as a speaker counts.
fn counters() -> BTreeMap<String, u64> {
    let names = [
        "rx_hello",
        "rx_database_description",
        "rx_link_state_request",
        "rx_link_state_update",
        "rx_link_state_acknowledgment",
        "tx_hello",
        "tx_database_description",
        "tx_link_state_request",
        "tx_link_state_update",
        "tx_link_state_acknowledgment",
        "rx_bfd",
        "tx_bfd",
        "retransmissions",
        "originations",
        "spf_runs",
        "neighbor_changes",
    ];
    let counted = names.iter().map(|name| ((*name).to_owned(), counter(2)));
    counted.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_are_valid_declarations_of_their_size() {
        for (shape, count) in [(Shape::USUAL, 20), (Shape::LARGE, 2_000)] {
            let declaration = shape.declaration(124, 7).unwrap();
            assert_eq!(declaration.validate(), Vec::new());
            let servers = declaration.service.iter().map(|it| it.real_server.len());
            assert_eq!(servers.sum::<usize>(), count);
            assert_ne!(declaration, shape.declaration(124, 8).unwrap());
        }
    }
}
