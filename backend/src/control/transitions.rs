//! Changes of state that become events.

use std::collections::BTreeMap;

use isopath_api::view::{ClusterView, Severity, State};

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
