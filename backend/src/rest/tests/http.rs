//! What holds for every answer.

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use serde_json::json;

use crate::testing::{Answer, Server, declaration_json, other_declaration_json, request};

#[tokio::test]
async fn every_refusal_is_problem_details() {
    let server = Server::start().await;
    server.declare(1).await;
    let token = Some(server.operator.as_str());
    let typed = |media_type: &str, body: Vec<u8>| {
        Request::put("/api/v1/clusters/edge")
            .header(header::AUTHORIZATION, format!("Bearer {}", server.operator))
            .header(header::CONTENT_TYPE, media_type)
            .body(Body::from(body))
            .unwrap()
    };
    let json = "application/json";
    let huge = vec![b' '; (1 << 20) + 1];
    let cases = [
        (request("GET", "/nowhere", None, None), 404, "not-found"),
        (request("GET", "nowhere", token, None), 404, "not-found"),
        (
            request("GET", "clusters/NOT_A_NAME", token, None),
            404,
            "not-found",
        ),
        (
            request("GET", "clusters/edge/revisions/x", token, None),
            404,
            "not-found",
        ),
        (
            request("GET", "operations/op_1", token, None),
            404,
            "not-found",
        ),
        (
            request("DELETE", "clusters/edge", token, None),
            405,
            "method-not-allowed",
        ),
        (
            request("GET", "events?limit=x", token, None),
            400,
            "bad-request",
        ),
        (
            request("GET", "events?since=1", token, None),
            400,
            "bad-request",
        ),
        (typed("text/plain", b"{}".to_vec()), 415, "media-type"),
        (typed(json, huge), 413, "too-large"),
        (typed(json, b"{".to_vec()), 422, "invalid"),
        (typed(json, b"{}{}".to_vec()), 422, "invalid"),
        (typed(json, b"\xff\x00".to_vec()), 422, "invalid"),
        (typed(json, Vec::new()), 422, "invalid"),
    ];
    for (request, status, kind) in cases {
        let what = format!("{} {}", request.method(), request.uri());
        let answer = server.send(request).await;
        assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.text);
        assert_eq!(
            answer.headers["content-type"], "application/problem+json",
            "{what}"
        );
        assert_eq!(answer.json["type"], format!("/problems/{kind}"), "{what}");
        assert_eq!(answer.json["status"], status, "{what}");
        assert!(
            !answer.json["detail"].as_str().unwrap().is_empty(),
            "{what}"
        );
    }
}

#[tokio::test]
async fn a_report_may_be_of_a_quarter_mebibyte_and_a_drain_of_less() {
    let server = Server::start().await;
    server.declare(1).await;
    let filler = "x".repeat(200 << 10);
    let path = "clusters/edge/directors/d1/";
    let report = server
        .call("POST", &format!("{path}observed"), &json!({ "x": filler }))
        .await;
    assert_eq!(
        report.status,
        StatusCode::UNPROCESSABLE_ENTITY,
        "it was read"
    );
    let drain = server
        .call("POST", &format!("{path}drain"), &json!({ "x": filler }))
        .await;
    assert_eq!(drain.status, StatusCode::PAYLOAD_TOO_LARGE);
    let filler = "x".repeat(257 << 10);
    let report = server
        .call("POST", &format!("{path}observed"), &json!({ "x": filler }))
        .await;
    assert_eq!(report.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn every_answer_tells_browsers_what_they_may_do() {
    let server = Server::start().await;
    for path in ["/nowhere", "/healthz", "/api/v1/clusters", "/login"] {
        let answer = server.send(request("GET", path, None, None)).await;
        let csp = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(csp.starts_with("default-src 'none'; "), "{path}: {csp}");
        assert!(csp.contains("frame-ancestors 'none'"), "{path}: {csp}");
        assert!(!csp.contains("unsafe"), "{path}: {csp}");
        assert_eq!(
            answer.headers["x-content-type-options"], "nosniff",
            "{path}"
        );
        assert!(answer.headers.contains_key("referrer-policy"), "{path}");
        assert_eq!(answer.headers["cache-control"], "no-store", "{path}");
    }
}

#[tokio::test]
async fn lists_and_parts_of_a_cluster_agree_with_the_whole() {
    let server = Server::start().await;
    server.declare(2).await;
    let whole = server.get("clusters/edge").await.json;
    let list = server.get("clusters").await.json;
    assert_eq!(list[0]["name"], "edge");
    assert_eq!(list[0]["verdict"], whole["verdict"]);
    assert_eq!(list[0]["directors"], 2);
    assert_eq!(server.get("clusters/edge/vips").await.json, whole["vips"]);
    assert_eq!(
        server.get("clusters/edge/services").await.json,
        whole["services"]
    );
    assert_eq!(
        server.get("clusters/edge/directors").await.json,
        whole["directors"]
    );
    let d2 = server.get("clusters/edge/directors/d2").await.json;
    assert_eq!(d2, whole["directors"][1]);
}

#[tokio::test]
async fn events_are_filtered() {
    let server = Server::start().await;
    server.declare(1).await;
    let path = "clusters/edge?reason=100%25_sure";
    server.call("PUT", path, &declaration_json(2)).await;
    for (filter, expected) in [
        ("", 2),
        ("text=100%25_s", 1),
        ("text=100%25%25", 0),
        ("severity=info", 2),
        ("severity=error", 0),
        ("object=cluster+edge", 2),
        ("object=edge", 0),
        ("actor=ops", 2),
        ("actor=controller", 0),
        ("from=2020-01-01T00:00:00Z", 2),
        ("to=2020-01-01T00:00:00Z", 0),
    ] {
        let found = server.get(&format!("events?{filter}")).await;
        assert_eq!(
            found.json.as_array().map(Vec::len),
            Some(expected),
            "{filter}: {}",
            found.text
        );
    }
    for bad in [
        "severity=bad",
        "from=yesterday",
        "limit=0",
        "limit=201",
        "limit=x",
        "unknown=1",
    ] {
        let refused = server.get(&format!("events?{bad}")).await;
        assert_eq!(
            refused.status,
            StatusCode::BAD_REQUEST,
            "{bad}: {}",
            refused.text
        );
        assert_eq!(refused.json["type"], "/problems/bad-request", "{bad}");
    }
}

#[tokio::test]
async fn events_are_paged() {
    let server = Server::start().await;
    for directors in [1, 2, 3] {
        server.declare(directors).await;
    }
    let page = server.get("events?cluster=edge&limit=2").await;
    let ids = |page: &Answer| -> Vec<u64> {
        let events = page.json.as_array().unwrap().iter();
        events.map(|event| event["id"].as_u64().unwrap()).collect()
    };
    assert_eq!(ids(&page), [3, 2]);
    let link = page.headers[header::LINK].to_str().unwrap();
    let next = link
        .strip_prefix("</api/v1/")
        .unwrap()
        .split_once('>')
        .unwrap()
        .0;
    let rest = server.get(next).await;
    assert_eq!(ids(&rest), [1]);
    assert!(
        rest.headers.get(header::LINK).is_none(),
        "there are no more"
    );
    let elsewhere = next.replace("cluster=edge", "cluster=other");
    let refused = server.get(&elsewhere).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text);
    assert_eq!(server.get("events?cluster=other").await.json, json!([]));
    let first = server
        .call("PUT", "clusters/other", &other_declaration_json(1))
        .await;
    assert_eq!(first.status, StatusCode::CREATED);
}
