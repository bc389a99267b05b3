//! Drains and undrains, with directors that report.

use axum::http::StatusCode;
use isopath_api::desired::AdminState;
use isopath_api::reason::Reason;
use isopath_api::view::{OperationState, State};
use serde_json::{Value, json};

use crate::testing::{Answer, Server, observed, withdrawn};

const DRAINED: Reason = Reason::Drained {
    text: String::new(),
};

/// A server with two directors that both announce.
async fn serving() -> Server {
    let server = Server::start().await;
    server.declare(2).await;
    for n in [1, 2] {
        let answer = server.follow(observed(n, &[1, 2])).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }
    server
}

async fn drain(server: &Server, director: &str, body: &Value) -> Answer {
    let path = format!("clusters/edge/directors/{director}/drain");
    server.call("POST", &path, body).await
}

async fn undrain(server: &Server, director: &str) -> Answer {
    let path = format!("clusters/edge/directors/{director}/undrain");
    server.call("POST", &path, &json!({})).await
}

#[tokio::test]
async fn a_drain_goes_from_the_call_to_drained() {
    let server = serving().await;
    let mut stream = server.stream("d1").await;
    stream.next().await.unwrap();

    let answer = drain(&server, "d1", &json!({ "reason": "kernel" })).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    assert_eq!(answer.json["kind"], "director.drain");
    assert_eq!(answer.json["state"], "applying");
    assert_eq!(answer.json["requested_by"], "ops");
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    let (_, desired) = stream.next().await.unwrap();
    assert_eq!(desired.admin_state, AdminState::Draining);
    assert_eq!(
        (desired.generation, desired.admin_reason.as_str()),
        (2, "kernel")
    );
    assert_eq!(server.view().await.directors[0].state, State::Draining);

    server.follow(withdrawn(1, &[2], DRAINED)).await;
    let operation = server.get(&location).await.json;
    assert_eq!(
        operation["state"], "settling",
        "d2 still lists it: {operation}"
    );
    server.follow(observed(2, &[2])).await;
    let operation = server.get(&location).await.json;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert!(operation["ended_at"].is_string());

    let (_, desired) = stream.next().await.unwrap();
    assert_eq!(
        (desired.admin_state, desired.generation),
        (AdminState::Drained, 3)
    );
    let view = server.view().await;
    assert_eq!(view.directors[0].admin_state, AdminState::Drained);
    assert_eq!(view.directors[0].state, State::Safe);
    assert_eq!(view.operations, []);
    let whats: Vec<_> = view
        .events
        .iter()
        .map(|event| event.what.as_str())
        .collect();
    assert!(whats.contains(&"drain requested: kernel"), "{whats:?}");
    assert!(
        whats
            .iter()
            .any(|what| what.starts_with("director.drain succeeded")),
        "{whats:?}"
    );
}

#[tokio::test]
async fn an_undrain_ends_a_drain_under_way_and_late_reports_do_not_revive_it() {
    let server = serving().await;
    let mut stream = server.stream("d1").await;
    stream.next().await.unwrap();
    let drained = drain(&server, "d1", &json!({})).await;
    let drain_location = drained.headers["location"].to_str().unwrap().to_owned();
    stream.next().await.unwrap();
    let mut late = withdrawn(1, &[2], DRAINED);
    late.generation = 2;
    late.epoch = Some(server.app.world().epoch.clone());
    late.sequence = 50;

    let answer = undrain(&server, "d1").await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    let (_, desired) = stream.next().await.unwrap();
    assert_eq!(
        (desired.admin_state, desired.generation),
        (AdminState::Active, 3)
    );
    let operation = server.get(&drain_location).await.json;
    assert_eq!(operation["state"], "cancelled");
    assert!(
        operation["detail"]
            .as_str()
            .unwrap()
            .starts_with("undone by op_"),
        "{operation}"
    );

    server.report(&late).await;
    assert_eq!(server.get(&location).await.json["state"], "applying");
    server.follow(observed(1, &[1, 2])).await;
    assert_eq!(server.get(&location).await.json["state"], "succeeded");
    let view = server.view().await;
    assert_eq!(view.directors[0].admin_state, AdminState::Active);
    assert_eq!(
        view.directors[0].state,
        State::Up,
        "{}",
        view.directors[0].why
    );
}

#[tokio::test]
async fn the_last_announcer_stays_unless_the_guard_is_overridden_with_a_reason() {
    let server = serving().await;
    server.follow(withdrawn(2, &[1], Reason::Stopping)).await;
    let refused = drain(&server, "d1", &json!({ "reason": "kernel" })).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert_eq!(refused.json["type"], "/problems/guard-refused");
    assert_eq!(refused.json["guards"], json!(["last_announcer"]));
    let detail = refused.json["detail"].as_str().unwrap();
    assert!(
        detail.contains("10.99.0.1") && detail.contains("d1"),
        "{detail}"
    );
    let view = server.view().await;
    assert_eq!(view.directors[0].admin_state, AdminState::Active);
    assert_eq!(view.directors[0].generation, 1);

    let no_reason = drain(
        &server,
        "d1",
        &json!({ "override_guards": ["last_announcer"] }),
    )
    .await;
    assert_eq!(no_reason.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(no_reason.json["errors"][0]["pointer"], "/reason");
    let body = json!({ "override_guards": ["any"], "reason": "x" });
    let unknown = drain(&server, "d1", &body).await;
    assert_eq!(unknown.json["errors"][0]["pointer"], "/override_guards/0");

    let body = json!({ "override_guards": ["last_announcer"], "reason": "kernel" });
    let answer = drain(&server, "d1", &body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    assert_eq!(answer.json["override_guards"], json!(["last_announcer"]));
}

#[tokio::test]
async fn of_two_drains_that_together_lose_a_vip_the_second_is_refused() {
    let server = serving().await;
    let none = json!({});
    let (first, second) = tokio::join!(drain(&server, "d1", &none), drain(&server, "d2", &none));
    let mut statuses = [first.status, second.status];
    statuses.sort();
    assert_eq!(statuses, [StatusCode::ACCEPTED, StatusCode::CONFLICT]);
}

#[tokio::test]
async fn what_is_so_already_is_a_conflict_that_names_the_operation() {
    let server = serving().await;
    let active = undrain(&server, "d1").await;
    assert_eq!(active.status, StatusCode::CONFLICT);
    assert!(
        active.text.contains("in service already"),
        "{}",
        active.text
    );
    let first = drain(&server, "d1", &json!({})).await;
    let again = drain(&server, "d1", &json!({})).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    let id = first.json["id"].as_str().unwrap();
    assert!(again.text.contains(id), "{} does not name {id}", again.text);
    assert_eq!(again.json.get("guards"), None);
}

#[tokio::test]
async fn a_drain_takes_no_body_an_object_and_nothing_else() {
    let server = serving().await;
    let path = "clusters/edge/directors/d1/drain";
    let bad = server.call("POST", path, &json!({ "force": true })).await;
    assert_eq!(bad.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(bad.json["errors"][0]["pointer"], "/force");
    let long = server
        .call("POST", path, &json!({ "reason": "x".repeat(501) }))
        .await;
    assert_eq!(long.json["errors"][0]["pointer"], "/reason");
    let token = Some(server.operator.as_str());
    let answer = server
        .send(crate::testing::request("POST", path, token, None))
        .await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    let missing = drain(&server, "d9", &json!({})).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_removed_directors_drain_is_cancelled() {
    let server = serving().await;
    let answer = drain(&server, "d2", &json!({})).await;
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    server.declare(1).await;
    let operation = server.get(&location).await.json;
    let cancelled = serde_json::to_value(OperationState::Cancelled).unwrap();
    assert_eq!(operation["state"], cancelled);
    assert!(server.view().await.operations.is_empty());
}
