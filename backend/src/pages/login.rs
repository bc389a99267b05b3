//! `/login` and `/logout`.

use askama::Template;
use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use jiff::Timestamp;
use serde::Deserialize;

use super::layout::{Layout, error_page, html, unreadable_form, why};
use super::signed_in::SignedIn;
use crate::app::{App, Peer};
use crate::auth::Principal;
use crate::error::Error;

#[derive(Template)]
#[template(path = "login.html")]
struct Page {
    layout: Layout,
    user: String,
    /// The page to go to afterwards.
    next: String,
    /// Why the last try failed.
    failed: Option<String>,
}

impl Page {
    fn new(user: String, next: &str, failed: Option<String>) -> Self {
        Self {
            layout: Layout::new("Sign in", Timestamp::now()),
            user,
            next: local(next).to_owned(),
            failed,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Whither {
    #[serde(default)]
    next: String,
}

/// `GET /login`.
pub(super) async fn get(
    State(app): State<App>,
    Query(whither): Query<Whither>,
    headers: HeaderMap,
) -> Response {
    match app.session(&headers).await {
        Ok(Some(_)) => Redirect::to(local(&whither.next)).into_response(),
        Ok(None) => html(&Page::new(String::new(), &whither.next, None)),
        Err(error) => error_page(&error, None),
    }
}

#[derive(Deserialize)]
pub(super) struct Login {
    user: String,
    password: String,
    #[serde(default)]
    next: String,
}

/// `POST /login`.
pub(super) async fn post(
    State(app): State<App>,
    Peer(peer): Peer,
    headers: HeaderMap,
    form: Result<Form<Login>, FormRejection>,
) -> Response {
    let Form(form) = match form {
        Ok(form) => form,
        Err(rejection) => return unreadable_form(&rejection, None),
    };
    match app.login(&headers, peer, &form.user, &form.password).await {
        Ok(cookie) => {
            let to = Redirect::to(local(&form.next));
            ([(header::SET_COOKIE, cookie)], to).into_response()
        }
        Err(error) => refused(&error, form),
    }
}

/// What the person can mend is said above the form; anything else is a page of its own.
fn refused(error: &Error, form: Login) -> Response {
    let said = match error {
        Error::Unauthenticated { .. } => "The name or the password is wrong.".to_owned(),
        Error::TooMany { retry_after_s } => {
            format!("Too many tries. The next one is looked at in {retry_after_s} s.")
        }
        Error::Busy => "Others are signing in right now. Try again in a second.".to_owned(),
        other => return error_page(other, None),
    };
    let page = Page::new(form.user, &form.next, Some(said));
    let mut response = why(error, (error.status(), html(&page)).into_response());
    if let Error::TooMany { retry_after_s } = error {
        let wait = (*retry_after_s).into();
        response.headers_mut().insert(header::RETRY_AFTER, wait);
    }
    response
}

#[derive(Deserialize)]
pub(super) struct Logout {
    csrf: String,
}

/// `POST /logout`.
pub(super) async fn logout(
    State(app): State<App>,
    SignedIn(session): SignedIn,
    Peer(peer): Peer,
    headers: HeaderMap,
    form: Result<Form<Logout>, FormRejection>,
) -> Response {
    let Form(form) = match form {
        Ok(form) => form,
        Err(rejection) => return unreadable_form(&rejection, Some(session)),
    };
    if let Err(error) = app.check_form(&headers, &session, &form.csrf) {
        return error_page(&error, Some(session));
    }
    let by = Principal::of_session(&session, peer).by();
    match app.logout(&headers, &by).await {
        Ok(cookie) => {
            let to = (StatusCode::SEE_OTHER, [(header::LOCATION, "/login")]);
            ([(header::SET_COOKIE, cookie)], to).into_response()
        }
        Err(error) => error_page(&error, Some(session)),
    }
}

/// The sign-in that leads to `next` afterwards.
pub(super) fn login_url(next: &str) -> String {
    match local(next) {
        "/" => "/login".to_owned(),
        path => format!("/login?next={path}"),
    }
}

/// `next` when it is a page of ours, else the first page: a link must not lead from our
/// sign-in to somebody else's. Our paths need no character that an URL would have to escape.
fn local(next: &str) -> &str {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._".contains(&b);
    if next.starts_with('/') && !next.starts_with("//") && next.bytes().all(plain) {
        next
    } else {
        "/"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signing_in_leads_to_our_own_pages_only() {
        assert_eq!(login_url("/clusters/edge"), "/login?next=/clusters/edge");
        for elsewhere in [
            "",
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "/a?b=\r\nSet-Cookie: x",
            "/%2f/evil.example",
        ] {
            assert_eq!(local(elsewhere), "/", "{elsewhere:?}");
        }
    }

    #[test]
    fn a_failed_try_keeps_the_name_and_says_why() {
        let why = "The name or the password is wrong.";
        let page = Page::new("mia<".to_owned(), "/clusters/c1", Some(why.to_owned()));
        let text = page.to_string();
        assert!(text.contains(why), "{text}");
        assert!(
            text.contains("mia&#60;"),
            "the name is kept, escaped: {text}"
        );
        assert!(text.contains(r#"value="/clusters/c1""#), "{text}");
        assert!(!text.contains("Sign out"), "nobody is signed in: {text}");
    }
}
