//! Changes of state that become events.

use std::collections::BTreeMap;

use isopath_api::ecmp::EcmpCode;
use isopath_api::ids::DirectorName;
use isopath_api::view::{ClusterView, DirectorView, Severity, State};

use super::state::Differing;
use crate::ecmp::{Conditions, Group, groups, raised};

/// The last known state of each object of a cluster.
pub(super) type Shown = BTreeMap<String, State>;

/// An object that changed its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transition {
    pub(super) severity: Severity,
    pub(super) object: String,
    pub(super) what: String,
}

/// What changed since `shown`, which is brought up to date.
///
/// What was not known before is no news when it is well: a controller that starts would
/// otherwise announce every healthy thing.
pub(super) fn transitions(shown: &mut Shown, view: &ClusterView) -> Vec<Transition> {
    let mut present = Shown::new();
    let mut found = Vec::new();
    for (object, state, why) in objects(view) {
        let before = shown.get(&object).copied();
        if state == State::Unknown && before.is_none() {
            continue;
        }
        present.insert(object.clone(), state);
        let is_news = match before {
            Some(before) => before != state,
            None => severity(state) != Severity::Info,
        };
        if is_news {
            let from = before.map_or(String::new(), |before| format!("{before} → "));
            let why = if why.is_empty() {
                why
            } else {
                format!(": {why}")
            };
            found.push(Transition {
                severity: severity(state),
                object,
                what: format!("{from}{state}{why}"),
            });
        }
    }
    *shown = present;
    found
}

/// Directors that began to differ or differ no more. `before` and `now` say which do; one that is
/// not declared any more is no news.
pub(super) fn placements(
    before: &Differing,
    now: &Differing,
    view: &ClusterView,
) -> Vec<Transition> {
    let differs = |of: &Differing, name: &DirectorName| of.keys().any(|(_, it)| it == name);
    let news = |director: &DirectorView| {
        let name = &director.name;
        let (severity, what) = match (differs(before, name), differs(now, name)) {
            (false, true) => {
                let difference = crate::view::difference(&view.services, name);
                let cause = difference.map_or_else(String::new, |(cause, _)| cause);
                (Severity::Error, format!("differs: {cause}"))
            }
            (true, false) => {
                let what = "differs no more: it sends clients where the others do".to_owned();
                (Severity::Info, what)
            }
            (true, true) | (false, false) => return None,
        };
        Some(Transition {
            severity,
            object: format!("placement on director {name}"),
            what,
        })
    };
    view.directors.iter().filter_map(news).collect()
}

/// Conditions that began or ended. Those that are alike but for the VIP are one event: nobody
/// reads a hundred of them when a director is gone.
pub(super) fn differences(before: &Conditions, now: &Conditions) -> Vec<Transition> {
    let is_raised = |of: &Conditions, key| of.get(key).is_some_and(|held| held.raised);
    let begun = raised(now).filter(|(key, _)| !is_raised(before, key));
    let ended = raised(before).filter(|(key, _)| !is_raised(now, key));
    let object = |group: &Group<'_>| {
        let place = group.key.place();
        place.unwrap_or_else(|| group.key.to_string())
    };
    let of = |group: &Group<'_>| {
        let vips = group.vips().filter(|_| group.key.place().is_some());
        vips.map_or_else(String::new, |vips| format!(" VIP {vips}"))
    };
    let begun = groups(begun).into_iter().map(|group| Transition {
        severity: match group.key.code {
            EcmpCode::InSetNotWanted
            | EcmpCode::SwitchSeesNothing
            | EcmpCode::ForeignAnnouncer
            | EcmpCode::AnnouncingWhileDrained => Severity::Error,
            EcmpCode::NoWitness
            | EcmpCode::VipNotAnnounced
            | EcmpCode::AnnouncedNotInSet
            | EcmpCode::WidthBelowAnnouncers
            | EcmpCode::SwitchNotReached
            | EcmpCode::WitnessesDisagree => Severity::Warning,
        },
        object: object(&group),
        what: format!(
            "{}{}: {}",
            group.key.code,
            of(&group),
            group.held.difference.cause
        ),
    });
    let ended = groups(ended).into_iter().map(|group| Transition {
        severity: Severity::Info,
        object: object(&group),
        what: format!("{}{} no more", group.key.code, of(&group)),
    });
    begun.chain(ended).collect()
}

fn objects(view: &ClusterView) -> Vec<(String, State, String)> {
    let directors = view
        .directors
        .iter()
        .map(|d| (format!("director {}", d.name), d.state, d.why.clone()));
    let vips = view.vips.iter().map(|vip| {
        let real: Vec<_> = vip.real.iter().map(ToString::to_string).collect();
        let by = if real.is_empty() {
            "nobody".to_owned()
        } else {
            real.join(", ")
        };
        (
            format!("VIP {}", vip.vip),
            vip.state,
            format!("announced by {by}"),
        )
    });
    let servers = view.services.iter().flat_map(|service| {
        service.real_servers.iter().map(|server| {
            let object = format!("real server {} of {}", server.real_server, service.service);
            (
                object,
                server.state,
                crate::view::last_check_in_words(server),
            )
        })
    });
    directors.chain(vips).chain(servers).collect()
}

fn severity(state: State) -> Severity {
    match state {
        State::Up | State::Draining | State::Safe => Severity::Info,
        State::Degraded | State::Unknown => Severity::Warning,
        State::Down => Severity::Error,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::{Known, SERVICE, observed, with_digest};

    fn news(shown: &mut Shown, known: &Known) -> Vec<String> {
        let view = crate::view::build(&known.cluster, known.now, known.started);
        transitions(shown, &view)
            .into_iter()
            .map(|t| format!("{} {}: {}", t.severity.as_str(), t.object, t.what))
            .collect()
    }

    #[test]
    fn a_start_into_a_healthy_cluster_is_no_news() {
        let mut shown = Shown::new();
        let mut known = Known::new(2);
        known.started = known.now;
        assert_eq!(news(&mut shown, &known), [""; 0]);
        for n in [1, 2] {
            known.hear(observed(n, &[1, 2]));
            assert_eq!(news(&mut shown, &known), [""; 0]);
        }
    }

    #[test]
    fn a_start_into_trouble_is_news() {
        let mut known = Known::new(2);
        known.hear(observed(2, &[2]));
        let news = news(&mut Shown::new(), &known);
        assert_eq!(news.len(), 2, "{news:?}");
        assert!(
            news[0].starts_with("error director d1: Down: its agent was never"),
            "{news:?}"
        );
        assert_eq!(news[1], "warning VIP 10.99.0.1: Degraded: announced by d2");
    }

    #[test]
    fn each_change_is_told_once_with_what_it_was_before() {
        let mut shown = Shown::new();
        let mut known = Known::healthy(2);
        news(&mut shown, &known);
        known.pass(Duration::from_secs(6));
        known.hear(observed(2, &[1, 2]));
        let lost = news(&mut shown, &known);
        assert_eq!(lost.len(), 1, "{lost:?}");
        assert!(lost[0].starts_with("warning director d1: Up → Degraded: its agent is"));
        known.pass(Duration::from_secs(1));
        assert_eq!(
            news(&mut shown, &known),
            [""; 0],
            "a longer silence is no change"
        );
        known.hear(observed(1, &[1, 2]));
        let back = news(&mut shown, &known);
        assert_eq!(back, ["info director d1: Degraded → Up: announces the VIP"]);
    }

    #[test]
    fn what_is_declared_no_more_is_forgotten() {
        let mut shown = Shown::new();
        news(&mut shown, &Known::healthy(2));
        news(&mut shown, &Known::healthy(1));
        assert!(!shown.contains_key("director d2"), "{shown:?}");
    }

    #[test]
    fn a_director_begins_and_ends_to_differ_once_however_many_services_it_differs_in() {
        let service = |text: &str| text.parse().unwrap();
        let key = |text: &str, n: u8| (service(text), format!("d{n}").parse().unwrap());
        let mut known = Known::healthy(2);
        known.hear(with_digest(
            observed(1, &[1, 2]),
            Some("030000000000000000"),
        ));
        let view = crate::view::build(&known.cluster, known.now, known.started);
        let news = |before: &Differing, now: &Differing| -> Vec<String> {
            let news = placements(before, now, &view).into_iter();
            news.map(|it| format!("{} {}: {}", it.severity.as_str(), it.object, it.what))
                .collect()
        };
        let nobody = Differing::new();
        let one = Differing::from([(key(SERVICE, 1), known.now)]);
        let two = Differing::from([
            (key(SERVICE, 1), known.now),
            (key("udp:10.99.0.1:53", 1), known.now),
        ]);
        let begun = news(&nobody, &one);
        assert_eq!(begun.len(), 1, "{begun:?}");
        let begins = "error placement on director d1: differs: it would send clients to other";
        assert!(begun[0].starts_with(begins), "{begun:?}");
        assert!(begun[0].contains("tcp:10.99.0.1:80: digest 030000000000000000"));
        assert_eq!(news(&one, &two), [""; 0]);
        let ended = news(&two, &nobody);
        assert_eq!(ended.len(), 1, "{ended:?}");
        assert!(ended[0].starts_with("info placement on director d1: differs no more"));
        let gone = Differing::from([(key(SERVICE, 9), known.now)]);
        assert_eq!(news(&gone, &nobody), [""; 0], "it is declared no more");
    }
}
