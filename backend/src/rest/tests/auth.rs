//! Who may do what.

use std::time::Duration;

use axum::http::{StatusCode, header};
use isopath_api::access::Role;
use jiff::SignedDuration;
use serde_json::json;

use crate::auth::{TokenKind, new_token, token_hash};
use crate::store::tokens::{self, Clusters, Scope, TokenRow};
use crate::testing::{
    Server, declaration_json, make_token, observed, other_declaration_json, request,
};

#[tokio::test]
async fn without_a_known_token_nothing_is_told() {
    let server = Server::start().await;
    server.declare(1).await;
    for path in [
        "clusters",
        "clusters/edge",
        "clusters/edge/directors/d1/desired",
        "operations/op_1",
        "events",
    ] {
        for token in [
            None,
            Some(""),
            Some("ispu_0000000000000000000000000000000000000000"),
            Some("ispu_0000000000000000000000000000000000000000000000"),
        ] {
            let answer = server.send(request("GET", path, token, None)).await;
            assert_eq!(
                answer.status,
                StatusCode::UNAUTHORIZED,
                "{path} with {token:?}"
            );
            assert_eq!(
                answer.headers["www-authenticate"],
                "Bearer realm=\"isopath\""
            );
            assert_eq!(answer.json["type"], "/problems/unauthenticated");
        }
    }
}

#[tokio::test]
async fn an_agent_may_only_follow_and_report_in_its_own_cluster() {
    let server = Server::start().await;
    server.declare(1).await;
    let agent = Some(server.agent.as_str());
    let operators = [
        ("GET", "clusters", None),
        ("GET", "clusters/edge", None),
        ("PUT", "clusters/edge", Some(declaration_json(1))),
        ("POST", "clusters/edge/directors/d1/drain", Some(json!({}))),
        ("GET", "events", None),
    ];
    for (method, path, body) in operators {
        let answer = server
            .send(request(method, path, agent, body.as_ref()))
            .await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method} {path}");
        assert_eq!(answer.json["type"], "/problems/forbidden");
    }
    let path = "clusters/other/directors/d1/observed";
    let body = serde_json::to_value(observed(1, &[])).unwrap();
    let answer = server.send(request("POST", path, agent, Some(&body))).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.text.contains("cluster edge only"), "{}", answer.text);
    let answer = server.report(&observed(1, &[])).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
}

/// Guards go by what agents report: whoever may not pass over them may not report either.
#[tokio::test]
async fn an_operator_does_not_speak_for_directors() {
    let server = Server::start().await;
    server.declare(1).await;
    let operator = make_token(server.app.store(), "op", Scope::of(Role::Operator)).await;
    let path = "clusters/edge/directors/d1/observed";
    let body = serde_json::to_value(observed(1, &[])).unwrap();
    let report = request("POST", path, Some(&operator), Some(&body));
    let answer = server.send(report).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.text.contains("role operator"), "{}", answer.text);
}

#[tokio::test]
async fn a_token_made_while_the_server_runs_works_at_once() {
    let server = Server::start().await;
    let store = crate::store::Store::open(&server.url()).await.unwrap();
    let token = make_token(&store, "late", Scope::of(Role::Operator)).await;
    let answer = server
        .send(request("GET", "clusters", Some(&token), None))
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json, json!([]));
}

#[tokio::test]
async fn a_role_may_do_what_lower_ones_may_and_no_more() {
    let server = Server::start().await;
    server.declare(1).await;
    let read = ("GET", "clusters/edge", None);
    let change = (
        "PUT",
        "clusters/edge?dry_run=true",
        Some(declaration_json(1)),
    );
    for (role, may_change) in [
        (Role::Viewer, false),
        (Role::Operator, true),
        (Role::Admin, true),
    ] {
        let token = make_token(server.app.store(), role.as_str(), Scope::of(role)).await;
        for ((method, path, body), may) in [(read.clone(), true), (change.clone(), may_change)] {
            let mut request = request(method, path, Some(&token), body.as_ref());
            request
                .headers_mut()
                .insert(header::IF_MATCH, "*".parse().unwrap());
            let answer = server.send(request).await;
            let expected = if may {
                StatusCode::OK
            } else {
                StatusCode::FORBIDDEN
            };
            assert_eq!(answer.status, expected, "{role} {method}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn a_token_of_some_clusters_neither_sees_nor_touches_others() {
    let server = Server::start().await;
    server.declare(1).await;
    let answer = server
        .call("PUT", "clusters/other", &other_declaration_json(1))
        .await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    let scope = Scope::User {
        role: Role::Admin,
        clusters: Clusters::Only(["other".parse().unwrap()].into()),
    };
    let token = make_token(server.app.store(), "narrow", scope).await;
    let get = async |path: &str| server.send(request("GET", path, Some(&token), None)).await;
    let listed = get("clusters").await.json;
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed[0]["name"], "other");
    let events = get("events").await.json;
    let events = events.as_array().unwrap();
    assert!(!events.is_empty());
    assert!(
        events.iter().all(|event| event["cluster"] == "other"),
        "{events:?}"
    );
    for path in ["clusters/edge", "clusters/edge/vips", "events?cluster=edge"] {
        let answer = get(path).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        assert!(answer.text.contains("other clusters"), "{}", answer.text);
    }
    let body = other_declaration_json(1);
    let put = request(
        "PUT",
        "clusters/edge?dry_run=true",
        Some(&token),
        Some(&body),
    );
    assert_eq!(server.send(put).await.status, StatusCode::FORBIDDEN);
    let mut put = request("PUT", "clusters/other", Some(&token), Some(&body));
    put.headers_mut()
        .insert(header::IF_MATCH, "*".parse().unwrap());
    assert_eq!(server.send(put).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_token_that_expired_or_was_revoked_says_so() {
    let server = Server::start().await;
    let store = server.app.store();
    let token = new_token(TokenKind::User);
    let now = server.app.clock().now().wall;
    let mut row = TokenRow::new("brief", Scope::of(Role::Viewer), "test", now);
    row.expires = Some(now + SignedDuration::from_secs(60));
    let mut transaction = store.begin().await.unwrap();
    let made = tokens::insert(&mut transaction, &token_hash(&token), &row).await;
    assert!(made.unwrap());
    transaction.commit().await.unwrap();
    let get = async || {
        let request = request("GET", "clusters", Some(&token), None);
        server.send(request).await
    };
    assert_eq!(get().await.status, StatusCode::OK);
    server.clock.advance(Duration::from_secs(61));
    let answer = get().await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.text.contains("brief expired at"), "{}", answer.text);
    let mut transaction = store.begin().await.unwrap();
    assert!(
        tokens::revoke(&mut transaction, "brief", now)
            .await
            .unwrap()
    );
    transaction.commit().await.unwrap();
    let answer = get().await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.text.contains("was revoked"), "{}", answer.text);
}

#[tokio::test]
async fn a_mistyped_token_is_told_as_such() {
    let server = Server::start().await;
    let mut token = new_token(TokenKind::User);
    token.pop();
    let answer = server
        .send(request("GET", "clusters", Some(&token), None))
        .await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.text.contains("checksum"), "{}", answer.text);
}

mod people {
    use std::net::IpAddr;
    use std::time::Duration;

    use axum::http::{HeaderMap, HeaderValue, header};
    use isopath_api::access::Role;
    use jiff::Timestamp;

    use crate::auth::{By, COOKIE, Known, SignIn, hash_password};
    use crate::error::Error;
    use crate::store::users;
    use crate::testing::Server;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const PASSWORD: &str = "correct horse battery";

    async fn server() -> Server {
        let server = Server::start().await;
        let hash = hash_password(PASSWORD).unwrap();
        let mut transaction = server.app.store().begin().await.unwrap();
        let now = Timestamp::now();
        assert!(
            users::insert(&mut transaction, "ada", Role::Admin, &hash, now)
                .await
                .unwrap()
        );
        transaction.commit().await.unwrap();
        server
    }

    async fn login(server: &Server, user: &str, password: &str) -> Result<HeaderMap, Error> {
        let headers = HeaderMap::new();
        let set = server.app.login(&headers, PEER, user, password).await?;
        Ok(cookie(&set))
    }

    /// The headers of the browser's next request.
    fn cookie(set: &HeaderValue) -> HeaderMap {
        let pair = set.to_str().unwrap().split(';').next().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, format!("other=1; {pair}").parse().unwrap());
        headers
    }

    async fn user(server: &Server, headers: &HeaderMap) -> Option<String> {
        let session = server.app.session(headers).await.unwrap();
        session.map(|session| session.user)
    }

    #[tokio::test]
    async fn a_sign_in_lasts_until_the_sign_out() {
        let server = server().await;
        let set = server
            .app
            .login(&HeaderMap::new(), PEER, "ada", PASSWORD)
            .await
            .unwrap();
        let text = set.to_str().unwrap();
        assert!(text.starts_with(&format!("{COOKIE}=")), "{text}");
        assert!(
            text.ends_with("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"),
            "{text}"
        );
        let headers = cookie(&set);
        assert_eq!(user(&server, &headers).await.as_deref(), Some("ada"));
        server.app.logout(&headers, &By::command()).await.unwrap();
        assert_eq!(user(&server, &headers).await, None);
    }

    #[tokio::test]
    async fn nobody_is_told_whether_the_name_or_the_password_was_wrong() {
        let server = server().await;
        let wrong = login(&server, "ada", "correct horse batterz")
            .await
            .unwrap_err();
        let unknown = login(&server, "eve", PASSWORD).await.unwrap_err();
        assert!(matches!(wrong, Error::Unauthenticated { .. }), "{wrong}");
        assert_eq!(wrong.to_string(), unknown.to_string());
    }

    #[tokio::test]
    async fn an_idle_session_ends_after_half_an_hour_and_a_busy_one_after_twelve() {
        let server = server().await;
        let headers = login(&server, "ada", PASSWORD).await.unwrap();
        for _ in 0..24 {
            server.clock.advance(Duration::from_secs(29 * 60));
            assert!(user(&server, &headers).await.is_some());
        }
        server.clock.advance(Duration::from_secs(29 * 60));
        assert_eq!(
            user(&server, &headers).await,
            None,
            "12 h 5 min after the sign-in"
        );
        let headers = login(&server, "ada", PASSWORD).await.unwrap();
        server.clock.advance(Duration::from_secs(31 * 60));
        assert_eq!(user(&server, &headers).await, None);
    }

    #[tokio::test]
    async fn guessing_is_slowed_down_and_time_makes_up_for_it() {
        let server = server().await;
        for _ in 0..5 {
            let error = login(&server, "ada", "wrong").await.unwrap_err();
            assert!(matches!(error, Error::Unauthenticated { .. }), "{error}");
        }
        let error = login(&server, "ada", PASSWORD).await.unwrap_err();
        assert!(
            matches!(
                error,
                Error::TooMany {
                    retry_after_s: 1..=60
                }
            ),
            "{error:?}"
        );
        server.clock.advance(Duration::from_secs(61));
        login(&server, "ada", PASSWORD).await.unwrap();
    }

    #[tokio::test]
    async fn a_password_that_was_replaced_while_it_was_checked_signs_nobody_in() {
        let server = server().await;
        let (app, headers) = (&server.app, HeaderMap::new());
        let (login, now) = (app.login_state(), app.clock().now());
        let from = SignIn {
            headers: &headers,
            peer: PEER,
            is_tls: false,
        };
        let checked = login
            .check(app.store(), now, "ada", PASSWORD)
            .await
            .unwrap();
        let known = Known {
            user: "ada",
            hash: &checked,
        };
        let replaced = hash_password("another horse battery").unwrap();
        let begin = async |fresh: Option<String>| {
            let begun = login.begin(app.store(), now, from, (known, fresh)).await;
            begun.map(|cookie| cookie.to_str().unwrap().to_owned())
        };
        begin(None).await.unwrap();
        for (hash, disabled) in [(&replaced, false), (&checked, true)] {
            let mut transaction = app.store().begin().await.unwrap();
            users::set_password(&mut transaction, "ada", hash)
                .await
                .unwrap();
            users::set(&mut transaction, "ada", Role::Admin, disabled)
                .await
                .unwrap();
            transaction.commit().await.unwrap();
            let refused = begin(Some(checked.clone())).await.unwrap_err();
            assert!(matches!(refused, Error::Busy), "{refused}");
            let mut reader = app.store().read().await.unwrap();
            let stored = users::password_hash(&mut reader, "ada").await.unwrap();
            assert_eq!(stored.as_ref(), Some(hash), "it is not put back");
        }
    }

    #[tokio::test]
    async fn another_site_signs_nobody_in() {
        let server = server().await;
        let mut headers = HeaderMap::new();
        headers.insert("sec-fetch-site", "cross-site".parse().unwrap());
        let error = server
            .app
            .login(&headers, PEER, "ada", PASSWORD)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Forbidden { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_form_is_good_for_its_own_session_only() {
        let server = server().await;
        let first = login(&server, "ada", PASSWORD).await.unwrap();
        let second = login(&server, "ada", PASSWORD).await.unwrap();
        let session = server.app.session(&first).await.unwrap().unwrap();
        let other = server.app.session(&second).await.unwrap().unwrap();
        server
            .app
            .check_form(&first, &session, session.csrf_token())
            .unwrap();
        let error = server
            .app
            .check_form(&first, &session, other.csrf_token())
            .unwrap_err();
        assert!(matches!(error, Error::Forbidden { .. }), "{error}");
    }
}
