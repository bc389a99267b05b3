//! Agents that belong to their directors, and agents that do not.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use isopath_api::observed::{Acknowledged, CheckResult, RealServerObserved};
use isopath_api::view::State;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::testing::{Server, declaration_json, observed, request, router_id};

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
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text);
    let again = server.report(&newer).await.status;
    assert_eq!(again, StatusCode::OK, "the same once more is no older one");
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
async fn a_stream_ends_with_its_token() {
    let server = Server::start().await;
    server.declare(1).await;
    let made = async |name: &str, days: Option<u16>| {
        let mut body = json!({ "name": name, "role": "agent", "clusters": ["edge"] });
        if let Some(days) = days {
            body["expires_days"] = days.into();
        }
        let made = server.call("POST", "tokens", &body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        made.json["token"].as_str().unwrap().to_owned()
    };
    let path = "clusters/edge/directors/d1/desired";
    let open = async |token: &str| {
        let mut stream = server.open(request("GET", path, Some(token), None)).await;
        stream.next().await.unwrap();
        stream
    };
    let (revoked, brief) = (made("revoked", None).await, made("brief", Some(1)).await);
    let mut told_nothing = open(&revoked).await;
    let mut told = open(&revoked).await;
    let (mut ended, mut good) = (open(&brief).await, open(&server.agent).await);
    let answer = server.call("DELETE", "tokens/revoked", &Value::Null).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
    assert!(told_nothing.next().await.is_none(), "it goes on");
    // What is new from now on is not for whoever has that token.
    server.declare(2).await;
    let mut other = declaration_json(2);
    other["vip"][0]["announce"]["cost"] = 77.into();
    let answer = server.call("PUT", "clusters/edge", &other).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert!(told.next().await.is_none(), "it was told");
    assert!(good.next().await.is_some());
    assert!(ended.next().await.is_some());
    server.clock.advance(Duration::from_secs(24 * 60 * 60));
    assert!(ended.next().await.is_none(), "it is no longer good");
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

#[tokio::test]
async fn a_report_may_be_as_large_as_what_is_declared_makes_it() {
    let server = Server::start().await;
    let mut declaration = declaration_json(1);
    let servers =
        (0..600).map(|n| json!({ "address": format!("10.2.{}.{}", n / 200, n % 200 + 1) }));
    declaration["service"][0]["real_server"] = servers.collect();
    let answer = server.call("PUT", "clusters/edge", &declaration).await;
    assert!(answer.status.is_success(), "{}", answer.text);
    // Of 600 real servers, each with what a failed check said in half a kibibyte.
    let mut report = observed(1, &[1]);
    let server_of = |n: u16| -> RealServerObserved {
        let mut of = report.services[0].real_servers[0].clone();
        of.real_server = format!("10.2.{}.{}:80", n / 200, n % 200 + 1)
            .parse()
            .unwrap();
        of.last_check = Some(CheckResult {
            ok: false,
            detail: "x".repeat(512),
            took_ms: 1,
            in_a_row: 1,
            at: Timestamp::UNIX_EPOCH,
        });
        of
    };
    let servers: Vec<_> = (0..600).map(server_of).collect();
    report.services[0].real_servers = servers;
    let size = serde_json::to_vec(&report).unwrap().len();
    assert!(size > 300 << 10, "{size}");
    let answer = server.report(&report).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    // The same of a cluster that declares two real servers.
    server.declare(1).await;
    report.sequence += 1;
    let answer = server.report(&report).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(server.view().await.directors[0].reports.accepted, 1);
}

#[tokio::test]
async fn a_body_without_a_length_is_read_no_further_than_allowed() {
    let server = Server::start().await;
    server.declare(1).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let pieces = {
        let sent = Arc::clone(&sent);
        (0..1024).map(move |_| {
            sent.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(vec![b' '; 16 << 10])
        })
    };
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    let mut request = request(
        "POST",
        "clusters/edge/directors/d1/observed",
        Some(&server.agent),
        None,
    );
    request.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    *request.body_mut() = body;
    let answer = server.send(request).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let read = sent.load(Ordering::Relaxed) * 16;
    assert!((256..512).contains(&read), "{read} KiB were read");
}

#[tokio::test]
async fn reports_are_counted_and_the_last_is_known() {
    let server = Server::start().await;
    server.declare(2).await;
    for sequence in 1..=5 {
        let mut report = observed(1, &[1]);
        report.sequence = sequence;
        server.report(&report).await;
    }
    // One that was overtaken on its way changes nothing.
    server.report(&observed(1, &[1])).await;
    let view = server.view().await;
    let of = |n: usize| {
        (
            view.directors[n].reports.accepted,
            view.directors[n].reports.last_sequence,
        )
    };
    assert_eq!((of(0), of(1)), ((5, Some(5)), (0, None)));
}

#[tokio::test]
async fn what_is_refused_is_counted_by_cause_and_shown() {
    let server = Server::start().await;
    server.declare(1).await;
    server.follow(observed(1, &[1])).await;
    let mut absurd = observed(1, &[1]);
    absurd.sequence = u64::MAX;
    let answer = server.report(&absurd).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer.json["errors"][0]["pointer"], "/sequence");
    let mut back = observed(1, &[1]);
    back.sequence = 9;
    back.epoch = Some("of another database".replace(' ', "-"));
    let answer = server.report(&back).await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text);
    let view = server.view().await;
    let refused = &view.directors[0].refused;
    assert_eq!((refused["absurd"], refused["epoch-back"]), (1, 1));
    assert_eq!(
        view.directors[0].state,
        State::Up,
        "the last good one stands"
    );
    let problem = view
        .problems
        .iter()
        .find(|p| p.object == "agent of director d1");
    assert!(
        problem.unwrap().cause.contains("another-database"),
        "{problem:?}"
    );
    let metrics = server.get("/metrics").await.text;
    let series = "cluster=\"edge\",director=\"d1\",cause=\"absurd\"} 1";
    assert!(metrics.contains(series), "{metrics}");
}

#[tokio::test]
async fn a_clock_that_is_off_is_shown_since_when() {
    let server = Server::start().await;
    server.declare(1).await;
    let mut late = observed(1, &[1]);
    late.at -= Duration::from_secs(60);
    let answer = server.report(&late).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let director = &server.view().await.directors[0];
    assert!(director.clock_skew_ms.unwrap() <= -60_000, "{director:?}");
    assert_eq!(director.conditions[0].code, "clock-skew");
}
