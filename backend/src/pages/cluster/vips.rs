//! The VIPs: how wide each is announced, and who is missing why.

use askama::Template;
use isopath_api::ids::DirectorName;
use isopath_api::view::{ClusterView, VipView};

use crate::pages::status::Status;
use crate::pages::text::{Age, Reported};

#[derive(Template, Debug, PartialEq)]
#[template(path = "cluster/vips.html")]
pub(crate) struct Vips {
    rows: Vec<Row>,
}

#[derive(Debug, PartialEq)]
struct Row {
    vip: String,
    status: Status,
    wanted: usize,
    real: usize,
    /// How many directors switches are to spread it over: backups are not among them.
    lowest: usize,
    widths: Vec<Width>,
    missing: Vec<Missing>,
    /// Routers that announce it and are no director of this cluster.
    foreign: Vec<String>,
    active: Reported,
    connections_per_second: Reported,
}

/// How a switch spreads the VIP.
#[derive(Debug, PartialEq)]
struct Width {
    switch: String,
    width: u32,
    through: String,
}

/// A director that does not announce a VIP.
#[derive(Debug, PartialEq)]
struct Missing {
    director: String,
    why: String,
    since: Option<Age>,
    /// What to do about it; empty when nothing is wrong.
    remedy: &'static str,
}

impl Vips {
    pub(super) fn new(view: &ClusterView) -> Self {
        Self {
            rows: view.vips.iter().map(|vip| row(view, vip)).collect(),
        }
    }
}

fn row(view: &ClusterView, vip: &VipView) -> Row {
    let services = || view.services.iter().filter(|s| s.service.vip == vip.vip);
    let servers = || services().flat_map(|s| &s.real_servers);
    let directors = view.directors.iter().map(|d| &d.name);
    let seen = servers().any(|r| !r.seen.is_empty());
    Row {
        vip: vip.vip.to_string(),
        status: vip.state.into(),
        wanted: vip.wanted.len(),
        real: vip.real.len(),
        lowest: vip.lowest.len(),
        widths: vip
            .widths
            .iter()
            .map(|width| Width {
                switch: width.switch_name(),
                width: width.width,
                through: width.through.join(" "),
            })
            .collect(),
        missing: directors
            .filter(|name| !vip.real.contains(name))
            .map(|name| missing(view, vip, name))
            .collect(),
        foreign: vip.foreign.iter().map(ToString::to_string).collect(),
        active: Reported::when(seen, servers().map(|r| r.active).sum()),
        connections_per_second: Reported::when(
            seen,
            servers().map(|r| r.connections_per_second).sum(),
        ),
    }
}

fn missing(view: &ClusterView, vip: &VipView, name: &DirectorName) -> Missing {
    let director = view.directors.iter().find(|d| d.name == *name);
    let seen = director.and_then(|d| d.vips.iter().find(|v| v.vip == vip.vip));
    match seen {
        Some(seen) if seen.cost.is_some() => Missing {
            director: name.to_string(),
            why: "wants to announce it, and the LSDB does not have it".to_owned(),
            since: Some(Age::new(seen.since, view.as_of)),
            remedy: "see whether it has a Full neighbour",
        },
        Some(seen) => Missing {
            director: name.to_string(),
            why: seen.reason_text.clone(),
            since: Some(Age::new(seen.since, view.as_of)),
            remedy: seen.reason.remedy().unwrap_or_default(),
        },
        None => Missing {
            director: name.to_string(),
            why: "has not reported".to_owned(),
            since: None,
            remedy: "start isopath-agent on it",
        },
    }
}
