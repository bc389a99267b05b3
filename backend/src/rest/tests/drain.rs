//! Drains and undrains, with directors that report.

use axum::http::StatusCode;
use isopath_api::desired::AdminState;
use isopath_api::observed::Observed;
use isopath_api::reason::Reason;
use isopath_api::view::State;
use serde_json::{Value, json};

use crate::testing::{Answer, Server, observed, read, router_id, withdrawn, without_dataplane};

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

/// The report of a director while d1 announces at the highest metric.
fn raised(n: u8) -> Observed {
    let mut report = observed(n, &[1, 2]);
    let speaker = report.speaker.as_mut().unwrap();
    speaker.widths[0].through = vec![router_id(2)];
    if n == 1 {
        speaker.announced[0].cost = 65535;
    }
    report
}

fn detail(operation: &Value) -> &str {
    operation["detail"].as_str().unwrap()
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

    server.follow(raised(1)).await;
    let operation = server.get(&location).await.json;
    assert!(
        detail(&operation).contains("in the equal-cost set of 10.0.0.1"),
        "{operation}"
    );
    server.follow(raised(2)).await;
    let (_, desired) = stream.next().await.unwrap();
    assert_eq!(
        (desired.admin_state, desired.generation),
        (AdminState::Drained, 3)
    );
    let operation = server.get(&location).await.json;
    assert_eq!(operation["state"], "applying", "{operation}");

    let withdrawn = without_dataplane(withdrawn(1, &[2], DRAINED));
    server.follow(withdrawn).await;
    let operation = server.get(&location).await.json;
    assert_eq!(
        operation["state"], "settling",
        "d2 still lists it: {operation}"
    );
    server.follow(observed(2, &[2])).await;
    let operation = server.get(&location).await.json;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert!(operation["ended_at"].is_string());
    let steps = operation["steps"].as_array().unwrap();
    let states: Vec<_> = steps.iter().map(|step| &step["state"]).collect();
    assert_eq!(states, ["done"; 5], "{operation}");
    assert_eq!(steps[4]["evidence"], "d1: not measured: no data plane");
    let target = json!([{ "director": "d1", "need_gen": 3, "acked_gen": 3, "vip_pps": null,
        "active": 6, "inactive": 2 }]);
    assert_eq!(
        operation["targets"], target,
        "what was counted last is kept"
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
async fn a_removed_directors_drain_fails_and_is_told() {
    let server = serving().await;
    let answer = drain(&server, "d2", &json!({})).await;
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    server.declare(1).await;
    let operation = server.get(&location).await.json;
    assert_eq!(operation["state"], "failed");
    let view = server.view().await;
    assert!(view.operations.is_empty());
    let said = "director.drain failed: d2 is declared no more";
    assert!(
        view.events.iter().any(|it| it.what == said),
        "{:?}",
        view.events
    );
    let ended = &server.app.world().operations_ended;
    assert_eq!(ended.get(&("director.drain", "failed")), Some(&1));
}

/// The report of a director that has these real servers at these weights and connections.
fn serving_with(n: u8, servers: [(u16, u32); 2]) -> Observed {
    let mut report = read(observed(n, &[1, 2]));
    for (server, (weight, active)) in report.services[0].real_servers.iter_mut().zip(servers) {
        server.weight = weight;
        server.effective_weight = Some(weight.into());
        server.active = active;
    }
    report
}

#[tokio::test]
async fn a_real_server_is_drained_when_no_director_has_a_connection_to_it() {
    let server = serving().await;
    let mut stream = server.stream("d2").await;
    let (_, before) = stream.next().await.unwrap();
    let path = "clusters/edge/real-servers/10.1.0.11/drain";
    let answer = server
        .call("POST", path, &json!({ "reason": "disk" }))
        .await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    assert_eq!(answer.json["kind"], "real_server.drain");
    assert_eq!(answer.json["target"], "10.1.0.11");
    let location = answer.headers["location"].to_str().unwrap().to_owned();

    let (_, desired) = stream.next().await.unwrap();
    assert_eq!(desired.generation, before.generation + 1);
    let weights: Vec<u16> = desired.service[0]
        .real_server
        .iter()
        .map(|it| it.weight)
        .collect();
    assert_eq!(weights, [0, 1]);
    let lvs = desired.lvs;
    let own = isopath_api::digest::expected(&desired.service, &lvs);
    assert_eq!(desired.digests, own, "what a director works out itself");

    server.follow(serving_with(1, [(0, 5), (1, 0)])).await;
    let operation = server.get(&location).await.json;
    assert_eq!(
        operation["state"], "applying",
        "d2 has not said so: {operation}"
    );
    server.follow(serving_with(2, [(0, 2), (1, 0)])).await;
    let operation = server.get(&location).await.json;
    assert_eq!(operation["state"], "settling", "{operation}");
    assert_eq!(detail(&operation), "connections left: 5 on d1, 2 on d2");
    let path = "clusters/edge/real-servers/10.1.0.11:80/drain";
    let again = server.call("POST", path, &json!({})).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{}", again.text);
    assert!(
        again.text.contains(operation["id"].as_str().unwrap()),
        "{}",
        again.text
    );

    // What the operation is at is not lost with the controller.
    let server = server.killed_and_started_again().await;
    for n in [1, 2] {
        server.follow(serving_with(n, [(0, 0), (1, 4)])).await;
    }
    let operation = server.get(&location).await.json;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    let shown = server
        .get("clusters/edge/real-servers/10.1.0.11")
        .await
        .json;
    assert_eq!(shown[0]["admin_state"], "drained", "{shown}");
    assert_eq!(
        (&shown[0]["weight"], &shown[0]["wanted_weight"]),
        (&json!(1), &json!(0))
    );

    let last = server
        .call(
            "POST",
            "clusters/edge/real-servers/10.1.0.12/drain",
            &json!({}),
        )
        .await;
    assert_eq!(
        last.json["guards"],
        json!(["quorum", "last_real_server"]),
        "{}",
        last.text
    );
    let path = "clusters/edge/real-servers/10.1.0.11/undrain";
    let answer = server.call("POST", path, &json!({})).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    for n in [1, 2] {
        server.follow(serving_with(n, [(1, 0), (1, 4)])).await;
    }
    assert_eq!(server.get(&location).await.json["state"], "succeeded");
    let (_, after) = server.stream("d2").await.next().await.unwrap();
    assert_eq!(after.service, before.service);
    assert_eq!(after.digests, before.digests);
}

#[tokio::test]
async fn a_real_server_is_removed_at_the_deadline_where_that_was_asked_for() {
    let server = serving().await;
    let body = json!({ "deadline_s": 60, "on_deadline": "remove" });
    let path = "clusters/edge/real-servers/10.1.0.11:80/drain";
    let answer = server.call("POST", path, &body).await;
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    server.clock.advance(std::time::Duration::from_secs(61));
    for n in [1, 2] {
        server.follow(serving_with(n, [(0, 5), (1, 0)])).await;
    }
    let operation = server.get(&location).await.json;
    assert_eq!(operation["steps"][3]["step"], "remove");
    assert_eq!(operation["steps"][3]["state"], "now", "{operation}");
    let (_, desired) = server.stream("d1").await.next().await.unwrap();
    assert_eq!(desired.service[0].real_server.len(), 1);
    for n in [1, 2] {
        let mut report = read(observed(n, &[1, 2]));
        report.services[0].real_servers.remove(0);
        server.follow(report).await;
    }
    let operation = server.get(&location).await.json;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert!(
        detail(&operation).contains("5 on d1, 5 on d2"),
        "{operation}"
    );
}

#[tokio::test]
async fn a_vip_is_drained_on_all_directors_and_its_services_stay() {
    let server = serving().await;
    let path = "clusters/edge/vips/10.99.0.1";
    let answer = server
        .call("POST", &format!("{path}/drain"), &json!({}))
        .await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    let (_, desired) = server.stream("d1").await.next().await.unwrap();
    assert!(desired.withdraw.contains_key(&"10.99.0.1".parse().unwrap()));
    assert_eq!((desired.vip.len(), desired.service.len()), (1, 1));
    assert_eq!(desired.admin_state, AdminState::Active);

    server
        .follow(without_dataplane(withdrawn(1, &[2], DRAINED)))
        .await;
    assert_eq!(server.get(&location).await.json["state"], "applying");
    for n in [1, 2] {
        server
            .follow(without_dataplane(withdrawn(n, &[], DRAINED)))
            .await;
    }
    let operation = server.get(&location).await.json;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert_eq!(server.view().await.vips[0].state, State::Safe);

    let server = server.killed_and_started_again().await;
    let (_, desired) = server.stream("d1").await.next().await.unwrap();
    assert_eq!(
        desired.withdraw.len(),
        1,
        "it stays out until it is undrained"
    );
    let answer = server
        .call("POST", &format!("{path}/undrain"), &json!({}))
        .await;
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    for n in [1, 2, 1] {
        server.follow(observed(n, &[1, 2])).await;
    }
    assert_eq!(server.get(&location).await.json["state"], "succeeded");
}

#[tokio::test]
async fn what_is_cancelled_is_as_it_was() {
    let server = serving().await;
    let drained = drain(&server, "d1", &json!({ "immediate": true })).await;
    assert_eq!(
        drained.json["steps"][1]["state"], "skipped",
        "{}",
        drained.text
    );
    let (_, desired) = server.stream("d1").await.next().await.unwrap();
    assert_eq!(desired.admin_state, AdminState::Drained, "at once");
    let path = format!("operations/{}/cancel", drained.json["id"].as_str().unwrap());
    let answer = server.call("POST", &path, &json!({})).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    assert_eq!(answer.json["state"], "cancelling");
    let (_, desired) = server.stream("d1").await.next().await.unwrap();
    assert_eq!(desired.admin_state, AdminState::Active);
    let again = server.call("POST", &path, &json!({})).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{}", again.text);

    let server = server.killed_and_started_again().await;
    server.follow(observed(1, &[1, 2])).await;
    let location = drained.headers["location"].to_str().unwrap();
    assert_eq!(server.get(location).await.json["state"], "cancelled");
    let ended = server.call("POST", &path, &json!({})).await;
    assert_eq!(ended.status, StatusCode::CONFLICT, "{}", ended.text);
    let missing = server
        .call("POST", "operations/op_none/cancel", &json!({}))
        .await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

/// To cancel an undrain takes its target out of service: guards keep what is needed meanwhile.
#[tokio::test]
async fn an_undrain_of_the_last_announcer_is_not_cancelled() {
    let server = serving().await;
    drain(&server, "d1", &json!({ "immediate": true })).await;
    server.follow(withdrawn(1, &[2], DRAINED)).await;
    server.follow(observed(2, &[2])).await;
    let undrained = undrain(&server, "d1").await;
    let cancel = format!(
        "operations/{}/cancel",
        undrained.json["id"].as_str().unwrap()
    );
    // d1 is back, and d2, which has not heard of it yet, stops.
    server.follow(observed(1, &[1, 2])).await;
    server.follow(withdrawn(2, &[], Reason::Stopping)).await;
    let refused = server.call("POST", &cancel, &json!({})).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.text);
    assert_eq!(refused.json["guards"], json!(["last_announcer"]));
    let detail = refused.json["detail"].as_str().unwrap();
    let words = "to cancel this undrain would take d1 out of service at once";
    assert!(detail.starts_with(words), "{detail}");
    let (_, desired) = server.stream("d1").await.next().await.unwrap();
    assert_eq!(desired.admin_state, AdminState::Active);
    let location = undrained.headers["location"].to_str().unwrap();
    let operation = server.get(location).await.json;
    assert_ne!(operation["state"], "cancelling", "{operation}");

    server.follow(observed(2, &[2])).await;
    let cancelled = server.call("POST", &cancel, &json!({})).await;
    assert_eq!(cancelled.status, StatusCode::ACCEPTED, "{}", cancelled.text);
    let (_, desired) = server.stream("d1").await.next().await.unwrap();
    assert_eq!(desired.admin_state, AdminState::Drained);
}

#[tokio::test]
async fn a_preview_says_what_would_be_and_changes_nothing() {
    let server = serving().await;
    let before = server.view().await;
    let path = "clusters/edge/directors/d1/drain?dry_run=true";
    let preview = server.call("POST", path, &json!({})).await;
    assert_eq!(preview.status, StatusCode::OK, "{}", preview.text);
    assert_eq!(preview.json["admitted"], true, "{}", preview.text);
    let left = json!([{ "object": "10.99.0.1", "unit": "directors", "now": 2, "after": 1,
        "directors": ["d2"] }]);
    assert_eq!(preview.json["left"], left);
    assert_eq!(preview.json["flows"][0]["active"], 6);
    assert_eq!(preview.json["flows"][0]["percent"], 50.0);
    let path = "clusters/edge/real-servers/10.1.0.11/drain?dry_run=true";
    let preview = server.call("POST", path, &json!({})).await;
    assert_eq!(preview.json["left"][0]["after"], 1, "{}", preview.text);
    assert_eq!(preview.json["flows"][1]["active"], 3);
    let path = "clusters/edge/vips/10.99.0.1/drain?dry_run=true";
    let preview = server.call("POST", path, &json!({})).await;
    let withdraw = preview.json["steps"][1]["waits_for"].as_str().unwrap();
    let warning = "an agent of a release that cannot withdraw one VIP alone refuses";
    assert!(withdraw.contains(warning), "{withdraw}");

    server.follow(withdrawn(2, &[1], Reason::Stopping)).await;
    let path = "clusters/edge/directors/d1/drain?dry_run=true";
    let refused = server.call("POST", path, &json!({})).await;
    assert_eq!(refused.status, StatusCode::OK);
    assert_eq!(refused.json["admitted"], false);
    assert_eq!(refused.json["guards"][0]["allows"], false);
    let after = server.view().await;
    assert_eq!(
        after.directors[0].generation,
        before.directors[0].generation
    );
    assert_eq!(after.operations, []);
    assert_eq!(server.get("operations").await.json, json!([]));
}

#[tokio::test]
async fn what_a_target_does_not_have_is_refused_by_its_place() {
    let server = serving().await;
    for (path, body, pointer) in [
        (
            "directors/d1/drain",
            json!({ "deadline_s": 0 }),
            "/deadline_s",
        ),
        (
            "directors/d1/drain",
            json!({ "deadline_s": 604_801 }),
            "/deadline_s",
        ),
        (
            "directors/d1/drain",
            json!({ "on_deadline": "remove" }),
            "/on_deadline",
        ),
        (
            "directors/d1/drain",
            json!({ "service": "tcp:10.99.0.1:80" }),
            "/service",
        ),
        (
            "directors/d1/undrain",
            json!({ "immediate": true }),
            "/immediate",
        ),
        (
            "vips/10.99.0.1/drain",
            json!({ "immediate": true }),
            "/immediate",
        ),
        (
            "real-servers/10.1.0.11/undrain",
            json!({ "on_deadline": "remove" }),
            "/on_deadline",
        ),
    ] {
        let answer = server
            .call("POST", &format!("clusters/edge/{path}"), &body)
            .await;
        assert_eq!(
            answer.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{path} {body}"
        );
        assert_eq!(
            answer.json["errors"][0]["pointer"], pointer,
            "{}",
            answer.text
        );
    }
    for path in [
        "vips/10.99.0.9/drain",
        "real-servers/10.1.0.99/drain",
        "real-servers/x/drain",
    ] {
        let answer = server
            .call("POST", &format!("clusters/edge/{path}"), &json!({}))
            .await;
        assert_eq!(
            answer.status,
            StatusCode::NOT_FOUND,
            "{path}: {}",
            answer.text
        );
    }
}

#[tokio::test]
async fn operations_are_listed_newest_first_and_by_what_they_are() {
    let server = serving().await;
    let first = drain(&server, "d1", &json!({})).await;
    let second = undrain(&server, "d1").await;
    let ids = |answer: Answer| -> Vec<String> {
        let all = answer.json.as_array().unwrap().clone();
        all.iter()
            .map(|it| it["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let of = |answer: &Answer| answer.json["id"].as_str().unwrap().to_owned();
    let (first, second) = (of(&first), of(&second));
    assert_eq!(
        ids(server.get("operations").await),
        [second.clone(), first.clone()]
    );
    let path = "operations?cluster=edge&state=cancelled";
    assert_eq!(ids(server.get(path).await), [first.as_str()]);
    assert_eq!(
        ids(server.get("operations?kind=director.undrain").await),
        [second.as_str()]
    );
    let page = server.get("operations?cluster=edge&limit=1").await;
    let link = page.headers["link"].to_str().unwrap().to_owned();
    assert_eq!(ids(page), [second.as_str()]);
    let (next, _) = link[1..].split_once(">; rel=\"next\"").unwrap();
    let page = server.get(next).await;
    assert!(page.headers.get("link").is_none(), "it is the last");
    assert_eq!(ids(page), [first]);
    let of_another = next.replace("cluster=edge", "kind=director.drain");
    assert_eq!(
        server.get(&of_another).await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        server.get("operations?kind=x").await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        server.get("operations?limit=0").await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn a_drain_that_is_sent_again_is_answered_as_before() {
    let server = serving().await;
    let send = || {
        let path = "clusters/edge/directors/d1/drain";
        let token = Some(server.operator.as_str());
        let mut request = crate::testing::request("POST", path, token, Some(&json!({})));
        let key = axum::http::HeaderValue::from_static("drain-1");
        request.headers_mut().insert("idempotency-key", key);
        server.send(request)
    };
    let (first, again) = (send().await, send().await);
    assert_eq!(first.status, StatusCode::ACCEPTED, "{}", first.text);
    assert_eq!((again.status, &again.json), (first.status, &first.json));
    assert_eq!(again.headers["location"], first.headers["location"]);
}
