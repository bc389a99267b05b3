//! `/` and `/clusters`: the way to a cluster, and what to do while there is none.

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use isopath_api::view::{ClusterView, State as ViewState};
use jiff::Timestamp;

use super::layout::{Layout, html};
use super::signed_in::SignedIn;
use super::status::Status;
use crate::app::App;
use crate::auth::Session;

/// `GET /`: the only cluster, or the list.
pub(super) async fn root(State(app): State<App>, SignedIn(_): SignedIn) -> Response {
    let to = match app.clusters().as_slice() {
        [only] => format!("/clusters/{only}"),
        _ => "/clusters".to_owned(),
    };
    Redirect::to(&to).into_response()
}

/// `GET /clusters`.
pub(super) async fn get(State(app): State<App>, SignedIn(session): SignedIn) -> Response {
    let names = app.clusters();
    let views = names.iter().filter_map(|name| app.cluster_view(name));
    let rows = views.map(|view| Row::new(&view)).collect();
    html(&Page::new(session, rows, Timestamp::now()))
}

#[derive(Template)]
#[template(path = "clusters.html")]
struct Page {
    layout: Layout,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    status: Status,
    directors_up: usize,
    directors: usize,
    vips: usize,
    problems: usize,
    verdict: String,
}

impl Page {
    fn new(session: Session, rows: Vec<Row>, now: Timestamp) -> Self {
        let layout = Layout::new("Clusters", now)
            .signed_in(session)
            .crumb("Clusters", "/clusters");
        Self { layout, rows }
    }

    /// The shortest file that `isopath apply` takes and that serves something.
    fn example(&self) -> &'static str {
        EXAMPLE
    }
}

const EXAMPLE: &str = r#"cluster = "edge"

[[director]]
name = "d1"
router_id = "10.0.1.2"

[[vip]]
address = "10.99.0.1"

[[service]]
vip = "10.99.0.1"
protocol = "tcp"
port = 80
check = { type = "http", path = "/healthz" }
[[service.real_server]]
address = "10.1.0.11"
"#;

impl Row {
    fn new(view: &ClusterView) -> Self {
        let up = |s: ViewState| s == ViewState::Up;
        Self {
            name: view.name.to_string(),
            status: view.state.into(),
            directors_up: view.directors.iter().filter(|d| up(d.state)).count(),
            directors: view.directors.len(),
            vips: view.vips.len(),
            problems: view.problems.len(),
            verdict: view.verdict.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::fixture;
    use isopath_api::declare::Declaration;

    #[test]
    fn the_example_of_the_empty_page_can_be_applied() {
        let parsed = isopath_api::fault::parse_toml("e", EXAMPLE, Declaration::validate);
        let declaration = parsed.expect("the page tells people to apply it");
        assert_eq!(declaration.service[0].real_server.len(), 1);
    }

    #[test]
    fn without_a_cluster_the_page_says_how_to_make_one() {
        let page = Page::new(fixture::session(), Vec::new(), fixture::now()).to_string();
        assert!(page.contains("isopath apply"), "{page}");
        assert!(!page.contains("<table"), "no empty table: {page}");
    }

    #[test]
    fn each_cluster_is_a_row_that_leads_to_it() {
        let rows = vec![Row::new(&fixture::narrow()), Row::new(&fixture::healthy())];
        let page = Page::new(fixture::session(), rows, fixture::now()).to_string();
        assert!(page.contains(r#"<a href="/clusters/edge-fra">"#), "{page}");
        assert!(page.contains("glyph-degraded"), "{page}");
    }
}
