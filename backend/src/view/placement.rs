//! Whether directors send the clients of a service to the same real servers.
//!
//! Each director says a digest of what its kernel has for each service; the controller has one
//! of what is declared. They are compared only where the director has the generation that is
//! wanted of it: before that a change is being rolled out and says nothing.

use std::collections::BTreeMap;

use isopath_api::digest::ServiceDigest;
use isopath_api::ids::{DirectorName, ServiceId};
use isopath_api::view::{
    Agreement, DirectorPlacement, PlacementView, ProblemView, ServiceView, State,
};
use jiff::Timestamp;

use super::Facts;
use crate::clock::Moment;
use crate::control::state::{ClusterState, Differing, DirectorState};

/// Every service's digest on every director, beside the expected one.
pub(super) fn views(facts: &Facts<'_>) -> BTreeMap<ServiceId, PlacementView> {
    let cluster = facts.cluster;
    let digests = cluster.derived.digests.iter();
    let view = |(service, expected): (&ServiceId, _)| {
        let expected = ServiceDigest::clone(expected);
        let directors = Vec::new();
        (
            *service,
            PlacementView {
                expected,
                directors,
            },
        )
    };
    let mut views: BTreeMap<ServiceId, PlacementView> = digests.map(view).collect();
    for spec in &cluster.declaration.director {
        let Some(director) = cluster.directors.get(&spec.name) else {
            continue;
        };
        for (service, (found, agreement)) in compare(cluster, director, facts.now) {
            let Some(view) = views.get_mut(&service) else {
                continue;
            };
            let seen = cluster.differing.get(&(service, spec.name.clone()));
            view.directors.push(DirectorPlacement {
                director: spec.name.clone(),
                found: found.cloned(),
                agreement,
                since: seen
                    .filter(|_| agreement != Agreement::Same)
                    .map(|seen| seen.wall),
            });
        }
    }
    views
}

type Compared<'a> = (Option<&'a ServiceDigest>, Agreement);

/// Every declared service on one director.
fn compare<'a>(
    cluster: &ClusterState,
    director: &'a DirectorState,
    now: Moment,
) -> BTreeMap<ServiceId, Compared<'a>> {
    let observed = director.fresh(now);
    let services = observed.map_or(&[][..], |observed| &observed.services);
    let found = services.iter();
    let found: BTreeMap<_, _> = found.map(|it| (it.service, it.digest.as_ref())).collect();
    let rolled_out = director.acknowledged(&cluster.epoch) == Some(director.generation);
    let one = |(service, expected): (&ServiceId, &ServiceDigest)| {
        let found = found.get(service).copied().flatten();
        let agreement = match found {
            _ if observed.is_none() => Agreement::Unknown,
            _ if !rolled_out => Agreement::RollingOut,
            Some(found) if found == expected => Agreement::Same,
            Some(found) if found.is_comparable(expected) => Agreement::Differs,
            Some(_) | None => Agreement::Unknown,
        };
        (*service, (found, agreement))
    };
    cluster.derived.digests.iter().map(one).collect()
}

/// What differs now, and since when. What cannot be told at the moment stays as it was seen
/// last, so that a lost report or the next change is not taken for an end.
pub(crate) fn differing(cluster: &ClusterState, now: Moment) -> Differing {
    let mut differing = Differing::new();
    for (name, director) in &cluster.directors {
        for (service, (_, agreement)) in compare(cluster, director, now) {
            let key = (service, name.clone());
            let seen = cluster.differing.get(&key).copied();
            let since = match agreement {
                Agreement::Same => None,
                Agreement::Differs => Some(seen.unwrap_or(now)),
                Agreement::RollingOut | Agreement::Unknown => seen,
            };
            if let Some(since) = since {
                differing.insert(key, since);
            }
        }
    }
    differing
}

/// How many directors would send the clients of each service elsewhere than declared.
pub(crate) fn mismatches(cluster: &ClusterState, now: Moment) -> BTreeMap<ServiceId, usize> {
    let services = cluster.derived.digests.keys();
    let mut found: BTreeMap<ServiceId, usize> = services.map(|id| (*id, 0)).collect();
    for director in cluster.directors.values() {
        for (service, (_, agreement)) in compare(cluster, director, now) {
            if agreement == Agreement::Differs {
                *found.entry(service).or_default() += 1;
            }
        }
    }
    found
}

/// The directors that differ, each once, however many services it differs in.
pub(super) fn problems(services: &[ServiceView], directors: &[DirectorName]) -> Vec<ProblemView> {
    let problem = |name: &DirectorName| {
        let (cause, since) = difference(services, name)?;
        Some(ProblemView {
            state: State::Degraded,
            object: format!("placement on director {name}"),
            cause,
            since,
            next: "see the log of isopath-agent on it, which says what it has otherwise; compare \
                   its version with the other directors'"
                .to_owned(),
        })
    };
    directors.iter().filter_map(problem).collect()
}

/// What a director has otherwise than it should, and since when.
pub(crate) fn difference(
    services: &[ServiceView],
    director: &DirectorName,
) -> Option<(String, Option<Timestamp>)> {
    let differs = |service: &ServiceView| {
        let placement = service.placement.as_ref()?;
        let mut directors = placement.directors.iter();
        let of = directors.find(|of| of.director == *director)?;
        let found = of.found.as_ref()?;
        let expected = &placement.expected;
        let cause = format!("{}: digest {found}, expected {expected}", service.service);
        (of.agreement == Agreement::Differs).then_some((cause, of.since))
    };
    let differing: Vec<_> = services.iter().filter_map(differs).collect();
    let since = differing.iter().filter_map(|(_, since)| *since).min();
    let (first, _) = differing.first()?;
    let more = match differing.len() - 1 {
        0 => String::new(),
        1 => " (and 1 more service)".to_owned(),
        more => format!(" (and {more} more services)"),
    };
    let cause = format!("it would send clients to other real servers than declared: {first}{more}");
    Some((cause, since))
}
