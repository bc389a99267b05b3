//! People, tokens and sessions over HTTP.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use isopath_api::access::Role;
use serde_json::{Value, json};

use crate::auth::LimitSettings;
use crate::store::tokens::Scope;
use crate::testing::{Answer, Server, from_host, make_token, observed, request};

const PASSWORD: &str = "correct horse battery";

async fn user(server: &Server, name: &str, role: &str) -> Answer {
    let body = json!({ "name": name, "role": role, "password": PASSWORD });
    let answer = server.call("POST", "users", &body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    answer
}

/// Signs in on the page: the cookie, as a browser sends it back.
async fn sign_in(server: &Server, name: &str, password: &str) -> Option<String> {
    let form = format!("user={name}&password={}", password.replace(' ', "+"));
    let request = Request::builder()
        .method(Method::POST)
        .uri("/login")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(form))
        .unwrap();
    let answer = server.send(request).await;
    let set = answer.headers.get(header::SET_COOKIE)?;
    let pair = set.to_str().unwrap().split(';').next().unwrap();
    Some(pair.to_owned())
}

async fn with_cookie(
    server: &Server,
    cookie: &str,
    (method, path): (&str, &str),
    body: Option<&Value>,
    csrf: Option<&str>,
) -> Answer {
    let mut request = request(method, path, None, body);
    let headers = request.headers_mut();
    headers.insert(header::COOKIE, cookie.parse().unwrap());
    headers.insert("sec-fetch-site", "same-origin".parse().unwrap());
    if let Some(csrf) = csrf {
        headers.insert("x-csrf-token", csrf.parse().unwrap());
    }
    server.send(request).await
}

async fn csrf(server: &Server, cookie: &str) -> String {
    let mut headers = axum::http::HeaderMap::new();
    headers.insert(header::COOKIE, cookie.parse().unwrap());
    let session = server.app.session(&headers).await.unwrap().unwrap();
    session.csrf_token().to_owned()
}

#[tokio::test]
async fn a_page_script_reads_with_its_cookie_and_changes_with_its_token() {
    let server = Server::start().await;
    user(&server, "ada", "admin").await;
    let cookie = sign_in(&server, "ada", PASSWORD).await.unwrap();
    let answer = with_cookie(&server, &cookie, ("GET", "users"), None, None).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let new = json!({ "name": "bob", "role": "viewer", "password": PASSWORD });
    let post = ("POST", "users");
    let answer = with_cookie(&server, &cookie, post, Some(&new), None).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text);
    let csrf = csrf(&server, &cookie).await;
    let answer = with_cookie(&server, &cookie, post, Some(&new), Some(&csrf)).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    let mut elsewhere = request("POST", "users", None, Some(&new));
    let headers = elsewhere.headers_mut();
    headers.insert(header::COOKIE, cookie.parse().unwrap());
    headers.insert("x-csrf-token", csrf.parse().unwrap());
    headers.insert("sec-fetch-site", "cross-site".parse().unwrap());
    let answer = server.send(elsewhere).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text);
}

#[tokio::test]
async fn people_are_made_changed_and_removed_and_their_sessions_end() {
    let server = Server::start().await;
    user(&server, "root", "admin").await;
    let body = json!({ "name": "ada", "role": "viewer" });
    let made = server.call("POST", "users", &body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let password = made.json["password"].as_str().unwrap().to_owned();
    let again = server.call("POST", "users", &body).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{}", again.text);
    for (change, expected) in [
        (json!({ "role": "operator" }), "operator"),
        (json!({ "role": "viewer" }), "viewer"),
    ] {
        let cookie = sign_in(&server, "ada", &password).await.unwrap();
        let answer = server.call("PATCH", "users/ada", &change).await;
        assert_eq!(answer.json["role"], expected, "{}", answer.text);
        let answer = with_cookie(&server, &cookie, ("GET", "clusters"), None, None).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text);
    }
    let cookie = sign_in(&server, "ada", &password).await.unwrap();
    let disabled = json!({ "disabled": true });
    server.call("PATCH", "users/ada", &disabled).await;
    let answer = with_cookie(&server, &cookie, ("GET", "clusters"), None, None).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text);
    assert_eq!(sign_in(&server, "ada", &password).await, None);
    let answer = server.call("DELETE", "users/ada", &Value::Null).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
    assert_eq!(server.get("users/ada").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_last_admin_stays() {
    let server = Server::start().await;
    user(&server, "root", "admin").await;
    for (method, body) in [
        ("PATCH", json!({ "role": "operator" })),
        ("PATCH", json!({ "disabled": true })),
        ("DELETE", Value::Null),
    ] {
        let answer = server.call(method, "users/root", &body).await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{method} {body}");
    }
    let answer = server.get("users/root").await;
    assert_eq!(answer.json["role"], "admin", "nothing was changed");
    assert_eq!(answer.json["disabled"], false);
    user(&server, "second", "admin").await;
    let answer = server.call("DELETE", "users/root", &Value::Null).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
}

#[tokio::test]
async fn bad_people_and_tokens_are_refused_with_a_pointer() {
    let server = Server::start().await;
    let long = "x".repeat(257);
    for (path, body, pointer) in [
        ("users", json!({ "name": "a b", "role": "viewer" }), "/name"),
        ("users", json!({ "name": "me", "role": "viewer" }), "/name"),
        ("users", json!({ "name": "ada", "role": "king" }), "/role"),
        (
            "users",
            json!({ "name": "ada", "role": "viewer", "password": "short" }),
            "/password",
        ),
        (
            "users",
            json!({ "name": "ada", "role": "viewer", "password": long }),
            "/password",
        ),
        (
            "tokens",
            json!({ "name": "t", "role": "agent" }),
            "/clusters",
        ),
        (
            "tokens",
            json!({ "name": "t", "role": "agent", "clusters": ["a", "b"] }),
            "/clusters",
        ),
        (
            "tokens",
            json!({ "name": "t", "role": "viewer", "clusters": [] }),
            "/clusters",
        ),
        (
            "tokens",
            json!({ "name": "t", "role": "viewer", "expires_days": 0 }),
            "/expires_days",
        ),
    ] {
        let answer = server.call("POST", path, &body).await;
        assert_eq!(
            answer.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{body}: {}",
            answer.text
        );
        assert_eq!(
            answer.json["errors"][0]["pointer"], pointer,
            "{}",
            answer.text
        );
        assert!(!answer.text.contains("short\""), "{}", answer.text);
    }
    let large = json!({ "name": "ada", "role": "viewer", "password": "x".repeat(5000) });
    let answer = server.call("POST", "users", &large).await;
    assert_eq!(
        answer.status,
        StatusCode::PAYLOAD_TOO_LARGE,
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn a_token_is_shown_once_and_good_until_it_is_revoked() {
    let server = Server::start().await;
    let body = json!({ "name": "ci", "role": "viewer", "expires_days": 90 });
    let made = server.call("POST", "tokens", &body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let token = made.json["token"].as_str().unwrap().to_owned();
    let get = async || {
        let request = request("GET", "clusters", Some(&token), None);
        server.send(request).await.status
    };
    assert_eq!(get().await, StatusCode::OK);
    let listed = server.get("tokens").await;
    assert!(!listed.text.contains(&token), "{}", listed.text);
    let names: Vec<_> = listed
        .json
        .as_array()
        .unwrap()
        .iter()
        .map(|t| &t["name"])
        .collect();
    assert_eq!(names, ["agents", "ci", "ops"]);
    let answer = server.call("DELETE", "tokens/ci", &Value::Null).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
    assert_eq!(get().await, StatusCode::UNAUTHORIZED);
    let answer = server.call("DELETE", "tokens/ci", &Value::Null).await;
    assert_eq!(
        answer.status,
        StatusCode::NOT_FOUND,
        "it is revoked already"
    );
}

#[tokio::test]
async fn only_an_admin_of_all_clusters_decides_who_may_do_what() {
    let server = Server::start().await;
    let operator = make_token(server.app.store(), "op", Scope::of(Role::Operator)).await;
    let narrow = Scope::User {
        role: Role::Admin,
        clusters: crate::store::tokens::Clusters::Only(["edge".parse().unwrap()].into()),
    };
    let narrow = make_token(server.app.store(), "narrow", narrow).await;
    for token in [&operator, &narrow] {
        for path in ["users", "tokens", "sessions", "audit"] {
            let answer = server.send(request("GET", path, Some(token), None)).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        }
    }
}

#[tokio::test]
async fn a_new_password_needs_the_old_one_and_ends_all_other_sessions() {
    let server = Server::start().await;
    user(&server, "ada", "admin").await;
    let here = sign_in(&server, "ada", PASSWORD).await.unwrap();
    let there = sign_in(&server, "ada", PASSWORD).await.unwrap();
    let csrf = csrf(&server, &here).await;
    let change = async |old: &str, new: &str| {
        let body = json!({ "old": old, "new": new });
        let post = ("POST", "users/me/password");
        with_cookie(&server, &here, post, Some(&body), Some(&csrf)).await
    };
    let wrong = change("wrong horse battery", "another horse battery").await;
    assert_eq!(wrong.status, StatusCode::FORBIDDEN, "{}", wrong.text);
    let done = change(PASSWORD, "another horse battery").await;
    assert_eq!(done.status, StatusCode::NO_CONTENT, "{}", done.text);
    let set = done.headers[header::SET_COOKIE].to_str().unwrap();
    let renewed = set.split(';').next().unwrap();
    for (cookie, expected) in [
        (here.as_str(), StatusCode::UNAUTHORIZED),
        (there.as_str(), StatusCode::UNAUTHORIZED),
        (renewed, StatusCode::OK),
    ] {
        let answer = with_cookie(&server, cookie, ("GET", "clusters"), None, None).await;
        assert_eq!(answer.status, expected, "{cookie}");
    }
    let by_token = json!({ "old": PASSWORD, "new": PASSWORD });
    let answer = server.call("POST", "users/me/password", &by_token).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text);
}

#[tokio::test]
async fn sessions_are_listed_and_ended() {
    let server = Server::start().await;
    user(&server, "ada", "admin").await;
    let cookie = sign_in(&server, "ada", PASSWORD).await.unwrap();
    let listed = server.get("sessions").await;
    assert_eq!(listed.json[0]["user"], "ada", "{}", listed.text);
    let secret = cookie.split_once('=').unwrap().1;
    assert!(!listed.text.contains(secret), "{}", listed.text);
    let path = format!("sessions/{}", listed.json[0]["id"].as_str().unwrap());
    let answer = server.call("DELETE", &path, &Value::Null).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
    let answer = with_cookie(&server, &cookie, ("GET", "clusters"), None, None).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn whoever_asks_too_often_is_told_when_to_come_back() {
    let limits = LimitSettings {
        api_per_second: 2,
        reports_per_second: 1,
        ..LimitSettings::default()
    };
    let server = Server::limited(limits).await;
    server.declare(1).await;
    let mut last = server.get("clusters").await;
    for _ in 0..200 {
        if last.status != StatusCode::OK {
            break;
        }
        last = server.get("clusters").await;
    }
    assert_eq!(last.status, StatusCode::TOO_MANY_REQUESTS, "{}", last.text);
    assert_eq!(last.json["type"], "/problems/too-many-requests");
    assert!(last.headers.contains_key(header::RETRY_AFTER));
    server.clock.advance(Duration::from_secs(2));
    assert_eq!(server.get("clusters").await.status, StatusCode::OK);
    let mut last = server.follow(observed(1, &[])).await;
    for _ in 0..200 {
        if last.status != StatusCode::OK {
            break;
        }
        last = server.follow(observed(1, &[])).await;
    }
    assert_eq!(last.status, StatusCode::TOO_MANY_REQUESTS, "{}", last.text);
}

/// Asks until the answer is that it is too often.
async fn until_too_often(server: &Server, mut ask: impl FnMut() -> Request<Body>) -> Answer {
    for _ in 0..200 {
        let answer = server.send(ask()).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            return answer;
        }
    }
    panic!("there is no limit");
}

/// How often a route was served, with which status.
async fn served(server: &Server, route: &str) -> String {
    let metrics = server.send(request("GET", "/metrics", None, None)).await;
    let route = format!("isopath_http_requests_total{{route=\"{route}\"");
    let lines = metrics.text.lines().filter(|line| line.starts_with(&route));
    lines.collect::<Vec<_>>().join("\n")
}

/// Anybody can send a header: what it says is worth nothing is as good as none.
#[tokio::test]
async fn what_nobody_knows_is_no_way_around_the_limit_of_strangers() {
    let limits = LimitSettings {
        anonymous_per_second: 1,
        ..LimitSettings::default()
    };
    let server = Server::limited(limits).await;
    server.declare(1).await;
    let unknown = crate::auth::new_token(crate::auth::TokenKind::User);
    let unknown = format!("Bearer {unknown}");
    let cookie = "isopath_session=0123456789abcdef";
    let enroll = json!({ "token": "ispe_none" });
    for (n, (method, path, header, value)) in [
        ("GET", "/healthz", "cookie", "x=y"),
        ("GET", "/login", "cookie", cookie),
        ("GET", "/nowhere", "authorization", "x"),
        ("GET", "/clusters", "cookie", cookie),
        ("GET", "/live?page=cluster&cluster=edge", "cookie", cookie),
        ("GET", "/metrics", "authorization", "Bearer ispu_x"),
        ("GET", "/api/v1/clusters", "authorization", &unknown),
        ("GET", "/api/v1/clusters", "cookie", cookie),
        ("POST", "/api/v1/clusters", "cookie", cookie),
        ("POST", "/api/v1/enroll", "authorization", &unknown),
        ("POST", "/api/v1/enroll", "cookie", cookie),
    ]
    .into_iter()
    .enumerate()
    {
        let address = format!("192.0.2.{n}");
        let ask = || {
            let body = (method == "POST").then_some(&enroll);
            let mut asked = request(method, path, None, body);
            let headers = asked.headers_mut();
            headers.insert(header, value.parse().unwrap());
            from_host(&address, asked)
        };
        let refused = until_too_often(&server, ask).await;
        assert!(refused.headers.contains_key(header::RETRY_AFTER), "{path}");
        assert_eq!(refused.headers["x-content-type-options"], "nosniff");
        if crate::asked::OPEN.contains(&path) {
            let before = served(&server, path).await;
            assert_ne!(before, "", "{path} was never served");
            let again = server.send(ask()).await;
            assert_eq!(again.status, StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(
                served(&server, path).await,
                before,
                "{path}: no work is done"
            );
        }
        let known = request("GET", "clusters", Some(&server.operator), None);
        let known = server.send(from_host(&address, known)).await;
        assert_eq!(known.status, StatusCode::OK, "{path}: {}", known.text);
    }
}

#[tokio::test]
async fn pages_have_their_users_limit_and_each_user_so_many_streams() {
    let limits = LimitSettings {
        api_per_second: 4,
        ..LimitSettings::default()
    };
    let server = Server::limited(limits).await;
    server.declare(1).await;
    for name in ["ada", "bob"] {
        user(&server, name, "viewer").await;
        server.clock.advance(Duration::from_secs(1));
    }
    let mut cookies = Vec::new();
    for name in ["ada", "bob"] {
        cookies.push(sign_in(&server, name, PASSWORD).await.unwrap());
    }
    let get = |path: &str, of: usize| {
        let mut request = request("GET", path, None, None);
        let cookie = cookies[of].parse().unwrap();
        request.headers_mut().insert(header::COOKIE, cookie);
        request
    };
    let live = "/live?page=cluster&cluster=edge";
    let mut open = Vec::new();
    for _ in 0..64 {
        // What the limit of requests allows.
        server.clock.advance(Duration::from_secs(1));
        open.push(server.open(get(live, 0)).await);
    }
    let refused = server.status(get(live, 0)).await;
    assert_eq!(refused, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(server.status(get(live, 1)).await, StatusCode::OK);
    drop(open);
    assert_eq!(server.status(get(live, 0)).await, StatusCode::OK);
    server.clock.advance(Duration::from_secs(10));
    let mut pages = 0;
    let refused = loop {
        let answer = server.send(get("/clusters/edge", 0)).await;
        if answer.status != StatusCode::OK {
            break answer;
        }
        pages += 1;
        assert!(pages < 1000, "there is no limit");
    };
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers.contains_key(header::RETRY_AFTER));
    assert!(
        refused.text.contains("too much at once"),
        "{}",
        refused.text
    );
    let other = server.send(get("/clusters/edge", 1)).await;
    assert_eq!(other.status, StatusCode::OK);
}

/// There is no end of names that no director has.
#[tokio::test]
async fn whoever_speaks_for_directors_that_are_not_there_has_one_limit() {
    let limits = LimitSettings {
        reports_per_second: 1,
        ..LimitSettings::default()
    };
    let server = Server::limited(limits).await;
    server.declare(1).await;
    let mut names = 0..;
    until_too_often(&server, || {
        let path = format!(
            "clusters/edge/directors/x{}/observed",
            names.next().unwrap()
        );
        request("POST", &path, Some(&server.agent), Some(&json!({})))
    })
    .await;
    let known = server.follow(observed(1, &[])).await;
    assert_eq!(known.status, StatusCode::OK, "{}", known.text);
}

/// Strangers at the address of somebody who is signed in, such as that of an office, take none of
/// their pages away.
#[tokio::test]
async fn whoever_is_signed_in_does_not_share_the_limit_of_strangers() {
    let limits = LimitSettings {
        anonymous_per_second: 1,
        ..LimitSettings::default()
    };
    let server = Server::limited(limits).await;
    server.declare(1).await;
    user(&server, "ada", "viewer").await;
    let cookie = sign_in(&server, "ada", PASSWORD).await.unwrap();
    let office = "192.0.2.1";
    let stranger = || from_host(office, request("GET", "/healthz", None, None));
    for path in [
        "/clusters/edge",
        "/live?page=cluster&cluster=edge",
        "/api/v1/clusters/edge",
    ] {
        until_too_often(&server, stranger).await;
        let mut asked = request("GET", path, None, None);
        let headers = asked.headers_mut();
        headers.insert(header::COOKIE, cookie.parse().unwrap());
        let status = server.status(from_host(office, asked)).await;
        assert_eq!(status, StatusCode::OK, "{path}");
    }
}
