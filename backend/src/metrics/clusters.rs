//! The series of the clusters, computed from what is declared and reported.

use std::collections::BTreeMap;

use isopath_api::desired::AdminState;
use isopath_api::ids::{DirectorName, RealServerId, ServiceId};
use isopath_api::observed::{Health, Observed};
use isopath_api::operation::{OperationState, StepState};
use isopath_api::view::State;
use jiff::Timestamp;

use super::families::Families;
use super::truth;
use crate::clock::Moment;
use crate::control::fleet::Fleet;
use crate::control::operation::Operation;
use crate::control::state::{ClusterState, DirectorState, World};
use crate::ecmp::{self, SwitchTruth, VipTruth};
use crate::store::tokens::Clusters;
use crate::view;

/// All clusters at one moment.
pub(super) struct ClusterMetrics<'a> {
    now: Moment,
    started: Moment,
    clusters: Vec<Cluster<'a>>,
    fleet: &'a Fleet,
}

struct Cluster<'a> {
    name: &'a str,
    state: &'a ClusterState,
    vips: Vec<VipTruth>,
}

/// The counter of a speaker that says how often a neighbour came to or left the state Full.
const ADJACENCY_CHANGES: &str = "adjacency_changes";

impl<'a> ClusterMetrics<'a> {
    pub(super) fn new(world: &'a World, now: Moment, shown: &Clusters) -> Self {
        let started = world.started;
        let cluster = |state: &'a ClusterState| Cluster {
            name: state.name.as_str(),
            state,
            vips: ecmp::truth(state, now, started),
        };
        let clusters = world.clusters.values();
        let clusters = clusters.filter(|state| shown.contains(&state.name));
        Self {
            now,
            started,
            clusters: clusters.map(|state| cluster(state)).collect(),
            fleet: &world.fleet,
        }
    }

    pub(super) fn write(&self, families: &mut Families) {
        self.clusters(families);
        self.directors(families);
        self.reports(families);
        self.refusals(families);
        self.certificates(families);
        self.operations(families);
        self.vips(families);
        self.widths(families);
        self.placements(families);
        self.real_servers(families);
    }

    fn clusters(&self, families: &mut Families) {
        let revisions = self.clusters.iter();
        families.gauges(
            "isopath_controller_revision",
            "Desired: the revision in force of each cluster.",
            ["cluster"],
            revisions.map(|of| ([of.name], of.state.revision as f64)),
        );
        let conditions = self.clusters.iter().flat_map(|of| {
            ecmp::raised(&of.state.conditions).map(|(key, _)| {
                let labels = [of.name.to_owned(), key.to_string(), key.code.to_string()];
                (labels, 1.0)
            })
        });
        families.gauges(
            "isopath_condition",
            "Actual: 1 while what is wanted, said and real of a VIP differ for longer than a \
             network takes to converge, by the kind of difference; no series otherwise.",
            ["cluster", "object", "code"],
            conditions,
        );
    }

    /// Every director with its labels.
    fn each(&self) -> impl Iterator<Item = ([&'a str; 2], &'a DirectorState, &Cluster<'a>)> {
        self.clusters.iter().flat_map(|of| {
            let directors = of.state.directors.iter();
            directors.map(move |(name, director)| ([of.name, name.as_str()], director, of))
        })
    }

    fn directors(&self, families: &mut Families) {
        let labels = ["cluster", "director"];
        let states = self.clusters.iter().flat_map(|of| {
            let states = view::director_states(of.state, self.now, self.started);
            let up = |(name, state): (DirectorName, State)| {
                let labels = [of.name.to_owned(), name.to_string()];
                (labels, truth(state == State::Up))
            };
            states.into_iter().map(up)
        });
        let help = "Actual: 1 while the director is in the state Up.";
        families.gauges("isopath_director_up", help, labels, states);
        let heard = self.clusters.iter().flat_map(|of| {
            let when = (self.now, self.started);
            let heard = ecmp::heard(of.state, when).into_iter();
            heard.map(|(name, heard)| ([of.name.to_owned(), name.to_string()], truth(heard)))
        });
        families.gauges(
            "isopath_director_heard",
            "Actual: 1 while another director's link-state database has the director announce a \
             VIP; no series while there is no other to tell.",
            labels,
            heard,
        );
        let admin = self.each().flat_map(|([cluster, name], director, _)| {
            let all = [
                AdminState::Active,
                AdminState::Draining,
                AdminState::Drained,
            ];
            all.map(|state| {
                let is_it = director.admin_state == state;
                ([cluster, name, state.as_str()], truth(is_it))
            })
        });
        families.gauges(
            "isopath_director_admin_state",
            "Desired: 1 for what the operator wants of the director, 0 for the rest.",
            ["cluster", "director", "admin_state"],
            admin,
        );
        let wanted = self.each();
        families.gauges(
            "isopath_director_generation_wanted",
            "Desired: the generation wanted of the director.",
            labels,
            wanted.map(|(labels, director, _)| (labels, director.generation as f64)),
        );
        let acknowledged = self.each().filter_map(|(labels, director, of)| {
            let generation = director.acknowledged(&of.state.epoch)?;
            Some((labels, generation as f64))
        });
        families.gauges(
            "isopath_director_generation",
            "Actual: the generation that the director says is in force.",
            labels,
            acknowledged,
        );
    }

    /// What was refused of the directors' agents.
    fn refusals(&self, families: &mut Families) {
        let total = self.each().map(|(labels, director, _)| {
            let counts = director.refused.values();
            (labels, counts.map(|refused| refused.count).sum())
        });
        families.counters(
            "isopath_director_reports_refused_total",
            "Actual: reports and streams for the director that were refused since the controller \
             started.",
            ["cluster", "director"],
            total,
        );
        let causes = self.each().flat_map(|([cluster, name], director, _)| {
            let refused = director.refused.iter();
            refused.map(move |(cause, of)| ([cluster, name, cause.as_str()], of.count))
        });
        families.counters(
            "isopath_reports_refused_total",
            "Actual: reports and streams for the director that were refused since the controller \
             started, by cause; no series for what never happened.",
            ["cluster", "director", "cause"],
            causes,
        );
    }

    /// Until when the agents that enrolled may speak.
    fn certificates(&self, families: &mut Families) {
        let agents = self.fleet.agents.values().map(|agent| &agent.row);
        let agents = agents.filter(|row| row.revoked.is_none());
        let mut latest: BTreeMap<[String; 2], f64> = BTreeMap::new();
        for row in agents {
            let is_shown = |of: &Cluster<'_>| {
                let state = of.state;
                state.name == row.cluster && state.directors.contains_key(&row.director)
            };
            if self.clusters.iter().any(is_shown) {
                let labels = [row.cluster.to_string(), row.director.to_string()];
                let expires = latest.entry(labels).or_default();
                *expires = expires.max(row.expires.as_second() as f64);
            }
        }
        families.gauges(
            "isopath_agent_certificate_not_after_timestamp_seconds",
            "Actual: when the certificate that the director's agent was given last expires; no \
             series for one that has not enrolled.",
            ["cluster", "director"],
            latest,
        );
    }

    /// What the last reports say.
    fn reports(&self, families: &mut Families) {
        let labels = ["cluster", "director"];
        let fresh = self.each().map(|(labels, director, _)| {
            let is_fresh = director.fresh(self.now).is_some();
            (labels, truth(is_fresh))
        });
        let help = "Actual: 1 while the director's agent reports, 0 after 5 s without a report.";
        families.gauges("isopath_agent_up", help, labels, fresh);
        let ever = self.each().map(|(labels, director, _)| {
            let has_reported = director.instance.is_some();
            (labels, truth(has_reported))
        });
        families.gauges(
            "isopath_agent_reported",
            "Actual: 1 since the director's agent has reported for the first time, be it before \
             the controller started; 0 until then.",
            labels,
            ever,
        );
        let ages = self.each().filter_map(|(labels, director, _)| {
            let report = director.report.as_ref()?;
            Some((labels, self.now.since(report.received).as_secs_f64()))
        });
        families.gauges(
            "isopath_agent_report_age_seconds",
            "Actual: seconds since the agent's last report; no series before the first.",
            labels,
            ages,
        );
        let skews = self.each().filter_map(|(labels, director, _)| {
            let report = director.report.as_ref()?;
            let skew = report.observed.at.duration_since(report.received.wall);
            Some((labels, skew.as_secs_f64()))
        });
        families.gauges(
            "isopath_agent_clock_skew_seconds",
            "Actual: how far the director's clock was ahead of the controller's when its last \
             report came, the way of that report included.",
            labels,
            skews,
        );
        let observed = || {
            self.each().filter_map(|(labels, director, _)| {
                let report = director.report.as_ref()?;
                Some((labels, &*report.observed))
            })
        };
        let versions = observed().map(|([cluster, director], observed)| {
            ([cluster, director, observed.version.as_str()], 1.0)
        });
        families.gauges(
            "isopath_agent_info",
            "Actual: always 1; the label says the version of the director's agent.",
            ["cluster", "director", "version"],
            versions,
        );
        let drift = observed().map(|(labels, it)| (labels, it.dataplane.drift_repaired));
        families.counters(
            "isopath_director_drift_repaired_total",
            "Actual: differences that something else had made in the director's kernel and that \
             its agent repaired since it started.",
            labels,
            drift,
        );
        let changes = observed().filter_map(|(labels, observed)| {
            let counters = &observed.speaker.as_ref()?.counters;
            let changes = counters.get(ADJACENCY_CHANGES)?;
            Some((labels, *changes))
        });
        families.counters(
            "isopath_director_adjacency_changes_total",
            "Actual: how often an OSPF neighbour of the director came to or left the state Full \
             since its speaker started.",
            labels,
            changes,
        );
    }

    fn operations(&self, families: &mut Families) {
        let each = || {
            self.clusters.iter().flat_map(|of| {
                let operations = of.state.operations.iter();
                operations.map(|operation| (of.name, operation))
            })
        };
        // Real servers of one name in several services may each have an operation: the largest
        // counts, and 0 at least.
        let most = |value: &dyn Fn(&Operation) -> f64| {
            let mut values: BTreeMap<[String; 3], f64> = BTreeMap::new();
            for (cluster, operation) in each() {
                let (kind, target) = (
                    operation.kind_str().to_owned(),
                    operation.target.to_string(),
                );
                let most = values
                    .entry([cluster.to_owned(), kind, target])
                    .or_default();
                *most = most.max(value(operation));
            }
            values
        };
        let since = |moment: Timestamp| self.now.wall.duration_since(moment).as_secs_f64();
        let mut open: BTreeMap<[String; 3], f64> = BTreeMap::new();
        for (cluster, operation) in each() {
            let state = operation.state.as_str().to_owned();
            let kind = operation.kind_str().to_owned();
            let labels = [cluster.to_owned(), kind, state];
            *open.entry(labels).or_default() += 1.0;
        }
        families.gauges(
            "isopath_operations",
            "Actual: operations that have not ended, by kind and state.",
            ["cluster", "kind", "state"],
            open,
        );
        let labels = ["cluster", "kind", "target"];
        families.gauges(
            "isopath_operation_age_seconds",
            "Actual: seconds since an operation that has not ended was asked for, by what it \
             changes.",
            labels,
            most(&|operation| since(operation.started_at)),
        );
        families.gauges(
            "isopath_operation_overdue_seconds",
            "Actual: seconds since the deadline of an operation that has not ended, or since its \
             cancellation; 0 before.",
            labels,
            most(&|operation| since(due(operation))),
        );
    }

    fn each_vip(&self) -> impl Iterator<Item = ([String; 2], &VipTruth, &Cluster<'a>)> {
        self.clusters.iter().flat_map(|of| {
            let labels = |truth: &VipTruth| [of.name.to_owned(), truth.vip.to_string()];
            of.vips.iter().map(move |truth| (labels(truth), truth, of))
        })
    }

    fn vips(&self, families: &mut Families) {
        let labels = ["cluster", "vip"];
        families.gauges(
            "isopath_vip_announcers_wanted",
            "Desired: directors that should announce the VIP.",
            labels,
            self.each_vip()
                .map(|(labels, truth, _)| (labels, truth.wanted().count() as f64)),
        );
        families.gauges(
            "isopath_vip_announcers_said",
            "Actual: directors that say they announce the VIP.",
            labels,
            self.each_vip()
                .map(|(labels, truth, _)| (labels, truth.said.len() as f64)),
        );
        let known = || self.each_vip().filter(|(_, truth, _)| truth.is_known());
        families.gauges(
            "isopath_vip_announcers",
            "Actual: directors that announce the VIP by most directors' link-state databases; no \
             series while none can be counted.",
            labels,
            known().map(|(labels, truth, of)| (labels, directors(of.state, truth))),
        );
        families.gauges(
            "isopath_vip_announcers_foreign",
            "Actual: routers that announce the VIP and are no declared director; no series while \
             no database can be counted.",
            labels,
            known().map(|(labels, truth, of)| {
                let all = truth.announcers.len() as f64;
                (labels, all - directors(of.state, truth))
            }),
        );
        families.gauges(
            "isopath_vip_witnesses",
            "Actual: directors whose link-state database says who announces the VIP.",
            labels,
            self.each_vip()
                .map(|(labels, truth, _)| (labels, truth.witnesses.len() as f64)),
        );
    }

    fn widths(&self, families: &mut Families) {
        families.gauges(
            "isopath_vip_ecmp_width_wanted",
            "Desired: directors in service whose declared cost for the VIP is the lowest, over \
             which switches are to spread it.",
            ["cluster", "vip"],
            self.each_vip()
                .map(|(labels, truth, _)| (labels, truth.lowest.len() as f64)),
        );
        let switches = || {
            self.each_vip().flat_map(|([cluster, vip], truth, of)| {
                truth.switches.iter().map(move |switch: &SwitchTruth| {
                    let labels = [cluster.clone(), vip.clone(), switch.switch.to_string()];
                    (labels, truth, switch, of)
                })
            })
        };
        let labels = ["cluster", "vip", "switch"];
        families.gauges(
            "isopath_vip_ecmp_width",
            "Actual: equal-cost next hops that the switch has to the VIP, by most directors' \
             link-state databases.",
            labels,
            switches().map(|(labels, _, switch, _)| (labels, f64::from(switch.equal.width))),
        );
        let announced = switches().map(|(labels, truth, switch, of)| {
            let meant = ecmp::meant(of.state, truth, switch, self.now);
            (labels, meant as f64)
        });
        families.gauges(
            "isopath_vip_ecmp_width_announced",
            "Actual: directors that announce the VIP at the lowest cost wanted and are to be \
             neighbours of the switch: isopath_vip_ecmp_width should be no less.",
            labels,
            announced,
        );
    }

    fn placements(&self, families: &mut Families) {
        let mut mismatches: BTreeMap<[String; 2], f64> = BTreeMap::new();
        for of in &self.clusters {
            for (service, differing) in view::mismatches(of.state, self.now) {
                let labels = [of.name.to_owned(), service.to_string()];
                mismatches.insert(labels, differing as f64);
            }
        }
        families.gauges(
            "isopath_digest_mismatch",
            "Actual: directors that would send clients of the service to other real servers than \
             declared, by the digest of what their kernel has; those that a change is still being \
             rolled out to do not count.",
            ["cluster", "service"],
            mismatches,
        );
    }

    fn real_servers(&self, families: &mut Families) {
        let mut healthy: Vec<([String; 3], f64)> = Vec::new();
        let mut checking: Vec<([String; 3], f64)> = Vec::new();
        let mut out: Vec<([String; 3], f64)> = Vec::new();
        for of in &self.clusters {
            let found = health(of.state, self.now);
            for service in &of.state.declaration.service {
                let id = service.id();
                let text = id.to_string();
                for server in &service.real_server {
                    let server = service.real_server_id(server);
                    let labels = || [of.name.to_owned(), text.clone(), server.to_string()];
                    if of.state.quiesced.server(id, server) != AdminState::Active {
                        out.push((labels(), 1.0));
                    }
                    let Some(decided) = found.get(&(id, server)) else {
                        continue;
                    };
                    healthy.push((labels(), decided.up));
                    checking.push((labels(), decided.all));
                }
            }
        }
        let labels = ["cluster", "service", "real_server"];
        families.gauges(
            "isopath_real_server_directors_up",
            "Actual: directors whose checks find the real server healthy.",
            labels,
            healthy,
        );
        families.gauges(
            "isopath_real_server_directors",
            "Actual: directors that report and whose checks of the real server have decided.",
            labels,
            checking,
        );
        families.gauges(
            "isopath_real_server_out_of_service",
            "Desired: 1 while the real server is to be draining or drained; no series otherwise.",
            labels,
            out,
        );
    }
}

/// When an operation should have ended. What undoes one has no deadline, and takes seconds: it is
/// due as soon as it is asked for.
fn due(operation: &Operation) -> Timestamp {
    let mut steps = operation.steps.iter();
    let undoing = steps.find(|step| step.state == StepState::Now);
    let cancelled = undoing.and_then(|step| step.since);
    let is_cancelled = operation.state == OperationState::Cancelling;
    let cancelled = cancelled.filter(|_| is_cancelled);
    cancelled.unwrap_or(operation.deadline_at)
}

/// How many directors find a real server healthy, and how many have decided.
#[derive(Default)]
struct Decided {
    up: f64,
    all: f64,
}

fn health(cluster: &ClusterState, now: Moment) -> BTreeMap<(ServiceId, RealServerId), Decided> {
    let mut found: BTreeMap<_, Decided> = BTreeMap::new();
    let reports = cluster.directors.values();
    let reports = reports.filter_map(|director| director.fresh(now));
    let servers = reports.flat_map(|observed: &Observed| {
        observed.services.iter().flat_map(|service| {
            let servers = service.real_servers.iter();
            servers.map(move |server| (service.service, server))
        })
    });
    for (service, server) in servers {
        let up = match server.health {
            Health::Unknown => continue,
            Health::Up => 1.0,
            Health::Down => 0.0,
        };
        let decided = found.entry((service, server.real_server)).or_default();
        decided.up += up;
        decided.all += 1.0;
    }
    found
}

/// How many declared directors announce a VIP.
fn directors(cluster: &ClusterState, truth: &VipTruth) -> f64 {
    let announcers = truth.announcers.iter();
    let directors = announcers.filter(|router| cluster.director_of(**router).is_some());
    directors.count() as f64
}
