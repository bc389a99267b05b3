//! `/clusters/{c}/directors/{d}/drain` and `/undrain`: the effect first, then the button.

use askama::Template;
use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect, Response};
use isopath_api::access::Role;
use isopath_api::desired::AdminState;
use isopath_api::operation::{DrainPreview, DrainRequest, LeftView, StepPreview};
use isopath_api::view::{ClusterView, DirectorView, State as ViewState};
use serde::Deserialize;

use super::cluster::find;
use super::layout::{Layout, error_page, html, unreadable_form, why};
use super::signed_in::MayOperate;
use super::status::{Kind, Status};
use super::text::{Count, and_list, plural};
use crate::app::App;
use crate::auth::{By, Principal, Session};
use crate::control::Change;
use crate::control::operation::{self, Target};
use crate::error::Error;

/// `GET …/drain`: what a drain would do.
pub(super) async fn get(
    State(app): State<App>,
    MayOperate { session, principal }: MayOperate,
    Path((cluster, director)): Path<(String, String)>,
) -> Response {
    let page = target(&app, &cluster, &director).and_then(|(view, director)| {
        let preview = preview(&app, &view, &director, principal.by())?;
        Ok(Page::new(&view, &director, &preview, session.clone()))
    });
    match page {
        Ok(page) => html(&page),
        Err(error) => error_page(&error, Some(session)),
    }
}

/// What the API would answer to whoever asks for the drain's preview.
fn preview(
    app: &App,
    view: &ClusterView,
    director: &DirectorView,
    by: By,
) -> Result<DrainPreview, Error> {
    app.preview(&Change {
        kind: operation::Kind::Drain,
        cluster: view.name.clone(),
        target: Target::Director(director.name.clone()),
        request: DrainRequest::default(),
        by,
        key: None,
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
            ..DrainRequest::default()
        }
    }
}

/// `POST …/drain`. A refusal is shown on the same page, with what it takes to go on.
pub(super) async fn post(
    State(app): State<App>,
    MayOperate { session, principal }: MayOperate,
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
        return refused(&app, (&view, &director), (session, principal), &error, form);
    }
    if !request.override_guards.is_empty()
        && let Err(error) = principal.check_role(Role::Admin)
    {
        return error_page(&error, Some(session));
    }
    let drained = (&view.name, Target::Director(director.name.clone()));
    match app
        .change(operation::Kind::Drain, drained, request, principal.by())
        .await
    {
        Ok(_) => back(&view, &director),
        Err(error @ Error::Guard { .. }) => {
            refused(&app, (&view, &director), (session, principal), &error, form)
        }
        Err(error) => error_page(&error, Some(session)),
    }
}

fn refused(
    app: &App,
    (view, director): (&ClusterView, &DirectorView),
    (session, principal): (Session, Principal),
    error: &Error,
    form: DrainForm,
) -> Response {
    let preview = match preview(app, view, director, principal.by()) {
        Ok(preview) => preview,
        Err(error) => return error_page(&error, Some(session)),
    };
    let page = Page {
        reason: form.reason,
        refusal: Some(Refusal {
            detail: error.to_string(),
            guards: error.problem().guards.join(","),
        }),
        ..Page::new(view, director, &preview, session)
    };
    why(error, (error.status(), html(&page)).into_response())
}

/// The fields of the undrain's form.
#[derive(Debug, Deserialize)]
pub(super) struct UndrainForm {
    csrf: String,
}

/// `POST …/undrain`.
pub(super) async fn undrain(
    State(app): State<App>,
    MayOperate { session, principal }: MayOperate,
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
    let undrained = (&view.name, Target::Director(director.name.clone()));
    match app
        .change(operation::Kind::Undrain, undrained, request, principal.by())
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
    /// What it waits for, step by step.
    steps: Vec<StepPreview>,
    reason: String,
    /// Whether whoever asks may pass over a guard.
    may_override: bool,
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
    fn new(
        view: &ClusterView,
        director: &DirectorView,
        preview: &DrainPreview,
        session: Session,
    ) -> Self {
        let (cluster, name) = (view.name.as_str(), director.name.as_str());
        let href = format!("/clusters/{cluster}/directors/{name}/drain");
        Self {
            csrf: session.csrf_token().to_owned(),
            may_override: session.role >= Role::Admin,
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
            effects: preview.left.iter().map(effect).collect(),
            notes: notes(view, director, preview),
            steps: preview.steps.clone(),
            reason: String::new(),
            refusal: Refusal::of(preview),
        }
    }
}

impl Refusal {
    /// What the guards say now; they have the last word when the form is posted.
    fn of(preview: &DrainPreview) -> Option<Self> {
        let refused = || preview.guards.iter().filter(|guard| !guard.allows);
        let details: Vec<&str> = refused().map(|it| it.detail.as_str()).collect();
        let guards: Vec<&str> = refused().map(|it| it.guard.as_str()).collect();
        (!guards.is_empty()).then(|| Self {
            detail: details.join("; "),
            guards: guards.join(","),
        })
    }
}

/// What is left of a VIP of those that announce it now.
fn effect(vip: &LeftView) -> Effect {
    let here = vip.after < vip.now;
    let left = &vip.directors;
    let of = plural(usize::try_from(vip.now).unwrap_or(usize::MAX), "director");
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
                and_list(left)
            ),
        ),
        count => (
            Kind::Up,
            "Stays",
            format!("stays on {count} of {of}: {}", and_list(left)),
        ),
    };
    Effect {
        vip: vip.object.clone(),
        status: Status::new(kind, word),
        text,
    }
}

/// What else happens, in full sentences.
fn notes(view: &ClusterView, director: &DirectorView, preview: &DrainPreview) -> Vec<String> {
    let flows = preview.flows.first();
    let active = flows.and_then(|flows| flows.active).unwrap_or_default();
    let mut notes = vec![match (active, flows.and_then(|flows| flows.percent)) {
        (0, _) => "No active connections here.".to_owned(),
        (active, None) => format!("{} active connections here.", Count(active)),
        (active, Some(percent)) => format!(
            "{} active connections here, {percent:.0} % of the cluster's.",
            Count(active)
        ),
    }];
    if active > 0 {
        notes.extend(fate_of_connections(view, preview));
    }
    if director.state == ViewState::Unknown {
        notes.push(
            "Its agent is silent: it may go on announcing until it is heard of again.".to_owned(),
        );
    }
    notes
}

/// What becomes of the connections of the VIPs that this director announces.
fn fate_of_connections(view: &ClusterView, preview: &DrainPreview) -> Vec<String> {
    let here = preview.left.iter().filter(|vip| vip.after < vip.now);
    let (ends, moves): (Vec<_>, Vec<_>) = here.partition(|vip| vip.after == 0);
    let names = |vips: Vec<&LeftView>| -> Vec<String> {
        vips.into_iter().map(|vip| vip.object.clone()).collect()
    };
    let (ends, moves) = (names(ends), names(moves));
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
        .filter(|s| moves.contains(&s.service.vip.to_string()) && !s.scheduler.starts_with("mh"))
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
    use isopath_api::operation::{FlowsView, GuardView, StepName};

    use super::*;
    use crate::pages::fixture;

    /// What the API would say of a drain in this cluster.
    fn preview(view: &ClusterView, index: usize) -> DrainPreview {
        let drained = &view.directors[index];
        let left = |vip: &isopath_api::view::VipView| {
            let directors = vip.real.iter().filter(|name| **name != drained.name);
            let directors: Vec<_> = directors.cloned().collect();
            LeftView {
                object: vip.vip.to_string(),
                unit: "directors".to_owned(),
                now: vip.real.len() as u64,
                after: directors.len() as u64,
                directors,
            }
        };
        DrainPreview {
            kind: "director.drain".to_owned(),
            cluster: view.name.clone(),
            target: drained.name.to_string(),
            admitted: true,
            refusal: String::new(),
            guards: Vec::new(),
            left: view.vips.iter().map(left).collect(),
            flows: vec![FlowsView {
                director: drained.name.clone(),
                active: Some(drained.active),
                inactive: Some(0),
                pps: None,
                percent: Some(24.6),
            }],
            steps: vec![StepPreview {
                step: StepName::Set,
                waits_for: "no other director's database lists d2".to_owned(),
            }],
        }
    }

    fn page(view: &ClusterView, index: usize) -> String {
        let (director, preview) = (&view.directors[index], preview(view, index));
        Page::new(view, director, &preview, fixture::session()).to_string()
    }

    /// Someone who may pass over a guard.
    fn admin() -> Session {
        let mut session = fixture::session();
        session.role = Role::Admin;
        session
    }

    #[test]
    fn the_effect_is_shown_before_the_button() {
        let (view, session) = (fixture::healthy(), fixture::session());
        let csrf = format!(r#"name="csrf" value="{}""#, session.csrf_token());
        let preview = preview(&view, 1);
        let text = Page::new(&view, &view.directors[1], &preview, session).to_string();
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
        let lost = preview(&view, 0);
        assert_eq!(
            effect(&lost.left[0]).status,
            Status::new(Kind::Down, "Lost")
        );
        let notes = notes(&view, &view.directors[0], &lost);
        assert_eq!(
            notes,
            [
                "3,001 active connections here, 25 % of the cluster's.",
                "Those to 10.99.0.1 end."
            ]
        );
        view.vips[0].real = vec![
            view.directors[0].name.clone(),
            view.directors[2].name.clone(),
        ];
        let effect = super::effect(&preview(&view, 0).left[0]);
        assert!(
            effect.text.contains("stays on 1 of 2 directors: d3"),
            "{effect:?}"
        );
    }

    #[test]
    fn what_the_api_s_preview_says_is_what_is_shown() {
        let view = fixture::healthy();
        let mut said = preview(&view, 1);
        said.guards = vec![GuardView {
            guard: "rollout".to_owned(),
            allows: false,
            overridden: false,
            detail: "a change is being rolled out".to_owned(),
        }];
        let text = Page::new(&view, &view.directors[1], &said, admin()).to_string();
        for expected in [
            "a change is being rolled out",
            r#"name="override_guards" value="rollout""#,
            "no other director&#39;s database lists d2",
            "25 % of the cluster&#39;s",
        ] {
            assert!(text.contains(expected), "no {expected:?} in {text}");
        }
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
        let shown_to = |role| {
            let mut session = fixture::session();
            session.role = role;
            let page = Page {
                reason: form.reason.clone(),
                refusal: Some(Refusal {
                    detail: error.to_string(),
                    guards: error.problem().guards.join(","),
                }),
                ..Page::new(&view, &view.directors[0], &preview(&view, 0), session)
            };
            page.to_string()
        };
        let text = shown_to(Role::Operator);
        assert!(text.contains("An admin may override this"), "{text}");
        assert!(!text.contains("override_guards"), "{text}");
        let text = shown_to(Role::Admin);
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
            ..DrainRequest::default()
        };
        assert_eq!(form.request(), wanted);
    }
}
