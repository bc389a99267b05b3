//! What outlives the controller.

use axum::http::StatusCode;
use isopath_api::desired::AdminState;
use isopath_api::reason::Reason;
use isopath_api::view::State;
use serde_json::json;

use crate::testing::{Server, observed, withdrawn};

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let server = Server::start().await;
    server.declare(2).await;
    for n in [1, 2] {
        server.follow(observed(n, &[1, 2])).await;
    }
    let path = "clusters/edge/directors/d1/drain";
    let drained = server
        .call("POST", path, &json!({ "reason": "kernel" }))
        .await;
    assert_eq!(drained.status, StatusCode::ACCEPTED);
    let (_, before) = server.stream("d1").await.next().await.unwrap();

    let server = server.killed_and_started_again().await;
    let (_, after) = server.stream("d1").await.next().await.unwrap();
    assert_eq!(after, before, "the same generation has the same content");
    let view = server.view().await;
    assert_eq!(view.directors[0].admin_state, AdminState::Draining);
    assert_eq!(view.operations.len(), 1);
    assert_eq!(view.operations[0].id, drained.json["id"].as_str().unwrap());
    assert_eq!(view.operations[0].reason, "kernel");
    assert!(
        view.events
            .iter()
            .any(|event| event.what == "drain requested: kernel")
    );
}

#[tokio::test]
async fn a_drain_goes_on_after_a_restart_once_everybody_was_heard() {
    let server = Server::start().await;
    server.declare(2).await;
    for n in [1, 2] {
        server.follow(observed(n, &[1, 2])).await;
    }
    let drained = server
        .call("POST", "clusters/edge/directors/d1/drain", &json!({}))
        .await;
    let location = drained.headers["location"].to_str().unwrap().to_owned();

    let server = server.killed_and_started_again().await;
    let reason = Reason::Drained {
        text: String::new(),
    };
    server.follow(withdrawn(1, &[2], reason)).await;
    let operation = server.get(&location).await.json;
    assert_eq!(
        operation["state"], "settling",
        "the silence of d2 proves nothing yet"
    );
    server.follow(observed(2, &[2])).await;
    assert_eq!(server.get(&location).await.json["state"], "succeeded");
}

#[tokio::test]
async fn after_a_start_nobody_is_called_lost() {
    let server = Server::start().await;
    server.declare(1).await;
    server.follow(observed(1, &[1])).await;
    let server = server.killed_and_started_again().await;
    let view = server.view().await;
    assert_eq!(view.directors[0].state, State::Unknown);
    assert_eq!(
        view.directors[0].why,
        "not heard since the controller started"
    );
    server.clock.advance(std::time::Duration::from_secs(61));
    assert!(
        server.view().await.directors[0]
            .why
            .contains("was never heard")
    );
}

#[tokio::test]
async fn the_agent_heard_before_the_restart_keeps_its_place_for_a_moment() {
    let server = Server::start().await;
    server.declare(1).await;
    server.follow(observed(1, &[1])).await;
    let server = server.killed_and_started_again().await;
    let mut second = observed(1, &[1]);
    second.instance = "impostor".to_owned();
    assert_eq!(server.report(&second).await.status, StatusCode::CONFLICT);
    assert_eq!(
        server.follow(observed(1, &[1])).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn one_database_is_served_once() {
    let server = Server::start().await;
    let _lock = server.lock();
    let error = crate::commands::serve(
        "127.0.0.1:0".parse().unwrap(),
        &server.url(),
        std::io::sink(),
    )
    .await
    .unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.starts_with("another isopathd serves from"),
        "{source}"
    );
}
