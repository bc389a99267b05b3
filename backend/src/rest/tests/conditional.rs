//! Changes that say what they know, and requests that are sent again.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode, header};
use serde_json::{Value, json};

use crate::testing::{Answer, Server, declaration_json, request};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

fn put(server: &Server, body: &Value, headers: &[(HeaderName, &'static str)]) -> Request<Body> {
    let mut request = request("PUT", "clusters/edge", Some(&server.operator), Some(body));
    for (name, value) in headers {
        let value = HeaderValue::from_static(value);
        request.headers_mut().insert(name, value);
    }
    request
}

fn is_problem(answer: &Answer, status: StatusCode, kind: &str) {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert_eq!(answer.json["type"], format!("/problems/{kind}"));
}

#[tokio::test]
async fn a_change_says_which_revision_it_changes() {
    let server = Server::start().await;
    let made = server
        .send(put(
            &server,
            &declaration_json(1),
            &[(header::IF_NONE_MATCH, "*")],
        ))
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert_eq!(made.headers[header::ETAG], "\"r1\"");

    let silent = server.send(put(&server, &declaration_json(2), &[])).await;
    is_problem(
        &silent,
        StatusCode::PRECONDITION_REQUIRED,
        "precondition-required",
    );
    assert!(
        silent.text.contains("If-Match: \\\"r1\\\""),
        "{}",
        silent.text
    );
    for headers in [
        [(header::IF_MATCH, "\"r9\"")],
        [(header::IF_MATCH, "\"another\"")],
        [(header::IF_NONE_MATCH, "*")],
    ] {
        let stale = server
            .send(put(&server, &declaration_json(2), &headers))
            .await;
        is_problem(
            &stale,
            StatusCode::PRECONDITION_FAILED,
            "precondition-failed",
        );
        assert_eq!(stale.headers[header::ETAG], "\"r1\"");
    }
    assert_eq!(server.view().await.revision, 1, "nothing was changed");

    let right = [(header::IF_MATCH, "\"r1\"")];
    let changed = server
        .send(put(&server, &declaration_json(2), &right))
        .await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.text);
    assert_eq!(changed.headers[header::ETAG], "\"r2\"");

    let shown = server.get("clusters/edge/declaration").await;
    assert_eq!(shown.headers[header::ETAG], "\"r2\"");
    assert_eq!(shown.json["director"].as_array().unwrap().len(), 2);
    let mut again = request(
        "GET",
        "clusters/edge/declaration",
        Some(&server.operator),
        None,
    );
    let tag = shown.headers[header::ETAG].clone();
    again.headers_mut().insert(header::IF_NONE_MATCH, tag);
    let again = server.send(again).await;
    assert_eq!(again.status, StatusCode::NOT_MODIFIED);
    assert!(again.text.is_empty(), "{}", again.text);
}

#[tokio::test]
async fn what_is_not_declared_has_no_revision_to_match() {
    let server = Server::start().await;
    let any = [(header::IF_MATCH, "*")];
    let refused = server.send(put(&server, &declaration_json(1), &any)).await;
    is_problem(
        &refused,
        StatusCode::PRECONDITION_FAILED,
        "precondition-failed",
    );
    assert!(refused.headers.get(header::ETAG).is_none());
    assert!(server.app.clusters().is_empty());
}

#[tokio::test]
async fn of_changes_of_one_revision_exactly_one_wins() {
    let server = Server::start().await;
    server.declare(1).await;
    let bodies: Vec<Value> = (2..10).map(declaration_json).collect();
    let first = [(header::IF_MATCH, "\"r1\"")];
    let sent = bodies
        .iter()
        .map(|body| server.send(put(&server, body, &first)));
    let answers = futures_util::future::join_all(sent).await;
    let count = |status| {
        answers
            .iter()
            .filter(|answer| answer.status == status)
            .count()
    };
    // The cluster of nine directors is refused for itself.
    assert_eq!(count(StatusCode::OK), 1);
    assert_eq!(count(StatusCode::PRECONDITION_FAILED), 6);
    assert_eq!(server.view().await.revision, 2);
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_answered_again_and_does_nothing() {
    let server = Server::start().await;
    server.declare(1).await;
    let headers = [(header::IF_MATCH, "\"r1\""), (IDEMPOTENCY_KEY, "k-1")];
    let first = server
        .send(put(&server, &declaration_json(2), &headers))
        .await;
    assert_eq!(first.status, StatusCode::OK, "{}", first.text);
    assert!(first.headers.get("idempotency-replayed").is_none());
    let server = server.killed_and_started_again().await;
    let again = server
        .send(put(&server, &declaration_json(2), &headers))
        .await;
    assert_eq!(again.status, first.status, "{}", again.text);
    assert_eq!(again.json, first.json);
    assert_eq!(again.headers[header::ETAG], first.headers[header::ETAG]);
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(server.view().await.revision, 2);

    let other = server
        .send(put(&server, &declaration_json(3), &headers))
        .await;
    is_problem(&other, StatusCode::UNPROCESSABLE_ENTITY, "key-reused");
    assert_eq!(server.view().await.revision, 2);
}

#[tokio::test]
async fn a_refusal_is_not_kept_for_its_key() {
    let server = Server::start().await;
    server.declare(1).await;
    let stale = [(header::IF_MATCH, "\"r7\""), (IDEMPOTENCY_KEY, "k-2")];
    let refused = server
        .send(put(&server, &declaration_json(2), &stale))
        .await;
    assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED);
    let right = [(header::IF_MATCH, "\"r1\""), (IDEMPOTENCY_KEY, "k-2")];
    let done = server
        .send(put(&server, &declaration_json(2), &right))
        .await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text);
}

#[tokio::test]
async fn a_key_is_a_short_word() {
    let server = Server::start().await;
    for key in [
        "",
        "two words",
        "a-key-of-sixty-five-characters-is-one-character-too-long-to-be-ok",
    ] {
        let answer = server
            .send(put(&server, &json!({}), &[(IDEMPOTENCY_KEY, key)]))
            .await;
        is_problem(&answer, StatusCode::BAD_REQUEST, "bad-request");
        assert!(answer.text.contains("idempotency-key"), "{}", answer.text);
    }
}
