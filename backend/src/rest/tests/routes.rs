//! Every route, and who may use it.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use isopath_api::access::Role;
use serde_json::json;

use crate::asked::OPEN;
use crate::auth::By;
use crate::rest::openapi;
use crate::store::tokens::{Clusters, Scope};
use crate::store::users;
use crate::testing::{Server, make_token, other_declaration_json, request};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum May {
    /// Whoever asks.
    Anyone,
    /// Whoever has at least this role, where the cluster is one of theirs.
    Role(Role),
    /// An admin of all clusters.
    AdminOfAll,
    /// Whoever is signed in; a token is nobody here.
    SignedIn,
    /// An agent, or an admin in its place.
    Agent,
    /// An agent that shows its certificate.
    Certificate,
}

const VIEWER: May = May::Role(Role::Viewer);
const OPERATOR: May = May::Role(Role::Operator);

/// The routes of the API below `/api/v1`.
const API: &[(&str, &str, May)] = &[
    ("GET", "/clusters", VIEWER),
    ("GET", "/clusters/{cluster}", VIEWER),
    ("PUT", "/clusters/{cluster}", OPERATOR),
    ("GET", "/clusters/{cluster}/declaration", VIEWER),
    ("GET", "/clusters/{cluster}/revisions", VIEWER),
    ("GET", "/clusters/{cluster}/revisions/{revision}", VIEWER),
    (
        "GET",
        "/clusters/{cluster}/revisions/{revision}/diff",
        VIEWER,
    ),
    (
        "POST",
        "/clusters/{cluster}/revisions/{revision}/rollback",
        OPERATOR,
    ),
    ("GET", "/clusters/{cluster}/vips", VIEWER),
    ("POST", "/clusters/{cluster}/vips/{vip}/drain", OPERATOR),
    ("POST", "/clusters/{cluster}/vips/{vip}/undrain", OPERATOR),
    ("GET", "/clusters/{cluster}/ecmp", VIEWER),
    ("GET", "/clusters/{cluster}/services", VIEWER),
    ("GET", "/clusters/{cluster}/samples", VIEWER),
    ("GET", "/clusters/{cluster}/directors", VIEWER),
    ("GET", "/clusters/{cluster}/directors/{director}", VIEWER),
    (
        "POST",
        "/clusters/{cluster}/directors/{director}/drain",
        OPERATOR,
    ),
    (
        "POST",
        "/clusters/{cluster}/directors/{director}/undrain",
        OPERATOR,
    ),
    (
        "GET",
        "/clusters/{cluster}/directors/{director}/desired",
        May::Agent,
    ),
    (
        "POST",
        "/clusters/{cluster}/directors/{director}/observed",
        May::Agent,
    ),
    ("GET", "/clusters/{cluster}/real-servers", VIEWER),
    (
        "GET",
        "/clusters/{cluster}/real-servers/{real_server}",
        VIEWER,
    ),
    (
        "POST",
        "/clusters/{cluster}/real-servers/{real_server}/drain",
        OPERATOR,
    ),
    (
        "POST",
        "/clusters/{cluster}/real-servers/{real_server}/undrain",
        OPERATOR,
    ),
    ("GET", "/operations", VIEWER),
    ("GET", "/operations/{operation}", VIEWER),
    ("POST", "/operations/{operation}/cancel", OPERATOR),
    ("GET", "/events", VIEWER),
    ("GET", "/agents", VIEWER),
    ("POST", "/agents/{id}/revoke", May::AdminOfAll),
    ("POST", "/agents/renew", May::Certificate),
    ("POST", "/enroll-tokens", May::AdminOfAll),
    ("POST", "/enroll", May::Anyone),
    ("GET", "/users", May::AdminOfAll),
    ("POST", "/users", May::AdminOfAll),
    ("GET", "/users/{name}", May::AdminOfAll),
    ("PATCH", "/users/{name}", May::AdminOfAll),
    ("DELETE", "/users/{name}", May::AdminOfAll),
    ("POST", "/users/me/password", May::SignedIn),
    ("GET", "/tokens", May::AdminOfAll),
    ("POST", "/tokens", May::AdminOfAll),
    ("DELETE", "/tokens/{name}", May::AdminOfAll),
    ("GET", "/sessions", May::AdminOfAll),
    ("DELETE", "/sessions/{name}", May::AdminOfAll),
    ("GET", "/audit", May::AdminOfAll),
];

/// The pages' routes; a token is nobody there.
const PAGES: &[(&str, &str, May)] = &[
    ("GET", "/", VIEWER),
    ("GET", "/login", May::Anyone),
    ("POST", "/login", May::Anyone),
    ("POST", "/logout", VIEWER),
    ("GET", "/clusters", VIEWER),
    ("GET", "/clusters/{cluster}", VIEWER),
    (
        "GET",
        "/clusters/{cluster}/directors/{director}/drain",
        OPERATOR,
    ),
    (
        "POST",
        "/clusters/{cluster}/directors/{director}/drain",
        OPERATOR,
    ),
    (
        "POST",
        "/clusters/{cluster}/directors/{director}/undrain",
        OPERATOR,
    ),
    ("GET", "/live", VIEWER),
    ("GET", "/assets/{name}", May::Anyone),
];

/// What is neither of them.
const BESIDES: [&str; 4] = ["/api/openapi.json", "/healthz", "/metrics", "/readyz"];

const ROLES: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];

/// The path of a route about what is there.
fn path(template: &str, operation: &str) -> String {
    let query = match template {
        "/live" => "?page=cluster&cluster=edge",
        _ => "",
    };
    let path = template
        .replace("{cluster}", "edge")
        .replace("{director}", "d1")
        .replace("{vip}", "10.99.0.1")
        .replace("{real_server}", "10.1.0.11")
        .replace("{revision}", "1")
        .replace("{operation}", operation)
        .replace("{id}", "4f1c7d0e-0000-4000-8000-000000000000")
        .replace("{name}", "nobody");
    path + query
}

/// A request of a route of the API. Its body is one that no route takes: nothing is changed.
fn ask((method, template): (&str, &str), operation: &str, token: Option<&str>) -> Request<Body> {
    let body = (method != "GET").then(|| json!({ "bogus": 1 }));
    let path = format!("/api/v1{}", path(template, operation));
    request(method, &path, token, body.as_ref())
}

/// Two clusters, and an operation of the first.
async fn serving() -> (Server, String) {
    let server = Server::start().await;
    server.declare(2).await;
    let other = other_declaration_json(1);
    let answer = server.call("PUT", "clusters/other", &other).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    let all = [
        "last_announcer",
        "min_directors",
        "rollout",
        "witness",
        "quorum",
    ];
    let body = json!({ "reason": "to have one", "override_guards": all });
    let path = "clusters/edge/directors/d2/drain";
    let answer = server.call("POST", path, &body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    let id = answer.json["id"].as_str().unwrap().to_owned();
    (server, id)
}

/// Somebody of a role who is signed in: their cookie, and their session's token.
async fn signed_in(server: &Server, role: Role) -> (String, String) {
    let (app, now) = (&server.app, server.app.clock().now().wall);
    let name = format!("a-{role}");
    let by = By {
        name: name.clone(),
        ..By::command()
    };
    let mut transaction = app.store().begin().await.unwrap();
    let made = users::insert(&mut transaction, &name, role, "no hash", now).await;
    assert!(made.unwrap());
    let set = app.start_session(&mut transaction, &by, now).await.unwrap();
    transaction.commit().await.unwrap();
    let cookie = set.to_str().unwrap().split(';').next().unwrap().to_owned();
    let mut headers = axum::http::HeaderMap::new();
    headers.insert(header::COOKIE, cookie.parse().unwrap());
    let session = app.session(&headers).await.unwrap().unwrap();
    (cookie, session.csrf_token().to_owned())
}

/// Whether an answer is that whoever asked may not; which of the two it then has to be.
async fn is_refused(server: &Server, request: Request<Body>) -> Option<StatusCode> {
    let status = server.status(request).await;
    [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN]
        .contains(&status)
        .then_some(status)
}

#[test]
fn no_route_is_missing_here() {
    let document = serde_json::to_value(openapi::document()).unwrap();
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.strip_prefix("/api/v1").unwrap();
        let methods = methods.as_object().unwrap().keys();
        described.extend(methods.map(|method| (method.to_uppercase(), path.to_owned())));
    }
    let here = |&(method, path, _): &(&str, &str, May)| (method.to_owned(), path.to_owned());
    assert_eq!(API.iter().map(here).collect::<BTreeSet<_>>(), described);
    // The router does not tell what it has.
    let written = [
        include_str!("../mod.rs"),
        include_str!("../../pages/mod.rs"),
    ];
    let written = written
        .iter()
        .flat_map(|source| source.split(".route(").skip(1));
    let written: BTreeSet<_> = written.filter_map(|rest| rest.split('"').nth(1)).collect();
    let pages = PAGES.iter().map(|(_, path, _)| *path);
    assert_eq!(pages.chain(BESIDES).collect::<BTreeSet<_>>(), written);
}

#[tokio::test]
async fn what_is_open_is_told_as_such_and_nothing_else_is_open() {
    let (server, operation) = serving().await;
    for &(method, template, may) in API {
        let refused = is_refused(&server, ask((method, template), &operation, None)).await;
        let is_open = OPEN.contains(&format!("/api/v1{template}").as_str());
        assert_eq!(may == May::Anyone, is_open, "{method} {template}");
        let expected = (!is_open).then_some(StatusCode::UNAUTHORIZED);
        assert_eq!(refused, expected, "{method} {template}");
    }
    let token = Some(server.operator.as_str());
    for &(method, template, may) in PAGES {
        assert_eq!(may == May::Anyone, OPEN.contains(&template), "{template}");
        for token in [None, token] {
            let request = request(method, &path(template, ""), token, None);
            let status = server.status(request).await;
            match (may, template) {
                (May::Anyone, _) => {}
                (_, "/live") => assert_eq!(status, StatusCode::UNAUTHORIZED),
                // To the sign-in.
                _ => assert_eq!(status, StatusCode::SEE_OTHER, "{method} {template}"),
            }
        }
    }
}

#[tokio::test]
async fn a_token_may_use_the_routes_of_its_role_in_its_clusters() {
    let (server, operation) = serving().await;
    let store = server.app.store();
    for role in ROLES {
        let token = make_token(store, &format!("a-{role}"), Scope::of(role)).await;
        for &(method, template, may) in API {
            let request = ask((method, template), &operation, Some(&token));
            let expected = match may {
                May::Anyone => None,
                May::Role(least) => (role < least).then_some(StatusCode::FORBIDDEN),
                May::AdminOfAll | May::Agent => {
                    (role < Role::Admin).then_some(StatusCode::FORBIDDEN)
                }
                May::SignedIn => Some(StatusCode::FORBIDDEN),
                May::Certificate => Some(StatusCode::UNAUTHORIZED),
            };
            let refused = is_refused(&server, request).await;
            assert_eq!(refused, expected, "{role}: {method} {template}");
        }
    }
    let elsewhere = || Clusters::Only(["other".parse().unwrap()].into());
    let narrow = Scope::User {
        role: Role::Admin,
        clusters: elsewhere(),
    };
    let narrow = make_token(store, "narrow", narrow).await;
    let cluster = "other".parse().unwrap();
    let agent_there = make_token(store, "there", Scope::Agent { cluster }).await;
    for &(method, template, may) in API {
        let asked = (method, template);
        let refused = is_refused(&server, ask(asked, &operation, Some(&narrow))).await;
        let is_of_edge = template.contains("{cluster}") || template.contains("{operation}");
        let expected = match may {
            May::Role(_) if !is_of_edge => None,
            May::Anyone => None,
            May::Certificate => Some(StatusCode::UNAUTHORIZED),
            _ => Some(StatusCode::FORBIDDEN),
        };
        assert_eq!(refused, expected, "an admin elsewhere: {method} {template}");
        for (agent, is_here) in [(&server.agent, true), (&agent_there, false)] {
            let refused = is_refused(&server, ask(asked, &operation, Some(agent))).await;
            let expected = match may {
                May::Anyone => None,
                May::Agent if is_here => None,
                May::Certificate => Some(StatusCode::UNAUTHORIZED),
                _ => Some(StatusCode::FORBIDDEN),
            };
            assert_eq!(refused, expected, "an agent: {method} {template}");
        }
    }
}

#[tokio::test]
async fn what_is_listed_is_of_ones_own_clusters() {
    let (server, _) = serving().await;
    let report = server.report(&crate::testing::observed(1, &[])).await;
    assert_eq!(report.status, StatusCode::OK, "{}", report.text);
    let elsewhere = Scope::User {
        role: Role::Admin,
        clusters: Clusters::Only(["other".parse().unwrap()].into()),
    };
    let narrow = make_token(server.app.store(), "narrow", elsewhere).await;
    for list in ["clusters", "operations", "agents", "events"] {
        let all = server.get(list).await;
        assert!(all.text.contains("edge"), "{list}: {}", all.text);
        let request = request("GET", list, Some(&narrow), None);
        let own = server.send(request).await;
        assert_eq!(own.status, StatusCode::OK, "{list}: {}", own.text);
        assert!(!own.text.contains("edge"), "{list}: {}", own.text);
    }
}

#[tokio::test]
async fn a_session_may_use_the_routes_of_its_role_and_change_with_its_token_only() {
    let (server, operation) = serving().await;
    for role in ROLES {
        let (cookie, csrf) = signed_in(&server, role).await;
        let with_cookie = |mut request: Request<Body>, csrf: Option<&str>| {
            let headers = request.headers_mut();
            headers.insert(header::COOKIE, cookie.parse().unwrap());
            if let Some(csrf) = csrf {
                headers.insert("x-csrf-token", csrf.parse().unwrap());
            }
            request
        };
        for &(method, template, may) in API {
            let asked = || ask((method, template), &operation, None);
            let refused = is_refused(&server, with_cookie(asked(), Some(&csrf))).await;
            let expected = match may {
                May::Anyone | May::SignedIn => None,
                May::Role(least) => (role < least).then_some(StatusCode::FORBIDDEN),
                May::AdminOfAll => (role < Role::Admin).then_some(StatusCode::FORBIDDEN),
                May::Agent | May::Certificate => Some(StatusCode::UNAUTHORIZED),
            };
            assert_eq!(refused, expected, "{role}: {method} {template}");
            if method != "GET" && may != May::Anyone {
                for wrong in [None, Some("0123")] {
                    let refused = is_refused(&server, with_cookie(asked(), wrong)).await;
                    assert!(refused.is_some(), "{role}, {wrong:?}: {method} {template}");
                }
            }
        }
        for &(method, template, may) in PAGES {
            let May::Role(least) = may else { continue };
            let mut asked = request(method, &path(template, ""), None, None);
            if method == "POST" {
                let form = "application/x-www-form-urlencoded".parse().unwrap();
                asked.headers_mut().insert(header::CONTENT_TYPE, form);
                *asked.body_mut() = Body::from("csrf=0123");
            }
            let refused = is_refused(&server, with_cookie(asked, None)).await;
            let is_refused = role < least || method == "POST";
            let expected = is_refused.then_some(StatusCode::FORBIDDEN);
            assert_eq!(refused, expected, "{role}: {method} {template}");
        }
    }
}
