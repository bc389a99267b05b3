//! The audit log: what was done, and what was refused.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use isopath_api::access::Role;
use serde_json::{Value, json};

use crate::store::tokens::Scope;
use crate::testing::{Server, declaration_json, make_token, request};

/// The entries, newest first, once one of them is as wanted.
async fn entries(server: &Server, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = server.get("audit?limit=200").await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        let entries = answer.json.as_array().unwrap().clone();
        if entries.iter().any(&wanted) {
            return entries;
        }
        assert!(Instant::now() < deadline, "not among {entries:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_is_done_is_there_at_once_with_who_and_the_request() {
    let server = Server::start().await;
    let declared = server.declare(2).await;
    let body = json!({ "reason": "new kernel" });
    let drained = server
        .call("POST", "clusters/edge/directors/d1/drain", &body)
        .await;
    let answer = server.get("audit?outcome=done").await;
    let entries = answer.json.as_array().unwrap();
    let entry = |action: &str| {
        let found = entries.iter().find(|entry| entry["action"] == action);
        found.unwrap_or_else(|| panic!("no {action} in {entries:#?}"))
    };
    let declare = entry("cluster.declare");
    assert_eq!(declare["principal"], "ops");
    assert_eq!(declare["via"], "token");
    assert_eq!(declare["peer"], "127.0.0.1");
    assert_eq!(declare["cluster"], "edge");
    assert_eq!(
        declare["request_id"].as_str().unwrap(),
        declared.headers["x-request-id"].to_str().unwrap()
    );
    // Whether a guard refuses it is for the drain's own tests.
    if drained.status == StatusCode::ACCEPTED {
        assert_eq!(entry("director.drain")["detail"], "new kernel");
    }
}

#[tokio::test]
async fn a_refusal_is_written_with_its_reason() {
    let server = Server::start().await;
    server.declare(1).await;
    let viewer = make_token(server.app.store(), "eve", Scope::of(Role::Viewer)).await;
    let body = declaration_json(1);
    let put = request("PUT", "clusters/edge", Some(&viewer), Some(&body));
    let refused = server.send(put).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let entries = entries(&server, |entry| entry["principal"] == "eve").await;
    let entry = &entries[0];
    assert_eq!(entry["outcome"], "refused");
    assert_eq!(entry["status"], 403);
    assert_eq!(entry["action"], "PUT /api/v1/clusters/{cluster}");
    assert_eq!(entry["object"], "/api/v1/clusters/edge");
    assert_eq!(entry["cluster"], "edge");
    let detail = entry["detail"].as_str().unwrap();
    assert!(detail.contains("takes the role operator"), "{detail}");
}

#[tokio::test]
async fn a_flood_of_refusals_is_bounded_and_said() {
    let server = Server::start().await;
    let viewer = make_token(server.app.store(), "eve", Scope::of(Role::Viewer)).await;
    for _ in 0..500 {
        let answer = server
            .send(request("GET", "users", Some(&viewer), None))
            .await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
    }
    let entries = entries(&server, |entry| entry["principal"] == "eve").await;
    let written = entries.iter().filter(|entry| entry["principal"] == "eve");
    let written = written.count();
    assert!((1..=25).contains(&written), "{written} of 500 were written");
    assert!(server.app.audit().left_out() >= 400);
}

#[tokio::test]
async fn entries_are_filtered_and_turned_over_by_their_numbers() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        let body = json!({ "name": name, "role": "viewer" });
        let answer = server.call("POST", "tokens", &body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    }
    let first = server.get("audit?principal=ops&limit=2").await;
    assert_eq!(first.json[0]["object"], "token c");
    assert_eq!(first.json[1]["object"], "token b");
    let link = first.headers["link"].to_str().unwrap();
    let path = link.trim_start_matches('<').split('>').next().unwrap();
    let next = server.get(path).await;
    assert_eq!(next.json[0]["object"], "token a", "{}", next.text);
    assert_eq!(next.json.as_array().unwrap().len(), 1);
    for none in [
        "audit?principal=bob",
        "audit?cluster=edge",
        "audit?from=2999-01-01T00:00:00Z",
    ] {
        let answer = server.get(none).await;
        assert_eq!(answer.json, json!([]), "{none}: {}", answer.text);
    }
    let answer = server.get("audit?outcome=maybe").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text);
}
