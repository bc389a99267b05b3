//! The services, and what the directors say of their real servers.

use isopath_api::declare::{RealServerSpec, ServiceSpec};
use isopath_api::ids::DirectorName;
use isopath_api::observed::{Health, Observed, RealServerObserved, ServiceObserved};
use isopath_api::operation::RealServerAdminView;
use isopath_api::view::{RealServerSeen, RealServerView, ServiceView, State};

use super::{Facts, list, placement};
use crate::clock::Moment;
use crate::control::operation::{ServerName, Target, connections};
use crate::control::state::ClusterState;

pub(super) fn views(facts: &Facts<'_>) -> Vec<ServiceView> {
    let fresh: Vec<(&DirectorName, &Observed)> = facts
        .cluster
        .declaration
        .director
        .iter()
        .filter_map(|spec| {
            let director = facts.cluster.directors.get(&spec.name)?;
            Some((&spec.name, director.fresh(facts.now)?))
        })
        .collect();
    let mut placements = placement::views(facts);
    let quiesced = &facts.cluster.quiesced;
    let services = facts.cluster.declaration.service.iter();
    services
        .map(|spec| {
            let mut shown = ServiceView {
                placement: placements.remove(&spec.id()),
                ..view(spec, &fresh)
            };
            for server in &mut shown.real_servers {
                server.admin_state = quiesced.server(spec.id(), server.real_server);
            }
            shown
        })
        .collect()
}

/// Every declared real server in each service that has it, with what is wanted of it.
pub(crate) fn real_servers(cluster: &ClusterState, now: Moment) -> Vec<RealServerAdminView> {
    let fresh: Vec<&Observed> = cluster
        .directors
        .values()
        .filter_map(|director| director.fresh(now))
        .collect();
    let mut all = Vec::new();
    for service in &cluster.declaration.service {
        let id = service.id();
        let mut told = cluster.derived.services.iter();
        let told = told.find(|told| told.id() == id);
        for server in &service.real_server {
            let real_server = service.real_server_id(server);
            let told = told.and_then(|told| {
                let mut servers = told.real_server.iter();
                servers.find(|it| told.real_server_id(it) == real_server)
            });
            let found = cluster.quiesced.real_servers.get(&(id, real_server));
            let target = Target::RealServer(
                ServerName {
                    address: *real_server.0.ip(),
                    port: Some(real_server.0.port()),
                },
                Some(id),
            );
            let counts = fresh.iter().map(|it| connections(it, &target, &[]));
            let (active, inactive) = counts.fold((0, 0), |(a, i), (active, inactive)| {
                (a + active, i + inactive)
            });
            all.push(RealServerAdminView {
                service: id,
                vip: service.vip,
                real_server,
                weight: server.weight,
                wanted_weight: told.map_or(0, |told| told.weight),
                admin_state: cluster.quiesced.server(id, real_server),
                admin_reason: found.map(|found| found.reason.clone()).unwrap_or_default(),
                active,
                inactive,
            });
        }
    }
    all
}

fn view(spec: &ServiceSpec, fresh: &[(&DirectorName, &Observed)]) -> ServiceView {
    let seen: Vec<(&DirectorName, &ServiceObserved)> = fresh
        .iter()
        .filter_map(|(name, observed)| {
            let found = observed.services.iter().find(|s| s.service == spec.id())?;
            Some((*name, found))
        })
        .collect();
    let mut servers: Vec<&RealServerSpec> = spec.real_server.iter().collect();
    servers.sort_by_key(|server| spec.real_server_id(server));
    let real_servers: Vec<RealServerView> = servers
        .into_iter()
        .map(|server| real_server(spec, server, &seen))
        .collect();
    let flags = list(spec.flags()).replace(", ", ",");
    let scheduler = match spec.persistence {
        Some(persistence) => {
            let seconds = persistence.timeout.as_secs();
            format!("{} {flags} persistent {seconds}s", spec.scheduler)
        }
        None => format!("{} {flags}", spec.scheduler),
    };
    ServiceView {
        service: spec.id(),
        state: state(spec, &seen, &real_servers),
        scheduler: scheduler.split_whitespace().collect::<Vec<_>>().join(" "),
        forwarding: spec.forwarding,
        quorum: spec.quorum,
        real_servers,
        placement: None,
    }
}

fn state(
    spec: &ServiceSpec,
    seen: &[(&DirectorName, &ServiceObserved)],
    servers: &[RealServerView],
) -> State {
    let count = |service: &ServiceObserved, health: Health| {
        let of_health = service.real_servers.iter().filter(|s| s.health == health);
        of_health.filter(|server| server.weight > 0).count()
    };
    let quorum = usize::from(spec.quorum);
    let has_quorum = |service: &ServiceObserved| count(service, Health::Up) >= quorum;
    if seen.is_empty() {
        return State::Unknown;
    }
    if !seen.iter().any(|(_, service)| has_quorum(service)) {
        let may_rise = |service: &ServiceObserved| {
            count(service, Health::Up) + count(service, Health::Unknown) >= quorum
        };
        return if seen.iter().any(|(_, service)| may_rise(service)) {
            State::Unknown
        } else {
            State::Down
        };
    }
    let all_have_quorum = seen.iter().all(|(_, service)| has_quorum(service));
    if all_have_quorum && servers.iter().all(|server| server.state == State::Up) {
        State::Up
    } else {
        State::Degraded
    }
}

fn real_server(
    spec: &ServiceSpec,
    server: &RealServerSpec,
    seen: &[(&DirectorName, &ServiceObserved)],
) -> RealServerView {
    let id = spec.real_server_id(server);
    let observed: Vec<(&DirectorName, &RealServerObserved)> = seen
        .iter()
        .filter_map(|(name, service)| {
            let found = service.real_servers.iter().find(|s| s.real_server == id)?;
            Some((*name, found))
        })
        .collect();
    let any = |health: Health| observed.iter().any(|(_, server)| server.health == health);
    let state = match (any(Health::Up), any(Health::Down)) {
        (true, true) => State::Degraded,
        (true, false) => State::Up,
        (false, true) => State::Down,
        (false, false) => State::Unknown,
    };
    let sum = |of: fn(&RealServerObserved) -> u64| observed.iter().map(|(_, s)| of(s)).sum();
    RealServerView {
        real_server: id,
        state,
        weight: server.weight,
        admin_state: Default::default(),
        active: sum(|server| u64::from(server.active)),
        inactive: sum(|server| u64::from(server.inactive)),
        connections_per_second: sum(|server| {
            server.stats.map_or(0, |stats| stats.connections_per_second)
        }),
        seen: observed
            .into_iter()
            .map(|(name, server)| RealServerSeen {
                director: name.clone(),
                health: server.health,
                since: server.since,
                effective_weight: server.effective_weight,
                last_check: server.last_check.clone(),
            })
            .collect(),
    }
}

/// Why a real server is in its state: whom it is down for, and the last check's result there.
pub(crate) fn last_check_in_words(server: &RealServerView) -> String {
    let down: Vec<&RealServerSeen> = server
        .seen
        .iter()
        .filter(|seen| seen.health == Health::Down)
        .collect();
    let up = server.seen.iter().filter(|seen| seen.health == Health::Up);
    let detail = down
        .iter()
        .filter_map(|seen| seen.last_check.as_ref())
        .find(|check| !check.ok)
        .map_or(String::new(), |check| format!(": {}", check.detail));
    match server.state {
        State::Down => format!("down on every director that reports{detail}"),
        State::Degraded => format!(
            "down on {}{detail}; up on {}",
            list(down.iter().map(|seen| &seen.director)),
            list(up.map(|seen| &seen.director))
        ),
        State::Up | State::Draining | State::Safe | State::Unknown => String::new(),
    }
}
