//! Prometheus metrics, built at each scrape from what is known then: what is declared no more
//! leaves no series behind.

use std::collections::HashMap;

use isopath_api::desired::AdminState;
use isopath_api::observed::Health;
use isopath_api::view::{Agreement, ClusterView, OperationState, State};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, GaugeVec, IntCounterVec, Opts, Registry, TextEncoder};

use crate::app::App;
use crate::control::state::World;
use crate::view;

/// Everything in the text format.
///
/// # Errors
/// When two series collide, which would be a mistake in this file.
pub fn text(app: &App) -> Result<String, prometheus::Error> {
    let world = app.world();
    let now = app.clock().now();
    let views = world
        .clusters
        .values()
        .map(|cluster| view::build(cluster, now, world.started))
        .collect();
    let up_s = now.since(world.started).as_secs_f64();
    let registry = Registry::new();
    registry.register(Box::new(Snapshot::new(&world, views, up_s)?))?;
    TextEncoder::new().encode_to_string(&registry.gather())
}

/// The metrics of one moment.
struct Snapshot {
    metrics: Vec<Box<dyn Collector>>,
}

impl Collector for Snapshot {
    fn desc(&self) -> Vec<&Desc> {
        self.metrics
            .iter()
            .flat_map(|metric| metric.desc())
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.metrics
            .iter()
            .flat_map(|metric| metric.collect())
            .collect()
    }
}

impl Snapshot {
    fn new(world: &World, views: Vec<ClusterView>, up_s: f64) -> Result<Self, prometheus::Error> {
        let mut snapshot = Self {
            metrics: Vec::new(),
        };
        snapshot.controller(world, up_s)?;
        snapshot.operations(world, &views)?;
        snapshot.directors(&views)?;
        snapshot.vips(&views)?;
        snapshot.placements(&views)?;
        snapshot.real_servers(&views)?;
        Ok(snapshot)
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GaugeVec, prometheus::Error> {
        let gauges = GaugeVec::new(Opts::new(name, help), labels)?;
        self.metrics.push(Box::new(gauges.clone()));
        Ok(gauges)
    }

    fn controller(&mut self, world: &World, up_s: f64) -> Result<(), prometheus::Error> {
        let help = "The version of isopathd; always 1.";
        let info = self.gauges("isopath_build_info", help, &["component", "version"])?;
        info.with_label_values(&["controller", env!("CARGO_PKG_VERSION")])
            .set(1.0);
        let help = "Seconds since the controller started.";
        let uptime = Gauge::new("isopath_controller_uptime_seconds", help)?;
        uptime.set(up_s);
        self.metrics.push(Box::new(uptime));
        let help = "The revision in force of each cluster (wanted state).";
        let revisions = self.gauges("isopath_controller_revision", help, &["cluster"])?;
        for cluster in world.clusters.values() {
            revisions
                .with_label_values(&[cluster.name.as_str()])
                .set(cluster.revision as f64);
        }
        let opts = Opts::new(
            "isopath_events_total",
            "Events since the controller started.",
        );
        let events = IntCounterVec::new(opts, &["severity"])?;
        for (severity, count) in &world.events_total {
            events.with_label_values(&[severity]).inc_by(*count);
        }
        self.metrics.push(Box::new(events));
        Ok(())
    }

    fn operations(
        &mut self,
        world: &World,
        views: &[ClusterView],
    ) -> Result<(), prometheus::Error> {
        let help = "Operations that have not ended.";
        let open = self.gauges("isopath_operations", help, &["cluster", "kind", "state"])?;
        for view in views {
            for kind in ["director.drain", "director.undrain"] {
                for state in [OperationState::Applying, OperationState::Settling] {
                    let count = view
                        .operations
                        .iter()
                        .filter(|operation| operation.kind == kind && operation.state == state)
                        .count();
                    let labels = [view.name.as_str(), kind, state.as_str()];
                    open.with_label_values(&labels).set(count as f64);
                }
            }
        }
        let opts = Opts::new(
            "isopath_operations_ended_total",
            "Operations that ended since the controller started.",
        );
        let ended = IntCounterVec::new(opts, &["kind", "state"])?;
        for ((kind, state), count) in &world.operations_ended {
            ended.with_label_values(&[kind, state]).inc_by(*count);
        }
        self.metrics.push(Box::new(ended));
        Ok(())
    }

    fn directors(&mut self, views: &[ClusterView]) -> Result<(), prometheus::Error> {
        let labels = ["cluster", "director"];
        let help = "Whether the director is in the state Up (actual state).";
        let up = self.gauges("isopath_director_up", help, &labels)?;
        let help = "Seconds since the director's last report; absent before the first.";
        let silence = self.gauges("isopath_director_report_age_seconds", help, &labels)?;
        let help = "The generation wanted of the director.";
        let wanted = self.gauges("isopath_director_generation_wanted", help, &labels)?;
        let help = "The generation that the director says is in force.";
        let acknowledged = self.gauges("isopath_director_generation", help, &labels)?;
        let help = "1 for what the operator wants of the director, 0 for the rest.";
        let labels = ["cluster", "director", "admin_state"];
        let admin = self.gauges("isopath_director_admin_state", help, &labels)?;
        for view in views {
            for director in &view.directors {
                let labels = [view.name.as_str(), director.name.as_str()];
                up.with_label_values(&labels)
                    .set(truth(director.state == State::Up));
                wanted
                    .with_label_values(&labels)
                    .set(director.generation as f64);
                if let Some(generation) = director.acknowledged_generation {
                    acknowledged
                        .with_label_values(&labels)
                        .set(generation as f64);
                }
                if let Some(at) = director.last_report {
                    let age = view.as_of.duration_since(at).as_secs_f64();
                    silence.with_label_values(&labels).set(age);
                }
                for state in [
                    AdminState::Active,
                    AdminState::Draining,
                    AdminState::Drained,
                ] {
                    let labels = [labels[0], labels[1], state.as_str()];
                    admin
                        .with_label_values(&labels)
                        .set(truth(director.admin_state == state));
                }
            }
        }
        Ok(())
    }

    fn vips(&mut self, views: &[ClusterView]) -> Result<(), prometheus::Error> {
        let labels = ["cluster", "vip"];
        let help = "Directors that announce the VIP by the freshest LSDB (actual state); \
                    absent when no LSDB is known.";
        let real = self.gauges("isopath_vip_announcers", help, &labels)?;
        let help = "Directors that should announce the VIP (wanted state).";
        let wanted = self.gauges("isopath_vip_announcers_wanted", help, &labels)?;
        let help = "Routers that announce the VIP and are no declared director (actual state).";
        let foreign = self.gauges("isopath_vip_announcers_foreign", help, &labels)?;
        let help = "Directors in service whose declared cost for the VIP is the lowest, over \
                    which switches spread it (wanted state).";
        let lowest = self.gauges("isopath_vip_ecmp_width_wanted", help, &labels)?;
        let labels = ["cluster", "vip", "switch"];
        let help = "Equal-cost next hops that the switch has to the VIP, calculated from the \
                    freshest LSDB (actual state); isopath_vip_ecmp_width_wanted is what the \
                    operator wants.";
        let width = self.gauges("isopath_vip_ecmp_width", help, &labels)?;
        for view in views {
            for vip in &view.vips {
                for seen in &vip.widths {
                    let labels = HashMap::from([
                        ("cluster", view.name.to_string()),
                        ("vip", vip.vip.to_string()),
                        ("switch", seen.switch.to_string()),
                    ]);
                    width.with(&labels).set(f64::from(seen.width));
                }
                let address = vip.vip.to_string();
                let labels = [view.name.as_str(), address.as_str()];
                wanted
                    .with_label_values(&labels)
                    .set(vip.wanted.len() as f64);
                lowest
                    .with_label_values(&labels)
                    .set(vip.lowest.len() as f64);
                if vip.state != State::Unknown {
                    real.with_label_values(&labels).set(vip.real.len() as f64);
                    foreign
                        .with_label_values(&labels)
                        .set(vip.foreign.len() as f64);
                }
            }
        }
        Ok(())
    }

    fn placements(&mut self, views: &[ClusterView]) -> Result<(), prometheus::Error> {
        let help = "Directors that would send clients of the service to other real servers than \
                    declared, by the digest of what their kernel has (actual state); those that a \
                    change is still being rolled out to do not count.";
        let labels = ["cluster", "service"];
        let mismatch = self.gauges("isopath_digest_mismatch", help, &labels)?;
        for view in views {
            for service in &view.services {
                let Some(placement) = &service.placement else {
                    continue;
                };
                let directors = placement.directors.iter();
                let differs = directors.filter(|of| of.agreement == Agreement::Differs);
                let labels = [view.name.as_str(), &service.service.to_string()];
                mismatch
                    .with_label_values(&labels)
                    .set(differs.count() as f64);
            }
        }
        Ok(())
    }

    fn real_servers(&mut self, views: &[ClusterView]) -> Result<(), prometheus::Error> {
        let labels = ["cluster", "director", "service", "real_server"];
        let help = "Whether the real server is healthy by the director's checks (actual \
                    state); absent while they have not decided.";
        let up = self.gauges("isopath_real_server_up", help, &labels)?;
        for view in views {
            for service in &view.services {
                let id = service.service.to_string();
                for server in &service.real_servers {
                    let address = server.real_server.to_string();
                    for seen in &server.seen {
                        let labels = HashMap::from([
                            ("cluster", view.name.as_str()),
                            ("director", seen.director.as_str()),
                            ("service", id.as_str()),
                            ("real_server", address.as_str()),
                        ]);
                        match seen.health {
                            Health::Unknown => {}
                            Health::Up => up.with(&labels).set(1.0),
                            Health::Down => up.with(&labels).set(0.0),
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

fn truth(value: bool) -> f64 {
    f64::from(u8::from(value))
}
