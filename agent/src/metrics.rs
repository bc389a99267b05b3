//! Prometheus metrics.
//!
//! Every scrape builds its series from one report, so what is gone (a real server, a VIP, a
//! neighbour) has no series any more instead of a frozen one. Each help text says whether the
//! value is desired or actual.

mod lateness;
mod server;

use std::collections::BTreeMap;

use isopath_api::ids::{BfdState, Packets, RealServerId, ServiceId, Vip};
use isopath_api::interface::{Authentication, Interface, Standing};
use isopath_api::observed::{Health, Observed, RealServerObserved, ServiceObserved, Stats};
use isopath_api::reason::Reason;
use isopath_api::speaker;
use prometheus::core::Collector;
use prometheus::{CounterVec, GaugeVec, IntCounterVec, Opts, Registry, TextEncoder};

use lateness::Histograms;
pub use server::MetricsServer;

/// Labels of a service, as node_exporter's IPVS collector has them.
const SERVICE: [&str; 4] = ["local_address", "local_port", "local_mark", "proto"];

/// Labels of a real server, as node_exporter's IPVS collector has them.
const REAL_SERVER: [&str; 6] = [
    "local_address",
    "local_port",
    "local_mark",
    "remote_address",
    "remote_port",
    "proto",
];

/// The page for one report.
///
/// # Errors
/// A name or label that Prometheus does not take.
pub fn page(observed: &Observed) -> prometheus::Result<String> {
    let page = Page {
        registry: Registry::new(),
    };
    page.agent(observed)?;
    page.vips(observed)?;
    if let Some(status) = &observed.speaker {
        page.speaker(status)?;
    }
    page.services(&observed.services)?;
    page.real_servers(&observed.services)?;
    TextEncoder::new().encode_to_string(&page.registry.gather())
}

struct Page {
    registry: Registry,
}

impl Page {
    fn register(&self, collector: impl Collector + 'static) -> prometheus::Result<()> {
        self.registry.register(Box::new(collector))
    }

    /// Adds a family of gauges, one series for each of `values`.
    fn gauges<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
        values: impl IntoIterator<Item = ([String; N], f64)>,
    ) -> prometheus::Result<()> {
        let family = GaugeVec::new(Opts::new(name, help), &labels)?;
        for (labels, value) in values {
            family.get_metric_with_label_values(&labels)?.set(value);
        }
        self.register(family)
    }

    /// Adds a family of counters, one series for each of `values`.
    fn counters<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
        values: impl IntoIterator<Item = ([String; N], u64)>,
    ) -> prometheus::Result<()> {
        let family = IntCounterVec::new(Opts::new(name, help), &labels)?;
        for (labels, value) in values {
            family.get_metric_with_label_values(&labels)?.inc_by(value);
        }
        self.register(family)
    }

    /// Adds a family of counters of seconds.
    fn seconds<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
        values: impl IntoIterator<Item = ([String; N], f64)>,
    ) -> prometheus::Result<()> {
        let family = CounterVec::new(Opts::new(name, help), &labels)?;
        for (labels, value) in values {
            family.get_metric_with_label_values(&labels)?.inc_by(value);
        }
        self.register(family)
    }

    fn gauge(&self, name: &str, help: &str, value: f64) -> prometheus::Result<()> {
        self.gauges(name, help, [], [([], value)])
    }

    fn counter(&self, name: &str, help: &str, value: u64) -> prometheus::Result<()> {
        self.counters(name, help, [], [([], value)])
    }

    fn agent(&self, observed: &Observed) -> prometheus::Result<()> {
        let help = "Actual: always 1; the label says the agent's version.";
        let version = [observed.version.clone()];
        self.gauges("isopath_build_info", help, ["version"], [(version, 1.0)])?;
        self.gauge(
            "isopath_desired_generation",
            "Desired: the generation of the desired state in force; 0 with a local file or before the first.",
            observed.generation as f64,
        )?;
        if let Some(controller) = &observed.controller {
            self.gauge(
                "isopath_controller_connected",
                "Actual: 1 while the stream of the desired state is open.",
                flag(controller.connected),
            )?;
        }
        self.gauge(
            "isopath_speaker_connected",
            "Actual: 1 while the agent reaches the speaker.",
            flag(observed.speaker.is_some()),
        )?;
        let dataplane = &observed.dataplane;
        self.counter(
            "isopath_dataplane_steps_total",
            "Actual: steps executed in the kernel since the agent started.",
            dataplane.steps,
        )?;
        self.counter(
            "isopath_dataplane_drift_repaired_total",
            "Actual: differences that something else had made in the kernel and that were repaired.",
            dataplane.drift_repaired,
        )?;
        let reconciles = dataplane.reconciles;
        let outcomes = [
            ("unchanged", reconciles.unchanged),
            ("changed", reconciles.changed),
        ];
        self.counters(
            "isopath_dataplane_reconciles_total",
            "Actual: comparisons of the kernel with what is wanted, by whether they changed it.",
            ["outcome"],
            outcomes.map(|(outcome, timed)| ([outcome.to_owned()], timed.count)),
        )?;
        self.seconds(
            "isopath_dataplane_reconcile_seconds_total",
            "Actual: the time that these comparisons and changes took.",
            ["outcome"],
            outcomes.map(|(outcome, timed)| ([outcome.to_owned()], timed.took_us as f64 / 1e6)),
        )?;
        self.gauge(
            "isopath_dataplane_failures",
            "Actual: steps of the last plan that failed.",
            dataplane.failures.len() as f64,
        )?;
        let mut conditions: BTreeMap<&str, u32> = BTreeMap::new();
        for condition in &dataplane.conditions {
            *conditions.entry(&condition.code).or_default() += 1;
        }
        let conditions = conditions.into_iter();
        self.gauges(
            "isopath_conditions",
            "Actual: what is not as it should be and withdraws nothing, by its code; no series where all is well.",
            ["code"],
            conditions.map(|(code, count)| ([code.to_owned()], f64::from(count))),
        )
    }

    fn vips(&self, observed: &Observed) -> prometheus::Result<()> {
        let wanted = observed.vips.iter().map(|vip| {
            let labels = [vip.vip.to_string(), vip.reason.code().to_owned()];
            (labels, flag(vip.cost.is_some()))
        });
        self.gauges(
            "isopath_vip_announce_wanted",
            "Desired: 1 where this director wants the VIP announced, 0 where it wants it withdrawn; the label says why.",
            ["vip", "reason"],
            wanted,
        )?;
        let Some(status) = &observed.speaker else {
            return Ok(());
        };
        let held_down = observed.vips.iter().map(|vip| {
            let is_held = matches!(vip.reason, Reason::HeldDown { .. });
            ([vip.vip.to_string()], flag(is_held))
        });
        self.gauges(
            "isopath_vip_held_down",
            "Actual: 1 while the speaker holds the VIP withdrawn because it came and went too often.",
            ["vip"],
            held_down,
        )?;
        let in_lsdb = observed.vips.iter().map(|vip| {
            let of_vip = status
                .announced
                .iter()
                .find(|announced| announced.vip == vip.vip);
            let there = of_vip.is_some_and(|announced| announced.in_lsdb);
            ([vip.vip.to_string()], flag(there))
        });
        self.gauges(
            "isopath_vip_in_lsdb",
            "Actual: 1 where an LSA of this director's in its link-state database carries the VIP.",
            ["vip"],
            in_lsdb,
        )
    }

    fn speaker(&self, status: &speaker::Status) -> prometheus::Result<()> {
        let labels = |neighbor: &speaker::Neighbor| {
            [neighbor.interface.clone(), neighbor.router_id.to_string()]
        };
        let neighbors = &status.neighbors;
        self.gauges(
            "isopath_ospf_neighbor_state",
            "Actual: the neighbour's state as RFC 2328 orders them: 1 Down, 2 Attempt, 3 Init, 4 2-Way, 5 ExStart, 6 Exchange, 7 Loading, 8 Full.",
            ["interface", "router_id"],
            neighbors.iter().map(|neighbor| (labels(neighbor), f64::from(neighbor.state as u8))),
        )?;
        let sessions = neighbors.iter().filter_map(|neighbor| {
            let state = neighbor.bfd?;
            Some((labels(neighbor), flag(state == BfdState::Up)))
        });
        self.gauges(
            "isopath_bfd_up",
            "Actual: 1 while the BFD session with the neighbour is Up.",
            ["interface", "router_id"],
            sessions,
        )?;
        self.authentication(&status.interfaces)?;
        let widths = status.widths.iter().flat_map(|width| {
            let router = width.router_id.to_string();
            let series =
                move |vip: &Vip| ([router.clone(), vip.to_string()], f64::from(width.width));
            width.vips.iter().map(series)
        });
        self.gauges(
            "isopath_ospf_ecmp_width",
            "Actual: how many equal-cost next hops the switch has to the VIP, calculated from this director's link-state database; more than the switch's own limit means that it uses only so many.",
            ["router", "vip"],
            widths,
        )?;
        if !status.lateness.is_empty() {
            self.register(Histograms::new(&status.lateness)?)?;
        }
        for (name, value) in &status.counters {
            self.speaker_counter(name, *value)?;
        }
        Ok(())
    }

    fn authentication(&self, interfaces: &[Interface]) -> prometheus::Result<()> {
        let keys = interfaces.iter().filter_map(|interface| {
            let Authentication::Cryptographic {
                key_id, standing, ..
            } = &interface.auth
            else {
                return None;
            };
            let labels = [interface.name.clone(), key_id.to_string()];
            Some((labels, flag(*standing == Standing::Valid)))
        });
        self.gauges(
            "isopath_ospf_auth_key_valid",
            "Actual: 1 while the key that packets are sent with is within its lifetime, 0 where it stays in use because no other is.",
            ["interface", "key_id"],
            keys,
        )?;
        let refused = interfaces.iter().map(|interface| {
            let count = interface
                .refused
                .as_ref()
                .map_or(0, |refused| refused.count);
            ([interface.name.clone()], count)
        });
        self.counters(
            "isopath_ospf_auth_refused_total",
            "Actual: packets refused for their authentication since the speaker started.",
            ["interface"],
            refused,
        )
    }

    /// A count of the speaker; one of its largest times is no counter for Prometheus.
    fn speaker_counter(&self, name: &str, value: u64) -> prometheus::Result<()> {
        if let Some(base) = name.strip_suffix("_max_us") {
            let name = format!("isopath_speaker_{}_max_seconds", metric_name(base));
            let help = "Actual: the largest such time since the speaker started.";
            return self.gauge(&name, help, value as f64 / 1e6);
        }
        let name = format!("isopath_speaker_{}_total", metric_name(name));
        let help = "Actual: counted by the speaker since its start.";
        self.counter(&name, help, value)
    }

    fn services(&self, services: &[ServiceObserved]) -> prometheus::Result<()> {
        type Value = fn(&Stats) -> u64;
        let families: [(&str, &str, Value); 5] = [
            ("connections", "connections scheduled", |s| s.connections),
            ("incoming_packets", "packets from clients", |s| s.in_packets),
            ("outgoing_packets", "packets to clients (NAT only)", |s| {
                s.out_packets
            }),
            ("incoming_bytes", "bytes from clients", |s| s.in_bytes),
            ("outgoing_bytes", "bytes to clients (NAT only)", |s| {
                s.out_bytes
            }),
        ];
        for (name, what, value) in families {
            let values = services.iter().filter_map(|service| {
                let stats = service.stats.as_ref()?;
                Some((service_labels(service.service), value(stats)))
            });
            self.counters(
                &format!("isopath_ipvs_{name}_total"),
                &format!("Actual: {what}, by the kernel's count for the service."),
                SERVICE,
                values,
            )?;
        }
        Ok(())
    }

    fn real_servers(&self, services: &[ServiceObserved]) -> prometheus::Result<()> {
        type Value = fn(&RealServerObserved) -> Option<f64>;
        let families: [(&str, &str, Value); 6] = [
            (
                "isopath_real_server_up",
                "Actual: 1 where this director's checks found the real server healthy, 0 where not; no series before they have decided.",
                |server| match server.health {
                    Health::Unknown => None,
                    Health::Up => Some(1.0),
                    Health::Down => Some(0.0),
                },
            ),
            (
                "isopath_real_server_weight",
                "Desired: the declared weight.",
                |server| Some(f64::from(server.weight)),
            ),
            (
                "isopath_real_server_weight_effective",
                "Actual: the weight in the kernel.",
                |server| server.effective_weight.map(f64::from),
            ),
            (
                "isopath_real_server_active_connections",
                "Actual: connections that the kernel counts as active.",
                |server| server.stats.map(|_| f64::from(server.active)),
            ),
            (
                "isopath_real_server_inactive_connections",
                "Actual: connections that the kernel counts as inactive.",
                |server| server.stats.map(|_| f64::from(server.inactive)),
            ),
            (
                "isopath_check_duration_seconds",
                "Actual: how long the last check took.",
                |server| Some(server.last_check.as_ref()?.took_ms as f64 / 1000.0),
            ),
        ];
        let each = || {
            let of = |service: &'_ ServiceObserved| service.service;
            services
                .iter()
                .flat_map(move |s| s.real_servers.iter().map(move |server| (of(s), server)))
        };
        for (name, help, value) in families {
            let values = each().filter_map(|(service, server)| {
                Some((
                    real_server_labels(service, server.real_server),
                    value(server)?,
                ))
            });
            self.gauges(name, help, REAL_SERVER, values)?;
        }
        let connections = each().filter_map(|(service, server)| {
            let labels = real_server_labels(service, server.real_server);
            Some((labels, server.stats?.connections))
        });
        self.counters(
            "isopath_real_server_connections_total",
            "Actual: connections scheduled to the real server, by the kernel's count.",
            REAL_SERVER,
            connections,
        )
    }
}

/// A counter's name with everything replaced that a metric's name may not have.
fn metric_name(counter: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    counter.chars().map(allowed).collect()
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

/// node_exporter's labels of a service, which are the kernel's words in `/proc/net/ip_vs`: a
/// mark's service has no address, port 0, protocol FWM, and its mark in eight hexadecimal digits.
/// No two services have one mark.
fn service_labels(service: ServiceId) -> [String; 4] {
    let (address, port, mark, proto) = match service.packets {
        Packets::To { protocol, port } => {
            let address = service.vip.to_string();
            (address, port, String::new(), protocol.to_string())
        }
        Packets::Marked(mark) => (String::new(), 0, format!("{mark:08X}"), "fwm".to_owned()),
    };
    [address, port.to_string(), mark, proto.to_uppercase()]
}

fn real_server_labels(service: ServiceId, server: RealServerId) -> [String; 6] {
    let [local, port, mark, proto] = service_labels(service);
    let (address, own_port) = (server.0.ip().to_string(), server.0.port().to_string());
    [local, port, mark, address, own_port, proto]
}

#[cfg(test)]
mod tests;
