//! What is declared, and what is refused.

use axum::http::StatusCode;
use isopath_api::declare::{Profile, WarningCode};
use isopath_api::digest::Placement;
use serde_json::{Value, json};

use crate::testing::{Server, declaration_json};

#[tokio::test]
async fn a_declaration_makes_a_cluster_and_its_directors_desired_states() {
    let server = Server::start().await;
    let answer = server.declare(2).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(
        answer.json,
        json!({ "cluster": "edge", "revision": 1, "changed": true, "dry_run": false,
                "directors": ["d1", "d2"], "warnings": [] })
    );
    let (id, desired) = server.stream("d2").await.next().await.unwrap();
    assert_eq!(id, format!("{}:1", desired.epoch));
    assert_eq!((desired.generation, desired.revision), (1, 1));
    assert_eq!(desired.director.as_str(), "d2");
    assert_eq!(desired.router_id.to_string(), "10.0.2.2");
    assert_eq!(desired.service[0].real_server.len(), 2);
    let expected = Placement::declared(&desired.service[0], &desired.lvs).digest();
    assert_eq!(desired.lvs.profile, Profile::Stateless);
    assert_eq!(desired.digests[&desired.service[0].id()], expected);
}

#[tokio::test]
async fn each_director_is_told_its_own_cost() {
    let server = Server::start().await;
    let mut declaration = declaration_json(2);
    declaration["vip"][0]["director_cost"] = json!({ "d2": 100 });
    server.call("PUT", "clusters/edge", &declaration).await;
    for (director, cost) in [("d1", 1), ("d2", 100)] {
        let (_, desired) = server.stream(director).await.next().await.unwrap();
        assert_eq!(desired.vip[0].announce.cost, cost, "{director}");
        assert!(desired.vip[0].director_cost.is_empty(), "{director}");
    }
    let revision = server.get("clusters/edge/revisions/1").await.json;
    assert_eq!(
        revision["declaration"]["vip"][0]["director_cost"]["d2"], 100,
        "what is stored is what was declared"
    );
}

#[tokio::test]
async fn what_is_unwise_is_answered_and_stays_to_be_seen() {
    let server = Server::start().await;
    let mut unwise = declaration_json(2);
    unwise["service"][0]["scheduler"] = json!("wlc");
    for (path, changed) in [
        ("clusters/edge?dry_run=true", true),
        ("clusters/edge", true),
        ("clusters/edge", false),
    ] {
        let answer = server.call("PUT", path, &unwise).await;
        assert_eq!(answer.json["changed"], changed, "{path}");
        let warning = &answer.json["warnings"][0];
        assert_eq!(warning["code"], "scheduler-not-shared", "{path}");
        assert_eq!(warning["at"], "/service/0/scheduler", "{path}");
    }
    let view = server.view().await;
    assert_eq!(view.warnings.len(), 1);
    assert_eq!(view.warnings[0].code, WarningCode::SchedulerNotShared);
    server.declare(2).await;
    assert_eq!(server.view().await.warnings, []);
}

#[tokio::test]
async fn nat_over_several_directors_at_one_cost_is_refused_with_its_place() {
    let server = Server::start().await;
    let mut nat = declaration_json(2);
    nat["service"][0]["forwarding"] = json!("nat");
    let answer = server.call("PUT", "clusters/edge", &nat).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        answer.json["errors"][0]["pointer"], "/service/0/forwarding",
        "{}",
        answer.text
    );
    nat["vip"][0]["director_cost"] = json!({ "d2": 100 });
    let answer = server.call("PUT", "clusters/edge", &nat).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    assert_eq!(answer.json["warnings"][0]["code"], "nat-with-backup");
}

#[tokio::test]
async fn a_refused_declaration_names_each_place_and_leaves_everything_as_it_was() {
    let server = Server::start().await;
    server.declare(2).await;
    let before = server.view().await;
    let mut stream = server.stream("d1").await;
    let (_, desired) = stream.next().await.unwrap();
    let mut bad = declaration_json(2);
    bad["vip"][0]["announce"] = json!({ "cost": 0 });
    bad["service"][0]["quorum"] = json!(3);
    bad["director"][1]["router_id"] = json!("10.0.1.2");
    bad["cluster"] = json!("other");
    let answer = server.call("PUT", "clusters/edge", &bad).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    let errors = answer.json["errors"].as_array().unwrap();
    let pointers: Vec<_> = errors
        .iter()
        .map(|e| e["pointer"].as_str().unwrap())
        .collect();
    assert_eq!(
        pointers,
        [
            "/director/1/router_id",
            "/vip/0/announce/cost",
            "/service/0/quorum",
            "/cluster"
        ]
    );
    let after = server.view().await;
    assert_eq!((after.revision, &after.events), (1, &before.events));
    let revisions = server.get("clusters/edge/revisions").await;
    assert_eq!(revisions.json.as_array().unwrap().len(), 1);
    let (_, again) = server.stream("d1").await.next().await.unwrap();
    assert_eq!(again, desired);
}

#[tokio::test]
async fn a_body_that_cannot_be_read_has_its_place() {
    let server = Server::start().await;
    let mut unknown = declaration_json(1);
    unknown["service"][0]["prot"] = json!("tcp");
    let answer = server.call("PUT", "clusters/edge", &unknown).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer.json["errors"][0]["pointer"], "/service/0/prot");
    assert!(answer.text.contains("unknown field"), "{}", answer.text);
    assert_eq!(
        server.get("clusters/edge").await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_generation_moves_only_for_those_whose_desired_state_changes() {
    let server = Server::start().await;
    server.declare(2).await;
    let same = server.declare(2).await;
    assert_eq!(same.status, StatusCode::OK);
    assert_eq!(same.json["changed"], false);
    assert_eq!(same.json["revision"], 1);

    let grown = server.declare(3).await;
    assert_eq!(grown.json["directors"], json!(["d3"]));
    let (_, d1) = server.stream("d1").await.next().await.unwrap();
    assert_eq!(
        (d1.generation, d1.revision),
        (1, 1),
        "nothing changes for d1"
    );

    let mut stream = server.stream("d1").await;
    stream.next().await.unwrap();
    let mut costlier = declaration_json(3);
    costlier["vip"][0]["announce"] = json!({ "cost": 20 });
    let answer = server
        .call("PUT", "clusters/edge?reason=canary", &costlier)
        .await;
    assert_eq!(answer.json["directors"], json!(["d1", "d2", "d3"]));
    let (_, d1) = stream.next().await.unwrap();
    assert_eq!(
        (d1.generation, d1.revision, d1.vip[0].announce.cost),
        (2, 3, 20)
    );

    let listed = server.get("clusters/edge/revisions").await.json;
    assert_eq!(listed[0]["revision"], 3);
    assert_eq!(
        (&listed[0]["actor"], &listed[0]["reason"]),
        (&json!("ops"), &json!("canary"))
    );
    let second = server.get("clusters/edge/revisions/2").await.json;
    assert_eq!(
        second["declaration"]["director"].as_array().unwrap().len(),
        3
    );
    let missing = server.get("clusters/edge/revisions/9").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_dry_run_says_what_would_change_and_changes_nothing() {
    let server = Server::start().await;
    server.declare(2).await;
    let answer = server
        .call("PUT", "clusters/edge?dry_run=true", &declaration_json(3))
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json["revision"], 2);
    assert_eq!(answer.json["directors"], json!(["d3"]));
    let view = server.view().await;
    assert_eq!((view.revision, view.directors.len()), (1, 2));
    let real = server.declare(3).await;
    assert_eq!(
        real.json["revision"], 2,
        "the dry run did not take a number"
    );
}

#[tokio::test]
async fn the_stream_of_a_removed_director_ends() {
    let server = Server::start().await;
    server.declare(2).await;
    let mut stream = server.stream("d2").await;
    stream.next().await.unwrap();
    server.declare(1).await;
    assert!(stream.next().await.is_none());
    let path = "clusters/edge/directors/d2";
    assert_eq!(server.get(path).await.status, StatusCode::NOT_FOUND);
    server.declare(2).await;
    let (_, back) = server.stream("d2").await.next().await.unwrap();
    assert_eq!(back.generation, 2, "it goes on counting");
}

#[tokio::test]
async fn lists_and_names_have_their_limits() {
    let server = Server::start().await;
    server.declare(1).await;
    let cases: [(&str, Value, &str); 9] = [
        ("/max_paths", json!(0), "/max_paths"),
        ("/max_paths", json!(65), "/max_paths"),
        ("/switch/0/name", json!(""), "/switch/0/name"),
        ("/switch/0/name", json!("x".repeat(64)), "/switch/0/name"),
        ("/switch/0/name", json!("a\u{0}b"), "/switch/0/name"),
        (
            "/vip/0/announce",
            json!({ "cost": 65536 }),
            "/vip/0/announce/cost",
        ),
        (
            "/service/0/check/path",
            json!(format!("/{}", "x".repeat(1024))),
            "/service/0/check/path",
        ),
        (
            "/service/0/check/host",
            json!("x".repeat(254)),
            "/service/0/check/host",
        ),
        (
            "/director/0/name",
            json!("x".repeat(64)),
            "/director/0/name",
        ),
    ];
    for (place, value, pointer) in cases {
        let mut declaration = declaration_json(1);
        let (parent, key) = place.rsplit_once('/').unwrap();
        declaration.pointer_mut(parent).unwrap()[key] = value;
        refused_at(&server, &declaration, pointer).await;
    }
    let mut many = declaration_json(1);
    let servers =
        (0..1025).map(|n| json!({ "address": format!("10.2.{}.{}", n / 250, n % 250 + 1) }));
    many["service"][0]["real_server"] = servers.collect();
    refused_at(&server, &many, "/service/0/real_server").await;
    let mut many = declaration_json(1);
    let vips = (0..1025).map(|n| json!({ "address": format!("10.3.{}.{}", n / 250, n % 250 + 1) }));
    many["vip"] = vips.collect();
    refused_at(&server, &many, "/vip").await;
    assert_eq!(server.view().await.revision, 1, "nothing was changed");
}

async fn refused_at(server: &Server, declaration: &Value, pointer: &str) {
    let answer = server.call("PUT", "clusters/edge", declaration).await;
    assert_eq!(
        answer.status,
        StatusCode::UNPROCESSABLE_ENTITY,
        "{pointer}: {}",
        answer.text
    );
    let errors = answer.json["errors"].as_array().unwrap();
    let pointers: Vec<_> = errors.iter().map(|error| &error["pointer"]).collect();
    assert!(
        pointers.iter().any(|found| *found == pointer),
        "{pointer}: {pointers:?}"
    );
}
