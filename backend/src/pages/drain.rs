//! `/clusters/{c}/directors/{d}/drain` and `/undrain`: the effect first, then the button.

use askama::Template;
use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect, Response};
use isopath_api::desired::AdminState;
use isopath_api::view::{ClusterView, DirectorView, DrainRequest, State as ViewState, VipView};
use serde::Deserialize;

use super::cluster::find;
use super::layout::{Layout, error_page, html, unreadable_form};
use super::signed_in::SignedIn;
use super::status::{Kind, Status};
use super::text::{Count, and_list, plural};
use crate::app::App;
use crate::auth::Session;
use crate::error::Error;
use crate::guards::last_announcer;

/// `GET …/drain`: what a drain would do.
pub(super) async fn get(
    State(app): State<App>,
    SignedIn(session): SignedIn,
    Path((cluster, director)): Path<(String, String)>,
) -> Response {
    match target(&app, &cluster, &director) {
        Ok((view, director)) => {
            let refusal = refusal(&app, &view, &director);
            html(&Page {
                refusal,
                ..Page::new(&view, &director, session)
            })
        }
        Err(error) => error_page(&error, Some(session)),
    }
}

/// What the guards would say now; they have the last word when the form is posted.
fn refusal(app: &App, view: &ClusterView, director: &DirectorView) -> Option<Refusal> {
    let world = app.world();
    let cluster = world.clusters.get(&view.name)?;
    let refused = last_announcer(cluster, &director.name, app.clock().now()).err()?;
    Some(Refusal {
        detail: refused.detail,
        guards: refused.guard.to_owned(),
    })
}

/// The fields of the drain's form.
#[derive(Debug, Deserialize)]
pub(super) struct DrainForm {
    csrf: String,
    #[serde(default)]
    reason: String,
    /// The guards to pass over, separated by commas: what the checkbox stands for.
    #[serde(default)]
    override_guards: String,
}

impl DrainForm {
    fn request(&self) -> DrainRequest {
        let guards = self.override_guards.split(',').filter(|g| !g.is_empty());
        DrainRequest {
            reason: self.reason.trim().to_owned(),
            override_guards: guards.map(str::to_owned).collect(),
        }
    }
}

/// `POST …/drain`. A refusal is shown on the same page, with what it takes to go on.
pub(super) async fn post(
    State(app): State<App>,
    SignedIn(session): SignedIn,
    Path((cluster, director)): Path<(String, String)>,
    headers: HeaderMap,
    form: Result<Form<DrainForm>, FormRejection>,
) -> Response {
    let Form(form) = match form {
        Ok(form) => form,
        Err(rejection) => return unreadable_form(&rejection, Some(session)),
    };
    if let Err(error) = app.check_form(&headers, &session, &form.csrf) {
        return error_page(&error, Some(session));
    }
    let (view, director) = match target(&app, &cluster, &director) {
        Ok(found) => found,
        Err(error) => return error_page(&error, Some(session)),
    };
    let request = form.request();
    if !request.override_guards.is_empty() && request.reason.is_empty() {
        let error = Error::Guard {
            guards: request.override_guards,
            detail: "an override needs a reason".to_owned(),
        };
        return refused(&view, &director, session, &error, form);
    }
    let user = session.user.clone();
    match app.drain(&view.name, &director.name, request, &user).await {
        Ok(_) => back(&view, &director),
        Err(error @ Error::Guard { .. }) => refused(&view, &director, session, &error, form),
        Err(error) => error_page(&error, Some(session)),
    }
}

fn refused(
    view: &ClusterView,
    director: &DirectorView,
    session: Session,
    error: &Error,
    form: DrainForm,
) -> Response {
    let page = Page {
        reason: form.reason,
        refusal: Some(Refusal {
            detail: error.to_string(),
            guards: error.problem().guards.join(","),
        }),
        ..Page::new(view, director, session)
    };
    (error.status(), html(&page)).into_response()
}

/// The fields of the undrain's form.
#[derive(Debug, Deserialize)]
pub(super) struct UndrainForm {
    csrf: String,
}

/// `POST …/undrain`.
pub(super) async fn undrain(
    State(app): State<App>,
    SignedIn(session): SignedIn,
    Path((cluster, director)): Path<(String, String)>,
    headers: HeaderMap,
    form: Result<Form<UndrainForm>, FormRejection>,
) -> Response {
    let Form(form) = match form {
        Ok(form) => form,
        Err(rejection) => return unreadable_form(&rejection, Some(session)),
    };
    if let Err(error) = app.check_form(&headers, &session, &form.csrf) {
        return error_page(&error, Some(session));
    }
    let (view, director) = match target(&app, &cluster, &director) {
        Ok(found) => found,
        Err(error) => return error_page(&error, Some(session)),
    };
    let request = DrainRequest::default();
    let user = session.user.clone();
    match app
        .undrain(&view.name, &director.name, request, &user)
        .await
    {
        Ok(_) => back(&view, &director),
        Err(error) => error_page(&error, Some(session)),
    }
}

fn target(app: &App, cluster: &str, director: &str) -> Result<(ClusterView, DirectorView), Error> {
    let view = find(app, cluster)?;
    let found = view.directors.iter().find(|d| d.name.as_str() == director);
    match found.cloned() {
        Some(director) => Ok((view, director)),
        None => Err(Error::not_found(format_args!(
            "director {director:?} in cluster {cluster}"
        ))),
    }
}

/// Back to the director's row, where the drain's progress shows.
fn back(view: &ClusterView, director: &DirectorView) -> Response {
    let to = format!("/clusters/{}#director-{}", view.name, director.name);
    Redirect::to(&to).into_response()
}

#[derive(Template)]
#[template(path = "drain.html")]
struct Page {
    layout: Layout,
    csrf: String,
    cluster: String,
    director: String,
    status: Status,
    in_service: bool,
    why: String,
    effects: Vec<Effect>,
    notes: Vec<String>,
    reason: String,
    refusal: Option<Refusal>,
}

/// What becomes of one VIP.
#[derive(Debug, PartialEq)]
struct Effect {
    vip: String,
    status: Status,
    text: String,
}

/// A guard's refusal, with the guards to override.
struct Refusal {
    detail: String,
    guards: String,
}

impl Page {
    fn new(view: &ClusterView, director: &DirectorView, session: Session) -> Self {
        let (cluster, name) = (view.name.as_str(), director.name.as_str());
        let href = format!("/clusters/{cluster}/directors/{name}/drain");
        Self {
            csrf: session.csrf_token().to_owned(),
            layout: Layout::new(format!("Drain {name}"), view.as_of)
                .signed_in(session)
                .crumb("Clusters", "/clusters")
                .crumb(cluster, format!("/clusters/{cluster}"))
                .crumb(format!("Drain {name}"), href),
            cluster: cluster.to_owned(),
            director: name.to_owned(),
            status: director.state.into(),
            in_service: director.admin_state == AdminState::Active,
            why: director.why.clone(),
            effects: view.vips.iter().map(|vip| effect(director, vip)).collect(),
            notes: notes(view, director),
            reason: String::new(),
            refusal: None,
        }
    }
}

fn effect(director: &DirectorView, vip: &VipView) -> Effect {
    let here = vip.real.contains(&director.name);
    let left: Vec<_> = vip.real.iter().filter(|d| **d != director.name).collect();
    // The width that is wanted, whoever announces now: the director itself is part of it.
    let of = plural(vip.wanted.len().max(vip.real.len()), "director");
    let (kind, word, text) = match left.len() {
        _ if !here => (
            Kind::Info,
            "No change",
            "is not announced by this director now".to_owned(),
        ),
        0 => (
            Kind::Down,
            "Lost",
            "would be announced by no director: its clients lose it".to_owned(),
        ),
        1 => (
            Kind::Degraded,
            "One left",
            format!(
                "stays on 1 of {of}: {}. Nothing takes over if that one fails",
                and_list(&left)
            ),
        ),
        count => (
            Kind::Up,
            "Stays",
            format!("stays on {count} of {of}: {}", and_list(&left)),
        ),
    };
    Effect {
        vip: vip.vip.to_string(),
        status: Status::new(kind, word),
        text,
    }
}

/// What else happens, in full sentences.
fn notes(view: &ClusterView, director: &DirectorView) -> Vec<String> {
    let mut notes = vec![match director.active {
        0 => "No active connections here.".to_owned(),
        active => format!("{} active connections here.", Count(active)),
    }];
    if director.active > 0 {
        notes.extend(fate_of_connections(view, director));
    }
    if director.state == ViewState::Unknown {
        notes.push(
            "Its agent is silent: it may go on announcing until it is heard of again.".to_owned(),
        );
    }
    notes
}

/// What becomes of the connections of the VIPs that this director announces.
fn fate_of_connections(view: &ClusterView, director: &DirectorView) -> Vec<String> {
    let here = |vip: &&&VipView| vip.real.contains(&director.name);
    let lost = |vip: &&&VipView| vip.real == [director.name.clone()];
    let vips: Vec<_> = view.vips.iter().collect();
    let ends: Vec<_> = vips.iter().filter(lost).map(|v| v.vip).collect();
    let moves: Vec<_> = vips
        .iter()
        .filter(|v| here(v) && !lost(v))
        .map(|v| v.vip)
        .collect();
    let mut notes = Vec::new();
    if !ends.is_empty() {
        notes.push(format!("Those to {} end.", and_list(&ends)));
    }
    if moves.is_empty() {
        return notes;
    }
    notes.push(format!(
        "The switch sends the packets of those to {} to the other directors; flows of other \
         directors may move too if it rehashes.",
        and_list(&moves)
    ));
    // Only Maglev hashing makes another director choose the same real server: nothing else
    // is shared between directors.
    let services = view.services.iter();
    let unshared: Vec<_> = services
        .filter(|s| moves.contains(&s.service.vip) && !s.scheduler.starts_with("mh"))
        .map(|s| s.service)
        .collect();
    notes.push(if unshared.is_empty() {
        "Their services are scheduled by mh, so the other directors choose the same real servers \
         and connections go on."
            .to_owned()
    } else {
        format!(
            "Connections of {} are not known to the other directors and may be cut.",
            and_list(&unshared)
        )
    });
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::fixture;

    fn page(view: &ClusterView, index: usize) -> String {
        Page::new(view, &view.directors[index], fixture::session()).to_string()
    }

    #[test]
    fn the_effect_is_shown_before_the_button() {
        let (view, session) = (fixture::healthy(), fixture::session());
        let csrf = format!(r#"name="csrf" value="{}""#, session.csrf_token());
        let text = Page::new(&view, &view.directors[1], session).to_string();
        let effect = text.find("stays on 3 of 4 directors: d1, d3 and d4");
        let button = text.find("Drain d2</button>");
        assert!(effect.is_some() && effect < button, "{text}");
        assert!(text.contains(&csrf), "{text}");
        assert!(
            text.contains("connections go on"),
            "mh is stateless: {text}"
        );
    }

    #[test]
    fn a_scheduler_that_directors_do_not_share_is_warned_of() {
        let mut view = fixture::healthy();
        view.services[0].scheduler = "wlc".to_owned();
        let text = page(&view, 0);
        assert!(text.contains("tcp:10.99.0.1:80 are not known"), "{text}");
    }

    #[test]
    fn losing_a_vip_is_said_before_it_is_tried() {
        let mut view = fixture::healthy();
        view.vips[0].real.truncate(1);
        let effect = effect(&view.directors[0], &view.vips[0]);
        assert_eq!(effect.status, Status::new(Kind::Down, "Lost"));
        let notes = notes(&view, &view.directors[0]);
        assert_eq!(
            notes,
            ["3,001 active connections here.", "Those to 10.99.0.1 end."]
        );
        view.vips[0].real = vec![
            view.directors[0].name.clone(),
            view.directors[2].name.clone(),
        ];
        let effect = super::effect(&view.directors[0], &view.vips[0]);
        assert!(
            effect.text.contains("stays on 1 of 4 directors: d3"),
            "{effect:?}"
        );
    }

    #[test]
    fn a_refusal_shows_its_reason_and_what_it_takes_to_go_on() {
        let view = fixture::healthy();
        let form = DrainForm {
            csrf: String::new(),
            reason: "kernel <6.1>".to_owned(),
            override_guards: String::new(),
        };
        let error = Error::Guard {
            guards: vec!["last_announcer".to_owned()],
            detail: "no other director announces 10.99.0.1".to_owned(),
        };
        let page = Page {
            reason: form.reason,
            refusal: Some(Refusal {
                detail: error.to_string(),
                guards: error.problem().guards.join(","),
            }),
            ..Page::new(&view, &view.directors[0], fixture::session())
        };
        let text = page.to_string();
        assert!(
            text.contains("no other director announces 10.99.0.1"),
            "{text}"
        );
        assert!(
            text.contains(r#"name="override_guards" value="last_announcer""#),
            "{text}"
        );
        assert!(
            text.contains("kernel &#60;6.1&#62;"),
            "typed text is kept: {text}"
        );
    }

    #[test]
    fn a_director_out_of_service_is_offered_the_way_back() {
        let text = page(&fixture::drained(), 1);
        assert!(
            text.contains("/clusters/edge-fra/directors/d2/undrain"),
            "{text}"
        );
        assert!(!text.contains("Drain d2</button>"), "{text}");
    }

    #[test]
    fn the_form_becomes_the_api_s_request() {
        let form = DrainForm {
            csrf: String::new(),
            reason: "  kernel ".to_owned(),
            override_guards: "last_announcer".to_owned(),
        };
        let wanted = DrainRequest {
            reason: "kernel".to_owned(),
            override_guards: vec!["last_announcer".to_owned()],
        };
        assert_eq!(form.request(), wanted);
    }
}
