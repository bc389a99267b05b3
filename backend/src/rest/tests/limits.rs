//! What is refused for its size, its form or what is there already: the answer says where, and
//! nothing changes.

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use serde_json::{Value, json};

use crate::testing::{Answer, Server, declaration_json, other_declaration_json, request};

/// All that a refused request must leave as it was.
async fn state(server: &Server) -> (Value, Value, Value) {
    let declared = server.get("clusters/edge/declaration").await;
    let revisions = server.get("clusters/edge/revisions").await.json;
    let events = server.get("events").await.json;
    (declared.json, revisions, events)
}

fn pointers(answer: &Answer) -> Vec<&str> {
    let errors = answer.json["errors"].as_array();
    let errors = errors.unwrap_or_else(|| panic!("no errors: {}", answer.text));
    let pointers = errors.iter().filter_map(|fault| fault["pointer"].as_str());
    pointers.collect()
}

#[tokio::test]
async fn every_limit_of_a_declaration_is_held_with_its_place() {
    let server = Server::start().await;
    server.declare(2).await;
    let before = state(&server).await;
    let directors = |count: u16| -> Vec<Value> {
        let director =
            |n: u16| json!({ "name": format!("d{n}"), "router_id": format!("10.0.{n}.2") });
        (1..=count).map(director).collect()
    };
    let addresses = |count: usize, form: &dyn Fn(String) -> Value| -> Vec<Value> {
        (0..count)
            .map(|n| {
                form(format!(
                    "10.{}.{}.{}",
                    50 + n / 62500,
                    n / 250 % 250,
                    n % 250 + 1
                ))
            })
            .collect()
    };
    let server_at = |address: String| json!({ "address": address });
    let switch = |address: String| json!({ "name": address, "router_id": address });
    let long = |length: usize| "x".repeat(length);
    let cases = [
        ("/max_paths", json!(0), "/max_paths"),
        ("/max_paths", json!(65), "/max_paths"),
        ("/max_paths", json!(65536), "/max_paths"),
        ("/max_paths", json!("8"), "/max_paths"),
        ("/director", json!(directors(9)), "/director/8"),
        ("/director/1/name", json!("d1"), "/director/1/name"),
        ("/director/1/name", json!(long(64)), "/director/1/name"),
        ("/director/1/name", json!("d\u{0}"), "/director/1/name"),
        (
            "/director/1/router_id",
            json!("10.0.1.2"),
            "/director/1/router_id",
        ),
        ("/switch/0/name", json!(""), "/switch/0/name"),
        ("/switch/0/name", json!(long(64)), "/switch/0/name"),
        ("/switch/0/name", json!("s\u{0}"), "/switch/0/name"),
        ("/switch", json!(addresses(65, &switch)), "/switch"),
        ("/vip/0/address", json!("10.99.0"), "/vip/0/address"),
        (
            "/vip/0/announce",
            json!({ "cost": 65536 }),
            "/vip/0/announce/cost",
        ),
        ("/vip", json!(addresses(1025, &server_at)), "/vip"),
        ("/service/0/port", json!(0), "/service/0/port"),
        ("/service/0/port", json!(-1), "/service/0/port"),
        ("/service/0/port", json!(1e300), "/service/0/port"),
        (
            "/service/0/check/path",
            json!(format!("/{}", long(1024))),
            "/service/0/check/path",
        ),
        (
            "/service/0/check/host",
            json!(long(254)),
            "/service/0/check/host",
        ),
        (
            "/service/0/check/interval",
            json!(long(65)),
            "/service/0/check/interval",
        ),
        ("/service/0/check/rise", json!(0), "/service/0/check/rise"),
        (
            "/service/0/real_server",
            json!(addresses(1025, &server_at)),
            "/service/0/real_server",
        ),
        (
            "/service/0/real_server/0/address",
            json!("10.1.0.12"),
            "/service/0/real_server/1/address",
        ),
        (
            "/service/0/real_server/0/address",
            json!("10.99.0.1"),
            "/service/0/real_server/0/address",
        ),
        (
            "/service/0/real_server/0/weight",
            json!(65536),
            "/service/0/real_server/0/weight",
        ),
    ];
    for (at, value, expected) in cases {
        let mut body = declaration_json(2);
        let (parent, key) = at.rsplit_once('/').unwrap();
        let parent = body.pointer_mut(parent).unwrap_or_else(|| panic!("{at}"));
        match key.parse::<usize>() {
            Ok(index) => parent[index] = value,
            Err(_) => parent[key] = value,
        }
        let answer = server.call("PUT", "clusters/edge", &body).await;
        assert_eq!(
            answer.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{at}: {}",
            answer.text
        );
        assert_eq!(
            answer.headers["content-type"], "application/problem+json",
            "{at}"
        );
        assert!(
            pointers(&answer).contains(&expected),
            "{at}: {}",
            answer.text
        );
    }
    let ninth = json!(directors(9));
    let mut body = declaration_json(2);
    body["director"] = ninth;
    let answer = server.call("PUT", "clusters/edge", &body).await;
    assert!(answer.text.contains("max_paths"), "{}", answer.text);
    assert_eq!(state(&server).await, before);
}

#[tokio::test]
async fn a_body_that_is_no_declaration_changes_nothing() {
    let server = Server::start().await;
    server.declare(2).await;
    let before = state(&server).await;
    let good = declaration_json(2).to_string();
    let twice = good.replacen('{', "{\"max_paths\":8,\"max_paths\":4,", 1);
    let huge = good.replacen('{', &format!("{{\"max_paths\":{},", "9".repeat(400)), 1);
    let deep = "[".repeat(100_000);
    for (what, body) in [
        ("a key twice", twice),
        ("a huge number", huge),
        ("deep nesting", deep),
        ("a list", format!("[{good}]")),
        ("null", "null".to_owned()),
        ("more than one value", format!("{good}{good}")),
    ] {
        let request = Request::put("/api/v1/clusters/edge")
            .header(header::AUTHORIZATION, format!("Bearer {}", server.operator))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::IF_MATCH, "*")
            .body(Body::from(body))
            .unwrap();
        let answer = server.send(request).await;
        assert_eq!(
            answer.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{what}: {}",
            answer.text
        );
        assert_eq!(pointers(&answer).len(), 1, "{what}");
    }
    assert_eq!(state(&server).await, before);
}

#[tokio::test]
async fn a_vip_belongs_to_one_cluster_alone() {
    let server = Server::start().await;
    server.declare(1).await;
    let before = state(&server).await;
    for path in ["clusters/other?dry_run=true", "clusters/other"] {
        let answer = server.call("PUT", path, &declaration_json(1)).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{path}");
        assert_eq!(pointers(&answer), ["/vip/0/address"], "{path}");
        assert!(answer.text.contains("cluster edge"), "{}", answer.text);
    }
    assert_eq!(state(&server).await, before);
    let missing = server.get("clusters/other").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND, "it was not made");

    let own = server
        .call("PUT", "clusters/other", &other_declaration_json(1))
        .await;
    assert_eq!(own.status, StatusCode::CREATED, "{}", own.text);
    let mut both = other_declaration_json(1);
    both["vip"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "address": "10.99.0.1" }));
    let answer = server.call("PUT", "clusters/other", &both).await;
    assert_eq!(pointers(&answer), ["/vip/1/address"], "{}", answer.text);
    let again = server.declare(2).await;
    assert_eq!(again.json["changed"], true, "its own VIP is no one else's");
}

#[tokio::test]
async fn what_no_path_or_query_can_be_is_refused_as_such() {
    let server = Server::start().await;
    server.declare(1).await;
    let before = state(&server).await;
    let token = Some(server.operator.as_str());
    let long_after = |list: &str| format!("{list}?after={}", "x".repeat(65));
    let long = format!("clusters/{}", "x".repeat(8000));
    for (path, status) in [
        ("clusters/%ff", 404),
        ("clusters/%00", 404),
        (long.as_str(), 404),
        ("clusters/edge/revisions/0", 404),
        ("clusters/edge/revisions/18446744073709551615", 404),
        ("clusters/edge/revisions/18446744073709551616", 404),
        ("clusters/edge/revisions/-1", 404),
        ("operations/%00", 404),
        ("events?limit=-1", 400),
        ("events?limit=99999999999999999999", 400),
        ("events?cluster=%00", 400),
        ("events?unknown=1", 400),
        (long_after("users").as_str(), 400),
        (long_after("tokens").as_str(), 400),
    ] {
        let answer = server.send(request("GET", path, token, None)).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text);
        assert_eq!(
            answer.headers["content-type"], "application/problem+json",
            "{path}"
        );
    }
    assert_eq!(state(&server).await, before);
}

/// serde would take the list for the structure: each field's value in its place.
#[tokio::test]
async fn a_list_is_no_body_even_where_every_field_may_be_absent() {
    let server = Server::start().await;
    server.declare(2).await;
    let before = state(&server).await;
    let path = "clusters/edge/directors/d1/drain?dry_run=true";
    for body in [json!([]), json!([null, null]), json!(["words"])] {
        let answer = server.call("POST", path, &body).await;
        assert_eq!(
            answer.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{body}: {}",
            answer.text
        );
        assert_eq!(pointers(&answer), [""], "{body}");
        assert!(answer.text.contains("found a list"), "{}", answer.text);
    }
    assert_eq!(state(&server).await, before);
}
