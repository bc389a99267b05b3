//! The services and their real servers, with each director's own view of their health.

use askama::Template;
use isopath_api::ids::DirectorName;
use isopath_api::observed::{CheckResult, Health};
use isopath_api::view::{
    Agreement, ClusterView, PlacementView, RealServerSeen, RealServerView, ServiceView, State,
};

use super::service_anchor;
use crate::pages::status::Status;
use crate::pages::text::{Age, Reported, and_list, plural};

/// More directors than this do not each get a column.
const COLUMNS: usize = 8;

#[derive(Template, Debug, PartialEq)]
#[template(path = "cluster/services.html")]
pub(crate) struct Services {
    services: Vec<Service>,
    /// Where connections live.
    profile: &'static str,
    /// A column for each of them; none when there are too many.
    directors: Vec<String>,
}

#[derive(Debug, PartialEq)]
struct Service {
    anchor: String,
    id: String,
    status: Status,
    scheduler: String,
    forwarding: String,
    /// How many real servers are up, in words.
    health: String,
    /// Whether directors send its clients to the same real servers, in words.
    placement: String,
    rows: Vec<Row>,
}

#[derive(Debug, PartialEq)]
struct Row {
    id: String,
    status: Status,
    weight: Weight,
    active: Reported,
    inactive: Reported,
    connections_per_second: Reported,
    /// For each column, what that director sees; nothing where it said nothing lately.
    seen: Vec<Option<Status>>,
    /// In words, where directors have no columns.
    summary: String,
    check: Vec<Check>,
}

/// The weight in the kernels beside the declared one.
#[derive(Debug, PartialEq)]
struct Weight {
    effective: String,
    declared: u16,
    differs: bool,
}

/// What one or more directors' last checks said.
#[derive(Debug, PartialEq)]
struct Check {
    failed: bool,
    detail: String,
    who: String,
    since: Option<Age>,
}

impl Services {
    pub(super) fn new(view: &ClusterView) -> Self {
        let names: Vec<_> = view.directors.iter().map(|d| &d.name).collect();
        let columns = if names.len() > COLUMNS {
            Vec::new()
        } else {
            names
        };
        Self {
            services: view
                .services
                .iter()
                .map(|s| service(view, s, &columns))
                .collect(),
            profile: view.lvs.profile.as_str(),
            directors: columns.iter().map(ToString::to_string).collect(),
        }
    }
}

fn service(view: &ClusterView, service: &ServiceView, columns: &[&DirectorName]) -> Service {
    let id = service.service.to_string();
    Service {
        anchor: service_anchor(&id),
        id,
        status: service.state.into(),
        scheduler: service.scheduler.clone(),
        forwarding: service.forwarding.to_string().to_uppercase(),
        health: health(service),
        placement: service
            .placement
            .as_ref()
            .map_or_else(String::new, placement),
        rows: service
            .real_servers
            .iter()
            .map(|r| row(view, r, columns))
            .collect(),
    }
}

/// `2 of 3 up, 1 needed`; those that directors disagree about are up for some of them.
fn health(service: &ServiceView) -> String {
    let servers = &service.real_servers;
    let count = |state| servers.iter().filter(|r| r.state == state).count();
    let disputed = count(State::Degraded);
    let up = count(State::Up) + disputed;
    let dispute = match disputed {
        0 => String::new(),
        some => format!(" ({some} disputed between directors)"),
    };
    format!(
        "{up} of {} up{dispute}, {} needed",
        servers.len(),
        service.quorum
    )
}

/// `same clients on d1 and d2, not on d3; d4 follows`; empty while nobody has said anything.
fn placement(placement: &PlacementView) -> String {
    let of = |agreement: Agreement| {
        let directors = placement.directors.iter();
        let of = directors.filter(|of| of.agreement == agreement);
        of.map(|of| &of.director).collect::<Vec<_>>()
    };
    let named = |directors: &[&DirectorName]| match directors.len() {
        count if count > COLUMNS => plural(count, "director"),
        _ => and_list(directors),
    };
    let mut parts = Vec::new();
    for (agreement, what) in [
        (Agreement::Same, "same placement on"),
        (Agreement::Differs, "another on"),
        (Agreement::RollingOut, "a change on its way to"),
    ] {
        let directors = of(agreement);
        if !directors.is_empty() {
            parts.push(format!("{what} {}", named(&directors)));
        }
    }
    parts.join(", ")
}

fn row(view: &ClusterView, server: &RealServerView, columns: &[&DirectorName]) -> Row {
    let seen_by = |name: &&DirectorName| {
        let seen = server.seen.iter().find(|s| s.director == **name);
        seen.map(|s| Status::from(s.health))
    };
    let seen = !server.seen.is_empty();
    Row {
        id: server.real_server.to_string(),
        status: server.state.into(),
        weight: weight(server),
        active: Reported::when(seen, server.active),
        inactive: Reported::when(seen, server.inactive),
        connections_per_second: Reported::when(seen, server.connections_per_second),
        seen: columns.iter().map(seen_by).collect(),
        summary: summary(server),
        check: checks(view, server),
    }
}

/// `1`, `0-1` where directors differ, `–` where it is in no kernel.
fn weight(server: &RealServerView) -> Weight {
    let weights = || server.seen.iter().filter_map(|s| s.effective_weight);
    let effective = match (weights().min(), weights().max()) {
        (Some(low), Some(high)) if low == high => low.to_string(),
        (Some(low), Some(high)) => format!("{low}-{high}"),
        _ => "–".to_owned(),
    };
    Weight {
        differs: weights().any(|w| w != u32::from(server.weight)),
        effective,
        declared: server.weight,
    }
}

/// `62 Up`, `60 Up, 2 Down (d3 and d17)`.
fn summary(server: &RealServerView) -> String {
    let count = |health| server.seen.iter().filter(|s| s.health == health).count();
    let mut parts = Vec::new();
    for health in [Health::Up, Health::Down, Health::Unknown] {
        let part = match (health, count(health)) {
            (_, 0) => continue,
            (Health::Up, n) => format!("{n} Up"),
            (_, n) if n <= 4 => format!("{n} {health} ({})", and_list(&named(server, health))),
            (_, n) => format!("{n} {health}"),
        };
        parts.push(part);
    }
    if parts.is_empty() {
        "no director said anything lately".to_owned()
    } else {
        parts.join(", ")
    }
}

fn named(server: &RealServerView, health: Health) -> Vec<&DirectorName> {
    let same = server.seen.iter().filter(|s| s.health == health);
    same.map(|s| &s.director).collect()
}

/// The failures, one for each different text; where there are none, one success.
fn checks(view: &ClusterView, server: &RealServerView) -> Vec<Check> {
    let failing = |s: &&RealServerSeen| s.last_check.as_ref().is_some_and(|c| !c.ok);
    let mut grouped: Vec<(&CheckResult, Vec<&RealServerSeen>)> = Vec::new();
    for seen in server.seen.iter().filter(failing) {
        let Some(check) = &seen.last_check else {
            continue;
        };
        match grouped.iter_mut().find(|(c, _)| c.detail == check.detail) {
            Some((_, group)) => group.push(seen),
            None => grouped.push((check, vec![seen])),
        }
    }
    if grouped.is_empty() {
        return good_check(server).into_iter().collect();
    }
    let all = server.seen.len();
    let check = |(result, group): (&CheckResult, Vec<&RealServerSeen>)| Check {
        failed: true,
        detail: result.detail.clone(),
        who: who(&group, all),
        since: group
            .iter()
            .filter(|s| s.health == Health::Down)
            .map(|s| s.since)
            .min()
            .map(|since| Age::new(since, view.as_of)),
    };
    grouped.into_iter().map(check).collect()
}

fn good_check(server: &RealServerView) -> Option<Check> {
    let check = server.seen.iter().find_map(|s| s.last_check.as_ref())?;
    Some(Check {
        failed: false,
        detail: check.detail.clone(),
        who: String::new(),
        since: None,
    })
}

fn who(group: &[&RealServerSeen], all: usize) -> String {
    let names: Vec<_> = group.iter().map(|s| &s.director).collect();
    match names.len() {
        n if n == all && n > 1 => format!("on all {n} directors"),
        n if n > 4 => format!("on {n} of {all} directors"),
        _ => format!("on {}", and_list(&names)),
    }
}
