//! Agents that belong to their directors, and agents that do not.

use std::time::Duration;

use axum::http::StatusCode;
use isopath_api::observed::Acknowledged;
use isopath_api::view::State;

use crate::testing::{Server, observed, request, router_id};

#[tokio::test]
async fn a_report_is_answered_with_what_is_wanted() {
    let server = Server::start().await;
    server.declare(1).await;
    let answer = server.report(&observed(1, &[1])).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let acknowledged: Acknowledged = serde_json::from_value(answer.json).unwrap();
    assert_eq!(acknowledged.epoch, server.app.world().epoch);
    assert_eq!(
        (acknowledged.generation, acknowledged.interval_ms),
        (1, 1000)
    );
    let view = server.view().await;
    assert_eq!(
        view.directors[0].state,
        State::Degraded,
        "it follows another epoch"
    );
    server.follow(observed(1, &[1])).await;
    assert_eq!(server.view().await.directors[0].state, State::Up);
}

#[tokio::test]
async fn a_second_agent_of_one_name_is_refused_and_shown() {
    let server = Server::start().await;
    server.declare(2).await;
    server.follow(observed(1, &[1, 2])).await;
    server.follow(observed(2, &[1, 2])).await;
    let mut second = observed(1, &[]);
    second.instance = "impostor".to_owned();
    for _ in 0..3 {
        let answer = server.report(&second).await;
        assert_eq!(answer.status, StatusCode::CONFLICT);
        assert!(
            answer.text.contains("a second agent (instance impostor)"),
            "{}",
            answer.text
        );
    }
    let view = server.view().await;
    assert_eq!(
        view.directors[0].state,
        State::Up,
        "the first one's reports stand"
    );
    let problem = view
        .problems
        .iter()
        .find(|p| p.object == "agent of director d1")
        .unwrap();
    assert!(
        problem.cause.contains("impostor") && !problem.next.is_empty(),
        "{problem:?}"
    );
    let refusals = view
        .events
        .iter()
        .filter(|event| event.what.starts_with("refused"));
    assert_eq!(
        refusals.count(),
        1,
        "three tries are one thing: {:?}",
        view.events
    );

    server.clock.advance(Duration::from_secs(31));
    server.follow(observed(1, &[1, 2])).await;
    let view = server.view().await;
    assert!(
        !view
            .problems
            .iter()
            .any(|p| p.object.starts_with("agent of")),
        "it went away"
    );
}

#[tokio::test]
async fn its_stream_is_refused_as_well() {
    let server = Server::start().await;
    server.declare(1).await;
    server.follow(observed(1, &[1])).await;
    let path = "clusters/edge/directors/d1/desired";
    let headers = [
        ("isopath-instance", "impostor", "a second agent"),
        ("isopath-router-id", "10.0.9.2", "router id 10.0.9.2"),
    ];
    for (name, value, expected) in headers {
        let mut stream = request("GET", path, Some(&server.agent), None);
        stream.headers_mut().insert(name, value.parse().unwrap());
        let answer = server.send(stream).await;
        assert_eq!(answer.status, StatusCode::CONFLICT);
        assert!(answer.text.contains(expected), "{}", answer.text);
    }
    let mut stream = request("GET", path, Some(&server.agent), None);
    stream
        .headers_mut()
        .insert("isopath-router-id", "ten".parse().unwrap());
    let answer = server.send(stream).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text.contains("isopath-router-id"), "{}", answer.text);
}

#[tokio::test]
async fn another_agent_takes_over_once_the_first_is_silent() {
    let server = Server::start().await;
    server.declare(1).await;
    server.follow(observed(1, &[1])).await;
    let mut successor = observed(1, &[1]);
    successor.instance = "successor".to_owned();
    server.clock.advance(Duration::from_secs(4));
    assert_eq!(server.report(&successor).await.status, StatusCode::CONFLICT);
    server.clock.advance(Duration::from_secs(2));
    assert_eq!(server.follow(successor).await.status, StatusCode::OK);
    let answer = server.report(&observed(1, &[1])).await;
    assert_eq!(
        answer.status,
        StatusCode::CONFLICT,
        "now the first is the second"
    );
    let events = server.view().await.events;
    let taken = events.iter().find(|event| event.what.contains("took over"));
    assert!(taken.is_some(), "{events:?}");
}

#[tokio::test]
async fn a_wrong_name_or_router_id_is_refused_and_shown() {
    let server = Server::start().await;
    server.declare(2).await;
    let mut wrong = observed(1, &[]);
    wrong.router_id = router_id(2);
    let answer = server.report(&wrong).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(
        answer.text.contains("router id 10.0.2.2"),
        "{}",
        answer.text
    );
    assert!(
        answer.text.contains("declared router id is 10.0.1.2"),
        "{}",
        answer.text
    );

    let body = serde_json::to_value(observed(2, &[])).unwrap();
    let path = "clusters/edge/directors/d1/observed";
    let answer = server
        .send(request("POST", path, Some(&server.agent), Some(&body)))
        .await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(answer.text.contains("calls itself d2"), "{}", answer.text);
    let view = server.view().await;
    assert!(
        view.problems
            .iter()
            .any(|p| p.object == "agent of director d1"),
        "{view:?}"
    );
    assert_eq!(view.directors[0].last_report, None);
}

#[tokio::test]
async fn an_overtaken_report_does_not_undo_a_newer_one() {
    let server = Server::start().await;
    server.declare(1).await;
    let mut newer = observed(1, &[1]);
    newer.sequence = 7;
    newer.version = "newer".to_owned();
    server.report(&newer).await;
    let mut older = observed(1, &[1]);
    older.sequence = 6;
    let answer = server.report(&older).await;
    assert_eq!(answer.status, StatusCode::OK);
    let version = async || server.view().await.directors[0].version.clone();
    assert_eq!(version().await.as_deref(), Some("newer"));
    older.run = "run-2".to_owned();
    server.report(&older).await;
    assert_eq!(
        version().await.as_deref(),
        Some("0.1.0"),
        "a restarted agent counts anew"
    );
}

#[tokio::test]
async fn an_unknown_director_is_not_found() {
    let server = Server::start().await;
    server.declare(1).await;
    let answer = server.report(&observed(2, &[])).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(answer.text.contains("director d2"), "{}", answer.text);
}

#[tokio::test]
async fn a_malformed_report_has_its_place_and_changes_nothing() {
    let server = Server::start().await;
    server.declare(1).await;
    server.follow(observed(1, &[1])).await;
    let mut body = serde_json::to_value(observed(1, &[1])).unwrap();
    body["vips"][0]["cost"] = serde_json::json!(-1);
    let path = "clusters/edge/directors/d1/observed";
    let answer = server
        .send(request("POST", path, Some(&server.agent), Some(&body)))
        .await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer.json["errors"][0]["pointer"], "/vips/0/cost");
    assert_eq!(server.view().await.directors[0].state, State::Up);
}

#[tokio::test]
async fn the_stream_ends_with_the_server() {
    let server = Server::start().await;
    server.declare(1).await;
    let mut stream = server.stream("d1").await;
    stream.next().await.unwrap();
    server.stop();
    assert!(stream.next().await.is_none());
}
