//! `/clusters/{c}`: one cluster, from its verdict down to its history.
//!
//! The page is a row of sections. Each is built from a [`ClusterView`] alone, is a template of
//! its own, and is sent again by [`super::live`] when it differs from what the browser has.

mod directors;
mod events;
mod operations;
mod problems;
mod services;
mod topology;
mod verdict;
mod vips;
mod warnings;

use std::fmt;

use askama::Template;
use askama::filters::HtmlSafe;
use axum::extract::{Path, State};
use axum::response::Response;
use isopath_api::ids::{ClusterName, RouterId};
use isopath_api::view::{ClusterView, DirectorView};
use jiff::{SignedDuration, Timestamp};

use self::directors::Directors;
use self::events::Events;
use self::operations::Operations;
use self::problems::Problems;
use self::services::Services;
use self::topology::Topology;
use self::verdict::Verdict;
use self::vips::Vips;
use self::warnings::Warnings;
use super::layout::{Layout, error_page, html};
use super::signed_in::SignedIn;
use crate::app::App;
use crate::auth::Session;
use crate::error::Error;

/// `GET /clusters/{c}`.
pub(super) async fn get(
    State(app): State<App>,
    SignedIn(session): SignedIn,
    Path(cluster): Path<String>,
) -> Response {
    match find(&app, &cluster) {
        Ok(view) => html(&Page::new(&view, session)),
        Err(error) => error_page(&error, Some(session)),
    }
}

/// The cluster of that name. A text that cannot be a name is the name of no cluster.
pub(super) fn find(app: &App, cluster: &str) -> Result<ClusterView, Error> {
    cluster
        .parse::<ClusterName>()
        .ok()
        .and_then(|name| app.cluster_view(&name))
        .ok_or_else(|| Error::not_found(format_args!("cluster {cluster:?}")))
}

/// The whole page.
#[derive(Template)]
#[template(path = "cluster.html")]
struct Page {
    layout: Layout,
    fragments: Vec<Fragment>,
}

impl Page {
    fn new(view: &ClusterView, session: Session) -> Self {
        let name = view.name.as_str();
        let fragments = Fragment::all(view, session.may_operate());
        let layout = Layout::new(verdict::title(view), view.as_of)
            .signed_in(session)
            .crumb("Clusters", "/clusters")
            .crumb(name, format!("/clusters/{name}"))
            .live(format!("/live?page=cluster&cluster={name}"));
        Self { layout, fragments }
    }
}

/// A section of the page. Two of them are equal when they show the same, apart from ages,
/// which the page counts on by itself.
#[derive(Debug, PartialEq)]
pub(super) enum Fragment {
    Verdict(Verdict),
    Problems(Problems),
    Warnings(Warnings),
    Operations(Operations),
    Topology(Topology),
    Directors(Directors),
    Vips(Vips),
    Services(Services),
    Events(Events),
}

impl Fragment {
    /// All of the page, in its order, for somebody who may drain or only look.
    pub(super) fn all(view: &ClusterView, may_operate: bool) -> Vec<Self> {
        vec![
            Self::Verdict(Verdict::new(view)),
            Self::Problems(Problems::new(view)),
            Self::Warnings(Warnings::new(view)),
            Self::Operations(Operations::new(view)),
            Self::Topology(Topology::new(view)),
            Self::Directors(Directors::new(view, may_operate)),
            Self::Vips(Vips::new(view)),
            Self::Services(Services::new(view)),
            Self::Events(Events::new(view)),
        ]
    }
}

impl fmt::Display for Fragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verdict(section) => section.fmt(f),
            Self::Problems(section) => section.fmt(f),
            Self::Warnings(section) => section.fmt(f),
            Self::Operations(section) => section.fmt(f),
            Self::Topology(section) => section.fmt(f),
            Self::Directors(section) => section.fmt(f),
            Self::Vips(section) => section.fmt(f),
            Self::Services(section) => section.fmt(f),
            Self::Events(section) => section.fmt(f),
        }
    }
}

/// Each section is a template, which has escaped what it shows.
impl HtmlSafe for Fragment {}

/// What a router is called: the switch's or the director's name, or else its router id.
fn router_name(view: &ClusterView, id: RouterId) -> String {
    let switch = view.switches.iter().find(|s| s.router_id == id);
    if let Some(name) = switch.and_then(|s| s.name.clone()) {
        return name;
    }
    let director = view.directors.iter().find(|d| d.router_id == id);
    director.map_or_else(|| id.to_string(), |d| d.name.to_string())
}

/// A report older than this is shown as old.
const STALE: SignedDuration = SignedDuration::from_secs(5);

/// Whether a director's last report is too old to show it as it is, or never came.
fn is_silent(director: &DirectorView, now: Timestamp) -> bool {
    director
        .last_report
        .is_none_or(|last| now.duration_since(last) > STALE)
}

/// Where on the page an object such as `director d3` or `VIP 10.99.0.1` is shown.
fn anchor(object: &str) -> Option<String> {
    let (kind, name) = object.split_once(' ')?;
    match kind {
        "director" => Some(format!("director-{name}")),
        "VIP" => Some(format!("vip-{name}")),
        "placement" => Some(format!("director-{}", name.strip_prefix("on director ")?)),
        "service" => Some(service_anchor(name)),
        "real" => {
            let (server, service) = name.strip_prefix("server ")?.split_once(" of ")?;
            Some(format!("{}-{server}", service_anchor(service)))
        }
        _ => None,
    }
}

/// The anchor of a service such as `tcp:10.99.0.1:80`; its real servers' begin with it.
fn service_anchor(id: &str) -> String {
    format!("service-{}", id.replace(':', "-"))
}

#[cfg(test)]
mod tests;
