//! What every page has around its content.

use askama::Template;
use axum::extract::rejection::FormRejection;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use jiff::Timestamp;

use super::assets::{Assets, names};
use super::text::Moment;
use crate::asked::{self, Why};
use crate::auth::Session;
use crate::error::Error;

/// What every page has around its content.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Layout {
    pub(crate) title: String,
    pub(crate) crumbs: Vec<Crumb>,
    /// Whoever is signed in.
    pub(crate) session: Option<Session>,
    pub(crate) assets: &'static Assets,
    /// The moment that the page shows.
    pub(crate) as_of: Moment,
    /// Where its live updates come from; nothing on a page that stands still.
    pub(crate) live: Option<String>,
}

/// A step on the way to the page; the last one is the page itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Crumb {
    pub(crate) text: String,
    pub(crate) href: String,
}

impl Layout {
    pub(crate) fn new(title: impl Into<String>, now: Timestamp) -> Self {
        Self {
            title: title.into(),
            crumbs: Vec::new(),
            session: None,
            assets: names(),
            as_of: Moment::new(now, now),
            live: None,
        }
    }

    pub(crate) fn signed_in(mut self, session: Session) -> Self {
        self.session = Some(session);
        self
    }

    pub(crate) fn crumb(mut self, text: impl Into<String>, href: impl Into<String>) -> Self {
        self.crumbs.push(Crumb {
            text: text.into(),
            href: href.into(),
        });
        self
    }

    pub(crate) fn live(mut self, url: String) -> Self {
        self.live = Some(url);
        self
    }
}

/// A page that says what could not be done.
#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    layout: Layout,
    title: &'static str,
    detail: String,
    next: &'static str,
    request_id: Option<String>,
}

/// An error as a page. What went wrong inside the controller is logged under the id that the
/// page shows.
pub(crate) fn error_page(error: &Error, session: Option<Session>) -> Response {
    let status = error.status();
    let (title, next) = match status {
        StatusCode::NOT_FOUND => ("There is no such page", "Check the address."),
        StatusCode::FORBIDDEN => (
            "That was not allowed",
            "Open the page again and repeat the step from there.",
        ),
        StatusCode::CONFLICT => (
            "That does not fit the present state",
            "Go back to the cluster, which shows it.",
        ),
        StatusCode::TOO_MANY_REQUESTS => (
            "That was too much at once",
            "Wait a moment, then open the page again.",
        ),
        status if status.is_server_error() => (
            "The controller could not do that",
            "Try again in a moment. Directors go on from their last good state meanwhile.",
        ),
        _ => ("That was not understood", "Go back and try again."),
    };
    let request_id = status.is_server_error().then(|| {
        let id = asked::request_id().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        let cause = std::error::Error::source(error).map(ToString::to_string);
        tracing::error!(request_id = %id, %status, cause, "{error}");
        id
    });
    let mut layout = Layout::new(title, Timestamp::now());
    layout.session = session;
    let page = ErrorPage {
        layout,
        title,
        detail: error.to_string(),
        next,
        request_id,
    };
    let mut response = why(error, (status, html(&page)).into_response());
    if let Error::TooMany { retry_after_s } = error {
        let wait = (*retry_after_s).into();
        response.headers_mut().insert(header::RETRY_AFTER, wait);
    }
    response
}

/// An answer that says on its page why something was refused, and to the audit log as well.
pub(crate) fn why(error: &Error, mut response: Response) -> Response {
    response.extensions_mut().insert(Why(error.to_string()));
    response
}

/// A form that the browser did not fill in as the page has it.
pub(crate) fn unreadable_form(rejection: &FormRejection, session: Option<Session>) -> Response {
    let detail = format!("the form could not be read: {}", rejection.body_text());
    error_page(&Error::BadRequest { detail }, session)
}

/// A rendered page. A template can only fail by writing into memory, which does not fail.
pub(crate) fn html(page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!(%error, "rendering a page failed");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
