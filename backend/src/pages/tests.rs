//! The pages over HTTP, and what holds for every template and the style sheet.

use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use isopath_api::access::Role;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::status::Kind;
use crate::app::App;
use crate::auth::{By, COOKIE, hash_password};
use crate::clock::Clock;
use crate::control::{Apply, Precondition};
use crate::store::{Store, users};

const PASSWORD: &str = "correct horse battery";

/// A controller with one user and no cluster.
struct Server {
    router: Router,
    app: App,
    _directory: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("isopath.db").display());
        let store = Store::open(&url).await.unwrap();
        let mut transaction = store.begin().await.unwrap();
        let hash = hash_password(PASSWORD).unwrap();
        users::insert(
            &mut transaction,
            "mia",
            Role::Admin,
            &hash,
            Timestamp::now(),
        )
        .await
        .unwrap();
        transaction.commit().await.unwrap();
        let shutdown = CancellationToken::new();
        let (app, _task) = App::start(store, Clock::default(), shutdown).await.unwrap();
        Self {
            router: crate::router(app.clone()),
            app,
            _directory: directory,
        }
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn get(&self, path: &str, cookie: Option<&str>) -> Response<Body> {
        self.send(request("GET", path, cookie, String::new())).await
    }

    async fn post(&self, path: &str, cookie: Option<&str>, form: &str) -> Response<Body> {
        self.send(request("POST", path, cookie, form.to_owned()))
            .await
    }

    /// Signs in: the cookie, and the token for forms.
    async fn sign_in(&self) -> (String, String) {
        let form = format!(
            "user=mia&password={}&next=/clusters",
            PASSWORD.replace(' ', "+")
        );
        let response = self.post("/login", None, &form).await;
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        assert_eq!(location(&response), "/clusters");
        let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let mut headers = axum::http::HeaderMap::new();
        headers.insert(header::COOKIE, cookie.parse().unwrap());
        let session = self.app.session(&headers).await.unwrap().unwrap();
        (cookie, session.csrf_token().to_owned())
    }

    async fn declare(&self) {
        let declaration = serde_json::json!({
            "director": [
                { "name": "d1", "router_id": "10.0.1.2" },
                { "name": "d2", "router_id": "10.0.1.3" },
            ],
            "vip": [{ "address": "10.99.0.1" }],
        });
        let declaration = serde_json::from_value(declaration).unwrap();
        let cluster = "edge".parse().unwrap();
        let apply = Apply {
            cluster,
            declaration,
            by: By::command(),
            reason: String::new(),
            dry_run: false,
            expected: Precondition::None,
            override_guards: Vec::new(),
            key: None,
        };
        self.app.control().apply(apply).await.unwrap();
    }
}

fn request(method: &str, path: &str, cookie: Option<&str>, form: String) -> Request<Body> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "127.0.0.1:8080")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    if let Some(cookie) = cookie {
        request = request.header(header::COOKIE, cookie);
    }
    request.body(Body::from(form)).unwrap()
}

fn location(response: &Response<Body>) -> &str {
    response.headers()[header::LOCATION].to_str().unwrap()
}

async fn body(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn every_page_needs_a_session_and_leads_back_after_the_sign_in() {
    let server = Server::start().await;
    server.declare().await;
    for path in [
        "/",
        "/clusters",
        "/clusters/edge",
        "/clusters/edge/directors/d1/drain",
        "/clusters/no-such",
    ] {
        let response = server.get(path, None).await;
        assert_eq!(response.status(), StatusCode::SEE_OTHER, "{path}");
        let wanted = match path {
            "/" => "/login".to_owned(),
            path => format!("/login?next={path}"),
        };
        assert_eq!(location(&response), wanted);
    }
    let forged = format!("{COOKIE}=00");
    let response = server.get("/clusters", Some(&forged)).await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER, "a made-up cookie");
    let response = server.get("/live?page=cluster&cluster=edge", None).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_wrong_password_is_said_and_sets_no_cookie() {
    let server = Server::start().await;
    let form = "user=mia&password=wrong-but-long-enough&next=/clusters/edge";
    let response = server.post("/login", None, form).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(!response.headers().contains_key(header::SET_COOKIE));
    let html = body(response).await;
    assert!(
        html.contains("The name or the password is wrong."),
        "{html}"
    );
    assert!(
        html.contains(r#"name="next" value="/clusters/edge""#),
        "{html}"
    );
    let response = server.post("/login", None, "user=mia").await;
    assert_eq!(
        response.status(),
        StatusCode::BAD_REQUEST,
        "a form cut short"
    );
}

#[tokio::test]
async fn the_root_leads_to_the_only_cluster_or_to_the_list() {
    let server = Server::start().await;
    let (cookie, _) = server.sign_in().await;
    let response = server.get("/", Some(&cookie)).await;
    assert_eq!(location(&response), "/clusters");
    let html = body(server.get("/clusters", Some(&cookie)).await).await;
    assert!(html.contains("isopath apply"), "{html}");
    server.declare().await;
    let response = server.get("/", Some(&cookie)).await;
    assert_eq!(location(&response), "/clusters/edge");
    let response = server.get("/clusters/edge", Some(&cookie)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let policy = response.headers()[header::CONTENT_SECURITY_POLICY].clone();
    assert!(policy.to_str().unwrap().starts_with("default-src 'none'"));
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    assert!(body(response).await.contains("10.99.0.1"));
    for missing in ["/clusters/other", "/clusters/%3Cscript%3E"] {
        let response = server.get(missing, Some(&cookie)).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{missing}");
        assert!(!body(response).await.contains("<script>"));
    }
}

#[tokio::test]
async fn a_form_without_the_session_s_token_changes_nothing() {
    let server = Server::start().await;
    server.declare().await;
    let (cookie, _) = server.sign_in().await;
    for path in [
        "/clusters/edge/directors/d1/drain",
        "/clusters/edge/directors/d1/undrain",
        "/logout",
    ] {
        for form in ["csrf=", "csrf=0123", "csrf=0123&reason=x"] {
            let response = server.post(path, Some(&cookie), form).await;
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path} {form}");
        }
        let response = server.post(path, Some(&cookie), "reason=x").await;
        assert_ne!(response.status(), StatusCode::SEE_OTHER, "{path}");
        let response = server.post(path, None, "csrf=0123").await;
        assert!(location(&response).starts_with("/login"), "{path}");
    }
    let view = server.app.cluster_view(&"edge".parse().unwrap()).unwrap();
    assert_eq!(view.operations, []);
    let response = server.get("/clusters", Some(&cookie)).await;
    assert_eq!(response.status(), StatusCode::OK, "still signed in");
}

#[tokio::test]
async fn a_drain_that_a_guard_refuses_can_be_overridden_with_a_reason() {
    let server = Server::start().await;
    server.declare().await;
    let (cookie, csrf) = server.sign_in().await;
    let path = "/clusters/edge/directors/d1/drain";

    // Nothing was heard of either director, so either may be the last announcer.
    let html = body(server.get(path, Some(&cookie)).await).await;
    assert!(
        html.contains("no other director is known to announce"),
        "{html}"
    );
    let form = format!("csrf={csrf}&reason=kernel");
    let response = server.post(path, Some(&cookie), &form).await;
    assert_eq!(response.status(), StatusCode::CONFLICT);
    let html = body(response).await;
    assert!(
        html.contains(r#"name="override_guards" value="last_announcer""#),
        "{html}"
    );
    assert!(
        html.contains(r#"value="kernel""#),
        "what was typed is kept: {html}"
    );

    let form = format!("csrf={csrf}&reason=++&override_guards=last_announcer");
    let response = server.post(path, Some(&cookie), &form).await;
    assert_eq!(
        response.status(),
        StatusCode::CONFLICT,
        "an override needs a reason"
    );

    let form = format!("csrf={csrf}&reason=kernel&override_guards=last_announcer");
    let response = server.post(path, Some(&cookie), &form).await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    assert_eq!(location(&response), "/clusters/edge#director-d1");
    let html = body(server.get("/clusters/edge", Some(&cookie)).await).await;
    assert!(
        html.contains("/clusters/edge/directors/d1/undrain"),
        "{html}"
    );

    let undrain = "/clusters/edge/directors/d1/undrain";
    let form = format!("csrf={csrf}");
    let response = server.post(undrain, Some(&cookie), &form).await;
    assert_eq!(location(&response), "/clusters/edge#director-d1");
    let response = server.post(undrain, Some(&cookie), &form).await;
    assert_eq!(
        response.status(),
        StatusCode::CONFLICT,
        "it is in service already"
    );
}

#[tokio::test]
async fn a_stream_starts_with_the_time_and_every_section_and_needs_a_session() {
    let server = Server::start().await;
    server.declare().await;
    let (cookie, csrf) = server.sign_in().await;
    let live = "/live?page=cluster&cluster=edge";
    let response = server.get(live, Some(&cookie)).await;
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "text/event-stream"
    );
    let mut stream = response.into_body();
    let mut events = String::new();
    while !events.contains("id=\"events\"") {
        let data = stream.frame().await.unwrap().unwrap().into_data().unwrap();
        events.push_str(std::str::from_utf8(&data).unwrap());
    }
    assert!(events.starts_with("event: tick\ndata: 20"), "{events}");
    assert_eq!(events.matches("event: frag\n").count(), 9, "{events}");

    let form = format!("csrf={csrf}");
    let response = server.post("/logout", Some(&cookie), &form).await;
    assert_eq!(location(&response), "/login");
    let response = server.get("/clusters", Some(&cookie)).await;
    assert_eq!(location(&response), "/login?next=/clusters");
    let response = server.get(live, Some(&cookie)).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

fn web() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../web")
}

fn templates() -> Vec<(PathBuf, String)> {
    let mut folders = vec![web().join("templates")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

#[test]
fn no_template_has_inline_script_or_style_or_unescaped_text() {
    let templates = templates();
    assert!(templates.len() > 10, "the templates were not found");
    for (path, text) in templates {
        for banned in [
            "<style",
            " style=",
            "<script>",
            "javascript:",
            "|safe",
            "| safe",
        ] {
            assert!(!text.contains(banned), "{banned} in {}", path.display());
        }
        let handler = text.split(" on").skip(1).find(|rest| {
            let word = rest.trim_start_matches(|c: char| c.is_ascii_alphabetic());
            word.len() < rest.len() && word.starts_with("=\"")
        });
        assert_eq!(handler, None, "an event handler in {}", path.display());
        for elsewhere in ["src=\"http", "href=\"http", "url(http"] {
            assert!(
                !text.contains(elsewhere),
                "{elsewhere} in {}",
                path.display()
            );
        }
    }
}

#[test]
fn every_kind_of_status_has_its_glyph_and_its_colour() {
    let css = std::fs::read_to_string(web().join("assets/app.css")).unwrap();
    let glyphs = std::fs::read_to_string(web().join("templates/glyphs.html")).unwrap();
    for kind in Kind::ALL {
        let class = kind.class();
        assert!(
            css.contains(&format!(".status.{class}")),
            "no colour for {class}"
        );
        let glyph = format!("id=\"glyph-{class}\"");
        assert!(glyphs.contains(&glyph), "no glyph for {class}");
    }
}

/// The value of a token in a theme's block.
fn token(block: &str, name: &str) -> [f64; 3] {
    let start = format!("--{name}: #");
    let hex = block
        .split(&start)
        .nth(1)
        .unwrap_or_else(|| panic!("no --{name}"));
    let channel = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    [channel(0), channel(2), channel(4)].map(|c| f64::from(c) / 255.0)
}

/// WCAG 2.2, relative luminance and contrast ratio.
fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
    let linear = |c: f64| {
        if c <= 0.04045 {
            c / 12.92
        } else {
            ((c + 0.055) / 1.055).powf(2.4)
        }
    };
    let luminance =
        |[r, g, b]: [f64; 3]| 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
    a.max(b) / a.min(b)
}

#[test]
fn the_style_sheet_s_colours_can_be_read_in_both_themes() {
    assert!((contrast([0.0; 3], [1.0; 3]) - 21.0).abs() < 1e-9);
    let css = std::fs::read_to_string(web().join("assets/app.css")).unwrap();
    let dark = css
        .split("@media (prefers-color-scheme: dark)")
        .nth(1)
        .unwrap();
    for (theme, block) in [("light", css.as_str()), ("dark", dark)] {
        let mut pairs = Vec::new();
        for text in ["text", "muted", "accent", "ok", "warn", "bad", "drain"] {
            pairs.push((text, "surface", 4.5));
            pairs.push((text, "bg", 4.5));
        }
        for text in ["ok", "warn", "bad", "drain"] {
            pairs.push((
                text,
                match text {
                    "ok" => "ok-tint",
                    "warn" => "warn-tint",
                    "bad" => "bad-tint",
                    _ => "drain-tint",
                },
                4.5,
            ));
        }
        for tint in ["warn-tint", "bad-tint", "drain-tint"] {
            pairs.push(("text", tint, 4.5));
            pairs.push(("muted", tint, 4.5));
        }
        pairs.push(("control", "surface", 3.0));
        pairs.push(("accent", "surface", 3.0));
        for (text, ground, least) in pairs {
            let ratio = contrast(token(block, text), token(block, ground));
            assert!(ratio >= least, "{theme}: {text} on {ground} is {ratio:.2}");
        }
    }
}
