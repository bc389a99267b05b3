//! Revisions: what lies between them, and the way back.

use axum::http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::testing::{Answer, Server, declaration_json, request};

async fn post(server: &Server, path: &str, tag: &'static str, body: &Value) -> Answer {
    let mut request = request("POST", path, Some(&server.operator), Some(body));
    let value = HeaderValue::from_static(tag);
    request.headers_mut().insert(header::IF_MATCH, value);
    server.send(request).await
}

#[tokio::test]
async fn any_revision_is_shown_and_compared() {
    let server = Server::start().await;
    for directors in [1, 2, 3] {
        server.declare(directors).await;
    }
    let list = server.get("clusters/edge/revisions?limit=2").await;
    assert_eq!(list.json[0]["revision"], 3);
    assert_eq!(list.json[0]["actor"], "ops");
    assert!(list.headers.contains_key(header::LINK), "there is a third");

    let last = server.get("clusters/edge/revisions/3/diff").await.json;
    assert_eq!(last["against"], 2);
    assert_eq!(last["changes"][0]["pointer"], "/director/d3");
    assert_eq!(last["changes"][0]["before"], Value::Null);
    assert_eq!(last["directors"][0]["director"], "d3");
    assert_eq!(last["directors"][0]["part"], "added");
    let back = server
        .get("clusters/edge/revisions/1/diff?against=3")
        .await
        .json;
    let gone = back["changes"].as_array().unwrap();
    assert_eq!(gone.len(), 2, "{gone:?}");
    assert!(gone.iter().all(|change| change["after"].is_null()));
    let first = server.get("clusters/edge/revisions/1/diff").await.json;
    assert_eq!(first["against"], 0);

    for unknown in ["9", "0", "x", "18446744073709551616"] {
        let path = format!("clusters/edge/revisions/{unknown}");
        for path in [path.clone(), format!("{path}/diff")] {
            let answer = server.get(&path).await;
            assert_eq!(
                answer.status,
                StatusCode::NOT_FOUND,
                "{path}: {}",
                answer.text
            );
        }
    }
    let against = server.get("clusters/edge/revisions/3/diff?against=9").await;
    assert_eq!(against.status, StatusCode::NOT_FOUND, "{}", against.text);
}

#[tokio::test]
async fn a_rollback_is_a_new_revision() {
    let server = Server::start().await;
    server.declare(1).await;
    server.declare(3).await;
    let path = "clusters/edge/revisions/1/rollback";
    let looked = post(
        &server,
        &format!("{path}?dry_run=true"),
        "\"r2\"",
        &json!({}),
    )
    .await;
    assert_eq!(looked.status, StatusCode::OK, "{}", looked.text);
    assert_eq!(looked.json["dry_run"], true);
    assert_eq!(
        looked.json["diff"]["changes"].as_array().map(Vec::len),
        Some(2)
    );
    assert_eq!(server.view().await.revision, 2);

    let stale = post(&server, path, "\"r1\"", &json!({})).await;
    assert_eq!(
        stale.status,
        StatusCode::PRECONDITION_FAILED,
        "{}",
        stale.text
    );
    let body = json!({ "reason": "it was better" });
    let done = post(&server, path, "\"r2\"", &body).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text);
    assert_eq!(done.headers[header::ETAG], "\"r3\"");
    assert_eq!(server.view().await.directors.len(), 1);
    let shown = server.get("clusters/edge/revisions/3").await.json;
    assert_eq!(shown["reason"], "back to revision 1: it was better");
    let same = server
        .get("clusters/edge/revisions/3/diff?against=1")
        .await
        .json;
    assert_eq!(same["changes"], json!([]));

    let none = post(
        &server,
        "clusters/edge/revisions/8/rollback",
        "\"r3\"",
        &body,
    )
    .await;
    assert_eq!(none.status, StatusCode::NOT_FOUND, "{}", none.text);
}

#[tokio::test]
async fn most_of_a_cluster_is_not_removed_by_mistake() {
    let server = Server::start().await;
    server.declare(1).await;
    let mut empty = declaration_json(1);
    empty["vip"] = json!([]);
    empty["service"] = json!([]);
    let refused = server.call("PUT", "clusters/edge", &empty).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.text);
    assert_eq!(refused.json["guards"], json!(["large_removal"]));
    assert_eq!(server.view().await.revision, 1);
    for (query, pointer) in [
        ("override_guards=large_removal", "?reason"),
        ("override_guards=any&reason=x", "?override_guards"),
    ] {
        let path = format!("clusters/edge?{query}");
        let refused = server.call("PUT", &path, &empty).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text);
        assert!(refused.text.contains(pointer), "{}", refused.text);
    }
    let looked = server
        .call("PUT", "clusters/edge?dry_run=true", &empty)
        .await;
    assert_eq!(
        looked.status,
        StatusCode::OK,
        "looking harms nobody: {}",
        looked.text
    );
    let path = "clusters/edge?override_guards=large_removal&reason=gone";
    let done = server.call("PUT", path, &empty).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text);

    let back = post(
        &server,
        "clusters/edge/revisions/1/rollback",
        "\"r2\"",
        &json!({}),
    )
    .await;
    assert_eq!(back.status, StatusCode::OK, "{}", back.text);
    let body = json!({ "override_guards": ["large_removal"] });
    let again = post(
        &server,
        "clusters/edge/revisions/2/rollback",
        "\"r3\"",
        &body,
    )
    .await;
    assert_eq!(
        again.status,
        StatusCode::UNPROCESSABLE_ENTITY,
        "{}",
        again.text
    );
    assert_eq!(again.json["errors"][0]["pointer"], "/reason");
    let guarded = post(
        &server,
        "clusters/edge/revisions/2/rollback",
        "\"r3\"",
        &json!({}),
    )
    .await;
    assert_eq!(guarded.status, StatusCode::CONFLICT, "{}", guarded.text);
    assert_eq!(server.view().await.revision, 3);
}
